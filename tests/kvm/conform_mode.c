/* Conformance: protected and 64-bit mode, set from outside; MSRs that exit. */
#include "conform.h"

#include <string.h>

static void protected_mode(struct conform *c)
{
    static const uint8_t code[] = {
        0xa1, 0x04, 0x00, 0x00, 0xd0,       /* mov eax, [0xd0000004] */
        0xa3, 0x08, 0x00, 0x00, 0xd0,       /* mov [0xd0000008], eax */
        0x66, 0xe7, 0x10,                   /* out 0x10, ax */
        0x66, 0x8c, 0xd8, 0xe7, 0x11, 0xf4, /* mov ax, ds; out 0x11, eax; hlt */
    };
    struct box b;

    if (!box_open(c, &b, false))
        return;
    flat_start(&b, false, code, sizeof(code));
    box_run(&b, "read");
    box_data(&b, 0x89abcdef);
    box_run(&b, "write");
    box_run(&b, "out ax");
    box_run(&b, "out eax");
    box_run(&b, "end");
    box_close(&b);
}

static void long_mode(struct conform *c)
{
    static const uint8_t code[] = {
        0xbb, 0x10, 0x00, 0x00, 0xd0,                               /* mov ebx, 0xd0000010 */
        0x48, 0x8b, 0x03,                                           /* mov rax, [rbx] */
        0x48, 0x89, 0x43, 0x08,                                     /* mov [rbx+8], rax */
        0x49, 0xbf, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, /* mov r15, ... */
        0x4c, 0x89, 0xf8,                                           /* mov rax, r15 */
        0x88, 0x03,                                                 /* mov [rbx], al */
        0xf4,
    };
    struct kvm_sregs s;
    struct box b;

    if (!box_open(c, &b, false))
        return;
    flat_start(&b, true, code, sizeof(code));
    box_run(&b, "read of eight");
    box_data(&b, 0x0123456789abcdefull);
    box_run(&b, "write of eight");
    box_run(&b, "write of one");
    box_run(&b, "end");
    say_regs(&b, "registers");
    call(c, b.cpu, KVM_GET_SREGS, &s);
    say(c, "mode", "efer %#llx l %u", (unsigned long long)s.efer, s.cs.l);
    box_close(&b);
}

/* Real mode to protected mode by the guest itself, as every kernel's start does. */
static void enter_protected(struct conform *c)
{
    static const uint8_t code[] = {
        0x66, 0x0f, 0x01, 0x16, 0x00, 0x30,             /* lgdt [0x3000], 32-bit base */
        0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0, /* mov eax, cr0; or al, 1; mov cr0, eax */
        0xea, 0x13, 0x10, 0x08, 0x00,                   /* jmp 8:0x1013 */
        0xb8, 0x10, 0x00, 0x00, 0x00, 0x8e, 0xd8,       /* mov eax, 0x10; mov ds, ax */
        0xa2, 0x00, 0x00, 0x00, 0xe0, 0xf4,             /* mov [0xe0000000], al; hlt */
    };
    const uint64_t gdt[3] = {0, 0x00cf9b000000ffffull, 0x00cf93000000ffffull};
    static const uint8_t table[] = {0x17, 0x00, 0x10, 0x30, 0x00, 0x00}; /* at 0x3010 */
    struct kvm_sregs s;
    struct box b;

    if (!box_open(c, &b, false))
        return;
    START(&b, code);
    box_code(&b, 0x3000, table, sizeof(table));
    box_code(&b, 0x3010, gdt, sizeof(gdt));
    box_run(&b, "write");
    box_run(&b, "end");
    call(c, b.cpu, KVM_GET_SREGS, &s);
    say(c, "cs", "selector %#x limit %#x db %u", s.cs.selector, s.cs.limit, s.cs.db);
    say(c, "cr0", "%#llx", (unsigned long long)s.cr0 & 1);
    box_close(&b);
}

/* A code segment of 64 and 32 bits at once. */
static void fail_entry(struct conform *c)
{
    static const uint8_t code[] = {0xf4};
    struct kvm_sregs s;
    struct box b;

    if (!box_open(c, &b, false))
        return;
    flat_start(&b, true, code, sizeof(code));
    call(c, b.cpu, KVM_GET_SREGS, &s);
    s.cs.db = 1;
    say_result(c, "set", call(c, b.cpu, KVM_SET_SREGS, &s));
    box_run(&b, "run");
    box_close(&b);
}

const struct step mode_steps[] = {
    {"protected", protected_mode}, {"long", long_mode}, {"enter-protected", enter_protected},
    {"fail-entry", fail_entry},    {NULL, NULL},
};

/* ---- MSRs ---- */

#define MSR_NONE 0x7fffdeadu
#define MSR_PAT 0x277u
#define MSR_SYSENTER_CS 0x174u

static int msrs(struct box *b, unsigned long request, const uint32_t *index, unsigned n,
                uint64_t *value)
{
    _Alignas(8) uint8_t room[sizeof(struct kvm_msrs) + 4 * sizeof(struct kvm_msr_entry)] = {0};
    struct kvm_msrs *list = (void *)room;
    struct kvm_msr_entry *e = list->entries;
    int rc;

    list->nmsrs = n;
    for (unsigned i = 0; i < n; i++)
        e[i] = (struct kvm_msr_entry){.index = index[i], .data = value[i]};
    rc = call(b->c, b->cpu, request, list);
    for (unsigned i = 0; i < n; i++)
        value[i] = e[i].data;
    return rc;
}

static void msr_state(struct conform *c)
{
    static const uint32_t good[4] = {MSR_SYSENTER_CS, 0xc0000082u, 0xc0000102u, MSR_PAT};
    static const uint32_t mixed[3] = {MSR_SYSENTER_CS, MSR_NONE, MSR_PAT};
    uint64_t value[4] = {0x10, 0xffffffff81000000ull, 0x1234560000ull, 0x0007040600070406ull};
    struct kvm_msr_list list = {.nmsrs = 0};
    struct box b;

    if (!box_open(c, &b, false))
        return;
    say_result(c, "list, no room", call(c, c->kvm, KVM_GET_MSR_INDEX_LIST, &list));
    say(c, "list", "%s", list.nmsrs > 10 ? "has entries" : "has too few");
    say(c, "set", "%d", msrs(&b, KVM_SET_MSRS, good, 4, value));
    memset(value, 0, sizeof(value));
    say(c, "get", "%d", msrs(&b, KVM_GET_MSRS, good, 4, value));
    say(c, "values", "%#llx %#llx %#llx %#llx", (unsigned long long)value[0],
        (unsigned long long)value[1], (unsigned long long)value[2], (unsigned long long)value[3]);
    say(c, "set, the second unknown", "%d", msrs(&b, KVM_SET_MSRS, mixed, 3, value));
    say(c, "get, the second unknown", "%d", msrs(&b, KVM_GET_MSRS, mixed, 3, value));
    value[0] = 2; /* no memory type */
    say(c, "set PAT to what it cannot be", "%d", msrs(&b, KVM_SET_MSRS, good + 3, 1, value));
    box_close(&b);
}

static int exits(struct box *b, uint64_t which)
{
    struct kvm_enable_cap cap = {.cap = KVM_CAP_X86_USER_SPACE_MSR, .args = {which}};

    return call(b->c, b->vm, KVM_ENABLE_CAP, &cap);
}

/* mov ecx, index; rdmsr; out 0x10, eax; mov eax, 2; wrmsr; hlt */
static void start_msr(struct box *b, uint32_t index)
{
    uint8_t code[] = {0x66, 0xb9, 0,    0, 0, 0, 0x0f, 0x32, 0x66, 0xe7,
                      0x10, 0x66, 0xb8, 2, 0, 0, 0,    0x0f, 0x30, 0xf4};
    static const uint8_t handler[] = {0xe6, 0x0d, 0xf4}; /* of #GP: out 0x0d, al; hlt */

    memcpy(code + 2, &index, sizeof(index));
    START(b, code);
    HANDLER(b, 13, 0x2000, handler);
}

static void msr_fault(struct conform *c)
{
    struct box b;

    if (!box_open(c, &b, false))
        return;
    start_msr(&b, MSR_NONE);
    box_run(&b, "unknown");
    start_msr(&b, MSR_PAT);
    box_run(&b, "known");
    box_run(&b, "a value that it cannot have");
    box_close(&b);
}

static void msr_exit(struct conform *c)
{
    struct box b;

    if (!box_open(c, &b, false))
        return;
    say_result(c, "enable", exits(&b, KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_INVAL));
    start_msr(&b, MSR_NONE);
    box_run(&b, "read");
    b.run->msr.data = 0x1122334455667788ull;
    box_run(&b, "answered");
    say_regs(&b, "registers");
    box_run(&b, "write");
    box_run(&b, "taken");
    start_msr(&b, MSR_NONE);
    box_run(&b, "read again");
    b.run->msr.error = 1;
    box_run(&b, "refused");
    start_msr(&b, MSR_PAT);
    box_run(&b, "known");
    box_run(&b, "a value that it cannot have");
    b.run->msr.error = 1;
    box_run(&b, "refused too");
    box_close(&b);
}

static void msr_filter(struct conform *c)
{
    uint8_t none = 0;
    struct kvm_msr_filter f = {
        .ranges[0] = {
            .flags = KVM_MSR_FILTER_READ, .nmsrs = 1, .base = MSR_SYSENTER_CS, .bitmap = &none}};
    struct box b;

    if (!box_open(c, &b, false))
        return;
    say_result(c, "enable", exits(&b, KVM_MSR_EXIT_REASON_FILTER));
    say_result(c, "filter", call(c, b.vm, KVM_X86_SET_MSR_FILTER, &f));
    start_msr(&b, MSR_SYSENTER_CS);
    box_run(&b, "read");
    b.run->msr.data = 0x99;
    box_run(&b, "answered");
    box_run(&b, "written without an exit");
    start_msr(&b, MSR_NONE);
    box_run(&b, "unknown is not asked for");
    say_result(c, "no exits", exits(&b, 0));
    start_msr(&b, MSR_SYSENTER_CS);
    box_run(&b, "filtered, no exits");
    f.flags = 2;
    say_result(c, "an unknown flag", call(c, b.vm, KVM_X86_SET_MSR_FILTER, &f));
    memset(&f, 0, sizeof(f));
    f.flags = KVM_MSR_FILTER_DEFAULT_DENY;
    say_result(c, "nothing allowed", call(c, b.vm, KVM_X86_SET_MSR_FILTER, &f));
    box_close(&b);
}

const struct step msr_steps[] = {
    {"msr-state", msr_state},
    {"msr-fault", msr_fault},
    {"msr-exit", msr_exit},
    {"msr-filter", msr_filter},
    {NULL, NULL},
};
