/*
 * A KVM for machines without /dev/kvm: a struct kvm_sys whose calls behave as Linux's device does
 * (Documentation/virt/kvm/api.rst of Linux 6.1), answered by the software CPU. For tests of what
 * uses KVM; tests/kvm/conform.c checks that this one and a real one say the same.
 *
 * Descriptors are small integers of the fake's own, memory and eventfds are the caller's. All calls
 * on any thread, as with the real device; a vCPU's calls wait for each other. Each vCPU's software
 * CPU has a thread of its own, which runs while a caller waits in KVM_RUN.
 *
 * Limits. One instruction at a time is interpreted, so it is slow (but see `fast`). At most 16
 * vCPUs, 8 slots of RAM at a time (gmem's), no in-kernel PIC, IOAPIC, PIT or clock. Pages are read
 * anew at each KVM_RUN and before each interrupt: code that another thread writes is not seen
 * between those. A string instruction that reads a device may not span the deletion of the slot
 * that it writes to.
 *
 * While an access is pending (after KVM_EXIT_IO, MMIO, X86_RDMSR, X86_WRMSR) the state may be read
 * and written: it is that before the instruction, which ends in the next KVM_RUN; what was written
 * meanwhile is kept, the rest becomes what the instruction makes of it.
 * Only the shadow of STI or MOV SS in which it runs is over then, and KVM_GET_VCPU_EVENTS says so.
 *
 * Who links this needs the link arguments of kvm_fake_dep (meson.build): RDMSR, WRMSR and #DB of
 * the software CPU are intercepted at its msr_read, msr_write and raise_db.
 */
#ifndef TESTS_KVM_FAKE_H
#define TESTS_KVM_FAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/kvm/kvm.h"

struct kvm_fake;

struct kvm_fake_fault {
    unsigned long request; /* KVM_RUN, ...; 0: open */
    int err;               /* a positive errno */
    bool always;           /* else once */
};

/* Pointers are borrowed until kvm_fake_create returns, but fails_ctx. */
struct kvm_fake_options {
    /* Capabilities to do without: KVM_CHECK_EXTENSION says 0, their ioctls are unknown. */
    const uint32_t *missing;
    unsigned missing_count;
    const struct kvm_fake_fault *faults;
    unsigned fault_count;
    /*
     * Asked before each instruction (then one runs at a time): true if KVM's emulator does not know
     * it. bytes are those at RIP that can be fetched, up to 15. On the thread of the software CPU.
     */
    bool (*fails)(void *ctx, const uint8_t *bytes, unsigned len);
    /*
     * At the software CPU's full speed, translated. Of instructions that touch what is no memory
     * KVM's emulator then knows loads by MOV, MOVZX and MOVSX alone: others end KVM_RUN with an
     * emulation failure, as KVMs do that have no emulator for them. No device may write code, and
     * no debugger may look in.
     */
    bool fast;
    void *fails_ctx;
    /*
     * It cannot hide features, as a KVM that runs programs without the hardware's help: whatever
     * KVM_SET_CPUID2 sets, ECX of leaf 1 and EBX of leaf 7 have all that the processor has, which
     * KVM_GET_CPUID2 tells and the guest sees.
     */
    bool shows;
};

/* options may be NULL: none. NULL: no memory. */
struct kvm_fake *kvm_fake_create(const struct kvm_fake_options *options);
/* Ends all that is still open; no call may be in progress. NULL is allowed. */
void kvm_fake_destroy(struct kvm_fake *fake);

/* Valid until kvm_fake_destroy. */
const struct kvm_sys *kvm_fake_sys(struct kvm_fake *fake);

/* One more fault, from now on. -ENOSPC: there are too many. */
int kvm_fake_fail(struct kvm_fake *fake, const struct kvm_fake_fault *fault);

#endif
