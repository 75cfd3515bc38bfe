/*
 * Rescue: what the vCPU's own engine cannot run (VCPU_EXIT_EMULATE), the software CPU runs for it,
 * and some instructions more, since moving the state costs as much as interpreting hundreds.
 *
 * All on the vCPU's thread, but rescue_report, for which the vCPU must be stopped.
 */
#ifndef VMM_RESCUE_H
#define VMM_RESCUE_H

#include "vmm/internal.h"

/*
 * The vCPU is behind the instruction that x is about. false: *x says what the VM must decide (an
 * exit of the software CPU's, or that neither engine can run it).
 */
bool rescue_run(struct vcpu *v, struct vcpu_exit *x);

/* How often and what, for --stats; nothing if it never was. */
void rescue_report(const struct vcpu *v, FILE *to);

void rescue_destroy(struct vcpu *v);

#endif
