/* Keyboard and mouse input, which no port can cause; the ACPI power button likewise. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/bits.h"
#include "dev/chips.h"
#include "dev/i8042.h"

struct fixture {
    struct dev_env env;
    struct device dev;
    unsigned events[DEV_EVENT_EXIT + 1];
    uint64_t arg;
};

static void on_event(void *ctx, enum dev_event event, uint64_t arg)
{
    struct fixture *f = ctx;

    f->events[event]++;
    f->arg = arg;
}

static int setup_of(void **state, const struct dev_ops *ops)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    dev_env_init(&f->env, ops->name);
    f->env.timers = timerq_create(true, NULL, NULL);
    f->env.irqs = irq_router_create(NULL);
    f->env.bus = bus_create(NULL);
    f->env.event = on_event;
    f->env.event_ctx = f;
    assert_int_equal(device_create(ops, &f->env, NULL, &f->dev, NULL), 0);
    *state = f;
    return 0;
}

static int setup_i8042(void **state)
{
    return setup_of(state, &i8042_ops);
}

static int setup_acpipm(void **state)
{
    return setup_of(state, &acpipm_ops);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    device_destroy(&f->dev);
    bus_destroy(f->env.bus);
    irq_router_destroy(f->env.irqs);
    timerq_destroy(f->env.timers);
    dev_env_fini(&f->env);
    free(f);
    return 0;
}

static unsigned in(struct fixture *f, uint16_t port, unsigned size)
{
    uint64_t v = 0;

    bus_read(f->env.bus, BUS_READER_OTHER, BUS_PIO, port, size, &v);
    return (unsigned)v;
}

static void out(struct fixture *f, uint16_t port, unsigned size, unsigned value)
{
    bus_write(f->env.bus, BUS_READER_OTHER, BUS_PIO, port, size, value);
}

static void expect_bytes(struct fixture *f, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(in(f, 0x64, 1) & 1, 1);
        assert_int_equal(in(f, 0x60, 1), bytes[i]);
    }
    assert_int_equal(in(f, 0x64, 1) & 1, 0);
}

#define EXPECT(f, ...)                                                                             \
    do {                                                                                           \
        const uint8_t bytes_[] = {__VA_ARGS__};                                                    \
        expect_bytes(f, bytes_, sizeof(bytes_));                                                   \
    } while (0)

static void mouse(struct fixture *f, unsigned byte)
{
    out(f, 0x64, 1, 0xD4);
    out(f, 0x60, 1, byte);
}

static void reload(struct fixture *f)
{
    struct state_buf buf = {0};
    size_t pos = 0;

    device_save(&f->dev, &buf);
    device_reset(&f->dev);
    assert_int_equal(device_load(&f->dev, buf.data, buf.len, &pos, NULL), 0);
    assert_int_equal(pos, buf.len);
    free(buf.data);
}

static void test_keys(void **state)
{
    struct fixture *f = *state;

    i8042_key(&f->dev, 0x1E, true); /* translated: set 1 */
    assert_true(irq_gsi_level(f->env.irqs, 1));
    assert_int_equal(in(f, 0x64, 1), 0x15);
    reload(f);
    assert_true(irq_gsi_level(f->env.irqs, 1));
    EXPECT(f, 0x1E);
    assert_false(irq_gsi_level(f->env.irqs, 1));
    i8042_key(&f->dev, 0x1E, false);
    i8042_key(&f->dev, I8042_KEY_EXTENDED | 0x48, true);
    reload(f);
    i8042_key(&f->dev, I8042_KEY_EXTENDED | 0x48, false);
    EXPECT(f, 0x9E, 0xE0, 0x48, 0xE0, 0xC8);
    i8042_key(&f->dev, 0x41, true); /* F7: 0x83 in set 2 */
    i8042_key(&f->dev, I8042_KEY_PAUSE, true);
    i8042_key(&f->dev, I8042_KEY_PAUSE, false);
    EXPECT(f, 0x41, 0xE1, 0x1D, 0x45, 0xE1, 0x9D, 0xC5);

    out(f, 0x64, 1, 0x60); /* translation off */
    out(f, 0x60, 1, 0x05);
    i8042_key(&f->dev, 0x1E, true);
    i8042_key(&f->dev, 0x1E, false);
    i8042_key(&f->dev, 0x41, true);
    EXPECT(f, 0x1C, 0xF0, 0x1C, 0x83);
    out(f, 0x60, 1, 0xF0); /* set 1 from the keyboard itself */
    out(f, 0x60, 1, 0x01);
    i8042_key(&f->dev, I8042_KEY_EXTENDED | 0x48, false);
    EXPECT(f, 0xFA, 0xFA, 0xE0, 0xC8);
    out(f, 0x60, 1, 0xF5); /* off */
    i8042_key(&f->dev, 0x1E, true);
    EXPECT(f, 0xFA);
    out(f, 0x60, 1, 0xF4);
    EXPECT(f, 0xFA);
    for (unsigned i = 0; i < 1000; i++) /* an overrun drops keys, replies still fit */
        i8042_key(&f->dev, 0x1E, true);
    out(f, 0x60, 1, 0xF2);
    for (unsigned i = 0; in(f, 0x60, 1) != 0xFA; i++)
        assert_in_range(i, 0, 64);
    EXPECT(f, 0xAB, 0x83);
}

static void test_every_key_translates_back(void **state)
{
    struct fixture *f = *state;

    for (unsigned code = 1; code <= 0x58; code++) {
        i8042_key(&f->dev, code, true);
        assert_int_equal(in(f, 0x60, 1), code);
        i8042_key(&f->dev, code, false);
        assert_int_equal(in(f, 0x60, 1), code | 0x80);
    }
}

static void test_mouse_moves(void **state)
{
    struct fixture *f = *state;

    i8042_mouse(&f->dev, 5, 5, 0, 0); /* not enabled: nothing */
    out(f, 0x64, 1, 0xA8);
    out(f, 0x64, 1, 0x60);
    out(f, 0x60, 1, 0x47);
    mouse(f, 0xF4);
    assert_true(irq_gsi_level(f->env.irqs, 12));
    assert_int_equal(in(f, 0x64, 1) & 0x21, 0x21);
    EXPECT(f, 0xFA);
    assert_false(irq_gsi_level(f->env.irqs, 12));
    i8042_mouse(&f->dev, 3, 2, 0, 1); /* right, down, left button */
    reload(f);
    EXPECT(f, 0x29, 3, 0xFE);
    i8042_mouse(&f->dev, -300, 0, 0, 0);
    EXPECT(f, 0x18, 0x01, 0, 0x18, 0xD3, 0);
    mouse(f, 0xF3); /* the knock: wheel */
    EXPECT(f, 0xFA);
    mouse(f, 200);
    mouse(f, 0xF3);
    mouse(f, 100);
    mouse(f, 0xF3);
    mouse(f, 80);
    while (in(f, 0x64, 1) & 1)
        in(f, 0x60, 1);
    mouse(f, 0xF2);
    EXPECT(f, 0xFA, 3);
    i8042_mouse(&f->dev, 0, 0, 1, 0);
    EXPECT(f, 0x08, 0, 0, 0xFF);
    mouse(f, 0xF0); /* remote: only when asked */
    EXPECT(f, 0xFA);
    i8042_mouse(&f->dev, 1, 0, 0, 2);
    assert_int_equal(in(f, 0x64, 1) & 1, 0);
    mouse(f, 0xE9);
    EXPECT(f, 0xFA, 0x61, 2, 80);
    mouse(f, 0xEB);
    EXPECT(f, 0xFA, 0x0A, 1, 0, 0);
    mouse(f, 0xEA);
    EXPECT(f, 0xFA);
    for (unsigned i = 0; i < 100000; i++) /* never read: gathers, bounded */
        i8042_mouse(&f->dev, INT32_MAX, INT32_MIN, INT32_MAX, 7);
    mouse(f, 0xFF);
    while ((in(f, 0x64, 1) & 1) != 0 && in(f, 0x60, 1) != 0xFA)
        ;
    EXPECT(f, 0xAA, 0);
}

/* A reply of the controller overtakes a byte of a device without losing it. */
static void test_reply_keeps_key(void **state)
{
    struct fixture *f = *state;

    i8042_key(&f->dev, 0x1E, true);
    i8042_key(&f->dev, 0x1E, false);
    out(f, 0x64, 1, 0x20);
    assert_int_equal(in(f, 0x60, 1), 0x65);
    EXPECT(f, 0x1E, 0x9E);
}

static void test_hostile_state(void **state)
{
    struct fixture *f = *state;
    struct state_buf buf = {0};

    device_save(&f->dev, &buf);
    for (size_t i = 0; i < buf.len; i++) {
        size_t pos = 0;
        uint8_t before = buf.data[i];

        buf.data[i] = 0xFF;
        device_load(&f->dev, buf.data, buf.len, &pos, NULL);
        buf.data[i] = before;
        i8042_key(&f->dev, 0x1E, true);
        i8042_mouse(&f->dev, 1, 1, 1, 7);
        out(f, 0x60, 1, 0xF2);
        mouse(f, 0xE9);
        for (unsigned n = 0; n < 8; n++)
            in(f, 0x60, 1);
    }
    free(buf.data);
}

static void test_power_button(void **state)
{
    struct fixture *f = *state;

    assert_false(acpipm_enabled(&f->dev));
    acpipm_power_button(&f->dev);
    assert_int_equal(in(f, 0x400, 2), 0x100);
    assert_false(irq_gsi_level(f->env.irqs, 9));
    out(f, 0xB2, 1, 0xA0);
    assert_int_equal(in(f, 0x404, 2), 1);
    assert_false(acpipm_enabled(&f->dev));
    out(f, 0x402, 2, 0x100);
    assert_true(acpipm_enabled(&f->dev));
    assert_true(irq_gsi_level(f->env.irqs, 9));
    reload(f);
    assert_true(irq_gsi_level(f->env.irqs, 9));
    out(f, 0x400, 2, 0x100);
    assert_false(irq_gsi_level(f->env.irqs, 9));
    acpipm_power_button(&f->dev);
    assert_true(irq_gsi_level(f->env.irqs, 9));
    out(f, 0x404, 2, 0x3401); /* S5 */
    assert_int_equal(f->events[DEV_EVENT_POWEROFF], 1);
    assert_int_equal(in(f, 0x404, 2), 0x1401);
    device_reset(&f->dev);
    assert_false(irq_gsi_level(f->env.irqs, 9));
    assert_false(acpipm_enabled(&f->dev));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_keys, setup_i8042, teardown),
        cmocka_unit_test_setup_teardown(test_every_key_translates_back, setup_i8042, teardown),
        cmocka_unit_test_setup_teardown(test_mouse_moves, setup_i8042, teardown),
        cmocka_unit_test_setup_teardown(test_reply_keeps_key, setup_i8042, teardown),
        cmocka_unit_test_setup_teardown(test_hostile_state, setup_i8042, teardown),
        cmocka_unit_test_setup_teardown(test_power_button, setup_acpipm, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
