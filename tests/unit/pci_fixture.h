/* A machine with nothing but a bus, memory, interrupt wires and PCI, for tests. */
#ifndef TESTS_PCI_FIXTURE_H
#define TESTS_PCI_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bus/device.h"
#include "mem/gmem.h"
#include "pci/pci.h"

#define ECAM 0xE0000000ull
#define DEVICES 8

struct machine {
    struct log *log;
    struct bus *bus;
    struct irq_router *irqs;
    struct timerq *timers;
    struct gmem *mem;
    struct pci *pci;
    struct dev_env pci_env, env[DEVICES];
    unsigned devices, guest_errors;
    pthread_mutex_t pic_lock;
    bool pic[16];
    unsigned messages;
    struct irq_message last;
};

static inline void machine_pic(void *ctx, unsigned pin, bool level)
{
    struct machine *m = ctx;

    m->pic[pin & 15] = level;
}

static inline void machine_message(void *ctx, const struct irq_message *msg)
{
    struct machine *m = ctx;

    m->messages++;
    m->last = *msg;
}

static inline void machine_line(void *ctx, enum log_level level, const char *line)
{
    struct machine *m = ctx;

    (void)line;
    if (level <= LOG_WARN)
        m->guest_errors++;
}

static inline void machine_env(struct machine *m, struct dev_env *env, const char *name)
{
    dev_env_init(env, name);
    env->mem = m->mem;
    env->bus = m->bus;
    env->irqs = m->irqs;
    env->timers = m->timers;
    env->log = m->log;
}

static inline void machine_start(struct machine *m, bool prefer_msi)
{
    struct irq_chip pic = {.ctx = m, .lock = &m->pic_lock, .set = machine_pic};
    struct pci_config cfg = {.env = &m->pci_env,
                             .mem32_base = 0xC0000000,
                             .mem32_end = 0xE0000000,
                             .mem64_base = 0x800000000,
                             .mem64_size = 0x800000000,
                             .ecam_base = ECAM,
                             .ecam_size = 0x10000000,
                             .io_base = 0x2000,
                             .ecam = true,
                             .prefer_msi = prefer_msi};
    struct error err = {0};

    memset(m, 0, sizeof(*m));
    pthread_mutex_init(&m->pic_lock, NULL);
    m->log = log_create(2, LOG_INFO);
    log_set_sink(m->log, machine_line, m);
    m->bus = bus_create(m->log);
    m->irqs = irq_router_create(m->log);
    m->timers = timerq_create(true, NULL, NULL);
    m->mem = gmem_create(16 << 20, &err);
    assert_non_null(m->mem);
    irq_attach_pic(m->irqs, &pic);
    irq_set_observer(m->irqs, NULL, machine_message, m);
    machine_env(m, &m->pci_env, "pci");
    assert_int_equal(pci_create(&cfg, &m->pci, &err), 0);
}

static inline int machine_add(struct machine *m, unsigned slot, unsigned func,
                              const struct pci_ops *ops)
{
    static const char *const names[DEVICES] = {"dev0", "dev1", "dev2", "dev3",
                                               "dev4", "dev5", "dev6", "dev7"};
    struct dev_env *env = &m->env[m->devices];
    struct error err = {0};
    int rc;

    assert_true(m->devices < DEVICES);
    machine_env(m, env, names[m->devices]);
    rc = pci_add(m->pci, 0, slot, func, ops, env, NULL, &err);
    if (rc == 0)
        m->devices++;
    else
        dev_env_fini(env);
    return rc;
}

static inline void machine_stop(struct machine *m)
{
    pci_destroy(m->pci);
    for (unsigned i = 0; i < m->devices; i++)
        dev_env_fini(&m->env[i]);
    dev_env_fini(&m->pci_env);
    gmem_destroy(m->mem);
    timerq_destroy(m->timers);
    irq_router_destroy(m->irqs);
    bus_destroy(m->bus);
    log_destroy(m->log);
    pthread_mutex_destroy(&m->pic_lock);
}

static inline uint32_t in(struct machine *m, uint16_t port, unsigned size)
{
    uint64_t v;

    bus_read(m->bus, 0, BUS_PIO, port, size, &v);
    return (uint32_t)v;
}

static inline void out(struct machine *m, uint16_t port, unsigned size, uint32_t v)
{
    bus_write(m->bus, 0, BUS_PIO, port, size, v);
}

static inline uint64_t mmio_in(struct machine *m, uint64_t at, unsigned size)
{
    uint64_t v;

    bus_read(m->bus, 0, BUS_MMIO, at, size, &v);
    return v;
}

static inline void mmio_out(struct machine *m, uint64_t at, unsigned size, uint64_t v)
{
    bus_write(m->bus, 0, BUS_MMIO, at, size, v);
}

/* Configuration space of bus 0, by ports. */
static inline uint32_t cfgr(struct machine *m, unsigned slot, unsigned func, unsigned reg,
                            unsigned size)
{
    out(m, 0xCF8, 4, 0x80000000u | slot << 11 | func << 8 | (reg & 0xFC));
    return in(m, (uint16_t)(0xCFC + (reg & 3)), size);
}

static inline void cfgw(struct machine *m, unsigned slot, unsigned func, unsigned reg,
                        unsigned size, uint32_t v)
{
    out(m, 0xCF8, 4, 0x80000000u | slot << 11 | func << 8 | (reg & 0xFC));
    out(m, (uint16_t)(0xCFC + (reg & 3)), size, v);
}

/* The offset of a capability, 0 if there is none. */
static inline unsigned find_cap(struct machine *m, unsigned slot, uint8_t id, unsigned after)
{
    unsigned at = after == 0 ? cfgr(m, slot, 0, 0x34, 1) : cfgr(m, slot, 0, after + 1, 1);

    for (unsigned n = 0; at != 0 && n < 48; n++, at = cfgr(m, slot, 0, at + 1, 1))
        if (cfgr(m, slot, 0, at, 1) == id)
            return at;
    return 0;
}

/* Saves everything and loads it into the same machine after a reset. */
static inline void machine_save_load(struct machine *m)
{
    struct state_buf b = {0};
    struct error err = {0};
    size_t pos = 0;

    pci_save(m->pci, &b);
    assert_int_equal(b.error, 0);
    pci_reset(m->pci);
    assert_int_equal(pci_load(m->pci, b.data, b.len, &pos, &err), 0);
    assert_int_equal(pos, b.len);
    free(b.data);
}

#endif
