/*
 * What the translator makes, for people: the listing of --trace jit, and the map by which the
 * host's perf names translated code (/tmp/perf-PID.map; its format: tools/perf/Documentation/
 * jit-interface.txt of Linux). On the vCPU's thread. Without either there is no struct jit_trace,
 * and callers test for that.
 */
#ifndef ENGINE_SOFT_JIT_TRACE_H
#define ENGINE_SOFT_JIT_TRACE_H

#include "engine/soft/jit/internal.h"

/*
 * Sets jit.trace if either is wanted; the stubs have been made. -errno and a sentence if the map
 * cannot be created.
 */
int jit_trace_init(struct soft_cpu *cpu, struct error *err);
void jit_trace_fini(struct jit_trace *r); /* NULL is allowed; the map stays, perf reads it later */

/*
 * The block just translated from linear address lin; b NULL: it was not. hot, cold: where its code
 * begins, in the writable view; it ends where the cache goes on.
 */
void jit_trace_block(struct soft_cpu *cpu, uint64_t lin, const struct jit_block *b,
                     const uint8_t *hot, const uint8_t *cold);

/* The entry just made for a block that had none; the last thing in the cold half. */
void jit_trace_entry(struct soft_cpu *cpu, uint64_t lin, const struct jit_block *b);

/* The cache will be emptied. */
void jit_trace_flush(struct soft_cpu *cpu);

#endif
