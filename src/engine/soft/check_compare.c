#include "engine/soft/check_runs.h"
#include "engine/soft/jit/translate.h"
#include "engine/soft/native.h"

/* What came out of the two runs of a stretch, side by side. */

int check_decode(struct soft_cpu *cpu, uint64_t rip, struct x86_insn *in)
{
    const struct fetch_entry *e = &cpu->fetch[cpu->cpl == 3][(rip >> 12) & (SOFT_FETCH_SIZE - 1)];
    unsigned off = (unsigned)(rip & 4095);

    if (e->page == NULL || (e->tag & PAGE_MASK) != (rip & PAGE_MASK))
        return X86_DECODE_MORE;
    return x86_decode(e->page + off, PAGE_SIZE - off, (enum x86_mode)cpu->mode, in);
}

/*
 * The translator leaves out flags that the code behind overwrites before it reads them
 * (docs/decisions). Is that so for these?
 */
static bool flags_dead(struct soft_cpu *cpu, uint64_t rip, uint32_t bits, unsigned depth)
{
    for (unsigned n = 0; n < 48 && bits != 0; n++) {
        struct x86_insn in;
        int len = check_decode(cpu, rip & cpu->rip_mask, &in);

        if (len <= 0 || (!tx_is_cl_shift(&in) && (in.flags_read & bits) != 0) || in.op == X86_RCL ||
            in.op == X86_RCR)
            return false;
        if (!tx_is_cl_shift(&in)) /* by zero: the flags stay */
            bits &= ~(in.flags_written | in.flags_undefined);
        rip += (unsigned)len;
        if (in.cls != X86_CLASS_BRANCH || bits == 0)
            continue;
        if (in.opnd[0].kind != X86_OPND_REL ||
            (in.op != X86_JMP && in.op != X86_JCC && in.op != X86_CALL))
            return false;
        if (in.op == X86_JCC && (depth == 0 || !flags_dead(cpu, rip + in.imm, bits, depth - 1)))
            return false;
        if (in.op != X86_JCC)
            rip += in.imm;
    }
    return bits == 0;
}

static bool differ(struct difference *d, const char *what, unsigned n, uint64_t first,
                   uint64_t second)
{
    if (first == second)
        return false;
    snprintf(d->text, sizeof(d->text), "%s%.0u: translated %#llx, interpreted %#llx", what, n,
             (unsigned long long)first, (unsigned long long)second);
    return true;
}

const char *const check_gpr[16] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                   "R8",  "R9",  "R10", "R11", "R12", "R13", "R14", "R15"};

static bool compare_registers(const struct check_end *a, const struct check_end *b,
                              struct difference *d)
{
    for (unsigned i = 0; i < 16; i++) {
        if (differ(d, check_gpr[i], 0, a->st.gpr[i], b->st.gpr[i]))
            return true;
    }
    for (unsigned i = 0; i < X86_SEG_COUNT; i++) {
        if (differ(d, "base of segment register ", i, a->st.seg[i].base, b->st.seg[i].base) ||
            differ(d, "selector in segment register ", i, a->st.seg[i].selector,
                   b->st.seg[i].selector) ||
            differ(d, "attributes of segment register ", i, a->st.seg[i].attr, b->st.seg[i].attr))
            return true;
    }
    return differ(d, "instructions", 0, a->instructions, b->instructions) ||
           differ(d, "RIP", 0, a->st.rip, b->st.rip) || differ(d, "CPL", 0, a->cpl, b->cpl) ||
           differ(d, "RFLAGS but for arithmetic", 0, a->st.rflags & ~(uint64_t)X86_FL_ARITH,
                  b->st.rflags & ~(uint64_t)X86_FL_ARITH) ||
           differ(d, "CR0", 0, a->st.cr0, b->st.cr0) || differ(d, "CR2", 0, a->st.cr2, b->st.cr2) ||
           differ(d, "CR3", 0, a->st.cr3, b->st.cr3) || differ(d, "CR4", 0, a->st.cr4, b->st.cr4) ||
           differ(d, "KERNEL_GS_BASE", 0, a->st.kernel_gs_base, b->st.kernel_gs_base) ||
           differ(d, "XCR0", 0, a->st.xcr0, b->st.xcr0) ||
           (!a->left && (differ(d, "STI shadow", 0, a->st.sti_shadow, b->st.sti_shadow) ||
                         differ(d, "MOV SS shadow", 0, a->st.movss_shadow, b->st.movss_shadow)));
}

static bool compare_ends(const struct check_end *a, const struct check_end *b, struct difference *d)
{
    if (a->left && a->type == FAULT_CUT && !b->left)
        return false; /* an instruction that the second run does not come to */
    if (differ(d, "fault", 0, a->left, b->left))
        return true;
    if (!a->left)
        return false;
    if (differ(d, "kind of event", 0, a->type, b->type))
        return true;
    if (a->type == FAULT_CUT)
        return false;
    return differ(d, "vector", 0, a->vector, b->vector) ||
           differ(d, "error code", 0, a->error, b->error) ||
           differ(d, "fault address", 0, a->payload, b->payload);
}

/* A component in its initial state may be marked as such, or hold what that state is. */
static bool compare_fpu(const struct check_end *a, const struct check_end *b, struct difference *d)
{
    static const struct {
        const char *name;
        uint16_t at, size;
    } parts[] = {{"x87 control", FX_FCW, 24},
                 {"MXCSR", FX_MXCSR, 4},
                 {"x87 registers", FX_ST, 128},
                 {"XMM registers", FX_XMM, 256},
                 {"upper halves of YMM registers", X86_XSAVE_YMM, 256},
                 {"PKRU", X86_XSAVE_PKRU, 4}};

    for (unsigned i = 0; i < countof(parts); i++) {
        const uint8_t *p = a->st.xsave + parts[i].at, *q = b->st.xsave + parts[i].at;
        unsigned k = 0;

        if (memcmp(p, q, parts[i].size) == 0)
            continue;
        while (p[k] == q[k])
            k++;
        snprintf(d->text, sizeof(d->text), "%s, byte %u: translated %#x, interpreted %#x",
                 parts[i].name, k, p[k], q[k]);
        return true;
    }
    return false;
}

static bool compare_memory(struct soft_cpu *cpu, struct difference *d)
{
    struct check *c = cpu->check;

    for (unsigned i = 0; i < c->pages; i++) {
        const uint8_t *p = (c->page[i].first ? c->after : c->before) + (size_t)i * PAGE_SIZE;
        const uint8_t *q = host_page(cpu, c->page[i].gpa);

        if (memcmp(p, q, PAGE_SIZE) == 0)
            continue;
        for (unsigned k = 0; k < PAGE_SIZE; k++) {
            if (p[k] == q[k])
                continue;
            snprintf(d->text, sizeof(d->text),
                     "memory at physical %#llx: translated %#x, interpreted %#x",
                     (unsigned long long)c->page[i].gpa + k, p[k], q[k]);
            return true;
        }
    }
    return false;
}

static bool compare_flags(struct soft_cpu *cpu, uint32_t undefined, struct difference *d)
{
    struct check *c = cpu->check;
    uint32_t bits =
        (uint32_t)(c->first.st.rflags ^ c->second.st.rflags) & X86_FL_ARITH & ~undefined;

    if (bits == 0 || flags_dead(cpu, c->second.st.rip, bits, 3))
        return false;
    return differ(d, "RFLAGS", 0, c->first.st.rflags, c->second.st.rflags);
}

bool check_compare(struct soft_cpu *cpu, uint32_t undefined, struct difference *d)
{
    struct check *c = cpu->check;

    if (undefined & UNDEFINED_USED)
        return false;
    return compare_ends(&c->first, &c->second, d) || compare_registers(&c->first, &c->second, d) ||
           compare_flags(cpu, undefined, d) || compare_fpu(&c->first, &c->second, d) ||
           compare_memory(cpu, d);
}
