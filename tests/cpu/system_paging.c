/* Paging in its three forms: rights, error codes, A and D bits, reserved bits, TLB upkeep. */
#include <stdio.h>

#include "system.h"

CODE(load64, 64, "mov (%rbx), %rax\n" DONE);
CODE(store64, 64, "mov %rax, (%rbx)\n" DONE);
CODE(jump64, 64, "jmp *%rbx\n");
CODE(load32, 32, "mov (%ebx), %eax\n" DONE);
CODE(store32, 32, "mov %eax, (%ebx)\n" DONE);
CODE(jump32, 32, "jmp *%ebx\n");
CODE(done, 64, DONE);

enum form { P32, PAE, P4 };
enum { OK = 1 << 16 }; /* no fault expected */

static void setup(struct machine *m, enum form form, bool user)
{
    if (form == P4) {
        m_long(m);
    } else {
        m_protected(m);
        if (form == PAE)
            m_pae(m);
        else
            m_paging32(m);
    }
    if (user)
        m_user(m);
    m->st.gpr[X86_RBX] = A_TEST;
}

static int access_page(struct machine *m, enum form form, char kind)
{
    uint64_t at = m->st.rip;

    if (form == P4) {
        if (kind == 'r')
            LOAD(m, at, load64);
        else if (kind == 'w')
            LOAD(m, at, store64);
        else
            LOAD(m, at, jump64);
    } else {
        if (kind == 'r')
            LOAD(m, at, load32);
        else if (kind == 'w')
            LOAD(m, at, store32);
        else
            LOAD(m, at, jump32);
    }
    LOAD(m, A_TEST, done);
    return m_run(m);
}

/* One row: a page's rights, who does what, and the error code or OK. */
static const struct rights {
    const char *name;
    uint64_t flags; /* of the last level */
    bool user;
    char kind; /* r, w, x */
    uint64_t cr4;
    bool no_wp, ac;
    uint32_t error;
} rights[] = {
    {"read of an absent page", 0, false, 'r', 0, false, false, 0},
    {"user's read of an absent page", 0, true, 'r', 0, false, false, 4},
    {"write to an absent page", 0, false, 'w', 0, false, false, 2},
    {"user's write to an absent page", 0, true, 'w', 0, false, false, 6},
    {"read of a supervisor's page", PTE_P, false, 'r', 0, false, false, OK},
    {"user's read of a supervisor's page", PTE_P | PTE_W, true, 'r', 0, false, false, 5},
    {"user's write to a supervisor's page", PTE_P | PTE_W, true, 'w', 0, false, false, 7},
    {"CR0.WP: write to a read-only page", PTE_P, false, 'w', 0, false, false, 3},
    {"CR0.WP = 0: write to a read-only page", PTE_P, false, 'w', 0, true, false, OK},
    {"CR0.WP = 0: write to a user's read-only page", PTE_P | PTE_U, false, 'w', 0, true, false, OK},
    {"CR0.WP = 0: user's write to a read-only page", PTE_P | PTE_U, true, 'w', 0, true, false, 7},
    {"user's write to a read-only page", PTE_P | PTE_U, true, 'w', 0, false, false, 7},
    {"user's read of a read-only page", PTE_P | PTE_U, true, 'r', 0, false, false, OK},
    {"supervisor runs a user's page", PTE_P | PTE_U, false, 'x', 0, false, false, OK},
    {"SMEP: supervisor runs a user's page", PTE_P | PTE_U, false, 'x', X86_CR4_SMEP, false, false,
     0x11},
    {"SMEP: user runs its page", PTE_P | PTE_U, true, 'x', X86_CR4_SMEP, false, false, OK},
    {"SMAP: read of a user's page", PTE_P | PTE_U, false, 'r', X86_CR4_SMAP, false, false, 1},
    {"SMAP: write to a user's page", PTE_P | PTE_U | PTE_W, false, 'w', X86_CR4_SMAP, false, false,
     3},
    {"SMAP: read with AC = 1", PTE_P | PTE_U, false, 'r', X86_CR4_SMAP, false, true, OK},
    {"SMAP: AC does not lift read-only", PTE_P | PTE_U, false, 'w', X86_CR4_SMAP, false, true, 3},
    {"SMAP and WP = 0: write to a user's page", PTE_P | PTE_U, false, 'w', X86_CR4_SMAP, true,
     false, 3},
    {"SMAP: user reads its own page", PTE_P | PTE_U, true, 'r', X86_CR4_SMAP, false, false, OK},
    {"SMAP: read of a supervisor's page", PTE_P, false, 'r', X86_CR4_SMAP, false, false, OK},
};

static void check_rights(struct machine *m, enum form form)
{
    static const char *const forms[] = {"32-bit paging", "PAE paging", "4-level paging"};

    for (unsigned i = 0; i < countof(rights); i++) {
        const struct rights *r = &rights[i];
        char name[128];
        int v;

        setup(m, form, r->user);
        m->st.cr4 |= r->cr4;
        if (r->no_wp)
            m->st.cr0 &= ~(uint64_t)X86_CR0_WP;
        if (r->ac)
            m->st.rflags |= X86_FL_AC;
        m_pte(m, A_TEST, r->flags);
        v = access_page(m, form, r->kind);
        snprintf(name, sizeof(name), "%s: %s", forms[form], r->name);
        if (r->error == OK)
            expect(name, (uint64_t)(int64_t)v, 0x80);
        else
            expect_pf(m, name, r->error, A_TEST);
    }
}

static void check_nx(struct machine *m)
{
    setup(m, P4, true);
    m_pte(m, A_TEST, PTE_P | PTE_U | PTE_NX);
    access_page(m, P4, 'x');
    expect_pf(m, "NX: user's fetch", 0x15, A_TEST);
    expect_event(m, "NX: RIP is the target", X86_EXC_PF, 0x15, A_TEST);
    setup(m, P4, false);
    m_pte(m, A_TEST, PTE_P | PTE_NX);
    access_page(m, P4, 'x');
    expect_pf(m, "NX: supervisor's fetch", 0x11, A_TEST);
    setup(m, P4, false);
    m_put64(m, A_PD + 8 * 2, A_BIG | PTE_P | PTE_PS | PTE_NX);
    m->st.gpr[X86_RBX] = A_BIG + 0x1234;
    access_page(m, P4, 'x');
    expect_pf(m, "NX in a 2 MiB page", 0x11, A_BIG + 0x1234);
    setup(m, PAE, false);
    m_pte(m, A_TEST, PTE_P | PTE_NX);
    access_page(m, PAE, 'x');
    expect_pf(m, "NX in PAE paging", 0x11, A_TEST);
    setup(m, P4, false);
    m->st.efer &= ~(uint64_t)X86_EFER_NXE;
    m_pte(m, A_TEST, PTE_P | PTE_NX);
    access_page(m, P4, 'r');
    expect_pf(m, "EFER.NXE = 0: NX is reserved", 9, A_TEST);
    setup(m, P4, false);
    m->st.efer &= ~(uint64_t)X86_EFER_NXE;
    m_pte(m, A_TEST, 0);
    access_page(m, P4, 'x');
    expect_pf(m, "without NXE and SMEP the I bit of the error code is 0", 0, A_TEST);
    setup(m, P4, false);
    m_pte(m, A_TEST, 0);
    access_page(m, P4, 'x');
    expect_pf(m, "fetch from an absent page", 0x10, A_TEST);
    setup(m, P4, false);
    m_pte(m, A_TEST, PTE_P | PTE_NX);
    expect("NX does not stop a read", (uint64_t)access_page(m, P4, 'r'), 0x80);
    setup(m, P32, false);
    m_pte(m, A_TEST, 0);
    access_page(m, P32, 'x');
    expect_pf(m, "32-bit paging has no I bit", 0, A_TEST);
}

/* The bits that must be 0, by level. */
static void check_reserved(struct machine *m)
{
    static const struct {
        const char *name;
        uint64_t entry, bits;
        uint64_t at;
    } rows[] = {
        {"PML4E bit 7", A_PML4, PTE_PS, A_TEST},
        {"PML4E bit 45", A_PML4, 1ull << 45, A_TEST},
        {"PDPTE bit 51", A_PDPT, 1ull << 51, A_TEST},
        {"PDE bit 40", A_PD, 1ull << 40, A_TEST},
        {"PTE bit 50", A_PT + 8 * (A_TEST >> 12), 1ull << 50, A_TEST},
        {"2 MiB page, bit 13", A_PD + 16, 1ull << 13, A_BIG},
        {"2 MiB page, bit 20", A_PD + 16, 1ull << 20, A_BIG},
        {"1 GiB page, bit 29", A_PDPT + 8, PTE_P | PTE_PS | 1ull << 29, 0x40000000},
        {"1 GiB page, bit 13", A_PDPT + 8, PTE_P | PTE_PS | 1ull << 13, 0x40000000},
    };

    for (unsigned i = 0; i < countof(rows); i++) {
        setup(m, P4, false);
        m->st.gpr[X86_RBX] = rows[i].at;
        if (rows[i].entry != A_PT + 8 * (A_TEST >> 12) && rows[i].at == A_TEST) {
            /* the damaged entry must not stand above the code: reach the tables another way */
            m_put64(m, A_PML4 + 8 * 2, m_get64(m, A_PML4));
            m_put64(m, A_PDPT + 8 * 2, m_get64(m, A_PDPT));
            m_put64(m, A_PD + 8 * 20, m_get64(m, A_PD));
            if (rows[i].entry == A_PML4) {
                m_put64(m, A_PML4 + 16, m_get64(m, A_PML4) | rows[i].bits);
                m->st.gpr[X86_RBX] = 2ull << 39 | A_TEST;
            } else if (rows[i].entry == A_PDPT) {
                m_put64(m, A_PDPT + 16, m_get64(m, A_PDPT) | rows[i].bits);
                m->st.gpr[X86_RBX] = 2ull << 30 | A_TEST;
            } else {
                m_put64(m, A_PD + 8 * 20, m_get64(m, A_PD) | rows[i].bits);
                m->st.gpr[X86_RBX] = 20ull << 21 | A_TEST;
            }
        } else {
            m_put64(m, rows[i].entry, m_get64(m, rows[i].entry) | rows[i].bits);
        }
        LOAD(m, A_CODE, load64);
        m_run(m);
        expect_pf(m, rows[i].name, 9, m->st.gpr[X86_RBX]);
    }
    setup(m, P32, false);
    m_put32(m, A_PD32 + 4, A_BIG | 0x83 | 1u << 21);
    m->st.gpr[X86_RBX] = A_BIG;
    LOAD(m, A_CODE, load32);
    m_run(m);
    expect_pf(m, "4 MiB page, bit 21 is reserved", 9, A_BIG);
    setup(m, PAE, false);
    m_pte(m, A_TEST, PTE_P | 1ull << 52);
    access_page(m, PAE, 'r');
    expect_pf(m, "PAE PTE bit 52 is reserved", 9, A_TEST);
    setup(m, P4, false);
    m_pte(m, A_TEST, PTE_P | 1ull << 52 | 1ull << 62);
    expect("4-level PTE bits 62:52 are ignored", (uint64_t)access_page(m, P4, 'r'), 0x80);
    setup(m, P4, false);
    m_pte(m, A_TEST, 1ull << 50);
    access_page(m, P4, 'r');
    expect_pf(m, "an absent entry has no reserved bits", 0, A_TEST);
}

static void check_upper_rights(struct machine *m)
{
    setup(m, P4, false);
    m_put64(m, A_PD + 8 * 20, A_PT | PTE_P);
    m->st.gpr[X86_RBX] = 20ull << 21 | A_TEST;
    LOAD(m, A_CODE, store64);
    m_run(m);
    expect_pf(m, "R/W of all levels is combined", 3, 20ull << 21 | A_TEST);
    setup(m, P4, true);
    m_put64(m, A_PD + 8 * 20, A_PT | PTE_P | PTE_W);
    m->st.gpr[X86_RBX] = 20ull << 21 | A_UDATA;
    LOAD(m, A_UCODE, load64);
    m_run(m);
    expect_pf(m, "U/S of all levels is combined", 5, 20ull << 21 | A_UDATA);
    setup(m, P4, false);
    m_put64(m, A_PD + 8 * 20, A_PT | PTE_P | PTE_NX);
    m->st.gpr[X86_RBX] = 20ull << 21 | A_TEST;
    LOAD(m, A_CODE, jump64);
    m_run(m);
    expect_pf(m, "NX of any level counts", 0x11, 20ull << 21 | A_TEST);
}

static void check_marks(struct machine *m)
{
    uint64_t pte = A_PT + 8 * (A_TEST >> 12);

    setup(m, P4, false);
    access_page(m, P4, 'r');
    expect("a read sets A, not D", m_get64(m, pte) & (PTE_A | PTE_D), PTE_A);
    expect("A in the upper levels",
           m_get64(m, A_PML4) & m_get64(m, A_PDPT) & m_get64(m, A_PD) & PTE_A, PTE_A);
    expect("no D in the upper levels", (m_get64(m, A_PML4) | m_get64(m, A_PDPT)) & PTE_D, 0);
    setup(m, P4, false);
    access_page(m, P4, 'w');
    expect("a write sets A and D", m_get64(m, pte) & (PTE_A | PTE_D), PTE_A | PTE_D);
    setup(m, P4, false);
    m_pte(m, A_TEST, PTE_P);
    access_page(m, P4, 'w');
    expect("a refused write leaves D", m_get64(m, pte) & PTE_D, 0);
    setup(m, P4, false);
    m->st.gpr[X86_RBX] = A_BIG + 0x5000;
    LOAD(m, A_CODE, store64);
    m_run(m);
    expect("D in a 2 MiB entry", m_get64(m, A_PD + 16) & (PTE_A | PTE_D), PTE_A | PTE_D);
    setup(m, P32, false);
    access_page(m, P32, 'w');
    expect("A and D in 32-bit paging", m_get32(m, A_PT32 + 4 * (A_TEST >> 12)) & 0x60, 0x60);
    expect("A in a 32-bit PDE", m_get32(m, A_PD32) & 0x60, 0x20);
    setup(m, P32, false);
    m->st.gpr[X86_RBX] = A_BIG;
    LOAD(m, A_CODE, store32);
    m_run(m);
    expect("A and D in a 4 MiB entry", m_get32(m, A_PD32 + 4) & 0x60, 0x60);
    setup(m, PAE, false);
    access_page(m, PAE, 'w');
    expect("A and D in PAE paging", m_get64(m, pte) & 0x60, 0x60);
    setup(m, P4, false);
    access_page(m, P4, 'x');
    expect("a fetch sets A, not D", m_get64(m, pte) & (PTE_A | PTE_D), PTE_A);
}

CODE(read_then_write, 64, "mov (%rbx), %rax\nmovq $7, (%rbx)\n" DONE);
CODE(lock_ro, 64, "lock addq $1, (%rbx)\n" DONE);
CODE(big_pages, 64,
     "mov (%rbx), %rax\n" /* 1 GiB page at 1 GiB, of physical 0 */
     "mov (%rcx), %rdx\n" DONE);

static void check_large(struct machine *m)
{
    setup(m, P4, false);
    m_put64(m, A_PDPT + 8, PTE_P | PTE_PS);
    m_put64(m, A_DATA + 8, 0x1234567890);
    m->st.gpr[X86_RBX] = 0x40000000 + A_DATA + 8;
    m_put64(m, A_BIG + 0x1fff8, 0x55aa);
    m->st.gpr[X86_RCX] = A_BIG + 0x1fff8;
    LOAD(m, A_CODE, big_pages);
    expect("large pages: run", (uint64_t)m_run(m), 0x80);
    expect("1 GiB page: address", m->st.gpr[X86_RAX], 0x1234567890);
    expect("2 MiB page: address", m->st.gpr[X86_RDX], 0x55aa);
    setup(m, P4, false);
    LOAD(m, A_CODE, read_then_write);
    m_run(m);
    expect("D is set by a write after a read", m_get64(m, A_PT + 8 * (A_TEST >> 12)) & PTE_D,
           PTE_D);
    setup(m, P4, false);
    m_pte(m, A_TEST, PTE_P);
    m->st.rflags |= X86_FL_CF;
    LOAD(m, A_CODE, lock_ro);
    m_run(m);
    expect_pf(m, "LOCK ADD to a read-only page is a write fault", 3, A_TEST);
    expect("and leaves the flags", m_frame(m, 2) & X86_FL_CF, X86_FL_CF);
}

/* ---- TLB ---- */

/* Reads the page, moves it to the frame after by its entry, reads again with or without a flush. */
#define REMAP(flush)                                                                               \
    "mov (%rbx), %rax\n"                                                                           \
    "mov %rcx, (%rdi)\n" flush "mov (%rbx), %rdx\n" DONE
CODE(remap_invlpg, 64, REMAP("invlpg 0x123(%rbx)\n"));
CODE(remap_cr3, 64, REMAP("mov %cr3, %rax\nmov %rax, %cr3\nmov $1, %eax\n"));
CODE(remap_cr4, 64,
     REMAP("mov %cr4, %rax\nxor $0x80, %al\nmov %rax, %cr4\nxor $0x80, %al\nmov %rax, %cr4\n"
           "mov $1, %eax\n"));
CODE(remap_invpcid0, 64, REMAP("xor %eax, %eax\ninvpcid (%rsi), %rax\nmov $1, %eax\n"));
CODE(remap_invpcid1, 64, REMAP("mov $1, %eax\ninvpcid (%rsi), %rax\n"));
CODE(remap_invpcid2, 64, REMAP("mov $2, %eax\ninvpcid (%rsi), %rax\nmov $1, %eax\n"));
CODE(remap_invpcid3, 64, REMAP("mov $3, %eax\ninvpcid (%rsi), %rax\nmov $1, %eax\n"));

static void remap(struct machine *m, const char *name, const uint8_t *code, size_t len,
                  uint64_t flags)
{
    int v;

    setup(m, P4, false);
    m->st.cr4 |= X86_CR4_PCIDE;
    m_pte(m, A_TEST, PTE_P | flags);
    m_put64(m, A_TEST, 1);
    m_put64(m, A_TEST + 0x1000, 2);
    m->st.gpr[X86_RCX] = (A_TEST + 0x1000) | PTE_P | flags;
    m->st.gpr[X86_RDI] = A_PT + 8 * (A_TEST >> 12);
    m->st.gpr[X86_RSI] = A_DATA;
    m_put64(m, A_DATA, 0);
    m_put64(m, A_DATA + 8, A_TEST);
    m_write(m, A_CODE, code, len);
    v = m_run(m);
    expect(name, (uint64_t)(v == 0x80) << 32 | m->st.gpr[X86_RAX] << 8 | m->st.gpr[X86_RDX],
           1ull << 32 | 0x102);
}
#define REMAPS(m, name, code, flags) remap(m, name, code, (size_t)(code##_end - (code)), flags)

CODE(invlpg_large, 64,
     "mov (%rbx), %rax\n" /* inside the large page */
     "mov 0x100000(%rbx), %r8\n"
     "mov %rcx, (%rdi)\n"
     "invlpg (%rbp)\n"
     "mov (%rbx), %rdx\n"
     "mov 0x100000(%rbx), %r9\n" DONE);

static void check_tlb(struct machine *m)
{
    REMAPS(m, "INVLPG", remap_invlpg, 0);
    REMAPS(m, "INVLPG of a global page", remap_invlpg, PTE_G);
    REMAPS(m, "MOV CR3", remap_cr3, 0);
    REMAPS(m, "CR4.PGE drops global pages", remap_cr4, PTE_G);
    REMAPS(m, "INVPCID 0: one address", remap_invpcid0, 0);
    REMAPS(m, "INVPCID 1: one PCID", remap_invpcid1, 0);
    REMAPS(m, "INVPCID 2: all", remap_invpcid2, PTE_G);
    REMAPS(m, "INVPCID 3: all but global", remap_invpcid3, 0);

    setup(m, P4, false);
    m->st.gpr[X86_RBX] = A_BIG + 0x40000;
    m->st.gpr[X86_RBP] = A_BIG + 0x1ff000;
    m->st.gpr[X86_RDI] = A_PD + 16;
    m->st.gpr[X86_RCX] = (A_BIG + 0x200000) | PTE_P | PTE_W | PTE_PS;
    m_put64(m, A_BIG + 0x40000, 1);
    m_put64(m, A_BIG + 0x140000, 3);
    m_put64(m, A_BIG + 0x240000, 2);
    m_put64(m, A_BIG + 0x340000, 4);
    LOAD(m, A_CODE, invlpg_large);
    m_run(m);
    expect("INVLPG of one address drops its whole large page",
           m->st.gpr[X86_RAX] << 24 | m->st.gpr[X86_R8] << 16 | m->st.gpr[X86_RDX] << 8 |
               m->st.gpr[X86_R9],
           0x01030204);
}

CODE(invpcid_kind, 64, "invpcid (%rsi), %rax\n" DONE);
CODE(invlpg_odd, 64, "invlpg (%rbx)\n" DONE);
CODE(call_remapped, 64,
     "call *%rbx\n"
     "mov %eax, %r8d\n"
     "mov %rcx, (%rdi)\n"
     "invlpg (%rbx)\n"
     "call *%rbx\n" DONE);
CODE(return1, 64, "mov $1, %eax\nret\n");
CODE(return2, 64, "mov $2, %eax\nret\n");

static void invpcid(struct machine *m, const char *name, uint64_t kind, uint64_t lo, uint64_t lin,
                    bool ok)
{
    setup(m, P4, false);
    m->st.cr4 |= X86_CR4_PCIDE;
    m->st.gpr[X86_RAX] = kind;
    m->st.gpr[X86_RSI] = A_DATA;
    m_put64(m, A_DATA, lo);
    m_put64(m, A_DATA + 8, lin);
    LOAD(m, A_CODE, invpcid_kind);
    m_run(m);
    expect_event(m, name, ok ? 0x80 : X86_EXC_GP, ok ? NO_ERROR : 0, ok ? ANY_RIP : A_CODE);
}

static void check_invalidation(struct machine *m)
{
    invpcid(m, "INVPCID of kind 4", 4, 0, 0, false);
    invpcid(m, "INVPCID 0 of a non-canonical address", 0, 1, 1ull << 47, false);
    invpcid(m, "INVPCID 1 ignores the address", 1, 0xfff, 1ull << 47, true);
    invpcid(m, "INVPCID 1 with reserved bits", 1, 0x1000, 0, false);
    setup(m, P4, false);
    m->st.gpr[X86_RBX] = 1ull << 47;
    LOAD(m, A_CODE, invlpg_odd);
    m_run(m);
    expect_event(m, "INVLPG of a non-canonical address does nothing", 0x80, NO_ERROR, ANY_RIP);
    setup(m, P4, true);
    LOAD(m, A_UCODE, invlpg_odd);
    m_run(m);
    expect_event(m, "INVLPG at CPL 3", X86_EXC_GP, 0, A_UCODE);

    setup(m, P4, false);
    LOAD(m, A_TEST, return1);
    LOAD(m, A_TEST + 0x1000, return2);
    m->st.gpr[X86_RCX] = (A_TEST + 0x1000) | PTE_P;
    m->st.gpr[X86_RDI] = A_PT + 8 * (A_TEST >> 12);
    LOAD(m, A_CODE, call_remapped);
    m_run(m);
    expect("INVLPG of a page of instructions", m->st.gpr[X86_R8] << 8 | m->st.gpr[X86_RAX], 0x102);
}

/* ---- 32-bit and PAE specials ---- */

CODE(load_far_up, 32, "mov (%ebx), %eax\n" DONE);
CODE(reload_ptrs, 32,
     "mov (%ebx), %eax\n"
     "movl $0, (%edi)\n" /* the pointer in memory: cached in the processor till CR3 is written */
     "mov %cr3, %ecx\n"
     "invlpg (%ebx)\n"
     "mov (%ebx), %edx\n"
     "mov %ecx, %cr3\n"
     "mov (%ebx), %esi\n" DONE);
CODE(bad_ptrs2, 32, "movl $0x7021, (%edi)\nmov %cr3, %eax\nmov %eax, %cr3\n" DONE);

static void check_pae(struct machine *m)
{
    setup(m, PAE, false);
    m_put64(m, A_PTRS + 8, A_PD | PTE_P);
    m->st.pdptr[1] = A_PD | PTE_P;
    m_put32(m, A_DATA, 77);
    m->st.gpr[X86_RBX] = 0x40000000 + A_DATA;
    m->st.gpr[X86_RDI] = A_PTRS + 8;
    LOAD(m, A_CODE, reload_ptrs);
    m_run(m);
    expect("PAE: pointers are read when CR3 is written", m->st.gpr[X86_RDX], 77);
    expect_pf(m, "PAE: an absent pointer", 0, 0x40000000 + A_DATA);
    setup(m, PAE, false);
    m->st.gpr[X86_RDI] = A_PTRS + 16;
    LOAD(m, A_CODE, bad_ptrs2);
    m_run(m);
    expect_event(m, "PAE: reserved bits in a pointer make MOV CR3 #GP", X86_EXC_GP, 0, A_CODE + 9);
    setup(m, P32, false);
    m_put32(m, A_PD32 + 4 * 200, A_BIG | PTE_P | PTE_W | PTE_PS);
    m_put32(m, A_BIG + 0x3ffffc, 88);
    m->st.gpr[X86_RBX] = (200u << 22) + 0x3ffffc;
    LOAD(m, A_CODE, load_far_up);
    m_run(m);
    expect("4 MiB page: address", m->st.gpr[X86_RAX], 88);
    setup(m, P32, false);
    m->st.cr4 &= ~(uint64_t)X86_CR4_PSE;
    m_put32(m, A_PD32 + 4, A_PT32 | PTE_P | PTE_W | PTE_PS);
    m_put32(m, A_DATA, 99);
    m->st.gpr[X86_RBX] = A_BIG + A_DATA;
    LOAD(m, A_CODE, load_far_up);
    m_run(m);
    expect("CR4.PSE = 0: the PS bit is ignored", m->st.gpr[X86_RAX], 99);
}

void test_paging(struct machine *m)
{
    check_rights(m, P32);
    check_rights(m, PAE);
    check_rights(m, P4);
    check_nx(m);
    check_reserved(m);
    check_upper_rights(m);
    check_marks(m);
    check_large(m);
    check_tlb(m);
    check_invalidation(m);
    check_pae(m);
}
