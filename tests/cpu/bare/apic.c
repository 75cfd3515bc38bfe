/* The local APIC's registers: presence, IA32_APIC_BASE and its modes, xAPIC page, x2APIC MSRs. */
#include "irqs.h"

#define PRESENCE "SDM Vol.3, presence of the local APIC"
#define STATE "SDM Vol.3, local APIC status and location"
#define VERSION "SDM Vol.3, local APIC version register"
#define IDS "SDM Vol.3, local APIC ID"
#define TRANSITION "SDM Vol.3, x2APIC state transitions"
#define X2 "SDM Vol.3, x2APIC register availability"
#define RESERVED "SDM Vol.3, reserved bit checking in x2APIC mode"
#define PRIORITY "SDM Vol.3, task and processor priorities"
#define LVT "SDM Vol.3, local vector table"

#define FREE_PAGE 0xe0000000u /* no memory there, nor a device */

static volatile uint32_t *at(uint64_t address)
{
    return (volatile uint32_t *)(word)address;
}

static uint64_t base_bits(void)
{
    return rdmsr(MSR_APIC_BASE) & ~(uint64_t)(APIC_BASE_EN | APIC_BASE_EXTD);
}

static void presence(void)
{
    uint64_t base = rdmsr(MSR_APIC_BASE);
    uint32_t r[4], version;

    check("base.address", STATE, base & PTE_ADDR, 0xfee00000);
    check("base.bootstrap", STATE, base >> 8 & 1, 1);
    check("base.enabled", STATE, base >> 11 & 1, 1);
    version = apic_read(APIC_VERSION);
    check("version.integrated", VERSION, (version & 0xff) >= 0x10 && (version & 0xff) <= 0x15, 1);
    check("version.entries", VERSION, (version >> 16 & 0xff) >= 3, 1);
    check_bits("version.reserved", VERSION, version, 0, 0xfe00ff00);
    apic_write(APIC_VERSION, ~version);
    check("version.read-only", VERSION, apic_read(APIC_VERSION), version);
    cpuid(1, 0, r);
    check("id.cpuid", IDS, apic_read(APIC_ID) >> 24, r[1] >> 24);
    check_bits("id.reserved", IDS, apic_read(APIC_ID), 0, 0xffffff);
    cpuid(0, 0, r);
    require(r[0] >= 0xb, "there is no leaf 0xB");
    cpuid(0xb, 0, r);
    check("id.cpuid-0xb", IDS, apic_id(), r[3]);
    require_end();
}

/* The bits of the mask that, set in this MSR beside `good`, make the write fault. */
static uint64_t faulting(uint32_t msr, uint64_t good, uint64_t mask)
{
    uint64_t seen = 0;

    for (unsigned bit = 0; bit < 64; bit++) {
        if ((mask >> bit & 1) != 0 && wrmsr_faults(msr, good | 1ull << bit))
            seen |= 1ull << bit;
    }
    return seen;
}

static void base_register(void)
{
    uint64_t base = rdmsr(MSR_APIC_BASE);
    uint64_t reserved = 0x2ff | ~physical_mask();

    check("base.reserved", STATE, faulting(MSR_APIC_BASE, base, reserved), reserved);
    check("base.after-faults", STATE, rdmsr(MSR_APIC_BASE), base);
    check("base.extd-alone", TRANSITION, wrmsr_faults(MSR_APIC_BASE, base_bits() | APIC_BASE_EXTD),
          1);
    require(!cpuid_bit(1, 0, 2, 21), "there is x2APIC mode");
    check("base.no-x2apic", TRANSITION, wrmsr_faults(MSR_APIC_BASE, base | APIC_BASE_EXTD), 1);
    require_end();
}

/* The APIC as if it were not there. */
static void disabled(void)
{
    uint64_t base = rdmsr(MSR_APIC_BASE), cr8;
    struct cpu c;

    wrmsr(MSR_APIC_BASE, base_bits());
    check("disabled.base", STATE, rdmsr(MSR_APIC_BASE), base_bits());
    check("disabled.cpuid", STATE, cpuid_bit(1, 0, 3, 9), 0);
    check("disabled.version-ones", STATE, *at(0xfee00000 + APIC_VERSION), 0xffffffff);
    *at(0xfee00000 + APIC_TPR) = 0x70;
    check("disabled.tpr-ones", STATE, *at(0xfee00000 + APIC_TPR), 0xffffffff);
    c = kernel(CODE("mov ecx, 5\n mov cr8, rcx\n mov rbx, cr8\n xor ecx, ecx\n mov cr8, rcx\n"
                    "mov rdx, cr8"));
    run_done("disabled.cr8-no-fault", PRIORITY, &c);
    require(cpuid_bit(1, 0, 2, 21), "there is no x2APIC mode");
    check("disabled.x2apic-msr", X2, rdmsr_faults(0x803), 1);
    check("disabled.to-x2apic", TRANSITION, wrmsr_faults(MSR_APIC_BASE, base | APIC_BASE_EXTD), 1);
    check("disabled.extd-alone", TRANSITION,
          wrmsr_faults(MSR_APIC_BASE, base_bits() | APIC_BASE_EXTD), 1);
    require_end();
    wrmsr(MSR_APIC_BASE, base);
    check("enabled.cpuid", STATE, cpuid_bit(1, 0, 3, 9), 1);
    check_bits("enabled.version", STATE, *at(0xfee00000 + APIC_VERSION), 0x10, 0xf0);
    __asm__ volatile("mov %%cr8, %0" : "=r"(cr8));
    check("enabled.cr8", PRIORITY, cr8, 0);
}

static void relocation(void)
{
    uint64_t base = rdmsr(MSR_APIC_BASE), flags = base & 0xfff;
    volatile uint32_t *ram = (volatile uint32_t *)test_frame[2];
    uint32_t version = apic_read(APIC_VERSION);

    wrmsr(MSR_APIC_BASE, FREE_PAGE | flags);
    check("move.base", STATE, rdmsr(MSR_APIC_BASE), FREE_PAGE | flags);
    check("move.version", STATE, *at(FREE_PAGE + APIC_VERSION), version);
    *at(FREE_PAGE + APIC_TPR) = 0x65;
    check("move.write", STATE, *at(FREE_PAGE + APIC_TPR), 0x65);
    check("move.left", STATE, *at(0xfee00000 + APIC_VERSION) != version, 1);
    *at(FREE_PAGE + APIC_TPR) = 0;
    /* over memory: what is there can be neither read nor written */
    for (unsigned i = 0; i < 1024; i++)
        ram[i] = 0xdeadbe00;
    wrmsr(MSR_APIC_BASE, (word)test_frame[2] | flags);
    check("move.over-ram", STATE, ram[APIC_VERSION / 4], version);
    ram[APIC_TPR / 4] = 0x73;
    check("move.over-ram-write", STATE, ram[APIC_TPR / 4], 0x73);
    /* by another linear address too */
    check("move.alias", STATE, *(volatile uint32_t *)(TEST_VA + 2 * 4096 + APIC_TPR), 0x73);
    ram[APIC_TPR / 4] = 0;
    wrmsr(MSR_APIC_BASE, base);
    check("move.ram-version", STATE, ram[APIC_VERSION / 4], 0xdeadbe00);
    check("move.ram-tpr", STATE, ram[APIC_TPR / 4], 0xdeadbe00);
    check("move.back", STATE, apic_read(APIC_VERSION), version);
}

static uint64_t get_cr8(void)
{
    uint64_t value;

    __asm__ volatile("mov %%cr8, %0" : "=r"(value));
    return value;
}

static void set_cr8(uint64_t value)
{
    if (!skipping())
        __asm__ volatile("mov %0, %%cr8" : : "r"(value));
}

/* TPR, CR8, PPR are one; in both modes. */
static void priorities(const char *mode)
{
    struct cpu c = kernel(CODE("mov ecx, 0x10\n 9: mov cr8, rcx"));

    apic_write(APIC_TPR, 0x45);
    check(joined(mode, "tpr.reads", ""), PRIORITY, apic_read(APIC_TPR), 0x45);
    check(joined(mode, "tpr.cr8", ""), PRIORITY, get_cr8(), 4);
    check(joined(mode, "tpr.ppr", ""), PRIORITY, apic_read(APIC_PPR), 0x45);
    set_cr8(7);
    check(joined(mode, "cr8.tpr", ""), PRIORITY, apic_read(APIC_TPR), 0x70);
    check(joined(mode, "cr8.ppr", ""), PRIORITY, apic_read(APIC_PPR), 0x70);
    set_cr8(15);
    check(joined(mode, "cr8.highest", ""), PRIORITY, apic_read(APIC_TPR), 0xf0);
    run_fault(joined(mode, "cr8.reserved", ""), "SDM Vol.2, MOV to control registers", &c, V_GP, 0);
    set_cr8(0);
    check(joined(mode, "cr8.zero", ""), PRIORITY, apic_read(APIC_TPR), 0);
    check(joined(mode, "ppr.zero", ""), PRIORITY, apic_read(APIC_PPR), 0);
}

static void local_vectors(const char *mode)
{
    static const uint16_t entry[] = {APIC_LVT_TIMER, APIC_LVT_LINT0, APIC_LVT_LINT1,
                                     APIC_LVT_ERROR};
    uint32_t seen = 0;

    apic_reset();
    for (unsigned i = 0; i < 4; i++) {
        apic_write(entry[i], APIC_MASKED | (0x51 + i));
        if (apic_read(entry[i]) == (APIC_MASKED | (0x51 + i)))
            seen |= 1u << i;
    }
    check(joined(mode, "lvt.reads", ""), LVT, seen, 0xf);
    apic_write(APIC_LVT_LINT1, APIC_MASKED | 0x400);
    check(joined(mode, "lvt.nmi", ""), LVT, apic_read(APIC_LVT_LINT1), APIC_MASKED | 0x400);
    apic_write(APIC_LVT_LINT0, APIC_MASKED | 0xa700);
    check(joined(mode, "lvt.extint-level-low", ""), LVT, apic_read(APIC_LVT_LINT0),
          APIC_MASKED | 0xa700);
    apic_write(APIC_LVT_LINT0, APIC_MASKED);
    apic_write(APIC_LVT_ERROR, 0x54);
    check(joined(mode, "lvt.unmasked", ""), LVT, apic_read(APIC_LVT_ERROR), 0x54);
    /* software-disabled: all masked, for as long */
    apic_write(APIC_SVR, APIC_SPURIOUS);
    check(joined(mode, "svr.disables", ""), "SDM Vol.3, spurious-interrupt vector register",
          apic_read(APIC_SVR), APIC_SPURIOUS);
    check(joined(mode, "svr.masks", ""), STATE, apic_read(APIC_LVT_ERROR), APIC_MASKED | 0x54);
    apic_write(APIC_LVT_ERROR, 0x54);
    check(joined(mode, "svr.keeps-masked", ""), STATE, apic_read(APIC_LVT_ERROR),
          APIC_MASKED | 0x54);
    apic_write(APIC_SVR, 0x100 | APIC_SPURIOUS);
    check(joined(mode, "svr.mask-stays", ""), STATE, apic_read(APIC_LVT_ERROR), APIC_MASKED | 0x54);
    apic_write(APIC_LVT_ERROR, 0x54);
    check(joined(mode, "svr.unmask-again", ""), STATE, apic_read(APIC_LVT_ERROR), 0x54);
    apic_reset();
}

static void xapic_only(void)
{
    apic_write(APIC_LDR, 0x5affffff);
    check_bits("xapic.ldr", "SDM Vol.3, logical destination mode", apic_read(APIC_LDR), 0x5a000000,
               0xff000000);
    apic_write(APIC_DFR, 0x0fffffff);
    check("xapic.dfr-cluster", "SDM Vol.3, logical destination mode", apic_read(APIC_DFR),
          0x0fffffff);
    apic_write(APIC_DFR, 0xf0000000);
    check("xapic.dfr-low-bits", "SDM Vol.3, logical destination mode", apic_read(APIC_DFR),
          0xffffffff);
    apic_write(APIC_ICR_HIGH, 0xa5000000);
    check_bits("xapic.icr-high", "SDM Vol.3, interrupt command register", apic_read(APIC_ICR_HIGH),
               0xa5000000, 0xff000000);
    apic_errors();
    (void)*at(0xfee00000 + 0x50);
    check("xapic.reserved-register", "SDM Vol.3, error status register", apic_errors(), 0x80);
    check("xapic.esr-cleared", "SDM Vol.3, error status register", apic_errors(), 0);
    check("xapic.no-msrs-read", X2, rdmsr_faults(0x802), 1);
    check("xapic.no-msrs-write", X2, wrmsr_faults(0x808, 0), 1);
}

/* ---- x2APIC ---- */

static bool is_between(unsigned value, unsigned low, unsigned high)
{
    return value >= low && value <= high;
}

/* Which of the numbers 0x800 to 0x83F can be read; 0x82F is there from eight entries on. */
static bool readable(unsigned n, unsigned entries)
{
    if (n == 0x2f)
        return entries >= 7;
    if (is_between(n, 0x32, 0x37))
        return true;
    return n == 2 || n == 3 || n == 8 || n == 0xa || n == 0xd || is_between(n, 0xf, 0x28) ||
           n == 0x30 || n == 0x38 || n == 0x39 || n == 0x3e;
}

static bool writable(unsigned n, unsigned entries)
{
    if (n == 0x2f)
        return entries >= 7;
    return n == 8 || n == 0xb || n == 0xf || n == 0x28 || is_between(n, 0x32, 0x38) || n == 0x3e;
}

static void x2apic_map(void)
{
    uint64_t got_read = 0, want_read = 0, got_write = 0, want_write = 0;
    unsigned entries = (apic_read(APIC_VERSION) >> 16 & 0xff) + 1, beyond = 0;
    bool sends;

    for (unsigned n = 0; n < 0x40; n++) {
        got_read |= (uint64_t)!rdmsr_faults(0x800 + n) << n;
        want_read |= (uint64_t)readable(n, entries) << n;
        sends = n == 0x30 || n == 0x3f;
        got_write |= (uint64_t)(!sends && !wrmsr_faults(0x800 + n, 0)) << n;
        want_write |= (uint64_t)writable(n, entries) << n;
    }
    for (unsigned n = 0x40; n < 0x100; n++)
        beyond += (unsigned)!rdmsr_faults(0x800 + n) + (unsigned)!wrmsr_faults(0x800 + n, 0);
    apic_reset();
    check("x2apic.readable", X2, got_read, want_read);
    check("x2apic.writable", X2, got_write, want_write);
    check("x2apic.beyond", X2, beyond, 0);
}

static void x2apic_reserved(void)
{
    static const struct {
        const char *name;
        uint32_t msr;
        uint64_t good, mask;
    } row[] = {
        {"x2apic.tpr-reserved", 0x808, 0, 0xffffffffffffff00},
        {"x2apic.eoi-zero-only", 0x80b, 0, ~0ull},
        {"x2apic.svr-reserved", 0x80f, 0x1ef, 0xffffffffffffec00},
        {"x2apic.esr-zero-only", 0x828, 0, ~0ull},
        {"x2apic.icr-reserved", 0x830, 0, 0xfff32000},
        {"x2apic.timer-reserved", 0x832, APIC_MASKED, 0xfffffffffff8ef00},
        {"x2apic.thermal-reserved", 0x833, APIC_MASKED, 0xfffffffffffee800},
        {"x2apic.perf-reserved", 0x834, APIC_MASKED, 0xfffffffffffee800},
        {"x2apic.lint0-reserved", 0x835, APIC_MASKED, 0xfffffffffffe0800},
        {"x2apic.lint1-reserved", 0x836, APIC_MASKED, 0xfffffffffffe0800},
        {"x2apic.error-reserved", 0x837, APIC_MASKED, 0xfffffffffffeef00},
        {"x2apic.initial-reserved", 0x838, 0, 0xffffffff00000000},
        {"x2apic.divide-reserved", 0x83e, 0, 0xfffffffffffffff4},
        {"x2apic.self-ipi-reserved", 0x83f, 0x51, 0xffffffffffffff00},
    };

    for (unsigned i = 0; i < sizeof(row) / sizeof(row[0]); i++)
        check(row[i].name, RESERVED, faulting(row[i].msr, row[i].good, row[i].mask), row[i].mask);
    apic_reset();
    check("x2apic.reserved-no-effect", RESERVED, apic_busy(), 0);
}

static void x2apic_transitions(void)
{
    uint64_t bits = base_bits();

    /* what stays and what does not, on the way in */
    apic_mode(false);
    apic_reset();
    apic_write(APIC_TPR, 0x35);
    apic_write(APIC_LVT_ERROR, APIC_MASKED | 0x77);
    apic_write(APIC_LDR, 0x5a000000);
    apic_write(APIC_ICR_HIGH, 0x33000000);
    wrmsr(MSR_APIC_BASE, bits | APIC_BASE_EN | APIC_BASE_EXTD);
    check("x2apic.base", TRANSITION, rdmsr(MSR_APIC_BASE), bits | APIC_BASE_EN | APIC_BASE_EXTD);
    check("x2apic.keeps-tpr", TRANSITION, rdmsr(0x808), 0x35);
    check("x2apic.keeps-lvt", TRANSITION, rdmsr(0x837), APIC_MASKED | 0x77);
    check("x2apic.keeps-svr", TRANSITION, rdmsr(0x80f), 0x100 | APIC_SPURIOUS);
    check("x2apic.icr-high-gone", TRANSITION, rdmsr(0x830) >> 32, 0);
    apic_write(APIC_TPR, 0);
    check("x2apic.to-xapic", TRANSITION, wrmsr_faults(MSR_APIC_BASE, bits | APIC_BASE_EN), 1);
    check("x2apic.to-extd-alone", TRANSITION, wrmsr_faults(MSR_APIC_BASE, bits | APIC_BASE_EXTD),
          1);
    check("x2apic.page-gone", TRANSITION, *at(0xfee00000 + APIC_VERSION), 0xffffffff);
    check("x2apic.cpuid", STATE, cpuid_bit(1, 0, 3, 9), 1);
    wrmsr(MSR_APIC_BASE, bits);
    check("x2apic.to-disabled", TRANSITION, rdmsr(MSR_APIC_BASE), bits);
    wrmsr(MSR_APIC_BASE, bits | APIC_BASE_EN);
    check("x2apic.and-back-to-xapic", TRANSITION, rdmsr(MSR_APIC_BASE), bits | APIC_BASE_EN);
}

static void x2apic(void)
{
    uint32_t r[4], id;

    x2apic_transitions();
    apic_mode(true);
    apic_reset();
    cpuid(0xb, 0, r);
    id = apic_id();
    check("x2apic.id", IDS, rdmsr(0x802), r[3]);
    check("x2apic.ldr", "SDM Vol.3, logical destination mode in x2APIC mode", rdmsr(0x80d),
          (uint64_t)(id >> 4) << 16 | 1u << (id & 15));
    check_bits("x2apic.version", VERSION, rdmsr(0x803), 0x10, 0xfffffffffe00fff0);
    x2apic_map();
    x2apic_reserved();
    priorities("x2apic.");
    local_vectors("x2apic.");
    wrmsr(0x830, 0x1122334400004055); /* nobody has this id */
    check("x2apic.icr-reads", "SDM Vol.3, interrupt command register in x2APIC mode", rdmsr(0x830),
          0x1122334400004055);
    apic_mode(false);
}

void test(void)
{
    require(cpuid_bit(1, 0, 3, 9), "there is no local APIC");
    irqs_start();
    if (!skipping())
        apic_mode(false);
    apic_reset();
    presence();
    base_register();
    disabled();
    apic_reset();
    relocation();
    priorities("xapic.");
    local_vectors("xapic.");
    xapic_only();
    require_end();
    require(cpuid_bit(1, 0, 2, 21), "there is no x2APIC mode");
    x2apic();
}
