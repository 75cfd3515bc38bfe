/*
 * Translations kept for the next run (--jit-cache): a file of blocks, each with the guest code it
 * was made from. A block is used where the guest has the very same bytes, so nothing needs to be
 * invalidated; the file is for one build of this program and one set of CPU features. It holds host
 * code and is believed, so it must be its owner's alone; its records carry a sum against damage.
 * What does not fit in any way is left aside and written anew. On the vCPU's thread, as in jit.h.
 */
#ifndef ENGINE_SOFT_JIT_STORE_H
#define ENGINE_SOFT_JIT_STORE_H

#include "engine/soft/jit/internal.h"

/* Opens the file in this directory, if there is one; without memory nothing is kept. */
void store_open(struct soft_cpu *cpu, const char *dir);

/*
 * Writes the file anew if enough has been translated that it does not hold; forgets the store. The
 * vCPU does not run any more, and the guest's memory is still there.
 */
void store_close(struct soft_cpu *cpu);

/*
 * Where an instruction at `code` holds 32-bit addresses of the region where Linux lies: byte
 * offsets to at[], how many. What else looks like one does no harm. FIELD_BACK is added for one
 * that becomes less as Linux moves up: the distance to a variable of the processor.
 */
#define FIELD_BACK 0x8000u
unsigned store_fields(const struct x86_insn *in, const uint8_t *code, unsigned at[2]);

/* A block has been translated: jit.tx still says how. */
void store_note(struct soft_cpu *cpu, struct jit_block *b);

/* The vCPU has nothing to do: memory that has not been needed for a while is given back. */
void store_rest(struct soft_cpu *cpu);

/* All blocks are gone. */
void store_forget(struct soft_cpu *cpu);

/*
 * The block for the code at pa, if an earlier run has translated the same; made like jit_translate
 * makes it, and inserted. NULL: not there.
 */
struct jit_block *store_find(struct soft_cpu *cpu, uint64_t pa, const uint8_t *page, unsigned key);

#endif
