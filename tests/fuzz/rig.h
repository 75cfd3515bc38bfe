/*
 * Programs for a PCI device: a machine (tests/unit/pci_fixture.h) with one device, and operations
 * that any of them knows: registers, configuration space, guest memory, time, the ends of disk
 * requests, resets, snapshots, damaged ones too. A target adds how its device is brought up, what a
 * well-formed request is, which registers and addresses matter, and what must work after a reset.
 *
 * Include in one file of a target, whose LLVMFuzzerTestOneInput sets disks.geo and calls rig_run.
 */
#ifndef TESTS_FUZZ_RIG_H
#define TESTS_FUZZ_RIG_H

#include "../unit/pci_fixture.h"
#include "disk.h"

#define SLOT 4u
#define OPERATIONS 300u

struct rig {
    struct machine m;
    struct program g;
    const struct target *t;
    struct config *node;
    uint64_t bar[6];
    uint32_t bar_raw[6];
    void *driver; /* the target's */
};

struct target {
    const struct pci_ops *ops;
    const char *options; /* may be NULL */
    unsigned main_bar;
    const uint16_t *regs; /* of main_bar, worth to be written */
    unsigned reg_count;
    const uint64_t *places; /* in memory, at most PLACES_MAX */
    unsigned place_count;
    void (*begin)(struct rig *r);   /* as a driver begins, by the program's choices */
    void (*request)(struct rig *r); /* a well-formed one */
    void (*kick)(struct rig *r);
    void (*works)(struct rig *r); /* after a reset: check() that it does */
};

static inline uint64_t place(struct rig *r)
{
    return take_place(&r->g, r->t->places, r->t->place_count);
}

static inline void bar_out(struct rig *r, unsigned bar, uint64_t offset, unsigned size,
                           uint64_t value)
{
    if ((r->bar_raw[bar] & 1) != 0)
        out(&r->m, (uint16_t)(r->bar[bar] + offset), size, (uint32_t)value);
    else
        mmio_out(&r->m, r->bar[bar] + offset, size, value);
}

static inline uint64_t bar_in(struct rig *r, unsigned bar, uint64_t offset, unsigned size)
{
    if ((r->bar_raw[bar] & 1) != 0)
        return in(&r->m, (uint16_t)(r->bar[bar] + offset), size);
    return mmio_in(&r->m, r->bar[bar] + offset, size);
}

static inline void poke(struct rig *r, uint64_t gpa, uint64_t value, unsigned size)
{
    guest_put(r->m.mem, gpa, value, size);
}

/* ---- operations ---- */

static void op_begin(struct rig *r)
{
    r->t->begin(r);
}

static void op_request(struct rig *r)
{
    r->t->request(r);
}

static void op_kick(struct rig *r)
{
    r->t->kick(r);
}

static void op_register(struct rig *r)
{
    uint16_t offset = r->t->regs[take8(&r->g) % r->t->reg_count];
    unsigned size = take_size(&r->g);

    bar_out(r, r->t->main_bar, offset, size, take_number(&r->g));
}

static void op_register_place(struct rig *r)
{
    uint16_t offset = r->t->regs[take8(&r->g) % r->t->reg_count];

    bar_out(r, r->t->main_bar, offset, 8, place(r));
}

/* Any BAR, any offset. */
static void op_bar_write(struct rig *r)
{
    unsigned bar = take8(&r->g) % 6u, size = take_size(&r->g);
    uint64_t offset = take_number(&r->g) & 0x3FFF;

    bar_out(r, bar, offset, size, take_number(&r->g));
}

static void op_bar_read(struct rig *r)
{
    unsigned bar = take8(&r->g) % 6u, size = take_size(&r->g);

    (void)bar_in(r, bar, take_number(&r->g) & 0x3FFF, size);
}

static void op_config_write(struct rig *r)
{
    unsigned reg = take8(&r->g), size = take_size(&r->g);

    cfgw(&r->m, SLOT, 0, reg, size > 4 ? 4 : size, (uint32_t)take_number(&r->g));
}

static void op_config_read(struct rig *r)
{
    unsigned reg = take8(&r->g), size = take_size(&r->g);

    (void)cfgr(&r->m, SLOT, 0, reg, size > 4 ? 4 : size);
}

static void op_poke(struct rig *r)
{
    uint64_t at = place(r);
    unsigned size = take_size(&r->g);

    poke(r, at, take_number(&r->g), size);
}

/* An address as a value. */
static void op_poke_place(struct rig *r)
{
    uint64_t at = place(r);

    poke(r, at, place(r), 8);
}

static void op_bytes(struct rig *r)
{
    uint64_t at = place(r);
    unsigned n = 1 + take8(&r->g) % 64u;

    for (unsigned i = 0; i < n; i++)
        poke(r, at + i, take8(&r->g), 1);
}

static void op_ambush(struct rig *r)
{
    unsigned calls = 1 + take8(&r->g) % 32u;
    uint64_t at = place(r);
    unsigned size = take_size(&r->g);

    ambush_set(calls, at, take_number(&r->g), size);
}

static void op_step(struct rig *r)
{
    timerq_step(r->m.timers, take_number(&r->g) & 0xFFFFFFFFFF);
    for (unsigned i = 0; i < disks.count; i++) {
        pthread_mutex_lock(&r->m.env[0].lock);
        disk_tell(&disks.disk[i]);
        pthread_mutex_unlock(&r->m.env[0].lock);
    }
}

static const int errors[] = {0, 0, 0, 0, -EIO, -ENOSPC, -EROFS, -EINVAL};

static void op_finish(struct rig *r)
{
    uint8_t b = take8(&r->g);
    struct block *d = &disks.disk[b % disks.count];

    if (d->count > 0)
        disk_finish(d, (b >> 4) % d->count, errors[b >> 1 & 7]);
    timerq_step(r->m.timers, 0); /* what the end has put off */
}

static void op_hold(struct rig *r)
{
    disks.hold = !disks.hold;
    (void)r;
}

static void op_fail(struct rig *r)
{
    disks.fail = errors[take8(&r->g) & 7];
}

static void op_resize(struct rig *r)
{
    uint8_t b = take8(&r->g);
    struct block *d = &disks.disk[b % disks.count];

    d->next_size = (uint64_t)DISK_SIZE >> (b >> 1 & 7);
    if (b >> 4 == 15)
        d->next_size = 0;
    pci_refresh(r->m.pci);
}

static void op_insert(struct rig *r)
{
    uint8_t b = take8(&r->g);
    struct error err;

    (void)pci_insert(r->m.pci, 0, SLOT, 0, b >> 4,
                     (const char *[]){NULL, "disc", "missing", ""}[b & 3], (b & 4) != 0, &err);
}

static void op_reset(struct rig *r)
{
    pci_reset(r->m.pci);
    for (unsigned i = 0; i < disks.count; i++)
        check(disks.disk[i].count == 0); /* no memory changes any more */
    cfgw(&r->m, SLOT, 0, 4, 2, 7);
}

static void op_save_load(struct rig *r)
{
    machine_save_load(&r->m);
}

/* Some bytes of the snapshot are others. Loading it may fail, but not harm. */
static void op_load_damaged(struct rig *r)
{
    unsigned damages = 1 + take8(&r->g) % 4u;
    struct state_buf b = {0};
    struct error err = {0};
    size_t pos = 0;

    pci_save(r->m.pci, &b);
    check(b.error == 0 && b.len > 0);
    for (unsigned i = 0; i < damages; i++) {
        uint8_t near = take8(&r->g); /* the device's own fields are the last */
        size_t back = 1 + (near < 0xC0 ? near : (near & 0x1Fu) << 8 | take8(&r->g)) % b.len;
        uint8_t how = take8(&r->g);

        b.data[b.len - back] = how < 128 ? how : (uint8_t)(b.data[b.len - back] ^ 1u << how % 8);
    }
    pci_reset(r->m.pci);
    if (pci_load(r->m.pci, b.data, b.len, &pos, &err) != 0) {
        check(err.text[0] != '\0');
        op_reset(r);
    }
    free(b.data);
}

static void (*const operations[32])(struct rig *r) = {
    op_request, op_request,   op_request,      op_request,        op_kick,      op_kick,
    op_begin,   op_register,  op_register,     op_register_place, op_bar_write, op_bar_read,
    op_poke,    op_poke,      op_poke_place,   op_bytes,          op_ambush,    op_step,
    op_finish,  op_finish,    op_hold,         op_fail,           op_resize,    op_insert,
    op_reset,   op_save_load, op_load_damaged, op_config_read,    op_request,   op_config_write,
    op_poke,    op_kick,
};

/* ---- from the beginning to the end ---- */

static void rig_open(struct rig *r)
{
    struct dev_env *env = &r->m.env[0];
    const struct pci_ops *ops = r->t->ops;
    struct error err = {0};

    disks.count = 0;
    disks.hold = disks.in_done = false;
    disks.fail = 0;
    disks.moved = 0;
    machine_start(&r->m, false);
    machine_env(&r->m, env, "dut");
    r->node = config_create();
    if (r->t->options != NULL)
        check(pci_options_parse(ops, r->node, r->t->options, ops->name, &err) == 0);
    if (pci_add(r->m.pci, 0, SLOT, 0, ops, env, r->node, &err) != 0) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    r->m.devices = 1;
    check(pci_assign(r->m.pci, &err) == 0);
    for (unsigned i = 0; i < 6; i++) {
        r->bar_raw[i] = cfgr(&r->m, SLOT, 0, 0x10 + 4 * i, 4);
        r->bar[i] = r->bar_raw[i] & ((r->bar_raw[i] & 1) != 0 ? ~3u : ~15u);
    }
    cfgw(&r->m, SLOT, 0, 4, 2, 7);
}

/* Whatever was done, after a reset it is as new. */
static void rig_works(struct rig *r)
{
    ambush_none();
    disks.hold = false;
    disks.fail = 0;
    disks.moved = 0;
    for (unsigned i = 0; i < 6; i++)
        cfgw(&r->m, SLOT, 0, 0x10 + 4 * i, 4, r->bar_raw[i]);
    op_reset(r);
    for (unsigned i = 0; i < disks.count; i++) {
        disks.disk[i].next_size = disks.geo.size;
        disks.disk[i].data[512] = 0x5A; /* for a read of the second sector */
    }
    pci_refresh(r->m.pci);
    timerq_step(r->m.timers, 0);
    r->t->works(r);
    machine_save_load(&r->m);
}

static inline void rig_run(const struct target *t, const struct program *g, void *driver)
{
    struct rig r = {.t = t, .g = *g, .driver = driver};

    rig_open(&r);
    t->begin(&r);
    for (unsigned i = 0; i < OPERATIONS && r.g.at < r.g.end; i++)
        operations[take8(&r.g) & 31u](&r);
    rig_works(&r);
    machine_stop(&r.m);
    config_destroy(r.node);
}

/* cmocka's own assertions, of the fixtures, shall leave a stack to look at. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return setenv("CMOCKA_TEST_ABORT", "1", 1);
}

#endif
