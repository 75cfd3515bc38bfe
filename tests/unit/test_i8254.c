/*
 * The interval timer beside a model that counts every clock pulse as the 8254's data sheet tells
 * it. The chip computes from the clock and never ticks, so this is where the two could differ.
 * Channel 2 has its gate at port 0x61; channel 0's output is seen as edges of IRQ 0.
 *
 *     test_i8254 [SEED]
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "base/bits.h"
#include "dev/chips.h"

#define PIT_HZ 1193182ull
#define ROUNDS 300u
#define TICKS 1500u

/* ---- the model ---- */

struct model {
    uint8_t control; /* low six bits of the control word */
    unsigned mode, access;
    bool bcd;
    bool written; /* a count since the control word */
    bool loaded;  /* the counting element holds one */
    bool half;    /* the first byte of two has come */
    bool load;    /* the next pulse loads */
    bool trigger; /* a rising gate since the last pulse */
    bool done;    /* modes 0, 1, 4, 5: zero was reached since the load */
    bool out, null, gate;
    uint8_t low;
    unsigned reg;     /* count register, 1-65536 */
    unsigned element; /* counting element */
    unsigned period;  /* mode 3: what the element was loaded from */
    bool odd_wait;    /* mode 3: the pulse after zero of an odd count's high half */
    unsigned rises;
};

static unsigned modulus(const struct model *m)
{
    return m->bcd ? 10000 : 65536;
}

static void set_out(struct model *m, bool out)
{
    m->rises += out && !m->out;
    m->out = out;
}

static void model_control(struct model *m, uint8_t value)
{
    m->control = value & 0x3F;
    m->mode = (value >> 1) & 7;
    if (m->mode > 5)
        m->mode &= 3;
    m->access = (value >> 4) & 3;
    m->bcd = value & 1;
    m->written = m->loaded = m->half = m->load = m->trigger = m->done = m->odd_wait = false;
    m->null = true;
    set_out(m, m->mode != 0);
}

static unsigned from_digits(unsigned v)
{
    return (v >> 12 & 15) * 1000 + (v >> 8 & 15) * 100 + (v >> 4 & 15) * 10 + (v & 15);
}

static void model_write(struct model *m, uint8_t value)
{
    unsigned byte = value, count = m->access == 2 ? byte << 8 : byte;

    if (m->access == 3 && !m->half) {
        m->low = value;
        m->half = true;
        if (m->mode == 0) {
            m->load = false;
            set_out(m, false);
        }
        return;
    }
    if (m->access == 3)
        count = byte << 8 | m->low;
    m->half = false;
    if (m->bcd)
        count = from_digits(count);
    m->reg = count != 0 ? count : modulus(m);
    m->null = true;
    if (m->mode == 0) {
        set_out(m, false);
        m->load = true;
    } else if (m->mode == 4 || ((m->mode == 2 || m->mode == 3) && !m->loaded)) {
        m->load = true;
    }
    m->written = true;
}

static void model_gate(struct model *m, bool gate)
{
    if (gate && !m->gate)
        m->trigger = true;
    m->gate = gate;
    if (!gate && (m->mode == 2 || m->mode == 3))
        set_out(m, true);
}

static void load(struct model *m)
{
    m->element = m->reg % modulus(m);
    m->period = m->reg;
    m->load = m->null = m->done = m->odd_wait = false;
    m->loaded = true;
    if (m->mode == 3)
        m->element = (m->reg & ~1u) % modulus(m);
}

/* Modes 0, 1, 4 and 5 go on below zero, and reach it once. */
static bool count_down(struct model *m)
{
    m->element = (m->element + modulus(m) - 1) % modulus(m);
    if (m->element != 0 || m->done)
        return false;
    m->done = true;
    return true;
}

static void square_pulse(struct model *m)
{
    bool ended;

    if (m->odd_wait) {
        ended = true;
    } else {
        m->element = (m->element + modulus(m) - 2) % modulus(m);
        ended = m->element == 0;
        if (ended && (m->period & 1) && m->out) {
            m->odd_wait = true; /* an odd count's high half is a pulse longer */
            return;
        }
    }
    if (ended) {
        set_out(m, !m->out);
        load(m);
    }
}

static void model_pulse(struct model *m)
{
    bool trigger = m->trigger;

    m->trigger = false;
    if (m->mode >= 4 && !m->out)
        set_out(m, true); /* the strobe is one pulse long, whatever the gate does */
    switch (m->mode) {
    case 0:
        if (m->load)
            load(m);
        else if (m->loaded && m->gate && !m->half && count_down(m))
            set_out(m, true);
        break;
    case 1:
    case 5:
        if (trigger && m->written) {
            load(m);
            set_out(m, m->mode == 5);
        } else if (m->loaded && count_down(m)) {
            set_out(m, m->mode == 1);
        }
        break;
    case 2:
        if (m->load || (trigger && m->written)) {
            load(m);
        } else if (m->loaded && m->gate) {
            if (m->element == 1) {
                load(m);
                set_out(m, true);
            } else {
                m->element = (m->element + modulus(m) - 1) % modulus(m);
                set_out(m, m->element != 1);
            }
        }
        break;
    case 3:
        if (m->load || (trigger && m->written)) {
            load(m);
            set_out(m, true);
        } else if (m->loaded && m->gate) {
            square_pulse(m);
        }
        break;
    default:
        if (m->load)
            load(m);
        else if (m->loaded && m->gate && count_down(m))
            set_out(m, false);
        break;
    }
}

/* ---- the chip ---- */

struct fixture {
    struct dev_env env;
    struct device pit;
    uint64_t tick, now;
    unsigned rises;
    struct model model[3];
};

static void on_gsi(void *ctx, unsigned gsi, bool level)
{
    struct fixture *f = ctx;

    f->rises += gsi == 0 && level;
}

static uint8_t in(struct fixture *f, uint16_t port)
{
    uint64_t value = 0;

    bus_read(f->env.bus, BUS_READER_OTHER, BUS_PIO, port, 1, &value);
    return (uint8_t)value;
}

static void out(struct fixture *f, uint16_t port, uint8_t value)
{
    bus_write(f->env.bus, BUS_READER_OTHER, BUS_PIO, port, 1, value);
}

static void pulse(struct fixture *f)
{
    uint64_t next = ++f->tick * NSEC_PER_SEC / PIT_HZ;

    next += next * PIT_HZ < f->tick * NSEC_PER_SEC; /* rounded up */
    timerq_step(f->env.timers, next - f->now);
    f->now = next;
    for (unsigned i = 0; i < 3; i++)
        model_pulse(&f->model[i]);
}

static unsigned digits(unsigned v)
{
    return v / 1000 % 10 << 12 | v / 100 % 10 << 8 | v / 10 % 10 << 4 | v % 10;
}

/* Status and count by the read-back command. */
static void compare(struct fixture *f, unsigned channel, uint64_t seed)
{
    struct model *m = &f->model[channel];
    unsigned status, count = 0, want = m->bcd ? digits(m->element) : m->element;
    unsigned expected = m->control | (m->out ? 0x80u : 0) | (m->null ? 0x40u : 0);

    out(f, 0x43, (uint8_t)(0xC0 | 2u << channel));
    status = in(f, (uint16_t)(0x40 + channel));
    if (m->access & 1)
        count = in(f, (uint16_t)(0x40 + channel));
    if (m->access & 2)
        count |= (unsigned)in(f, (uint16_t)(0x40 + channel)) << 8;
    want &= m->access == 1 ? 0xFF : m->access == 2 ? 0xFF00 : 0xFFFF;
    if (status != expected || (m->loaded && count != want))
        fail_msg("seed %#llx, tick %llu, channel %u, control %#x: status %#x count %#x, not %#x "
                 "and %#x",
                 (unsigned long long)seed, (unsigned long long)f->tick, channel, m->control, status,
                 count, expected, want);
}

/* ---- random programs ---- */

static uint64_t random_state;

static unsigned rnd(unsigned below)
{
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)((random_state >> 33) % below);
}

static void random_control(struct fixture *f, unsigned channel)
{
    uint8_t value = (uint8_t)(channel << 6 | (1 + rnd(3)) << 4 | rnd(16));

    out(f, 0x43, value);
    model_control(&f->model[channel], value);
}

static void random_count(struct fixture *f, unsigned channel)
{
    struct model *m = &f->model[channel];
    unsigned count = rnd(8) == 0 ? rnd(65536) : 2 + rnd(60);
    uint8_t bytes[2] = {(uint8_t)count, (uint8_t)(count >> 8)};
    unsigned n = m->access == 3 ? 2 : 1;

    if (m->bcd)
        count = digits(count);
    bytes[0] = (uint8_t)count;
    bytes[1] = (uint8_t)(count >> 8);
    if (m->access == 2)
        bytes[0] = (uint8_t)(count >> 8);
    /* One is no count for modes 2 and 3. */
    if ((m->mode == 2 || m->mode == 3) && m->access != 2 && bytes[0] == 1)
        bytes[0] = 2;
    if (m->half) { /* the other byte of one begun before */
        n = 1;
        bytes[0] = m->low == 1 ? 1 : (uint8_t)rnd(2);
    } else if (n == 2 && rnd(6) == 0) {
        n = 1;
    }
    for (unsigned i = 0; i < n; i++) {
        out(f, (uint16_t)(0x40 + channel), bytes[i]);
        model_write(m, bytes[i]);
    }
}

static void random_gate(struct fixture *f)
{
    bool gate = rnd(3) != 0;

    out(f, 0x61, gate);
    model_gate(&f->model[2], gate);
}

/* Saved, destroyed, made again and loaded. */
static void renew(struct fixture *f)
{
    struct state_buf buf = {0};
    size_t pos = 0;

    device_save(&f->pit, &buf);
    device_destroy(&f->pit);
    assert_int_equal(device_create(&i8254_ops, &f->env, NULL, &f->pit, NULL), 0);
    assert_int_equal(device_load(&f->pit, buf.data, buf.len, &pos, NULL), 0);
    free(buf.data);
}

static void program(struct fixture *f, uint64_t seed)
{
    unsigned rate = 3 + rnd(200);

    for (unsigned i = 0; i < TICKS; i++) {
        unsigned channel = rnd(3);

        if (rnd(rate) == 0)
            random_count(f, channel);
        if (rnd(rate) == 0)
            random_gate(f);
        if (rnd(4 * rate) == 0)
            random_control(f, channel);
        if (rnd(8) == 0)
            compare(f, rnd(3), seed);
        if (rnd(100) == 0)
            renew(f);
        if (((in(f, 0x61) >> 5) & 1) != f->model[2].out)
            fail_msg("seed %#llx, tick %llu, control %#x: OUT of channel 2 is %u",
                     (unsigned long long)seed, (unsigned long long)f->tick, f->model[2].control,
                     !f->model[2].out);
        pulse(f);
    }
}

static uint64_t first_seed;

static void test_random(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t seed = first_seed + i;

        random_state = seed * 0x9E3779B97F4A7C15ull;
        for (unsigned c = 0; c < 3; c++) {
            random_control(f, c);
            random_count(f, c);
        }
        program(f, seed);
    }
}

/* Every mode of channel 0 with counts a host can follow: as many edges as the model has. */
static void test_edges(void **state)
{
    struct fixture *f = *state;

    random_state = first_seed;
    for (unsigned i = 0; i < 120; i++) {
        uint8_t control = (uint8_t)(0x30 | (i % 6) << 1);
        unsigned count = 24 + rnd(300);

        out(f, 0x43, control);
        model_control(&f->model[0], control);
        f->rises = f->model[0].rises = 0;
        out(f, 0x40, (uint8_t)count);
        out(f, 0x40, (uint8_t)(count >> 8));
        model_write(&f->model[0], (uint8_t)count);
        model_write(&f->model[0], (uint8_t)(count >> 8));
        for (unsigned t = 0; t < 2000; t++)
            pulse(f);
        if (f->rises != f->model[0].rises)
            fail_msg("seed %#llx, mode %u, count %u: %u edges, not %u",
                     (unsigned long long)first_seed, i % 6, count, f->rises, f->model[0].rises);
    }
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    dev_env_init(&f->env, "i8254");
    f->env.timers = timerq_create(true, NULL, NULL);
    f->env.irqs = irq_router_create(NULL);
    f->env.bus = bus_create(NULL);
    irq_set_observer(f->env.irqs, on_gsi, NULL, f);
    assert_int_equal(device_create(&i8254_ops, &f->env, NULL, &f->pit, NULL), 0);
    for (unsigned i = 0; i < 3; i++) {
        model_control(&f->model[i], 0x30);
        f->model[i].gate = i != 2;
    }
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    device_destroy(&f->pit);
    bus_destroy(f->env.bus);
    irq_router_destroy(f->env.irqs);
    timerq_destroy(f->env.timers);
    dev_env_fini(&f->env);
    free(f);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_random, setup, teardown),
        cmocka_unit_test_setup_teardown(test_edges, setup, teardown),
    };

    first_seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL) * 1000003u;
    printf("seed %#llx\n", (unsigned long long)first_seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
