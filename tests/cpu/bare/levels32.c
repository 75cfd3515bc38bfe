/* What CPL, IOPL and the I/O bitmap allow in 32-bit protected mode; LMSW. */
#include "bare.h"

#define IOPL "SDM Vol.1, I/O privilege level"
#define BITMAP "SDM Vol.1, I/O permission bit map"
#define PRIVILEGED "SDM Vol.3, privileged instructions"
#define LMSW "SDM Vol.2, LMSW"

#define PORT 0x9008 /* nothing is there */

static void load_tr(uint64_t value)
{
    struct cpu c = kernel(CODE("ltr ax"));

    gdt_set(S_TSS, value);
    c.ax = S_TSS;
    run(&c);
}

/* ---- the bitmap ---- */

struct access {
    const char *name;
    unsigned size;      /* 1, 2, 4 */
    unsigned port;      /* from PORT */
    uint32_t forbidden; /* a bit for each port from PORT */
    bool fault;
};

static const struct access accesses[] = {
    {"byte", 1, 0, 0, false},
    {"byte-others", 1, 3, 0xfffffff7, false},
    {"byte-forbidden", 1, 3, 0x8, true},
    {"byte-first", 1, 0, 0x1, true},
    {"byte-last-of-byte", 1, 7, 0x80, true},
    {"byte-next-byte", 1, 8, 0x100, true},
    {"word", 2, 2, 0xfffffff3, false},
    {"word-low", 2, 2, 0x4, true},
    {"word-high", 2, 2, 0x8, true},
    {"word-across", 2, 7, 0xfffffe7f, false},
    {"word-across-low", 2, 7, 0x80, true},
    {"word-across-high", 2, 7, 0x100, true},
    {"dword", 4, 4, 0xffffff0f, false},
    {"dword-first", 4, 4, 0x10, true},
    {"dword-second", 4, 4, 0x20, true},
    {"dword-third", 4, 4, 0x40, true},
    {"dword-last", 4, 4, 0x80, true},
    {"dword-across", 4, 6, 0xfffffc3f, false},
    {"dword-across-low", 4, 6, 0x40, true},
    {"dword-across-high", 4, 6, 0x200, true},
    {"dword-across-above", 4, 6, 0x400, false},
};

static struct code io_code(unsigned size, bool out)
{
    if (out)
        return size == 1   ? UCODE("out dx, al")
               : size == 2 ? UCODE("out dx, ax")
                           : UCODE("out dx, eax");
    return size == 1 ? UCODE("in al, dx") : size == 2 ? UCODE("in ax, dx") : UCODE("in eax, dx");
}

static void bitmap(void)
{
    for (unsigned i = 0; i < 2 * sizeof(accesses) / sizeof(accesses[0]); i++) {
        const struct access *a = &accesses[i / 2];
        struct cpu c = user(io_code(a->size, i & 1));
        const char *what = i & 1 ? "out." : "in.";

        gdt_reset();
        for (unsigned k = 0; k < 4; k++)
            tss[104 + PORT / 8 + k] = (uint8_t)(a->forbidden >> 8 * k);
        c.dx = PORT + a->port;
        run(&c);
        if (a->fault)
            check_fault(joined(what, a->name, ""), BITMAP, &c, V_GP, 0);
        else
            check_done(joined(what, a->name, ""), BITMAP, &c);
    }
    gdt_reset();
}

static void io(const char *name, struct code code, unsigned cpl, unsigned iopl, int vector)
{
    struct cpu c = at_level(code, cpl);

    c.dx = PORT;
    c.flags |= iopl << 12;
    c.di = c.si = (word)user_page;
    c.cx = 1;
    run(&c);
    if (vector == V_DONE)
        check_done(name, IOPL, &c);
    else
        check_fault(name, IOPL, &c, vector, 0);
}

static void port_instructions(void)
{
    struct cpu c;

    io("in.cpl0-iopl0", CODE("in al, dx"), 0, 0, V_DONE);
    io("in.cpl1-iopl0", CODE("in al, dx"), 1, 0, V_GP);
    io("in.cpl1-iopl1", CODE("in al, dx"), 1, 1, V_DONE);
    io("in.cpl2-iopl1", CODE("in al, dx"), 2, 1, V_GP);
    io("in.cpl3-iopl2", UCODE("in al, dx"), 3, 2, V_GP);
    io("in.cpl3-iopl3", UCODE("in al, dx"), 3, 3, V_DONE);
    io("in.immediate", UCODE("in al, 0x84"), 3, 0, V_GP);
    io("out.immediate", UCODE("out 0x84, al"), 3, 0, V_GP);
    io("ins.forbidden", UCODE("insb"), 3, 0, V_GP);
    io("outs.forbidden", UCODE("outsb"), 3, 0, V_GP);
    io("ins.iopl3", UCODE("insb"), 3, 3, V_DONE);
    io("outs.iopl3", UCODE("outsb"), 3, 3, V_DONE);
    io("rep-ins.forbidden", UCODE("rep insd"), 3, 0, V_GP);
    io("rep-outs.forbidden", UCODE("rep outsw"), 3, 0, V_GP);
    io("rep-ins.none-iopl3", UCODE("xor ecx, ecx\n 9: rep insb"), 3, 3, V_DONE);
    tss[104 + PORT / 8] = 0;
    io("ins.allowed", UCODE("insb"), 3, 0, V_DONE);
    io("outs.allowed", UCODE("outsb"), 3, 0, V_DONE);
    io("rep-ins.allowed", UCODE("rep insd"), 3, 0, V_DONE);
    /* the memory operand's fault leaves the registers alone */
    tss[104 + PORT / 8] = 0;
    c = user(UCODE("mov ds, eax\n 9: outsb"));
    c.dx = PORT;
    run_fault("outs.null-ds", "SDM Vol.2, OUTS", &c, V_GP, 0);
    c = user(UCODE("mov es, eax\n 9: insb"));
    c.dx = PORT;
    run_fault("ins.null-es", "SDM Vol.2, INS", &c, V_GP, 0);
    gdt_reset();
}

/* Where the bitmap ends. */
static void bitmap_limits(void)
{
    struct cpu c;
    uint32_t base = (word)tss;
    static const struct {
        const char *name;
        unsigned size, port, limit, offset;
        bool fault;
    } rows[] = {
        {"bitmap.last-byte-and-guard", 1, 0x17, 104 + 3, 104, false},
        {"bitmap.guard-missing", 1, 0x17, 104 + 2, 104, true},
        {"bitmap.guard-missing-first-bit", 1, 0x10, 104 + 2, 104, true},
        {"bitmap.one-before", 1, 0xf, 104 + 2, 104, false},
        {"bitmap.word-across-limit", 2, 0x17, 104 + 2, 104, true},
        {"bitmap.byte-beyond", 1, 0x18, 104 + 2, 104, true},
        {"bitmap.base-at-limit", 1, 0, 104, 104, true},
        {"bitmap.base-beyond-limit", 1, 0, 104, 105, true},
        {"bitmap.base-far-beyond", 1, 0, 104 + 10, 0xffff, true},
        {"bitmap.base-in-tss", 1, 0, 104 + 10, 92, false},
        {"bitmap.tss-minimal", 1, 0, 103, 104, true},
        {"bitmap.tss-without-base", 1, 0, 101, 104, true},
    };

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        gdt_reset();
        for (unsigned k = 0; k < 64; k++)
            tss[104 + k] = 0;
        tss[102] = (uint8_t)rows[i].offset;
        tss[103] = (uint8_t)(rows[i].offset >> 8);
        load_tr(descriptor(base, rows[i].limit, 0x89, 0));
        c = user(io_code(rows[i].size, true));
        c.dx = rows[i].port;
        /* ports below 0x20 belong to chips: what is written there must not matter */
        c.ax = 0;
        if (!rows[i].fault)
            c = user(io_code(rows[i].size, false));
        c.dx = rows[i].port;
        run(&c);
        if (rows[i].fault)
            check_fault(rows[i].name, BITMAP, &c, V_GP, 0);
        else
            check_done(rows[i].name, BITMAP, &c);
    }
    /* a 16-bit TSS has none */
    gdt_reset();
    for (unsigned k = 0; k < 64; k++)
        tss[104 + k] = 0;
    *(volatile uint32_t *)(word)tss = 0xf000u << 16;
    *(volatile uint16_t *)(word)(tss + 4) = S_DATA;
    load_tr(descriptor(base, sizeof(tss) - 1, 0x81, 0));
    c = user(io_code(1, false));
    run_fault("bitmap.tss16", BITMAP, &c, V_GP, 0);
    c = user(io_code(1, false));
    c.flags |= FL_IOPL;
    run_done("bitmap.tss16-iopl3", BITMAP, &c);
    gdt_reset();
    /* port 0xffff of a word access wraps nowhere: the bit after the last is the guard's */
    for (unsigned k = 0; k < 0x2000; k++)
        tss[104 + k] = 0;
    c = user(io_code(2, false));
    c.dx = 0xffff;
    run_fault("bitmap.word-at-last-port", BITMAP, &c, V_GP, 0);
    c = user(io_code(1, false));
    c.dx = 0xffff;
    run_done("bitmap.last-port", BITMAP, &c);
    gdt_reset();
}

/* ---- IF and IOPL ---- */

static void interrupt_flag(void)
{
    static const struct {
        const char *name;
        unsigned cpl, iopl;
        bool allowed;
    } rows[] = {
        {"cpl0-iopl0", 0, 0, true},  {"cpl1-iopl0", 1, 0, false}, {"cpl1-iopl1", 1, 1, true},
        {"cpl2-iopl1", 2, 1, false}, {"cpl2-iopl3", 2, 3, true},  {"cpl3-iopl0", 3, 0, false},
        {"cpl3-iopl2", 3, 2, false}, {"cpl3-iopl3", 3, 3, true},
    };

    outb(0x21, 0xff); /* nothing may come in */
    outb(0xa1, 0xff);
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        unsigned cpl = rows[i].cpl;
        struct cpu c = at_level(cpl == 3 ? UCODE("cli") : CODE("cli"), cpl);
        word iopl = rows[i].iopl << 12;

        c.flags |= FL_IF | iopl;
        run(&c);
        if (rows[i].allowed)
            check_done(joined("cli.", rows[i].name, ""), IOPL, &c);
        else
            check_fault(joined("cli.", rows[i].name, ""), IOPL, &c, V_GP, 0);
        check(joined("cli.", rows[i].name, "-if"), IOPL, c.flags & FL_IF,
              rows[i].allowed ? 0 : FL_IF);
        c = at_level(cpl == 3 ? UCODE("sti\n nop") : CODE("sti\n nop"), cpl);
        c.flags |= iopl;
        run(&c);
        if (rows[i].allowed)
            check_done(joined("sti.", rows[i].name, ""), IOPL, &c);
        else
            check_fault(joined("sti.", rows[i].name, ""), IOPL, &c, V_GP, 0);
        check(joined("sti.", rows[i].name, "-if"), IOPL, c.flags & FL_IF,
              rows[i].allowed ? FL_IF : 0);
        /* POPF changes IF where STI may, IOPL at CPL 0, and never faults */
        c = at_level(cpl == 3 ? UCODE("push eax\n popfd\n nop") : CODE("push eax\n popfd\n nop"),
                     cpl);
        c.ax = 2 | FL_IF | ((iopl ^ FL_IOPL) & FL_IOPL) | FL_CF | FL_AC | FL_ID | FL_NT;
        c.flags |= iopl;
        run(&c);
        check_done(joined("popf.", rows[i].name, ""), IOPL, &c);
        check(joined("popf.", rows[i].name, "-flags"), IOPL, c.flags & ~FL_RF,
              2 | FL_CF | FL_AC | FL_ID | FL_NT | (rows[i].allowed ? FL_IF : 0) |
                  (cpl == 0 ? (iopl ^ FL_IOPL) & FL_IOPL : iopl));
        c = at_level(cpl == 3 ? UCODE("push ax\n .byte 0x66, 0x9d\n nop")
                              : CODE("push ax\n .byte 0x66, 0x9d\n nop"),
                     cpl);
        c.ax = 2;
        c.flags |= iopl | FL_IF | FL_AC | FL_ID;
        run(&c);
        check(joined("popf16.", rows[i].name, "-flags"), IOPL, c.flags & ~FL_RF,
              2 | FL_AC | FL_ID | (rows[i].allowed ? 0 : FL_IF) | (cpl == 0 ? 0 : iopl));
    }
}

static void popf(void)
{
    struct cpu c = kernel(CODE("push eax\n popfd"));

    c.ax = 2 | FL_VM | FL_RF | FL_VIF | FL_VIP;
    run(&c);
    check_done("popf.vm-ignored", "SDM Vol.2, POPF", &c);
    check("popf.vm-vif-vip", "SDM Vol.2, POPF", c.flags & (FL_VM | FL_VIF | FL_VIP), 0);
    c = kernel(CODE("push eax\n popfd\n pushfd\n pop ecx"));
    c.ax = 0xffffffff & ~(FL_TF | FL_VM | FL_IF);
    run(&c);
    check("popf.all", "SDM Vol.2, POPF", c.cx,
          0x00247cd7u & ~(FL_TF | FL_IF)); /* ID AC NT IOPL OF DF SF ZF AF PF 1 CF */
    c = kernel(CODE("pushfd\n pop ecx"));
    c.flags |= FL_RF;
    run(&c);
    check("pushf.rf-clear", "SDM Vol.2, PUSHF", c.cx & FL_RF, 0);
    c = user(UCODE("pushfd\n pop ecx\n .byte 0x66, 0x9c\n pop dx"));
    c.flags |= FL_CF | FL_IOPL | FL_IF;
    run(&c);
    check("pushf.cpl3", "SDM Vol.2, PUSHF", c.cx, 2 | FL_CF | FL_IOPL | FL_IF);
    check("pushf16.cpl3", "SDM Vol.2, PUSHF", c.dx, 2 | FL_CF | FL_IOPL | FL_IF);
}

/* ---- privileged instructions ---- */

static void privileged(void)
{
    static const char *const names[] = {
        "hlt",     "lgdt",    "lidt",    "lldt",       "ltr",        "lmsw",       "clts",
        "mov-cr0", "mov-cr3", "mov-cr4", "mov-to-cr0", "mov-to-cr3", "mov-dr0",    "mov-to-dr7",
        "invd",    "wbinvd",  "invlpg",  "rdmsr",      "wrmsr",      "lmsw-memory"};
    struct code users[] = {
        UCODE("hlt"),          UCODE("lgdt [ebx]"),   UCODE("lidt [ebx]"),   UCODE("lldt ax"),
        UCODE("ltr ax"),       UCODE("lmsw ax"),      UCODE("clts"),         UCODE("mov eax, cr0"),
        UCODE("mov eax, cr3"), UCODE("mov eax, cr4"), UCODE("mov cr0, eax"), UCODE("mov cr3, eax"),
        UCODE("mov eax, dr0"), UCODE("mov dr7, eax"), UCODE("invd"),         UCODE("wbinvd"),
        UCODE("invlpg [ebx]"), UCODE("rdmsr"),        UCODE("wrmsr"),        UCODE("lmsw [ebx]")};

    for (unsigned cpl = 1; cpl < 4; cpl += 2) {
        for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
            struct cpu c = at_level(users[i], cpl);

            c.bx = (word)user_page;
            c.flags |= FL_IOPL;
            run(&c);
            check_fault(joined(names[i], cpl == 1 ? ".cpl1" : ".cpl3", ""), PRIVILEGED, &c, V_GP,
                        0);
        }
    }
    struct cpu c = user(UCODE("smsw eax\n sgdt [ebx]\n sidt [ebx]\n sldt ecx\n str ecx"));

    c.bx = (word)user_page;
    run_done("smsw.cpl3", PRIVILEGED, &c);
    check("smsw.cpl3-value", "SDM Vol.2, SMSW", c.ax & 0xffff, cr0() & 0xffff);
    c = user(UCODE("rdtsc"));
    run_done("rdtsc.cpl3", PRIVILEGED, &c);
    set_cr4(cr4() | CR4_TSD);
    c = user(UCODE("rdtsc"));
    run_fault("rdtsc.tsd-cpl3", PRIVILEGED, &c, V_GP, 0);
    c = at_level(CODE("rdtsc"), 1);
    run_fault("rdtsc.tsd-cpl1", PRIVILEGED, &c, V_GP, 0);
    c = kernel(CODE("rdtsc"));
    run_done("rdtsc.tsd-cpl0", PRIVILEGED, &c);
    set_cr4(cr4() & ~CR4_TSD);
    require(cpuid_bit(7, 0, 2, 2), "UMIP is not offered");
    static const char *const umip_names[] = {"umip.smsw", "umip.sgdt", "umip.sidt", "umip.sldt",
                                             "umip.str"};
    struct code umip[] = {UCODE("smsw eax"), UCODE("sgdt [ebx]"), UCODE("sidt [ebx]"),
                          UCODE("sldt ecx"), UCODE("str ecx")};

    set_cr4(cr4() | CR4_UMIP);
    for (unsigned i = 0; i < 5; i++) {
        c = user(umip[i]);
        c.bx = (word)user_page;
        run_fault(umip_names[i], "SDM Vol.3, CR4.UMIP", &c, V_GP, 0);
    }
    c = kernel(CODE("smsw eax"));
    run_done("umip.cpl0", "SDM Vol.3, CR4.UMIP", &c);
    set_cr4(cr4() & ~CR4_UMIP);
    require_end();
}

static void lmsw(void)
{
    word keep = cr0();
    struct cpu c = kernel(CODE("lmsw ax\n mov ecx, cr0"));

    c.ax = 0xffff;
    run(&c);
    check("lmsw.sets", LMSW, c.cx, keep | CR0_PE | CR0_MP | CR0_EM | CR0_TS);
    c = kernel(CODE("lmsw ax\n mov ecx, cr0"));
    run(&c);
    check("lmsw.clears-but-pe", LMSW, c.cx, keep & ~(CR0_MP | CR0_EM | CR0_TS));
    c = kernel(CODE("push -1\n lmsw [esp]\n pop ecx\n mov ecx, cr0\n clts\n mov edx, cr0"));
    run(&c);
    check("lmsw.memory", LMSW, c.cx & 0xf, 0xf);
    check("clts", "SDM Vol.2, CLTS", c.dx, c.cx & ~CR0_TS);
    set_cr0(keep);
    c = kernel(CODE("smsw ecx\n mov edx, -1\n smsw dx\n push -1\n smsw [esp]\n pop eax"));
    run(&c);
    check("smsw.r32", "SDM Vol.2, SMSW", c.cx & 0xffff, keep & 0xffff);
    check("smsw.r16", "SDM Vol.2, SMSW", c.dx, 0xffff0000 | (keep & 0xffff));
    check("smsw.memory", "SDM Vol.2, SMSW", c.ax, 0xffff0000 | (keep & 0xffff));
}

void test(void)
{
    bitmap();
    port_instructions();
    bitmap_limits();
    interrupt_flag();
    popf();
    privileged();
    lmsw();
}
