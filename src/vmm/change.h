/*
 * Engines change places under a running guest: soft and kvm, any number of times. All that a vCPU
 * is passes through struct x86_state.
 */
#ifndef VMM_CHANGE_H
#define VMM_CHANGE_H

#include "vmm/internal.h"

/* What vm_switch_engine has asked for; on the vCPU's thread, between two runs. */
void change_engine(struct vcpu *v);

/* The same thread, if vm->kvm_emulates: from kvm to soft. */
void change_leave_kvm(struct vcpu *v);

#endif
