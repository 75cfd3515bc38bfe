/* Little- and big-endian loads and stores at any alignment. Pure; any thread. */
#ifndef BASE_ENDIAN_H
#define BASE_ENDIAN_H

#include <assert.h>
#include <stdint.h>
#include <string.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "hosts are x86-64");

#define ENDIAN_DEFINE(bits)                                                                        \
    static inline uint##bits##_t le##bits##_load(const void *p)                                    \
    {                                                                                              \
        uint##bits##_t v;                                                                          \
        memcpy(&v, p, sizeof(v));                                                                  \
        return v;                                                                                  \
    }                                                                                              \
    static inline void le##bits##_store(void *p, uint##bits##_t v)                                 \
    {                                                                                              \
        memcpy(p, &v, sizeof(v));                                                                  \
    }                                                                                              \
    static inline uint##bits##_t be##bits##_load(const void *p)                                    \
    {                                                                                              \
        return __builtin_bswap##bits(le##bits##_load(p));                                          \
    }                                                                                              \
    static inline void be##bits##_store(void *p, uint##bits##_t v)                                 \
    {                                                                                              \
        le##bits##_store(p, __builtin_bswap##bits(v));                                             \
    }

ENDIAN_DEFINE(16)
ENDIAN_DEFINE(32)
ENDIAN_DEFINE(64)
#undef ENDIAN_DEFINE

#endif
