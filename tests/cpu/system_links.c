/*
 * Direct jumps and calls to other pages, done often: they must lead where the address leads now,
 * from wherever the code lies now. With a budget and without, which are two translations.
 */
#include "system.h"

#include <stdio.h>

#define A_OTHER 0x44000  /* a frame that takes the place of A_TEST's */
#define A_TABLES 0x70000 /* a second set of four tables */
#define PT_OF(va) (A_PT + 8 * ((va) >> 12))
#define LONG 0x7f1234560000ull /* code that no 32-bit number names */
#define SIZE(code) code, (size_t)(code##_end - (code))

static const char *how;
static bool counted;

static void run(struct machine *m)
{
    m->budget = counted ? 50000 : 0;
    (void)m_run(m);
}

static void expect_link(const char *name, uint64_t got, uint64_t want)
{
    char text[160];

    snprintf(text, sizeof(text), "%s%s", how, name);
    expect(text, got, want);
}

/* To the page 0x1000 behind the fragment's, which begins with the label 0; ECX rounds. */
#define BEHIND "0b + 0x1000"
#define ROUNDS(n, what) "0: mov $" #n ", %ecx\n1: " what "dec %ecx\njnz 1b\n"

CODE(link_ret1, 64, "mov $1, %eax\nret\n");
CODE(link_ret2, 64, "mov $2, %eax\nret\n");

/* ---- what is there ---- */

/* The target's immediate changes each round. */
CODE(link_patch, 64,
     ROUNDS(200, "mov %cl, 1(%rbx)\ncall " BEHIND "\ncmp %cl, %al\nje 2f\ninc %esi\n2: ") DONE);
/* Jcc, JMP, a block that runs off its page; each adds one. */
CODE(link_ways, 64,
     "0: mov $100, %ecx\n1: xor %eax, %eax\ntest %eax, %eax\nje 0b + 0x1000\n2: inc %edx\n"
     "dec %ecx\njnz 1b\n" DONE);
CODE(link_ways_behind, 64,
     "0: inc %esi\njmp 0b + 0xff0\n.fill 0xff0 - 7, 1, 0x90\ninc %edi\n.fill 0x20, 1, 0x90\n"
     "inc %r8d\nlea 0b(%rip), %r9\ncmp %rbx, %r9\nje 3f\nud2\n3: jmp 0b - 0x1000 + 15\n");
CODE(link_place, 64, "lea (%rip), %rax\nret\n");
CODE(link_places, 64, ROUNDS(40, "call *%rbx\nadd %rax, %r8\ncall *%rbp\nadd %rax, %r9\n") DONE);
CODE(link_on, 64, "0: call " BEHIND "\nret\n");

static void check_patched(struct machine *m)
{
    m_long(m);
    LOAD(m, A_TEST, link_patch);
    LOAD(m, A_TEST + 0x1000, link_ret1);
    m->st.rip = A_TEST;
    m->st.gpr[X86_RBX] = A_TEST + 0x1000;
    run(m);
    expect_event(m, "a function that is patched each round", 0x80, NO_ERROR, ANY_RIP);
    expect_link("a function that is patched each round: stale", m->st.gpr[X86_RSI], 0);
}

static void check_ways(struct machine *m)
{
    m_long(m);
    LOAD(m, A_TEST, link_ways);
    LOAD(m, A_TEST + 0x1000, link_ways_behind);
    m->st.rip = A_TEST;
    m->st.gpr[X86_RBX] = A_TEST + 0x1000;
    m->st.gpr[X86_RDX] = 0;
    run(m);
    expect_event(m, "Jcc, JMP, over the end of a page", 0x80, NO_ERROR, ANY_RIP);
    expect_link("rounds by Jcc", m->st.gpr[X86_RSI], 100);
    expect_link("rounds by JMP within the page", m->st.gpr[X86_RDI], 100);
    expect_link("rounds over the end", m->st.gpr[X86_R8], 100);
    expect_link("rounds back", m->st.gpr[X86_RDX], 100);
}

/* One frame at two addresses, whose neighbours are two frames. */
static void check_aliases(struct machine *m)
{
    m_long(m);
    m_put64(m, PT_OF(A_TEST + 0x2000), A_TEST | PTE_P | PTE_W);
    LOAD(m, A_TEST, link_on);
    LOAD(m, A_TEST + 0x1000, link_place);
    LOAD(m, A_TEST + 0x3000, link_place);
    LOAD(m, A_CODE, link_places);
    m->st.gpr[X86_RBX] = A_TEST;
    m->st.gpr[X86_RBP] = A_TEST + 0x2000;
    run(m);
    expect_link("code at two addresses: the first", m->st.gpr[X86_R8], 40 * (A_TEST + 0x1007ull));
    expect_link("code at two addresses: the second", m->st.gpr[X86_R9], 40 * (A_TEST + 0x3007ull));
}

/* Code, and what it calls, at an address of 47 bits. */
static void check_long(struct machine *m)
{
    uint64_t upper = PTE_P | PTE_W | PTE_U;

    m_long(m);
    m_put64(m, A_PML4 + 8 * (LONG >> 39 & 511), A_TABLES | upper);
    m_put64(m, A_TABLES + 8 * (LONG >> 30 & 511), (A_TABLES + 0x1000) | upper);
    m_put64(m, A_TABLES + 0x1000 + 8 * (LONG >> 21 & 511), (A_TABLES + 0x2000) | upper);
    m_put64(m, A_TABLES + 0x2000 + 8 * (LONG >> 12 & 511), A_TEST | PTE_P | PTE_W);
    m_put64(m, A_TABLES + 0x2008 + 8 * (LONG >> 12 & 511), (A_TEST + 0x1000) | PTE_P | PTE_W);
    LOAD(m, A_TEST, link_on);
    LOAD(m, A_TEST + 0x1000, link_place);
    LOAD(m, A_CODE, link_places);
    m->st.gpr[X86_RBX] = LONG;
    m->st.gpr[X86_RBP] = A_TEST;
    run(m);
    expect_link("code at a long address", m->st.gpr[X86_R8], 40 * (LONG + 0x1007ull));
    expect_link("the same at a short one", m->st.gpr[X86_R9], 40 * (A_TEST + 0x1007ull));
}

/* ---- where the address leads ---- */

/* One call, done often; then its target's page becomes another frame; at CPL 3 by a gate. */
#define MOVED(how)                                                                                 \
    ROUNDS(30, "call 9f\n")                                                                        \
    "mov %eax, %r8d\n" how "call 9f\nmov %eax, %r9d\n" DONE "9: call " BEHIND "\nret\n"
#define ENTRY "mov %r11, (%rdi)\n"
// clang-format off
CODE(link_invlpg, 64, MOVED(ENTRY "invlpg (%rbx)\n"));
CODE(link_cr3, 64, MOVED(ENTRY "mov %cr3, %rax\nmov %rax, %cr3\n"));
CODE(link_pge, 64, MOVED(ENTRY "mov %cr4, %rax\nxor $0x80, %al\nmov %rax, %cr4\n"));
CODE(link_spaces, 64, MOVED("mov %r13, %cr3\n"));
CODE(link_user, 64, MOVED("int $0x81\n"));
CODE(link_user_invlpg, 64, ENTRY "invlpg (%rbx)\niretq\n");
CODE(link_user_cr3, 64, ENTRY "mov %cr3, %rax\nmov %rax, %cr3\niretq\n");
CODE(link_user_spaces, 64, "mov %r13, %cr3\niretq\n");
// clang-format on

static void moved(struct machine *m, const char *name, uint64_t flags, const uint8_t *code,
                  size_t len, const uint8_t *gate, size_t gate_len)
{
    bool user = gate != NULL;
    uint64_t page = user ? A_UCODE + 0x1000 : A_TEST + 0x1000;
    char text[96];

    flags |= PTE_P | PTE_W | (user ? PTE_U : 0);
    m_long(m);
    m_put64(m, PT_OF(page), page | flags);
    m_copy_tables(m, A_TABLES);
    m_put64(m, A_TABLES + 0x3000 + 8 * (page >> 12), A_OTHER | flags);
    LOAD(m, page, link_ret1);
    LOAD(m, A_OTHER, link_ret2);
    m->st.rip = page - 0x1000;
    if (user) {
        m_user(m);
        m_gate_to(m, 0x81, A_CODE);
        m_write(m, A_CODE, gate, gate_len);
    }
    m_write(m, page - 0x1000, code, len);
    m->st.gpr[X86_RBX] = page;
    m->st.gpr[X86_R11] = A_OTHER | flags;
    m->st.gpr[X86_RDI] = PT_OF(page);
    m->st.gpr[X86_R13] = A_TABLES;
    run(m);
    snprintf(text, sizeof(text), "%s%s%s", name, user ? ", user" : ", supervisor",
             flags & PTE_G ? ", global" : "");
    expect_link(text, m->st.gpr[X86_R8] << 8 | m->st.gpr[X86_R9], 0x102);
}

static void check_moved(struct machine *m)
{
    moved(m, "INVLPG", 0, SIZE(link_invlpg), NULL, 0);
    moved(m, "INVLPG", PTE_G, SIZE(link_invlpg), NULL, 0);
    moved(m, "MOV CR3", 0, SIZE(link_cr3), NULL, 0);
    moved(m, "CR4.PGE", 0, SIZE(link_pge), NULL, 0);
    moved(m, "CR4.PGE", PTE_G, SIZE(link_pge), NULL, 0);
    moved(m, "another address space", 0, SIZE(link_spaces), NULL, 0);
    moved(m, "INVLPG", 0, SIZE(link_user), SIZE(link_user_invlpg));
    moved(m, "MOV CR3", 0, SIZE(link_user), SIZE(link_user_cr3));
    moved(m, "another address space", 0, SIZE(link_user), SIZE(link_user_spaces));
}

/* ---- no end ---- */

static void endless(struct machine *m, const char *name)
{
    char text[160];

    snprintf(text, sizeof(text), "%s%s", how, name);
    m->budget = counted ? UINT64_MAX / 4 : 0;
    expect_kick_ends(m, text);
}

CODE(link_there, 64, "0: inc %ecx\njmp " BEHIND "\n");
CODE(link_back, 64, "0: inc %ecx\njmp 0b - 0x1000\n");
/* in 32 bits: always forward, and round */
CODE(link_forward, 32, "inc %ecx\n.byte 0xe9; .long 0x40000000 - 6\n");

static void check_endless(struct machine *m)
{
    m_long(m);
    LOAD(m, A_TEST, link_there);
    LOAD(m, A_TEST + 0x1000, link_back);
    m->st.rip = A_TEST;
    endless(m, "kick ends a cycle of two pages");
    m_protected(m);
    m_paging32(m);
    for (unsigned k = 0; k < 4; k++) {
        LOAD(m, (k << 22) + A_TEST, link_forward);
        m_put32(m, A_PD32 + 4 * (k << 8), k << 22 | (uint32_t)(PTE_P | PTE_W | PTE_PS));
    }
    m->st.rip = A_TEST;
    endless(m, "kick ends a cycle that goes round in 32 bits");
}

void test_links(struct machine *m)
{
    for (unsigned i = 0; i < 2; i++) {
        counted = i != 0;
        how = counted ? "with a budget: " : "";
        check_patched(m);
        check_ways(m);
        check_aliases(m);
        check_long(m);
        check_moved(m);
        check_endless(m);
    }
}
