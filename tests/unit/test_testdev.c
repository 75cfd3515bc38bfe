/* The test device's flush: what is cached of the page is forgotten, and only that; contents stay.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

#include "dev/chips.h"
#include "mem/gmem.h"

struct seen {
    unsigned count;
    uint64_t page;
};

static void on_written(void *ctx, uint64_t page, uint32_t who)
{
    struct seen *s = ctx;

    assert_int_equal(who, 1);
    s->count++;
    s->page = page;
}

static void test_flush(void **state)
{
    struct error err = {0};
    struct seen seen = {0};
    struct device dev;
    struct dev_env env;

    (void)state;
    dev_env_init(&env, "pc-testdev");
    env.mem = gmem_create(16 * MIB, &err);
    env.bus = bus_create(NULL);
    env.irqs = irq_router_create(NULL);
    env.timers = timerq_create(true, NULL, NULL);
    assert_int_equal(device_create(&testdev_ops, &env, NULL, &dev, &err), 0);
    assert_int_equal(gmem_fill(env.mem, 0x5000, 0x5A, GMEM_PAGE), 0);
    gmem_set_code_hook(env.mem, on_written, &seen);
    gmem_mark_code(env.mem, 0x4000, 1);
    gmem_mark_code(env.mem, 0x5000, 1);
    gmem_mark_code(env.mem, 0x6000, 1);

    bus_write(env.bus, 0, BUS_PIO, 0xE4, 4, 0x5ABC);
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.page, 0x5000);
    assert_int_equal(gmem_read32(env.mem, 0x5000), 0x5A5A5A5A);
    bus_write(env.bus, 0, BUS_PIO, 0xE4, 4, 0xFFFFFFFF); /* no memory there */
    assert_int_equal(seen.count, 1);

    device_destroy(&dev);
    timerq_destroy(env.timers);
    irq_router_destroy(env.irqs);
    bus_destroy(env.bus);
    gmem_destroy(env.mem);
    dev_env_fini(&env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_flush)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
