/*
 * What translated code takes for granted and must notice the end of: bytes of instructions, where
 * linear addresses lead, the privilege, that nobody wants the processor back. Every check runs with
 * a budget and without: these are two translations.
 */
#include "system.h"

#include <stdio.h>

#define A_OTHER 0x44000  /* a frame that takes the place of A_TEST's; another after it */
#define A_TABLES 0x70000 /* a second set of four tables */
#define A_ARG 0x31000    /* of INVPCID */
#define PT_OF(va) (A_PT + 8 * ((va) >> 12))

static const char *how; /* said in front of every check's name */

static bool counted;

static int run(struct machine *m)
{
    m->budget = counted ? 20000 : 0;
    return m_run(m);
}

static void expect_jit(const char *name, uint64_t got, uint64_t want)
{
    char text[160];

    snprintf(text, sizeof(text), "%s%s", how, name);
    expect(text, got, want);
}

/* ---- instructions that are written ---- */

/*
 * The loop's body is changed every round by code on another page; ESI counts what was stale. What
 * is changed lies in a block that the one before it is linked to, and behind what that one looked
 * at for its flags.
 */
CODE(jit_patched, 64,
     "mov $200, %ecx\n"
     "1: call *%rdx\n"
     "jmp 2f\n"
     ".fill 16, 1, 0x90\n"
     "2: test %edi, %edi\n"
     "3: mov $0x99, %eax\n"
     "cmp %ecx, %eax\n"
     "je 4f\n"
     "inc %esi\n"
     "4: dec %ecx\n"
     "jnz 1b\n" DONE);
CODE(jit_patcher, 64, "mov %cl, 0x1c(%rbx)\nret\n");
/* The whole loop, called through a table entry that does not change. */
CODE(jit_patch_called, 64,
     "mov $200, %ecx\n"
     "1: mov %cl, 1(%rbx)\n"
     "call *%rbx\n"
     "cmp %ecx, %eax\n"
     "je 2f\n"
     "inc %esi\n"
     "2: dec %ecx\n"
     "jnz 1b\n" DONE);
CODE(jit_ret1, 64, "mov $1, %eax\nret\n");
CODE(jit_ret2, 64, "mov $2, %eax\nret\n");

static void check_patched(struct machine *m)
{
    m_long(m);
    LOAD(m, A_TEST, jit_patched);
    LOAD(m, A_CODE, jit_patcher);
    m->st.rip = m->st.gpr[X86_RBX] = A_TEST;
    m->st.gpr[X86_RDX] = A_CODE;
    expect_jit("a loop that is patched each round: ends", (uint64_t)run(m), 0x80);
    expect_jit("a loop that is patched each round: stale", m->st.gpr[X86_RSI], 0);
    m_long(m);
    LOAD(m, A_TEST, jit_ret1);
    LOAD(m, A_CODE, jit_patch_called);
    m->st.gpr[X86_RBX] = A_TEST;
    expect_jit("a function that is patched each round: ends", (uint64_t)run(m), 0x80);
    expect_jit("a function that is patched each round: stale", m->st.gpr[X86_RSI], 0);
}

/* REP MOVS writes itself once more, and another immediate behind it. */
#define OVER_SELF(op, size)                                                                        \
    "mov $3, %ebp\n"                                                                               \
    "1: lea 2f(%rip), %rdi\n"                                                                      \
    "mov $(3f-2f)/" #size ", %ecx\n"                                                               \
    "cmp $1, %ebp\n"                                                                               \
    "cmove %rdx, %rsi\n"                                                                           \
    "push %rsi\n"                                                                                  \
    "2: rep " #op "\n"                                                                             \
    "mov $1, %eax\n"                                                                               \
    ".balign 8, 0x90\n"                                                                            \
    "3: pop %rsi\n"                                                                                \
    "add %eax, %r8d\n"                                                                             \
    "dec %ebp\n"                                                                                   \
    "jnz 1b\n" DONE
CODE(jit_movsb, 64, ".balign 8, 0x90\n" OVER_SELF(movsb, 1));
CODE(jit_movsq, 64, ".balign 8, 0x90\n" OVER_SELF(movsq, 8));

static void over_self(struct machine *m, const char *name, const uint8_t *code, size_t len)
{
    uint8_t same[64];
    const uint8_t *rep = code;

    while (!(rep[0] == 0xf3 && (rep[1] == 0xa4 || (rep[1] == 0x48 && rep[2] == 0xa5))))
        rep++;
    memcpy(same, rep, sizeof(same));
    m_long(m);
    m_write(m, A_TEST, code, len);
    m_write(m, A_DATA, same, sizeof(same));
    same[rep[1] == 0xa4 ? 3 : 4] = 7;
    m_write(m, A_DATA + 0x100, same, sizeof(same));
    m->st.rip = A_TEST;
    m->st.gpr[X86_RSI] = A_DATA;
    m->st.gpr[X86_RDX] = A_DATA + 0x100;
    run(m);
    expect_jit(name, m->st.gpr[X86_R8], 1 + 1 + 7);
}

/* ---- where an address leads ---- */

/* Two addresses of one frame, by turns; what the code says of its address. */
CODE(jit_where, 64,
     "lea (%rip), %rax\n"
     "jmp 1f\n"
     ".fill 16, 1, 0x90\n"
     "1: call 2f\n"
     "lea (%rip), %rdx\n"
     "add %rdx, %rax\n"
     "ret\n"
     "2: add (%rsp), %rax\n"
     "ret\n");
CODE(jit_alternate, 64,
     "mov $50, %ecx\n"
     "1: call *%rbx\n"
     "mov %rax, %r8\n"
     "call *%rbp\n"
     "sub %r8, %rax\n"
     "cmp $0x3000, %rax\n"
     "je 2f\n"
     "inc %esi\n"
     "2: dec %ecx\n"
     "jnz 1b\n" DONE);

static void check_aliases(struct machine *m)
{
    m_long(m);
    m_put64(m, PT_OF(A_TEST + 0x1000), A_TEST | PTE_P | PTE_W);
    LOAD(m, A_TEST, jit_where);
    LOAD(m, A_CODE, jit_alternate);
    m->st.gpr[X86_RBX] = A_TEST;
    m->st.gpr[X86_RBP] = A_TEST + 0x1000;
    expect_jit("two addresses of the same code: ends", (uint64_t)run(m), 0x80);
    expect_jit("two addresses of the same code: wrong", m->st.gpr[X86_RSI], 0);
}

/* Calls a page's code until it is known everywhere, moves the page by its entry, calls again. */
#define WARM "call *%rbx\ncall *%rbx\ncall *%rbx\nmov %eax, %r8d\n"
#define REMAP(flush) WARM "mov %rcx, (%rdi)\n" flush "call *%rbx\nmov %eax, %r9d\n" DONE
/* The same at CPL 3, where the kernel's part is a gate's handler. */
#define GATE(flush) "mov %rcx, (%rdi)\n" flush "iretq\n"
#define BOTH(name, flush)                                                                          \
    CODE(name, 64, REMAP(flush));                                                                  \
    CODE(name##_gate, 64, GATE(flush))
#define INVPCID(kind) "mov $" #kind ", %eax\ninvpcid (%rsi), %rax\n"
#define SET_CR3 "mov %r12, %cr3\n" /* this PCID, as told */
/* to the other PCID and back, with both kept, and what is invalidated meanwhile */
#define AWAY(flush) "mov %r13, %cr3\n" flush "mov %r14, %cr3\n"

// clang-format off
BOTH(jit_invlpg, "invlpg (%rbx)\n");
BOTH(jit_cr3, SET_CR3);
BOTH(jit_invpcid0, INVPCID(0));
BOTH(jit_invpcid1, INVPCID(1));
BOTH(jit_invpcid2, INVPCID(2));
BOTH(jit_invpcid3, INVPCID(3));
BOTH(jit_pge, "mov %cr4, %rax\nxor $0x80, %al\nmov %rax, %cr4\nxor $0x80, %al\nmov %rax, %cr4\n");
BOTH(jit_away0, AWAY(INVPCID(0)));
BOTH(jit_away1, AWAY(INVPCID(1)));
BOTH(jit_away2, AWAY(INVPCID(2)));
BOTH(jit_away3, AWAY(INVPCID(3)));
BOTH(jit_away_invlpg, "invlpg (%rbx)\n" AWAY(""));
BOTH(jit_dropped, SET_CR3 AWAY(""));
// clang-format on
CODE(jit_user, 64, WARM "int $0x81\ncall *%rbx\nmov %eax, %r9d\n" DONE);

/* The processor begins with PCID 0 and changes to 1. */
CODE(jit_to_pcid, 64, "mov %r15, %cr4\nmov %r12, %cr3\njmp *%r10\n");
CODE(jit_to_user, 64,
     "mov %r15, %cr4\nmov %r12, %cr3\n"
     "push $" STR(S_UDATA) "\npush $" STR(A_USTACK) "\npush $2\npush $" STR(
         S_UCODE64) "\n"
                    "push %r10\niretq\n");

/*
 * Ready to run code at A_UCODE or A_CODE, which calls RBX, with PCID 1, or 3 that comes with the
 * state. Returns the page that is called.
 */
static uint64_t called_page(struct machine *m, bool user, bool by_state, uint64_t flags)
{
    uint64_t page = user ? A_UCODE + 0x1000 : A_TEST, pcid = by_state ? 3 : 1;

    m_long(m);
    m_copy_tables(m, A_TABLES);
    m_put64(m, PT_OF(page), page | flags);
    LOAD(m, page, jit_ret1);
    LOAD(m, A_OTHER, jit_ret2);
    m_gate_to(m, 0x81, A_CODE);
    m->st.gpr[X86_RBX] = page;
    m->st.gpr[X86_R10] = user ? A_UCODE : A_CODE;
    m->st.gpr[X86_R12] = A_PML4 | pcid;
    m->st.gpr[X86_R13] = A_TABLES | 2 | 1ull << 63;
    m->st.gpr[X86_R14] = A_PML4 | pcid | 1ull << 63;
    m->st.gpr[X86_R15] = m->st.cr4 | X86_CR4_PCIDE;
    m->st.rip = A_CODE + 0x2000;
    LOAD(m, A_CODE + 0x2000, jit_to_pcid);
    if (user)
        LOAD(m, A_CODE + 0x2000, jit_to_user);
    if (by_state) {
        m->st.cr4 |= X86_CR4_PCIDE;
        m->st.cr3 |= pcid;
        m->st.rip = A_CODE;
        if (user)
            m_user(m);
    }
    return page;
}

static void remap(struct machine *m, const char *name, bool user, bool by_state, uint64_t global,
                  const uint8_t *code, size_t len)
{
    uint64_t flags = PTE_P | PTE_W | global | (user ? PTE_U : 0);
    uint64_t page = called_page(m, user, by_state, flags);
    char text[128];

    snprintf(text, sizeof(text), "%s, %s%s%s", name, user ? "user" : "supervisor",
             global ? ", global" : "", by_state ? ", PCID of the state" : "");
    if (user)
        LOAD(m, A_UCODE, jit_user);
    m_write(m, A_CODE, code, len);
    m_put64(m, A_ARG, by_state ? 3 : 1);
    m_put64(m, A_ARG + 8, page);
    m->st.gpr[X86_RCX] = A_OTHER | flags;
    m->st.gpr[X86_RDI] = PT_OF(page);
    m->st.gpr[X86_RSI] = A_ARG;
    run(m);
    expect_jit(text, m->st.gpr[X86_R8] << 8 | m->st.gpr[X86_R9], 0x102);
}

#define SIZE(code) code, (size_t)(code##_end - (code))
#define REMAPS_AS(m, name, code, by_state, global)                                                 \
    remap(m, name, false, by_state, global, SIZE(code));                                           \
    remap(m, name, true, by_state, global, SIZE(code##_gate))
#define REMAPS(m, name, code)                                                                      \
    REMAPS_AS(m, name, code, false, 0);                                                            \
    REMAPS_AS(m, name, code, true, 0)
#define REMAPS_GLOBAL(m, name, code)                                                               \
    REMAPS_AS(m, name, code, false, PTE_G);                                                        \
    REMAPS_AS(m, name, code, true, PTE_G)

/* Two address spaces by turns, both kept: the same address is other code. R8: what was seen. */
CODE(jit_spaces, 64,
     "mov $20, %ecx\n"
     "1: call *%rbx\n"
     "lea (%rax, %r8, 4), %r8\n"
     "mov %r13, %cr3\n"
     "xchg %r13, %r14\n"
     "dec %ecx\n"
     "jnz 1b\n" DONE);
CODE(jit_spaces_user, 64,
     "mov $20, %ecx\n"
     "1: call *%rbx\n"
     "lea (%rax, %r8, 4), %r8\n"
     "int $0x81\n"
     "dec %ecx\n"
     "jnz 1b\n" DONE);
CODE(jit_spaces_gate, 64, "mov %r13, %cr3\nxchg %r13, %r14\niretq\n");

static void check_remaps(struct machine *m)
{
    REMAPS(m, "INVLPG", jit_invlpg);
    REMAPS_GLOBAL(m, "INVLPG", jit_invlpg);
    REMAPS(m, "MOV CR3", jit_cr3);
    REMAPS(m, "INVPCID 0", jit_invpcid0);
    REMAPS(m, "INVPCID 1", jit_invpcid1);
    REMAPS(m, "INVPCID 2", jit_invpcid2);
    REMAPS_GLOBAL(m, "INVPCID 2", jit_invpcid2);
    REMAPS(m, "INVPCID 3", jit_invpcid3);
    REMAPS(m, "CR4.PGE", jit_pge);
    REMAPS_GLOBAL(m, "CR4.PGE", jit_pge);
    REMAPS(m, "INVPCID 0 of another PCID", jit_away0);
    REMAPS(m, "INVPCID 1 of another PCID", jit_away1);
    REMAPS(m, "INVPCID 2 from another PCID", jit_away2);
    REMAPS(m, "INVPCID 3 from another PCID", jit_away3);
    REMAPS(m, "INVLPG, then away and back", jit_away_invlpg);
    REMAPS(m, "MOV CR3, then away and back", jit_dropped);
    for (unsigned user = 0; user < 2; user++) {
        uint64_t page = called_page(m, user, false, PTE_P | PTE_W | (user ? PTE_U : 0));

        m_put64(m, A_TABLES + 0x3000 + 8 * (page >> 12),
                A_OTHER | PTE_P | PTE_W | (user ? PTE_U : 0));
        LOAD(m, A_CODE, jit_spaces);
        if (user) {
            LOAD(m, A_UCODE, jit_spaces_user);
            LOAD(m, A_CODE, jit_spaces_gate);
        }
        run(m);
        expect_jit(user ? "two address spaces, user" : "two address spaces, supervisor",
                   m->st.gpr[X86_R8], 0x6666666666);
    }
}

/* ---- privilege ---- */

/* The same bytes at CPL 3 and 0 by turns: what RSI names is the user's or not. */
CODE(jit_level_page, 64, "mov (%rsi), %eax\njmp 1f\n1: mov %cs, %edx\nret\n");
CODE(jit_level_user, 64,
     "mov $20, %ecx\n"
     "1: mov %r14, %rsi\n"
     "call *%rbx\n"
     "add %eax, %r8d\n"
     "add %edx, %r9d\n"
     "int $0x81\n"
     "dec %ecx\n"
     "jnz 1b\n"
     "call *%r13\n"
     "mov %r15, %rsi\n"
     "call *%rbx\n" DONE);
CODE(jit_level_gate, 64, "mov %r15, %rsi\ncall *%rbx\nadd %eax, %r8d\nadd %edx, %r9d\niretq\n");

static void level_machine(struct machine *m)
{
    m_long(m);
    m_user(m);
    LOAD(m, A_UCODE, jit_level_user);
    LOAD(m, A_UCODE + 0x1000, jit_level_page);
    LOAD(m, A_CODE, jit_level_gate);
    m_gate_to(m, 0x81, A_CODE);
    m_put64(m, A_UDATA, 1);
    m_put64(m, A_DATA, 0x100);
    m->st.gpr[X86_RBX] = A_UCODE + 0x1000;
    m->st.gpr[X86_R14] = A_UDATA;
    m->st.gpr[X86_R15] = A_DATA;
}

static void check_levels(struct machine *m)
{
    level_machine(m);
    m->st.gpr[X86_R13] = A_UCODE + 0x1000;
    run(m);
    expect_pf(m, "translated code of both levels: a supervisor's page", 5, A_DATA);
    expect_jit("code of both levels: loads", m->st.gpr[X86_R8], 20 * 0x101);
    expect_jit("code of both levels: CS", m->st.gpr[X86_R9], 20 * (S_UCODE64 + S_CODE64));
    expect_jit("code of both levels: fault at", m_frame(m, 0), A_UCODE + 0x1000);
    level_machine(m);
    m->st.gpr[X86_R13] = A_CODE;
    run(m);
    expect_pf(m, "translated code of the supervisor, called by the user", 0x15, A_CODE);
}

/* ---- over the end of a page ---- */

CODE(jit_far_jmp, 64, ".byte 0xe9, 0, 0, 0, 0\nmov $1, %eax\nret\n");
CODE(jit_far_jcc, 64, "test $0, %al\nje 1f\nud2\n1: mov $1, %eax\nret\n");
CODE(jit_far_call, 64, ".byte 0xe8, 1, 0, 0, 0\nret\nmov $1, %eax\nret\n");
CODE(jit_far_falls, 64, "nop\nnop\nmov $1, %eax\nret\n");
CODE(jit_far_split, 64, "nop\nmov $1, %eax\nret\n");
CODE(jit_chain, 64,
     "call *%rbx\ncall *%rbx\ncall *%rbx\nmov %eax, %r8d\nmov %rcx, (%rdi)\n"
     "invlpg (%rsi)\ncall *%rbx\nmov %eax, %r9d\n" DONE);

/* before: how much of the code is in the first page; imm: where the 1 is. */
static void chain(struct machine *m, const char *name, unsigned before, unsigned imm,
                  const uint8_t *code, size_t len)
{
    uint8_t two = 2;

    m_long(m);
    m_write(m, A_TEST + 0x1000 - before, code, len);
    m_write(m, A_OTHER, code + before, len - before);
    m_write(m, A_OTHER + imm - before, &two, 1);
    LOAD(m, A_CODE, jit_chain);
    m->st.gpr[X86_RBX] = A_TEST + 0x1000 - before;
    m->st.gpr[X86_RCX] = A_OTHER | PTE_P | PTE_W;
    m->st.gpr[X86_RDI] = PT_OF(A_TEST + 0x1000);
    m->st.gpr[X86_RSI] = A_TEST + 0x1000;
    run(m);
    expect_jit(name, m->st.gpr[X86_R8] << 8 | m->st.gpr[X86_R9], 0x102);
}

static void check_chains(struct machine *m)
{
    chain(m, "JMP into a page that is remapped", 5, 6, SIZE(jit_far_jmp));
    chain(m, "Jcc into a page that is remapped", 6, 7, SIZE(jit_far_jcc));
    chain(m, "CALL into a page that is remapped", 6, 7, SIZE(jit_far_call));
    chain(m, "running into a page that is remapped", 2, 3, SIZE(jit_far_falls));
    chain(m, "an instruction into a page that is remapped", 2, 2, SIZE(jit_far_split));
}

/* ---- flags ---- */

/* Compared on one side, read on the other, of an indirect call, a return, a page's end. */
#define READ "lahf\nseto %al\nmovzwl %ax, %eax\n"
CODE(jit_flags_call, 64, "cmp %r9, %r8\ncall *%rbx\n" DONE);
CODE(jit_flags_read, 64, READ "ret\n");
CODE(jit_flags_ret, 64, "call *%rbx\n" READ DONE);
CODE(jit_flags_set, 64, "cmp %r9, %r8\nret\n");
CODE(jit_flags_on, 64, "cmp %r9, %r8\n" READ DONE);
CODE(jit_flags_jmp, 64, "cmp %r9, %r8\njmp *%rbx\n");
CODE(jit_flags_read_done, 64, READ DONE);
CODE(jit_flags_twice, 64, "mov $10, %ecx\n1: cmp %r9, %r8\ncall *%rbx\ndec %ecx\njnz 1b\n" DONE);

static uint64_t host_flags(uint64_t a, uint64_t b)
{
    uint64_t rax = 0;

    __asm__("cmp %2, %1\nlahf\nseto %%al\nmovzwl %%ax, %%eax" : "+a"(rax) : "r"(a), "r"(b) : "cc");
    return rax;
}

static void flags(struct machine *m, const char *name, uint64_t at, const uint8_t *code, size_t len,
                  const uint8_t *called, size_t called_len)
{
    static const uint64_t values[] = {0, 1, 2, 0xf, 0x10, 0x80, 1ull << 63, ~(1ull << 63), ~0ull};

    for (unsigned i = 0; i < countof(values) * countof(values); i++) {
        uint64_t a = values[i / countof(values)], b = values[i % countof(values)];

        m_long(m);
        m_write(m, at, code, len);
        m_write(m, A_TEST, called, called_len);
        m->st.rip = at;
        m->st.gpr[X86_RBX] = A_TEST;
        m->st.gpr[X86_R8] = a;
        m->st.gpr[X86_R9] = b;
        run(m);
        expect_jit(name, m->st.gpr[X86_RAX], host_flags(a, b));
    }
}

static void check_flags(struct machine *m)
{
    flags(m, "flags over an indirect call", A_CODE, SIZE(jit_flags_call), SIZE(jit_flags_read));
    flags(m, "the same again and again", A_CODE, SIZE(jit_flags_twice), SIZE(jit_flags_read));
    flags(m, "flags over a return", A_CODE, SIZE(jit_flags_ret), SIZE(jit_flags_set));
    flags(m, "flags over an indirect jump", A_CODE, SIZE(jit_flags_jmp), SIZE(jit_flags_read_done));
    flags(m, "flags over a page's end", A_CODE + 0xffd, SIZE(jit_flags_on), SIZE(jit_flags_set));
}

/* ---- no end ---- */

static void endless(struct machine *m, const char *name, uint64_t at, const uint8_t *code,
                    size_t len)
{
    char text[160];

    snprintf(text, sizeof(text), "%s%s", how, name);
    m_long(m);
    m_write(m, at, code, len);
    m->st.rip = m->st.gpr[X86_RBX] = at;
    m->budget = counted ? UINT64_MAX / 4 : 0;
    expect_kick_ends(m, text);
}

CODE(jit_endless_jmp, 64, "1: jmp 1b\n");
CODE(jit_endless_jcc, 64, "xor %eax, %eax\n1: inc %ecx\ntest %eax, %eax\njz 1b\n");
CODE(jit_endless_blocks, 64,
     "1: inc %ecx\njmp 2f\n3: dec %edx\njmp 1b\nnop\n2: inc %eax\njmp 3b\n");
CODE(jit_endless_indirect, 64, "1: inc %ecx\njmp *%rbx\n");
CODE(jit_endless_calls, 64, "1: call 2f\njmp 1b\nnop\n2: ret\n");
CODE(jit_endless_pages, 64, "1: nop\nnop\nnop\njmp 1b\n");
CODE(jit_endless_loop, 64, "1: mov $2, %ecx\nloop 1b\n");

static void check_endless(struct machine *m)
{
    endless(m, "kick ends JMP to itself", A_CODE, SIZE(jit_endless_jmp));
    endless(m, "kick ends a backward Jcc", A_CODE, SIZE(jit_endless_jcc));
    endless(m, "kick ends a cycle of three blocks", A_CODE, SIZE(jit_endless_blocks));
    endless(m, "kick ends an indirect cycle", A_CODE, SIZE(jit_endless_indirect));
    endless(m, "kick ends a cycle of calls", A_CODE, SIZE(jit_endless_calls));
    endless(m, "kick ends a cycle of two pages", A_CODE + 0xffe, SIZE(jit_endless_pages));
    endless(m, "kick ends LOOP", A_CODE, SIZE(jit_endless_loop));
}

/* ---- the farthest that 32 bits reach from the end of an instruction ---- */

CODE(jit_most_load, 64, ".byte 0x8b, 0x05; .long 0x7ffffffc\n" DONE); /* mov eax, [rip+...] */
CODE(jit_most_back, 64, ".byte 0x8b, 0x05; .long -0x80000000\n" DONE);
CODE(jit_most_jump, 64, ".byte 0xe9; .long 0x7ffffffc\n" DONE);
CODE(jit_most_jcc, 64, "cmp %eax, %eax\n.byte 0x0f, 0x84; .long 0x7ffffffc\n" DONE);
CODE(jit_most_call, 64, ".byte 0xe8; .long 0x7ffffffc\n" DONE);

static void check_most(struct machine *m)
{
    m_long(m);
    LOAD(m, A_CODE, jit_most_load);
    (void)run(m);
    expect_pf(m, "a load from as far as RIP reaches", 0, A_CODE + 6 + 0x7ffffffcull);
    m_long(m);
    LOAD(m, A_CODE, jit_most_back);
    (void)run(m);
    expect_pf(m, "the same backward", 0, A_CODE + 6 - 0x80000000ull);
    m_long(m);
    LOAD(m, A_CODE, jit_most_jump);
    (void)run(m);
    expect_pf(m, "a jump as far as it reaches", 0x10, A_CODE + 5 + 0x7ffffffcull);
    m_long(m);
    LOAD(m, A_CODE, jit_most_jcc);
    (void)run(m);
    expect_pf(m, "a conditional jump", 0x10, A_CODE + 8 + 0x7ffffffcull);
    m_long(m);
    LOAD(m, A_CODE, jit_most_call);
    (void)run(m);
    expect_pf(m, "a call", 0x10, A_CODE + 5 + 0x7ffffffcull);
}

/* The next page has to be read to see that the bytes before it are no instruction. */
static void check_cut(struct machine *m)
{
    static const uint8_t none[] = {0xc4, 0x4c, 0x0a, 0x00, 0x00}; /* VEX, a map that is not there */

    m_long(m);
    m_write(m, A_CODE + 0xffd, none, sizeof(none));
    m->st.rip = A_CODE + 0xffd;
    (void)run(m);
    expect_event(m, "no instruction, cut by a page's end", X86_EXC_UD, -1, A_CODE + 0xffd);
}

void test_jit(struct machine *m)
{
    for (unsigned i = 0; i < 2; i++) {
        counted = i != 0;
        how = counted ? "with a budget: " : "";
        check_patched(m);
        over_self(m, "REP MOVSB onto itself", SIZE(jit_movsb));
        over_self(m, "REP MOVSQ onto itself", SIZE(jit_movsq));
        check_aliases(m);
        check_remaps(m);
        check_levels(m);
        check_chains(m);
        check_flags(m);
        check_endless(m);
        check_most(m);
        check_cut(m);
    }
}
