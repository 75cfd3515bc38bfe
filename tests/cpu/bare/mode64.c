/* Tables of 64-bit images. */
#include "lib.h"

extern uint64_t pml4[512];
static uint64_t test_pt[512] __attribute__((aligned(4096)));
static uint64_t test_pd[512] __attribute__((aligned(4096)));
static uint64_t test_pdpt[512] __attribute__((aligned(4096)));
uint64_t *const test_entry[5] = {NULL, test_pt, test_pd, test_pdpt, &pml4[TEST_VA >> 39 & 511]};

static void put64(uint8_t *p, uint64_t v)
{
    bare_copy(p, &v, 8);
}

void idt_gate(unsigned vector, unsigned selector, word handler, unsigned access, unsigned ist)
{
    put64(idt + 16 * vector, (handler & 0xffff) | (uint64_t)selector << 16 | (uint64_t)ist << 32 |
                                 (uint64_t)access << 40 | (handler >> 16 & 0xffff) << 48);
    put64(idt + 16 * vector + 8, handler >> 32);
}

void gdt_reset(void)
{
    memset(gdt, 0, sizeof(gdt));
    gdt_set(S_CODE, descriptor(0, 0xfffff, 0x9b, 0xa));
    gdt_set(S_DATA, descriptor(0, 0xfffff, 0x93, 0xc));
    gdt_set(S_UCODE32, descriptor(0, 0xfffff, 0xfb, 0xc));
    gdt_set(S_UDATA, descriptor(0, 0xfffff, 0xf3, 0xc));
    gdt_set(S_UCODE64, descriptor(0, 0xfffff, 0xfb, 0xa));
    gdt_set(S_UDATA2, descriptor(0, 0xfffff, 0xf3, 0xc));
    gdt_set(S_CODE32, descriptor(0, 0xfffff, 0x9b, 0xc));
    gdt_set(S_CODE16, descriptor(LOW_CODE, 0xffff, 0x9b, 0));
    gdt_set(S_DATA16, descriptor(LOW_CODE, 0xffff, 0x93, 0));
    gdt_set(S_CODE_1, descriptor(0, 0xfffff, 0xbb, 0xa));
    gdt_set(S_DATA_1, descriptor(0, 0xfffff, 0xb3, 0xc));
    gdt_set(S_CODE_2, descriptor(0, 0xfffff, 0xdb, 0xa));
    gdt_set(S_DATA_2, descriptor(0, 0xfffff, 0xd3, 0xc));
    gdt_set(S_CONF, descriptor(0, 0xfffff, 0x9f, 0xa));
    gdt_set(S_CONF32, descriptor(0, 0xfffff, 0x9f, 0xc));
    gdt_set(S_TSS, descriptor((uint32_t)(word)tss, sizeof(tss) - 1, 0x89, 0));
    memset(tss, 0xff, sizeof(tss));
    memset(tss, 0, 104);
    for (unsigned level = 0; level < 3; level++)
        put64(tss + 4 + 8 * level, (word)trap_stack_top);
    for (unsigned ist = 1; ist <= 7; ist++)
        put64(tss + 28 + 8 * ist, (word)ist_stack_top);
    tss[102] = 104; /* the I/O bitmap */
    bare_load_gdt();
}

void test_pages_reset(void)
{
    for (unsigned i = 0; i < 512; i++) {
        test_pt[i] = i < TEST_FRAMES ? (word)test_frame[i] | 7 : 0;
        test_pd[i] = 0;
        test_pdpt[i] = 0;
    }
    test_pd[0] = (word)test_pt | 7;
    test_pdpt[0] = (word)test_pd | 7;
    *test_entry[4] = (word)test_pdpt | 7;
    flush_tlb();
}

struct cpu at_level(struct code code, unsigned cpl)
{
    static const uint16_t cs[] = {S_CODE, S_CODE_1, S_CODE_2, S_UCODE64};
    static const uint16_t ss[] = {S_DATA, S_DATA_1, S_DATA_2, S_UDATA};
    struct cpu c = {.ip = code.start, .flags = 2, .cs = cs[cpl], .ss = ss[cpl]};

    c.sp = (word)(cpl == 3 ? user_stack_top : fragment_stack_top);
    c.ds = c.es = S_UDATA;
    c.code = code;
    return c;
}

struct cpu code16(struct code code)
{
    struct cpu c = kernel(code);

    bare_copy((void *)(word)LOW_CODE, (const void *)(word)code.start, code.end - code.start);
    c.code = (struct code){0, code.mark - code.start, code.end - code.start};
    c.ip = 0;
    c.cs = S_CODE16;
    c.ss = c.ds = c.es = S_DATA16;
    c.sp = 0xf000;
    return c;
}

void bare_setup(void)
{
    gdt_reset();
    idt_reset();
    if (cpuid_bit(0x80000001, 0, 3, 20))
        wrmsr(0xc0000080, rdmsr(0xc0000080) | 1u << 11); /* NX */
    test_pages_reset();
}
