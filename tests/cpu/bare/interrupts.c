/* What holds interrupts back and lets them in: IF, STI, MOV SS, HLT, NMI and its IRET. */
#include "bare.h"

#define SHADOW "SDM Vol.2, STI"
#define SSSHADOW "SDM Vol.3, masking exceptions and interrupts when switching stacks"
#define IFT "SDM Vol.3, masking maskable hardware interrupts"
#define NMIT "SDM Vol.3, nonmaskable interrupt"

#define VECTOR 0x90
#define ICR_SELF 0x40000u /* destination shorthand */

static bool x2apic;
static uint32_t apic_id;

static volatile uint32_t *apic_register(unsigned offset)
{
    return (volatile uint32_t *)(word)(0xfee00000 + offset);
}

static void apic_write(unsigned offset, uint32_t value)
{
    if (skipping())
        return;
    if (x2apic)
        wrmsr(0x800 + offset / 16, value);
    else
        *apic_register(offset) = value;
}

static void icr(uint32_t low, uint32_t destination)
{
    if (skipping())
        return;
    if (x2apic) {
        wrmsr(0x830, (uint64_t)destination << 32 | low);
        return;
    }
    *apic_register(0x310) = destination << 24;
    *apic_register(0x300) = low;
    while (*apic_register(0x300) & 0x1000)
        ;
}

static void eoi(void)
{
    apic_write(0xb0, 0);
}

static void setup(void)
{
    x2apic = (rdmsr(0x1b) & 0x400) != 0;
    if (x2apic)
        apic_id = (uint32_t)rdmsr(0x802);
    else
        apic_id = *apic_register(0x20) >> 24;
    apic_write(0xf0, 0x1ff); /* on, spurious vector 0xff */
    apic_write(0x80, 0);     /* all priorities */
    /* the 8259s deliver nothing */
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
}

/* Lets the vector wait, since IF is clear, and runs the fragment. */
static struct cpu with_pending(struct code code)
{
    struct cpu c = kernel(code);

    icr(ICR_SELF | VECTOR, 0);
    c.ax = S_DATA;
    c.di = (word)user_page[0];
    run(&c);
    return c;
}

/* The interrupt came at the mark; or not before the end, and comes then. */
static void taken(const char *name, const char *topic, struct code code)
{
    struct cpu c = with_pending(code);

    check_fault(name, topic, &c, VECTOR, NO_ERROR);
    if (c.vector == VECTOR)
        eoi();
}

static void drain(void)
{
    struct cpu c = kernel(CODE("sti\n nop\n nop\n cli"));

    run(&c);
    if (c.vector == VECTOR)
        eoi();
}

static void not_taken(const char *name, const char *topic, struct code code)
{
    struct cpu c = with_pending(code);

    check_done(name, topic, &c);
    drain();
}

static void masked(void)
{
    struct cpu c;

    not_taken("if.clear", IFT, CODE("nop\n nop\n nop"));
    not_taken("if.sti-cli", SHADOW, CODE("sti\n cli\n nop\n nop"));
    taken("if.sti-shadow", SHADOW, CODE("sti\n inc ecx\n 9: inc ecx\n inc ecx"));
    taken("if.sti-set-already", SHADOW, CODE("sti\n nop\n 9: sti\n nop"));
    taken("if.popf", IFT, CODE("push 0x202\n popfq\n 9: inc ecx\n inc ecx"));
    taken("if.iret", IFT,
          CODE("mov rcx, rsp\n lea rdx, [rip + 9f]\n push 0x10\n push rcx\n push 0x202\n push 8\n"
               "push rdx\n iretq\n 9: inc ecx"));
    taken("if.sti-jump", SHADOW, CODE("sti\n jmp 9f\n nop\n 9: nop"));
    taken("if.sti-int-no", SHADOW, CODE("sti\n mov [rdi], ecx\n 9: nop"));
    taken("if.sti-hlt", SHADOW, CODE("sti\n hlt\n 9: nop"));
    c = kernel(CODE("9: nop\n nop"));
    icr(ICR_SELF | VECTOR, 0);
    c.flags |= FL_IF;
    run_fault("if.at-once-after-iret", IFT, &c, VECTOR, NO_ERROR);
    check("if.frame-has-if", IFT, c.flags & FL_IF, FL_IF);
    eoi();
    /* a fault in the shadow of STI ends it: the frame has IF, the handler runs with IF clear */
    c = with_pending(CODE("sti\n 9: ud2"));
    check_fault("if.fault-in-shadow", SHADOW, &c, V_UD, NO_ERROR);
    check("if.fault-in-shadow-flags", SHADOW, c.flags & FL_IF, FL_IF);
    drain();
    taken("shadow.mov-ss", SSSHADOW, CODE("sti\n nop\n 9: mov ss, eax\n nop"));
    /* DPL of the gate is not looked at */
    c = user(UCODE("9: nop\n nop"));
    icr(ICR_SELF | VECTOR, 0);
    c.flags |= FL_IF;
    run_fault("if.gate-dpl-ignored", IFT, &c, VECTOR, NO_ERROR);
    eoi();
    /* CR8 */
    c = with_pending(CODE("mov ecx, 9\n mov cr8, rcx\n sti\n nop\n nop\n cli\n"
                          "xor ecx, ecx\n mov cr8, rcx\n nop"));
    check_done("if.cr8-masks", "SDM Vol.3, task priority", &c);
    drain();
    c = with_pending(CODE("mov ecx, 8\n mov cr8, rcx\n sti\n nop\n 9: nop\n cli"));
    check_fault("if.cr8-lower-lets-in", "SDM Vol.3, task priority", &c, VECTOR, NO_ERROR);
    eoi();
    __asm__ volatile("mov %0, %%cr8" : : "r"(0ul));
}

/* IF and IOPL: who may change what. */
static void flags(void)
{
    struct cpu c = user(UCODE("cli"));

    c.flags |= FL_IOPL | FL_IF;
    run(&c);
    check("iopl.user-cli", "SDM Vol.2, CLI", c.vector == V_DONE ? c.flags & FL_IF : 1, 0);
    c = user(UCODE("sti\n nop"));
    c.flags |= FL_IOPL;
    run(&c);
    check("iopl.user-sti", "SDM Vol.2, STI", c.vector == V_DONE ? c.flags & FL_IF : 0, FL_IF);
    c = at_level(CODE("cli"), 1);
    run_fault("iopl.cpl1-cli", "SDM Vol.2, CLI", &c, V_GP, 0);
    c = at_level(CODE("cli"), 2);
    c.flags |= 2 << 12;
    run_done("iopl.cpl2-cli", "SDM Vol.2, CLI", &c);
    c = user(UCODE("push 0x3202\n popfq"));
    run(&c);
    check("iopl.user-popf", "SDM Vol.2, POPF", c.vector == V_DONE ? c.flags & (FL_IOPL | FL_IF) : 1,
          0);
    c = user(UCODE("push 2\n popfq"));
    c.flags |= FL_IOPL;
    run(&c);
    check("iopl.user-popf-keeps-iopl", "SDM Vol.2, POPF", c.flags & FL_IOPL, FL_IOPL);
    c = user(UCODE("push 0x3202\n popfq"));
    c.flags |= FL_IOPL;
    run(&c);
    check("iopl.user-popf-sets-if", "SDM Vol.2, POPF", c.flags & FL_IF, FL_IF);
    /* ports: IOPL, else the bitmap in the TSS */
    c = user(UCODE("out 0x80, al"));
    c.flags |= FL_IOPL;
    run_done("io.iopl3", "SDM Vol.1, I/O privilege level", &c);
    c = user(UCODE("out 0x80, al"));
    run_fault("io.denied", "SDM Vol.1, I/O permission bit map", &c, V_GP, 0);
    tss[104 + 0x80 / 8] = 0xfe;
    c = user(UCODE("out 0x80, al"));
    run_done("io.allowed", "SDM Vol.1, I/O permission bit map", &c);
    c = user(UCODE("out 0x80, ax"));
    run_fault("io.word-half-denied", "SDM Vol.1, I/O permission bit map", &c, V_GP, 0);
    tss[104 + 0x80 / 8] = 0xfc;
    c = user(UCODE("out 0x80, ax"));
    run_done("io.word-allowed", "SDM Vol.1, I/O permission bit map", &c);
    tss[104 + 0x80 / 8] = 0x7f;
    c = user(UCODE("mov edx, 0x87\n 9: in eax, dx"));
    run_fault("io.across-bytes-denied", "SDM Vol.1, I/O permission bit map", &c, V_GP, 0);
    gdt_set(S_TSS, descriptor((uint32_t)(word)tss, 104 + 0x80 / 8 - 1, 0x89, 0));
    tss[104 + 0x80 / 8] = 0;
    if (!skipping())
        __asm__ volatile("ltr %w0" : : "r"(S_TSS));
    c = user(UCODE("out 0x80, al"));
    run_fault("io.beyond-tss-limit", "SDM Vol.1, I/O permission bit map", &c, V_GP, 0);
    gdt_reset();
    tss[102] = 0xff;
    tss[103] = 0xdf;
    c = user(UCODE("out 0x80, al"));
    run_fault("io.no-bitmap", "SDM Vol.1, I/O permission bit map", &c, V_GP, 0);
    gdt_reset();
}

/*
 * NMI: the handler sends itself another one, which must wait for the handler's IRET. RBX counts
 * entries; RSI is where the ICR is (MMIO, or 0 for the MSR), EDI the command, R8 what RBX was
 * before the IRET.
 */
static void nmi(void)
{
    struct code handler = CODE("inc rbx\n cmp rbx, 1\n jne 2f\n"
                               "test rsi, rsi\n jz 1f\n mov [rsi], edi\n jmp 3f\n"
                               "1: mov ecx, 0x830\n mov eax, edi\n mov rdx, r9\n wrmsr\n"
                               "3: mov ecx, 1000\n 4: loop 4b\n mov r8, rbx\n iretq\n"
                               "2: iretq");
    struct code sender = CODE("test rsi, rsi\n jz 1f\n mov [rsi], edi\n jmp 2f\n"
                              "1: mov ecx, 0x830\n mov eax, edi\n mov rdx, r9\n wrmsr\n"
                              "2: mov ecx, 1000\n 3: loop 3b");
    struct cpu start = kernel(sender), c;

    start.si = x2apic ? 0 : 0xfee00300;
    start.di = 0x400;
    start.r9 = apic_id;
    if (!skipping() && !x2apic)
        *apic_register(0x310) = apic_id << 24;
    c = start;
    run(&c);
    check("nmi.vector", NMIT, c.vector, V_NMI);
    check("nmi.no-error-code", NMIT, c.has_error, 0);
    check("nmi.if-was-clear", NMIT, c.flags & FL_IF, 0);
    idt_gate(V_NMI, S_CODE, handler.start, GATE_INT, 0);
    c = start;
    run(&c);
    check("nmi.not-nested", NMIT, c.vector == V_DONE ? c.r8 : 0xbad, 1);
    check("nmi.second-after-iret", NMIT, c.bx, 2);
    idt_reset();
}

void test(void)
{
    require(cpuid_bit(1, 0, 3, 9), "there is no local APIC");
    setup();
    masked();
    nmi();
    require_end();
    flags();
}
