/*
 * Engines change places under a running guest: soft and kvm, any number of times. All that a vCPU
 * is passes through struct x86_state.
 */
#ifndef VMM_CHANGE_H
#define VMM_CHANGE_H

#include "vmm/internal.h"

/*
 * Asks for a change; any thread. What cannot be changed is refused with a warning, and the guest
 * goes on: it needs cpu.model=portable, so that both engines are one processor to it.
 */
void vm_change_engine(struct vm *vm);

/* Carries it out; on the vCPU's thread, between two runs. */
void change_engine(struct vcpu *v);

#endif
