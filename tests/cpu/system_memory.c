/*
 * Instructions and data that move or cross: self-modifying code, page crossings, strings with
 * faults in the middle, read-modify-write, MMIO.
 */
#include "system.h"

static int run(struct machine *m, const uint8_t *code, size_t len)
{
    m_write(m, m->st.rip, code, len);
    return m_run(m);
}
#define RUN(m, code) run(m, code, (size_t)(code##_end - (code)))

/* The store changes the immediate of the MOV after it. */
CODE(smc_same, 64, "movb $7, 1f+1(%rip)\n1: mov $1, %eax\n" DONE);
CODE(smc_next, 64, "movb $7, 1f+1(%rip)\njmp 1f\n1: mov $1, %eax\n" DONE);
CODE(smc_ran, 64,
     "xor %ebp, %ebp\n"
     "1: mov $1, %eax\n"
     "test %ebp, %ebp\njnz 2f\n"
     "inc %ebp\nmovb $7, 1b+1(%rip)\njmp 1b\n"
     "2: " DONE);
/* code at A_TEST, written through the page after it, which maps the same frame */
CODE(smc_alias, 64, "call *%rbx\nmov %eax, %r8d\nmovb $7, 0x1001(%rbx)\ncall *%rbx\n" DONE);
CODE(smc_first_alias, 64,
     "movb $9, 0x1801(%rbx)\ncall *%rbx\nmov %eax, %r8d\n"
     "movb $7, 0x1001(%rbx)\ncall *%rbx\n" DONE);
CODE(smc_dma, 64,
     "call *%rbx\nmov %eax, %r8d\nmov $" STR(
         A_PORT + 2) ", %edx\nmov $0xc3, %al\nout %al, (%dx)\nmov $3, %eax\ncall *%rbx\n" DONE);
CODE(smc_movs, 64,
     "call *%rbx\nmov %eax, %r8d\nlea 1(%rbx), %rdi\nmov $7, %al\n"
     "mov $1, %ecx\nrep stosb\ncall *%rbx\n" DONE);
CODE(smc_lock, 64, "call *%rbx\nmov %eax, %r8d\nlock addb $6, 1(%rbx)\ncall *%rbx\n" DONE);
CODE(smc_sse, 64,
     "call *%rbx\nmov %eax, %r8d\nmovups (%rsi), %xmm0\nmovups %xmm0, (%rbx)\n"
     "call *%rbx\n" DONE);
CODE(ret1, 64, "mov $1, %eax\nret\n");
CODE(ret7, 64, "mov $7, %eax\nret\n.fill 10, 1, 0x90\n");
CODE(mov_done, 64, "mov $0x11223344, %eax\n" DONE);
CODE(twice_cross, 64, "call *%rbx\nmov %eax, %r8d\nmovb $0x55, (%rcx)\ncall *%rbx\n" DONE);

static void check_smc(struct machine *m)
{
    m_long(m);
    RUN(m, smc_same);
    expect("store into the same block", m->st.gpr[X86_RAX], 7);
    m_long(m);
    RUN(m, smc_next);
    expect("store into the next block", m->st.gpr[X86_RAX], 7);
    m_long(m);
    RUN(m, smc_ran);
    expect("store into a block that has run", m->st.gpr[X86_RAX], 7);
#define CALLED(code, name)                                                                         \
    m_long(m);                                                                                     \
    LOAD(m, A_TEST, ret1);                                                                         \
    m_put64(m, A_PT + 8 * (A_TEST / 4096 + 1), A_TEST | PTE_P | PTE_W);                            \
    m->st.gpr[X86_RBX] = A_TEST;                                                                   \
    m->st.gpr[X86_RSI] = A_DATA;                                                                   \
    LOAD(m, A_DATA, ret7);                                                                         \
    RUN(m, code);                                                                                  \
    expect(name, m->st.gpr[X86_R8] << 8 | (m->st.gpr[X86_RAX] & 0xff), 0x107)
    CALLED(smc_alias, "store by another linear address");
    CALLED(smc_first_alias, "store by another address that was written before");
    CALLED(smc_movs, "REP STOS over code");
    CALLED(smc_lock, "LOCK ADD over code");
    CALLED(smc_sse, "a 16-byte store over code");
    m_long(m);
    LOAD(m, A_TEST, ret1);
    m->st.gpr[X86_RBX] = A_TEST;
    RUN(m, smc_dma);
    expect("a device's write over code", m->st.gpr[X86_R8] << 8 | m->st.gpr[X86_RAX], 0x103);
    m_long(m);
    LOAD(m, A_TEST + 0xffd, ret1);
    m->st.gpr[X86_RBX] = A_TEST + 0xffd;
    m->st.gpr[X86_RCX] = A_TEST + 0x1000;
    RUN(m, twice_cross);
    expect("store into the second page of an instruction",
           m->st.gpr[X86_R8] << 32 | m->st.gpr[X86_RAX], 1ull << 32 | 0x550001);
}

/* Calls A_TEST, stops, calls it again: in between the other processor has written there. */
#define STOP "mov $" STR(A_STOP) ", %edx\nout %al, (%dx)\n"
CODE(smp_caller, 64, "call *%rbx\nmov %eax, %r8d\n" STOP "call *%rbx\n" DONE);
CODE(smp_writer, 64, STOP "movb $7, 1(%rbx)\nhlt\n");
CODE(smp_writer_warm, 64, "movb $0, 0x800(%rbx)\n" STOP "movb $7, 1(%rbx)\nhlt\n");
CODE(smp_once, 64, "call *%rbx\n" STOP "nop\n" STOP "hlt\n");
CODE(smp_thrice, 64,
     "call *%rbx\n" STOP "call *%rbx\n" STOP "call *%rbx\n"
     "mov %eax, 0x900(%rbx)\nhlt\n");
CODE(smp_both, 64, "call *%rbx\n" STOP "call *%rbx\nmov %eax, 0x900(%rbx)\nhlt\n");

static void smp(struct machine *m, const char *name, const uint8_t *writer, size_t len)
{
    struct x86_state other;

    m_long(m);
    LOAD(m, A_TEST, ret1);
    m->st.gpr[X86_RBX] = A_TEST;
    other = m->st;
    other.rip = A_CODE + 0x1000;
    m_write(m, other.rip, writer, len);
    m_run_other(m, &other);
    RUN(m, smp_caller);
    m_run_other(m, NULL);
    m_resume(m);
    expect(name, m->st.gpr[X86_R8] << 8 | m->st.gpr[X86_RAX], 0x107);
}

static void check_smp(struct machine *m)
{
    struct x86_state other;

    smp(m, "another processor's store over code", smp_writer,
        (size_t)(smp_writer_end - smp_writer));
    smp(m, "the same by one that has written there before", smp_writer_warm,
        (size_t)(smp_writer_warm_end - smp_writer_warm));
    m_long(m);
    LOAD(m, A_TEST, ret1);
    m->st.gpr[X86_RBX] = A_TEST;
    other = m->st;
    other.rip = A_CODE + 0x1000;
    other.gpr[X86_RSP] = A_IST;
    LOAD(m, other.rip, smp_both);
    m_run_other(m, &other);
    RUN(m, smc_movs);
    m_run_other(m, NULL);
    expect("store over code that both have run", m_get32(m, A_TEST + 0x900), 7);
    m_long(m);
    LOAD(m, A_TEST, ret1);
    m->st.gpr[X86_RBX] = A_TEST;
    other = m->st;
    other.rip = A_CODE + 0x1000;
    other.gpr[X86_RSP] = A_IST;
    LOAD(m, other.rip, smp_thrice);
    m_run_other(m, &other);
    RUN(m, smp_once);
    m_write(m, A_TEST, ret7, 5);
    m_run_other(m, NULL); /* decodes anew; the processor that looks later must not undo the mark */
    m_resume(m);
    m_write(m, A_TEST, ret1, 5);
    m_run_other(m, NULL);
    expect("a device's second write reaches both", m_get32(m, A_TEST + 0x900), 1);
}

static void check_fetch(struct machine *m)
{
    m_long(m);
    m->st.rip = A_TEST + 0xffe;
    m_put64(m, A_PT + 8 * (A_TEST / 4096 + 1), (A_TEST + 0x5000) | PTE_P | PTE_W);
    m_write(m, A_TEST + 0xffe, mov_done, 2);
    m_write(m, A_TEST + 0x5000, mov_done + 2, (size_t)(mov_done_end - mov_done) - 2);
    m_run(m);
    expect("instruction across two frames", m->st.gpr[X86_RAX], 0x11223344);
    m_long(m);
    m->st.rip = A_TEST + 0xffe;
    m_pte(m, A_TEST + 0x1000, 0);
    m_write(m, A_TEST + 0xffe, mov_done, 2);
    m_run(m);
    expect_event(m, "second page absent: RIP is the instruction's", X86_EXC_PF, 0x10,
                 A_TEST + 0xffe);
    expect("and CR2 the second page", m->st.cr2, A_TEST + 0x1000);
    m_long(m);
    m->st.rip = A_TEST + 0xffe;
    m_pte(m, A_TEST + 0x1000, 0);
    m_write(m, A_TEST + 0xffe, "\xcd\x80", 2);
    m_run(m);
    expect_event(m, "an instruction that ends the page needs no other", 0x80, NO_ERROR, ANY_RIP);
    m_long(m);
    gmem_fill(m->env.mem, A_CODE, 0x66, 15);
    m_put16(m, A_CODE + 15, 0xc089);
    m_run(m);
    expect_event(m, "16 bytes are too many", X86_EXC_GP, 0, A_CODE);
    m_long(m);
    m->st.rip = 1ull << 47;
    m_run(m);
    expect_event(m, "fetch from a non-canonical address", X86_EXC_GP, 0, 1ull << 47);
    m_long(m);
    m->st.rip = A_MMIO;
    m_run(m);
    /* 88 88 88 88 88 88: mov %cl, disp32(%rax) */
    expect_pf(m, "running device registers: its bytes are fetched", 2,
              m->st.gpr[X86_RAX] + 0xffffffff88888888ull);
}

/* ---- strings ---- */

CODE(st_movs, 64, "rep movsb\n" DONE);
CODE(st_movsq, 64, "rep movsq\n" DONE);
CODE(st_movs_down, 64, "std\nrep movsb\n" DONE);
CODE(st_stos, 64, "rep stosq\n" DONE);
CODE(st_cmps, 64, "repe cmpsb\n" DONE);
CODE(st_ins, 64, "rep insb\n" DONE);
CODE(st_movs32, 64, "addr32 rep movsb\n" DONE);

static void strings(struct machine *m, uint64_t from, uint64_t to, uint64_t count)
{
    m_long(m);
    m->st.gpr[X86_RSI] = from;
    m->st.gpr[X86_RDI] = to;
    m->st.gpr[X86_RCX] = count;
}

static void check_strings(struct machine *m)
{
    strings(m, A_DATA, A_TEST + 0xff0, 64);
    m_pte(m, A_TEST + 0x1000, 0);
    gmem_fill(m->env.mem, A_DATA, 0x5a, 64);
    RUN(m, st_movs);
    expect_event(m, "REP MOVS faults at the page's end", X86_EXC_PF, 2, A_CODE);
    expect("CR2 is the first byte there", m->st.cr2, A_TEST + 0x1000);
    expect("RCX counts what is left", m->st.gpr[X86_RCX], 48);
    expect("RSI and RDI stand there",
           m->st.gpr[X86_RSI] - A_DATA + (m->st.gpr[X86_RDI] - A_TEST - 0xff0), 32);
    expect("the bytes before are written", m_get64(m, A_TEST + 0xff8), 0x5a5a5a5a5a5a5a5aull);
    strings(m, A_TEST + 0xffc, A_DATA, 4);
    m_pte(m, A_TEST + 0x1000, 0);
    RUN(m, st_movsq);
    expect_event(m, "REP MOVSQ: element across an absent page", X86_EXC_PF, 0, A_CODE);
    expect("no element is done", m->st.gpr[X86_RCX] << 32 | (m->st.gpr[X86_RDI] - A_DATA),
           4ull << 32);
    strings(m, A_DATA + 63, A_TEST + 0x1010, 64);
    m_pte(m, A_TEST, PTE_P);
    RUN(m, st_movs_down);
    expect_event(m, "downwards: into a read-only page", X86_EXC_PF, 3, A_CODE + 1);
    expect("downwards: RCX", m->st.gpr[X86_RCX], 64 - 17);
    strings(m, 0, A_TEST + 0xff8, 3);
    m_pte(m, A_TEST + 0x1000, 0);
    RUN(m, st_stos);
    expect_event(m, "REP STOS", X86_EXC_PF, 2, A_CODE);
    expect("REP STOS: RCX", m->st.gpr[X86_RCX], 2);
    strings(m, A_DATA, A_TEST + 0xff0, 64);
    m_pte(m, A_TEST + 0x1000, 0);
    m->st.rflags |= X86_FL_CF | X86_FL_SF;
    RUN(m, st_cmps);
    expect_event(m, "REPE CMPS", X86_EXC_PF, 0, A_CODE);
    expect("REPE CMPS: RCX", m->st.gpr[X86_RCX], 48);
    expect("REPE CMPS: a fault restores the flags", m_frame(m, 2) & 0xff, 0x83);
    strings(m, A_TEST + 0xff0, A_DATA, 64);
    m_pte(m, A_TEST + 0x1000, 0);
    RUN(m, st_movs);
    expect("a faulting source is no write", m_error(m), 0);
    strings(m, 0, A_TEST + 0xffe, 4);
    m->st.gpr[X86_RDX] = A_PORT;
    m_pte(m, A_TEST + 0x1000, 0);
    RUN(m, st_ins);
    expect_event(m, "REP INS", X86_EXC_PF, 2, A_CODE);
    expect("REP INS: no port read is lost", m->port_reads, 2);
    strings(m, A_DATA, A_DATA + 1, 100);
    gmem_fill(m->env.mem, A_DATA, 0, 128);
    m_put16(m, A_DATA, 0x77);
    RUN(m, st_movs);
    expect("overlapping REP MOVS repeats its first byte", m_get64(m, A_DATA + 90),
           0x7777777777777777ull);
    strings(m, 0xffffffff00000000ull | A_DATA, A_DATA + 0x100, 1ull << 32 | 5);
    RUN(m, st_movs32);
    expect("32-bit addresses: ECX counts", m->st.gpr[X86_RCX], 0);
    expect("32-bit addresses: ESI is 32 bits", m->st.gpr[X86_RSI], A_DATA + 5);
}

/* ---- read-modify-write, crossings, MMIO ---- */

CODE(mem_lock_add, 64, "lock addq $1, (%rbx)\n" DONE);
CODE(mem_xchg, 64, "xchg %rax, (%rbx)\n" DONE);
CODE(mem_cmpxchg, 64, "cmpxchg %rcx, (%rbx)\n" DONE);
CODE(mem_cx16, 64, "lock cmpxchg16b (%rbx)\n" DONE);
CODE(mem_inc, 64, "incl (%rbx)\n" DONE);
CODE(mem_bts, 64, "bts %rax, (%rbx)\n" DONE);
CODE(mem_load8, 64, "mov (%rbx), %rax\n" DONE);
CODE(mem_store8, 64, "mov %rax, (%rbx)\n" DONE);
CODE(mem_store4, 64, "movl $0x12345678, (%rbx)\n" DONE);
CODE(mem_load_mmio, 64, "mov (%rbx), %eax\n" DONE);
CODE(mem_shld, 64, "shld $4, %rax, (%rbx)\n" DONE);

static void check_rmw(struct machine *m)
{
    static const struct {
        const char *name;
        const uint8_t *code, *end;
    } rows[] = {
        {"LOCK ADD", mem_lock_add, mem_lock_add_end},
        {"XCHG", mem_xchg, mem_xchg_end},
        {"CMPXCHG that does not match", mem_cmpxchg, mem_cmpxchg_end},
        {"INC", mem_inc, mem_inc_end},
        {"BTS", mem_bts, mem_bts_end},
        {"SHLD", mem_shld, mem_shld_end},
        {"CMPXCHG16B that does not match", mem_cx16, mem_cx16_end},
    };

    for (unsigned i = 0; i < countof(rows); i++) {
        m_long(m);
        m_pte(m, A_TEST, PTE_P);
        m_put64(m, A_TEST, 0x1234);
        m->st.gpr[X86_RBX] = A_TEST;
        m->st.gpr[X86_RAX] = 5;
        m->st.rflags |= X86_FL_ARITH;
        m_write(m, A_CODE, rows[i].code, (size_t)(rows[i].end - rows[i].code));
        m_run(m);
        expect_event(m, rows[i].name, X86_EXC_PF, 3, A_CODE);
        expect(rows[i].name, m->st.gpr[X86_RAX] << 32 | (m_frame(m, 2) & X86_FL_ARITH),
               5ull << 32 | X86_FL_ARITH);
    }
    m_long(m);
    m->st.gpr[X86_RBX] = A_TEST + 0xffd;
    m_put64(m, A_TEST + 0xffd, 0x00ffffffffffffffull);
    RUN(m, mem_lock_add);
    expect("LOCK across a page", m_get64(m, A_TEST + 0xffd), 1ull << 56);
    m_long(m);
    m->st.gpr[X86_RBX] = A_TEST + 0xffd;
    m_pte(m, A_TEST + 0x1000, PTE_P);
    m_put64(m, A_TEST + 0xffd, 0xffff);
    m->st.rflags |= X86_FL_ARITH;
    RUN(m, mem_lock_add);
    expect_event(m, "LOCK across a page, second read-only", X86_EXC_PF, 3, A_CODE);
    expect("nothing has changed", m_get64(m, A_TEST + 0xffd), 0xffff);
    expect("no flag has changed", m_frame(m, 2) & X86_FL_ARITH, X86_FL_ARITH);
    m_long(m);
    m->st.gpr[X86_RBX] = A_TEST + 0xffd;
    m_pte(m, A_TEST + 0x1000, 0);
    RUN(m, mem_lock_add);
    expect_event(m, "LOCK across a page, second absent: a write", X86_EXC_PF, 2, A_CODE);
    m_long(m);
    m->st.gpr[X86_RBX] = A_TEST + 0xffc;
    m_pte(m, A_TEST + 0x1000, PTE_P);
    m_put64(m, A_TEST + 0xffc, 0);
    m->st.gpr[X86_RAX] = ~0ull;
    RUN(m, mem_store8);
    expect_event(m, "store across a page, second read-only", X86_EXC_PF, 3, A_CODE);
    expect("CR2 is the second page", m->st.cr2, A_TEST + 0x1000);
    expect("the first is not written", m_get64(m, A_TEST + 0xffc), 0);
    m_long(m);
    m->st.gpr[X86_RBX] = A_TEST + 8;
    RUN(m, mem_cx16);
    expect_event(m, "CMPXCHG16B wants alignment", X86_EXC_GP, 0, A_CODE);
}

static void check_mmio(struct machine *m)
{
    m_long(m);
    m->st.gpr[X86_RBX] = A_MMIO + 0x11;
    RUN(m, mem_load8);
    expect("unaligned MMIO load", m->mmio_addr << 8 | m->mmio_size, 0x1108);
    expect("its value", m->st.gpr[X86_RAX], 0x1122334455667788ull);
    m_long(m);
    m->st.gpr[X86_RBX] = A_MMIO + 0x23;
    RUN(m, mem_store4);
    expect("unaligned MMIO store", m->mmio_addr << 8 | m->mmio_size, 0x2304);
    expect("its value", m->mmio_value, 0x12345678);
    m_long(m);
    m->st.gpr[X86_RBX] = A_MMIO + 0xffe;
    RUN(m, mem_store4);
    expect("MMIO store across a page: four bytes", m->mmio_count, 4);
    expect("the last of them", m->mmio_addr << 8 | m->mmio_value, 0x100112);
    m_long(m);
    m->st.gpr[X86_RBX] = A_MMIO;
    RUN(m, mem_inc);
    expect("read-modify-write of MMIO: one read, one write", m->mmio_count, 2);
    expect("MMIO: what is written", m->mmio_value, 0x55667789);
    m_long(m);
    m_put64(m, A_PDPAE + 8 * ((0xe0000000ull >> 21) & 511), 0xe0000000ull | PTE_P | PTE_PS);
    m->st.gpr[X86_RBX] = 0xe0000000;
    RUN(m, mem_load_mmio);
    expect("nothing there: all ones", m->st.gpr[X86_RAX], 0xffffffff);
}

/* ---- alignment check ---- */

CODE(ac_load4, 64, "mov (%rbx), %eax\n" DONE);
CODE(ac_fxsave, 64, "fxsave (%rbx)\n" DONE);

static void check_alignment(struct machine *m)
{
    m_long(m);
    m_user(m);
    m->st.cr0 |= X86_CR0_AM;
    m->st.rflags |= X86_FL_AC;
    m->st.gpr[X86_RBX] = A_UDATA + 2;
    RUN(m, ac_load4);
    expect_event(m, "#AC at CPL 3", X86_EXC_AC, 0, A_UCODE);
    m_long(m);
    m->st.cr0 |= X86_CR0_AM;
    m->st.rflags |= X86_FL_AC;
    m->st.gpr[X86_RBX] = A_DATA + 2;
    RUN(m, ac_load4);
    expect_event(m, "no #AC at CPL 0", 0x80, NO_ERROR, ANY_RIP);
    m_long(m);
    m_user(m);
    m->st.cr0 |= X86_CR0_AM;
    m->st.rflags |= X86_FL_AC;
    m->st.gpr[X86_RBX] = A_UDATA + 16;
    RUN(m, ac_fxsave);
    expect_event(m, "FXSAVE wants 16 bytes, not 512", 0x80, NO_ERROR, ANY_RIP);
}

void test_memory(struct machine *m)
{
    check_smc(m);
    check_smp(m);
    check_fetch(m);
    check_strings(m);
    check_rmw(m);
    check_mmio(m);
    check_alignment(m);
}
