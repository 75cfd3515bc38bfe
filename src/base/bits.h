/* Small arithmetic that every layer needs. Pure; any thread. */
#ifndef BASE_BITS_H
#define BASE_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NSEC_PER_SEC 1000000000ull
#define countof(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define KIB 1024ull
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

static inline uint32_t extract32(uint32_t value, unsigned bit, unsigned width)
{
    return width >= 32 ? value >> bit : (value >> bit) & ((1u << width) - 1);
}

/* Mask of the low `size` bytes, size 1 to 8. */
static inline uint64_t bytes_mask(unsigned size)
{
    return size >= 8 ? ~0ull : (1ull << (8 * size)) - 1;
}

/* a * b / c without overflow of the product; c is not 0, the quotient is truncated to 64 bits. */
static inline uint64_t muldiv64(uint64_t a, uint64_t b, uint64_t c)
{
    return (uint64_t)((unsigned __int128)a * b / c);
}

/* align is a power of two. */
static inline uint64_t align_down(uint64_t v, uint64_t align)
{
    return v & ~(align - 1);
}

static inline uint64_t align_up(uint64_t v, uint64_t align)
{
    return (v + align - 1) & ~(align - 1);
}

/* FNV-1a over more bytes, from FNV1A_START on: for names that stay the same, not for secrets. */
#define FNV1A_START 0xcbf29ce484222325ull
static inline uint64_t fnv1a(uint64_t h, const void *data, size_t len)
{
    for (const uint8_t *p = data; len > 0; len--)
        h = (h ^ *p++) * 0x100000001b3ull;
    return h;
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

#endif
