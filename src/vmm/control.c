/* What a person asks of a running VM. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "vmm/internal.h"
#include "vmm/vm.h"

/* ---- drives ---- */

struct place {
    unsigned bus, slot, func, unit;
};

/* A decimal number at *text, which moves behind it. */
static bool take_number(const char **text, unsigned max, unsigned *out)
{
    const char *p = *text;
    unsigned value = 0;

    if (*p < '0' || *p > '9')
        return false;
    for (; *p >= '0' && *p <= '9'; p++) {
        value = 10 * value + (unsigned)(*p - '0');
        if (value > max)
            return false;
    }
    *text = p;
    *out = value;
    return true;
}

static bool parse_place(const char *text, struct place *out)
{
    unsigned n[3], count = 0;

    *out = (struct place){0};
    do {
        if (count == countof(n) || !take_number(&text, 255, &n[count++]))
            return false;
    } while (*text == ':' && text++ != NULL);
    if (*text == '.' && (++text, !take_number(&text, 255, &out->unit)))
        return false;
    if (*text != '\0')
        return false;
    if (count == 3)
        out->bus = n[0];
    out->slot = n[count == 3 ? 1 : 0];
    if (count > 1)
        out->func = n[count - 1];
    return out->slot < 32 && out->func < 8;
}

/* The device there, NULL if there is none. */
static const char *name_at(struct vm *vm, const struct place *at)
{
    struct pci_info info;

    for (unsigned i = 0; pci_info_at(vm->pci, i, &info); i++) {
        if (info.bus == at->bus && info.slot == at->slot && info.func == at->func)
            return info.name;
    }
    return NULL;
}

int vm_insert(struct vm *vm, const char *where, const char *path, bool force, struct error *err)
{
    struct error why = {0};
    struct place at;
    const char *name;
    int rc;

    if (!parse_place(where, &at))
        return error_set(err, -EINVAL,
                         "'%.64s' is no place of a drive: give the slot as SLOT, SLOT:FUNC or "
                         "BUS:SLOT:FUNC, with .PORT behind it if the device has several drives",
                         where);
    name = name_at(vm, &at);
    if (name == NULL)
        return error_set(err, -ENODEV,
                         "PCI slot %u:%u:%u is empty; give the slot of a device with a CD drive "
                         "(ahci-cd, or ahci with cd:)",
                         at.bus, at.slot, at.func);
    rc = pci_insert(vm->pci, at.bus, at.slot, at.func, at.unit, path, force, &why);
    /* a file of the wrong kind is -ENODEV too, and then the sentence names it */
    if (rc == -ENODEV && (path == NULL || strstr(why.text, path) == NULL))
        return error_set(err, rc,
                         "%s has no such drive: %s; ahci-cd has one, and ahci has one at "
                         "each port of a cd:",
                         name, why.text);
    if (rc != 0)
        return error_set(err, rc, "%s", why.text);
    log_info(vm->log, "%s in PCI slot %u:%u:%u, port %u: %s%s%s", name, at.bus, at.slot, at.func,
             at.unit, path != NULL ? path : "the disc was taken out",
             path != NULL ? " was put in" : "", force ? ", by force" : "");
    return 0;
}

bool vm_device_at(struct vm *vm, unsigned n, struct vm_device *out)
{
    struct pci_info info;

    if (!pci_info_at(vm->pci, n, &info))
        return false;
    snprintf(out->where, sizeof(out->where), "%u:%u:%u", info.bus & 255, info.slot & 31,
             info.func & 7);
    out->name = info.name;
    return true;
}

/* ---- the rest ---- */

void vm_refresh(struct vm *vm)
{
    pci_refresh(vm->pci);
}

void vm_power_button(struct vm *vm)
{
    if (!vm->acpi) {
        vm_stop(vm, VM_POWEROFF);
        return;
    }
    log_info(vm->log, "power button pressed");
    acpipm_power_button(vm->acpipm);
}

void vm_get_info(struct vm *vm, struct vm_info *out)
{
    *out = (struct vm_info){
        .name = config_get(vm->cfg, "name"),
        .engine = vm_engine_name(vm),
        .kernel = config_get(vm->cfg, "boot.kernel"),
        .cpus = vm->cpus,
        .memory = gmem_size(vm->mem),
        .uptime_ns = host_clock_ns() - vm->created_ns,
        .changes = atomic_load(&vm->changes),
        .failed_changes = atomic_load(&vm->failed_changes),
        .ending = atomic_load(&vm->status) >= 0,
        .acpi = vm->acpi,
    };
}
