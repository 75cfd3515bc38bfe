/*
 * The runtime of the bare-metal test images: small kernels (Multiboot 1) without an operating
 * system, each of which makes named checks of what the processor's manual demands and reports them
 * on COM1. They run on every engine, on another emulator and on a real machine. One processor, no
 * threads, interrupts off unless a fragment turns them on.
 *
 * An image is one C file with
 *
 *     void test(void)
 *     {
 *         struct cpu c = kernel(CODE("xor ecx, ecx \n 9: div ecx"));
 *
 *         run(&c);
 *         check_fault("div.zero", "SDM Vol.3, #DE", &c, V_DE, NO_ERROR);
 *     }
 *
 * and a line in meson.build (IMAGE-64 is entered in 64-bit mode, IMAGE-32 in 32-bit protected mode
 * without paging). A *fragment* is assembly text in the manual's syntax, placed beside the check;
 * run() enters it by IRET with the registers, privilege level and mode that struct cpu says, and
 * any exception, interrupt or its closing INT 0x80 brings it back, with the registers as they were
 * and what the event pushed. Changing c.ip and calling run() again resumes it.
 *
 *     CODE     in the mode of the image, at CPL 0 to 2: struct cpu c = kernel(CODE("..."));
 *     UCODE    the same on a page for CPL 3:            struct cpu c = user(UCODE("..."));
 *     CODE32   32-bit code; in 64-bit images compatibility mode: c.cs = S_CODE32
 *     UCODE32  32-bit code for CPL 3: c.cs = S_UCODE32 (64-bit images)
 *     CODE16   16-bit code: code16(), and in 32-bit images vm86() and run_real()
 *
 * Label 9 in a fragment is the instruction whose fault is expected (if there is none, its first).
 * The text must not hold a "%"; labels in it are numbers, since the compiler may emit it twice.
 *
 * A check's name is "area.what", unique in the image; the topic names the manual's section.
 * require(cpuid bit, "reason") makes run(), the writes of registers below, and the checks do
 * nothing but print "skip" until require_end(). Where the processor's vendors document different
 * behaviour, require(intel(), ...).
 *
 * Memory: the image is at 1 MiB, for CPL 0 to 2 only; what UCODE and USER_DATA place is at 8 MiB,
 * for all levels. In paging modes everything below 4 GiB is mapped one to one. TEST_VA has tables
 * of its own (test_entry) for tests to change; test_pages_reset() restores them.
 */
#ifndef TESTS_CPU_BARE_H
#define TESTS_CPU_BARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef unsigned long word; /* as wide as a general register */

/* ---- checks ---- */

void check(const char *name, const char *topic, uint64_t got, uint64_t want);
/* Only the bits of mask. */
void check_bits(const char *name, const char *topic, uint64_t got, uint64_t want, uint64_t mask);
void require(bool offered, const char *reason);
void require_end(void);
bool skipping(void);
/* %s %c %u %x %lx %llx, with 0 and a width; to the console. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The three strings one after the other, until the next call. */
const char *joined(const char *a, const char *b, const char *c);
/* Ends the image early, as failed. */
_Noreturn void give_up(const char *reason);

/* ---- fragments ---- */

struct code {
    uint32_t start, mark, end; /* its bytes, and label 9 */
};

enum {
    V_DE,
    V_DB,
    V_NMI,
    V_BP,
    V_OF,
    V_BR,
    V_UD,
    V_NM,
    V_DF,
    V_TS = 10,
    V_NP,
    V_SS,
    V_GP,
    V_PF,
    V_MF = 16,
    V_AC,
    V_MC,
    V_XM,
    V_DONE = 0x80, /* the fragment came to its end */
    V_NONE = -1,   /* it did not run: skipped */
};
#define NO_ERROR (-1)

/* In start64.S and start32.S the offsets of all up to `code`. */
struct cpu {
    word ax, cx, dx, bx, sp, bp, si, di, r8, r9, r10, r11, r12, r13, r14, r15;
    word ip, flags, cs, ss;
    word es, ds, fs, gs; /* 64-bit images load ES and DS only */
    /* what ended it */
    word cr2, frame; /* address of what was pushed: error code or IP */
    word vector, error, has_error;
    struct code code;
};

#define FRAGMENT_(section, bits, text, ending)                                                     \
    ({                                                                                             \
        struct code k_;                                                                            \
        __asm__ volatile(".pushsection " section "\n.intel_syntax noprefix\n.code" bits            \
                         "\n.balign 16\n9: 77: " text "\n" ending "\n78:\n.att_syntax prefix\n"    \
                         ".code" HOST_BITS_ "\n.popsection\n"                                      \
                         "movl $77b, %0\nmovl $9b, %1\nmovl $78b, %2"                              \
                         : "=r"(k_.start), "=r"(k_.mark), "=r"(k_.end));                           \
        k_;                                                                                        \
    })
#ifdef __x86_64__
#define HOST_BITS_ "64"
#else
#define HOST_BITS_ "32"
#endif
#define K_SECTION_ ".text.fragments,\"ax\",@progbits"
#define U_SECTION_ ".user.text,\"ax\",@progbits"
#define END_ "int 0x80"
#define CODE(text) FRAGMENT_(K_SECTION_, HOST_BITS_, text, END_)
#define UCODE(text) FRAGMENT_(U_SECTION_, HOST_BITS_, text, END_)
#define CODE32(text) FRAGMENT_(K_SECTION_, "32", text, END_)
#define UCODE32(text) FRAGMENT_(U_SECTION_, "32", text, END_)
#define CODE16(text) FRAGMENT_(K_SECTION_, "16", text, END_)
#define USER_DATA __attribute__((section(".user.data")))

/* Registers for a start: all zero, but IP, FLAGS (2), a stack, flat segments of that level. */
struct cpu kernel(struct code code);
struct cpu user(struct code code);
/* At CPL 0 to 3 in the mode of the image. A fragment for CPL 3 is a UCODE. */
struct cpu at_level(struct code code, unsigned cpl);
/*
 * 16-bit protected mode at CPL 0: copied to LOW_CODE, which is the base of CS (S_CODE16), SS, DS
 * and ES (S_DATA16). The copy's start and mark are offsets in it.
 */
struct cpu code16(struct code code);
#define LOW_CODE 0x20000u

/* Enters at c->cs:ip; returns when something raised an exception or interrupt. */
void run(struct cpu *c);

/* c ended in a fault at its mark. */
void check_fault(const char *name, const char *topic, const struct cpu *c, int vector,
                 int64_t error);
/* c ended in this event, which pushed this IP. */
void check_event(const char *name, const char *topic, const struct cpu *c, int vector,
                 int64_t error, word ip);
/* c ended in a page fault, at its mark, with this error code and address. */
void check_pf(const char *name, const char *topic, const struct cpu *c, uint32_t error, word cr2);
/* The same, with the IP pushed. */
void check_pf_at(const char *name, const char *topic, const struct cpu *c, uint32_t error, word cr2,
                 word ip);
/* c came to its end. */
void check_done(const char *name, const char *topic, const struct cpu *c);
/* run(), and then the check of that name. */
void run_fault(const char *name, const char *topic, struct cpu *c, int vector, int64_t error);
void run_done(const char *name, const char *topic, struct cpu *c);

/* ---- descriptors ---- */

#define S_CODE 0x08    /* of the image's mode */
#define S_DATA 0x10    /* flat, writable; a stack for CPL 0 */
#define S_UCODE32 0x1b /* flat, CPL 3 */
#define S_UDATA 0x23
#define S_UCODE64 0x2b /* in 32-bit images a code segment like S_UCODE32 */
#define S_UDATA2 0x33  /* where SYSEXIT to 64-bit mode expects it */
#define S_CODE32 0x38  /* flat, CPL 0 */
#define S_CODE16 0x40  /* base LOW_CODE, 64 KiB, as are the next */
#define S_DATA16 0x48
#define S_CODE_1 0x51
#define S_DATA_1 0x59
#define S_CODE_2 0x62
#define S_DATA_2 0x6a
#define S_CONF 0x70   /* conforming, of the image's mode, DPL 0 */
#define S_CONF32 0x78 /* conforming, 32-bit, DPL 0 */
#define S_TSS 0x80    /* with an upper half in 64-bit images */
#define S_LDT 0x90    /* not present until a test makes it so; with an upper half */
#define S_FREE 0xa0   /* from here on for tests */
#define GDT_ENTRIES 64

extern uint64_t gdt[GDT_ENTRIES];
extern uint8_t tss[0x2100]; /* with an I/O bitmap of all ports behind the first 104 bytes */
struct descriptor_table {
    uint16_t limit;
    word base;
} __attribute__((packed));

/* access: the byte of type, S, DPL, P; flags: G, D/B, L, AVL in bits 3 to 0. */
uint64_t descriptor(uint32_t base, uint32_t limit, unsigned access, unsigned flags);
void gdt_set(unsigned selector, uint64_t value);
/* Restores the descriptors that the runtime made, GDTR, TR (not busy before), the TSS. */
void gdt_reset(void);

enum { GATE_INT = 0x8e, GATE_TRAP = 0x8f, GATE_DPL3 = 0x60 };
/* A gate to any code; ist is for 64-bit images. */
void idt_gate(unsigned vector, unsigned selector, word handler, unsigned access, unsigned ist);
/* A gate to the usual handler, without IST or with. In 64-bit images every gate has IST 1. */
void idt_usual(unsigned vector, unsigned access, unsigned ist);
/* All gates as at the start: DPL 0, but vector 0x80 (DPL 3); and IDTR. */
void idt_reset(void);
extern uint8_t idt[256 * 2 * sizeof(word)];
/* Where an IRET of run() that faults does so. */
extern const char bare_iret[];
/* Tops of the stacks: of fragments at CPL 0 to 2, of CPL 3; the ones in the TSS and IST 1. */
extern uint8_t fragment_stack_top[], user_stack_top[], trap_stack_top[], ist_stack_top[];
extern uint8_t user_page[2][4096]; /* for all levels, page-aligned, for tests */

/* ---- pages ---- */

#define PTE_P 1ull
#define PTE_W 2ull
#define PTE_U 4ull
#define PTE_PWT 8ull
#define PTE_PCD 0x10ull
#define PTE_A 0x20ull
#define PTE_D 0x40ull
#define PTE_PS 0x80ull
#define PTE_G 0x100ull
#define PTE_NX (1ull << 63)
#define PTE_ADDR 0x000ffffffffff000ull

#ifdef __x86_64__
#define TEST_VA 0x8000000000ul
#else
#define TEST_VA 0x40000000ul
#endif
#define TEST_FRAMES 8
/* 4 KiB frames, mapped at TEST_VA in this order, present, writable, for CPL 3; 4 KiB each. */
extern uint8_t test_frame[TEST_FRAMES][4096];
/*
 * 64-bit and PAE: the entries that translate TEST_VA: [1] in the page table (those of the next
 * pages follow it), [2] directory, [3] pointer table, [4] top.
 */
extern uint64_t *const test_entry[5];
void test_pages_reset(void);
/* Drops every translation, global ones too. */
void flush_tlb(void);
uint64_t physical_mask(void); /* of MAXPHYADDR */
/* Lets each test frame begin with an INT 0x80, for accesses of kind x. */
void test_frames_return(void);
/*
 * One access to a linear address: kind r reads a byte, w writes one, x jumps there, where an
 * INT 0x80 is expected.
 */
struct cpu access_memory(char kind, unsigned cpl, word va);
/* The access, and the check that it raised #PF with this error code (and its address in CR2). */
#define NO_FAULT 0x10000u
void expect_access(const char *name, const char *topic, char kind, unsigned cpl, word va,
                   uint32_t error);

/* ---- 32-bit images ---- */

#ifndef __x86_64__
enum paging { PAGING_OFF, PAGING_32, PAGING_PAE };
/* The maps described above; the page-table entry of TEST_VA in 32-bit paging is test_pte32[0]. */
void paging(enum paging form);
extern uint32_t test_pte32[1024], *const test_pde32;
/* Virtual-8086 mode: the fragment is copied to LOW_CODE, CS = SS = DS = ES = LOW_CODE / 16. */
struct cpu vm86(struct code code, unsigned iopl);
/*
 * Real-address mode, paging off: copied likewise; any interrupt or exception returns, with the
 * FLAGS, CS and IP that it pushed. There are no error codes. c->ip is the offset of its start.
 */
struct cpu real(struct code code);
void run_real(struct cpu *c);
/* Vectors 8, 10-14, 17, 21 push an error code, unless INT n raised them: then set this. */
extern uint32_t bare_no_error_code;
#endif

/* ---- registers; all of them do nothing while skipping ---- */

void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
bool cpuid_bit(uint32_t leaf, uint32_t subleaf, unsigned reg, unsigned bit); /* reg: 0 EAX .. */
bool intel(void);
uint64_t rdmsr(uint32_t index);
void wrmsr(uint32_t index, uint64_t value);
/* Whether the access raised #GP. */
bool rdmsr_faults(uint32_t index);
bool wrmsr_faults(uint32_t index, uint64_t value);
word cr0(void);
word cr2(void);
word cr3(void);
word cr4(void);
void set_cr0(word value);
void set_cr2(word value);
void set_cr3(word value);
void set_cr4(word value);
word dr6(void);
word dr7(void);
void set_dr(unsigned n, word value); /* 0 to 3, 6, 7 */
void outb(uint16_t port, uint8_t value);
uint8_t inb(uint16_t port);

#define CR0_PE 1ul
#define CR0_MP 2ul
#define CR0_EM 4ul
#define CR0_TS 8ul
#define CR0_NE 0x20ul
#define CR0_WP 0x10000ul
#define CR0_AM 0x40000ul
#define CR0_NW 0x20000000ul
#define CR0_CD 0x40000000ul
#define CR0_PG 0x80000000ul
#define CR4_VME 1ul
#define CR4_PVI 2ul
#define CR4_TSD 4ul
#define CR4_DE 8ul
#define CR4_PSE 0x10ul
#define CR4_PAE 0x20ul
#define CR4_MCE 0x40ul
#define CR4_PGE 0x80ul
#define CR4_PCE 0x100ul
#define CR4_OSFXSR 0x200ul
#define CR4_OSXMMEXCPT 0x400ul
#define CR4_UMIP 0x800ul
#define CR4_LA57 0x1000ul
#define CR4_FSGSBASE 0x10000ul
#define CR4_PCIDE 0x20000ul
#define CR4_OSXSAVE 0x40000ul
#define CR4_SMEP 0x100000ul
#define CR4_SMAP 0x200000ul
#define CR4_PKE 0x400000ul
#define CR4_PKS 0x1000000ul
#define FL_CF 1ul
#define FL_PF 4ul
#define FL_ZF 0x40ul
#define FL_TF 0x100ul
#define FL_IF 0x200ul
#define FL_DF 0x400ul
#define FL_OF 0x800ul
#define FL_IOPL 0x3000ul
#define FL_NT 0x4000ul
#define FL_RF 0x10000ul
#define FL_VM 0x20000ul
#define FL_AC 0x40000ul
#define FL_VIF 0x80000ul
#define FL_VIP 0x100000ul
#define FL_ID 0x200000ul

/* Each image has this. */
void test(void);

#endif
