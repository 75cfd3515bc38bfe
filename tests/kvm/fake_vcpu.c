/* A vCPU of the fake: its life and its calls. */
#include "fake_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/soft/soft.h"
#include "host/memory.h"

struct fake_vcpu *fake_vcpu_of(struct fake_vm *vm, unsigned id)
{
    struct fake_vcpu *v;

    if (id >= FAKE_VCPUS)
        return NULL;
    v = __atomic_load_n(&vm->vcpu[id], __ATOMIC_ACQUIRE); /* pairs with fake_vcpu_create */
    return v;
}

struct fake_vcpu *fake_vcpu_self(struct fake_vm *vm)
{
    for (unsigned i = 0; i < FAKE_VCPUS; i++) {
        struct fake_vcpu *v = fake_vcpu_of(vm, i);

        if (v != NULL && pthread_equal(v->thread, pthread_self()))
            return v;
    }
    return NULL;
}

/* The CPU looks around: it leaves run(), or stops waiting in HLT. */
void fake_vcpu_wake(struct fake_vcpu *v)
{
    pthread_mutex_lock(&v->lock);
    v->wake = true;
    if (v->running != NULL)
        engine_soft.kick(v->running);
    pthread_cond_broadcast(&v->changed);
    pthread_mutex_unlock(&v->lock);
}

/* ---- calls ---- */

static int get_mp_state(struct fake_vcpu *v, struct kvm_mp_state *out)
{
    switch ((enum x86_mp_state)v->st.mp_state) {
    case X86_MP_HALTED:
        out->mp_state = KVM_MP_STATE_HALTED;
        return 0;
    case X86_MP_WAIT_SIPI:
        out->mp_state = v->init_received ? KVM_MP_STATE_INIT_RECEIVED : KVM_MP_STATE_UNINITIALIZED;
        return 0;
    case X86_MP_RUNNING:
    case X86_MP_SHUTDOWN:
        break;
    }
    out->mp_state = KVM_MP_STATE_RUNNABLE;
    return 0;
}

static int set_mp_state(struct fake_vcpu *v, const struct kvm_mp_state *in)
{
    uint8_t to;

    switch (in->mp_state) {
    case KVM_MP_STATE_RUNNABLE:
        to = X86_MP_RUNNING;
        break;
    case KVM_MP_STATE_HALTED:
        to = X86_MP_HALTED;
        break;
    case KVM_MP_STATE_UNINITIALIZED:
    case KVM_MP_STATE_INIT_RECEIVED:
        to = X86_MP_WAIT_SIPI;
        break;
    default:
        return -EINVAL;
    }
    if (to != X86_MP_RUNNING && !v->vm->split)
        return -EINVAL;
    v->init_received = in->mp_state == KVM_MP_STATE_INIT_RECEIVED;
    v->st.mp_state = to;
    v->dirty = true;
    return 0;
}

static int interrupt(struct fake_vcpu *v, const struct kvm_interrupt *i)
{
    if (i->irq >= KVM_NR_INTERRUPTS)
        return -EINVAL;
    if (!v->vm->split) { /* delivered at the next entry, whatever IF is */
        v->interrupt = (struct fake_event){.valid = true, .nr = (uint8_t)i->irq};
        return 0;
    }
    if (v->extint >= 0)
        return -EEXIST;
    v->extint = (int)i->irq;
    return 0;
}

static int set_debug(struct fake_vcpu *v, const struct kvm_guest_debug *d)
{
    if (d->control & (KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP)) {
        if (v->exception.valid)
            return -EBUSY;
        v->exception = (struct fake_event){
            .valid = true, .nr = d->control & KVM_GUESTDBG_INJECT_DB ? X86_EXC_DB : X86_EXC_BP};
    }
    v->debug = d->control & KVM_GUESTDBG_ENABLE ? d->control : 0;
    memcpy(v->debug_reg, d->arch.debugreg, sizeof(v->debug_reg));
    v->step_pc = v->st.seg[X86_CS].base + v->st.rip;
    v->step_gone = false;
    return 0;
}

static int set_signal_mask(const struct kvm_signal_mask *m)
{
    return m == NULL || m->len == 8 ? 0 : -EINVAL; /* a kernel's sigset_t; kicks are no signals */
}

static int set_tsc_khz(struct fake_vcpu *v, uintptr_t khz)
{
    uint32_t host = v->vm->fake->tsc_khz, apart;

    if (khz == 0)
        khz = host;
    apart = (uint32_t)(khz > host ? khz - host : host - khz);
    if (khz > UINT32_MAX || apart > host / 4000) /* no TSC scaling: 250 parts in a million */
        return -EINVAL;
    v->tsc_khz = (uint32_t)khz;
    return 0;
}

static int state_ioctl(struct fake_vcpu *v, unsigned long request, void *p)
{
    switch (request) {
    case KVM_GET_REGS:
        fake_get_regs(v, p);
        return 0;
    case KVM_SET_REGS:
        fake_set_regs(v, p);
        return 0;
    case KVM_GET_SREGS:
        fake_get_sregs(v, p);
        return 0;
    case KVM_SET_SREGS:
        return fake_set_sregs(v, p);
    case KVM_GET_SREGS2:
        fake_get_sregs2(v, p);
        return 0;
    case KVM_SET_SREGS2:
        return fake_set_sregs2(v, p);
    case KVM_GET_FPU:
        fake_get_fpu(v, p);
        return 0;
    case KVM_SET_FPU:
        fake_set_fpu(v, p);
        return 0;
    case KVM_GET_XSAVE:
        fake_get_xsave(v, p);
        return 0;
    case KVM_SET_XSAVE:
        return fake_set_xsave(v, p);
    case KVM_GET_XCRS:
        fake_get_xcrs(v, p);
        return 0;
    case KVM_SET_XCRS:
        return fake_set_xcrs(v, p);
    case KVM_GET_MSRS:
        return fake_get_msrs(v, p);
    case KVM_SET_MSRS:
        return fake_set_msrs(v, p);
    case KVM_GET_DEBUGREGS:
        fake_get_debugregs(v, p);
        return 0;
    case KVM_SET_DEBUGREGS:
        return fake_set_debugregs(v, p);
    case KVM_GET_VCPU_EVENTS:
        fake_get_events(v, p);
        return 0;
    case KVM_SET_VCPU_EVENTS:
        return fake_set_events(v, p);
    case KVM_GET_MP_STATE:
        return get_mp_state(v, p);
    case KVM_SET_MP_STATE:
        return set_mp_state(v, p);
    case KVM_GET_CPUID2:
        return fake_get_cpuid(v, p);
    case KVM_SET_CPUID2:
        return fake_set_cpuid(v, p);
    default:
        return -EINVAL; /* kvm_arch_vcpu_ioctl's answer to what it does not know */
    }
}

static int vcpu_ioctl(struct fake_vcpu *v, unsigned long request, uintptr_t arg)
{
    void *p = (void *)arg;

    switch (request) {
    case KVM_RUN:
        return arg == 0 ? fake_run(v) : -EINVAL;
    case KVM_INTERRUPT:
        return interrupt(v, p);
    case KVM_NMI:
        v->st.nmi_pending = true;
        v->dirty = true;
        return 0;
    case KVM_SET_GUEST_DEBUG:
        return set_debug(v, p);
    case KVM_GET_LAPIC:
        if (!v->vm->split)
            return -EINVAL;
        fake_get_lapic(v, p);
        return 0;
    case KVM_SET_LAPIC:
        if (!v->vm->split)
            return -EINVAL;
        fake_set_lapic(v, p);
        return 0;
    case KVM_SET_SIGNAL_MASK:
        return set_signal_mask(p);
    case KVM_SET_TSC_KHZ:
        return set_tsc_khz(v, arg);
    case KVM_GET_TSC_KHZ:
        return (int)v->tsc_khz;
    case KVM_KVMCLOCK_CTRL:
        return -EINVAL; /* no guest has a clock page */
    default:
        return state_ioctl(v, request, p);
    }
}

int fake_vcpu_ioctl(struct fake_vcpu *v, unsigned long request, uintptr_t arg)
{
    int rc;

    pthread_mutex_lock(&v->calls);
    rc = vcpu_ioctl(v, request, arg);
    pthread_mutex_unlock(&v->calls);
    return rc;
}

/* ---- life ---- */

/* As kvm_vcpu_reset leaves it: caching off, which changes nothing here. */
static void power_on(struct fake_vcpu *v)
{
    x86_state_reset(&v->st, v->id == 0 || !v->vm->split);
    v->st.seg[X86_CS].attr = 0x9b; /* KVM: code, not the data segment that the manual tells of */
    v->st.feature_control = 0;
    v->st.misc_enable = 1;
    v->apic_base = 0xfee00000 | 0x800 | (v->id == 0 ? 0x100 : 0);
    v->dirty = true;
    if (v->vm->split)
        fake_lapic_reset(v);
}

int fake_vcpu_create(struct fake_vm *vm, uint32_t id, struct fake_vcpu **out)
{
    struct fake_vcpu *v;
    int rc = 0;

    if (id >= FAKE_VCPUS)
        return -EINVAL;
    v = calloc(1, sizeof(*v)); /* zeroed, as struct x86_state and the mapping must be */
    if (v == NULL)
        return -ENOMEM;
    v->vm = vm;
    v->id = id;
    v->sipi = v->extint = v->eoi = -1;
    v->tsc_khz = vm->fake->tsc_khz;
    v->run = host_memory_alloc(FAKE_RUN_SIZE, NULL);
    pthread_mutex_init(&v->calls, NULL);
    pthread_mutex_init(&v->lock, NULL);
    pthread_cond_init(&v->changed, NULL);
    power_on(v);
    pthread_mutex_lock(&vm->lock);
    if (v->run == NULL)
        rc = -ENOMEM;
    else if (vm->vcpu[id] != NULL)
        rc = -EEXIST;
    else
        rc = -pthread_create(&v->thread, NULL, fake_cpu_main, v);
    if (rc == 0) {
        v->started = true;
        __atomic_store_n(&vm->vcpu[id], v, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&vm->lock);
    if (rc < 0) {
        fake_vcpu_free(v);
        return rc;
    }
    fake_generation(vm); /* the others must know of it */
    *out = v;
    return 0;
}

void fake_vcpu_free(struct fake_vcpu *v)
{
    if (v == NULL)
        return;
    if (v->started) {
        pthread_mutex_lock(&v->lock);
        v->quit = true;
        pthread_cond_broadcast(&v->changed);
        pthread_mutex_unlock(&v->lock);
        pthread_join(v->thread, NULL);
    }
    if (v->machine != NULL)
        fake_machine_put(v->vm, v->machine);
    host_memory_free(v->run, FAKE_RUN_SIZE);
    pthread_cond_destroy(&v->changed);
    pthread_mutex_destroy(&v->lock);
    pthread_mutex_destroy(&v->calls);
    free(v);
}
