/* Saved fields: what was saved comes back, and what a snapshot may not say is refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bus/state.h"
#include "bus/timer.h"

struct thing {
    uint32_t number;
    bool flag, flags[3];
    uint8_t byte;
};

static const struct state_field fields[] = {
    STATE_FIELD(1, struct thing, number),
    STATE_FIELD(2, struct thing, flag),
    STATE_FIELD(3, struct thing, flags),
    STATE_FIELD(4, struct thing, byte),
};
#define FIELDS (sizeof(fields) / sizeof(fields[0]))

static const struct thing full = {
    .number = 0x12345678, .flag = true, .flags = {1, 0, 1}, .byte = 7};

/* A change of the byte at `at` of the snapshot; what loading says. */
static int load_changed(struct thing *t, size_t at, uint8_t value, struct error *err)
{
    struct timerq *q = timerq_create(true, NULL, NULL);
    struct state_buf b = {0};
    size_t pos = 0;
    int rc;

    state_save(fields, FIELDS, &full, q, &b);
    assert_int_equal(b.error, 0);
    assert_true(at < b.len);
    b.data[at] = value;
    rc = state_load(fields, FIELDS, t, q, b.data, b.len, &pos, err);
    assert_true(rc != 0 || pos == b.len);
    free(b.data);
    timerq_destroy(q);
    return rc;
}

#define NUMBER_AT 8u
#define FLAG_AT (NUMBER_AT + 4 + 8)
#define FLAGS_AT (FLAG_AT + 1 + 8)
#define BYTE_AT (FLAGS_AT + 3 + 8)

static void test_comes_back(void **state)
{
    struct error err = {0};
    struct thing t = {0};

    (void)state;
    assert_int_equal(load_changed(&t, NUMBER_AT, 0x99, &err), 0);
    assert_int_equal(t.number, 0x12345699);
    assert_true(t.flag && t.flags[0] && !t.flags[1] && t.flags[2]);
    assert_int_equal(load_changed(&t, BYTE_AT, 0xFF, &err), 0);
    assert_int_equal(t.byte, 0xFF);
    assert_int_equal(load_changed(&t, FLAG_AT, 0, &err), 0);
    assert_false(t.flag);
}

/* A bool in memory that is neither 0 nor 1 is not a bool. */
static void test_neither(void **state)
{
    static const size_t at[] = {FLAG_AT, FLAGS_AT, FLAGS_AT + 2};
    struct error err = {0};
    struct thing t = {0};
    uint8_t raw;

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(load_changed(&t, at[i], 2, &err), -EINVAL);
        assert_non_null(strstr(err.text, "neither true nor false"));
    }
    memcpy(&raw, &t.flags[2], 1);
    assert_int_equal(raw, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_comes_back),
        cmocka_unit_test(test_neither),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
