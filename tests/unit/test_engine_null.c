#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "engine/null/null.h"

static void listed_last(void **state)
{
    unsigned n = 0;

    (void)state;
    while (engine_table[n] != NULL)
        n++;
    assert_true(n >= 1);
    assert_ptr_equal(engine_table[n - 1], &engine_null); /* so that "auto" never takes it */
}

static void halts_and_keeps_state(void **state)
{
    struct engine_env env = {.cpus = 2};
    struct x86_state *in = aligned_alloc(64, sizeof(*in)), *out = aligned_alloc(64, sizeof(*out));
    struct vcpu_stats stats;
    struct vcpu_exit exit;
    struct error err = {0};
    void *vm, *cpu;

    (void)state;
    assert_int_equal(engine_null.probe(&env, true, &err), 0);
    assert_int_equal(engine_null.vm_create(&env, &vm, &err), 0);
    assert_int_equal(engine_null.vcpu_create(vm, 0, &cpu, &err), 0);
    engine_null.get(cpu, out);
    assert_int_equal(out->rip, 0xfff0);
    assert_int_equal(engine_null.run(cpu, 0, &exit), 0);
    assert_int_equal(exit.reason, VCPU_EXIT_HLT);
    assert_false(exit.interrupts_off);
    engine_null.kick(cpu);
    assert_int_equal(engine_null.run(cpu, 1000, &exit), 0);
    assert_int_equal(exit.reason, VCPU_EXIT_INTERRUPTED);
    assert_int_equal(engine_null.run(cpu, 1000, &exit), 0);
    assert_int_equal(exit.reason, VCPU_EXIT_HLT);
    memcpy(in, out, sizeof(*in));
    in->rip = 0x1234;
    in->gpr[3] = 0x55;
    assert_int_equal(engine_null.set(cpu, in, &err), 0);
    engine_null.get(cpu, out);
    assert_memory_equal(in, out, sizeof(*in));
    engine_null.stats(cpu, &stats);
    assert_int_equal(stats.halts, 2);
    assert_int_equal(stats.instructions, 0);
    engine_null.vcpu_destroy(cpu);
    engine_null.vm_destroy(vm);
    free(in);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(listed_last),
        cmocka_unit_test(halts_and_keeps_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
