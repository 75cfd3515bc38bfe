/* Files of fw_cfg: the directory as firmware reads it, their bytes, and what is refused. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "dev/chips.h"
#include "dev/fwcfg.h"

struct fixture {
    struct bus *bus;
    struct timerq *timers;
    struct dev_env env;
    struct device dev;
};

static void setup(struct fixture *f)
{
    struct error err = {0};

    memset(f, 0, sizeof(*f));
    f->bus = bus_create(NULL);
    f->timers = timerq_create(true, NULL, NULL);
    dev_env_init(&f->env, "fwcfg");
    f->env.bus = f->bus;
    f->env.timers = f->timers;
    assert_int_equal(device_create(&fwcfg_ops, &f->env, NULL, &f->dev, &err), 0);
}

static void teardown(struct fixture *f)
{
    device_destroy(&f->dev);
    dev_env_fini(&f->env);
    timerq_destroy(f->timers);
    bus_destroy(f->bus);
}

static void read_item(struct fixture *f, uint16_t key, uint8_t *to, size_t len)
{
    uint64_t byte;

    bus_write(f->bus, 0, BUS_PIO, 0x510, 2, key);
    for (size_t i = 0; i < len; i++) {
        bus_read(f->bus, 0, BUS_PIO, 0x511, 1, &byte);
        to[i] = (uint8_t)byte;
    }
}

static void test_files(void **state)
{
    uint8_t dir[4 + 3 * 64], data[8];
    struct error err = {0};
    struct fixture f;

    (void)state;
    setup(&f);
    assert_int_equal(fwcfg_add_file(&f.dev, "etc/one", "abc", 3, &err), 0);
    assert_int_equal(fwcfg_add_file(&f.dev, "etc/none", "", 0, &err), 0);
    read_item(&f, 0x19, dir, sizeof(dir));
    assert_int_equal(be32_load(dir), 2);
    assert_int_equal(be32_load(dir + 4), 3);
    assert_int_equal(be16_load(dir + 8), 0x20);
    assert_string_equal((char *)dir + 12, "etc/one");
    assert_int_equal(be32_load(dir + 68), 0);
    assert_int_equal(be16_load(dir + 72), 0x21);
    assert_string_equal((char *)dir + 76, "etc/none");
    for (size_t i = 4 + 2 * 64; i < sizeof(dir); i++)
        assert_int_equal(dir[i], 0);
    read_item(&f, 0x20, data, 5);
    assert_memory_equal(data, "abc\0\0", 5);
    read_item(&f, 0x21, data, 1);
    assert_int_equal(data[0], 0);
    teardown(&f);
}

static void test_refused(void **state)
{
    char name[FWCFG_NAME_SIZE + 1];
    struct error err = {0};
    struct fixture f;

    (void)state;
    setup(&f);
    memset(name, 'x', sizeof(name));
    name[FWCFG_NAME_SIZE] = '\0';
    assert_int_equal(fwcfg_add_file(&f.dev, name, "", 0, &err), -EINVAL);
    name[FWCFG_NAME_SIZE - 1] = '\0';
    assert_int_equal(fwcfg_add_file(&f.dev, name, "", 0, &err), 0);
    assert_int_equal(fwcfg_add_file(&f.dev, name, "", 0, &err), -EINVAL);
    assert_int_equal(fwcfg_add_file(&f.dev, "", "", 0, &err), -EINVAL);
    for (unsigned i = 1; i < FWCFG_FILES; i++) {
        snprintf(name, sizeof(name), "file%u", i);
        assert_int_equal(fwcfg_add_file(&f.dev, name, "", 0, &err), 0);
    }
    assert_int_equal(fwcfg_add_file(&f.dev, "more", "", 0, &err), -ENOSPC);
    teardown(&f);
}

/* A snapshot that says how much was read already may say anything. */
static void test_hostile_state(void **state)
{
    struct state_buf saved = {0};
    struct error err = {0};
    struct fixture f;
    uint64_t byte;

    (void)state;
    setup(&f);
    device_save(&f.dev, &saved);
    for (size_t i = 0; i + 8 < saved.len; i++) {
        if (le16_load(saved.data + i) == 2 && le32_load(saved.data + i + 4) == 4)
            le32_store(saved.data + i + 8, UINT32_MAX);
    }
    for (size_t pos = 0; pos < saved.len;)
        assert_int_equal(device_load(&f.dev, saved.data, saved.len, &pos, &err), 0);
    bus_read(f.bus, 0, BUS_PIO, 0x511, 1, &byte);
    assert_int_equal(byte, 0);
    free(saved.data);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_hostile_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
