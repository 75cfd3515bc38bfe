/* Tables of 32-bit images, paging, virtual-8086 and real-address mode. */
#include "lib.h"

static uint64_t test_pt[512] __attribute__((aligned(4096)));
static uint64_t pae_pd[4][512] __attribute__((aligned(4096)));
static uint64_t pdpt[4] __attribute__((aligned(32)));
uint64_t *const test_entry[5] = {NULL, test_pt, &pae_pd[TEST_VA >> 30][TEST_VA >> 21 & 511],
                                 &pdpt[TEST_VA >> 30], NULL};
uint32_t test_pte32[1024] __attribute__((aligned(4096)));
static uint32_t page_directory[1024] __attribute__((aligned(4096)));
uint32_t *const test_pde32 = &page_directory[TEST_VA >> 22];

extern const uint8_t low_start[], low_end[], low_stubs[];
extern struct cpu low_cpu;
extern const struct descriptor_table low_gdtr, low_idtr_back;
void bare_real_enter(void);

static void put16(void *p, uint32_t v)
{
    bare_copy(p, &v, 2);
}

static void put32(void *p, uint32_t v)
{
    bare_copy(p, &v, 4);
}

void idt_gate(unsigned vector, unsigned selector, word handler, unsigned access, unsigned ist)
{
    (void)ist;
    put32(idt + 8 * vector, (handler & 0xffff) | selector << 16);
    put32(idt + 8 * vector + 4, (handler & 0xffff0000) | access << 8);
}

void gdt_reset(void)
{
    memset(gdt, 0, sizeof(gdt));
    gdt_set(S_CODE, descriptor(0, 0xfffff, 0x9b, 0xc));
    gdt_set(S_DATA, descriptor(0, 0xfffff, 0x93, 0xc));
    gdt_set(S_UCODE32, descriptor(0, 0xfffff, 0xfb, 0xc));
    gdt_set(S_UDATA, descriptor(0, 0xfffff, 0xf3, 0xc));
    gdt_set(S_UCODE64, descriptor(0, 0xfffff, 0xfb, 0xc));
    gdt_set(S_UDATA2, descriptor(0, 0xfffff, 0xf3, 0xc));
    gdt_set(S_CODE32, descriptor(0, 0xfffff, 0x9b, 0xc));
    gdt_set(S_CODE16, descriptor(LOW_CODE, 0xffff, 0x9b, 0));
    gdt_set(S_DATA16, descriptor(LOW_CODE, 0xffff, 0x93, 0));
    gdt_set(S_CODE_1, descriptor(0, 0xfffff, 0xbb, 0xc));
    gdt_set(S_DATA_1, descriptor(0, 0xfffff, 0xb3, 0xc));
    gdt_set(S_CODE_2, descriptor(0, 0xfffff, 0xdb, 0xc));
    gdt_set(S_DATA_2, descriptor(0, 0xfffff, 0xd3, 0xc));
    gdt_set(S_CONF, descriptor(0, 0xfffff, 0x9f, 0xc));
    gdt_set(S_CONF32, descriptor(0, 0xfffff, 0x9f, 0xc));
    gdt_set(S_TSS, descriptor((word)tss, sizeof(tss) - 1, 0x89, 0));
    memset(tss, 0xff, sizeof(tss));
    memset(tss, 0, 104);
    put32(tss + 4, (word)trap_stack_top);
    put32(tss + 8, S_DATA);
    tss[102] = 104; /* the I/O bitmap */
    bare_load_gdt();
}

void test_pages_reset(void)
{
    for (unsigned i = 0; i < 1024; i++) {
        page_directory[i] = i << 22 | 0x83;
        test_pte32[i] = i < TEST_FRAMES ? (word)test_frame[i] | 7 : 0;
    }
    page_directory[2] |= 4; /* 8 MiB: for CPL 3 */
    page_directory[TEST_VA >> 22] = (word)test_pte32 | 7;
    for (unsigned i = 0; i < 2048; i++)
        pae_pd[i / 512][i % 512] = (uint64_t)i << 21 | 0x83;
    pae_pd[0][4] |= 4;
    for (unsigned i = 0; i < 512; i++)
        test_pt[i] = i < TEST_FRAMES ? (word)test_frame[i] | 7 : 0;
    *test_entry[2] = (word)test_pt | 7;
    for (unsigned i = 0; i < 4; i++)
        pdpt[i] = (word)pae_pd[i] | 1;
    if (cr0() & CR0_PG)
        flush_tlb();
}

void paging(enum paging form)
{
    set_cr0(cr0() & ~CR0_PG);
    set_cr4(cr4() & ~(CR4_PAE | CR4_PSE));
    test_pages_reset();
    if (form == PAGING_OFF)
        return;
    set_cr4(cr4() | CR4_PSE | (form == PAGING_PAE ? CR4_PAE : 0));
    set_cr3(form == PAGING_PAE ? (word)pdpt : (word)page_directory);
    set_cr0(cr0() | CR0_PG | CR0_WP);
}

struct cpu at_level(struct code code, unsigned cpl)
{
    static const uint16_t cs[] = {S_CODE, S_CODE_1, S_CODE_2, S_UCODE32};
    static const uint16_t ss[] = {S_DATA, S_DATA_1, S_DATA_2, S_UDATA};
    struct cpu c = {.ip = code.start, .flags = 2, .cs = cs[cpl], .ss = ss[cpl]};

    c.sp = (word)(cpl == 3 ? user_stack_top : fragment_stack_top);
    c.ds = c.es = c.fs = c.gs = S_UDATA;
    c.code = code;
    return c;
}

/* To LOW_CODE; its addresses become offsets there. */
static struct cpu low(struct code code)
{
    struct cpu c = kernel(code);

    bare_copy((void *)LOW_CODE, (const void *)(word)code.start, code.end - code.start);
    c.code = (struct code){0, code.mark - code.start, code.end - code.start};
    c.ip = 0;
    c.sp = 0xf000;
    return c;
}

struct cpu code16(struct code code)
{
    struct cpu c = low(code);

    c.cs = S_CODE16;
    c.ss = c.ds = c.es = S_DATA16;
    return c;
}

struct cpu real(struct code code)
{
    struct cpu c = low(code);

    c.cs = c.ss = c.ds = c.es = c.fs = c.gs = LOW_CODE >> 4;
    return c;
}

struct cpu vm86(struct code code, unsigned iopl)
{
    struct cpu c = real(code);

    c.flags |= FL_VM | iopl << 12;
    return c;
}

/* The copy of something in the low code, which is linked elsewhere. */
static void *in_low(const void *p)
{
    return (void *)(LOW_CODE + 0x8000 + ((word)p - (word)low_start));
}

void run_real(struct cpu *c)
{
    struct code code = c->code;
    struct cpu *there = in_low(&low_cpu);
    uint8_t *gdtr = in_low(&low_gdtr), *idtr = in_low(&low_idtr_back);

    if (skipping()) {
        c->vector = (word)V_NONE;
        return;
    }
    bare_copy((void *)(LOW_CODE + 0x8000), low_start, (word)low_end - (word)low_start);
    for (unsigned v = 0; v < 256; v++)
        put32((void *)(word)(4 * v), ((word)in_low(low_stubs) - LOW_CODE + 8 * v) | (LOW_CODE >> 4)
                                                                                        << 16);
    put16(gdtr, sizeof(gdt) - 1);
    put32(gdtr + 2, (word)gdt);
    put16(idtr, sizeof(idt) - 1);
    put32(idtr + 2, (word)idt);
    bare_copy(there, c, offsetof(struct cpu, code));
    put32(&there->code.start, c->sp); /* a far pointer to the stack for LSS */
    put32(&there->code.mark, c->ss);
    bare_real_enter();
    bare_copy(c, there, offsetof(struct cpu, code));
    c->code = code;
    c->vector &= 0xffff;
    c->ip &= 0xffff;
    c->cs &= 0xffff;
    c->flags &= 0xffff;
    c->has_error = 0;
}

void bare_setup(void)
{
    gdt_reset();
    idt_reset();
    if (cpuid_bit(0x80000001, 0, 3, 20))
        wrmsr(0xc0000080, rdmsr(0xc0000080) | 1u << 11); /* NX, which PAE paging has */
    test_pages_reset();
}
