/*
 * The AHCI host bus adapter as bhyve has it: 8086:2821, registers in BAR 5, MSI or INTx; "ahci"
 * with a disk or CD drive at each port, "ahci-hd" and "ahci-cd" with one.
 */
#include "storage/ahci.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "storage/storage.h"

#define VENDOR 0x8086u
#define DEVICE 0x2821u
#define CLASS_SATA_AHCI 0x010601u

const struct dev_option ahci_port_options[] = {BLOCK_OPTIONS, ATA_OPTIONS};
const size_t ahci_port_option_count = countof(ahci_port_options);

/* ---- making ---- */

static int ports_alloc(struct ahci *a, unsigned ports, struct error *err)
{
    a->port = calloc(ports, sizeof(*a->port));
    if (a->port == NULL)
        return error_set(err, -ENOMEM, "no memory for its ports");
    a->ports = ports;
    for (unsigned i = 0; i < ports; i++) {
        struct ahci_port *p = &a->port[i];

        p->hba = a;
        p->index = i;
        p->current = -1;
        for (unsigned n = 0; n < AHCI_SLOTS; n++) {
            p->slot[n].port = p;
            p->slot[n].c.tag = n;
        }
    }
    return 0;
}

static int port_add(struct ahci *a, unsigned port, bool cd, const struct config *node,
                    struct error *err)
{
    struct options opts = {node, ahci_port_options, countof(ahci_port_options)};

    if (cd)
        return atapi_create(a->env, &opts, &ahci_host, &a->port[port].dev, err);
    return ata_disk_create(a->env, &opts, &ahci_host, &a->port[port].dev, err);
}

/* As many ports as the highest number asks for. */
static int ports_add(struct ahci *a, const struct config *node, struct error *err)
{
    const struct config *ports = node != NULL ? config_find(node, AHCI_KEY_PORT) : NULL, *child;
    uint64_t highest = 0, n;
    const char *name;
    int rc;

    for (size_t i = 0; ports != NULL && config_child(ports, i, &name) != NULL; i++)
        if (parse_u64(name, &n) == 0 && n < AHCI_PORTS)
            highest = max_u64(highest, n);
    rc = ports_alloc(a, (unsigned)highest + 1, err);
    for (size_t i = 0; rc == 0 && ports != NULL; i++) {
        child = config_child(ports, i, &name);
        if (child == NULL)
            break;
        if (parse_u64(name, &n) != 0 || n > highest)
            return error_set(err, -EINVAL, "port %s: ports go from 0 to %u", name, AHCI_PORTS - 1);
        rc = port_add(a, (unsigned)n, strcmp(config_get(child, "type"), "cd") == 0, child, err);
        if (rc != 0)
            error_prefix(err, "port %s", name);
    }
    return rc;
}

static void ports_free(struct ahci *a)
{
    for (unsigned i = 0; i < a->ports; i++)
        ata_destroy(a->port[i].dev);
    timer_free(a->kick);
    free(a->port);
    free(a);
}

static void ahci_destroy(void *dev)
{
    struct ahci *a = dev;

    for (unsigned i = 0; i < a->ports; i++)
        ahci_port_drain(&a->port[i], true);
    ports_free(a);
}

enum kind { KIND_PORTS, KIND_HD, KIND_CD };

static int create(struct dev_env *env, struct pci_func *f, const struct options *opts,
                  enum kind kind, void **out, struct error *err)
{
    struct ahci *a = calloc(1, sizeof(*a));
    int rc;

    if (a == NULL)
        return error_set(err, -ENOMEM, "no memory for an AHCI adapter");
    a->env = env;
    a->f = f;
    pci_set_ids(f, VENDOR, DEVICE, 0, CLASS_SATA_AHCI, VENDOR, DEVICE);
    pci_add_intx(f);
    a->kick = timer_create_env(env, ahci_kicked, a);
    rc =
        a->kick != NULL ? pci_add_msi(f, 1, err) : error_set(err, -ENOMEM, "no memory for a timer");
    if (rc == 0)
        rc = pci_add_bar(f, AHCI_BAR, PCI_BAR_MEM32, AHCI_BAR_SIZE, err);
    if (rc == 0 && kind == KIND_PORTS)
        rc = ports_add(a, opts->node, err);
    else if (rc == 0)
        rc = ports_alloc(a, 1, err);
    if (rc == 0 && kind != KIND_PORTS)
        rc = port_add(a, 0, kind == KIND_CD, opts->node, err);
    if (rc != 0) {
        ports_free(a);
        return rc;
    }
    pthread_mutex_lock(&env->lock);
    ahci_reset(a, true);
    pthread_mutex_unlock(&env->lock);
    *out = a;
    return 0;
}

static int ahci_create(struct dev_env *env, struct pci_func *f, const struct options *opts,
                       void **out, struct error *err)
{
    return create(env, f, opts, KIND_PORTS, out, err);
}

static int ahci_hd_create(struct dev_env *env, struct pci_func *f, const struct options *opts,
                          void **out, struct error *err)
{
    return create(env, f, opts, KIND_HD, out, err);
}

static int ahci_cd_create(struct dev_env *env, struct pci_func *f, const struct options *opts,
                          void **out, struct error *err)
{
    return create(env, f, opts, KIND_CD, out, err);
}

static void ahci_power_on(void *dev)
{
    ahci_reset(dev, true);
}

/* ---- discs ---- */

static int ahci_insert(void *dev, unsigned unit, const char *path, bool force, struct error *err)
{
    struct ahci *a = dev;
    struct ata_device *d = unit < a->ports ? a->port[unit].dev : NULL;

    if (d == NULL || d->ops->insert == NULL)
        return error_set(err, -ENODEV, "%s: there is no CD drive at port %u", a->env->name, unit);
    return d->ops->insert(d, path, force, err);
}

static void ahci_refresh(void *dev)
{
    struct ahci *a = dev;

    for (unsigned i = 0; i < a->ports; i++) {
        if (a->port[i].dev != NULL)
            block_refresh(a->port[i].dev->block);
    }
}

/* ---- state ---- */

static const struct state_field ahci_state[] = {
    STATE_FIELD(1, struct ahci, ports),
    STATE_FIELD(2, struct ahci, ghc),
    STATE_FIELD(3, struct ahci, is),
};

static const struct state_field port_state[] = {
    STATE_FIELD(1, struct ahci_port, clb),         STATE_FIELD(2, struct ahci_port, fb),
    STATE_FIELD(3, struct ahci_port, is),          STATE_FIELD(4, struct ahci_port, ie),
    STATE_FIELD(5, struct ahci_port, cmd),         STATE_FIELD(6, struct ahci_port, tfd),
    STATE_FIELD(7, struct ahci_port, sig),         STATE_FIELD(8, struct ahci_port, ssts),
    STATE_FIELD(9, struct ahci_port, sctl),        STATE_FIELD(10, struct ahci_port, serr),
    STATE_FIELD(11, struct ahci_port, sact),       STATE_FIELD(12, struct ahci_port, ci),
    STATE_FIELD(13, struct ahci_port, halted),     STATE_FIELD(14, struct ahci_port, fis_waits),
    STATE_FIELD(15, struct ahci_port, soft_reset), STATE_FIELD(16, struct ahci_port, last),
};

/* Commands under way are waited for, and end as they would: a snapshot holds none. */
static void ahci_save(void *dev, struct state_buf *out)
{
    struct ahci *a = dev;
    struct timerq *t = a->env->timers;

    for (unsigned i = 0; i < a->ports; i++)
        ahci_port_drain(&a->port[i], false);
    state_save(ahci_state, countof(ahci_state), a, t, out);
    for (unsigned i = 0; i < a->ports; i++) {
        struct ahci_port *p = &a->port[i];
        uint8_t plugged = p->dev != NULL;

        state_append(out, &plugged, 1);
        state_save(port_state, countof(port_state), p, t, out);
        if (p->dev != NULL)
            p->dev->ops->save(p->dev, out);
    }
}

static int port_load(struct ahci_port *p, const uint8_t *data, size_t len, size_t *pos,
                     struct error *err)
{
    int rc;

    if (*pos >= len || data[*pos] != (p->dev != NULL))
        return error_set(err, -EINVAL, "%s: port %u of the saved device is another",
                         p->hba->env->name, p->index);
    ++*pos;
    rc = state_load(port_state, countof(port_state), p, p->hba->env->timers, data, len, pos, err);
    if (rc == 0 && p->dev != NULL)
        rc = p->dev->ops->load(p->dev, data, len, pos, err);
    p->clb &= ~0x3FFull;
    p->fb &= ~0xFFull;
    p->ie &= IE_MASK;
    p->last %= AHCI_SLOTS;
    return rc;
}

static int ahci_load(void *dev, const uint8_t *data, size_t len, size_t *pos, struct error *err)
{
    struct ahci *a = dev;
    unsigned ports = a->ports;
    int rc;

    for (unsigned i = 0; i < ports; i++)
        ahci_port_drain(&a->port[i], true);
    rc = state_load(ahci_state, countof(ahci_state), a, a->env->timers, data, len, pos, err);
    if (rc == 0 && a->ports != ports)
        rc = error_set(err, -EINVAL, "%s: the saved device has %u ports, this one %u", a->env->name,
                       a->ports, ports);
    a->ports = ports;
    a->ghc = GHC_AE | (a->ghc & GHC_IE);
    a->is &= (uint32_t)((1ull << ports) - 1);
    for (unsigned i = 0; i < ports && rc == 0; i++)
        rc = port_load(&a->port[i], data, len, pos, err);
    return rc;
}

/* What was issued and not taken yet goes on. */
static void ahci_loaded(void *dev)
{
    struct ahci *a = dev;

    ahci_restore_line(a);
    ahci_kicked(a);
}

/* ---- tables ---- */

#define AHCI_OPS                                                                                   \
    .options = ahci_port_options, .option_count = countof(ahci_port_options),                      \
    .destroy = ahci_destroy, .reset = ahci_power_on, .bar_read = ahci_bar_read,                    \
    .bar_write = ahci_bar_write, .save = ahci_save, .load = ahci_load, .loaded = ahci_loaded,      \
    .insert = ahci_insert, .refresh = ahci_refresh

const struct pci_ops ahci_ops = {
    .name = "ahci",
    .summary = "SATA adapter: hd:PATH[,OPTIONS] or cd:[PATH], up to 32 of them, then",
    .parse = ahci_options_parse,
    .check = ahci_options_check,
    .create = ahci_create,
    AHCI_OPS,
};

const struct pci_ops ahci_hd_ops = {
    .name = "ahci-hd",
    .summary = "a SATA adapter with one disk",
    .create = ahci_hd_create,
    AHCI_OPS,
};

const struct pci_ops ahci_cd_ops = {
    .name = "ahci-cd",
    .summary = "a SATA adapter with one CD drive",
    .create = ahci_cd_create,
    AHCI_OPS,
};
