/*
 * A profile of the guest by samples: about a thousand times a second of the host's time each vCPU
 * is asked where it is, which those that sleep do not answer, and at the end a table says it
 * (boot/profile.h), with the names of the kernel's functions. For the keys profile and
 * profile.symbols.
 *
 * profiler_create, profiler_report and profiler_destroy on the thread that builds the VM, while no
 * vCPU runs; profiler_look on the vCPU's own. Asking is a timer on the loop's thread.
 */
#ifndef VMM_PROFILER_H
#define VMM_PROFILER_H

#include "vmm/internal.h"

/*
 * Sets vm->profiler and begins, if the configuration asks for a profile. After the guest is loaded:
 * its file is emptied here, and where the kernel lies must be known. -errno and a sentence if that
 * file cannot be written or the symbols cannot be read.
 */
int profiler_create(struct vm *vm, struct error *err);

/*
 * The vCPU has left its engine, and slept if that is what it was for. Takes a sample if one is
 * wanted; x->rip is where.
 */
void profiler_look(struct vcpu *v, const struct vcpu_exit *x);

/* Writes the table; what goes wrong is logged. */
void profiler_report(struct profiler *p);

void profiler_destroy(struct profiler *p); /* NULL is allowed */

#endif
