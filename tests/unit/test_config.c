/* The configuration tree and device options: what is read, and that nothing odd is accepted. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "base/config.h"
#include "bus/device.h"

static void set(struct config *c, const char *key, const char *value)
{
    struct error err = {0};

    assert_int_equal(config_set(c, key, value, &err), 0);
}

static void test_tree(void **state)
{
    struct config *c = config_create();
    const char *name = NULL;
    struct error err = {0};

    (void)state;
    set(c, "pci.0.1.0.device", "virtio-rnd");
    set(c, "pci.0.0.0.device", "hostbridge");
    set(c, "pci.0.1.0.device", "lpc");
    assert_string_equal(config_get(c, "pci.0.1.0.device"), "lpc");
    assert_null(config_get(c, "pci.0.1.0"));
    assert_null(config_get(c, "pci.0.1.0.devic"));
    assert_null(config_get(c, "pci.0.1.0.device.x"));
    assert_null(config_get(c, ""));
    assert_string_equal(config_get(config_find(c, "pci.0"), "0.0.device"), "hostbridge");
    assert_non_null(config_child(config_find(c, "pci.0"), 0, &name));
    assert_string_equal(name, "1");
    assert_non_null(config_child(config_find(c, "pci.0"), 1, &name));
    assert_string_equal(name, "0");
    assert_null(config_child(config_find(c, "pci.0"), 2, &name));
    assert_int_equal(config_set(c, "", "x", &err), -EINVAL);
    assert_int_equal(config_set(c, "a..b", "x", &err), -EINVAL);
    assert_int_equal(config_set(c, ".a", "x", &err), -EINVAL);
    assert_int_equal(config_set(c, "a.", "x", &err), -EINVAL);
    assert_string_equal(err.text, "configuration key 'a.' has an empty part");
    assert_null(config_find(c, "a"));
    config_destroy(c);
    config_destroy(NULL);
}

static void test_numbers(void **state)
{
    static const struct {
        const char *text;
        int rc;
        uint64_t value;
    } sizes[] = {
        {"0", 0, 0},
        {"512", 0, 512},
        {"1k", 0, 1024},
        {"2M", 0, 2u << 20},
        {"1g", 0, 1u << 30},
        {"1T", 0, 1ull << 40},
        {"0x10m", 0, 16u << 20},
        {"010", 0, 10},
        {"18446744073709551615", 0, UINT64_MAX},
        {"18446744073709551616", -ERANGE, 0},
        {"16777216t", -ERANGE, 0},
        {"99999999999999999999999", -ERANGE, 0},
        {"", -EINVAL, 0},
        {"m", -EINVAL, 0},
        {"1P", -EINVAL, 0},
        {"12Q", -EINVAL, 0},
        {"1mb", -EINVAL, 0},
        {"-1", -EINVAL, 0},
        {"+1", -EINVAL, 0},
        {" 1", -EINVAL, 0},
        {"1 ", -EINVAL, 0},
        {"0x", -EINVAL, 0},
        {"1.5g", -EINVAL, 0},
    };

    (void)state;
    for (size_t i = 0; i < countof(sizes); i++) {
        uint64_t v = 0;

        assert_int_equal(parse_size(sizes[i].text, &v), sizes[i].rc);
        assert_true(v == sizes[i].value);
    }
    for (size_t i = 0; i < 2; i++) {
        uint64_t v = 7;

        assert_int_equal(parse_u64(i == 0 ? "1k" : "12x", &v), -EINVAL);
        assert_true(v == 7);
    }
}

static void test_typed(void **state)
{
    struct config *c = config_create();
    struct error err = {0};
    uint64_t n = 0;
    bool b = false;

    (void)state;
    set(c, "x86.mptable", "Yes");
    assert_int_equal(config_bool(c, "x86.mptable", false, &b, &err), 0);
    assert_true(b);
    set(c, "x86.mptable", "off");
    assert_int_equal(config_bool(c, "x86.mptable", true, &b, &err), 0);
    assert_false(b);
    assert_int_equal(config_bool(c, "unset", true, &b, &err), 0);
    assert_true(b);
    set(c, "x86.mptable", "maybe");
    assert_int_equal(config_bool(config_find(c, "x86"), "mptable", true, &b, &err), -EINVAL);
    assert_string_equal(err.text, "x86.mptable: 'maybe' is not true or false");
    set(c, "cpus", "0x10");
    assert_int_equal(config_u64(c, "cpus", 1, &n, &err), 0);
    assert_true(n == 16);
    assert_int_equal(config_u64(c, "sockets", 3, &n, &err), 0);
    assert_true(n == 3);
    set(c, "cpus", "4x");
    assert_int_equal(config_u64(c, "cpus", 1, &n, &err), -EINVAL);
    assert_string_equal(err.text, "cpus: '4x' is not a number");
    set(c, "memory.size", "3g");
    assert_int_equal(config_size(c, "memory.size", 1, &n, &err), 0);
    assert_true(n == 3ull << 30);
    config_destroy(c);
}

static void test_expand(void **state)
{
    struct config *c = config_create();
    struct error err = {0};
    char *text;

    (void)state;
    set(c, "name", "web");
    set(c, "dir", "/vm/%(name)");
    text = config_expand(c, "%(dir)/%(name).img 100% (x)", &err);
    assert_string_equal(text, "/vm/web/web.img 100% (x)");
    free(text);
    text = config_expand(c, "", &err);
    assert_string_equal(text, "");
    free(text);
    set(c, "a", "%(b)");
    set(c, "b", "x%(a)");
    assert_null(config_expand(c, "%(a)", &err));
    assert_string_equal(err.text, "configuration key 'a' refers to itself");
    assert_null(config_expand(c, "%(none)", &err));
    assert_string_equal(err.text, "%(none) names a configuration key that is not set");
    assert_null(config_expand(c, "%(name", &err));
    assert_string_equal(err.text, "'%(name' has no closing parenthesis");
    config_destroy(c);
}

/* Each key holds the next one twice: 2^30 characters, if nobody stops it. */
static void test_expand_bomb(void **state)
{
    struct config *c = config_create();
    struct error err = {0};

    (void)state;
    for (unsigned i = 0; i < 30; i++) {
        char key[16], value[32];

        snprintf(key, sizeof(key), "k%u", i);
        snprintf(value, sizeof(value), "%%(k%u)%%(k%u)", i + 1, i + 1);
        set(c, key, value);
    }
    set(c, "k30", "x");
    assert_null(config_expand(c, "%(k0)", &err));
    assert_string_equal(err.text, "a value expands to more than 1048576 characters");
    config_destroy(c);
}

static void test_dump(void **state)
{
    struct config *c = config_create();
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    (void)state;
    set(c, "name", "vm");
    set(c, "b.b", "2");
    set(c, "b.a", "1=1");
    set(c, "cpus", "1");
    config_dump(c, f);
    fclose(f);
    assert_string_equal(text, "b.a=1=1\nb.b=2\ncpus=1\nname=vm\n");
    free(text);
    config_destroy(c);
}

static void test_nearest(void **state)
{
    static const char *const names[] = {"hostbridge", "lpc", "uart", "virtio-rnd", "virtio-blk"};

    (void)state;
    assert_string_equal(nearest_name("virtio-rng", names, countof(names)), "virtio-rnd");
    assert_string_equal(nearest_name("virtoi-blk", names, countof(names)), "virtio-blk");
    assert_string_equal(nearest_name("LPC", names, countof(names)), "lpc");
    assert_string_equal(nearest_name("hostbrige", names, countof(names)), "hostbridge");
    assert_null(nearest_name("e1000", names, countof(names)));
    assert_null(nearest_name("", names, countof(names)));
    assert_null(nearest_name("virtio-virtio-virtio-virtio-virtio-virtio-virtio-virtio", names,
                             countof(names)));
}

static const struct dev_option table[] = {
    {"path", OPT_STRING, "PATH", "the file", .positional = true},
    {"ro", OPT_BOOL, NULL, "read-only", false},
    {"w", OPT_U64, "PIXELS", "width", false},
    {"size", OPT_SIZE, "BYTES", "size", false},
};

static void parse_fails(const char *text, const char *sentence)
{
    struct config *c = config_create();
    struct error err = {0};

    assert_int_equal(options_parse(c, table, countof(table), text, "dev", &err), -EINVAL);
    assert_string_equal(err.text, sentence);
    config_destroy(c);
}

static void test_options(void **state)
{
    static const char *const ignore[] = {"device", NULL};
    struct config *c = config_create();
    struct options o = {.node = c, .table = table, .count = countof(table)};
    struct options none = {0};
    struct error err = {0};

    (void)state;
    assert_int_equal(
        options_parse(c, table, countof(table), "tcp=:80,ro,w=0x20,size=4k", "dev", &err), 0);
    assert_string_equal(opt_string(&o, "path", NULL), "tcp=:80");
    assert_true(opt_bool(&o, "ro", false));
    assert_true(opt_u64(&o, "w", 0) == 32);
    assert_true(opt_u64(&o, "size", 0) == 4096);
    assert_string_equal(opt_string(&none, "path", "d"), "d");
    assert_true(opt_bool(NULL, "ro", true));
    assert_true(opt_u64(&none, "w", 5) == 5);
    set(c, "device", "dev");
    assert_int_equal(options_check(c, table, countof(table), ignore, "dev", &err), 0);
    assert_int_equal(options_check(NULL, table, countof(table), ignore, "dev", &err), 0);
    assert_int_equal(options_check(c, table, countof(table), NULL, "dev", &err), -EINVAL);
    set(c, "w", "1e3");
    assert_int_equal(options_check(c, table, countof(table), ignore, "dev", &err), -EINVAL);
    assert_string_equal(err.text, "dev: w: '1e3' is not a number");
    assert_int_equal(options_parse(c, table, countof(table), "", "dev", &err), 0);
    assert_int_equal(options_parse(c, NULL, 0, "x", "dev", &err), -EINVAL);
    assert_string_equal(err.text, "dev: unknown option 'x'; it takes no options");
    config_destroy(c);

    parse_fails("p,sise=1", "dev: unknown option 'sise'; did you mean 'size'?");
    parse_fails("p,colour", "dev: unknown option 'colour'; known: path, ro, w, size");
    parse_fails("p,,ro", "dev: empty option between commas");
    parse_fails("p,", "dev: empty option between commas");
    parse_fails("p,w", "dev: option 'w' needs a value (w=PIXELS)");
    parse_fails("p,w=1,w=2", "dev: option 'w' is given twice");
    parse_fails("p,path=q", "dev: option 'path' is given twice");
    parse_fails("p,w=12x", "dev: w: '12x' is not a number");
    parse_fails("p,ro=maybe", "dev: ro: 'maybe' is not true or false");
    parse_fails("path=", "dev: option 'path' is empty");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree),        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_typed),       cmocka_unit_test(test_expand),
        cmocka_unit_test(test_expand_bomb), cmocka_unit_test(test_dump),
        cmocka_unit_test(test_nearest),     cmocka_unit_test(test_options),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
