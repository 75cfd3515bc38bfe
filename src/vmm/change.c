#include "vmm/change.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int vm_switch_engine(struct vm *vm, struct error *err)
{
    const char *model = config_get(vm->cfg, "cpu.model");

    if (model == NULL || strcmp(model, "portable") != 0)
        return error_set(err, -EINVAL,
                         "the engine of this VM cannot change, since its processor is not the one "
                         "that every engine offers: start it with -o cpu.model=portable");
    if (vm->cpus > 1)
        return error_set(err, -ENOSYS, "a change of engine with %u vCPUs is not built yet",
                         vm->cpus);
    atomic_store(&vm->change_wanted, true);
    vcpu_kick(&vm->vcpu[0]);
    return 0;
}

/* The other engine's VM and vCPU, made at the first change. */
static int make_other(struct vcpu *v, unsigned n, struct error *err)
{
    struct vm *vm = v->vm;
    struct engine_slot *slot = &vm->engine[n];
    const char *name = strcmp(vm_engine_name(vm), "soft") == 0 ? "kvm" : "soft";
    int rc;

    if (v->impl[n] != NULL)
        return 0;
    slot->ops = vm_find_engine(name);
    if (slot->ops == NULL)
        return error_set(err, -ENOENT, "there is no engine '%s' on this host", name);
    rc = slot->ops->probe(&vm->engine_env, false, err);
    if (rc == 0 && slot->vm == NULL)
        rc = vm_make_engine(vm, n, err);
    if (rc == 0)
        rc = slot->ops->vcpu_create(slot->vm, v->id, &v->impl[n], err);
    return rc;
}

void change_engine(struct vcpu *v)
{
    struct vm *vm = v->vm;
    unsigned from = atomic_load(&vm->engine_on), to = 1 - from, nmis = atomic_load(&v->nmis);
    struct x86_state *state = aligned_alloc(_Alignof(struct x86_state), sizeof(*state));
    struct error err = {0};
    int rc = state == NULL ? error_set(&err, -ENOMEM, "no memory for a vCPU's state")
                           : make_other(v, to, &err);

    if (rc == 0 && gmem_log_on(vm->mem))
        rc = error_set(&err, -EBUSY, "a log of written pages is being kept");
    if (rc == 0) {
        vm->engine[from].ops->get(v->impl[from], state);
        if (vm->engine[from].ops->lapic_home != NULL &&
            vm->engine[from].ops->lapic_home(v->impl[from]) != 0)
            rc = error_set(&err, -EIO, "its local APIC cannot be had");
    }
    if (rc == 0)
        rc = vm->engine[to].ops->set(v->impl[to], state, &err);
    free(state);
    if (rc != 0) {
        log_warn(vm->log, "engine: no change, %s goes on: %s", vm_engine_name(vm), err.text);
        atomic_fetch_add(&vm->failed_changes, 1);
        return;
    }
    atomic_store(&vm->engine_on, to);
    /* what other threads told the old one since: the local APIC knows, an NMI only they do */
    vm->engine[to].ops->interrupt(v->impl[to]);
    if (atomic_load(&v->nmis) != nmis)
        vm->engine[to].ops->nmi(v->impl[to]);
    atomic_fetch_add(&vm->changes, 1);
    log_info(vm->log, "engine: %s, in place of %s", vm->engine[to].ops->name,
             vm->engine[from].ops->name);
}

void change_leave_kvm(struct vcpu *v)
{
    struct vm *vm = v->vm;

    if (strcmp(vm_engine_name(vm), "kvm") != 0)
        return;
    if (atomic_load(&vm->changes) == 0)
        log_warn(vm->log, "engine: this KVM emulates and cannot run programs of the guest, so the "
                          "software CPU does it all; --engine soft has the same without a KVM, "
                          "-o kvm.leave=false stays with it");
    change_engine(v);
    if (strcmp(vm_engine_name(vm), "kvm") == 0)
        vm->kvm_emulates = false; /* not this way; it has said why */
}
