/*
 * Lock-step of translator and interpreter (--engine soft,check): a stretch of guest code runs
 * translated, is taken back, and runs again interpreted. Registers, memory and page table bits must
 * come out the same; the first difference ends the VM with what it was and the instructions.
 *
 * On the vCPU's thread. Guest memory is taken back by pages, so nothing else may write there while
 * a stretch runs: for one vCPU, and devices that write memory on the vCPU's thread alone.
 */
#ifndef ENGINE_SOFT_CHECK_H
#define ENGINE_SOFT_CHECK_H

#include "engine/soft/cpu.h"

/* -ENOMEM. fini accepts one that was never initialised. */
int check_init(struct soft_cpu *cpu, struct error *err);
void check_fini(struct soft_cpu *cpu);

/*
 * Runs one stretch both ways; true if it got anywhere. Faults as an instruction does (longjmp),
 * with everything before the fault compared. The caller runs one instruction alone after false.
 */
bool check_run(struct soft_cpu *cpu);

/* ---- what happens while a stretch runs; nothing, if none does ---- */

/* This TLB entry changes now. */
void check_fill(struct soft_cpu *cpu, unsigned mode, unsigned slot);
/* The page at this physical address will be written. */
void check_write(struct soft_cpu *cpu, uint64_t gpa);
/* The TLB, or part of it, has been emptied. */
void check_flush(struct soft_cpu *cpu);
/* The running instruction does what cannot be done twice: the stretch ends before it (longjmp). */
void check_cut(struct soft_cpu *cpu);
/* The same, if it is one of the instructions whose result may change from one time to the next. */
void check_op(struct soft_cpu *cpu, unsigned op);

#endif
