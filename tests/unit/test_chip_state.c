/*
 * Saved states come from files: whatever values they hold, a chip that has loaded them must neither
 * crash nor keep the timer queue busy for ever. Fields are damaged at random (the tags are left,
 * bus/state checks those), then the guest pokes the chip and time passes.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "dev/chips.h"

enum { ROUNDS = 400, POKES = 12, FIELD_HEADER = 8 };

struct board {
    struct log *log;
    struct bus *bus;
    struct irq_router *irqs;
    struct timerq *timers;
    struct dev_env env;
    struct device dev;
    uint64_t random;
    unsigned edges;
};

static uint64_t next_random(struct board *b)
{
    b->random ^= b->random << 13;
    b->random ^= b->random >> 7;
    b->random ^= b->random << 17;
    return b->random;
}

static void on_gsi(void *ctx, unsigned gsi, bool level)
{
    struct board *b = ctx;

    (void)gsi;
    b->edges += level;
}

static void board_init(struct board *b, const struct dev_ops *ops)
{
    struct error err = {0};

    memset(b, 0, sizeof(*b));
    b->random = 0x2545f4914f6cdd1d;
    b->bus = bus_create(NULL);
    b->irqs = irq_router_create(NULL);
    b->timers = timerq_create(true, NULL, NULL);
    irq_set_observer(b->irqs, on_gsi, NULL, b);
    dev_env_init(&b->env, ops->name);
    b->env.bus = b->bus;
    b->env.irqs = b->irqs;
    b->env.timers = b->timers;
    b->env.wall_stepped = true;
    b->env.wall_base_ns = 1700000000 * NSEC_PER_SEC;
    assert_int_equal(device_create(ops, &b->env, NULL, &b->dev, &err), 0);
}

static void board_fini(struct board *b)
{
    device_destroy(&b->dev);
    dev_env_fini(&b->env);
    timerq_destroy(b->timers);
    irq_router_destroy(b->irqs);
    bus_destroy(b->bus);
}

/* Some bytes of some fields' values. */
static void damage(struct board *b, struct state_buf *s)
{
    size_t pos = 0;

    while (pos + FIELD_HEADER <= s->len && le16_load(s->data + pos) != 0) {
        size_t len = le32_load(s->data + pos + 4);

        pos += FIELD_HEADER;
        for (size_t i = 0; i < len; i++) {
            if (next_random(b) % 6 == 0)
                s->data[pos + i] = (uint8_t)next_random(b);
            else if (next_random(b) % 12 == 0)
                s->data[pos + i] = next_random(b) & 1 ? 0xff : 0;
        }
        pos += len;
    }
}

static void poke(struct board *b, const struct dev_ops *ops)
{
    uint64_t addr, value, r = next_random(b);
    enum bus_space space = ops->port_count != 0 ? BUS_PIO : BUS_MMIO;
    unsigned size = 1u << (r >> 8) % (space == BUS_PIO ? 3 : 4);

    if (space == BUS_PIO) {
        const struct port_range *p = &ops->ports[r % ops->port_count];

        addr = p->base + (r >> 16) % p->len;
    } else {
        addr = ops->mmio[0].base + ((r >> 16) % 0x220 & ~(uint64_t)(size - 1));
    }
    if (r >> 63)
        bus_read(b->bus, BUS_READER_OTHER, space, addr, size, &value);
    else
        bus_write(b->bus, BUS_READER_OTHER, space, addr, size, next_random(b) & bytes_mask(size));
    irq_pic_ack(b->irqs);
}

static void hostile(const struct dev_ops *ops)
{
    struct error err = {0};
    struct board b;

    board_init(&b, ops);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct state_buf s = {0};
        size_t pos = 0;

        device_save(&b.dev, &s);
        assert_int_equal(s.error, 0);
        damage(&b, &s);
        assert_int_equal(device_load(&b.dev, s.data, s.len, &pos, &err), 0);
        assert_int_equal(pos, s.len);
        free(s.data);
        for (unsigned i = 0; i < POKES; i++) {
            poke(&b, ops);
            b.edges = 0;
            timerq_step(b.timers, next_random(&b) % 1000000);
            assert_true(b.edges < 2000); /* eight comparators at one in 10 us, and some */
        }
        /* Now and then a whole day; the fast ones would take too long. */
        if (round % 50 == 49) {
            device_reset(&b.dev);
            timerq_step(b.timers, 86400 * NSEC_PER_SEC);
        }
    }
    board_fini(&b);
}

static void i8259_hostile(void **state)
{
    (void)state;
    hostile(&i8259_ops);
}

static void i8254_hostile(void **state)
{
    (void)state;
    hostile(&i8254_ops);
}

static void mc146818_hostile(void **state)
{
    (void)state;
    hostile(&mc146818_ops);
}

static void hpet_hostile(void **state)
{
    (void)state;
    hostile(&hpet_ops);
}

static void pmtimer_hostile(void **state)
{
    (void)state;
    hostile(&pmtimer_ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(i8259_hostile),    cmocka_unit_test(i8254_hostile),
        cmocka_unit_test(mc146818_hostile), cmocka_unit_test(hpet_hostile),
        cmocka_unit_test(pmtimer_hostile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
