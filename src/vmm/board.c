#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "vmm/devices.h"
#include "vmm/internal.h"

/* The board: which chips stand where, which PCI devices are plugged in, and what boot/ is told. */

/* ---- what devices tell the VM; any thread ---- */

static void board_event(void *ctx, enum dev_event event, uint64_t arg)
{
    struct vm *vm = ctx;

    switch (event) {
    case DEV_EVENT_RESET:
        log_info(vm->log, "the guest has asked for a reset");
        vm_stop(vm, VM_REBOOT);
        break;
    case DEV_EVENT_POWEROFF:
        vm_stop(vm, VM_POWEROFF);
        break;
    case DEV_EVENT_PANIC:
        log_error(vm->log, "the guest kernel has panicked; its console says why");
        vm_stop(vm, VM_ERROR);
        break;
    case DEV_EVENT_CRASHLOADED:
        log_warn(vm->log, "the guest kernel has panicked and runs its crash kernel");
        break;
    case DEV_EVENT_A20:
        for (unsigned i = 0; i < countof(vm->engine); i++) {
            if (vm->engine[i].vm != NULL && vm->engine[i].ops->a20 != NULL)
                vm->engine[i].ops->a20(vm->engine[i].vm, arg != 0);
        }
        break;
    case DEV_EVENT_IGNNE:
        for (unsigned i = 0; i < countof(vm->engine); i++) {
            if (vm->engine[i].vm != NULL && vm->engine[i].ops->ignne != NULL)
                vm->engine[i].ops->ignne(vm->engine[i].vm);
        }
        break;
    case DEV_EVENT_QUIT:
        vm_stop(vm, VM_POWEROFF);
        break;
    case DEV_EVENT_EXIT: /* pc-testdev's own statuses, beside those of enum vm_status */
        vm_stop(vm, (enum vm_status)(arg & 0xff));
        break;
    }
}

static void env_fill(struct vm *vm, struct dev_env *env, const char *name)
{
    bool local = true;

    dev_env_init(env, name);
    env->mem = vm->mem;
    env->bus = vm->bus;
    env->irqs = vm->irqs;
    env->timers = vm->timers;
    env->log = vm->log;
    env->loop = vm->loop;
    env->event = board_event;
    env->event_ctx = vm;
    env->mem_low = gmem_lowmem(vm->mem);
    env->mem_high = gmem_highmem(vm->mem);
    env->cpus = vm->cpus;
    memcpy(env->uuid, vm->board.uuid, sizeof(env->uuid));
    if (config_bool(vm->cfg, "rtc.use_localtime", true, &local, NULL) == 0)
        env->rtc_local = local;
}

static struct chip *chip_add(struct vm *vm, const struct dev_ops *ops, const char *name,
                             const struct config *node, struct error *err)
{
    struct options opts = {node, ops->options, ops->option_count};
    struct chip *c = &vm->chip[vm->chip_count];

    if (vm->chip_count == VM_CHIPS_MAX) {
        error_set(err, -ENOSPC, "too many devices on the board");
        return NULL;
    }
    snprintf(c->name, sizeof(c->name), "%s", name);
    env_fill(vm, &c->env, c->name);
    vm->chip_count++;
    return device_create(ops, &c->env, &opts, &c->dev, err) == 0 ? c : NULL;
}

static int add_serial_port(struct vm *vm, unsigned n, bool *stdio_taken, struct error *err)
{
    struct config *node;
    const char *backend;
    char key[32], name[8];
    struct chip *c;
    int rc;

    snprintf(key, sizeof(key), "lpc.com%u", n);
    if (config_find(vm->cfg, key) == NULL)
        return 0;
    snprintf(key, sizeof(key), "lpc.com%u.path", n);
    snprintf(name, sizeof(name), "com%u", n);
    backend = config_get(vm->cfg, key);
    if (backend == NULL || backend[0] == '\0')
        backend = "null";
    if (strcmp(backend, "stdio") == 0) {
        if (*stdio_taken)
            return error_set(err, -EBUSY,
                             "com%u: stdio is taken by another device; give this one "
                             "autopty or a path",
                             n);
        *stdio_taken = true;
    }
    node = config_create();
    if (node == NULL)
        return error_set(err, -ENOMEM, "no memory");
    snprintf(key, sizeof(key), "%u", n);
    rc = config_set(node, "port", key, err);
    if (rc == 0)
        rc = config_set(node, "backend", backend, err);
    if (rc == 0) {
        c = chip_add(vm, &ns16550_ops, name, node, err);
        rc = c != NULL ? 0 : err->code != 0 ? err->code : -EIO;
    }
    config_destroy(node); /* what the device needs of it, it has copied */
    vm->board.com[n - 1] = rc == 0;
    return rc;
}

static int add_testdev(struct vm *vm, struct error *err)
{
    struct config *node = config_create();
    int rc;

    if (node == NULL)
        return error_set(err, -ENOMEM, "no memory");
    rc = config_set(node, "backend", "stdio=output", err);
    if (rc == 0 && chip_add(vm, &testdev_ops, testdev_ops.name, node, err) == NULL)
        rc = -EIO;
    config_destroy(node);
    return rc;
}

/* What is on the board only if it is asked for. The test device's programs expect fw_cfg beside. */
static int add_optional_chips(struct vm *vm, struct error *err)
{
    bool *testdev = &vm->board.pc_testdev;
    int rc = config_bool(vm->cfg, "lpc.pc-testdev", false, testdev, err);

    if (rc == 0 && *testdev)
        rc = add_testdev(vm, err);
    if (rc == 0 && (*testdev || config_find(vm->cfg, "lpc.fwcfg") != NULL) &&
        chip_add(vm, &fwcfg_ops, fwcfg_ops.name, NULL, err) == NULL)
        rc = -EIO;
    return rc;
}

static int add_chips(struct vm *vm, struct error *err)
{
    static const struct dev_ops *const chips[] = {
        &i8259_ops, &ioapic_ops, &i8254_ops, &mc146818_ops, &hpet_ops,    &pmtimer_ops, &acpipm_ops,
        &i8042_ops, &port92_ops, &reset_ops, &post_ops,     &pvpanic_ops, &fpuerr_ops,
    };
    bool stdio_taken = false;
    int rc = 0;

    for (size_t i = 0; i < countof(chips); i++) {
        struct chip *c = chip_add(vm, chips[i], chips[i]->name, NULL, err);

        if (c == NULL)
            return -EIO;
        if (chips[i] == &acpipm_ops)
            vm->acpipm = &c->dev;
        if (chips[i] == &fpuerr_ops)
            vm->fpuerr = &c->dev;
    }
    for (unsigned n = 1; n <= 4 && rc == 0; n++)
        rc = add_serial_port(vm, n, &stdio_taken, err);
    return rc == 0 ? add_optional_chips(vm, err) : rc;
}

/* ---- PCI ---- */

static int create_pci(struct vm *vm, struct error *err)
{
    struct board *b = &vm->board;
    uint64_t top = GMEM_HIGH_BASE + gmem_highmem(vm->mem);
    bool msix = true;
    struct pci_config pc;
    int rc = config_bool(vm->cfg, "virtio_msix", true, &msix, err);

    if (rc != 0)
        return rc;
    if (top > 1ull << vm->cpuid.phys_bits)
        return error_set(err, -EINVAL,
                         "%llu MiB of memory are more than a CPU with %u address bits reaches; try "
                         "a smaller -m",
                         (unsigned long long)(gmem_size(vm->mem) / MIB), vm->cpuid.phys_bits);
    b->pci64_base = align_up(top, BOARD_PCI64_SIZE);
    if (b->pci64_base + BOARD_PCI64_SIZE > 1ull << vm->cpuid.phys_bits)
        b->pci64_base = 0;
    env_fill(vm, &vm->pci_env, "pci");
    vm->pci_env_ready = true;
    pc = (struct pci_config){
        .env = &vm->pci_env,
        .mem32_base = BOARD_PCI32_BASE,
        .mem32_end = BOARD_PCI32_END,
        .mem64_base = b->pci64_base,
        .mem64_size = b->pci64_base != 0 ? BOARD_PCI64_SIZE : 0,
        .ecam_base = BOARD_ECAM_BASE,
        .ecam_size = BOARD_ECAM_SIZE,
        .io_base = board_pci_io_base(b),
        .ecam = true,
        .prefer_msi = !msix,
    };
    return pci_create(&pc, &vm->pci, err);
}

/* A device with iothread=N has a loop beside the VM's. */
static int pick_loop(struct vm *vm, const struct config *node, struct loop **loop,
                     struct error *err)
{
    uint64_t number;
    int rc = config_u64(node, "iothread", 0, &number, err);

    if (rc != 0 || config_find(node, "iothread") == NULL)
        return rc;
    if (vm->iothreads == NULL)
        vm->iothreads = iothreads_create();
    if (vm->iothreads == NULL)
        return error_set(err, -ENOMEM, "no memory for a thread");
    return iothreads_get(vm->iothreads, number, loop, err);
}

static int add_pci_device(struct vm *vm, unsigned bus, unsigned slot, unsigned func,
                          const struct config *node, struct error *err)
{
    const char *name = config_get(node, "device");
    const struct pci_ops *ops;
    unsigned n = vm->pci_dev_count;
    int rc;

    if (name == NULL)
        return error_set(err, -EINVAL, "pci.%u.%u.%u has no device", bus, slot, func);
    ops = pci_device_find(pci_device_table, name);
    if (ops == NULL)
        return error_set(err, -EINVAL, "pci.%u.%u.%u: unknown device '%s'; -s help lists them", bus,
                         slot, func, name);
    if (n == VM_PCI_MAX)
        return error_set(err, -ENOSPC, "more than %u PCI devices", VM_PCI_MAX);
    rc = pci_options_check(ops, node, name, err);
    if (rc != 0)
        return rc;
    snprintf(vm->pci_dev_name[n], sizeof(vm->pci_dev_name[n]), "pci.%u.%u.%u", bus, slot, func);
    env_fill(vm, &vm->pci_dev_env[n], vm->pci_dev_name[n]);
    vm->pci_dev_count++;
    rc = pick_loop(vm, node, &vm->pci_dev_env[n].loop, err);
    if (rc != 0) {
        error_prefix(err, "pci.%u.%u.%u (%s)", bus, slot, func, name);
        return rc;
    }
    if (strcmp(name, "lpc") == 0) {
        vm->board.has_lpc = true;
        vm->board.lpc_bus = (uint8_t)bus;
        vm->board.lpc_slot = (uint8_t)slot;
        vm->board.lpc_func = (uint8_t)func;
    }
    rc = pci_add(vm->pci, bus, slot, func, ops, &vm->pci_dev_env[n], node, err);
    if (rc != 0)
        error_prefix(err, "pci.%u.%u.%u (%s)", bus, slot, func, name);
    return rc;
}

/* A child's name as a number within [0, max]. */
static int child_number(const char *name, uint64_t max, unsigned *out, struct error *err)
{
    uint64_t v;

    if (parse_u64(name, &v) != 0 || v > max)
        return error_set(err, -EINVAL, "'%s' is not a PCI bus, slot or function number", name);
    *out = (unsigned)v;
    return 0;
}

static int add_pci_devices(struct vm *vm, struct error *err)
{
    const struct config *root = config_find(vm->cfg, "pci"), *b, *s, *f;
    const char *bn, *sn, *fn;
    unsigned bus = 0, slot = 0, func = 0;
    int rc = 0;

    if (root == NULL)
        return 0;
    for (size_t i = 0; rc == 0 && (b = config_child(root, i, &bn)) != NULL; i++) {
        rc = child_number(bn, 255, &bus, err);
        for (size_t j = 0; rc == 0 && (s = config_child(b, j, &sn)) != NULL; j++) {
            rc = child_number(sn, 31, &slot, err);
            for (size_t k = 0; rc == 0 && (f = config_child(s, k, &fn)) != NULL; k++) {
                rc = child_number(fn, 7, &func, err);
                if (rc == 0)
                    rc = add_pci_device(vm, bus, slot, func, f, err);
            }
        }
    }
    return rc != 0 ? rc : pci_assign(vm->pci, err);
}

/* ---- what boot/ is told ---- */

static int parse_uuid(const char *text, uint8_t out[16])
{
    unsigned n = 0;

    for (const char *p = text; *p != '\0' && n < 32; p++) {
        unsigned v;

        if (*p == '-')
            continue;
        if (*p >= '0' && *p <= '9')
            v = (unsigned)(*p - '0');
        else if ((*p | 32) >= 'a' && (*p | 32) <= 'f')
            v = (unsigned)((*p | 32) - 'a' + 10);
        else
            return -EINVAL;
        out[n / 2] = (uint8_t)(n % 2 == 0 ? v << 4 : out[n / 2] | v);
        n++;
    }
    return n == 32 ? 0 : -EINVAL;
}

/* No UUID given: one that stays the same for a VM's name. */
static void default_uuid(const char *name, uint8_t out[16])
{
    uint64_t h = FNV1A_START;

    for (uint8_t i = 0; i < 16; i++) {
        h = fnv1a(fnv1a(h, name, strlen(name)), &i, 1);
        out[i] = (uint8_t)(h >> 32);
    }
    out[6] = (out[6] & 0x0f) | 0x40;
    out[8] = (out[8] & 0x3f) | 0x80;
}

static int set_uuid(struct vm *vm, struct error *err)
{
    const char *uuid = config_get(vm->cfg, "uuid"), *name = config_get(vm->cfg, "name");
    struct board *b = &vm->board;

    b->name = name != NULL ? name : "xhyve";
    if (uuid == NULL)
        default_uuid(b->name, b->uuid);
    else if (parse_uuid(uuid, b->uuid) != 0)
        return error_set(err, -EINVAL, "'%s' is not a UUID", uuid);
    return 0;
}

static int describe(struct vm *vm, struct error *err)
{
    struct board *b = &vm->board;
    struct pci_info info;
    bool mptable = true, x2apic = false;

    if (config_bool(vm->cfg, "x86.mptable", true, &mptable, err) != 0 ||
        config_bool(vm->cfg, "x86.x2apic", false, &x2apic, err) != 0)
        return -EINVAL;
    b->mem = vm->mem;
    b->log = vm->log;
    b->config = vm->cfg;
    b->cpus = vm->cpus;
    b->phys_bits = vm->cpuid.phys_bits;
    b->acpi = vm->acpi;
    b->mptable = mptable;
    b->x2apic = x2apic;
    b->ps2 = b->hpet = b->pvpanic = true;
    for (unsigned n = 0; pci_info_at(vm->pci, n, &info); n++) {
        if (b->pci_count == BOARD_PCI_MAX)
            return error_set(err, -ENOSPC, "more than %u PCI functions", BOARD_PCI_MAX);
        b->pci[b->pci_count++] = (struct board_pci){
            .bus = (uint8_t)info.bus,
            .slot = (uint8_t)info.slot,
            .func = (uint8_t)info.func,
            .pin = (uint8_t)info.pin,
            .pirq = (uint8_t)info.pirq,
            .name = info.name,
        };
    }
    return 0;
}

int board_create(struct vm *vm, struct error *err)
{
    struct lapic_config lc = {.cpus = vm->cpus,
                              .phys_bits = vm->cpuid.phys_bits,
                              .bus_hz = vm->cpuid.crystal_hz,
                              .signals = &vcpu_signals,
                              .signals_ctx = vm};
    int rc = config_bool(vm->cfg, "x86.x2apic", false, &lc.x2apic, err);

    if (rc == 0)
        rc = set_uuid(vm, err);
    if (rc != 0)
        return rc;
    env_fill(vm, &vm->lapic_env, "lapic");
    vm->lapic_env_ready = true;
    rc = lapics_create(&vm->lapic_env, &lc, &vm->lapics, err);
    if (rc == 0)
        rc = add_chips(vm, err);
    if (rc == 0)
        rc = create_pci(vm, err);
    if (rc == 0)
        rc = add_pci_devices(vm, err);
    if (rc == 0)
        rc = describe(vm, err);
    return rc;
}

void board_destroy(struct vm *vm)
{
    iothreads_stop(vm->iothreads);
    pci_destroy(vm->pci);
    iothreads_destroy(vm->iothreads);
    for (unsigned i = 0; i < vm->pci_dev_count; i++)
        dev_env_fini(&vm->pci_dev_env[i]);
    if (vm->pci_env_ready)
        dev_env_fini(&vm->pci_env);
    while (vm->chip_count > 0) {
        struct chip *c = &vm->chip[--vm->chip_count];

        device_destroy(&c->dev);
        dev_env_fini(&c->env);
    }
    lapics_destroy(vm->lapics);
    if (vm->lapic_env_ready)
        dev_env_fini(&vm->lapic_env);
}
