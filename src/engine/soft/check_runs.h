/*
 * What check.c, which runs stretches both ways, and check_compare.c share.
 */
#ifndef ENGINE_SOFT_CHECK_RUNS_H
#define ENGINE_SOFT_CHECK_RUNS_H

#include "engine/soft/check.h"
#include "engine/soft/interp.h"

enum { MOST_PAGES = 2048, MOST_FILLS = 4096, STRETCH = 300, RETRIES = 3, MOST_STEPS = 512 };

enum phase { IDLE, TRANSLATED, INTERPRETED };

/* Why a stretch was cut off. */
enum cut { CUT_BEFORE, CUT_DEVICE, CUT_FULL };

struct check_page {
    uint64_t gpa;
    bool first; /* written by the first run */
};

struct check_fill {
    uint8_t mode;
    bool used, global;
    uint16_t slot;
    struct tlb_entry old;
};

#define UNDEFINED_USED (1u << 31)

/* How a run of a stretch ended. */
struct check_end {
    struct x86_state st;
    uint32_t cc, cpl;
    uint64_t instructions;
    bool left; /* by a fault or a cut, in *fault */
    uint8_t type, vector;
    uint32_t error;
    uint64_t payload;
};

struct check {
    enum phase phase;
    enum cut cut;
    jmp_buf env;
    struct check_end begin, first, second;
    struct vcpu_stats stats;
    struct fetch_entry fetch[2][SOFT_FETCH_SIZE];
    bool flushed; /* the TLB, in this phase */
    unsigned pages, fills;
    struct check_page page[MOST_PAGES];
    uint16_t page_hash[4 * MOST_PAGES]; /* index + 1 */
    struct check_fill fill[MOST_FILLS];
    uint8_t *before, *after; /* MOST_PAGES pages each */
};

struct difference {
    char text[240];
};

static inline uint8_t *host_page(struct soft_cpu *cpu, uint64_t gpa)
{
    return gmem_ptr(cpu->vm->env.mem, gpa, PAGE_SIZE);
}

/* ---- check_compare.c ---- */

/* As x86_decode; X86_DECODE_MORE too if its page has not been fetched from. */
int check_decode(struct soft_cpu *cpu, uint64_t rip, struct x86_insn *in);
/* Of a general register. */
extern const char *const check_gpr[16];
/*
 * Do the two runs differ, but for the flags in `undefined`? The second one's memory is in place.
 */
bool check_compare(struct soft_cpu *cpu, uint32_t undefined, struct difference *d);

#endif
