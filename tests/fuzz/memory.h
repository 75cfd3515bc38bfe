/*
 * Guest memory for fuzz targets, and a driver that changes it at the worst moment.
 *
 * RAM is 16 MiB at 0 and 1 MiB at 4 GiB, each between pages that nobody can touch, so that an
 * access behind its end is a fault. gmem_create gives it, whatever size is asked for: the linker
 * sends the calls of gmem.h here (--wrap, see meson.build). So an ambush can lie in wait: before
 * the n-th time from now that a device asks for memory, some bytes of it become others. What a
 * device looks at twice is then two different things, each time the program is run.
 *
 * Include in one file of a target. One thread, one memory at a time.
 */
#ifndef TESTS_FUZZ_MEMORY_H
#define TESTS_FUZZ_MEMORY_H

#include <string.h>
#include <sys/mman.h>

#include "mem/gmem.h"
#include "program.h"

#define LOW_SIZE (16ull << 20)
#define HIGH_SIZE (1ull << 20)
#define GUARD (1ull << 20)
#define AMBUSHES 4u
#define RECENT 64u
#define PLACES_MAX 24u /* of a target */

struct ambush {
    unsigned calls; /* still to come before it happens; 0: none */
    uint64_t gpa, value;
    unsigned size;
};

#define PAGES ((LOW_SIZE + HIGH_SIZE) / GMEM_PAGE)

/* Kept from run to run: what was written is made zero again, page by page, since a fault costs
 * more. */
static struct {
    uint8_t *base; /* guard, low, guard, high, guard */
    bool dirty[PAGES];
    struct ambush ambush[AMBUSHES];
    uint64_t
        recent[RECENT]; /* where the driver has stored last: mostly fields of its last request */
    unsigned stores;
} guest;

struct gmem *__wrap_gmem_create(uint64_t size, struct error *err);
void *__real_gmem_ptr(struct gmem *m, uint64_t gpa, size_t len);
void *__wrap_gmem_ptr(struct gmem *m, uint64_t gpa, size_t len);
const void *__real_gmem_ptr_ro(struct gmem *m, uint64_t gpa, size_t len);
const void *__wrap_gmem_ptr_ro(struct gmem *m, uint64_t gpa, size_t len);
int __real_gmem_read(struct gmem *m, uint64_t gpa, void *to, size_t len);
int __wrap_gmem_read(struct gmem *m, uint64_t gpa, void *to, size_t len);
uint32_t __real_gmem_read32(struct gmem *m, uint64_t gpa);
uint32_t __wrap_gmem_read32(struct gmem *m, uint64_t gpa);
int __real_gmem_write(struct gmem *m, uint64_t gpa, const void *from, size_t len);
int __wrap_gmem_write(struct gmem *m, uint64_t gpa, const void *from, size_t len);
void __real_gmem_written(struct gmem *m, uint64_t gpa, size_t len);
void __wrap_gmem_written(struct gmem *m, uint64_t gpa, size_t len);

static inline uint8_t *guest_map(void)
{
    uint64_t size = LOW_SIZE + HIGH_SIZE + 3 * GUARD;
    uint8_t *p = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    check(p != MAP_FAILED);
    check(mprotect(p + GUARD, LOW_SIZE, PROT_READ | PROT_WRITE) == 0);
    check(mprotect(p + 2 * GUARD + LOW_SIZE, HIGH_SIZE, PROT_READ | PROT_WRITE) == 0);
    (void)madvise(p, size, MADV_NOHUGEPAGE); /* a run touches few pages */
    return p;
}

/* Somebody may write there. */
static inline void guest_dirty(uint64_t gpa, uint64_t len)
{
    uint64_t first = gpa, limit = LOW_SIZE;

    if (gpa >= GMEM_HIGH_BASE) {
        first = LOW_SIZE + (gpa - GMEM_HIGH_BASE);
        limit = LOW_SIZE + HIGH_SIZE;
    }
    if (len == 0 || first >= limit || len > limit - first)
        return; /* not RAM: nobody can */
    for (uint64_t page = first / GMEM_PAGE; page <= (first + len - 1) / GMEM_PAGE; page++)
        guest.dirty[page] = true;
}

static inline void guest_clean(void)
{
    for (uint64_t page = 0; page < PAGES; page++) {
        uint64_t at = page * GMEM_PAGE;

        if (guest.dirty[page])
            memset(guest.base + GUARD + at + (at >= LOW_SIZE ? GUARD : 0), 0, GMEM_PAGE);
        guest.dirty[page] = false;
    }
}

struct gmem *__wrap_gmem_create(uint64_t size, struct error *err)
{
    struct gmem_range ranges[2] = {{.gpa = 0, .size = LOW_SIZE},
                                   {.gpa = GMEM_HIGH_BASE, .size = HIGH_SIZE}};

    (void)size;
    if (guest.base == NULL)
        guest.base = guest_map();
    memset(guest.ambush, 0, sizeof(guest.ambush));
    memset(guest.recent, 0, sizeof(guest.recent));
    guest.stores = 0;
    ranges[0].hva = guest.base + GUARD;
    ranges[1].hva = guest.base + 2 * GUARD + LOW_SIZE;
    guest_clean();
    return gmem_create_over(ranges, 2, err);
}

/* The driver's own access, which springs no ambush; what is not RAM stays as it is. */
static inline void guest_put(struct gmem *m, uint64_t gpa, uint64_t value, unsigned size)
{
    guest_dirty(gpa, size);
    guest.recent[guest.stores++ % RECENT] = gpa;
    (void)__real_gmem_write(m, gpa, &value, size);
}

static inline void guest_bytes(struct gmem *m, uint64_t gpa, const void *from, size_t len)
{
    guest_dirty(gpa, len);
    (void)__real_gmem_write(m, gpa, from, len);
}

static inline void guest_fill(struct gmem *m, uint64_t gpa, int byte, size_t len)
{
    guest_dirty(gpa, len);
    (void)gmem_fill(m, gpa, byte, len);
}

static inline uint64_t guest_get(struct gmem *m, uint64_t gpa, unsigned size)
{
    uint64_t v = 0;

    return __real_gmem_read(m, gpa, &v, size) == 0 ? v : 0;
}

static inline void ambush_set(unsigned calls, uint64_t gpa, uint64_t value, unsigned size)
{
    for (unsigned i = 0; i < AMBUSHES; i++) {
        if (guest.ambush[i].calls == 0) {
            guest.ambush[i] = (struct ambush){calls, gpa, value, size};
            return;
        }
    }
}

static inline void ambush_none(void)
{
    memset(guest.ambush, 0, sizeof(guest.ambush));
}

static inline void ambush_step(struct gmem *m)
{
    for (unsigned i = 0; i < AMBUSHES; i++) {
        struct ambush *a = &guest.ambush[i];

        if (a->calls != 0 && --a->calls == 0)
            guest_bytes(m, a->gpa, &a->value, a->size);
    }
}

void *__wrap_gmem_ptr(struct gmem *m, uint64_t gpa, size_t len)
{
    ambush_step(m);
    guest_dirty(gpa, len);
    return __real_gmem_ptr(m, gpa, len);
}

const void *__wrap_gmem_ptr_ro(struct gmem *m, uint64_t gpa, size_t len)
{
    ambush_step(m);
    return __real_gmem_ptr_ro(m, gpa, len);
}

int __wrap_gmem_read(struct gmem *m, uint64_t gpa, void *to, size_t len)
{
    ambush_step(m);
    return __real_gmem_read(m, gpa, to, len);
}

uint32_t __wrap_gmem_read32(struct gmem *m, uint64_t gpa)
{
    ambush_step(m);
    return __real_gmem_read32(m, gpa);
}

int __wrap_gmem_write(struct gmem *m, uint64_t gpa, const void *from, size_t len)
{
    ambush_step(m);
    guest_dirty(gpa, len);
    return __real_gmem_write(m, gpa, from, len);
}

void __wrap_gmem_written(struct gmem *m, uint64_t gpa, size_t len)
{
    /* What was stored is memory: an address made up or wrapped around would mark nothing. */
    check(len == 0 || __real_gmem_ptr_ro(m, gpa, len) != NULL);
    ambush_step(m);
    __real_gmem_written(m, gpa, len);
}

/*
 * An address: the low five bits of its byte choose one of `places` (of the target), an end of RAM,
 * or where the driver has stored lately; the upper three how far behind or before it.
 */
static inline uint64_t take_place(struct program *g, const uint64_t *places, unsigned count)
{
    static const uint64_t edges[] = {
        LOW_SIZE, GMEM_HIGH_BASE + HIGH_SIZE, 0xFFFFFFFFFFFFF000, 0xFEE00000, GMEM_HIGH_BASE, 0};
    uint8_t b = take8(g);
    unsigned which = b & 31u;
    uint64_t at;

    if (which < count)
        at = places[which];
    else if (which < PLACES_MAX)
        at = edges[(which - count) % countof(edges)];
    else
        at = guest.recent[(guest.stores - 1 - take8(g)) % RECENT];
    switch (b >> 5) {
    case 0:
        return at;
    case 1:
        return at + 16 * (uint64_t)take8(g);
    case 2:
        return at + take8(g);
    case 3:
        return at - take8(g);
    case 4:
        return at + take(g, 2);
    case 5:
        return at - take(g, 2);
    case 6:
        return at + 4096 * (uint64_t)take8(g);
    default:
        return at + take_number(g);
    }
}

#endif
