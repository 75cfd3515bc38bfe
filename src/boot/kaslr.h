/*
 * Where an unpacked kernel goes: at a random place in RAM and a random virtual slide, or at the one
 * it prefers. Any thread.
 */
#ifndef BOOT_KASLR_H
#define BOOT_KASLR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* True if `word` stands on the command line by itself. */
bool cmdline_has_word(const char *cmdline, const char *word);

/* len (at most 256) random bytes from the host; false if it has none to give. */
bool kaslr_bytes(void *to, size_t len);

/* Evenly distributed in 0..n-1; n is not 0. */
uint64_t kaslr_random(uint64_t n);

struct kaslr_range {
    uint64_t base, end;
};

/*
 * An address for size bytes, a multiple of align (a power of two), inside one of the ranges: the
 * lowest, or any of them with equal chance. False if there is none.
 */
bool kaslr_place(const struct kaslr_range *ranges, unsigned n, uint64_t size, uint64_t align,
                 bool random, uint64_t *out);

#endif
