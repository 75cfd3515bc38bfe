/*
 * PCI for scripts. `pci SLOT[.FUNC] NAME [OPTIONS]` adds a device, `assign` gives the BARs
 * addresses as firmware would (I/O from 0x2000, memory from 0xC0000000 and 0x800000000); after
 * that,
 *
 *     cfgrl 3 0x10 = 0x2001     cfgrb, cfgrw: configuration space by ports
 *     cfgwl 3.1 4 7             cfgwb, cfgww
 *     pokeq 0x1000 0            guest memory, for rings: pokeb ... pokeq, peekb ... peekq
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pci/table.h"
#include "runner.h"
#include "storage/storage.h"
#include "virtio/virtio.h"

#define BOARD_DEVICES 8u

static const struct pci_ops *const known[] = {
    &pci_hostbridge_ops, &pci_amd_hostbridge_ops, &pci_lpc_ops, &pci_uart_ops, &virtio_rnd_ops,
    &virtio_blk_ops,     &virtio_scsi_ops,        &nvme_ops,    &ahci_ops,     &ahci_hd_ops,
    &ahci_cd_ops,
};

struct slot {
    const struct pci_ops *ops;
    unsigned slot, func;
    char name[32];
    struct dev_env env;
    struct config *config;
};

struct board_pci {
    struct pci *pci;
    bool assigned;
    unsigned count;
    struct slot slots[BOARD_DEVICES];
};

static int slot_add(struct board_pci *b, struct slot *s, struct error *err)
{
    return pci_add(b->pci, 0, s->slot, s->func, s->ops, &s->env, s->config, err);
}

static int board_pci_create(struct unit *u, struct error *err)
{
    struct board_pci *b = u->ctx;
    struct pci_config cfg = {
        .env = &u->env,
        .mem32_base = 0xC0000000,
        .mem32_end = 0xE0000000,
        .mem64_base = 0x800000000,
        .mem64_size = 0x800000000,
        .ecam_base = 0xE0000000,
        .ecam_size = 0x10000000,
        .io_base = 0x2000,
        .ecam = true,
    };
    int rc = pci_create(&cfg, &b->pci, err);

    for (unsigned i = 0; i < b->count && rc == 0; i++)
        rc = slot_add(b, &b->slots[i], err);
    if (rc == 0 && b->assigned)
        rc = pci_assign(b->pci, err);
    return rc;
}

static void board_pci_destroy(struct unit *u)
{
    struct board_pci *b = u->ctx;

    pci_destroy(b->pci);
    b->pci = NULL;
}

static void board_pci_save(struct unit *u, struct state_buf *out)
{
    struct board_pci *b = u->ctx;

    pci_save(b->pci, out);
}

static int board_pci_load(struct unit *u, const uint8_t *data, size_t len, size_t *pos,
                          struct error *err)
{
    struct board_pci *b = u->ctx;

    return pci_load(b->pci, data, len, pos, err);
}

static void board_pci_reset(struct unit *u)
{
    struct board_pci *b = u->ctx;

    pci_reset(b->pci);
}

static void board_pci_fini(struct unit *u)
{
    struct board_pci *b = u->ctx;

    for (unsigned i = 0; i < b->count; i++) {
        dev_env_fini(&b->slots[i].env);
        if (b->slots[i].config != NULL)
            config_destroy(b->slots[i].config);
    }
    free(b);
}

static const struct unit_ops board_pci_ops = {
    .create = board_pci_create,
    .destroy = board_pci_destroy,
    .save = board_pci_save,
    .load = board_pci_load,
    .reset = board_pci_reset,
    .fini = board_pci_fini,
};

/* "3" or "3.1". */
static bool place(struct runner *r, const char *word, unsigned *slot, unsigned *func)
{
    char left[16];
    const char *dot = strchr(word, '.');
    uint64_t s, f = 0;

    snprintf(left, sizeof(left), "%.*s", dot != NULL ? (int)(dot - word) : 15, word);
    if (!number(r, left, &s) || (dot != NULL && !number(r, dot + 1, &f)))
        return false;
    if (s > 31 || f > 7) {
        fail(r, "there is no PCI slot %s", word);
        return false;
    }
    *slot = (unsigned)s;
    *func = (unsigned)f;
    return true;
}

static struct unit *pci_unit(struct runner *r)
{
    struct unit *u = unit_find(r, "pci");
    struct board_pci *b;

    if (u != NULL)
        return u;
    b = calloc(1, sizeof(*b));
    if (b == NULL)
        return NULL;
    u = unit_add(r, "pci", &board_pci_ops, NULL, NULL, b);
    return u;
}

static int slot_options(struct slot *s, const char *text, struct error *err)
{
    s->config = config_create();
    if (s->config == NULL)
        return error_set(err, -ENOMEM, "no memory for options");
    return pci_options_parse(s->ops, s->config, text, s->ops->name, err);
}

/* The device's environment is the unit's, with a lock and a name of its own. */
static void slot_env(struct slot *s, const struct dev_env *from)
{
    snprintf(s->name, sizeof(s->name), "pci.0.%u.%u", s->slot, s->func);
    dev_env_init(&s->env, s->name);
    s->env.mem = from->mem;
    s->env.bus = from->bus;
    s->env.irqs = from->irqs;
    s->env.timers = from->timers;
    s->env.log = from->log;
    s->env.event = from->event;
    s->env.event_ctx = from->event_ctx;
}

static void cmd_pci(struct runner *r, unsigned count, char **words)
{
    struct unit *u = pci_unit(r);
    struct board_pci *b = u != NULL ? u->ctx : NULL;
    struct error err = {0};
    struct slot *s;

    if (b == NULL || b->count == BOARD_DEVICES) {
        fail(r, "no room for a PCI device");
        return;
    }
    s = &b->slots[b->count];
    memset(s, 0, sizeof(*s));
    if (!place(r, words[1], &s->slot, &s->func))
        return;
    for (size_t i = 0; i < countof(known); i++)
        if (strcmp(known[i]->name, words[2]) == 0)
            s->ops = known[i];
    if (s->ops == NULL) {
        fail(r, "no PCI device '%s'", words[2]);
        return;
    }
    slot_env(s, &u->env);
    if (count > 3) {
        char *text = image_expand(r, words[3]);

        if (text == NULL || slot_options(s, text, &err) != 0)
            err.code = -EINVAL;
        free(text);
    }
    if (err.code != 0 || slot_add(b, s, &err) != 0) {
        fail(r, "%s", err.text);
        dev_env_fini(&s->env);
        if (s->config != NULL)
            config_destroy(s->config);
        return;
    }
    b->count++;
}

int board_insert(struct runner *r, unsigned slot, unsigned unit, const char *path, bool force,
                 struct error *err)
{
    struct unit *u = unit_find(r, "pci");

    if (u == NULL)
        return error_set(err, -ENODEV, "there is no PCI device yet");
    return pci_insert(((struct board_pci *)u->ctx)->pci, 0, slot, 0, unit, path, force, err);
}

static void cmd_assign(struct runner *r, unsigned count, char **words)
{
    struct unit *u = unit_find(r, "pci");
    struct error err = {0};
    struct board_pci *b;

    (void)count;
    (void)words;
    if (u == NULL) {
        fail(r, "there is no PCI device yet");
        return;
    }
    b = u->ctx;
    b->assigned = true;
    if (pci_assign(b->pci, &err) != 0)
        fail(r, "%s", err.text);
}

static unsigned size_of(const char *command)
{
    switch (command[strlen(command) - 1]) {
    case 'b':
        return 1;
    case 'w':
        return 2;
    case 'l':
        return 4;
    default:
        return 8;
    }
}

/* Points 0xCF8 at a register; the port of its data, 0 after fail(). */
static uint64_t config_port(struct runner *r, const char *where, const char *reg)
{
    unsigned slot, func;
    uint64_t n;

    if (!place(r, where, &slot, &func) || !number(r, reg, &n))
        return 0;
    if (n > 255) {
        fail(r, "register %s cannot be reached by ports", reg);
        return 0;
    }
    bus_write(r->bus, BUS_READER_OTHER, BUS_PIO, 0xCF8, 4,
              0x80000000u | slot << 11 | func << 8 | (n & 0xFC));
    return 0xCFC + (n & 3);
}

static void cmd_cfgr(struct runner *r, unsigned count, char **words)
{
    uint64_t port = config_port(r, words[1], words[2]), value;
    char what[64];

    if (port == 0)
        return;
    bus_read(r->bus, BUS_READER_OTHER, BUS_PIO, port, size_of(words[0]), &value);
    if (count == 3)
        return;
    snprintf(what, sizeof(what), "%s %s %s", words[0], words[1], words[2]);
    if (count == 5 && strcmp(words[3], "=") == 0)
        check_value(r, what, value, words[4]);
    else
        fail(r, "usage: %s SLOT[.FUNC] REGISTER = VALUE", words[0]);
}

static void cmd_cfgw(struct runner *r, unsigned count, char **words)
{
    uint64_t port = config_port(r, words[1], words[2]), value;

    (void)count;
    if (port != 0 && number(r, words[3], &value))
        bus_write(r->bus, BUS_READER_OTHER, BUS_PIO, port, size_of(words[0]), value);
}

static void cmd_peek(struct runner *r, unsigned count, char **words)
{
    uint64_t at, value = 0;
    char what[64];

    (void)count;
    if (!number(r, words[1], &at))
        return;
    if (gmem_read(r->mem, at, &value, size_of(words[0])) != 0) {
        fail(r, "%s is not in RAM", words[1]);
        return;
    }
    snprintf(what, sizeof(what), "%s %s", words[0], words[1]);
    check_value(r, what, value, words[3]);
}

static void cmd_poke(struct runner *r, unsigned count, char **words)
{
    uint64_t at, value;

    (void)count;
    if (number(r, words[1], &at) && number(r, words[2], &value) &&
        gmem_write(r->mem, at, &value, size_of(words[0])) != 0)
        fail(r, "%s is not in RAM", words[1]);
}

const struct command pci_commands[] = {
    {"pci", 2, 3, cmd_pci, "SLOT[.FUNC] NAME [OPTIONS]"},
    {"assign", 0, 0, cmd_assign, ""},
    {"cfgrb", 2, 4, cmd_cfgr, "SLOT[.FUNC] REGISTER [= VALUE]"},
    {"cfgrw", 2, 4, cmd_cfgr, "SLOT[.FUNC] REGISTER [= VALUE]"},
    {"cfgrl", 2, 4, cmd_cfgr, "SLOT[.FUNC] REGISTER [= VALUE]"},
    {"cfgwb", 3, 3, cmd_cfgw, "SLOT[.FUNC] REGISTER VALUE"},
    {"cfgww", 3, 3, cmd_cfgw, "SLOT[.FUNC] REGISTER VALUE"},
    {"cfgwl", 3, 3, cmd_cfgw, "SLOT[.FUNC] REGISTER VALUE"},
    {"peekb", 3, 3, cmd_peek, "ADDRESS = VALUE"},
    {"peekw", 3, 3, cmd_peek, "ADDRESS = VALUE"},
    {"peekl", 3, 3, cmd_peek, "ADDRESS = VALUE"},
    {"peekq", 3, 3, cmd_peek, "ADDRESS = VALUE"},
    {"pokeb", 2, 2, cmd_poke, "ADDRESS VALUE"},
    {"pokew", 2, 2, cmd_poke, "ADDRESS VALUE"},
    {"pokel", 2, 2, cmd_poke, "ADDRESS VALUE"},
    {"pokeq", 2, 2, cmd_poke, "ADDRESS VALUE"},
    {0},
};
