#include "boot/tables.h"

#include "base/bits.h"

#define EBDA 0x9FC00ull /* end of conventional memory, by tradition */
#define VGA_HOLE 0xA0000ull

static void add(struct e820_entry *out, unsigned *n, uint64_t base, uint64_t end, uint32_t type)
{
    if (end > base)
        out[(*n)++] = (struct e820_entry){base, end - base, type};
}

/* The BIOS area is reserved, so that nothing is laid over the tables before they are read. */
unsigned e820_build(const struct board *b, struct e820_entry out[E820_MAX])
{
    uint64_t low = gmem_lowmem(b->mem);
    unsigned n = 0;

    add(out, &n, 0, min_u64(low, EBDA), E820_RAM);
    add(out, &n, EBDA, VGA_HOLE, E820_RESERVED);
    add(out, &n, BOARD_MP_TABLE, MIB, E820_RESERVED);
    add(out, &n, MIB, low, E820_RAM);
    add(out, &n, BOARD_ECAM_BASE, BOARD_ECAM_BASE + BOARD_ECAM_SIZE, E820_RESERVED);
    add(out, &n, GMEM_HIGH_BASE, GMEM_HIGH_BASE + gmem_highmem(b->mem), E820_RAM);
    return n;
}
