/*
 * Byte-wide chips on a bus that also does words: an access of 2 or 4 bytes is that many accesses of
 * one byte at consecutive ports, lowest first, as an ISA bridge splits them. Called with the
 * device's lock held.
 */
#ifndef DEV_BYTES_H
#define DEV_BYTES_H

#include <stdint.h>

static inline uint32_t bytes_in(void *dev, unsigned offset, unsigned size,
                                uint8_t (*in)(void *dev, unsigned offset))
{
    uint32_t value = 0;

    for (unsigned i = 0; i < size; i++)
        value |= (uint32_t)in(dev, offset + i) << (8 * i);
    return value;
}

static inline void bytes_out(void *dev, unsigned offset, unsigned size, uint32_t value,
                             void (*out)(void *dev, unsigned offset, uint8_t value))
{
    for (unsigned i = 0; i < size; i++)
        out(dev, offset + i, (uint8_t)(value >> (8 * i)));
}

/* Chips that work in binary-coded decimal. */
static inline uint8_t bcd_from(unsigned value)
{
    return (uint8_t)((value / 10 % 10) << 4 | value % 10);
}

static inline unsigned bcd_to(uint8_t bcd)
{
    return (bcd >> 4) * 10u + (bcd & 15u);
}

#endif
