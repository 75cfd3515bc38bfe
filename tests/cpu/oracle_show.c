/* A case as text: its instructions, the registers they use. */
#include <stdio.h>
#include <string.h>

#include "oracle_compare.h"

const char *const oracle_gpr_name[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                         "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

void oracle_show_bytes(const char *what, const uint8_t *p, unsigned n)
{
    unsigned i;

    printf("    %-8s ", what);
    for (i = n; i-- > 0;)
        printf("%02x", p[i]);
    printf("\n");
}

void oracle_show_case(const struct oracle_case *c)
{
    unsigned k, i;
    char text[128];

    printf("case %#llx%s\n", (unsigned long long)c->seed,
           c->small    ? " (16-bit)"
           : c->compat ? " (32-bit)"
                       : "");
    for (k = 0; k < c->count; k++) {
        uint64_t lin = c->addr + c->off[k];
        const uint8_t *code = c->program ? c->prog + (lin - ORACLE_PROG) : c->code + c->off[k];
        unsigned len = c->insn[k].len;
        struct x86_insn in; /* addresses have been filled in since */

        if (x86_decode(code, len, oracle_mode(c), &in) != (int)len)
            continue; /* shrunk away */
        x86_format(&in, lin - c->cs_base, text, sizeof(text));
        printf("  %08llx:", (unsigned long long)lin);
        for (i = 0; i < len; i++)
            printf(" %02x", code[i]);
        printf("  %s\n", text);
    }
}

void oracle_show_input(const struct oracle_case *c)
{
    unsigned i, k;
    uint32_t mxcsr;
    bool vector = false, x87 = false;

    for (k = 0; k < c->count; k++) {
        const struct x86_insn *in = &c->insn[k];

        for (i = 0; i < in->opnd_count; i++) {
            vector |= in->opnd[i].kind == X86_OPND_REG && in->opnd[i].rclass == X86_RC_VEC;
            x87 |= in->opnd[i].kind == X86_OPND_REG && in->opnd[i].rclass == X86_RC_MMX;
        }
        x87 |= in->map == X86_MAP_ONE && in->op >= X86_FXSAVE;
    }
    for (i = 0; i < 16; i++)
        printf("    %s=%016llx%s", oracle_gpr_name[i], (unsigned long long)c->in.gpr[i],
               i % 4 == 3 ? "\n" : "");
    memcpy(&mxcsr, c->in.fx + 24, 4);
    printf("    rflags=%llx mxcsr=%x fcw=%02x%02x fsw=%02x%02x ftw=%02x\n",
           (unsigned long long)c->in.rflags, mxcsr, c->in.fx[1], c->in.fx[0], c->in.fx[3],
           c->in.fx[2], c->in.fx[4]);
    for (i = 0; vector && i < 16; i++) {
        bool used = false;
        char name[16];
        unsigned j;

        for (k = 0; k < c->count; k++)
            for (j = 0; j < c->insn[k].opnd_count; j++)
                used |= c->insn[k].opnd[j].kind == X86_OPND_REG &&
                        c->insn[k].opnd[j].rclass == X86_RC_VEC && c->insn[k].opnd[j].reg == i;
        if (!used)
            continue;
        snprintf(name, sizeof(name), "xmm%u", i);
        oracle_show_bytes(name, c->in.fx + 160 + 16 * i, 16);
    }
    for (i = 0; x87 && i < 8; i++) {
        char name[16];

        snprintf(name, sizeof(name), "st%u", i);
        oracle_show_bytes(name, c->in.fx + 32 + 16 * i, 10);
    }
}
