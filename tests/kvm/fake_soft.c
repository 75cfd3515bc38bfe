/*
 * What of the software CPU an engine's interface does not show: where an instruction stands while
 * it waits for an access, leaving run() from inside, the bytes at RIP. The only file here that
 * knows the insides of the interpreter.
 */
#include "fake_impl.h"

#include <errno.h>
#include <string.h>

#include "engine/soft/interp.h"
#include "engine/soft/soft.h"

/* In the middle of an instruction RIP is the instruction's, as all else is from before it. */
void fake_soft_get(struct fake_vcpu *v, struct x86_state *out)
{
    struct soft_cpu *cpu = v->soft;

    engine_soft.get(cpu, out);
    if (cpu->insn == INSN_RUNS)
        out->rip = soft_rip(cpu);
    if (atomic_load(&cpu->pending) & SOFT_PENDING_NMI)
        out->nmi_pending = true;
}

void fake_soft_set(struct fake_vcpu *v, const struct x86_state *in)
{
    struct soft_cpu *cpu = v->soft;

    atomic_fetch_and(&cpu->pending, ~SOFT_PENDING_NMI); /* the state says whether there is one */
    engine_soft.set(cpu, in, NULL);
}

void fake_soft_forget(struct fake_vcpu *v)
{
    if (!v->vm->fake->fast)
        block_flush_all(v->soft);
}

void fake_soft_stop_after(struct fake_vcpu *v)
{
    struct soft_cpu *cpu = v->soft;

    engine_soft.kick(cpu);
    if (cpu->insn == INSN_RUNS)
        soft_stop_block(cpu);
}

/* An instruction that has begun is taken back, and runs again another time. */
void fake_soft_abort(struct fake_vcpu *v)
{
    struct soft_cpu *cpu = v->soft;

    cpu->exit->reason = VCPU_EXIT_INTERRUPTED;
    cpu->exit_wanted = true;
    cpu->fault.type = FAULT_EXIT;
    longjmp(*cpu->env, 1);
}

/* The HLT has become an exit, so it has ended, and the shadow that an STI cast on it. */
void fake_soft_unhalt(struct fake_vcpu *v)
{
    struct soft_cpu *cpu = v->soft;

    cpu->st.mp_state = X86_MP_RUNNING;
    cpu->st.sti_shadow = cpu->st.movss_shadow = false;
}

bool fake_soft_halting(const struct fake_vcpu *v)
{
    const struct soft_cpu *cpu = v->soft;

    return cpu->st.mp_state == X86_MP_HALTED || cpu->halt_wanted;
}

void fake_soft_event(struct fake_vcpu *v, uint8_t type, const struct fake_event *e)
{
    struct soft_cpu *cpu = v->soft;
    uint64_t payload = e->nr == X86_EXC_PF ? cpu->st.cr2 : 0;

    cpu->st.event = (struct x86_event){true, type, e->nr, e->has_error, e->error, payload};
}

void fake_soft_nmi(struct fake_vcpu *v)
{
    engine_soft.nmi(v->soft);
}

unsigned fake_soft_cpl(const struct fake_vcpu *v)
{
    return ((const struct soft_cpu *)v->soft)->cpl;
}

bool fake_soft_interruptible(const struct fake_vcpu *v)
{
    const struct soft_cpu *cpu = v->soft;

    return (cpu->st.rflags & X86_FL_IF) && !cpu->st.sti_shadow && !cpu->st.movss_shadow;
}

uint64_t fake_soft_pc(const struct fake_vcpu *v)
{
    const struct soft_cpu *cpu = v->soft;

    return cpu->base[X86_CS] + cpu->st.rip;
}

/* A fault of the fetch itself is the instruction's, and comes when it runs: here it just ends. */
unsigned fake_soft_fetch(struct fake_vcpu *v, uint8_t bytes[15])
{
    struct soft_cpu *cpu = v->soft;
    uint64_t cr2 = cpu->st.cr2; /* a fault writes it */
    volatile unsigned n = 0;
    jmp_buf env;

    cpu->insn = INSN_NONE;
    cpu->delivering = false;
    cpu->env = &env;
    if (setjmp(env) == 0) {
        for (; n < 15; n++) {
            uint64_t gpa, lin = cpu->base[X86_CS] + ((cpu->st.rip + n) & cpu->rip_mask);
            const uint8_t *p = mmu_fetch(cpu, lin, &gpa);

            if (p == NULL) {
                if (!fake_memory_read(v->vm, gpa, &bytes[n], 1))
                    break;
                continue;
            }
            bytes[n] = *p;
        }
    }
    cpu->st.cr2 = cr2;
    return n;
}

/* What fetching needs of the CPU is as it was afterwards; nothing is fetched that has not been. */
unsigned fake_soft_insn(struct fake_vcpu *v, uint8_t bytes[15])
{
    struct soft_cpu *cpu = v->soft;
    uint8_t insn = cpu->insn;
    uint64_t rip = cpu->st.rip;
    bool delivering = cpu->delivering;
    jmp_buf *env = cpu->env;
    unsigned n;

    if (insn == INSN_RUNS)
        cpu->st.rip = soft_rip(cpu);
    n = fake_soft_fetch(v, bytes);
    cpu->st.rip = rip;
    cpu->insn = insn;
    cpu->delivering = delivering;
    cpu->env = env;
    return n;
}

/* ---- a debugger ---- */

bool fake_soft_resumes(const struct fake_vcpu *v)
{
    return (((const struct soft_cpu *)v->soft)->st.rflags & X86_FL_RF) != 0;
}

void fake_soft_watch(struct fake_vcpu *v, bool on)
{
    struct soft_cpu *cpu = v->soft;

    if (on == v->watched)
        return;
    v->watched = on;
    if (on) {
        memcpy(v->own_dr, cpu->st.dr, sizeof(v->own_dr));
        v->own_dr7 = cpu->st.dr7;
        memcpy(cpu->st.dr, v->debug_reg, sizeof(v->own_dr));
        cpu->st.dr7 = v->debug_reg[7];
    } else {
        memcpy(cpu->st.dr, v->own_dr, sizeof(v->own_dr));
        cpu->st.dr7 = v->own_dr7;
    }
    mmu_update_mode(cpu);
    soft_set_slow(cpu);
}

/* ---- RDMSR, WRMSR and #DB, by the linker's --wrap ---- */

_Noreturn void __real_raise_db(struct soft_cpu *cpu, uint64_t dr6);
_Noreturn void __wrap_raise_db(struct soft_cpu *cpu, uint64_t dr6);

void __real_msr_read(struct soft_cpu *cpu, uint32_t index, uint64_t *value);
void __real_msr_write(struct soft_cpu *cpu, uint32_t index, uint64_t value);
void __wrap_msr_read(struct soft_cpu *cpu, uint32_t index, uint64_t *value);
void __wrap_msr_write(struct soft_cpu *cpu, uint32_t index, uint64_t value);

/* NULL: a software CPU that is not the fake's. */
static struct fake_vcpu *owner(const struct soft_cpu *cpu)
{
    const struct engine_env *env = &cpu->vm->env;

    return env->lapic == &fake_lapic_ops ? fake_vcpu_of(env->lapic_ctx, cpu->id) : NULL;
}

/* False: #GP. KVM tells userspace of those too, if it asked. */
static bool try_msr(struct soft_cpu *cpu, uint32_t index, uint64_t *value, bool write)
{
    jmp_buf env, *outer = cpu->env;

    cpu->env = &env;
    if (setjmp(env) != 0) {
        cpu->env = outer;
        return false;
    }
    if (write)
        __real_msr_write(cpu, index, *value);
    else
        __real_msr_read(cpu, index, value);
    cpu->env = outer;
    return true;
}

static void access_msr(struct soft_cpu *cpu, struct fake_vcpu *v, uint32_t index, uint64_t *value,
                       bool write)
{
    uint32_t reason = fake_msr_refused(v, index, write);

    if (reason == 0 && index == 0x1b && !v->vm->split) { /* userspace's APIC has only this here */
        *(write ? &v->apic_base : value) = write ? *value : v->apic_base;
        return;
    }
    if (reason == 0 && try_msr(cpu, index, value, write))
        return;
    if (!fake_msr_exit(v, reason != 0 ? reason : KVM_MSR_EXIT_REASON_INVAL, index, write, value))
        soft_raise_error(cpu, X86_EXC_GP, 0);
}

void __wrap_msr_read(struct soft_cpu *cpu, uint32_t index, uint64_t *value)
{
    struct fake_vcpu *v = owner(cpu);

    if (v != NULL)
        access_msr(cpu, v, index, value, false);
    else
        __real_msr_read(cpu, index, value);
}

void __wrap_msr_write(struct soft_cpu *cpu, uint32_t index, uint64_t value)
{
    struct fake_vcpu *v = owner(cpu);

    if (v != NULL)
        access_msr(cpu, v, index, &value, true);
    else
        __real_msr_write(cpu, index, value);
}

_Noreturn void __wrap_raise_db(struct soft_cpu *cpu, uint64_t dr6)
{
    struct fake_vcpu *v = owner(cpu);

    if (v == NULL || !v->watched)
        __real_raise_db(cpu, dr6);
    v->debug_hit = (uint32_t)dr6;
    fake_soft_abort(v);
}
