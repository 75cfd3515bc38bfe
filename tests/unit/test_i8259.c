/*
 * The two interrupt controllers beside a model of the 8259A's priority resolver, one input at a
 * time as the data sheet tells it: random lines, all commands, initialisations in all modes, INTA
 * cycles and polls, and save and load in between.
 *
 *     test_i8259 [SEED]
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/bits.h"
#include "dev/chips.h"

#define ROUNDS 400u
#define STEPS 400u

/* ---- the model ---- */

struct chip {
    bool line[8], latch[8], service[8], mask[8], level[8];
    bool aeoi, nested, special_mask, rotate, read_isr, poll, ready;
    unsigned lowest, base;
};

struct model {
    struct chip chip[2]; /* master, slave */
};

static bool requests(const struct chip *c, unsigned pin)
{
    return c->level[pin] ? c->line[pin] : c->latch[pin];
}

/* From the highest priority to the lowest; -1: INT stays low. */
static int resolve(const struct chip *c, bool master)
{
    for (unsigned k = 1; k <= 8 && c->ready; k++) {
        unsigned pin = (c->lowest + k) % 8;
        bool request = requests(c, pin) && !c->mask[pin];

        if (c->service[pin] && !(c->special_mask && c->mask[pin]))
            return master && c->nested && pin == 2 && request ? (int)pin : -1;
        if (request)
            return (int)pin;
    }
    return -1;
}

static void drive(struct chip *c, unsigned pin, bool high)
{
    if (high && !c->line[pin] && !c->level[pin])
        c->latch[pin] = true;
    c->line[pin] = high;
}

static void settle(struct model *m)
{
    drive(&m->chip[0], 2, resolve(&m->chip[1], false) >= 0);
}

/* An INTA cycle of one chip: its input, -1 for a spurious one. */
static int acknowledge(struct model *m, unsigned which)
{
    struct chip *c = &m->chip[which];
    int pin = resolve(c, which == 0);

    if (pin >= 0) {
        c->latch[pin] = false;
        if (!c->aeoi)
            c->service[pin] = true;
        else if (c->rotate)
            c->lowest = (unsigned)pin;
    }
    if (which == 1)
        drive(&m->chip[0], 2, false); /* the slave's INT falls with it */
    return pin;
}

static unsigned model_inta(struct model *m)
{
    int pin = acknowledge(m, 0);
    unsigned which = pin == 2;

    if (which)
        pin = acknowledge(m, 1);
    settle(m);
    return m->chip[which].base + (pin < 0 ? 7 : (unsigned)pin);
}

static void model_ocw2(struct chip *c, uint8_t value)
{
    unsigned pin = value & 7;
    bool specific = value & 0x40, eoi = value & 0x20, rotate = value & 0x80;

    if (!eoi && !specific) {
        c->rotate = rotate;
        return;
    }
    if (!eoi) {
        if (rotate)
            c->lowest = pin;
        return;
    }
    if (!specific) { /* the one of the highest priority that may be seen */
        unsigned k = 1;

        for (; k <= 8; k++) {
            pin = (c->lowest + k) % 8;
            if (c->service[pin] && !(c->special_mask && c->mask[pin]))
                break;
        }
        if (k > 8)
            return;
    }
    c->service[pin] = false;
    if (rotate)
        c->lowest = pin;
}

static void model_init(struct chip *c, uint8_t base, bool aeoi, bool nested)
{
    memset(c->latch, 0, sizeof(c->latch));
    memset(c->service, 0, sizeof(c->service));
    memset(c->mask, 0, sizeof(c->mask));
    c->special_mask = c->rotate = c->read_isr = c->poll = false;
    c->lowest = 7;
    c->base = base & 0xF8;
    c->aeoi = aeoi;
    c->nested = nested;
    c->ready = true;
}

static uint8_t pack(const bool bits[8])
{
    uint8_t value = 0;

    for (unsigned i = 0; i < 8; i++)
        value |= (uint8_t)(bits[i] << i);
    return value;
}

static uint8_t model_read(struct model *m, unsigned which, unsigned offset)
{
    struct chip *c = &m->chip[which];
    bool request[8];

    if (c->poll) {
        int pin = acknowledge(m, which);

        c->poll = false;
        settle(m);
        return pin < 0 ? 0 : (uint8_t)(0x80 | pin);
    }
    if (offset == 1)
        return pack(c->mask);
    for (unsigned i = 0; i < 8; i++)
        request[i] = requests(c, i);
    return pack(c->read_isr ? c->service : request);
}

/* ---- the chip ---- */

struct fixture {
    struct dev_env env;
    struct device pic;
    struct irq_line *line[16];
    struct model model;
    uint64_t seed;
};

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

static void same(struct fixture *f, const char *what, unsigned n, unsigned got, unsigned want)
{
    if (got != want)
        fail_msg("seed %#llx: %s %u is %#x, not %#x", (unsigned long long)f->seed, what, n, got,
                 want);
}

static void renew(struct fixture *f)
{
    struct state_buf buf = {0};
    size_t pos = 0;

    device_save(&f->pic, &buf);
    device_destroy(&f->pic);
    assert_int_equal(device_create(&i8259_ops, &f->env, NULL, &f->pic, NULL), 0);
    assert_int_equal(device_load(&f->pic, buf.data, buf.len, &pos, NULL), 0);
    free(buf.data);
}

/* ---- random programs ---- */

static uint64_t random_state;

static unsigned rnd(unsigned below)
{
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)((random_state >> 33) % below);
}

static const uint16_t port[2] = {0x20, 0xA0};

static void initialise(struct fixture *f, unsigned which)
{
    struct chip *c = &f->model.chip[which];
    uint8_t base = (uint8_t)rnd(256), icw4 = (uint8_t)(1 | (rnd(3) == 0) << 1 | (rnd(3) == 0) << 4);

    out(f, port[which], 0x11);
    c->ready = false; /* no INT before the sequence is complete; the slave's falls at once */
    memset(c->latch, 0, sizeof(c->latch));
    settle(&f->model);
    out(f, (uint16_t)(port[which] + 1), base);
    out(f, (uint16_t)(port[which] + 1), which == 0 ? 4 : 2);
    out(f, (uint16_t)(port[which] + 1), icw4);
    model_init(c, base, icw4 & 2, icw4 & 16);
    settle(&f->model);
}

static void command(struct fixture *f, unsigned which)
{
    struct chip *c = &f->model.chip[which];
    uint8_t value = (uint8_t)rnd(256);

    if (rnd(2)) {
        value &= 0xE7; /* OCW2 */
        out(f, port[which], value);
        model_ocw2(c, value);
    } else {
        value = (value & 0xE7) | 8; /* OCW3 */
        value &= 0x7F;
        out(f, port[which], value);
        if (value & 0x40)
            c->special_mask = value & 0x20;
        c->poll = value & 4;
        if (!c->poll && (value & 2))
            c->read_isr = value & 1;
    }
    settle(&f->model);
}

static void set_mask(struct fixture *f, unsigned which)
{
    uint8_t value = (uint8_t)(rnd(256) & rnd(256));

    out(f, (uint16_t)(port[which] + 1), value);
    for (unsigned i = 0; i < 8; i++)
        f->model.chip[which].mask[i] = value >> i & 1;
    settle(&f->model);
}

static void set_levels(struct fixture *f, unsigned which)
{
    static const uint8_t can[2] = {0xF8, 0xDE};
    uint8_t value = (uint8_t)(rnd(256) & rnd(256) & can[which]);
    struct chip *c = &f->model.chip[which];

    out(f, (uint16_t)(0x4D0 + which), value);
    for (unsigned i = 0; i < 8; i++) {
        if (c->level[i] != (value >> i & 1))
            c->latch[i] = false;
        c->level[i] = value >> i & 1;
    }
    settle(&f->model);
}

static void set_line(struct fixture *f)
{
    unsigned pin = rnd(16);
    bool high = rnd(2);

    if (pin == 2)
        return;
    irq_set(f->line[pin], high);
    drive(&f->model.chip[pin / 8], pin % 8, high);
    settle(&f->model);
}

static void step(struct fixture *f)
{
    unsigned which = rnd(2), offset;

    switch (rnd(16)) {
    case 0:
    case 1:
    case 2:
    case 3:
        set_line(f);
        break;
    case 4:
    case 5:
    case 6:
        if (irq_pic_pending(f->env.irqs) || rnd(8) == 0) {
            unsigned vector = irq_pic_ack(f->env.irqs);

            same(f, "vector", 0, vector, model_inta(&f->model));
        }
        break;
    case 7:
    case 8:
        out(f, port[which], 0x20);
        model_ocw2(&f->model.chip[which], 0x20);
        settle(&f->model);
        break;
    case 9:
        command(f, which);
        break;
    case 10:
        set_mask(f, which);
        break;
    case 11:
        if (rnd(4) == 0)
            set_levels(f, which);
        break;
    case 12:
        if (rnd(20) == 0)
            initialise(f, which);
        break;
    case 13:
        if (rnd(10) == 0)
            renew(f);
        break;
    default:
        offset = rnd(2);
        same(f, offset ? "mask or poll of" : "IRR, ISR or poll of", which,
             in(f, (uint16_t)(port[which] + offset)), model_read(&f->model, which, offset));
        break;
    }
    same(f, "INT", 0, irq_pic_pending(f->env.irqs), resolve(&f->model.chip[0], true) >= 0);
}

static uint64_t first_seed;

static void test_random(void **state)
{
    struct fixture *f = *state;

    for (unsigned round = 0; round < ROUNDS; round++) {
        f->seed = first_seed + round;
        random_state = f->seed * 0x9E3779B97F4A7C15ull;
        initialise(f, 0);
        initialise(f, 1);
        for (unsigned i = 0; i < STEPS; i++)
            step(f);
    }
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    dev_env_init(&f->env, "i8259");
    f->env.timers = timerq_create(true, NULL, NULL);
    f->env.irqs = irq_router_create(NULL);
    f->env.bus = bus_create(NULL);
    assert_int_equal(device_create(&i8259_ops, &f->env, NULL, &f->pic, NULL), 0);
    for (unsigned i = 0; i < 16; i++)
        f->line[i] = irq_line_create(f->env.irqs, i);
    f->model.chip[0].lowest = f->model.chip[1].lowest = 7;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 16; i++)
        irq_line_free(f->line[i]);
    device_destroy(&f->pic);
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
    };

    first_seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL) * 1000003u;
    printf("seed %#llx\n", (unsigned long long)first_seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
