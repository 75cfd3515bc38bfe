/*
 * What comparing is made of: the rules (oracle_rules.c), a program's course (oracle_flow.c), text
 * (oracle_show.c).
 */
#ifndef TESTS_CPU_ORACLE_COMPARE_H
#define TESTS_CPU_ORACLE_COMPARE_H

#include <string.h>

#include "oracle.h"
#include "x86/state.h"

static inline uint32_t fx32(const struct oracle_result *r, unsigned off, unsigned size)
{
    uint32_t v = 0;

    memcpy(&v, r->out.fx + off, size);
    return v;
}

/* ---- oracle_rules.c ---- */

/* The instruction that faulted; NULL: none did, or it is not known. */
const struct x86_insn *rule_faulted(const struct oracle_case *c, const struct oracle_result *r,
                                    struct x86_insn *buf);
/* Flags that the instructions run leave undefined, of a single case. */
uint32_t rule_undefined_flags(const struct oracle_case *c, const struct oracle_result *r);
/* Bits of the error code, CR2, the status word and MXCSR that must be equal. */
uint32_t rule_visible_error(const struct oracle_result *r);
uint64_t rule_cr2_mask(const struct oracle_case *c, const struct oracle_result *r);
uint32_t rule_fsw_mask(const struct oracle_case *c, const struct oracle_result *host);
bool rule_flags_by_x87(const struct x86_insn *in);
bool rule_reads_status(const struct x86_insn *in);
uint32_t rule_mxcsr_mask(const struct oracle_case *c, const struct oracle_result *r);
/* Does the outcome belong to the processor at hand? */
bool rule_unspecified(const struct oracle_case *c, const struct oracle_result *host,
                      const struct oracle_result *soft);
/* Clears bytes of stored images that only the host's unit knows. */
void rule_hide_pointers(const struct oracle_case *c, struct oracle_result *r);
/* Did a single case end in what another has left? */
bool rule_strayed(const struct oracle_case *c, const struct oracle_result *host);

/* ---- oracle_flow.c ---- */

struct flow {
    uint32_t undefined;
    bool codes;   /* C0, C2, C3 may be a vendor's: see rule_fsw_mask */
    bool unclear; /* something undefined was used, or an instruction ran that no rule here knows */
    bool started;
    const struct oracle_case *c;
    const bool *feature;
    struct x86_insn last;
};
bool flow_step(void *ctx, const struct x86_insn *in, const struct x86_state *st);

/* ---- oracle_show.c ---- */

extern const char *const oracle_gpr_name[16];
void oracle_show_bytes(const char *what, const uint8_t *p, unsigned n);

#endif
