/* Linear addresses: canonical form, accesses across pages, instruction fetches at page ends. */
#include "bare.h"

#define CANON "SDM Vol.1, canonical addressing"
#define CROSS "SDM Vol.3, page-fault exceptions"
#define FETCH "SDM Vol.3, page-fault exceptions, instruction fetch"

#define OUTSIDE 0x8000000000000000ul
#define LOWER_END 0x0000800000000000ul /* the first address that is not canonical */
#define UPPER_START 0xffff800000000000ul

extern uint64_t pml4[512];

struct address_case {
    const char *name;
    struct code code;
};

/* RDI = RSI = RBX = RAX = a non-canonical address. */
static void data(void)
{
    const struct address_case cases[] = {
        {"address.load", CODE("mov al, [rdi]")},
        {"address.store", CODE("mov [rdi], al")},
        {"address.modify", CODE("lock add [rdi], eax")},
        {"address.index-rbp", CODE(".byte 0x8a, 0x04, 0x29")}, /* mov al, [rcx + rbp] */
        {"address.fs-rbp", CODE("mov al, fs:[rbp]")},
        {"address.lods", CODE("lodsb")},
        {"address.stos", CODE("stosb")},
        {"address.movs", CODE("rep movsb")},
        {"address.scas", CODE("scasb")},
        {"address.push-memory", CODE("push qword ptr [rdi]")},
        {"address.pop-memory", CODE("pop qword ptr [rdi]")},
        {"address.jump-memory", CODE("jmp qword ptr [rdi]")},
        {"address.call-memory", CODE("call qword ptr [rdi]")},
        {"address.lgdt-memory", CODE("lgdt [rdi]")},
        {"address.fxsave", CODE("fxsave [rdi]")},
        {"address.cmpxchg16b", CODE("cmpxchg16b [rdi]")},
        {"address.moffs", CODE(".byte 0xa0, 0, 0, 0, 0, 0, 0, 0, 0x80")},
        {"address.clflush", CODE("clflush [rdi]")},
        {"address.xlat", CODE("xlatb")},
        {"address.jump", CODE("jmp rdi")},
        {"address.call", CODE("call rdi")},
    };

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct cpu c = kernel(cases[i].code);
        word sp = c.sp - 64;

        c.bx = c.di = c.si = c.bp = OUTSIDE;
        c.cx = 1;
        c.sp = sp;
        run(&c);
        check_fault(cases[i].name, CANON, &c, V_GP, 0);
        if (i >= 19)
            check(joined(cases[i].name, "-keeps-rsp", ""), CANON, c.sp, sp);
    }
}

/* RSP = RBP = a non-canonical address. */
static void stack(void)
{
    const struct address_case cases[] = {
        {"address.rbp", CODE("mov al, [rbp]")},
        {"address.rsp", CODE("mov [rsp], al")},
        {"address.rbp-index", CODE("mov al, [rbp + rcx * 2]")},
        {"address.push", CODE("push rcx")},
        {"address.push-immediate", CODE("push 1")},
        {"address.pop", CODE("pop rcx")},
        {"address.call-stack", CODE("call 1f\n 1:")},
        {"address.ret-stack", CODE("ret")},
        {"address.leave", CODE("leave")},
        {"address.enter", CODE("enter 8, 0")},
        {"address.iret-stack", CODE("iretq")},
        {"address.pushf", CODE("pushfq")},
        {"address.popf", CODE("popfq")},
        {"address.far-return-stack", CODE(".byte 0x48, 0xcb")},
    };

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct cpu c = kernel(cases[i].code);

        c.bp = c.sp = OUTSIDE;
        run(&c);
        check_fault(cases[i].name, CANON, &c, V_SS, 0);
    }
}

static void transfers(void)
{
    static struct descriptor_table table = {0x7f, OUTSIDE};
    static struct {
        word offset;
        uint16_t selector;
    } __attribute__((packed)) far = {OUTSIDE, S_CODE};
    struct cpu c = kernel(CODE("push rdi\n 9: ret"));
    word sp = c.sp;

    c.di = OUTSIDE;
    run_fault("address.ret-target", CANON, &c, V_GP, 0);
    check("address.ret-keeps-rsp", CANON, c.sp, sp - 8);
    c = kernel(CODE("push 8\n push rdi\n 9: .byte 0x48, 0xcb"));
    c.di = OUTSIDE;
    run_fault("address.far-return-target", CANON, &c, V_GP, 0);
    c = kernel(CODE("mov rax, rsp\n push 0x10\n push rax\n push 2\n push 8\n push rdi\n 9: iretq"));
    c.di = LOWER_END;
    run_fault("address.iret-target", CANON, &c, V_GP, 0);
    c = kernel(CODE("push 0x23\n push rax\n push 2\n push 0x2b\n push rdi\n 9: iretq"));
    c.di = LOWER_END;
    run_fault("address.iret-user-target", CANON, &c, V_GP, 0);
    c = kernel(CODE("lgdt [rdi]"));
    c.di = (word)&table;
    run_fault("address.lgdt-base", CANON, &c, V_GP, 0);
    c = kernel(CODE("lidt [rdi]"));
    c.di = (word)&table;
    run_fault("address.lidt-base", CANON, &c, V_GP, 0);
    require(intel(), "AMD has no far jumps with 64-bit offsets");
    c = kernel(CODE(".byte 0x48, 0xff, 0x2f")); /* jmp far [rdi] */
    c.di = (word)&far;
    run_fault("address.far-jump-target", CANON, &c, V_GP, 0);
    c = kernel(CODE(".byte 0x48, 0xff, 0x1f"));
    c.di = (word)&far;
    run_fault("address.far-call-target", CANON, &c, V_GP, 0);
    require_end();
}

/* The last page of the lower half holds frame 6, the first one of the upper half frame 7. */
static void map_edges(void)
{
    test_pages_reset();
    pml4[255] = *test_entry[4];
    pml4[256] = *test_entry[4];
    test_entry[3][511] = *test_entry[3];
    test_entry[2][511] = *test_entry[2];
    test_entry[1][511] = (word)test_frame[6] | 7;
    *test_entry[1] = (word)test_frame[7] | 7;
    flush_tlb();
}

static void edges(void)
{
    struct cpu c;

    map_edges();
    for (unsigned i = 0; i < 4096; i++)
        test_frame[6][i] = 0x90;
    expect_access("address.last-of-lower", CANON, 'r', 0, LOWER_END - 1, NO_FAULT);
    expect_access("address.first-of-upper", CANON, 'r', 0, UPPER_START, NO_FAULT);
    expect_access("address.user-first-of-upper", CANON, 'r', 3, UPPER_START, NO_FAULT);
    c = kernel(CODE("mov al, [rdi]"));
    c.di = LOWER_END;
    run_fault("address.first-outside", CANON, &c, V_GP, 0);
    c.ip = c.code.start;
    c.di = UPPER_START - 1;
    run_fault("address.last-outside", CANON, &c, V_GP, 0);
    c = kernel(CODE("mov rax, [rdi]"));
    c.di = LOWER_END - 8;
    run_done("address.up-to-the-edge", CANON, &c);
    c = kernel(CODE("mov rax, [rdi]"));
    c.di = LOWER_END - 7;
    run_fault("address.across-the-edge", CANON, &c, V_GP, 0);
    c = kernel(CODE("mov [rdi], rax"));
    c.di = LOWER_END - 4;
    run_fault("address.store-across", CANON, &c, V_GP, 0);
    check("address.store-across-writes-nothing", CANON,
          *(volatile uint32_t *)(test_frame[6] + 0xffc), 0x90909090);
    c = kernel(CODE("mov rax, [rbp]"));
    c.bp = LOWER_END - 4;
    run_fault("address.stack-across", CANON, &c, V_SS, 0);
    c = kernel(CODE("jmp rdi"));
    c.di = LOWER_END - 2; /* two NOPs, and out */
    run(&c);
    check_event("address.run-outside", CANON, &c, V_GP, 0, LOWER_END);
    test_frame[6][4095] = 0xb8; /* mov eax, immediate */
    c = kernel(CODE("jmp rdi"));
    c.di = LOWER_END - 1;
    run(&c);
    check_event("address.fetch-across", CANON, &c, V_GP, 0, LOWER_END - 1);
    test_frame[6][4094] = 0xcd; /* the last instruction does not need the next page */
    test_frame[6][4095] = 0x80;
    c = kernel(CODE("jmp rdi"));
    c.di = LOWER_END - 2;
    run(&c);
    check_event("address.interrupt-at-the-edge", CANON, &c, V_DONE, NO_ERROR, LOWER_END);
    pml4[255] = pml4[256] = 0;
    test_pages_reset();
}

/* An access of several bytes from TEST_VA + offset on, with some of its two pages changed. */
static void cross(const char *name, struct code code, unsigned cpl, unsigned offset, uint64_t first,
                  uint64_t second, uint32_t error, word cr2)
{
    struct cpu c = at_level(code, cpl);
    volatile uint32_t *low = (volatile uint32_t *)(test_frame[0] + 0xffc);

    test_pages_reset();
    *low = 0x11111111;
    test_entry[1][0] &= ~first;
    test_entry[1][1] &= ~second;
    flush_tlb();
    c.di = TEST_VA + offset;
    c.si = (word)user_page[0];
    c.sp = TEST_VA + offset + 8;
    run(&c);
    check_pf(name, CROSS, &c, error, cr2);
    if (error & 2)
        check(joined(name, "-writes-nothing", ""), CROSS, *low, 0x11111111);
}

static void crossing(void)
{
    const word second = TEST_VA + 0x1000;

    cross("cross.read", CODE("mov rax, [rdi]"), 0, 0xffc, 0, PTE_P, 0, second);
    cross("cross.read-first", CODE("mov rax, [rdi]"), 0, 0xffc, PTE_P, 0, 0, TEST_VA + 0xffc);
    cross("cross.write", CODE("mov [rdi], rax"), 0, 0xffc, 0, PTE_P, 2, second);
    cross("cross.write-first", CODE("mov [rdi], rax"), 0, 0xffc, PTE_P, 0, 2, TEST_VA + 0xffc);
    cross("cross.write-readonly", CODE("mov [rdi], rax"), 0, 0xffc, 0, PTE_W, 3, second);
    cross("cross.add", CODE("add [rdi], rsi"), 0, 0xffc, 0, PTE_W, 3, second);
    cross("cross.xchg", CODE("xchg [rdi], rax"), 0, 0xffc, 0, PTE_W, 3, second);
    cross("cross.locked", CODE("lock inc qword ptr [rdi]"), 0, 0xffc, 0, PTE_W, 3, second);
    cross("cross.push", CODE("push rsi"), 0, 0xffc, 0, PTE_P, 2, second);
    cross("cross.pushf", CODE("pushfq"), 0, 0xffc, 0, PTE_P, 2, second);
    cross("cross.call", CODE("call 1f\n 1:"), 0, 0xffc, 0, PTE_P, 2, second);
    cross("cross.movs", CODE("movsq"), 0, 0xffc, 0, PTE_P, 2, second);
    cross("cross.stos", CODE("stosq"), 0, 0xffd, 0, PTE_P, 2, second);
    cross("cross.bts", CODE("bts qword ptr [rdi], 63"), 0, 0xffc, 0, PTE_W, 3, second);
    cross("cross.pop-memory", CODE("mov rsp, rsi\n 9: pop qword ptr [rdi]"), 0, 0xffc, 0, PTE_P, 2,
          second);
    cross("cross.sgdt", CODE("sgdt [rdi]"), 0, 0xff8, 0, PTE_W, 3, second);
    cross("cross.user-read", UCODE("mov rax, [rdi]"), 3, 0xffc, 0, PTE_U, 5, second);
    cross("cross.user-write", UCODE("mov [rdi], rax"), 3, 0xffc, 0, PTE_U, 7, second);
    cross("cross.user-write-first", UCODE("mov [rdi], rax"), 3, 0xffc, PTE_U, 0, 7,
          TEST_VA + 0xffc);
}

/* Bytes at the end of the first test page; the second is changed. Jumped to. */
static struct cpu fetch(const char *bytes, unsigned len, unsigned cpl, uint64_t clear, uint64_t set)
{
    struct cpu c = at_level(cpl == 3 ? UCODE("jmp rdi") : CODE("jmp rdi"), cpl);

    test_pages_reset();
    for (unsigned i = 0; i < len; i++)
        test_frame[0][4096 - len + i] = (uint8_t)bytes[i];
    test_entry[1][1] = (test_entry[1][1] & ~clear) | set;
    flush_tlb();
    c.di = TEST_VA + 4096 - len;
    run(&c);
    return c;
}

static void fetches(void)
{
    const word second = TEST_VA + 0x1000;
    struct cpu c = fetch("\xb8\x01", 2, 0, PTE_P, 0);

    check_pf_at("fetch.across", FETCH, &c, 0x10, second, second - 2);
    check("fetch.across-changes-nothing", FETCH, c.ax, 0);
    c = fetch("\xb8\x01", 2, 3, PTE_P, 0);
    check_pf_at("fetch.user-across", FETCH, &c, 0x14, second, second - 2);
    c = fetch("\xb8\x01", 2, 0, 0, PTE_NX);
    check_pf_at("fetch.across-nx", FETCH, &c, 0x11, second, second - 2);
    c = fetch("\xb8\x01", 2, 3, PTE_U, 0);
    check_pf_at("fetch.user-across-supervisor", FETCH, &c, 0x15, second, second - 2);
    c = fetch("\x90", 1, 0, PTE_P, 0);
    check_pf_at("fetch.next-page", FETCH, &c, 0x10, second, second);
    c = fetch("\xff\xc0", 2, 0, PTE_P, 0); /* inc eax: done before the fault */
    check("fetch.last-completes", FETCH, c.ax, 1);
    c = fetch("\xcd\x80", 2, 0, PTE_P, 0);
    check_event("fetch.end-of-page", FETCH, &c, V_DONE, NO_ERROR, second);
    c = fetch("\x0f\x0b", 2, 0, PTE_P, 0);
    check_event("fetch.undefined-at-end", FETCH, &c, V_UD, NO_ERROR, second - 2);
    c = fetch("\x0f", 1, 0, PTE_P, 0);
    check_pf_at("fetch.half-opcode", FETCH, &c, 0x10, second, second - 1);
    c = fetch("\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66", 14, 0, PTE_P, 0);
    check_pf_at("fetch.prefixes", FETCH, &c, 0x10, second, second - 14);
    c = fetch("\x48\x89", 2, 0, PTE_P, 0);
    check_pf_at("fetch.modrm", FETCH, &c, 0x10, second, second - 2);
    c = fetch("\xeb\x7f", 2, 0, PTE_P, 0); /* a jump into the absent page */
    check_pf_at("fetch.jump-target", FETCH, &c, 0x10, second + 0x7f, second + 0x7f);
    c = fetch("\xe8\x10\x00\x00\x00", 5, 0, PTE_P, 0);
    check_pf_at("fetch.call-target", FETCH, &c, 0x10, second + 0x10, second + 0x10);
    check("fetch.call-has-pushed", FETCH, c.sp, (word)fragment_stack_top - 8);
    test_pages_reset();
}

static void cr2_value(void)
{
    struct cpu c;

    test_pages_reset();
    *test_entry[1] = 0;
    flush_tlb();
    c = kernel(CODE("mov al, [rdi]"));
    c.di = 0xffffffff80000123ul;
    run(&c);
    check_pf("address.cr2-64-bits", CROSS, &c, 0, 0xffffffff80000123ul);
    c = kernel(CODE("mov al, [rdi]"));
    c.di = OUTSIDE;
    run(&c);
    check("address.gp-leaves-cr2", CROSS, c.vector == V_GP ? c.cr2 : 0, 0x5a5a);
    wrmsr(0xc0000100, TEST_VA);
    c = kernel(CODE("mov al, fs:[rdi]"));
    c.di = 0x18;
    run(&c);
    wrmsr(0xc0000100, 0);
    check_pf("address.cr2-fs-base", CROSS, &c, 0, TEST_VA + 0x18);
    c = kernel(CODE("mov al, [edi]"));
    c.di = 0xabcd000000000000ul | (word)user_page[0];
    run_done("address.size-prefix-truncates", "SDM Vol.1, address-size prefix", &c);
    c = kernel(CODE("mov al, [edi + 2]"));
    c.di = 0xffffffff;
    run_done("address.size-prefix-wraps", "SDM Vol.1, address-size prefix", &c);
    c = kernel(CODE("mov al, [rdi + 2]"));
    c.di = 0xffffffff;
    run(&c);
    check_pf("address.no-wrap-at-4g", CROSS, &c, 0, 0x100000001ul);
    c = kernel(CODE("mov al, [rdi - 2]"));
    c.di = 1; /* wraps to the top of the upper half */
    run(&c);
    check_pf("address.wrap-at-zero", CROSS, &c, 0, 0xfffffffffffffffful);
    test_pages_reset();
}

void test(void)
{
    data();
    stack();
    transfers();
    edges();
    crossing();
    fetches();
    cr2_value();
}
