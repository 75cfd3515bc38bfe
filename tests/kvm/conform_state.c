/* Conformance: what a vCPU's state is when it is set and read back, and what is refused. */
#include "conform.h"

#include <stdlib.h>
#include <string.h>

static const char *same(const void *a, const void *b, size_t len)
{
    return memcmp(a, b, len) == 0 ? "as set" : "not as set";
}

static void regs(struct conform *c)
{
    struct kvm_regs in, out;
    __u64 *word = &in.rax;
    struct box b;

    if (!box_open(c, &b, false))
        return;
    memset(&out, 0xff, sizeof(out));
    call(c, b.cpu, KVM_GET_REGS, &out);
    say(c, "power on", "rip %#llx rflags %#llx", (unsigned long long)out.rip,
        (unsigned long long)out.rflags);
    for (unsigned i = 0; i < sizeof(in) / sizeof(*word); i++)
        word[i] = 0x0101010101010101ull * (i + 1);
    in.rip = 0x12345678;
    in.rflags = 0;
    say_result(c, "set", call(c, b.cpu, KVM_SET_REGS, &in));
    say_result(c, "get", call(c, b.cpu, KVM_GET_REGS, &out));
    say(c, "rflags", "%#llx", (unsigned long long)out.rflags);
    in.rflags = out.rflags;
    say(c, "all", "%s", same(&in, &out, sizeof(in)));
    box_close(&b);
}

static void say_segment(struct conform *c, const char *what, const struct kvm_segment *s)
{
    /* the accessed bit of a code segment at power on is the vendor's */
    say(c, what, "selector %#x base %#llx limit %#x type %u s %u dpl %u present %u l %u db %u g %u",
        s->selector, (unsigned long long)s->base, s->limit, s->type | 1u, s->s, s->dpl, s->present,
        s->l, s->db, s->g);
}

static void say_sregs(struct conform *c, const struct kvm_sregs *s)
{
    say_segment(c, "cs", &s->cs);
    say_segment(c, "ds", &s->ds);
    say_segment(c, "ss", &s->ss);
    say_segment(c, "tr", &s->tr);
    say(c, "tables", "gdt %#llx+%#x idt %#llx+%#x", (unsigned long long)s->gdt.base, s->gdt.limit,
        (unsigned long long)s->idt.base, s->idt.limit);
    say(c, "control", "cr0 %#llx cr2 %#llx cr3 %#llx cr4 %#llx efer %#llx",
        (unsigned long long)s->cr0, (unsigned long long)s->cr2, (unsigned long long)s->cr3,
        (unsigned long long)s->cr4, (unsigned long long)s->efer);
}

static void sregs(struct conform *c)
{
    struct kvm_sregs s;
    struct box b;

    if (!box_open(c, &b, false))
        return;
    call(c, b.cpu, KVM_GET_SREGS, &s);
    say_segment(c, "power on: cs", &s.cs);
    say_segment(c, "power on: ds", &s.ds);
    say(c, "power on: control", "cr0 %#llx cr3 %#llx cr4 %#llx efer %#llx",
        (unsigned long long)s.cr0, (unsigned long long)s.cr3, (unsigned long long)s.cr4,
        (unsigned long long)s.efer);
    flat_sregs(&b, &s, true);
    s.cr2 = 0x123456789abcull;
    s.fs.base = 0x1122334455667788ull & 0x7fffffffffffull;
    say_result(c, "set 64-bit mode", call(c, b.cpu, KVM_SET_SREGS, &s));
    memset(&s, 0, sizeof(s));
    call(c, b.cpu, KVM_GET_SREGS, &s);
    say_sregs(c, &s);
    say(c, "fs", "%#llx", (unsigned long long)s.fs.base);
    s.efer &= ~(uint64_t)X86_EFER_LMA;
    say_result(c, "LME and PG without LMA", call(c, b.cpu, KVM_SET_SREGS, &s));
    s.efer |= X86_EFER_LMA;
    s.cr4 &= ~(uint64_t)X86_CR4_PAE;
    say_result(c, "64-bit mode without PAE", call(c, b.cpu, KVM_SET_SREGS, &s));
    s.cr4 = X86_CR4_PAE | 1u << 31;
    say_result(c, "a reserved bit in CR4", call(c, b.cpu, KVM_SET_SREGS, &s));
    flat_sregs(&b, &s, false);
    s.cs.l = 1;
    say_result(c, "a 64-bit segment in 32-bit mode", call(c, b.cpu, KVM_SET_SREGS, &s));
    s.cs.l = 0;
    say_result(c, "set 32-bit mode", call(c, b.cpu, KVM_SET_SREGS, &s));
    s.interrupt_bitmap[0] = 1ull << 0x21;
    say_result(c, "set an interrupt", call(c, b.cpu, KVM_SET_SREGS, &s));
    memset(&s, 0, sizeof(s));
    call(c, b.cpu, KVM_GET_SREGS, &s);
    say(c, "the interrupt", "%#llx", (unsigned long long)s.interrupt_bitmap[0]);
    box_close(&b);
}

static void sregs2(struct conform *c)
{
    struct kvm_sregs2 in, out;
    struct kvm_sregs s;
    struct box b;

    if (!box_open(c, &b, false))
        return;
    flat_sregs(&b, &s, false);
    memset(&in, 0, sizeof(in));
    memcpy(&in, &s, offsetof(struct kvm_sregs2, flags));
    in.cr0 |= X86_CR0_PG;
    in.cr4 |= X86_CR4_PAE;
    in.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
    for (unsigned i = 0; i < 4; i++)
        in.pdptrs[i] = 0x20001 + 0x1000 * i;
    say_result(c, "set", call(c, b.cpu, KVM_SET_SREGS2, &in));
    memset(&out, 0, sizeof(out));
    say_result(c, "get", call(c, b.cpu, KVM_GET_SREGS2, &out));
    say(c, "flags", "%#llx", (unsigned long long)out.flags);
    say(c, "pdptrs", "%s", same(in.pdptrs, out.pdptrs, sizeof(in.pdptrs)));
    in.cr4 &= ~(uint64_t)X86_CR4_PAE;
    say_result(c, "pdptrs without PAE", call(c, b.cpu, KVM_SET_SREGS2, &in));
    in.cr4 |= X86_CR4_PAE;
    in.flags = 2;
    say_result(c, "an unknown flag", call(c, b.cpu, KVM_SET_SREGS2, &in));
    box_close(&b);
}

static void fpu(struct conform *c)
{
    struct kvm_fpu in, out;
    struct box b;

    if (!box_open(c, &b, false))
        return;
    memset(&out, 0xff, sizeof(out));
    call(c, b.cpu, KVM_GET_FPU, &out);
    say(c, "power on", "fcw %#x fsw %#x ftwx %#x", out.fcw, out.fsw, out.ftwx);
    memset(&in, 0, sizeof(in));
    for (unsigned i = 0; i < sizeof(in.fpr); i++) {
        if (i % 16 < 10)
            ((uint8_t *)in.fpr)[i] = (uint8_t)i;
    }
    for (unsigned i = 0; i < sizeof(in.xmm); i++)
        ((uint8_t *)in.xmm)[i] = (uint8_t)~i;
    in.fcw = 0x27f;
    in.fsw = 0x3800;
    in.ftwx = 0xa5;
    say_result(c, "set", call(c, b.cpu, KVM_SET_FPU, &in));
    say_result(c, "get", call(c, b.cpu, KVM_GET_FPU, &out));
    say(c, "control", "fcw %#x fsw %#x ftwx %#x", out.fcw, out.fsw, out.ftwx);
    say(c, "st", "%s", same(in.fpr, out.fpr, sizeof(in.fpr)));
    say(c, "xmm", "%s", same(in.xmm, out.xmm, sizeof(in.xmm)));
    box_close(&b);
}

static void xsave(struct conform *c)
{
    struct kvm_xsave *in = calloc(1, 4096), *out = calloc(1, 4096);
    struct box b;

    if (in == NULL || out == NULL || !box_open(c, &b, false))
        return;
    say_result(c, "get", call(c, b.cpu, KVM_GET_XSAVE, in));
    in->region[0] = 0x0000037f;
    in->region[6] = 0x1fa0; /* MXCSR */
    for (unsigned i = 0; i < 64; i++)
        in->region[40 + i] = 0x01010101 * i; /* XMM */
    in->region[128] = 3;                     /* x87 and SSE are there */
    in->region[129] = 0;
    say_result(c, "set", call(c, b.cpu, KVM_SET_XSAVE, in));
    say_result(c, "get back", call(c, b.cpu, KVM_GET_XSAVE, out));
    say(c, "mxcsr", "%#x", out->region[6]);
    say(c, "xmm", "%s", same(in->region + 40, out->region + 40, 256));
    in->region[128] = 0; /* neither: initial values */
    say_result(c, "set nothing", call(c, b.cpu, KVM_SET_XSAVE, in));
    call(c, b.cpu, KVM_GET_XSAVE, out);
    say(c, "xmm0 then", "%#x", (out->region[128] & 2) != 0 ? out->region[44] : 0);
    in->region[128] = 3;
    in->region[129] = 1u << 30;
    say_result(c, "an unknown component", call(c, b.cpu, KVM_SET_XSAVE, in));
    in->region[129] = 0;
    in->region[6] = 0xffffffff;
    say_result(c, "reserved bits in MXCSR", call(c, b.cpu, KVM_SET_XSAVE, in));
    box_close(&b);
    free(in);
    free(out);
}

static void set_xcr0(struct box *b, const char *what, uint64_t value)
{
    struct kvm_xcrs x = {.nr_xcrs = 1, .xcrs[0].value = value};

    say_result(b->c, what, call(b->c, b->cpu, KVM_SET_XCRS, &x));
}

static void xcrs(struct conform *c)
{
    struct kvm_xcrs x;
    struct box b;

    if (!box_open(c, &b, false))
        return;
    memset(&x, 0, sizeof(x));
    say_result(c, "get", call(c, b.cpu, KVM_GET_XCRS, &x));
    say(c, "power on", "%u of %#llx", x.nr_xcrs, (unsigned long long)x.xcrs[0].value);
    set_xcr0(&b, "x87 and SSE", 3);
    call(c, b.cpu, KVM_GET_XCRS, &x);
    say(c, "then", "%#llx", (unsigned long long)x.xcrs[0].value);
    set_xcr0(&b, "without x87", 2);
    set_xcr0(&b, "AVX without SSE", 5);
    set_xcr0(&b, "an unknown component", 1ull << 62 | 3);
    x.flags = 1;
    say_result(c, "flags", call(c, b.cpu, KVM_SET_XCRS, &x));
    box_close(&b);
}

static void debugregs(struct conform *c)
{
    struct kvm_debugregs in = {.db = {0x1000, 0x2000, 0x3000, 0x4000}}, out;
    struct box b;

    if (!box_open(c, &b, false))
        return;
    memset(&out, 0xff, sizeof(out));
    say_result(c, "get", call(c, b.cpu, KVM_GET_DEBUGREGS, &out));
    say(c, "power on", "dr0 %#llx dr6 %#llx dr7 %#llx", (unsigned long long)out.db[0],
        (unsigned long long)out.dr6, (unsigned long long)out.dr7);
    in.dr6 = 0xffff0ff0;
    in.dr7 = 0x402;
    say_result(c, "set", call(c, b.cpu, KVM_SET_DEBUGREGS, &in));
    call(c, b.cpu, KVM_GET_DEBUGREGS, &out);
    say(c, "db", "%s", same(in.db, out.db, sizeof(in.db)));
    say(c, "others", "dr6 %#llx dr7 %#llx", (unsigned long long)out.dr6,
        (unsigned long long)out.dr7);
    in.flags = 1;
    say_result(c, "flags", call(c, b.cpu, KVM_SET_DEBUGREGS, &in));
    in.flags = 0;
    in.dr7 = 1ull << 32;
    say_result(c, "upper half of dr7", call(c, b.cpu, KVM_SET_DEBUGREGS, &in));
    box_close(&b);
}

static void say_events(struct box *b, const char *what)
{
    struct kvm_vcpu_events e = {0};

    call(b->c, b->cpu, KVM_GET_VCPU_EVENTS, &e);
    say(b->c, what,
        "exception %u nr %u error %u %#x, interrupt %u nr %#x shadow %u, nmi %u pending %u "
        "masked %u",
        e.exception.injected, e.exception.injected ? e.exception.nr : 0, e.exception.has_error_code,
        e.exception.error_code, e.interrupt.injected, e.interrupt.injected ? e.interrupt.nr : 0,
        e.interrupt.shadow != 0, e.nmi.injected, e.nmi.pending, e.nmi.masked);
}

static void set_events(struct box *b, const char *what, const struct kvm_vcpu_events *e)
{
    say_result(b->c, what, call(b->c, b->cpu, KVM_SET_VCPU_EVENTS, e));
}

static void events(struct conform *c)
{
    struct kvm_vcpu_events e = {0}, none = {0};
    struct box b;

    if (!box_open(c, &b, false))
        return;
    say_events(&b, "power on");
    e.interrupt.injected = 1;
    e.interrupt.nr = 0x21;
    set_events(&b, "interrupt", &e);
    say_events(&b, "with an interrupt");
    e = none;
    e.exception.injected = 1;
    e.exception.nr = 13;
    e.exception.has_error_code = 1;
    e.exception.error_code = 0x18;
    set_events(&b, "exception", &e);
    say_events(&b, "with an exception");
    e = none;
    e.nmi.pending = e.nmi.masked = 1;
    e.flags = KVM_VCPUEVENT_VALID_NMI_PENDING;
    set_events(&b, "nmi", &e);
    say_events(&b, "with an nmi");
    e = none;
    e.interrupt.shadow = KVM_X86_SHADOW_INT_STI;
    e.flags = KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_NMI_PENDING;
    set_events(&b, "shadow", &e);
    say_events(&b, "with a shadow");
    e = none;
    e.exception.injected = 1;
    e.exception.nr = 32;
    set_events(&b, "exception 32", &e);
    e.exception.nr = 2;
    set_events(&b, "exception 2", &e);
    e = none;
    e.flags = 1u << 31;
    set_events(&b, "an unknown flag", &e);
    box_close(&b);
}

static void set_mp(struct box *b, const char *what, uint32_t state)
{
    struct kvm_mp_state m = {state};

    say_result(b->c, what, call(b->c, b->cpu, KVM_SET_MP_STATE, &m));
}

static void mp_state(struct conform *c)
{
    struct kvm_mp_state m = {99};
    struct box b;

    if (!box_open(c, &b, false))
        return;
    say_result(c, "get", call(c, b.cpu, KVM_GET_MP_STATE, &m));
    say(c, "power on", "%u", m.mp_state);
    set_mp(&b, "runnable", KVM_MP_STATE_RUNNABLE);
    set_mp(&b, "halted, without an APIC", KVM_MP_STATE_HALTED);
    set_mp(&b, "unknown", 99);
    box_close(&b);
}

#define CPUID_1_SSE2 (1u << 26) /* of EDX; all have it, and no kernel changes it */

/* EDX of leaf 1; NULL if it is not there. */
static uint32_t *leaf_1_edx(struct kvm_cpuid2 *list)
{
    for (unsigned i = 0; i < list->nent && i < 256; i++) {
        if (list->entries[i].function == 1)
            return &list->entries[i].edx;
    }
    return NULL;
}

static void say_hidden(struct box *b, struct kvm_cpuid2 *all, struct kvm_cpuid2 *back)
{
    uint32_t *set = leaf_1_edx(all), *seen;

    if (set == NULL || (*set & CPUID_1_SSE2) == 0) {
        say(b->c, "a feature", "is not there");
        return;
    }
    *set &= ~CPUID_1_SSE2;
    say_result(b->c, "set without a feature", call(b->c, b->cpu, KVM_SET_CPUID2, all));
    back->nent = 256;
    call(b->c, b->cpu, KVM_GET_CPUID2, back);
    seen = leaf_1_edx(back);
    say(b->c, "it is", "%s", seen == NULL || (*seen & CPUID_1_SSE2) != 0 ? "shown" : "hidden");
}

static void cpuid(struct conform *c)
{
    size_t size = sizeof(struct kvm_cpuid2) + 256 * sizeof(struct kvm_cpuid_entry2);
    struct kvm_cpuid2 *all = calloc(1, size), *back = calloc(1, size);
    struct box b;

    if (all == NULL || back == NULL || !box_open(c, &b, false))
        return;
    all->nent = 1;
    say_result(c, "supported, no room", call(c, c->kvm, KVM_GET_SUPPORTED_CPUID, all));
    all->nent = 256;
    say_result(c, "supported", call(c, c->kvm, KVM_GET_SUPPORTED_CPUID, all));
    say(c, "its first leaf", "%u, %s", all->entries[0].function,
        all->entries[0].eax >= 7 ? "with enough others" : "with too few others");
    say_result(c, "set", call(c, b.cpu, KVM_SET_CPUID2, all));
    back->nent = 0;
    say_result(c, "get, no room", call(c, b.cpu, KVM_GET_CPUID2, back));
    back->nent = 256;
    say_result(c, "get", call(c, b.cpu, KVM_GET_CPUID2, back));
    say(c, "entries", "%s",
        back->nent == all->nent && back->entries[0].ebx == all->entries[0].ebx ? "as set"
                                                                               : "not as set");
    say_hidden(&b, all, back);
    all->nent = 100000;
    say_result(c, "set too many", call(c, b.cpu, KVM_SET_CPUID2, all));
    box_close(&b);
    free(all);
    free(back);
}

static void others(struct conform *c)
{
    _Alignas(8) uint8_t room[sizeof(struct kvm_signal_mask) + 8] = {0};
    struct kvm_signal_mask *mask = (void *)room;
    struct kvm_lapic_state lapic;
    struct kvm_interrupt irq = {256};
    struct box b;
    int khz;

    if (!box_open(c, &b, false))
        return;
    mask->len = 3;
    say_result(c, "signal mask of a wrong size", call(c, b.cpu, KVM_SET_SIGNAL_MASK, mask));
    mask->len = 8;
    say_result(c, "signal mask", call(c, b.cpu, KVM_SET_SIGNAL_MASK, mask));
    say_result(c, "no signal mask", call(c, b.cpu, KVM_SET_SIGNAL_MASK, NULL));
    khz = call_n(c, b.cpu, KVM_GET_TSC_KHZ, 0);
    say(c, "TSC", "%s", khz > 1000 ? "has a rate" : "has none");
    say_result(c, "set its rate", call_n(c, b.cpu, KVM_SET_TSC_KHZ, (uintptr_t)khz));
    say_result(c, "clock", call_n(c, b.cpu, KVM_KVMCLOCK_CTRL, 0));
    say_result(c, "get no APIC", call(c, b.cpu, KVM_GET_LAPIC, &lapic));
    say_result(c, "set no APIC", call(c, b.cpu, KVM_SET_LAPIC, &lapic));
    say_result(c, "interrupt 256", call(c, b.cpu, KVM_INTERRUPT, &irq));
    box_close(&b);
}

const struct step state_steps[] = {
    {"regs", regs},         {"sregs", sregs}, {"sregs2", sregs2},       {"fpu", fpu},
    {"xsave", xsave},       {"xcrs", xcrs},   {"debugregs", debugregs}, {"events", events},
    {"mp-state", mp_state}, {"cpuid", cpuid}, {"others", others},       {NULL, NULL},
};
