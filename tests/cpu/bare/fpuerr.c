/* x87 errors: #MF with CR0.NE, IRQ 13 and port 0xF0 without. */
#include "bare.h"

#define NATIVE "SDM Vol.1, x87 exception handling in software, native mode"
#define COMPAT "SDM Vol.1, MS-DOS compatibility sub-mode"
#define IRQ13 0x2d

/* A division by zero, not masked; label 9 is the next instruction that waits. */
#define DIVIDE "fninit\n push 0x037b\n fldcw [esp]\n add esp, 4\n fld1\n fldz\n fdivp\n"

static void pic(uint8_t master, uint8_t slave)
{
    outb(0x20, 0x11);
    outb(0x21, 0x20);
    outb(0x21, 4);
    outb(0x21, 1);
    outb(0xa0, 0x11);
    outb(0xa1, 0x28);
    outb(0xa1, 2);
    outb(0xa1, 1);
    outb(0x21, master);
    outb(0xa1, slave);
}

static void end_of_interrupt(void)
{
    outb(0xa0, 0x20);
    outb(0x20, 0x20);
}

static void clear(void)
{
    struct cpu c = kernel(CODE("fnclex"));

    run(&c);
}

static void native(void)
{
    static const char *const names[] = {"fwait", "fld",   "fstsw",    "fist",
                                        "emms",  "fldcw", "paddb-mmx"};
    struct code codes[] = {
        CODE(DIVIDE "9: fwait"),
        CODE(DIVIDE "9: fld1"),
        CODE(DIVIDE "9: fstsw ax"), /* an FWAIT and the store */
        CODE(DIVIDE "9: fist dword ptr [esp - 8]"),
        CODE(DIVIDE "9: emms"),
        CODE(DIVIDE "9: fldcw [esp]"),
        CODE(DIVIDE "9: paddb mm0, mm1"),
    };
    static const char *const quiet_names[] = {"fnstsw", "fnclex",  "fninit",
                                              "fnstcw", "fnstenv", "fnsave"};
    struct code quiet[] = {
        CODE(DIVIDE "fnstsw ax"),          CODE(DIVIDE "fnclex\n fwait"),
        CODE(DIVIDE "fninit\n fwait"),     CODE(DIVIDE "fnstcw [esp - 8]"),
        CODE(DIVIDE "fnstenv [esp - 64]"), CODE(DIVIDE "fnsave [esp - 128]\n fwait"),
    };
    struct cpu c;

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        c = kernel(codes[i]);
        run_fault(joined("native.", names[i], ""), NATIVE, &c, V_MF, NO_ERROR);
        clear();
        c.ip = c.code.mark;
        run_done(joined("native.", names[i], "-after-fnclex"), NATIVE, &c);
    }
    for (unsigned i = 0; i < sizeof(quiet_names) / sizeof(quiet_names[0]); i++) {
        c = kernel(quiet[i]);
        run_done(joined("native.", quiet_names[i], "-waits-not"), NATIVE, &c);
        clear();
    }
    c = kernel(CODE(DIVIDE "fnstsw ax"));
    run(&c);
    check("native.status", NATIVE, c.ax & 0x80ff, 0x8084); /* B, ES, ZE */
    clear();
    c = kernel(CODE("fnstsw ax"));
    run(&c);
    check("native.fnclex-status", NATIVE, c.ax & 0x80ff, 0);
    /* unmasking a flag that stands is an error too */
    c = kernel(CODE("fninit\n fld1\n fldz\n fdivp\n push 0x037b\n fldcw [esp]\n add esp, 4\n"
                    "9: fwait"));
    run_fault("native.unmasked-later", NATIVE, &c, V_MF, NO_ERROR);
    clear();
}

static void compatible(void)
{
    struct cpu c;

    pic(0xfb, 0xdf); /* the cascade and IRQ 13 */
    set_cr0(cr0() & ~CR0_NE);
    c = kernel(CODE(DIVIDE "9: fwait\n mov ecx, 5"));
    c.flags |= FL_IF;
    run(&c);
    check_event("irq13.arrives", COMPAT, &c, IRQ13, NO_ERROR, c.code.mark);
    outb(0xf0, 0);
    clear();
    end_of_interrupt();
    run_done("irq13.goes-on", COMPAT, &c);
    check("irq13.goes-on-value", COMPAT, c.cx, 5);
    /* again, so that everything has been reset */
    c = kernel(CODE(DIVIDE "9: fld1\n mov ecx, 6"));
    c.flags |= FL_IF;
    run(&c);
    check_event("irq13.arrives-again", COMPAT, &c, IRQ13, NO_ERROR, c.code.mark);
    /* port 0xF0 makes the processor ignore the error until it is cleared */
    outb(0xf0, 0);
    end_of_interrupt();
    run_done("irq13.ignored-after-port-f0", COMPAT, &c);
    c = kernel(CODE("fwait\n fld1\n fstp st(0)\n fnstsw ax"));
    c.flags |= FL_IF;
    run_done("irq13.ignored-still", COMPAT, &c);
    check("irq13.error-stands", COMPAT, c.ax & 0x84, 0x84);
    clear();
    c = kernel(CODE(DIVIDE "9: fwait"));
    c.flags |= FL_IF;
    run(&c);
    check_event("irq13.not-ignored-after-fnclex", COMPAT, &c, IRQ13, NO_ERROR, c.code.mark);
    outb(0xf0, 0);
    clear();
    end_of_interrupt();
    /* masked in the control word there is none */
    c = kernel(CODE("fninit\n fld1\n fldz\n fdivp\n fwait\n fld1"));
    c.flags |= FL_IF;
    run_done("irq13.masked-error", COMPAT, &c);
    clear();
    /* from CPL 3, through the gate's stack */
    c = user(UCODE(DIVIDE "9: fwait\n mov ecx, 7"));
    c.flags |= FL_IF;
    run(&c);
    check_event("irq13.cpl3", COMPAT, &c, IRQ13, NO_ERROR, c.code.mark);
    check("irq13.cpl3-cs", COMPAT, c.cs, S_UCODE32);
    outb(0xf0, 0);
    clear();
    end_of_interrupt();
    run_done("irq13.cpl3-goes-on", COMPAT, &c);
    /* an error that stands becomes #MF when NE is set */
    c = kernel(CODE(DIVIDE "mov eax, cr0\n or al, 0x20\n mov cr0, eax\n 9: fwait"));
    run_fault("ne.set-with-error", NATIVE, &c, V_MF, NO_ERROR);
    outb(0xf0, 0);
    clear();
    set_cr0(cr0() | CR0_NE);
    pic(0xff, 0xff);
    c = kernel(CODE("sti\n nop\n nop\n cli"));
    run_done("ne.no-interrupt", NATIVE, &c);
}

void test(void)
{
    native();
    compatible();
}
