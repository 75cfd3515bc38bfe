/*
 * The translator of the soft engine: 64-bit guest code, and 32-bit code in flat segments, becomes
 * host code, block by block. The guest's instruction is a host instruction too, so most are copied
 * with registers renamed and memory operands checked by an inline look-up of the soft TLB.
 *
 * One cache for each vCPU, used on its thread alone; nothing is shared between vCPUs. Writes of
 * others to translated pages arrive as invalidations (block.c), taken between blocks.
 *
 * Registers while translated code runs: RSP is the address of struct soft_cpu; below it lies a
 * small stack for calls of stubs and for signal handlers. RBP, R8, R9 are scratch. Guest RSP and
 * RBP are in R10 and R11; R8 to R11 of the guest lie in st.gpr; all others are at home. Arithmetic
 * flags are in EFLAGS inside a block; between blocks in cpu->cc, unless the successor is known not
 * to read them. Vector registers are the guest's while vec_live is set, else they lie in st.xsave.
 */
#ifndef ENGINE_SOFT_JIT_JIT_H
#define ENGINE_SOFT_JIT_JIT_H

#include <stdio.h>

#include "engine/soft/cpu.h"

/* Room below struct soft_cpu, which must follow it directly. */
#define JIT_STACK 65536u

/* Counters of translation, for --stats. */
void jit_report(void *vcpu, FILE *to);

int jit_init(struct soft_cpu *cpu, struct error *err);
void jit_fini(struct soft_cpu *cpu);

/*
 * Runs translated code from st.rip until something is pending or the code cannot go on. Returns
 * false if the code at st.rip is not translated: the caller interprets one block of it. May fault.
 */
bool jit_run(struct soft_cpu *cpu);

/* Is there a translation of code like what runs now? */
bool jit_usable(const struct soft_cpu *cpu);

/* The vCPU goes to sleep. */
void jit_rest(struct soft_cpu *cpu);

/* A fault or an exit has ended the running block early: instructions from `off` on did not run. */
void jit_uncount(struct soft_cpu *cpu, unsigned off);

/* Forgets what was translated from [from, to) of one physical page; returns how many blocks stay.
 */
unsigned jit_kill_range(struct soft_cpu *cpu, uint64_t from, uint64_t to);
void jit_flush(struct soft_cpu *cpu);

/*
 * CR3 has been written: the tables of addresses belong to the context of this PCID from now on, a
 * new one unless its entries are kept. dropped: INVPCID has invalidated some or all of a PCID.
 */
void jit_space_changed(struct soft_cpu *cpu, unsigned pcid, bool keep);
void jit_space_dropped(struct soft_cpu *cpu, unsigned pcid);

/* Translations of instruction addresses have changed: all of them, or those of one page. */
void jit_context_changed(struct soft_cpu *cpu);
void jit_page_changed(struct soft_cpu *cpu, uint64_t lin);

#endif
