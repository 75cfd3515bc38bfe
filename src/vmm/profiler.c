#include "vmm/profiler.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "boot/profile.h"
#include "bus/timer.h"

/* A prime number of times a second: not in step with the guest's own ticks. */
#define PERIOD_NS (NSEC_PER_SEC / 997)
#define ADDRESSES (1u << 18) /* counted apart, each vCPU */
#define TERMINAL_ROWS 40u    /* a file gets all */

/* The guest's memory is searched in pieces, and a kernel's tables lie within OVERLAP. */
#define WINDOW (256 * MIB)
#define OVERLAP (32 * MIB)

struct sampled {
    struct profile *counts; /* its vCPU's thread; ours once it has ended */
    atomic_bool wanted;     /* set by the timer, before the kick; taken by the vCPU */
};

struct profiler {
    struct vm *vm;
    struct timer *timer;
    struct symbols *symbols; /* from a file; NULL: those of the guest's kernel */
    FILE *to;
    const char *path; /* borrowed */
    struct sampled cpu[];
};

/* ---- samples ---- */

static void ask(void *ctx)
{
    struct profiler *p = ctx;
    struct vm *vm = p->vm;

    for (unsigned i = 0; i < vm->cpus; i++) {
        atomic_store(&p->cpu[i].wanted, true);
        vcpu_on_kick(&vm->vcpu[i]);
    }
    timer_set(p->timer, timerq_now(vm->timers) + PERIOD_NS);
}

void profiler_look(struct vcpu *v, const struct vcpu_exit *x)
{
    struct sampled *s = &v->vm->profiler->cpu[v->id];
    struct x86_state state;
    bool flat;

    /* who was asked asleep would answer from the handler that has woken it */
    if (x->reason == VCPU_EXIT_HLT)
        atomic_store(&s->wanted, false);
    if (x->reason != VCPU_EXIT_INTERRUPTED || !atomic_exchange(&s->wanted, false))
        return;
    vcpu_on(v).ops->get(vcpu_on(v).impl, &state);
    if (state.mp_state == X86_MP_HALTED) /* asleep inside its engine */
        return;
    flat = (state.efer & X86_EFER_LMA) && (state.seg[X86_CS].attr & X86_SEG_L);
    profile_add(s->counts, x->rip + (flat ? 0 : state.seg[X86_CS].base),
                (state.seg[X86_SS].attr & X86_SEG_DPL) == X86_SEG_DPL);
}

/* ---- names ---- */

static int read_kernel(void *ctx, uint64_t linear, void *to, size_t len)
{
    struct vm *vm = ctx;

    return gmem_read(vm->mem, vm->kernel.phys + (linear - vm->kernel.virt), to, len);
}

static int read_ram(void *ctx, uint64_t gpa, void *to, size_t len)
{
    struct vm *vm = ctx;

    return gmem_read(vm->mem, gpa, to, len);
}

/*
 * The table inside the guest's kernel: where we have put it, and anywhere in RAM if it has moved
 * itself. Physical addresses will do, since the table says where it runs.
 */
static int guest_symbols(struct vm *vm, struct symbols **out, struct error *err)
{
    const struct linux_info *k = &vm->kernel;
    struct gmem_range r;
    int rc = -ENOENT;

    if (k->direct)
        return symbols_from_memory(read_kernel, vm, k->virt, align_up(k->size, GMEM_PAGE), out,
                                   err);
    for (unsigned n = 0; gmem_range(vm->mem, n, &r); n++) {
        for (uint64_t at = 0; !r.rom && at < r.size; at += WINDOW - OVERLAP) {
            rc = symbols_from_memory(read_ram, vm, r.gpa + at, min_u64(WINDOW, r.size - at), out,
                                     err);
            if (rc != -ENOENT)
                return rc;
        }
    }
    return rc;
}

/* Addresses in a file are those that the kernel is linked for. */
static int load_symbols(struct profiler *p, const char *path, struct error *err)
{
    int rc = symbols_load_file(path, &p->symbols, err);

    if (rc == 0)
        symbols_move(p->symbols, p->vm->kernel.virt_slide);
    return rc;
}

/* ---- the table ---- */

void profiler_report(struct profiler *p)
{
    struct vm *vm = p->vm;
    struct profile *all = p->cpu[0].counts;
    struct error err = {0};
    int rc;

    for (unsigned i = 1; i < vm->cpus; i++)
        profile_merge(all, p->cpu[i].counts);
    if (p->symbols == NULL && guest_symbols(vm, &p->symbols, &err) != 0)
        log_warn(vm->log,
                 "the profile names no functions of the guest's kernel (%s); see "
                 "--profile-symbols",
                 err.text);
    rc = profile_report(all, p->symbols, p->to == stderr ? TERMINAL_ROWS : 0, p->to);
    if (rc == 0 && fflush(p->to) != 0)
        rc = -errno;
    if (rc != 0)
        log_error(vm->log, "cannot write the profile %s: %s", p->path, strerror(-rc));
}

/* ---- creation ---- */

static int begin(struct profiler *p, const char *symbols, struct error *err)
{
    struct vm *vm = p->vm;
    int rc = symbols != NULL ? load_symbols(p, symbols, err) : 0;

    if (rc != 0)
        return rc;
    p->timer = timer_create_on(vm->timers, NULL, ask, p);
    for (unsigned i = 0; i < vm->cpus; i++) {
        p->cpu[i].counts = profile_create(ADDRESSES);
        if (p->timer == NULL || p->cpu[i].counts == NULL)
            return error_set(err, -ENOMEM, "no memory for a profile");
    }
    p->to = strcmp(p->path, "-") == 0 ? stderr : fopen(p->path, "we");
    if (p->to == NULL)
        return error_set(err, -errno, "cannot write the profile %s: %s", p->path, strerror(errno));
    timer_set(p->timer, timerq_now(vm->timers) + PERIOD_NS);
    return 0;
}

int profiler_create(struct vm *vm, struct error *err)
{
    const char *path = config_get(vm->cfg, "profile");
    struct profiler *p;

    if (path == NULL)
        return 0;
    p = calloc(1, sizeof(*p) + vm->cpus * sizeof(p->cpu[0]));
    if (p == NULL)
        return error_set(err, -ENOMEM, "no memory for a profile");
    p->vm = vm;
    p->path = path;
    vm->profiler = p;
    return begin(p, config_get(vm->cfg, "profile.symbols"), err);
}

void profiler_destroy(struct profiler *p)
{
    if (p == NULL)
        return;
    timer_free(p->timer);
    for (unsigned i = 0; i < p->vm->cpus; i++)
        profile_destroy(p->cpu[i].counts);
    symbols_destroy(p->symbols);
    if (p->to != NULL && p->to != stderr)
        fclose(p->to);
    free(p);
}
