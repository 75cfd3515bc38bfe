/*
 * KVM_RUN. KVM returns to userspace in the middle of an instruction and goes on with it later; the
 * software CPU asks for an access and goes on with its answer. So the CPU has a thread of its own,
 * on which fake_park stops it in the access, while the caller leaves KVM_RUN and comes back.
 */
#include "fake_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "engine/soft/soft.h"

#define DR6_FIXED 0xffff0ff0u
#define DR6_BS 0x4000u

/* ---- whose turn it is ---- */

/* From the CPU to the caller and back; false: the thread must end. */
static bool hand_over(struct fake_vcpu *v)
{
    bool on;

    pthread_mutex_lock(&v->lock);
    v->running = NULL;
    v->turn = TURN_CALLER;
    pthread_cond_broadcast(&v->changed);
    while (v->turn != TURN_CPU && !v->quit)
        pthread_cond_wait(&v->changed, &v->lock);
    on = !v->quit;
    v->running = v->soft;
    pthread_mutex_unlock(&v->lock);
    return on;
}

void fake_park(struct fake_vcpu *v)
{
    bool on;

    fake_soft_get(v, &v->st);
    v->before = v->st;
    v->dirty = false;
    v->pending = true;
    v->result = 0;
    on = hand_over(v);
    v->pending = false;
    if (!on)
        fake_soft_abort(v);
    v->completed = true;
    if (v->dirty) {
        v->wanted = v->st;
        v->merge = true;
        v->dirty = false;
    }
    fake_soft_stop_after(v); /* then prepare() looks at what the caller wants */
}

void fake_window(struct fake_vcpu *v)
{
    v->window = true;
    fake_soft_abort(v);
}

/* ---- accesses ---- */

static void fill_io(struct kvm_run *run, uint8_t direction, uint64_t port, unsigned size)
{
    run->exit_reason = KVM_EXIT_IO;
    run->io.direction = direction;
    run->io.size = (uint8_t)size;
    run->io.port = (uint16_t)port;
    run->io.count = 1;
    run->io.data_offset = FAKE_PIO;
}

static uint64_t port_read(void *ctx, uint64_t port, unsigned size)
{
    struct fake_vcpu *v = fake_vcpu_self(ctx);
    uint64_t value = 0;

    fill_io(v->run, KVM_EXIT_IO_IN, port, size);
    fake_park(v);
    memcpy(&value, (char *)v->run + FAKE_PIO, size);
    return value;
}

static void port_write(void *ctx, uint64_t port, unsigned size, uint64_t value)
{
    struct fake_vcpu *v = fake_vcpu_self(ctx);

    if (fake_ioevent_hit(ctx, true, port, size, value))
        return;
    fill_io(v->run, KVM_EXIT_IO_OUT, port, size);
    memcpy((char *)v->run + FAKE_PIO, &value, size);
    fake_park(v);
}

static void fill_mmio(struct kvm_run *run, uint64_t addr, unsigned size, bool write, uint64_t value)
{
    run->exit_reason = KVM_EXIT_MMIO;
    run->mmio.phys_addr = addr;
    run->mmio.len = size;
    run->mmio.is_write = write;
    memset(run->mmio.data, 0, sizeof(run->mmio.data));
    memcpy(run->mmio.data, &value, size);
}

/* A load by MOV, MOVZX or MOVSX; prefixes of size and segment are nothing new to an emulator. */
static bool emulated(const uint8_t *b, unsigned n)
{
    unsigned i = 0;

    while (i < n && (b[i] == 0x66 || b[i] == 0x67 || b[i] == 0x65 || (b[i] & 0xf0) == 0x40))
        i++;
    if (i + 1 >= n)
        return false;
    if (b[i] != 0x0f)
        return b[i] == 0x8a || b[i] == 0x8b || b[i] == 0xa0 || b[i] == 0xa1;
    return b[i + 1] == 0xb6 || b[i + 1] == 0xb7 || b[i + 1] == 0xbe || b[i + 1] == 0xbf;
}

/* In an access to what is no memory: KVM would have to emulate the instruction. */
static void need_emulator(struct fake_vcpu *v)
{
    uint8_t bytes[15];

    if (!v->vm->fake->fast || emulated(bytes, fake_soft_insn(v, bytes)))
        return;
    v->gives_up = true;
    fake_soft_abort(v);
}

/* A read-only slot is not in the software CPU's map: see make_map. */
static uint64_t mmio_read(void *ctx, uint64_t addr, unsigned size)
{
    struct fake_vcpu *v = fake_vcpu_self(ctx);
    uint64_t value = 0;

    if (fake_memory_read(ctx, addr, &value, size))
        return value;
    need_emulator(v);
    fill_mmio(v->run, addr, size, false, 0);
    fake_park(v);
    memcpy(&value, v->run->mmio.data, size);
    return value;
}

static void mmio_write(void *ctx, uint64_t addr, unsigned size, uint64_t value)
{
    struct fake_vcpu *v = fake_vcpu_self(ctx);

    if (fake_ioevent_hit(ctx, false, addr, size, value))
        return;
    need_emulator(v);
    fill_mmio(v->run, addr, size, true, value);
    fake_park(v);
}

const struct bus_ops fake_port_ops = {port_read, port_write};
const struct bus_ops fake_mmio_ops = {mmio_read, mmio_write};

/* ---- between instructions ---- */

/* v->st is what counts from now on, not the software CPU's. */
static void own_state(struct fake_vcpu *v)
{
    if (!v->dirty && v->soft != NULL)
        fake_soft_get(v, &v->st);
    v->dirty = true;
}

/* What the caller changed while an access was pending wins over what the instruction did. */
static void merge_state(struct fake_vcpu *v)
{
    uint64_t *to = (uint64_t *)(void *)&v->st;
    const uint64_t *before = (const uint64_t *)(const void *)&v->before;
    const uint64_t *wanted = (const uint64_t *)(const void *)&v->wanted;

    static_assert(sizeof(v->st) % sizeof(*to) == 0, "whole words");
    own_state(v);
    for (size_t i = 0; i < sizeof(v->st) / sizeof(*to); i++) {
        if (wanted[i] != before[i])
            to[i] = wanted[i];
    }
    v->merge = false;
}

static bool stepping(const struct fake_vcpu *v)
{
    return (v->debug & KVM_GUESTDBG_SINGLESTEP) != 0 && !v->step_gone;
}

static bool single(const struct fake_vcpu *v)
{
    return stepping(v) || v->vm->fake->fails != NULL ||
           (v->debug & (KVM_GUESTDBG_USE_SW_BP | KVM_GUESTDBG_USE_HW_BP)) != 0;
}

/* Always false: KVM_RUN ends. */
static bool end(struct fake_vcpu *v, int result, uint32_t reason)
{
    v->result = result;
    if (reason != KVM_EXIT_UNKNOWN)
        v->run->exit_reason = reason;
    return false;
}

static bool end_debug(struct fake_vcpu *v, uint32_t exception, uint32_t dr6)
{
    v->run->debug.arch = (struct kvm_debug_exit_arch){
        .exception = exception, .pc = fake_soft_pc(v), .dr6 = DR6_FIXED | dr6, .dr7 = v->st.dr7};
    return end(v, 0, KVM_EXIT_DEBUG);
}

static void end_emulation(struct fake_vcpu *v, const uint8_t *bytes, unsigned len)
{
    struct kvm_run *run = v->run;

    memset(&run->internal, 0, sizeof(run->internal));
    run->emulation_failure.suberror = KVM_INTERNAL_ERROR_EMULATION;
    run->emulation_failure.ndata = 1;
    if (len > 0) { /* flags, and the sixteen bytes of the instruction */
        run->emulation_failure.ndata = 3;
        run->emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
        run->emulation_failure.insn_size = (uint8_t)len;
        memset(run->emulation_failure.insn_bytes, 0x90, 15);
        memcpy(run->emulation_failure.insn_bytes, bytes, len);
    }
    end(v, 0, KVM_EXIT_INTERNAL_ERROR);
}

/* Linux: kvm_vcpu_reset with init_event. */
static void take_init(struct fake_vcpu *v)
{
    struct x86_state old;

    own_state(v);
    old = v->st;
    x86_state_reset(&v->st, v->id == 0);
    v->st.cr0 |= old.cr0 & (X86_CR0_CD | X86_CR0_NW);
    v->st.tsc_offset = old.tsc_offset;
    v->st.tsc_adjust = old.tsc_adjust;
    v->st.misc_enable = old.misc_enable;
    v->st.xcr0 = old.xcr0;
    memcpy(v->st.xsave, old.xsave, sizeof(old.xsave));
    v->exception.valid = v->interrupt.valid = v->nmi.valid = false;
    v->init_received = true;
    fake_lapic_reset(v);
}

static void take_sipi(struct fake_vcpu *v, int vector)
{
    if (v->st.mp_state != X86_MP_WAIT_SIPI || !v->init_received)
        return; /* who does not wait for it ignores it */
    own_state(v);
    v->st.seg[X86_CS].selector = (uint16_t)(vector << 8);
    v->st.seg[X86_CS].base = (uint64_t)vector << 12;
    v->st.rip = 0;
    v->st.mp_state = X86_MP_RUNNING;
    v->init_received = false;
}

static void wait_wake(struct fake_vcpu *v)
{
    pthread_mutex_lock(&v->lock);
    while (!v->wake && !v->quit)
        pthread_cond_wait(&v->changed, &v->lock);
    pthread_mutex_unlock(&v->lock);
}

/* To the machine of now, if slots, CPUID or vCPUs have changed. */
static bool move(struct fake_vcpu *v)
{
    struct fake_machine *old = v->machine, *m;

    if (old != NULL && old->generation == v->vm->generation)
        return true;
    own_state(v);
    m = fake_machine_get(v->vm);
    v->soft = m != NULL ? m->soft[v->id] : NULL;
    pthread_mutex_lock(&v->lock);
    v->machine = m;
    pthread_cond_broadcast(&v->changed);
    pthread_mutex_unlock(&v->lock);
    if (old != NULL)
        fake_machine_put(v->vm, old);
    return m != NULL || end(v, -ENOMEM, KVM_EXIT_UNKNOWN);
}

/* KVM's "uninitialized": KVM_RUN waits and then says -EAGAIN. */
static bool uninitialized(const struct fake_vcpu *v)
{
    return v->st.mp_state == X86_MP_WAIT_SIPI && !v->init_received;
}

/* False: the caller gets a reply, or nothing at all is to be done any more. */
static bool take_messages(struct fake_vcpu *v)
{
    bool fresh = uninitialized(v), quit, signal, init;
    int sipi;

    pthread_mutex_lock(&v->lock);
    v->wake = false;
    quit = v->quit;
    signal = v->signal;
    init = v->init;
    sipi = v->sipi;
    v->init = false;
    v->sipi = -1;
    pthread_mutex_unlock(&v->lock);
    if (quit)
        return false;
    if (init)
        take_init(v);
    if (sipi >= 0)
        take_sipi(v, sipi);
    if (signal)
        return end(v, -EINTR, KVM_EXIT_INTR);
    if (fresh && !uninitialized(v))
        return end(v, -EAGAIN, KVM_EXIT_UNKNOWN);
    return true;
}

/* What the last instruction has left for userspace. */
static bool take_results(struct fake_vcpu *v)
{
    bool completed = v->completed;

    v->completed = false;
    if (v->merge)
        merge_state(v);
    if (v->eoi >= 0) {
        v->run->eoi.vector = (uint8_t)v->eoi;
        v->eoi = -1;
        return end(v, 0, KVM_EXIT_IOAPIC_EOI);
    }
    if (v->tpr_lowered) {
        v->tpr_lowered = false;
        return end(v, 0, KVM_EXIT_SET_TPR);
    }
    if (completed && stepping(v))
        return end_debug(v, X86_EXC_DB, DR6_BS);
    if (v->finish_only)
        return end(v, -EINTR, KVM_EXIT_UNKNOWN);
    return true;
}

/* A code segment of 64 and of 32 bits at once: no processor enters a guest with that. */
static bool enterable(const struct x86_state *st)
{
    uint32_t both = X86_SEG_L | X86_SEG_DB;

    return !(st->efer & X86_EFER_LMA) || (st->seg[X86_CS].attr & both) != both;
}

/* Breakpoints of the debugger, instructions that the emulator would not know. */
static bool look_at_instruction(struct fake_vcpu *v)
{
    struct kvm_fake *fake = v->vm->fake;
    uint8_t bytes[15];
    unsigned n;

    for (unsigned i = 0; i < 4 && (v->debug & KVM_GUESTDBG_USE_HW_BP) && !fake_soft_resumes(v);
         i++) {
        if ((v->debug_reg[7] >> (2 * i) & 3) && !(v->debug_reg[7] >> (16 + 4 * i) & 3) &&
            v->debug_reg[i] == fake_soft_pc(v))
            return end_debug(v, X86_EXC_DB, 1u << i);
    }
    n = fake_soft_fetch(v, bytes);
    if (n == 0)
        return true;
    if ((v->debug & KVM_GUESTDBG_USE_SW_BP) && bytes[0] == 0xcc)
        return end_debug(v, X86_EXC_BP, 0);
    if (fake->fails == NULL || !fake->fails(fake->fails_ctx, bytes, n))
        return true;
    if (!v->vm->emulation_exits) { /* Linux: handle_emulation_failure */
        v->exception = (struct fake_event){.valid = true, .nr = X86_EXC_UD};
        if (fake_soft_cpl(v) != 0)
            return true;
    }
    end_emulation(v, bytes, n);
    return false;
}

/* Between two instructions. False: KVM_RUN ends, with v->result. */
static bool prepare(struct fake_vcpu *v)
{
    bool quiet = !v->exception.valid && !v->nmi.valid && !v->interrupt.valid;

    if (!take_results(v))
        return false;
    do {
        if (!take_messages(v) || !move(v))
            return false;
        if (v->st.mp_state == X86_MP_WAIT_SIPI)
            wait_wake(v);
    } while (v->st.mp_state == X86_MP_WAIT_SIPI);
    if (!v->dirty) {
        fake_soft_forget(v);
    } else {
        if (!enterable(&v->st)) {
            memset(&v->run->fail_entry, 0, sizeof(v->run->fail_entry));
            v->run->fail_entry.hardware_entry_failure_reason = 0xffffffffu; /* SVM's INVALID */
            return end(v, 0, KVM_EXIT_FAIL_ENTRY);
        }
        fake_soft_set(v, &v->st);
        v->dirty = false;
    }
    return !single(v) || !quiet || fake_soft_halting(v) || look_at_instruction(v);
}

/* What was injected goes in first, and alone. */
static void inject(struct fake_vcpu *v)
{
    struct fake_event *e = v->exception.valid ? &v->exception
                           : v->nmi.valid     ? &v->nmi
                                              : &v->interrupt;
    uint8_t type = e == &v->exception ? 3 : e == &v->nmi ? 2 : e->soft ? 4 : 0;

    if (e->valid) {
        fake_soft_event(v, type, e);
        e->valid = false;
        engine_soft.kick(v->soft);
    }
    if (atomic_exchange(&v->nmi_message, false))
        fake_soft_nmi(v);
    engine_soft.interrupt(v->soft); /* asks fake_lapic_ops.pending */
}

/* MOV from and to a debug register is the guest's own business: KVM intercepts it. */
static bool watches(struct fake_vcpu *v)
{
    uint8_t bytes[15];
    unsigned n, i = 0;

    if (!(v->debug & KVM_GUESTDBG_USE_HW_BP))
        return false;
    n = fake_soft_fetch(v, bytes);
    while (i < n && (bytes[i] == 0x66 || (bytes[i] & 0xf0) == 0x40))
        i++;
    return !(i + 1 < n && bytes[i] == 0x0f && (bytes[i + 1] == 0x21 || bytes[i + 1] == 0x23));
}

/* False: something came first; look at it. */
static bool enter(struct fake_vcpu *v, struct vcpu_exit *exit)
{
    bool wake;

    pthread_mutex_lock(&v->lock);
    wake = v->wake;
    v->running = wake ? NULL : v->soft;
    pthread_mutex_unlock(&v->lock);
    if (wake)
        return false;
    v->has_run = true;
    fake_soft_watch(v, watches(v));
    inject(v);
    engine_soft.run(v->soft, single(v) ? 1 : 0, exit);
    fake_soft_watch(v, false);
    pthread_mutex_lock(&v->lock);
    v->running = NULL;
    pthread_mutex_unlock(&v->lock);
    return true;
}

/* False: KVM_RUN ends. */
static bool leave(struct fake_vcpu *v, const struct vcpu_exit *exit)
{
    uint8_t bytes[15];

    if (v->window) {
        v->window = false;
        return end(v, 0, KVM_EXIT_IRQ_WINDOW_OPEN);
    }
    if (v->gives_up) {
        v->gives_up = false;
        end_emulation(v, bytes, fake_soft_fetch(v, bytes));
        return false;
    }
    if (v->debug_hit != 0) {
        uint32_t hit = v->debug_hit;

        v->debug_hit = 0;
        return end_debug(v, X86_EXC_DB, hit | (stepping(v) ? DR6_BS : 0));
    }
    switch (exit->reason) {
    case VCPU_EXIT_BUDGET:
        return !stepping(v) || end_debug(v, X86_EXC_DB, DR6_BS);
    case VCPU_EXIT_HLT:
        if (v->vm->split || (v->vm->disabled_exits & KVM_X86_DISABLE_EXITS_HLT)) {
            wait_wake(v);
            return true;
        }
        fake_soft_unhalt(v);
        return end(v, 0, KVM_EXIT_HLT);
    case VCPU_EXIT_SHUTDOWN:
        fake_soft_unhalt(v); /* another KVM_RUN tries again */
        return end(v, 0, KVM_EXIT_SHUTDOWN);
    case VCPU_EXIT_FAIL: /* the software CPU lacks it, so it is as good as an emulator's failure */
        end_emulation(v, bytes, fake_soft_fetch(v, bytes));
        return false;
    case VCPU_EXIT_INTERRUPTED:
    case VCPU_EXIT_PIO:
    case VCPU_EXIT_MMIO:
    case VCPU_EXIT_MSR:
    case VCPU_EXIT_DEBUG:
    case VCPU_EXIT_PAUSE:
    case VCPU_EXIT_EMULATE: /* nothing of it is another engine's */
        break;
    }
    return true;
}

void *fake_cpu_main(void *vcpu)
{
    struct fake_vcpu *v = vcpu;
    struct vcpu_exit exit;

    pthread_mutex_lock(&v->lock);
    while (v->turn != TURN_CPU && !v->quit)
        pthread_cond_wait(&v->changed, &v->lock);
    pthread_mutex_unlock(&v->lock);
    for (;;) {
        while (prepare(v) && (!enter(v, &exit) || leave(v, &exit)))
            ;
        if (!v->dirty && v->soft != NULL)
            fake_soft_get(v, &v->st);
        if (!hand_over(v))
            return NULL;
    }
}

/* ---- the caller's side ---- */

static bool ready(struct fake_vcpu *v)
{
    return (v->st.rflags & X86_FL_IF) && !v->st.sti_shadow && !v->st.movss_shadow &&
           !v->exception.valid && !v->interrupt.valid && !v->nmi.valid && v->extint < 0 &&
           fake_lapic_takes_extint(v);
}

/* Linux: sync_regs. */
static int take_dirty_regs(struct fake_vcpu *v)
{
    struct kvm_run *run = v->run;
    uint64_t valid = KVM_SYNC_X86_VALID_FIELDS;

    if ((run->kvm_valid_regs & ~valid) || (run->kvm_dirty_regs & ~valid))
        return -EINVAL;
    if (run->kvm_dirty_regs & KVM_SYNC_X86_REGS)
        fake_set_regs(v, &run->s.regs.regs);
    run->kvm_dirty_regs &= ~KVM_SYNC_X86_REGS;
    if ((run->kvm_dirty_regs & KVM_SYNC_X86_SREGS) && fake_set_sregs(v, &run->s.regs.sregs) < 0)
        return -EINVAL;
    run->kvm_dirty_regs &= ~KVM_SYNC_X86_SREGS;
    if ((run->kvm_dirty_regs & KVM_SYNC_X86_EVENTS) && fake_set_events(v, &run->s.regs.events) < 0)
        return -EINVAL;
    run->kvm_dirty_regs &= ~KVM_SYNC_X86_EVENTS;
    return 0;
}

static void give_valid_regs(struct fake_vcpu *v)
{
    struct kvm_run *run = v->run;

    if (run->kvm_valid_regs & KVM_SYNC_X86_REGS)
        fake_get_regs(v, &run->s.regs.regs);
    if (run->kvm_valid_regs & KVM_SYNC_X86_SREGS)
        fake_get_sregs(v, &run->s.regs.sregs);
    if (run->kvm_valid_regs & KVM_SYNC_X86_EVENTS)
        fake_get_events(v, &run->s.regs.events);
}

static int run_cpu(struct fake_vcpu *v)
{
    pthread_mutex_lock(&v->lock);
    v->turn = TURN_CPU;
    pthread_cond_broadcast(&v->changed);
    while (v->turn != TURN_CALLER)
        pthread_cond_wait(&v->changed, &v->lock);
    pthread_mutex_unlock(&v->lock);
    return v->result;
}

static int run_begun(struct fake_vcpu *v, bool sync)
{
    struct kvm_run *run = v->run;
    int rc = sync ? take_dirty_regs(v) : 0;

    if (rc < 0)
        return rc;
    if (!v->vm->split) {
        if (run->cr8 & ~15ull)
            return -EINVAL;
        v->cr8 = run->cr8;
    }
    v->finish_only =
        __atomic_load_n(&run->immediate_exit, __ATOMIC_SEQ_CST) != 0; /* another thread sets it */
    if (fake_lacks(v->vm->fake, KVM_CAP_IMMEDIATE_EXIT))
        v->finish_only = false;
    if (v->finish_only && !v->pending)
        return -EINTR;
    return run_cpu(v);
}

int fake_run(struct fake_vcpu *v)
{
    bool sync = !fake_lacks(v->vm->fake, KVM_CAP_SYNC_REGS);
    struct kvm_run *run = v->run;
    int rc;

    pthread_mutex_lock(&v->lock);
    v->in_run = true; /* before immediate_exit is read: see fake_kick */
    pthread_mutex_unlock(&v->lock);
    rc = run_begun(v, sync);
    pthread_mutex_lock(&v->lock);
    v->in_run = v->signal = false;
    pthread_mutex_unlock(&v->lock);
    if (sync && rc != -EINVAL)
        give_valid_regs(v);
    run->flags = 0;
    run->if_flag = (v->st.rflags & X86_FL_IF) != 0;
    run->ready_for_interrupt_injection = ready(v);
    run->cr8 = fake_lapic_ops.get_cr8(v->vm, v->id);
    run->apic_base = fake_get_apic_base(v);
    return rc;
}
