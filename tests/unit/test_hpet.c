/*
 * The event timers beside a model that counts every tick as the IA-PC HPET specification tells it.
 * The chip computes from the clock and arms a timer for each match, so this is where the two could
 * differ. Random programs on all eight timers: one-shot and periodic, 32 and 64 bits, edge, level
 * and messages, legacy replacement, halting, and save and load in between.
 *
 *     test_hpet [SEED]
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

#define BASE 0xFED00000ull
#define TIMERS 8u
#define TICK_NS 100u
#define ROUNDS 150u
#define STEPS 200u

#define LEVEL (1ull << 1)
#define ENABLE (1ull << 2)
#define PERIODIC (1ull << 3)
#define VAL_SET (1ull << 6)
#define BITS_32 (1ull << 8)
#define FSB (1ull << 14)

/* ---- the model ---- */

struct model_timer {
    uint64_t conf, compare, period;
};

struct model {
    bool run, legacy;
    uint64_t counter, status;
    struct model_timer timer[TIMERS];
    bool high[IRQ_GSI_COUNT];
    unsigned rises[IRQ_GSI_COUNT];
    unsigned messages[TIMERS];
};

static uint64_t width(const struct model_timer *t)
{
    return t->conf & BITS_32 ? UINT32_MAX : UINT64_MAX;
}

/* Timers 0-3 have a pin each, the others none. */
static int wire(const struct model *m, unsigned i)
{
    if (m->timer[i].conf & FSB)
        return -1;
    if (m->legacy && i < 2)
        return i == 0 ? 0 : 8;
    return i < 4 ? (int)(20 + i) : -1;
}

static void model_levels(struct model *m)
{
    bool high[IRQ_GSI_COUNT] = {false};

    for (unsigned i = 0; i < TIMERS; i++) {
        bool on = (m->timer[i].conf & (LEVEL | ENABLE)) == (LEVEL | ENABLE) && m->status >> i & 1;

        if (on && wire(m, i) >= 0)
            high[wire(m, i)] = true;
    }
    for (unsigned g = 0; g < IRQ_GSI_COUNT; g++) {
        m->rises[g] += high[g] && !m->high[g];
        m->high[g] = high[g];
    }
}

static void model_match(struct model *m, unsigned i)
{
    struct model_timer *t = &m->timer[i];

    if (t->conf & FSB)
        m->messages[i] += (t->conf & ENABLE) != 0;
    else if (t->conf & LEVEL)
        m->status |= 1ull << i;
    else if ((t->conf & ENABLE) && wire(m, i) >= 0)
        m->rises[wire(m, i)]++;
    if ((t->conf & PERIODIC) && t->period != 0)
        t->compare = (t->compare + t->period) & width(t);
    model_levels(m);
}

static void model_tick(struct model *m)
{
    if (!m->run)
        return;
    m->counter++;
    for (unsigned i = 0; i < TIMERS; i++) {
        if ((m->counter & width(&m->timer[i])) == m->timer[i].compare)
            model_match(m, i);
    }
}

/* ---- the chip ---- */

struct fixture {
    struct dev_env env;
    struct device hpet;
    struct model model;
    unsigned rises[IRQ_GSI_COUNT], messages[TIMERS];
    uint64_t seed;
    uint64_t pause; /* ns by which the clock moves on while an interrupt is raised, once */
    bool muted;
};

static void on_gsi(void *ctx, unsigned gsi, bool level)
{
    struct fixture *f = ctx;

    f->rises[gsi] += level && !f->muted;
    if (f->pause != 0) {
        timerq_set_now(f->env.timers, clock_now(&f->env) + f->pause);
        f->pause = 0;
    }
}

static void on_msg(void *ctx, const struct irq_message *msg)
{
    struct fixture *f = ctx;

    f->messages[msg->vector & 7]++;
}

static uint64_t rd(struct fixture *f, unsigned reg)
{
    uint64_t value = 0;

    bus_read(f->env.bus, BUS_READER_OTHER, BUS_MMIO, BASE + reg, 8, &value);
    return value;
}

static void wr(struct fixture *f, unsigned reg, unsigned size, uint64_t value)
{
    bus_write(f->env.bus, BUS_READER_OTHER, BUS_MMIO, BASE + reg, size, value);
}

static void renew(struct fixture *f)
{
    struct state_buf buf = {0};
    size_t pos = 0;

    device_save(&f->hpet, &buf);
    f->muted = true;
    device_destroy(&f->hpet);
    assert_int_equal(device_create(&hpet_ops, &f->env, NULL, &f->hpet, NULL), 0);
    assert_int_equal(device_load(&f->hpet, buf.data, buf.len, &pos, NULL), 0);
    f->muted = false;
    free(buf.data);
}

static void same(struct fixture *f, const char *what, unsigned n, uint64_t got, uint64_t want)
{
    if (got != want)
        fail_msg("seed %#llx: %s %u is %#llx, not %#llx", (unsigned long long)f->seed, what, n,
                 (unsigned long long)got, (unsigned long long)want);
}

static void compare(struct fixture *f)
{
    struct model *m = &f->model;

    same(f, "counter", 0, rd(f, 0xF0), m->counter);
    same(f, "status", 0, rd(f, 0x20), m->status);
    same(f, "configuration", 0, rd(f, 0x10), (uint64_t)m->run | (uint64_t)m->legacy << 1);
    for (unsigned i = 0; i < TIMERS; i++) {
        same(f, "timer configuration", i, rd(f, 0x100 + 32 * i),
             m->timer[i].conf | (i < 4 ? (20ull + i) << 9 : 0) | 0x00F0000000008030);
        same(f, "comparator", i, rd(f, 0x108 + 32 * i), m->timer[i].compare);
        same(f, "messages of", i, f->messages[i], m->messages[i]);
    }
    for (unsigned g = 0; g < IRQ_GSI_COUNT; g++) {
        same(f, "edges of GSI", g, f->rises[g], m->rises[g]);
        same(f, "level of GSI", g, irq_gsi_level(f->env.irqs, g), m->high[g]);
    }
}

/* ---- random programs ---- */

static uint64_t random_state;

static unsigned rnd(unsigned below)
{
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)((random_state >> 33) % below);
}

static void random_conf(struct fixture *f, unsigned i)
{
    struct model_timer *t = &f->model.timer[i];
    uint64_t conf = 0;

    conf |= rnd(2) ? LEVEL : 0;
    conf |= rnd(4) ? ENABLE : 0;
    conf |= rnd(2) ? PERIODIC : 0;
    conf |= rnd(3) == 0 ? BITS_32 : 0;
    conf |= rnd(4) == 0 ? FSB : 0;
    conf |= rnd(2) ? VAL_SET : 0;
    wr(f, 0x100 + 32 * i, 4, conf | (i < 4 ? (20ull + i) << 9 : 0));
    if (!(conf & PERIODIC))
        conf &= ~VAL_SET;
    if (!(conf & LEVEL))
        f->model.status &= ~(1ull << i);
    t->conf = conf;
    t->compare &= width(t);
    t->period &= width(t);
    model_levels(&f->model);
}

/* Periods are no shorter than what the chip keeps apart (10 us). */
static void random_compare(struct fixture *f, unsigned i)
{
    struct model_timer *t = &f->model.timer[i];
    uint64_t value = f->model.counter + 1 + rnd(1500);

    if ((t->conf & PERIODIC) && !(t->conf & VAL_SET))
        value = 101 + rnd(700);
    wr(f, 0x108 + 32 * i, 8, value);
    value &= width(t);
    if (!(t->conf & PERIODIC)) {
        t->compare = value;
        return;
    }
    t->period = value;
    if (t->conf & VAL_SET) {
        /* The period as well: at once replaced, as guests do. */
        t->compare = value;
        t->conf &= ~VAL_SET;
        t->period = 101 + rnd(700);
        wr(f, 0x108 + 32 * i, 8, t->period);
    }
}

static void random_global(struct fixture *f)
{
    struct model *m = &f->model;

    m->run = rnd(4) != 0;
    m->legacy = rnd(3) == 0;
    wr(f, 0x10, 4, (uint64_t)m->run | (uint64_t)m->legacy << 1);
    model_levels(m);
    if (!m->run && rnd(2)) {
        m->counter = (uint64_t)rnd(3) << 32 | (0xFFFFFFFFu - rnd(3000));
        wr(f, 0xF0, 8, m->counter);
    }
}

static void program(struct fixture *f)
{
    struct model *m = &f->model;

    for (unsigned i = 0; i < STEPS; i++) {
        unsigned ticks = rnd(4) ? rnd(20) : rnd(2000);

        switch (rnd(8)) {
        case 0:
            random_conf(f, rnd(TIMERS));
            break;
        case 1:
        case 2:
            random_compare(f, rnd(TIMERS));
            break;
        case 3:
            m->status &= ~0x55ull;
            wr(f, 0x20, 4, 0x55);
            model_levels(m);
            break;
        case 4:
            m->status &= ~0xAAull;
            wr(f, 0x20, 8, 0xAA);
            model_levels(m);
            break;
        case 5:
            if (rnd(4) == 0)
                random_global(f);
            break;
        case 6:
            if (rnd(4) == 0)
                renew(f);
            break;
        default:
            break;
        }
        timerq_step(f->env.timers, (uint64_t)ticks * TICK_NS);
        for (unsigned t = 0; t < ticks; t++)
            model_tick(m);
        if (rnd(3) == 0)
            compare(f);
    }
}

static uint64_t first_seed;

static void test_random(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < TIMERS; i++)
        wr(f, 0x110 + 32 * i, 8, 0xFEE0000000000040 + i);
    for (unsigned round = 0; round < ROUNDS; round++) {
        f->seed = first_seed + round;
        random_state = f->seed * 0x9E3779B97F4A7C15ull;
        for (unsigned i = 0; i < TIMERS; i++) {
            random_conf(f, i);
            random_compare(f, i);
        }
        random_global(f);
        program(f);
    }
}

/* The clock goes on, and the loop has not come to the timers: the guest sees what has matched. */
static void test_before_loop(void **state)
{
    struct fixture *f = *state;

    wr(f, 0x100, 4, 20u << 9 | LEVEL | ENABLE);
    wr(f, 0x108, 8, 50);
    wr(f, 0x120, 4, 21u << 9 | ENABLE);
    wr(f, 0x128, 8, 60);
    wr(f, 0x10, 4, 1);
    timerq_set_now(f->env.timers, 100 * TICK_NS);
    assert_int_equal(rd(f, 0x20), 1);
    assert_true(irq_gsi_level(f->env.irqs, 20));
    assert_int_equal(f->rises[21], 1);
    wr(f, 0x128, 8, 150);
    timerq_set_now(f->env.timers, 200 * TICK_NS);
    wr(f, 0x128, 8, 250); /* the old match is not lost, nor is the new one */
    assert_int_equal(f->rises[21], 2);
    timerq_step(f->env.timers, 100 * TICK_NS);
    assert_int_equal(f->rises[21], 3);
    assert_int_equal(f->rises[20], 1);
}

/* The host stops us amid a match for longer than a period: the next ones still come. */
static void test_paused_in_match(void **state)
{
    struct fixture *f = *state;

    wr(f, 0x100, 4, 20u << 9 | ENABLE | PERIODIC | VAL_SET);
    wr(f, 0x108, 8, 1000);
    wr(f, 0x108, 8, 1000);
    wr(f, 0x10, 4, 1);
    f->pause = 1500 * TICK_NS;
    timerq_set_now(f->env.timers, 1000 * TICK_NS);
    rd(f, 0x20);
    assert_int_equal(f->rises[20], 1);
    timerq_step(f->env.timers, 0);
    assert_int_equal(f->rises[20], 2);
    timerq_step(f->env.timers, 1000 * TICK_NS);
    assert_int_equal(f->rises[20], 3);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    dev_env_init(&f->env, "hpet");
    f->env.timers = timerq_create(true, NULL, NULL);
    f->env.irqs = irq_router_create(NULL);
    f->env.bus = bus_create(NULL);
    irq_set_observer(f->env.irqs, on_gsi, on_msg, f);
    assert_int_equal(device_create(&hpet_ops, &f->env, NULL, &f->hpet, NULL), 0);
    for (unsigned i = 0; i < TIMERS; i++)
        f->model.timer[i].compare = UINT64_MAX;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    device_destroy(&f->hpet);
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
        cmocka_unit_test_setup_teardown(test_before_loop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_paused_in_match, setup, teardown),
    };

    first_seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL) * 1000003u;
    printf("seed %#llx\n", (unsigned long long)first_seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
