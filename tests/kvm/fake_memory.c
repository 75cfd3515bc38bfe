/* Slots, the map of them that the software CPU gets, the dirty log. */
#include "fake_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/soft/soft.h"

#define PAGE 4096u
#define SLOT_FLAGS (KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY)

/* ---- the machine ---- */

/*
 * Read-only slots stay out of the map: the software CPU would drop writes to ROM, and KVM reports
 * them. What is no RAM comes to us (fake_run.c), and we find them there.
 */
static struct gmem *make_map(struct fake_vm *vm)
{
    struct gmem_range ranges[FAKE_SLOTS];
    unsigned n = 0;

    for (unsigned i = 0; i < FAKE_SLOTS; i++) {
        const struct kvm_userspace_memory_region *r = &vm->slot[i].r;

        if (r->memory_size != 0 && !(r->flags & KVM_MEM_READONLY))
            ranges[n++] = (struct gmem_range){.gpa = r->guest_phys_addr,
                                              .size = r->memory_size,
                                              .hva = (void *)(uintptr_t)r->userspace_addr};
    }
    return gmem_create_over(ranges, n, NULL);
}

/* vm->lock held, or nobody else is left. */
static void machine_unref(struct fake_machine *m)
{
    if (--m->refs > 0)
        return;
    for (unsigned i = 0; i < FAKE_VCPUS; i++)
        engine_soft.vcpu_destroy(m->soft[i]);
    engine_soft.vm_destroy(m->soft_vm);
    gmem_destroy(m->mem);
    free(m);
}

static int make_cpus(struct fake_vm *vm, struct fake_machine *m)
{
    int rc = 0;

    for (unsigned i = 0; i < FAKE_VCPUS && rc == 0; i++) {
        if (vm->vcpu[i] != NULL)
            rc = engine_soft.vcpu_create(m->soft_vm, i, &m->soft[i], NULL);
    }
    return rc;
}

static struct fake_machine *machine_create(struct fake_vm *vm)
{
    struct fake_machine *m = calloc(1, sizeof(*m));
    struct engine_env env = {
        .log = vm->fake->log,
        .bus = vm->bus,
        .irqs = vm->router,
        .lapic = &fake_lapic_ops,
        .lapic_ctx = vm,
        .strict_msr = true,
        .interpret = !vm->fake->fast,
    };

    if (m == NULL)
        return NULL;
    m->refs = 1;
    m->generation = vm->generation;
    m->mem = make_map(vm);
    fake_make_cpuid(vm, &m->cpuid);
    env.mem = m->mem;
    env.cpuid = &m->cpuid;
    for (unsigned i = 0; i < FAKE_VCPUS; i++) {
        if (vm->vcpu[i] != NULL)
            env.cpus = i + 1;
    }
    if (m->mem == NULL || engine_soft.vm_create(&env, &m->soft_vm, NULL) < 0 ||
        make_cpus(vm, m) < 0) {
        machine_unref(m);
        return NULL;
    }
    return m;
}

struct fake_machine *fake_machine_get(struct fake_vm *vm)
{
    struct fake_machine *m;

    pthread_mutex_lock(&vm->lock);
    if (vm->machine != NULL && vm->machine->generation != vm->generation) {
        machine_unref(vm->machine);
        vm->machine = NULL;
    }
    if (vm->machine == NULL)
        vm->machine = machine_create(vm);
    m = vm->machine;
    if (m != NULL)
        m->refs++;
    pthread_mutex_unlock(&vm->lock);
    return m;
}

void fake_machine_put(struct fake_vm *vm, struct fake_machine *m)
{
    pthread_mutex_lock(&vm->lock);
    machine_unref(m);
    pthread_mutex_unlock(&vm->lock);
}

void fake_generation(struct fake_vm *vm)
{
    uint64_t now = atomic_fetch_add(&vm->generation, 1) + 1;

    for (unsigned i = 0; i < FAKE_VCPUS; i++) {
        struct fake_vcpu *v = fake_vcpu_of(vm, i);

        if (v == NULL)
            continue;
        fake_vcpu_wake(v);
        pthread_mutex_lock(&v->lock);
        /* one that waits for its caller moves before it runs on */
        while (v->turn == TURN_CPU && v->machine != NULL && v->machine->generation < now)
            pthread_cond_wait(&v->changed, &v->lock);
        pthread_mutex_unlock(&v->lock);
    }
}

/* ---- slots ---- */

static bool overlaps(const struct fake_vm *vm, const struct kvm_userspace_memory_region *r)
{
    for (unsigned i = 0; i < FAKE_SLOTS; i++) {
        const struct kvm_userspace_memory_region *o = &vm->slot[i].r;

        if (i != r->slot && o->memory_size != 0 &&
            r->guest_phys_addr < o->guest_phys_addr + o->memory_size &&
            o->guest_phys_addr < r->guest_phys_addr + r->memory_size)
            return true;
    }
    return false;
}

static int check_slot(const struct kvm_fake *fake, const struct kvm_userspace_memory_region *r)
{
    uint32_t flags = SLOT_FLAGS;

    if (fake_lacks(fake, KVM_CAP_READONLY_MEM))
        flags &= ~(uint32_t)KVM_MEM_READONLY;
    if (r->flags & ~flags)
        return -EINVAL;
    if (r->memory_size % PAGE != 0 || r->guest_phys_addr % PAGE != 0 ||
        r->userspace_addr % PAGE != 0)
        return -EINVAL;
    if (r->slot >= FAKE_SLOTS || r->guest_phys_addr + r->memory_size < r->guest_phys_addr)
        return -EINVAL;
    return 0;
}

/* A dirty log begins as all clean: from now on pages are compared with this copy. */
static int copy_slot(struct fake_slot *s)
{
    free(s->copy);
    s->copy = NULL;
    if (!(s->r.flags & KVM_MEM_LOG_DIRTY_PAGES) || s->r.memory_size == 0)
        return 0;
    s->copy = malloc(s->r.memory_size);
    if (s->copy == NULL)
        return -ENOMEM;
    memcpy(s->copy, (const void *)(uintptr_t)s->r.userspace_addr, s->r.memory_size);
    return 0;
}

/* Under lock. *changed: the map is another now. */
static int change_slot(struct fake_vm *vm, const struct kvm_userspace_memory_region *r,
                       bool *changed)
{
    struct fake_slot *s = &vm->slot[r->slot];

    if (r->memory_size == 0) {
        if (s->r.memory_size == 0)
            return -EINVAL;
        memset(&s->r, 0, sizeof(s->r));
        *changed = true;
        return copy_slot(s);
    }
    if (s->r.memory_size != 0) {
        /* a slot can move and change its log; all else asks for deletion first */
        if (r->userspace_addr != s->r.userspace_addr || r->memory_size != s->r.memory_size ||
            ((r->flags ^ s->r.flags) & KVM_MEM_READONLY))
            return -EINVAL;
        if (r->guest_phys_addr == s->r.guest_phys_addr && r->flags == s->r.flags)
            return 0;
    }
    if (overlaps(vm, r))
        return -EEXIST;
    *changed = s->r.memory_size == 0 || r->guest_phys_addr != s->r.guest_phys_addr;
    s->r = *r;
    return copy_slot(s);
}

int fake_set_memory(struct fake_vm *vm, const struct kvm_userspace_memory_region *r)
{
    bool changed = false;
    int rc = check_slot(vm->fake, r);

    if (rc < 0)
        return rc;
    pthread_mutex_lock(&vm->lock);
    rc = change_slot(vm, r, &changed);
    pthread_mutex_unlock(&vm->lock);
    if (changed)
        fake_generation(vm);
    return rc;
}

bool fake_memory_read(struct fake_vm *vm, uint64_t gpa, void *to, size_t len)
{
    bool found = false;

    pthread_mutex_lock(&vm->lock);
    for (unsigned i = 0; i < FAKE_SLOTS && !found; i++) {
        const struct kvm_userspace_memory_region *r = &vm->slot[i].r;

        if (gpa >= r->guest_phys_addr && gpa - r->guest_phys_addr < r->memory_size &&
            r->memory_size - (gpa - r->guest_phys_addr) >= len) {
            memcpy(to, (const void *)(uintptr_t)(r->userspace_addr + gpa - r->guest_phys_addr),
                   len);
            found = true;
        }
    }
    pthread_mutex_unlock(&vm->lock);
    return found;
}

/*
 * The software CPU keeps no log: pages that differ from the copy are the dirty ones. A page that
 * was written with what it held, which KVM reports, is not seen.
 */
int fake_dirty_log(struct fake_vm *vm, const struct kvm_dirty_log *log)
{
    uint64_t *map = log->dirty_bitmap;
    struct fake_slot *s;
    int rc = 0;

    if (log->slot >= FAKE_SLOTS)
        return -EINVAL;
    pthread_mutex_lock(&vm->lock);
    s = &vm->slot[log->slot];
    if (s->copy == NULL) {
        rc = -ENOENT;
        goto out;
    }
    memset(map, 0, (s->r.memory_size / PAGE + 63) / 64 * 8);
    for (uint64_t page = 0; page < s->r.memory_size / PAGE; page++) {
        const uint8_t *now = (const uint8_t *)(uintptr_t)s->r.userspace_addr + page * PAGE;

        if (memcmp(s->copy + page * PAGE, now, PAGE) == 0)
            continue;
        map[page / 64] |= 1ull << (page % 64);
        memcpy(s->copy + page * PAGE, now, PAGE);
    }
out:
    pthread_mutex_unlock(&vm->lock);
    return rc;
}
