/*
 * Guest RAM: the guest-physical address space's memory part, and the only way to it. RAM is 0 to
 * lowmem (at most 3 GiB) and from 4 GiB up; further read-only or RAM ranges (ROMs) can be added
 * before the VM runs. Access never reaches MMIO: an address that is not RAM gives -EFAULT.
 *
 * Any thread. The map is fixed once vCPUs run. Data races on guest memory are the guest's own;
 * single aligned accesses up to 8 bytes are atomic.
 */
#ifndef MEM_GMEM_H
#define MEM_GMEM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define GMEM_PAGE 4096u
#define GMEM_LOWMEM_MAX 0xC0000000ull /* 3 GiB; MMIO from here to 4 GiB */
#define GMEM_HIGH_BASE 0x100000000ull

struct gmem;

/* What kind of the host's memory RAM is. */
struct gmem_backing {
    bool huge;  /* huge pages that the host's administrator has reserved */
    bool wired; /* all there from the beginning, and never paged out */
};

/* size is total RAM in bytes, a multiple of the page size. NULL and err if it cannot be had. */
struct gmem *gmem_create(uint64_t size, struct error *err);
struct gmem *gmem_create_backed(uint64_t size, const struct gmem_backing *how, struct error *err);

/* One range of the map. */
struct gmem_range {
    uint64_t gpa, size;
    void *hva;
    bool rom;
};

/*
 * RAM over n ranges of the caller's memory, all in pages, which do not overlap (rom is not looked
 * at) and must outlive the map: for tests of what gets its memory by host address. There is no
 * lowmem and no highmem then.
 */
struct gmem *gmem_create_over(const struct gmem_range *ranges, unsigned n, struct error *err);
void gmem_destroy(struct gmem *m);

uint64_t gmem_size(const struct gmem *m);
uint64_t gmem_lowmem(const struct gmem *m);  /* bytes below 3 GiB */
uint64_t gmem_highmem(const struct gmem *m); /* bytes from 4 GiB */

/* Adds a ROM of `size` bytes (pages) at gpa with this content; guests' writes are dropped. */
int gmem_add_rom(struct gmem *m, uint64_t gpa, const void *data, uint64_t size, struct error *err);

/* Copies len bytes; -EFAULT (nothing copied) unless all of it is RAM (for reads: RAM or ROM). */
int gmem_read(struct gmem *m, uint64_t gpa, void *to, size_t len);
int gmem_write(struct gmem *m, uint64_t gpa, const void *from, size_t len);
int gmem_fill(struct gmem *m, uint64_t gpa, int byte, size_t len);

/* Little-endian scalars; an unreadable one reads all ones. */
uint16_t gmem_read16(struct gmem *m, uint64_t gpa);
uint32_t gmem_read32(struct gmem *m, uint64_t gpa);
uint64_t gmem_read64(struct gmem *m, uint64_t gpa);

/*
 * The host address of [gpa, gpa+len) if it lies in one RAM range, else NULL. Valid until
 * gmem_destroy. Who writes through it must call gmem_written afterwards (gmem_write does itself).
 * gmem_ptr_ro for who only reads: with a log of written pages, gmem_ptr counts as a write.
 */
void *gmem_ptr(struct gmem *m, uint64_t gpa, size_t len);
const void *gmem_ptr_ro(struct gmem *m, uint64_t gpa, size_t len); /* RAM or ROM */

/*
 * Code marks, for engines that cache decoded instructions: a bit for each vCPU that does so with
 * this page. The next write to a marked page by anyone but a vCPU takes the marks and calls the
 * engine's hook with them (once for each page written; on the writer's thread, which may hold a
 * device lock; the hook takes no lock but its own). Another hook may be set at any time by who
 * caches nothing any more.
 */
#define GMEM_MARKS 32u /* vCPUs that an engine with marks can have */
typedef void gmem_code_hook(void *ctx, uint64_t gpa_page, uint32_t who);
void gmem_written(struct gmem *m, uint64_t gpa, size_t len);
void gmem_set_code_hook(struct gmem *m, gmem_code_hook *hook, void *ctx);
/* Adds bits, and gives those that were there before. A full fence. */
uint32_t gmem_mark_code(struct gmem *m, uint64_t gpa_page, uint32_t who);
/* Leaves of the bits only `keep`, and gives those that were there before. A full fence. */
uint32_t gmem_take_code(struct gmem *m, uint64_t gpa_page, uint32_t keep);
uint32_t gmem_is_code(const struct gmem *m, uint64_t gpa_page); /* the bits */

/*
 * Writers, a bit for each vCPU that may write to this page unnoticed. set gives the bits from
 * before and is a full fence; 0 bits: only looks.
 */
uint32_t gmem_set_writer(struct gmem *m, uint64_t gpa_page, uint32_t who);
void gmem_clear_writer(struct gmem *m, uint64_t gpa_page, uint32_t who);
void gmem_clear_writer_all(struct gmem *m, uint32_t who); /* of all pages: slow */

/*
 * The log of written pages, for who copies memory while the guest runs. Here the two halves become
 * one: what devices write (gmem_written, and each address that gmem_ptr gives to write to), and
 * what vCPUs write, of which the engine knows: `take` is its engine_ops.dirty_take or NULL, ctx its
 * VM. begin, then the engine's own log (engine_ops.dirty), then the first copy of all pages. Calls
 * of begin, end and take are the caller's to put in order; the rest goes on meanwhile. -ENOMEM.
 */
int gmem_log_begin(struct gmem *m,
                   int (*take)(void *ctx, unsigned range, uint64_t *bits, size_t words), void *ctx,
                   struct error *err);
void gmem_log_end(struct gmem *m);
bool gmem_log_on(const struct gmem *m);
/*
 * Sets a bit in `bits` for each page of range n (of gmem_range) that has been written since the
 * last call, page i in word i / 64, bit i % 64; what is set stays. -EINVAL: there is no log, no
 * such range, or too few words for it; else the engine's error.
 */
int gmem_log_take(struct gmem *m, unsigned n, uint64_t *bits, size_t words);

/*
 * Around the run of a software CPU beside another engine: it keeps addresses to write to, which it
 * must ask for anew after each begin. gmem_log_take waits for its end. Other locks are taken
 * inside.
 */
void gmem_keeper_begin(struct gmem *m);
void gmem_keeper_end(struct gmem *m);

/* For engines that map memory themselves. n from 0; false past the last. */
bool gmem_range(const struct gmem *m, unsigned n, struct gmem_range *out);

#endif
