#include "vmm/rescue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

/*
 * How many instructions a visit lasts: one more rescue soon after the last doubles it, a long time
 * without halves it. So a stray instruction costs a visit, and code that needs one at every step
 * stays with the software CPU.
 */
#define BUDGET_LEAST 32u
#define BUDGET_MOST (1u << 20)
#define SOON_NS 2000000u

struct rescue {
    void *vm, *cpu; /* the software CPU's */
    struct x86_state *state;
    uint64_t budget, last_ns;
    uint64_t visits, instructions;
    uint32_t by_op[X86_OP_COUNT]; /* what it began with; 0: not known */
};

static const struct engine_ops *soft(void)
{
    return vm_find_engine("soft");
}

static int create(struct vcpu *v, struct error *err)
{
    struct engine_env env = v->vm->engine_env;
    struct rescue *r = calloc(1, sizeof(*r));
    int rc;

    if (r == NULL)
        return error_set(err, -ENOMEM, "no memory for the software CPU");
    v->rescue = r;
    r->budget = BUDGET_LEAST;
    r->state = aligned_alloc(_Alignof(struct x86_state), sizeof(*r->state));
    if (r->state == NULL)
        return error_set(err, -ENOMEM, "no memory for a vCPU's state");
    env.visiting = true;
    env.interpret = true; /* what has been translated would be stale at the next visit */
    env.jit_cache = NULL;
    rc = soft()->vm_create(&env, &r->vm, err);
    return rc == 0 ? soft()->vcpu_create(r->vm, v->id, &r->cpu, err) : rc;
}

/* Which instruction it is, by its bytes; says so the first time. */
static void note(struct vcpu *v, const struct vcpu_exit *x, const struct x86_state *st)
{
    struct rescue *r = v->rescue;
    enum x86_mode mode = st->seg[X86_CS].attr & X86_SEG_L    ? X86_MODE_64
                         : st->seg[X86_CS].attr & X86_SEG_DB ? X86_MODE_32
                                                             : X86_MODE_16;
    struct x86_insn in = {0};
    bool known = x->insn.len > 0 && x86_decode(x->insn.bytes, x->insn.len, mode, &in) > 0;
    unsigned op = known ? in.op : 0;

    if (r->by_op[op]++ == 0)
        log_info(
            v->vm->log,
            "vCPU %u: the %s engine cannot run %s at RIP %#llx; the software CPU does, from now "
            "on unsaid",
            v->id, vm_engine_name(v->vm), known ? x86_op_name(in.op) : "the instruction",
            (unsigned long long)st->rip);
}

static void set_budget(struct rescue *r)
{
    uint64_t now = host_clock_ns();

    if (now - r->last_ns < SOON_NS)
        r->budget = min_u64(2 * r->budget, BUDGET_MOST);
    else
        r->budget = max_u64(r->budget / 2, BUDGET_LEAST);
    r->last_ns = now;
}

static bool fail(struct vcpu *v, struct vcpu_exit *x, const char *why)
{
    x->reason = VCPU_EXIT_FAIL;
    snprintf(x->text, sizeof(x->text), "the %s engine has given up on an instruction, and %.160s",
             vm_engine_name(v->vm), why);
    return false;
}

/* Runs from r->state; false: *x is the VM's to decide. */
static bool visit(struct vcpu *v, struct vcpu_exit *x, struct error *err)
{
    struct rescue *r = v->rescue;
    struct vcpu_stats before, after;

    if (soft()->set(r->cpu, r->state, err) != 0)
        return fail(v, x, err->text);
    soft()->stats(r->cpu, &before);
    if (soft()->run(r->cpu, r->budget, x) != 0)
        return fail(v, x, "the software CPU does not run");
    soft()->get(r->cpu, r->state);
    soft()->stats(r->cpu, &after);
    r->instructions += after.instructions - before.instructions;
    if (x->reason == VCPU_EXIT_EMULATE && after.instructions == before.instructions)
        return fail(v, x, "the software CPU does not know it either");
    return true;
}

bool rescue_run(struct vcpu *v, struct vcpu_exit *x)
{
    struct vcpu_on e = vcpu_on(v);
    struct error err = {0};
    struct rescue *r;
    bool ok;

    if (v->rescue == NULL && create(v, &err) != 0)
        return fail(v, x, err.text);
    r = v->rescue;
    e.ops->get(e.impl, r->state);
    if (e.ops->lapic_home != NULL && e.ops->lapic_home(e.impl) != 0)
        return fail(v, x, "its local APIC cannot be had");
    note(v, x, r->state);
    set_budget(r);
    r->visits++;
    gmem_keeper_begin(v->vm->mem); /* it writes by addresses that it keeps */
    ok = visit(v, x, &err);
    gmem_keeper_end(v->vm->mem);
    if (!ok)
        return false;
    if (e.ops->set(e.impl, r->state, &err) != 0)
        return fail(v, x, err.text);
    switch (x->reason) {
    case VCPU_EXIT_BUDGET:
    case VCPU_EXIT_INTERRUPTED:
    case VCPU_EXIT_EMULATE: /* its own engine knows that one */
    case VCPU_EXIT_HLT:     /* the state says so, and the engine will */
        return true;
    case VCPU_EXIT_SHUTDOWN:
    case VCPU_EXIT_PIO:
    case VCPU_EXIT_MMIO:
    case VCPU_EXIT_MSR:
    case VCPU_EXIT_DEBUG:
    case VCPU_EXIT_PAUSE:
    case VCPU_EXIT_FAIL:
        break;
    }
    return false;
}

void rescue_report(const struct vcpu *v, FILE *to)
{
    const struct rescue *r = v->rescue;

    if (r == NULL)
        return;
    fprintf(to, "vcpu %u: the software CPU ran %llu instructions for it in %llu visits:", v->id,
            (unsigned long long)r->instructions, (unsigned long long)r->visits);
    for (unsigned op = 0; op < X86_OP_COUNT; op++) {
        if (r->by_op[op] != 0)
            fprintf(to, " %s %u", op != 0 ? x86_op_name((enum x86_op)op) : "unknown", r->by_op[op]);
    }
    fprintf(to, "\n");
}

void rescue_destroy(struct vcpu *v)
{
    struct rescue *r = v->rescue;

    if (r == NULL)
        return;
    if (r->cpu != NULL)
        soft()->vcpu_destroy(r->cpu);
    if (r->vm != NULL)
        soft()->vm_destroy(r->vm);
    free(r->state);
    free(r);
    v->rescue = NULL;
}
