/*
 * Counts where a guest was when it was looked at, and says it as a table. Memory is bounded: what
 * no longer fits is counted as lost. Not locked: one for each thread, put together by profile_merge
 * when they stand still.
 */
#ifndef BOOT_PROFILE_H
#define BOOT_PROFILE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "boot/symbols.h"

struct profile;

/*
 * Room for about `addresses` different ones (at least 16, at most 2^24; a power of two or rounded
 * up to it), 16 bytes each, all of it allocated here. NULL without memory.
 */
struct profile *profile_create(unsigned addresses);

/* One sample at a linear address. user: at privilege level 3, of whatever process. */
void profile_add(struct profile *p, uint64_t addr, bool user);

/* Adds the samples of another. */
void profile_merge(struct profile *p, const struct profile *from);

/* All samples, and those of them whose address found no room. */
uint64_t profile_samples(const struct profile *p);
uint64_t profile_lost(const struct profile *p);

/* Forgets all samples. */
void profile_clear(struct profile *p);

/*
 * Writes a table of at most `rows` lines (0: all), those with most samples first: samples, percent
 * of all, mode, where, and the address met most there with its samples. "Where" is a function for
 * the kernel if symbols (may be NULL) know one, and a 4 KiB page else. A line at the end sums up
 * the rest. Returns 0, -ENOMEM, or -EIO if the stream has failed.
 */
int profile_report(const struct profile *p, const struct symbols *symbols, unsigned rows, FILE *to);

/* NULL is allowed. */
void profile_destroy(struct profile *p);

#endif
