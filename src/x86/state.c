#include "x86/state.h"

#include <string.h>

#include "base/endian.h"

/* Intel SDM Vol.3, "Processor State After Reset". */
void x86_state_reset(struct x86_state *s, bool bsp)
{
    memset(s, 0, sizeof(*s));
    s->rip = 0xfff0;
    s->rflags = X86_FL_FIXED;
    s->cr0 = X86_CR0_CD | X86_CR0_NW | X86_CR0_ET;
    for (unsigned i = 0; i < X86_SEG_COUNT; i++)
        s->seg[i] = (struct x86_segment){.attr = 0x93, .limit = 0xffff};
    s->seg[X86_CS].selector = 0xf000;
    s->seg[X86_CS].base = 0xffff0000;
    s->ldtr = (struct x86_segment){.attr = 0x82, .limit = 0xffff};
    s->tr = (struct x86_segment){.attr = 0x8b, .limit = 0xffff};
    s->gdtr.limit = s->idtr.limit = 0xffff;
    s->gpr[X86_RDX] = 0x606a6; /* CPUID's signature */
    s->dr6 = 0xffff0ff0;
    s->dr7 = 0x400;
    s->xcr0 = 1;
    s->pat = 0x0007040600070406ull;
    s->misc_enable = 0x1801; /* fast strings; no BTS, no PEBS */
    s->feature_control = 1;  /* locked, without VMX */
    s->mp_state = bsp ? X86_MP_RUNNING : X86_MP_WAIT_SIPI;
    le16_store(s->xsave, 0x37f);       /* FCW */
    le32_store(s->xsave + 24, 0x1f80); /* MXCSR */
    le32_store(s->xsave + 28, 0xffff); /* MXCSR_MASK */
}
