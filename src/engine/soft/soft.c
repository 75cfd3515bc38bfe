#include "engine/soft/soft.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/soft/check.h"
#include "engine/soft/interp.h"
#include "engine/soft/jit/jit.h"
#include "host/memory.h"

/* The engine's face, and the run loop: pending events, the next block, its instructions. */

enum { SOFT_INVALS = countof(((struct soft_cpu *)0)->inval) };
enum { INVAL_PROTECT = 1 }; /* in inval[], beside a page: drop its write tags */

/* ---- derived state ---- */

void soft_mode_changed(struct soft_cpu *cpu)
{
    const struct x86_segment *cs = &cpu->st.seg[X86_CS];

    if (in_vm86(cpu))
        cpu->cpl = 3;
    cpu->long_code = in_long_mode(cpu) && (cs->attr & X86_SEG_L) && !in_vm86(cpu);
    if (cpu->long_code) {
        cpu->mode = X86_MODE_64;
        cpu->rip_mask = ~0ull;
        cpu->sp_size = 8;
    } else {
        bool big = (cs->attr & X86_SEG_DB) && !in_vm86(cpu);

        cpu->mode = big ? X86_MODE_32 : X86_MODE_16;
        cpu->rip_mask = 0xffffffff; /* in 16-bit code too: only branches truncate to IP */
        cpu->sp_size = (cpu->st.seg[X86_SS].attr & X86_SEG_DB) && !in_vm86(cpu) ? 4 : 2;
    }
    cpu->block_mode = (uint8_t)(cpu->mode | (has_descriptors(cpu) ? 0 : BLOCK_REAL));
    for (unsigned i = 0; i < X86_SEG_COUNT; i++) {
        cpu->base[i] = cpu->long_code && i != X86_FS && i != X86_GS ? 0 : cpu->st.seg[i].base;
        if (!cpu->long_code)
            soft_set_flat(cpu, i);
    }
    mmu_update_mode(cpu);
}

/* Any of: TF, RF, a shadow, an instruction breakpoint, a data breakpoint that was hit. */
static bool wants_single(const struct soft_cpu *cpu)
{
    if ((cpu->st.rflags & (X86_FL_TF | X86_FL_RF)) || cpu->st.sti_shadow || cpu->st.movss_shadow ||
        cpu->db_hit != 0)
        return true;
    for (unsigned i = 0; i < 4; i++) {
        if (((cpu->st.dr7 >> (2 * i)) & 3) != 0 && ((cpu->st.dr7 >> (16 + 4 * i)) & 3) == 0)
            return true;
    }
    return false;
}

void soft_set_slow(struct soft_cpu *cpu)
{
    atomic_fetch_or_explicit(&cpu->pending, SOFT_PENDING_SLOW, memory_order_relaxed);
    soft_stop_block(cpu);
}

void soft_check_irq(struct soft_cpu *cpu)
{
    const struct engine_env *env = &cpu->vm->env;

    if (env->lapic != NULL && env->lapic->pending(env->lapic_ctx, cpu->id)) {
        atomic_store(&cpu->irq_waits, true);
        atomic_fetch_or(&cpu->pending, SOFT_PENDING_IRQ);
        soft_stop_block(cpu);
    }
}

void soft_set_flags(struct soft_cpu *cpu, uint64_t value)
{
    uint64_t old = cpu->st.rflags;

    cpu->cc = cc_from_flags(value);
    cpu->st.rflags = (value & 0x3f7fd7) | X86_FL_FIXED;
    if ((value & X86_FL_IF) && !(old & X86_FL_IF) &&
        atomic_load_explicit(&cpu->irq_waits, memory_order_relaxed))
        soft_check_irq(cpu);
    if (value & (X86_FL_TF | X86_FL_RF))
        soft_set_slow(cpu);
    if ((value ^ old) & X86_FL_AC)
        mmu_update_mode(cpu);
}

uint16_t vme_image(const struct soft_cpu *cpu)
{
    uint16_t fl = (uint16_t)(soft_flags(cpu) | X86_FL_IOPL);

    if (cpu->st.rflags & X86_FL_VIF)
        return fl | X86_FL_IF;
    return fl & (uint16_t)~X86_FL_IF;
}

void vme_load(struct soft_cpu *cpu, uint64_t flags)
{
    uint64_t mask = X86_FL_ARITH | X86_FL_DF | X86_FL_NT, keep = soft_flags(cpu);

    if ((flags & X86_FL_TF) || ((flags & X86_FL_IF) && (keep & X86_FL_VIP)))
        soft_raise_error(cpu, X86_EXC_GP, 0);
    keep &= ~(mask | X86_FL_VIF);
    soft_set_flags(cpu, keep | (flags & mask) | (flags & X86_FL_IF ? X86_FL_VIF : 0));
}

_Noreturn void soft_unimplemented(struct soft_cpu *cpu, const char *what)
{
    char bytes[3 * 15 + 1] = "";
    uint64_t rip =
        cpu->insn == INSN_RUNS ? soft_rip(cpu) : cpu->st.rip; /* else a fetch or an event */
    uint64_t lin = cpu->base[X86_CS] + rip;
    const struct fetch_entry *e = &cpu->fetch[cpu->cpl == 3][(lin >> 12) & (SOFT_FETCH_SIZE - 1)];

    for (unsigned i = 0; i < 15 && (lin & 4095) + i < PAGE_SIZE; i++) {
        if (e->tag != ((lin & PAGE_MASK) | (e->global ? cpu->gen_global : cpu->gen)) ||
            e->page == NULL)
            break;
        snprintf(bytes + 3 * i, 4, "%02x ", e->page[(lin & 4095) + i]);
    }
    UNIMPLEMENTED(cpu->vm->env.log, "%s at RIP %#llx, bytes %s", what, (unsigned long long)rip,
                  bytes);
    cpu->exit->reason = VCPU_EXIT_FAIL;
    snprintf(cpu->exit->text, sizeof(cpu->exit->text), "%s is not implemented (RIP %#llx: %s)",
             what, (unsigned long long)rip, bytes);
    cpu->exit_wanted = true;
    cpu->fault.type = FAULT_EXIT;
    longjmp(*cpu->env, 1);
}

void soft_go_home(struct soft_cpu *cpu)
{
    uint64_t in_block = cpu->block != NULL ? (uint64_t)(cpu->uop - cpu->block->uop) : 0;

    /* the first is what its own engine has given up on */
    if (cpu->stats.instructions + in_block == cpu->run_start)
        return;
    cpu->exit->reason = VCPU_EXIT_EMULATE;
    cpu->exit_wanted = true;
    cpu->fault.type = FAULT_EXIT;
    longjmp(*cpu->env, 1);
}

_Noreturn void soft_freeze(struct soft_cpu *cpu)
{
    cpu->halt_wanted = true;
    cpu->fault.type = FAULT_FREEZE;
    atomic_fetch_or(&cpu->pending, SOFT_PENDING_SLOW);
    longjmp(*cpu->env, 1);
}

/* ---- pending events ---- */

static void post_inval(struct soft_cpu *cpu, uint64_t what)
{
    unsigned n;

    while (atomic_exchange_explicit(&cpu->inval_lock, 1, memory_order_acquire) != 0)
        ;
    n = cpu->inval_count;
    if (n < SOFT_INVALS && (n == 0 || cpu->inval[n - 1] != what))
        cpu->inval[cpu->inval_count++] = what;
    else if (n >= SOFT_INVALS)
        cpu->inval_count = SOFT_INVALS + 1;
    atomic_store_explicit(&cpu->inval_lock, 0, memory_order_release);
    atomic_fetch_or(&cpu->pending, SOFT_PENDING_INVAL);
}

/* To each vCPU of these bits but oneself (NULL: nobody). */
static void post_to(struct soft_vm *vm, const struct soft_cpu *self, uint32_t who, uint64_t what)
{
    for (unsigned i = 0; i < vm->env.cpus; i++) {
        struct soft_cpu *cpu = vm->cpu[i];

        if (cpu != NULL && cpu != self && (soft_bit(cpu) & who) != 0)
            post_inval(cpu, what);
    }
}

void soft_tell_written(struct soft_cpu *cpu, uint64_t gpa_page, uint32_t who)
{
    if (who & ~soft_bit(cpu))
        post_to(cpu->vm, cpu, who, gpa_page);
}

/* One that is parked looks at what it was told before it runs again. */
bool soft_settle(struct soft_cpu *cpu, uint64_t gpa_page, uint32_t who, bool tell)
{
    struct soft_vm *vm = cpu->vm;

    if (tell)
        post_to(vm, cpu, who, gpa_page | INVAL_PROTECT);
    for (unsigned i = 0; i < vm->env.cpus; i++) {
        const struct soft_cpu *other = vm->cpu[i];

        if (other != NULL && other != cpu && (soft_bit(other) & who) != 0 &&
            !atomic_load(&other->parked))
            return false;
    }
    return true;
}

static void take_invals(struct soft_cpu *cpu)
{
    struct gmem *mem = cpu->vm->env.mem;
    uint64_t page[SOFT_INVALS];
    unsigned n;

    while (atomic_exchange_explicit(&cpu->inval_lock, 1, memory_order_acquire) != 0)
        ;
    n = cpu->inval_count;
    memcpy(page, cpu->inval, sizeof(page));
    cpu->inval_count = 0;
    atomic_store_explicit(&cpu->inval_lock, 0, memory_order_release);
    if (n > SOFT_INVALS) {
        block_flush_all(cpu);
        jit_flush(cpu);
        mmu_flush_all(cpu); /* the write tags */
        if (cpu->vm->smp)
            gmem_clear_writer_all(mem, soft_bit(cpu));
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        if (page[i] & INVAL_PROTECT)
            mmu_protect_code(cpu, page[i] & PAGE_MASK);
        else
            block_flush_page(cpu, page[i]);
    }
}

static void code_hook(void *ctx, uint64_t gpa_page, uint32_t who)
{
    post_to(ctx, NULL, who, gpa_page);
}

/* Takes an external interrupt if there still is one and the vCPU may. */
static void take_irq(struct soft_cpu *cpu)
{
    const struct engine_env *env = &cpu->vm->env;
    int vector;

    if (cpu->st.sti_shadow || cpu->st.movss_shadow)
        return; /* stays pending: one more instruction first */
    atomic_fetch_and(&cpu->pending, ~SOFT_PENDING_IRQ);
    if (!(cpu->st.rflags & X86_FL_IF) || env->lapic == NULL)
        return; /* irq_waits remembers */
    atomic_store(&cpu->irq_waits, false);
    if (!env->lapic->pending(env->lapic_ctx, cpu->id))
        return;
    vector = env->lapic->ack(env->lapic_ctx, cpu->id);
    if (env->lapic->pending(env->lapic_ctx, cpu->id))
        atomic_store(&cpu->irq_waits, true);
    if (vector < 0)
        return;
    cpu->stats.interrupts++;
    cpu->st.mp_state = X86_MP_RUNNING;
    event_deliver(cpu, (uint8_t)vector, EV_EXTERNAL, false, 0);
    if (atomic_load(&cpu->irq_waits))
        atomic_fetch_or(&cpu->pending, SOFT_PENDING_IRQ);
}

static void take_nmi(struct soft_cpu *cpu)
{
    if (cpu->st.nmi_blocked) {
        cpu->st.nmi_pending = true;
        atomic_fetch_and(&cpu->pending, ~SOFT_PENDING_NMI);
        return;
    }
    if (cpu->st.sti_shadow || cpu->st.movss_shadow)
        return;
    atomic_fetch_and(&cpu->pending, ~SOFT_PENDING_NMI);
    cpu->st.nmi_pending = false;
    cpu->st.mp_state = X86_MP_RUNNING;
    event_deliver(cpu, X86_EXC_NMI, EV_NMI, false, 0);
}

/* ---- execution ---- */

void soft_run_block(struct soft_cpu *cpu, struct soft_block *k)
{
    const struct uop *u = k->uop, *end = u + k->count;

    cpu->block = k;
    cpu->block_rip = cpu->st.rip;
    cpu->next_rip = (cpu->st.rip + k->bytes) & cpu->rip_mask;
    cpu->uop_end = end;
    cpu->insn = INSN_RUNS;
    do {
        cpu->uop = u;
        u->fn(cpu, u);
        u++;
    } while (u < cpu->uop_end);
    cpu->insn = INSN_NONE;
    cpu->st.rip = u == end ? cpu->next_rip : (cpu->block_rip + u->off) & cpu->rip_mask;
    cpu->stats.instructions += (uint64_t)(u - k->uop);
}

/* #DB before the instruction at an armed address; RF passes one instruction by. */
static void check_breakpoints(struct soft_cpu *cpu)
{
    uint64_t lin = cpu->base[X86_CS] + cpu->st.rip, hit = 0;

    for (unsigned i = 0; i < 4; i++) {
        if (((cpu->st.dr7 >> (2 * i)) & 3) != 0 && ((cpu->st.dr7 >> (16 + 4 * i)) & 3) == 0 &&
            cpu->st.dr[i] == lin)
            hit |= 1u << i;
    }
    if (hit != 0 && !(cpu->st.rflags & X86_FL_RF))
        raise_db(cpu, hit);
}

/*
 * A single step ends by the TF that was in force before the instruction, but by the TF after those
 * that enter the system: software interrupts clear it, SYSCALL by its mask.
 */
static bool flags_end_step(unsigned op)
{
    return op == X86_INT || op == X86_INT3 || op == X86_INTO || op == X86_INT1 ||
           op == X86_SYSCALL || op == X86_SYSRET;
}

/* One instruction, with all that watches single instructions. */
static void run_single(struct soft_cpu *cpu)
{
    bool trap = (cpu->st.rflags & X86_FL_TF) != 0;
    uint64_t dr6 = 0, next;
    struct soft_block *k;

    check_breakpoints(cpu);
    k = block_get(cpu, true);
    if (!cpu->long_code && cpu->st.rip + k->bytes - 1 > cpu->st.seg[X86_CS].limit)
        soft_raise_error(cpu, X86_EXC_GP, 0);
    cpu->st.sti_shadow = cpu->st.movss_shadow = false;
    cpu->st.rflags &= ~(uint64_t)X86_FL_RF;
    next = (cpu->st.rip + k->bytes) & cpu->rip_mask;
    soft_run_block(cpu, k);
    if (cpu->st.movss_shadow)
        return; /* traps wait for the next instruction too */
    if (flags_end_step(cpu->uop->op))
        trap = (cpu->st.rflags & X86_FL_TF) != 0;
    if ((cpu->st.debugctl & DEBUGCTL_BTF) && cpu->st.rip == next)
        trap = false;
    dr6 = cpu->db_hit | (trap ? 1u << 14 : 0);
    if (dr6 != 0) {
        cpu->db_hit = 0;
        cpu->halt_wanted = false; /* a HLT that traps does not halt */
        raise_db(cpu, dr6);
    }
}

struct soft_block *soft_next_block(struct soft_cpu *cpu)
{
    uint64_t lin = cpu->base[X86_CS] + cpu->st.rip;
    uint64_t key = cpu->gen << 8 | (uint64_t)cpu->block_mode << 2 | (cpu->cpl == 3 ? 2u : 0u) | 1u;
    struct soft_jump *j =
        &cpu->jumps[(lin ^ (lin >> SOFT_JUMP_BITS)) & ((1u << SOFT_JUMP_BITS) - 1)];
    struct soft_block *k;

    if (likely(j->lin == lin && j->key == key))
        return j->block;
    cpu->stats.blocks++;
    k = block_get(cpu, false);
    if (k->pa != UINT64_MAX) { /* the scratch ones are checked at every use */
        /* a decoded block may have flushed everything: the slot is written after */
        j->lin = lin;
        j->key = cpu->gen << 8 | (key & 0xff);
        j->block = k;
        cpu->jumps_live = true;
    }
    return k;
}

static void look_at_memory(struct soft_cpu *cpu)
{
    atomic_fetch_and(&cpu->pending, ~SOFT_PENDING_INVAL);
    mmu_rmw_end(cpu);
    take_invals(cpu);
}

static void take_pins(struct soft_cpu *cpu)
{
    bool masked;

    atomic_fetch_and(&cpu->pending, ~SOFT_PENDING_PINS); /* first: a change after it comes again */
    masked = atomic_load(&cpu->vm->a20_masked);
    if (atomic_exchange(&cpu->ignne_wanted, false) && cpu->st.ferr)
        cpu->st.ignne = true;
    if (cpu->st.a20_masked != masked) {
        cpu->st.a20_masked = masked;
        mmu_flush_all(cpu);
    }
}

/* Events between instructions. Returns false if run must return (cpu->exit is filled). */
static bool look_around(struct soft_cpu *cpu, uint32_t pending)
{
    if (pending & SOFT_PENDING_INVAL)
        look_at_memory(cpu);
    if (pending & SOFT_PENDING_PINS)
        take_pins(cpu);
    if (cpu->exit_wanted)
        return false;
    if (cpu->db_hit != 0 && !cpu->st.movss_shadow) {
        uint64_t hit = cpu->db_hit;

        cpu->db_hit = 0;
        raise_db(cpu, hit); /* the trap of the last instruction comes before interrupts */
    }
    if (cpu->halt_wanted) { /* before the interrupt that ends it */
        cpu->halt_wanted = false;
        cpu->st.mp_state = X86_MP_HALTED;
        cpu->stats.halts++;
    }
    /* before interrupts, so that a profile does not show their handlers where it meets them */
    if ((pending & SOFT_PENDING_KICK) && cpu->st.mp_state != X86_MP_HALTED) {
        atomic_fetch_and(&cpu->pending, ~SOFT_PENDING_KICK);
        cpu->exit->reason = VCPU_EXIT_INTERRUPTED;
        return false;
    }
    if (pending & SOFT_PENDING_NMI)
        take_nmi(cpu);
    if (pending & SOFT_PENDING_IRQ)
        take_irq(cpu);
    if (cpu->st.mp_state == X86_MP_HALTED) {
        if (atomic_load(&cpu->pending) & (SOFT_PENDING_NMI | SOFT_PENDING_IRQ)) {
            if ((atomic_load(&cpu->pending) & SOFT_PENDING_NMI) || (cpu->st.rflags & X86_FL_IF)) {
                cpu->st.sti_shadow = cpu->st.movss_shadow = false; /* HLT was the shadowed one */
                return true;
            }
        }
        jit_rest(cpu);
        cpu->exit->reason = VCPU_EXIT_HLT;
        cpu->exit->interrupts_off = !(cpu->st.rflags & X86_FL_IF);
        return false;
    }
    if ((pending & SOFT_PENDING_SLOW) && !wants_single(cpu))
        atomic_fetch_and(&cpu->pending, ~SOFT_PENDING_SLOW);
    return true;
}

static void soft_loop(struct soft_cpu *cpu)
{
    for (;;) {
        uint32_t pending = atomic_load_explicit(&cpu->pending, memory_order_acquire);
        struct soft_block *k;

        if (unlikely(pending != 0 || cpu->st.mp_state == X86_MP_HALTED)) {
            if (!look_around(cpu, pending))
                return;
            if (cpu->st.mp_state == X86_MP_HALTED)
                continue;
        }
        if (unlikely(cpu->budgeted && cpu->stats.instructions >= cpu->budget)) {
            cpu->exit->reason = VCPU_EXIT_BUDGET;
            return;
        }
        if (unlikely(atomic_load_explicit(&cpu->pending, memory_order_relaxed) &
                     SOFT_PENDING_SLOW)) {
            run_single(cpu);
            continue;
        }
        if (unlikely(cpu->check != NULL)) {
            if (!check_run(cpu))
                run_single(cpu);
            continue;
        }
        if (cpu->jit != NULL && jit_run(cpu))
            continue;
        k = soft_next_block(cpu);
        if (unlikely(cpu->budgeted && cpu->budget - cpu->stats.instructions < k->count)) {
            run_single(cpu);
            continue;
        }
        if (unlikely(!cpu->long_code && cpu->st.rip + k->bytes - 1 > cpu->st.seg[X86_CS].limit)) {
            run_single(cpu);
            continue;
        }
        soft_run_block(cpu, k);
    }
}

void soft_rewind(struct soft_cpu *cpu)
{
    if (cpu->insn == INSN_RUNS) {
        cpu->st.rip = soft_rip(cpu);
        if (cpu->block != NULL)
            cpu->stats.instructions += (uint64_t)(cpu->uop - cpu->block->uop);
        if (cpu->jit_runs)
            jit_uncount(cpu, (unsigned)(cpu->st.rip & 4095));
        cpu->db_hit = 0; /* it runs again */
    } else if (cpu->insn == INSN_SWITCHED && cpu->block != NULL) {
        cpu->stats.instructions += (uint64_t)(cpu->uop - cpu->block->uop) + 1;
    }
    cpu->insn = INSN_NONE;
    cpu->jit_runs = false;
    if (cpu->delivering)
        cpu->st.gpr[X86_RSP] = cpu->deliver_rsp;
}

/* After a fault jumped out: RIP back to the instruction, then the exception. true: go on. */
static bool take_fault(struct soft_cpu *cpu)
{
    soft_rewind(cpu);
    if (cpu->exit_wanted && cpu->fault.type == FAULT_EXIT)
        return false;
    if (cpu->fault.type == FAULT_FREEZE)
        return true;
    cpu->stats.exceptions++;
    if (cpu->budgeted && cpu->budget > cpu->stats.instructions)
        cpu->budget--; /* handlers that fault at once must come to an end too */
    if (!event_escalate(cpu)) {
        cpu->delivering = false;
        cpu->st.mp_state = X86_MP_SHUTDOWN;
        cpu->exit->reason = VCPU_EXIT_SHUTDOWN;
        return false;
    }
    cpu->st.mp_state = X86_MP_RUNNING;
    event_deliver(cpu, cpu->fault.vector, EV_EXCEPTION, cpu->fault.has_error, cpu->fault.error);
    return true;
}

/* An event that came with the state: what another engine or a snapshot had not delivered yet. */
static void take_event(struct soft_cpu *cpu)
{
    struct x86_event ev = cpu->st.event;

    cpu->st.event.valid = false;
    cpu->st.mp_state = X86_MP_RUNNING;
    if (ev.type == EV_EXCEPTION && ev.vector == X86_EXC_PF)
        cpu->st.cr2 = ev.payload;
    if (ev.type == EV_EXCEPTION && ev.vector == X86_EXC_DB)
        cpu->st.dr6 |= ev.payload;
    event_deliver(cpu, ev.vector, (enum event_type)ev.type, ev.has_error, ev.error);
}

static int soft_run(void *vcpu, uint64_t budget, struct vcpu_exit *exit)
{
    struct soft_cpu *cpu = vcpu;
    jmp_buf env;

    memset(exit, 0, sizeof(*exit));
    cpu->env = &env;
    cpu->exit = exit;
    cpu->exit_wanted = false;
    cpu->insn = INSN_NONE;
    cpu->delivering = false;
    cpu->budgeted = budget != 0;
    cpu->run_start = cpu->stats.instructions;
    cpu->budget = cpu->stats.instructions + budget;
    if (cpu->st.mp_state == X86_MP_SHUTDOWN) {
        exit->reason = VCPU_EXIT_SHUTDOWN;
        return 0;
    }
    atomic_store(&cpu->parked, false); /* and then looks: see soft_settle */
    if (atomic_load(&cpu->pending) & SOFT_PENDING_INVAL)
        look_at_memory(cpu);
    /* every fault comes back here; all state is in *cpu */
    if (setjmp(env) != 0) {
        if (!take_fault(cpu))
            goto out;
    } else if (cpu->st.event.valid) {
        take_event(cpu);
    }
    soft_loop(cpu);
out:
    mmu_rmw_end(cpu);
    atomic_store(&cpu->parked, true);
    exit->rip = cpu->st.rip;
    return 0;
}

/* ---- state in and out ---- */

static void soft_get(void *vcpu, struct x86_state *out)
{
    struct soft_cpu *cpu = vcpu;

    *out = cpu->st;
    out->rflags = soft_flags(cpu);
    if (atomic_load(&cpu->pending) & SOFT_PENDING_NMI) /* signalled, not looked at yet */
        out->nmi_pending = true;
    out->seg[X86_SS].attr = (out->seg[X86_SS].attr & ~X86_SEG_DPL) | cpu->cpl << 5;
}

static int soft_set(void *vcpu, const struct x86_state *in, struct error *err)
{
    struct soft_cpu *cpu = vcpu;
    const struct engine_env *env = &cpu->vm->env;
    uint64_t base = 0;

    if ((in->xcr0 & X86_XCR0_AVX512) != 0 && !env->visiting)
        return error_set(err, -EOPNOTSUPP,
                         "the guest has switched AVX-512 on, which the software CPU has not got; a "
                         "Linux that boots with clearcpuid=avx512f does not");
    cpu->st = *in;
    cpu->cc = cc_from_flags(in->rflags);
    cpu->cpl = !(in->cr0 & X86_CR0_PE)         ? 0
               : (in->rflags & X86_FL_VM) != 0 ? 3
                                               : (in->seg[X86_SS].attr >> 5) & 3;
    cpu->halt_wanted = false;
    cpu->db_hit = 0;
    atomic_store(&cpu->vm->a20_masked, in->a20_masked); /* one line for all */
    cpu->apic_page = ~0ull;
    if (env->lapic != NULL && env->lapic->msr_read(env->lapic_ctx, cpu->id, 0x1b, &base) == 0 &&
        (base & 0xc00) == 0x800)
        cpu->apic_page = base & cpu->vm->phys_mask & PAGE_MASK;
    gmem_set_code_hook(env->mem, code_hook, cpu->vm); /* two software CPUs may share the memory */
    mmu_flush_all(cpu);
    block_flush_all(cpu);
    jit_flush(cpu);
    soft_mode_changed(cpu);
    atomic_fetch_and(&cpu->pending, ~SOFT_PENDING_NMI); /* the state says it */
    atomic_fetch_or(&cpu->pending,
                    SOFT_PENDING_SLOW |
                        (in->nmi_pending && !in->nmi_blocked ? SOFT_PENDING_NMI : 0));
    atomic_store(&cpu->irq_waits, true);
    atomic_fetch_or(&cpu->pending, SOFT_PENDING_IRQ);
    return 0;
}

static void soft_kick(void *vcpu)
{
    struct soft_cpu *cpu = vcpu;

    atomic_fetch_or(&cpu->pending, SOFT_PENDING_KICK);
}

static void soft_interrupt(void *vcpu)
{
    struct soft_cpu *cpu = vcpu;

    atomic_store(&cpu->irq_waits, true); /* before pending: see soft_set_flags */
    atomic_fetch_or(&cpu->pending, SOFT_PENDING_IRQ);
}

static void soft_nmi(void *vcpu)
{
    struct soft_cpu *cpu = vcpu;

    atomic_fetch_or(&cpu->pending, SOFT_PENDING_NMI);
}

static uint64_t soft_tsc(void *vcpu)
{
    return soft_guest_tsc(vcpu);
}

/* To all vCPUs: look at the pins before the next instruction. */
static void pins_changed(struct soft_vm *vm)
{
    for (unsigned i = 0; i < vm->env.cpus; i++) {
        if (vm->cpu[i] != NULL)
            atomic_fetch_or(&vm->cpu[i]->pending, SOFT_PENDING_PINS);
    }
}

static void soft_a20(void *p, bool open)
{
    struct soft_vm *vm = p;

    atomic_store(&vm->a20_masked, !open);
    pins_changed(vm);
}

static void soft_ignne(void *p)
{
    struct soft_vm *vm = p;

    for (unsigned i = 0; i < vm->env.cpus; i++) {
        if (vm->cpu[i] != NULL)
            atomic_store(&vm->cpu[i]->ignne_wanted, true);
    }
    pins_changed(vm);
}

static void soft_stats(void *vcpu, struct vcpu_stats *out)
{
    struct soft_cpu *cpu = vcpu;

    *out = cpu->stats;
}

/* ---- creation ---- */

static int soft_probe(const struct engine_env *env, bool choose, struct error *err)
{
    (void)env;
    (void)choose;
    (void)err;
    return 0;
}

static int soft_vm_create(const struct engine_env *env, void **out, struct error *err)
{
    struct soft_vm *vm = calloc(1, sizeof(*vm));

    if (vm == NULL)
        return error_set(err, -ENOMEM, "no memory for the software CPU");
    vm->env = *env;
    vm->count = env->count || env->check;
    vm->smp = env->cpus > 1;
    pthread_mutex_init(&vm->split, NULL);
    vm->phys_mask = (1ull << env->cpuid->phys_bits) - 1;
    gmem_set_code_hook(env->mem, code_hook, vm);
    *out = vm;
    return 0;
}

static void soft_vm_destroy(void *p)
{
    struct soft_vm *vm = p;

    if (vm == NULL)
        return;
    gmem_set_code_hook(vm->env.mem, NULL, NULL);
    pthread_mutex_destroy(&vm->split);
    free(vm);
}

static void soft_vcpu_destroy(void *p)
{
    struct soft_cpu *cpu = p;

    if (cpu == NULL)
        return;
    cpu->vm->cpu[cpu->id] = NULL;
    check_fini(cpu);
    jit_fini(cpu);
    native_fini(cpu);
    blocks_fini(cpu);
    host_memory_free((char *)cpu - JIT_STACK, JIT_STACK + sizeof(*cpu));
}

static int soft_vcpu_create(void *p, unsigned id, void **out, struct error *err)
{
    struct soft_vm *vm = p;
    char *room = host_memory_alloc(JIT_STACK + sizeof(struct soft_cpu), err);
    struct soft_cpu *cpu;
    int rc;

    if (room == NULL)
        return -ENOMEM;
    cpu = (void *)(room + JIT_STACK);
    cpu->vm = vm;
    cpu->id = id;
    cpu->rmw_code = UINT64_MAX;
    cpu->parked = true;
    mmu_init(cpu);
    rc = blocks_init(cpu, err);
    if (rc == 0)
        rc = native_init(cpu, err);
    if (rc == 0 && !vm->env.interpret)
        rc = jit_init(cpu, err);
    if (rc == 0 && vm->env.check)
        rc = check_init(cpu, err);
    if (rc != 0) {
        soft_vcpu_destroy(cpu);
        return rc;
    }
    vm->cpu[id] = cpu;
    x86_state_reset(&cpu->st, id == 0);
    soft_set(cpu, &cpu->st, err);
    *out = cpu;
    return 0;
}

const struct engine_ops engine_soft = {
    .name = "soft",
    .summary = "software CPU: any x86-64 host, no privilege",
    .caps = ENGINE_CAP_STEP,
    .probe = soft_probe,
    .vm_create = soft_vm_create,
    .vm_destroy = soft_vm_destroy,
    .vcpu_create = soft_vcpu_create,
    .vcpu_destroy = soft_vcpu_destroy,
    .get = soft_get,
    .set = soft_set,
    .run = soft_run,
    .kick = soft_kick,
    .interrupt = soft_interrupt,
    .nmi = soft_nmi,
    .tsc = soft_tsc,
    .a20 = soft_a20,
    .ignne = soft_ignne,
    .stats = soft_stats,
    .report = jit_report,
};
