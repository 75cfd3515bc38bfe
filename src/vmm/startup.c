#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "vmm/internal.h"

/*
 * Processors beside the first: INIT, and STARTUP with the page where they begin. A message sets
 * flags, wakes the vCPU and has its engine return; the vCPU's thread does the rest between two
 * runs. Intel SDM Vol.3, "Multiple-processor (MP) initialization".
 */

#define STARTED 0x100u

int startup_prepare(struct vm *vm, uint64_t tsc_offset, struct error *err)
{
    const struct engine_ops *ops = vm->engine[0].ops;
    struct x86_state st;
    int rc = 0;

    for (unsigned i = 1; i < vm->cpus && rc == 0; i++) {
        ops->get(vm->vcpu[i].impl[0], &st);
        st.tsc_offset = tsc_offset;
        rc = ops->set(vm->vcpu[i].impl[0], &st, err);
    }
    return rc;
}

void startup_init(struct vcpu *v)
{
    atomic_store(&v->sipi, 0);
    atomic_store(&v->init_wanted, true);
    vcpu_kick(v);
}

void startup_sipi(struct vcpu *v, uint8_t vector)
{
    atomic_store(&v->sipi, STARTED | vector);
    vcpu_kick(v);
}

/* What INIT leaves: x87 and vector state, MSRs but EFER and DEBUGCTL, MTRRs, the TSC. */
static void init_state(struct x86_state *st, const struct x86_state *reset)
{
    uint64_t cache = st->cr0 & (X86_CR0_CD | X86_CR0_NW);

    memcpy(st->gpr, reset->gpr, sizeof(st->gpr));
    memcpy(st->seg, reset->seg, sizeof(st->seg));
    memcpy(st->dr, reset->dr, sizeof(st->dr));
    memcpy(st->pdptr, reset->pdptr, sizeof(st->pdptr));
    st->rip = reset->rip;
    st->rflags = reset->rflags;
    st->ldtr = reset->ldtr;
    st->tr = reset->tr;
    st->gdtr = reset->gdtr;
    st->idtr = reset->idtr;
    st->cr0 = (reset->cr0 & ~(uint64_t)(X86_CR0_CD | X86_CR0_NW)) | cache;
    st->cr2 = st->cr3 = st->cr4 = 0;
    st->dr6 = reset->dr6;
    st->dr7 = reset->dr7;
    st->efer = st->debugctl = 0;
    st->event = reset->event;
    st->sti_shadow = st->movss_shadow = false;
    st->nmi_blocked = st->nmi_pending = st->smi_pending = false;
    st->mp_state = X86_MP_WAIT_SIPI;
}

/* Where a STARTUP with this vector lets it begin. */
static void begin_at(struct x86_state *st, uint8_t vector)
{
    st->rip = 0;
    st->seg[X86_CS].selector = (uint16_t)(vector << 8);
    st->seg[X86_CS].base = (uint64_t)vector << 12;
    st->mp_state = X86_MP_RUNNING;
}

/* 0 or -errno with a sentence. */
static int carry_out(struct vcpu *v, struct error *err)
{
    struct vcpu_on on = vcpu_on(v);
    struct x86_state *st = aligned_alloc(_Alignof(struct x86_state), 2 * sizeof(*st));
    unsigned sipi;
    int rc = 0;

    if (st == NULL)
        return error_set(err, -ENOMEM, "no memory for a vCPU's state");
    on.ops->get(on.impl, st);
    if (atomic_exchange(&v->init_wanted, false)) {
        x86_state_reset(&st[1], false);
        init_state(st, &st[1]);
        lapics_init(v->vm->lapics, v->id);
        v->waits = true;
    }
    sipi = atomic_exchange(&v->sipi, 0);
    if (v->waits && sipi != 0) {
        begin_at(st, (uint8_t)sipi);
        v->waits = false;
        log_debug(v->vm->log, "vCPU %u starts at %#x", v->id, (sipi & 0xff) << 12);
    }
    rc = on.ops->set(on.impl, st, err);
    free(st);
    return rc;
}

bool startup_take(struct vcpu *v)
{
    struct error err = {0};

    if (!atomic_load(&v->init_wanted) && (!v->waits || atomic_load(&v->sipi) == 0))
        return !v->waits;
    if (carry_out(v, &err) != 0) {
        log_error(v->vm->log, "vCPU %u cannot be started: %s", v->id, err.text);
        vm_stop(v->vm, VM_ERROR);
        return false;
    }
    return !v->waits;
}

/*
 * A vCPU that is woken has not looked yet, and goes on perhaps. Who sends a message sets `wake`
 * before it becomes still itself, and of two that become so at once both see both.
 */
bool startup_all_still(struct vcpu *v)
{
    struct vm *vm = v->vm;

    atomic_store(&v->still, true);
    for (unsigned i = 0; i < vm->cpus; i++) {
        if (!atomic_load(&vm->vcpu[i].still) || atomic_load(&vm->vcpu[i].wake))
            return false;
    }
    return true;
}
