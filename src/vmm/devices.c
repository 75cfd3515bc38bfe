#include "vmm/devices.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "mem/gmem.h"
#include "pci/table.h"
#include "storage/storage.h"
#include "virtio/virtio.h"

const struct pci_ops *const pci_device_table[] = {
    &pci_hostbridge_ops, &pci_amd_hostbridge_ops,
    &pci_lpc_ops,        &pci_uart_ops,
    &virtio_rnd_ops,     &virtio_blk_ops,
    &virtio_scsi_ops,    &ahci_ops,
    &ahci_hd_ops,        &ahci_cd_ops,
    &nvme_ops,           NULL,
};

const struct pci_ops *pci_device_find(const struct pci_ops *const *table, const char *name)
{
    for (; *table != NULL; table++) {
        if (strcmp((*table)->name, name) == 0)
            return *table;
    }
    return NULL;
}

/* Keys that only something not yet built reads; a flag counts if it is true. */
static const struct gap {
    const char *key;
    bool flag;
    const char *what;
} gaps[] = {
    {"gdb.port", false, "the gdb stub"},
    {"gdb.address", false, "the gdb stub"},
    {"gdb.wait", true, "the gdb stub"},
    {"keyboard.layout", false, "a display with a keyboard"},
    {"lpc.bootrom", false, "booting from firmware"},
    {"lpc.bootvars", false, "booting from firmware"},
    {"lpc.tpm", false, "a TPM"},
    {"memory.guest_in_core", true, "keeping guest memory in core files"},
};

static int check_smp(const struct config *cfg, struct error *err)
{
    const char *engine = config_get(cfg, "engine");
    uint64_t cpus = 1, sockets = 1, threads = 1;
    int rc = config_u64(cfg, "cpus", 1, &cpus, err);

    if (rc == 0)
        rc = config_u64(cfg, "sockets", 1, &sockets, err);
    if (rc == 0)
        rc = config_u64(cfg, "threads", 1, &threads, err);
    if (rc < 0 || cpus <= 1)
        return rc;
    if (cpus > GMEM_MARKS)
        return error_set(err, -E2BIG, "a VM has at most %u vCPUs, not %llu; give a smaller -c",
                         GMEM_MARKS, (unsigned long long)cpus);
    if (sockets > 1 || threads > 1)
        return error_set(err, -ENOSYS,
                         "more than one socket, or threads of a core, are not built yet: %llu "
                         "vCPUs are cores of one socket; give -c %llu",
                         (unsigned long long)cpus, (unsigned long long)cpus);
    if (engine != NULL && (strcmp(engine, "kvm") == 0 || strcmp(engine, "soft,check") == 0))
        return error_set(err, -ENOSYS,
                         "the engine '%s' with %llu vCPUs is not built yet; --engine soft has them",
                         engine, (unsigned long long)cpus);
    return 0;
}

int vm_check_built(const struct config *cfg, struct error *err)
{
    const char *method = config_get(cfg, "boot.method");
    const char *engine = config_get(cfg, "engine");
    const char *fwcfg = config_get(cfg, "lpc.fwcfg");
    int rc = check_smp(cfg, err);

    if (rc < 0)
        return rc;
    if (method != NULL && strcmp(method, "kexec") != 0 && strcmp(method, "multiboot") != 0 &&
        strcmp(method, "pvh") != 0)
        return error_set(err, -ENOSYS,
                         "boot.method=%s is not built yet; kexec, multiboot and pvh are", method);
    if (engine != NULL && strcmp(engine, "auto") != 0 && strncmp(engine, "soft", 4) != 0 &&
        strcmp(engine, "kvm") != 0 && strcmp(engine, "null") != 0)
        return error_set(err, -ENOSYS, "the engine '%s' is not built yet; soft and kvm are",
                         engine);
    if (fwcfg != NULL && strcmp(fwcfg, "qemu") != 0)
        return error_set(err, -ENOSYS,
                         "fw_cfg of the kind '%s' is not built yet; only qemu's is: -l fwcfg,qemu",
                         fwcfg);
    for (size_t i = 0; i < countof(gaps); i++) {
        bool wanted = config_find(cfg, gaps[i].key) != NULL;

        if (wanted && gaps[i].flag && config_bool(cfg, gaps[i].key, false, &wanted, err) < 0)
            return -EINVAL;
        if (wanted)
            return error_set(err, -ENOSYS, "%s is not built yet (%s)", gaps[i].what, gaps[i].key);
    }
    return 0;
}
