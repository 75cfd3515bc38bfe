/*
 * Programs for the board's chips: ports, their registers in memory, the local APIC, time, resets,
 * snapshots of each, damaged ones too. Beside the sanitizers: what is saved, loaded and saved again
 * is the same, and after a reset nothing is pending.
 */
#include <string.h>

#include "dev/chips.h"
#include "dev/lapic.h"
#include "mem/gmem.h"
#include "program.h"

#define OPERATIONS 400u
#define STEP_MOST 0xFFFFFu /* ns: a chip's fastest timer fires ten thousand times */

static const struct dev_ops *const chips[] = {
    &i8259_ops, &ioapic_ops, &i8254_ops, &mc146818_ops, &hpet_ops,    &pmtimer_ops, &acpipm_ops,
    &i8042_ops, &port92_ops, &reset_ops, &post_ops,     &pvpanic_ops, &fpuerr_ops,  &fwcfg_ops,
};
#define CHIPS countof(chips)

/* Where there is something, with one before and behind. */
static const uint16_t ports[] = {
    0x1f,  0x20,  0x21,  0x3f,  0x40,  0x41,  0x42,  0x43,  0x60,  0x61,  0x64,  0x70,  0x71,
    0x80,  0x84,  0x92,  0xa0,  0xa1,  0xb2,  0xb3,  0xf0,  0xf1,  0x400, 0x402, 0x404, 0x408,
    0x409, 0x4d0, 0x4d1, 0x505, 0x506, 0x510, 0x511, 0x512, 0x514, 0xcf9, 0x3f8, 0x5f,  0x82,
};
static const uint64_t pages[] = {0xFEC00000, 0xFED00000, 0xFED00100, 0xFED000F0};

struct rig {
    struct program g;
    struct log *log;
    struct bus *bus;
    struct gmem *mem;
    struct irq_router *irqs;
    struct timerq *timers;
    struct dev_env env[CHIPS], lapic_env;
    struct device dev[CHIPS];
    struct lapics *lapics;
};

/* ---- what the local APIC asks of its vCPU ---- */

static void signal_none(void *ctx, unsigned cpu)
{
    (void)ctx;
    check(cpu == 0);
}

static void signal_sipi(void *ctx, unsigned cpu, uint8_t vector)
{
    (void)vector;
    signal_none(ctx, cpu);
}

static uint64_t tsc_now(void *ctx, unsigned cpu)
{
    const struct rig *r = ctx;

    (void)cpu;
    return timerq_now(r->timers);
}

static uint64_t tsc_hz(void *ctx, unsigned cpu)
{
    (void)ctx;
    (void)cpu;
    return 1000000000;
}

static const struct vcpu_signal_ops signals = {.interrupt = signal_none,
                                               .nmi = signal_none,
                                               .smi = signal_none,
                                               .init = signal_none,
                                               .sipi = signal_sipi,
                                               .tsc_now = tsc_now,
                                               .tsc_hz = tsc_hz};

/* ---- operations ---- */

static uint16_t port(struct rig *r)
{
    uint8_t b = take8(&r->g);

    return b < 0xF8 ? ports[b % countof(ports)] : (uint16_t)take(&r->g, 2);
}

static void op_out(struct rig *r)
{
    uint16_t at = port(r);
    unsigned size = 1u << take8(&r->g) % 3u;

    bus_write(r->bus, 0, BUS_PIO, at, size, take_number(&r->g) & bytes_mask(size));
}

static void op_in(struct rig *r)
{
    uint16_t at = port(r);
    uint64_t value;
    unsigned size = 1u << take8(&r->g) % 3u;

    bus_read(r->bus, 0, BUS_PIO, at, size, &value);
    check((value & ~bytes_mask(size)) == 0);
}

static uint64_t place(struct rig *r)
{
    uint8_t b = take8(&r->g);

    return pages[b % countof(pages)] + (take_number(&r->g) & 0x3FF);
}

static void op_mmio_out(struct rig *r)
{
    uint64_t at = place(r);
    unsigned size = take_size(&r->g);

    bus_write(r->bus, 0, BUS_MMIO, at, size, take_number(&r->g) & bytes_mask(size));
}

static void op_mmio_in(struct rig *r)
{
    uint64_t at = place(r), value;

    bus_read(r->bus, 0, BUS_MMIO, at, take_size(&r->g), &value);
}

static void op_apic_out(struct rig *r)
{
    unsigned offset = (unsigned)take8(&r->g) << 4;

    lapics_cpu_ops.mmio_write(r->lapics, 0, offset & 0xFFF, 4, (uint32_t)take_number(&r->g));
}

static void op_apic_in(struct rig *r)
{
    unsigned offset = (unsigned)take_number(&r->g) & 0xFFF, size = take_size(&r->g);

    (void)lapics_cpu_ops.mmio_read(r->lapics, 0, offset, size);
}

static uint32_t apic_msr(struct rig *r)
{
    uint8_t b = take8(&r->g);

    return b == 0 ? 0x1B : b == 1 ? 0x6E0 : 0x800u + b;
}

static void op_msr_write(struct rig *r)
{
    uint32_t msr = apic_msr(r);

    (void)lapics_cpu_ops.msr_write(r->lapics, 0, msr, take_number(&r->g));
}

static void op_msr_read(struct rig *r)
{
    uint64_t value;

    (void)lapics_cpu_ops.msr_read(r->lapics, 0, apic_msr(r), &value);
}

static void op_cr8(struct rig *r)
{
    lapics_cpu_ops.set_cr8(r->lapics, 0, take8(&r->g) & 15);
    (void)lapics_cpu_ops.get_cr8(r->lapics, 0);
}

static void op_ack(struct rig *r)
{
    if (lapics_cpu_ops.pending(r->lapics, 0))
        check(lapics_cpu_ops.ack(r->lapics, 0) <= 255);
}

static void op_message(struct rig *r)
{
    uint64_t addr = 0xFEE00000 | (take_number(&r->g) & 0xFFFFF);

    msi_send(r->irqs, addr, (uint32_t)take_number(&r->g));
}

static void op_step(struct rig *r)
{
    timerq_step(r->timers, take_number(&r->g) & STEP_MOST);
}

static void op_button(struct rig *r)
{
    for (unsigned i = 0; i < CHIPS; i++) {
        if (chips[i] == &acpipm_ops)
            acpipm_power_button(&r->dev[i]);
        if (chips[i] == &fpuerr_ops)
            fpuerr_raise(&r->dev[i]);
    }
}

static void op_reset(struct rig *r)
{
    for (unsigned i = 0; i < CHIPS; i++)
        device_reset(&r->dev[i]);
    lapics_reset(r->lapics);
    check(!lapics_cpu_ops.pending(r->lapics, 0));
}

static void save(struct rig *r, unsigned i, struct state_buf *out)
{
    if (i == CHIPS)
        lapics_save(r->lapics, out);
    else
        device_save(&r->dev[i], out);
    check(out->error == 0 && out->len > 0);
}

static int load(struct rig *r, unsigned i, const struct state_buf *b, size_t *pos)
{
    struct error err = {0};
    int rc = i == CHIPS ? lapics_load(r->lapics, b->data, b->len, pos, &err)
                        : device_load(&r->dev[i], b->data, b->len, pos, &err);

    check(rc == 0 || err.text[0] != '\0');
    return rc;
}

/* To a reset chip, and what that saves to it once more. The first may catch up with the clock. */
static void op_save_load(struct rig *r)
{
    unsigned i = take8(&r->g) % (CHIPS + 1);
    struct state_buf b[3] = {0};

    for (unsigned turn = 0;; turn++) {
        size_t pos = 0;

        save(r, i, &b[turn]);
        if (turn == 2)
            break;
        if (i == CHIPS)
            lapics_reset(r->lapics);
        else
            device_reset(&r->dev[i]);
        check(load(r, i, &b[turn], &pos) == 0 && pos == b[turn].len);
    }
    for (size_t at = 0; at < b[1].len; at++) {
        if (b[1].len == b[2].len && b[1].data[at] == b[2].data[at])
            continue;
        fprintf(stderr, "chip %u: byte %zu of %zu\n", i, at, b[1].len);
        abort();
    }
    for (unsigned turn = 0; turn < 3; turn++)
        free(b[turn].data);
}

/* Some bytes of the snapshot are others. Loading it may fail, but not harm. */
static void op_load_damaged(struct rig *r)
{
    unsigned i = take8(&r->g) % (CHIPS + 1), damages = 1 + take8(&r->g) % 4u;
    struct state_buf b = {0};
    size_t pos = 0;

    save(r, i, &b);
    for (unsigned n = 0; n < damages; n++) {
        size_t at = take(&r->g, 2) % b.len;

        b.data[at] = take8(&r->g);
    }
    (void)load(r, i, &b, &pos);
    free(b.data);
}

static void (*const operations[16])(struct rig *r) = {
    op_out,       op_out,          op_in,        op_mmio_out, op_mmio_out, op_mmio_in,
    op_apic_out,  op_apic_in,      op_msr_write, op_ack,      op_step,     op_message,
    op_save_load, op_load_damaged, op_button,    op_reset,
};

/* Those that are rarer, behind the last one's byte. */
static void (*const others[4])(struct rig *r) = {op_msr_read, op_cr8, op_step, op_in};

/* ---- from the beginning to the end ---- */

static void rig_env(struct rig *r, struct dev_env *env, const char *name)
{
    dev_env_init(env, name);
    env->mem = r->mem;
    env->bus = r->bus;
    env->irqs = r->irqs;
    env->timers = r->timers;
    env->log = r->log;
    env->cpus = 1;
    env->wall_stepped = true;
    env->wall_base_ns = 1700000000000000000;
}

static void rig_open(struct rig *r)
{
    struct lapic_config cfg = {.cpus = 1, .phys_bits = 39, .signals = &signals, .signals_ctx = r};
    struct error err = {0};

    r->log = log_create(2, LOG_ERROR);
    r->bus = bus_create(r->log);
    r->mem = gmem_create(1 << 20, &err);
    r->irqs = irq_router_create(r->log);
    r->timers = timerq_create(true, NULL, NULL);
    rig_env(r, &r->lapic_env, "lapic");
    check(lapics_create(&r->lapic_env, &cfg, &r->lapics, &err) == 0);
    for (unsigned i = 0; i < CHIPS; i++) {
        rig_env(r, &r->env[i], chips[i]->name);
        check(device_create(chips[i], &r->env[i], NULL, &r->dev[i], &err) == 0);
    }
}

static void rig_close(struct rig *r)
{
    for (unsigned i = CHIPS; i-- > 0;) {
        device_destroy(&r->dev[i]);
        dev_env_fini(&r->env[i]);
    }
    lapics_destroy(r->lapics);
    dev_env_fini(&r->lapic_env);
    timerq_destroy(r->timers);
    irq_router_destroy(r->irqs);
    bus_destroy(r->bus);
    gmem_destroy(r->mem);
    log_destroy(r->log);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct rig r;

    memset(&r, 0, sizeof(r));
    r.g = (struct program){data, data + len};
    rig_open(&r);
    for (unsigned i = 0; i < OPERATIONS && r.g.at < r.g.end; i++) {
        uint8_t b = take8(&r.g);

        if (b < 0xF0)
            operations[b & 15u](&r);
        else
            others[b & 3u](&r);
    }
    op_reset(&r);
    rig_close(&r);
    return 0;
}
