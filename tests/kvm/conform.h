/*
 * What the conformance script is written with: one KVM, a file of answers, and a small guest.
 *
 * Each answer is a line "STEP: WHAT: ANSWER" in a form that does not depend on the host. Where KVMs
 * may differ (CPUID, rates, what the manual leaves open) a step says only what must hold.
 */
#ifndef TESTS_KVM_CONFORM_H
#define TESTS_KVM_CONFORM_H

#include <linux/kvm.h>
#include <stdio.h>

#include "base/bits.h"
#include "engine/kvm/kvm.h"
#include "x86/state.h"

struct conform {
    const struct kvm_sys *sys;
    int kvm; /* descriptor of /dev/kvm */
    FILE *out;
    const char *step;
};

void say(struct conform *c, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* "0", "1", "-EINVAL", ... */
const char *result_name(int rc);
void say_result(struct conform *c, const char *what, int rc);

int call(struct conform *c, int fd, unsigned long request, const void *arg);
int call_n(struct conform *c, int fd, unsigned long request, uintptr_t arg);

/* A VM with 512 KiB of memory at 0, one vCPU that has the supported CPUID, real mode. */
#define BOX_RAM 0x80000u
struct box {
    struct conform *c;
    int vm, cpu;
    size_t run_size;
    struct kvm_run *run;
    uint8_t *ram;
};

/* split: with local APICs in the kernel. False: it says why, and there is nothing to close. */
bool box_open(struct conform *c, struct box *b, bool split);
void box_close(struct box *b);
void box_cpuid(struct conform *c, int cpu);

/* Code at 0x1000, registers zero but RSP 0x7000, real mode with all bases zero, RIP 0x1000. */
#define BOX_CODE 0x1000u
void box_code(struct box *b, uint32_t at, const void *code, size_t len);
void box_start(struct box *b, const void *code, size_t len);
#define START(b, code) box_start(b, code, sizeof(code))
/* IVT entry; the handler's code is `out 0xE0 + n, al` for vector n's low nibble, then `then`. */
void box_handler(struct box *b, uint8_t vector, uint32_t at, const void *code, size_t len);
#define HANDLER(b, vector, at, code) box_handler(b, vector, at, code, sizeof(code))

/* KVM_RUN, and its answer. */
int box_run(struct box *b, const char *what);
void say_regs(struct box *b, const char *what); /* RAX and RDX */
void say_rip(struct box *b, const char *what);  /* not while an access is pending: KVMs differ */
void say_ready(struct box *b, const char *what);
uint64_t box_rip(struct box *b);
void box_set_rip(struct box *b, uint64_t rip);
void box_data(struct box *b, uint64_t value); /* answers the pending read */

/* Flat 32-bit or 64-bit segments; 64: page tables at 0x10000 map the first GiB and 3-4 GiB. */
void flat_sregs(struct box *b, struct kvm_sregs *s, bool wide);
void flat_start(struct box *b, bool wide, const void *code, size_t len);

/*
 * conform_compare.c: the answers in `got` beside those of the file `expected`, or of the file `may`
 * (NULL: none). A line "STEP: does not end" there lets the step's other answers be missing. 0, or 1
 * if something is otherwise, which is printed, or 2.
 */
int conform_compare(FILE *got, const char *only, const char *expected, const char *may);

struct step {
    const char *name;
    void (*run)(struct conform *c);
};
/* Each ends with a step without a name. */
extern const struct step system_steps[], state_steps[], run_steps[], event_steps[], mode_steps[],
    msr_steps[], apic_steps[];

#endif
