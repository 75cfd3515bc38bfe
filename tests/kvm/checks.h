/* What the tests of the kvm engine and of the fake share: counted checks, a vCPU in real mode. */
#ifndef TESTS_KVM_CHECKS_H
#define TESTS_KVM_CHECKS_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "x86/state.h"

static unsigned checks, failed;

static inline void check(bool ok, const char *what)
{
    checks++;
    if (ok)
        return;
    failed++;
    printf("FAIL %s\n", what);
}

/* Prints the counts; the exit status. */
static inline int checks_end(void)
{
    printf("%u checks, %u failed\n", checks, failed);
    return failed != 0;
}

/* Runs at rip below 64 KiB, all segments from 0, with a stack, interrupts off. */
static inline void real_mode(struct x86_state *st, uint64_t rip)
{
    x86_state_reset(st, true);
    memset(&st->seg[X86_CS], 0, sizeof(st->seg[X86_CS]));
    st->seg[X86_CS].attr = 0x9b;
    st->seg[X86_CS].limit = 0xffff;
    st->rip = rip;
    st->gpr[X86_RSP] = 0x8000;
    st->mp_state = X86_MP_RUNNING;
}

#endif
