/* Control registers and model-specific registers: reserved bits, forbidden changes, rights. */
#include "bare.h"

#define CR "SDM Vol.3, control registers"
#define MOVCR "SDM Vol.2, MOV to and from control registers"
#define MSRS "SDM Vol.3, model-specific registers"
#define EFER_T "SDM Vol.3, IA32_EFER"
#define MTRR "SDM Vol.3, memory type range registers"
#define PAT "SDM Vol.3, page attribute table"

#define MSR_EFER 0xc0000080
#define MSR_PAT 0x277

enum { TO_CR0, TO_CR3, TO_CR4, TO_CR8 };

static struct cpu write_cr(unsigned which, word value)
{
    struct cpu c = kernel(which == TO_CR0   ? CODE("mov cr0, rax")
                          : which == TO_CR3 ? CODE("mov cr3, rax")
                          : which == TO_CR4 ? CODE("mov cr4, rax")
                                            : CODE("mov cr8, rax"));

    c.ax = value;
    run(&c);
    return c;
}

static void refused(const char *name, unsigned which, word value)
{
    struct cpu c = write_cr(which, value);

    check_fault(name, CR, &c, V_GP, 0);
}

static void control0(void)
{
    word old = cr0();
    struct cpu c;

    refused("cr0.pg-off-in-64-bit", TO_CR0, old & ~CR0_PG);
    refused("cr0.pe-off", TO_CR0, old & ~CR0_PE);
    refused("cr0.nw-without-cd", TO_CR0, old | CR0_NW);
    refused("cr0.bit32", TO_CR0, old | 1ul << 32);
    refused("cr0.bit63", TO_CR0, old | 1ul << 63);
    check("cr0.refused-changes-nothing", CR, cr0(), old);
    c = write_cr(TO_CR0, old & ~0x10ul);
    check("cr0.et-stays", CR, c.vector == V_DONE ? cr0() : 0, old | 0x10);
    c = write_cr(TO_CR0, old | 1ul << 6 | 1ul << 15 | 1ul << 17 | 1ul << 28);
    check("cr0.reserved-ignored", CR, c.vector == V_DONE ? cr0() : 0, old);
    set_cr0(old | CR0_TS | CR0_MP | CR0_EM);
    check("cr0.task-bits", CR, cr0(), old | CR0_TS | CR0_MP | CR0_EM);
    c = kernel(CODE("clts"));
    run(&c);
    check("cr0.clts", "SDM Vol.2, CLTS", cr0(), old | CR0_MP | CR0_EM);
    c = kernel(CODE("mov eax, 9\n lmsw ax"));
    run(&c);
    check("cr0.lmsw-sets", "SDM Vol.2, LMSW", cr0(), (old & ~0xful) | 9);
    c = kernel(CODE("xor eax, eax\n lmsw ax"));
    run(&c);
    check("cr0.lmsw-keeps-pe", "SDM Vol.2, LMSW", cr0(), (old & ~0xful) | 1);
    set_cr0(old);
    c = kernel(CODE("smsw rax"));
    run(&c);
    check("cr0.smsw", "SDM Vol.2, SMSW", c.ax & 0xffff, old & 0xffff);
    c = user(UCODE("smsw ax"));
    run(&c);
    check("cr0.user-smsw", "SDM Vol.2, SMSW", c.vector == V_DONE ? c.ax & 0xffff : 0, old & 0xffff);
}

static void control3(void)
{
    uint64_t above = ~physical_mask() & PTE_ADDR;
    word root = cr3();

    require(above != 0, "MAXPHYADDR is 52");
    refused("cr3.maxphyaddr", TO_CR3, root | (above & -above));
    require_end();
    require((above & 1ull << 51) != 0, "MAXPHYADDR is 52");
    refused("cr3.bit51", TO_CR3, root | 1ul << 51);
    require_end();
    refused("cr3.bit63-without-pcid", TO_CR3, root | 1ul << 63);
    set_cr3(root | PTE_PWT | PTE_PCD);
    check("cr3.cache-bits", CR, cr3(), root | PTE_PWT | PTE_PCD);
    set_cr3(root);
}

static void control4(void)
{
    static const struct {
        const char *name;
        uint32_t leaf;
        uint8_t reg, bit;
        word flag;
    } features[] = {
        {"cr4.la57-unoffered", 7, 2, 16, CR4_LA57},
        {"cr4.pcide-unoffered", 1, 2, 17, CR4_PCIDE},
        {"cr4.fsgsbase-unoffered", 7, 1, 0, CR4_FSGSBASE},
        {"cr4.osxsave-unoffered", 1, 2, 26, CR4_OSXSAVE},
        {"cr4.smep-unoffered", 7, 1, 7, CR4_SMEP},
        {"cr4.smap-unoffered", 7, 1, 20, CR4_SMAP},
        {"cr4.pke-unoffered", 7, 2, 3, CR4_PKE},
        {"cr4.pks-unoffered", 7, 2, 31, CR4_PKS},
        {"cr4.umip-unoffered", 7, 2, 2, CR4_UMIP},
        {"cr4.vmxe-unoffered", 1, 2, 5, 1ul << 13},
        {"cr4.smxe-unoffered", 1, 2, 6, 1ul << 14},
        {"cr4.cet-unoffered", 7, 2, 7, 1ul << 23},
    };
    word old = cr4();

    refused("cr4.pae-off", TO_CR4, old & ~CR4_PAE);
    refused("cr4.bit15", TO_CR4, old | 1ul << 15);
    refused("cr4.bit31", TO_CR4, old | 1ul << 31);
    refused("cr4.bit33", TO_CR4, old | 1ul << 33);
    refused("cr4.bit63", TO_CR4, old | 1ul << 63);
    for (unsigned i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
        require(!cpuid_bit(features[i].leaf, 0, features[i].reg, features[i].bit), "it is offered");
        refused(features[i].name, TO_CR4, old | features[i].flag);
        require_end();
    }
    require(cpuid_bit(7, 0, 2, 16), "LA57 is not offered");
    refused("cr4.la57-in-64-bit", TO_CR4, old ^ CR4_LA57);
    require_end();
    check("cr4.refused-changes-nothing", CR, cr4(), old);
    set_cr4(old | CR4_TSD | CR4_DE | CR4_PSE | CR4_MCE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT);
    check("cr4.ordinary-bits", CR, cr4(),
          old | CR4_TSD | CR4_DE | CR4_PSE | CR4_MCE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT);
    set_cr4(old);
}

static void control8(void)
{
    struct cpu c;

    write_cr(TO_CR8, 9);
    c = kernel(CODE("mov rax, cr8"));
    run(&c);
    check("cr8.reads-back", CR, c.ax, 9);
    refused("cr8.bit4", TO_CR8, 0x10);
    refused("cr8.bit63", TO_CR8, 1ul << 63);
    write_cr(TO_CR8, 0);
}

static void moves(void)
{
    static const struct {
        const char *name;
        uint8_t modrm, rex;
    } absent[] = {{"cr1", 0xc8, 0x40}, {"cr5", 0xe8, 0x40}, {"cr6", 0xf0, 0x40},
                  {"cr7", 0xf8, 0x40}, {"cr9", 0xc8, 0x44}, {"cr15", 0xf8, 0x44}};
    struct cpu c;

    for (unsigned i = 0; i < sizeof(absent) / sizeof(absent[0]); i++) {
        uint8_t *p = test_frame[0];

        for (unsigned to = 0; to < 2; to++) {
            p[0] = absent[i].rex;
            p[1] = 0x0f;
            p[2] = (uint8_t)(0x20 + 2 * to);
            p[3] = absent[i].modrm;
            c = kernel(CODE("jmp rdi"));
            c.di = TEST_VA;
            run(&c);
            check_event(joined(absent[i].name, to ? ".write" : ".read", ""), MOVCR, &c, V_UD,
                        NO_ERROR, TEST_VA);
        }
    }
    c = user(UCODE("mov rax, cr0"));
    run_fault("control.user-reads-cr0", MOVCR, &c, V_GP, 0);
    c = user(UCODE("mov rax, cr2"));
    run_fault("control.user-reads-cr2", MOVCR, &c, V_GP, 0);
    c = user(UCODE("mov cr3, rax"));
    run_fault("control.user-writes-cr3", MOVCR, &c, V_GP, 0);
    c = user(UCODE("mov rax, cr4"));
    run_fault("control.user-reads-cr4", MOVCR, &c, V_GP, 0);
    c = user(UCODE("mov rax, cr8"));
    run_fault("control.user-reads-cr8", MOVCR, &c, V_GP, 0);
    c = user(UCODE("mov rax, dr0"));
    run_fault("control.user-reads-dr0", MOVCR, &c, V_GP, 0);
    c = at_level(CODE("mov rax, cr0"), 1);
    run_fault("control.cpl1-reads-cr0", MOVCR, &c, V_GP, 0);
    c = user(UCODE("lmsw ax"));
    run_fault("control.user-lmsw", "SDM Vol.2, LMSW", &c, V_GP, 0);
    c = user(UCODE("clts"));
    run_fault("control.user-clts", "SDM Vol.2, CLTS", &c, V_GP, 0);
    c = kernel(CODE(".byte 0xf0, 0x0f, 0x22, 0xc0")); /* lock mov cr0 */
    c.ax = cr0();
    run(&c);
    require(intel(), "AMD means CR8 by it");
    check_fault("control.lock-mov-cr0", MOVCR, &c, V_UD, NO_ERROR);
    require_end();
    c = kernel(CODE(".byte 0x0f, 0x20, 0x00")); /* mod is ignored: mov rax, cr0 */
    run(&c);
    check("control.mod-ignored", MOVCR, c.vector == V_DONE ? c.ax : 0, cr0());
    c = kernel(CODE(".byte 0x66, 0x0f, 0x20, 0xc0")); /* always 64 bits */
    c.ax = ~0ul;
    run(&c);
    check("control.operand-size-ignored", MOVCR, c.vector == V_DONE ? c.ax : 0, cr0());
}

static void other_privileged(void)
{
    static const struct {
        const char *name;
        uint8_t bytes[4];
    } privileged[] = {
        {"user.hlt", {0xf4}},
        {"user.cli", {0xfa}},
        {"user.sti", {0xfb}},
        {"user.in", {0xec}},
        {"user.out", {0xee}},
        {"user.ins", {0x6c}},
        {"user.outs", {0x6e}},
        {"user.in-immediate", {0xe4, 0x80}},
        {"user.rdmsr", {0x0f, 0x32}},
        {"user.wrmsr", {0x0f, 0x30}},
        {"user.wbinvd", {0x0f, 0x09}},
        {"user.invd", {0x0f, 0x08}},
        {"user.ltr", {0x0f, 0x00, 0xd8}},
        {"user.lldt", {0x0f, 0x00, 0xd0}},
        {"user.lgdt", {0x0f, 0x01, 0x17}},
        {"user.lidt", {0x0f, 0x01, 0x1f}},
        {"user.swapgs", {0x0f, 0x01, 0xf8}},
        {"user.sysret", {0x48, 0x0f, 0x07}},
    };

    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | 1);
    test_pages_reset();
    for (unsigned i = 0; i < sizeof(privileged) / sizeof(privileged[0]); i++) {
        struct cpu c = user(UCODE("jmp rax"));

        for (unsigned b = 0; b < 4; b++)
            test_frame[0][b] = privileged[i].bytes[b];
        c.ax = TEST_VA;
        c.di = c.si = (word)user_page[0];
        c.dx = 0x80;
        run(&c);
        check_event(privileged[i].name, "SDM Vol.3, privileged instructions", &c, V_GP, 0, TEST_VA);
    }
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~1ull);
}

/* CR0.TS, CR0.EM, CR4.OSFXSR, CR4.TSD, CR4.OSXSAVE: what they forbid. */
static void gates_of_features(void)
{
    word old0 = cr0(), old4 = cr4();
    struct cpu c;

    set_cr4(old4 | CR4_OSFXSR);
    set_cr0(old0 | CR0_TS);
    c = kernel(CODE("fninit"));
    run_fault("ts.x87", CR, &c, V_NM, NO_ERROR);
    c = kernel(CODE("paddb mm0, mm1"));
    run_fault("ts.mmx", CR, &c, V_NM, NO_ERROR);
    c = kernel(CODE("addps xmm0, xmm1"));
    run_fault("ts.sse", CR, &c, V_NM, NO_ERROR);
    c = kernel(CODE("fxsave [rsp - 512]"));
    run_fault("ts.fxsave", CR, &c, V_NM, NO_ERROR);
    c = user(UCODE("addps xmm0, xmm1"));
    run_fault("ts.user-sse", CR, &c, V_NM, NO_ERROR);
    c = kernel(CODE("fwait"));
    run_done("ts.fwait-without-mp", CR, &c);
    set_cr0(old0 | CR0_TS | CR0_MP);
    c = kernel(CODE("fwait"));
    run_fault("ts.fwait-with-mp", CR, &c, V_NM, NO_ERROR);
    c = kernel(CODE("pause\n mfence\n sfence\n lfence\n prefetcht0 [rsp]\n movnti [rsp - 8], eax"));
    run_done("ts.integer-sse", CR, &c);
    set_cr0(old0 | CR0_EM);
    c = kernel(CODE("fninit"));
    run_fault("em.x87", CR, &c, V_NM, NO_ERROR);
    c = kernel(CODE("paddb mm0, mm1"));
    run_fault("em.mmx", CR, &c, V_UD, NO_ERROR);
    c = kernel(CODE("addps xmm0, xmm1"));
    run_fault("em.sse", CR, &c, V_UD, NO_ERROR);
    set_cr0(old0);
    set_cr4(old4 & ~CR4_OSFXSR);
    c = kernel(CODE("addps xmm0, xmm1"));
    run_fault("osfxsr.sse", CR, &c, V_UD, NO_ERROR);
    set_cr0(old0 | CR0_TS);
    c = kernel(CODE("addps xmm0, xmm1"));
    run_fault("osfxsr.before-ts", CR, &c, V_UD, NO_ERROR);
    set_cr0(old0);
    c = kernel(CODE("fninit"));
    run_done("osfxsr.x87", CR, &c);
    set_cr4(old4 | CR4_TSD);
    c = user(UCODE("rdtsc"));
    run_fault("tsd.user-rdtsc", CR, &c, V_GP, 0);
    c = kernel(CODE("rdtsc"));
    run_done("tsd.rdtsc", CR, &c);
    require(cpuid_bit(0x80000001, 0, 3, 27), "RDTSCP is not offered");
    c = user(UCODE("rdtscp"));
    run_fault("tsd.user-rdtscp", CR, &c, V_GP, 0);
    require_end();
    set_cr4(old4);
    c = user(UCODE("rdtsc"));
    run_done("tsd.off-user-rdtsc", CR, &c);
    require(cpuid_bit(1, 0, 2, 26), "XSAVE is not offered");
    c = kernel(CODE("xgetbv"));
    run_fault("osxsave.off-xgetbv", "SDM Vol.2, XGETBV", &c, V_UD, NO_ERROR);
    check("osxsave.cpuid-clear", "SDM Vol.2, CPUID", cpuid_bit(1, 0, 2, 27), 0);
    set_cr4(old4 | CR4_OSXSAVE);
    check("osxsave.cpuid-set", "SDM Vol.2, CPUID", cpuid_bit(1, 0, 2, 27), 1);
    require_end();
    set_cr4(old4);
}

static void efer(void)
{
    uint64_t old = rdmsr(MSR_EFER);

    check("efer.lme-off", EFER_T, wrmsr_faults(MSR_EFER, old & ~(1ull << 8)), 1);
    check("efer.bit1", EFER_T, wrmsr_faults(MSR_EFER, old | 2), 1);
    check("efer.bit16", EFER_T, wrmsr_faults(MSR_EFER, old | 1u << 16), 1);
    check("efer.bit63", EFER_T, wrmsr_faults(MSR_EFER, old | 1ull << 63), 1);
    check("efer.lma-set", EFER_T, old >> 8 & 5, 5);
    require(cpuid_bit(0x80000001, 0, 3, 20), "NX is not offered");
    wrmsr(MSR_EFER, old ^ 1u << 11);
    check("efer.nxe", EFER_T, rdmsr(MSR_EFER), old ^ 1u << 11);
    wrmsr(MSR_EFER, old);
    require_end();
    wrmsr(MSR_EFER, old | 1);
    check("efer.sce", EFER_T, rdmsr(MSR_EFER), old | 1);
    wrmsr(MSR_EFER, old);
}

static void addresses(void)
{
    static const struct {
        const char *name;
        uint32_t index;
    } msrs[] = {
        {"msr.lstar", 0xc0000082},          {"msr.cstar", 0xc0000083},
        {"msr.fs-base", 0xc0000100},        {"msr.gs-base", 0xc0000101},
        {"msr.kernel-gs-base", 0xc0000102}, {"msr.sysenter-esp", 0x175},
        {"msr.sysenter-eip", 0x176},
    };

    for (unsigned i = 0; i < sizeof(msrs) / sizeof(msrs[0]); i++) {
        check(joined(msrs[i].name, "-canonical", ""), MSRS, wrmsr_faults(msrs[i].index, 1ull << 63),
              1);
        wrmsr(msrs[i].index, 0xffff800000000000);
        check(joined(msrs[i].name, "-reads-back", ""), MSRS, rdmsr(msrs[i].index),
              0xffff800000000000);
        wrmsr(msrs[i].index, 0);
    }
}

static void pat(void)
{
    uint64_t old = rdmsr(MSR_PAT);

    for (unsigned i = 0; i < 8; i++) {
        static const char *const names[] = {"pat.entry0", "pat.entry1", "pat.entry2", "pat.entry3",
                                            "pat.entry4", "pat.entry5", "pat.entry6", "pat.entry7"};
        uint64_t without = old & ~(0xffull << 8 * i);

        check(names[i], PAT,
              (unsigned)wrmsr_faults(MSR_PAT, without | 2ull << 8 * i) +
                  2u * wrmsr_faults(MSR_PAT, without | 3ull << 8 * i) +
                  4u * wrmsr_faults(MSR_PAT, without | 8ull << 8 * i) +
                  8u * wrmsr_faults(MSR_PAT, without | 7ull << 8 * i),
              7);
    }
    wrmsr(MSR_PAT, 0x0007040600070406);
    check("pat.usual", PAT, rdmsr(MSR_PAT), 0x0007040600070406);
    wrmsr(MSR_PAT, old);
}

static void mtrr(void)
{
    uint64_t cap, old, above = ~physical_mask();

    require(cpuid_bit(1, 0, 3, 12), "MTRRs are not offered");
    cap = rdmsr(0xfe);
    check("mtrr.cap-read-only", MTRR, wrmsr_faults(0xfe, cap), 1);
    old = rdmsr(0x2ff);
    check("mtrr.default-type2", MTRR, wrmsr_faults(0x2ff, 2), 1);
    check("mtrr.default-type7", MTRR, wrmsr_faults(0x2ff, 7), 1);
    check("mtrr.default-bit8", MTRR, wrmsr_faults(0x2ff, old | 1u << 8), 1);
    check("mtrr.default-bit12", MTRR, wrmsr_faults(0x2ff, old | 1u << 12), 1);
    check("mtrr.default-bit63", MTRR, wrmsr_faults(0x2ff, old | 1ull << 63), 1);
    require((cap & 0xff) != 0, "there are no variable MTRRs");
    check("mtrr.base-type2", MTRR, wrmsr_faults(0x200, 2), 1);
    check("mtrr.base-bit8", MTRR, wrmsr_faults(0x200, 0x100), 1);
    check("mtrr.base-maxphyaddr", MTRR, wrmsr_faults(0x200, above & -above), 1);
    check("mtrr.mask-bit0", MTRR, wrmsr_faults(0x201, 1), 1);
    check("mtrr.mask-bit10", MTRR, wrmsr_faults(0x201, 1u << 10), 1);
    check("mtrr.mask-maxphyaddr", MTRR, wrmsr_faults(0x201, above & -above), 1);
    check("mtrr.beyond-the-last", MTRR, rdmsr_faults(0x200 + 2 * (uint32_t)(cap & 0xff)), 1);
    require_end();
    require(cpuid_bit(1, 0, 3, 12) && (cap & 0x100), "there are no fixed MTRRs");
    check("mtrr.fixed-type2", MTRR, wrmsr_faults(0x250, 2ull << 40), 1);
    check("mtrr.fixed-type3", MTRR, wrmsr_faults(0x268, 3), 1);
    check("mtrr.fixed-type255", MTRR, wrmsr_faults(0x26f, 0xffull << 56), 1);
    require_end();
}

static void msrs(void)
{
    struct cpu c;

    check("msr.unknown-read", MSRS, rdmsr_faults(0x12345), 1);
    check("msr.unknown-write", MSRS, wrmsr_faults(0x12345, 0), 1);
    check("msr.unknown-high-read", MSRS, rdmsr_faults(0xc0012345), 1);
    check("msr.unknown-highest", MSRS, rdmsr_faults(0xffffffff), 1);
    c = kernel(CODE("rdmsr"));
    c.cx = 0xabcd00000000ul | MSR_PAT;
    c.ax = c.dx = ~0ul;
    run(&c);
    check("msr.rcx-upper-ignored", "SDM Vol.2, RDMSR", c.vector == V_DONE, 1);
    check("msr.rdmsr-zero-extends", "SDM Vol.2, RDMSR", (c.ax | c.dx) >> 32, 0);
    c = kernel(CODE("wrmsr"));
    c.cx = 0xc0000102;
    c.ax = 0xffffffff00001000;
    c.dx = 0xffffffff00000001;
    run(&c);
    check("msr.wrmsr-upper-ignored", "SDM Vol.2, WRMSR", rdmsr(0xc0000102), 0x100001000);
    wrmsr(0xc0000102, 0);
    c = kernel(CODE(".byte 0xf0, 0x0f, 0x32"));
    c.cx = MSR_PAT;
    run_fault("msr.lock-rdmsr", "SDM Vol.2, RDMSR", &c, V_UD, NO_ERROR);
    check("msr.apic-base-bit0", MSRS, wrmsr_faults(0x1b, rdmsr(0x1b) | 1), 1);
    check("msr.apic-base-bit63", MSRS, wrmsr_faults(0x1b, rdmsr(0x1b) | 1ull << 63), 1);
    require(intel(), "AMD's SFMASK is checked otherwise");
    check("msr.sfmask-bit32", MSRS, wrmsr_faults(0xc0000084, 1ull << 32), 1);
    require_end();
    require(cpuid_bit(0x80000001, 0, 3, 27), "TSC_AUX is not offered");
    require(intel(), "AMD ignores the upper half");
    check("msr.tsc-aux-bit32", MSRS, wrmsr_faults(0xc0000103, 1ull << 32), 1);
    require_end();
    require(cpuid_bit(7, 0, 1, 1), "TSC_ADJUST is not offered");
    {
        uint64_t before = rdmsr(0x3b), tsc = rdmsr(0x10);

        wrmsr(0x3b, before + (1ull << 40));
        check("msr.tsc-adjust-moves-tsc", MSRS, (rdmsr(0x10) - tsc) >> 39, 2);
        wrmsr(0x3b, before);
        wrmsr(0x10, rdmsr(0x10) + (1ull << 40));
        check("msr.tsc-moves-adjust", MSRS, (rdmsr(0x3b) - before + (1ull << 38)) >> 39, 2);
        wrmsr(0x3b, before);
    }
    require_end();
}

void test(void)
{
    control0();
    control3();
    control4();
    control8();
    moves();
    other_privileged();
    gates_of_features();
    efer();
    addresses();
    pat();
    mtrr();
    msrs();
}
