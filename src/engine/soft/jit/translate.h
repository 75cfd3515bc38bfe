/*
 * A translation in progress, for translate.c and plain.c. One at a time for each vCPU, on its
 * thread.
 */
#ifndef ENGINE_SOFT_JIT_TRANSLATE_H
#define ENGINE_SOFT_JIT_TRANSLATE_H

#include "engine/soft/jit/internal.h"

/* Where the guest's arithmetic flags are at this point of the code. */
enum flags_place {
    FLAGS_MEM,  /* in cpu->cc, or dead */
    FLAGS_HOST, /* in EFLAGS alone */
    FLAGS_BOTH,
};

enum tx_kind {
    TX_PLAIN,  /* the host's same instruction, renamed */
    TX_HELPER, /* the interpreter's handler */
    TX_JCC,
    TX_JMP,
    TX_CALL,
    TX_RET,
    TX_PUSH,
    TX_POP,
    TX_LEAVE,
    TX_LEA,
    TX_DIV,
    TX_NOP,
    TX_SYSTEM, /* system.c */
};

enum cold_kind {
    COLD_GROUP,
    COLD_SLOW,
    COLD_STEP,
    COLD_LINK,
    COLD_FAR,
    COLD_POLL,
    COLD_VEC,
    COLD_X87,
    COLD_HELPER
};

struct cold {
    uint8_t kind;    /* enum cold_kind */
    bool restore;    /* the flags, before going on */
    uint8_t uncount; /* instructions that do not run */
    uint8_t *jump, *retry, *found, *resume;
    uint8_t *also; /* another jump to the same code; NULL: none */
    uint32_t packed, branch;
    int64_t target;   /* COLD_FAR: from the page's start */
    int32_t distance; /* COLD_GROUP: from the span's start to the access */
    uint16_t span;
    uint8_t index; /* of the instruction */
    struct mem tag;
};

/* A memory access that may share its probe with others (share.c). */
struct access {
    uint8_t base, index, shift; /* registers as in an instruction */
    uint8_t size, align;        /* align: what the address must not meet */
    bool write, shared, first, reload;
    bool aligned; /* the group's probe sees to that */
    uint8_t group;
    unsigned version[2]; /* of base and index */
    int32_t at;          /* from what the registers held in the block's terms */
    /* of the group, at its first access */
    bool group_write, saved;
    uint8_t group_align;
    int32_t lo;
    uint16_t span; /* from lo */
};

enum { TX_RELOCS = 2048, TX_FIELDS = 256, TX_SPANS = 64, TX_LINKS = JIT_EXITS + JIT_INSNS };

struct tx {
    struct soft_cpu *cpu;
    struct jit *j;
    struct jit_block *block;
    const uint8_t *page; /* the guest's code, in the host */
    const uint8_t *text; /* that of this block: page, or over */
    unsigned text_end;   /* behind the last byte of it that is known */
    struct emit hot;
    enum x86_mode mode;
    unsigned word; /* bytes of an address and of what the stack moves by: 8 or 4 */
    unsigned key, n, i, exits, links, groups, colds, end, lo, hi;
    unsigned turn;   /* instructions of a loop that is there several times, else n */
    int32_t rsp_off; /* what R10 still lacks: see tx_settle_rsp */
    enum flags_place flags;
    bool falls, falls_reads; /* goes on at `end`; which reads flags */
    bool vectors, x87;       /* known to be loaded */
    bool x87_page;           /* hot.x87_page is this page */
    bool ended;
    uint8_t *hot_start, *cold_start;
    unsigned relocs, uops, fields, spans; /* more than there is room for: too many to be kept */
    bool taken_reads[JIT_INSNS];
    struct x86_insn insn[JIT_INSNS];
    uint16_t off[JIT_INSNS];
    int64_t target[JIT_INSNS];          /* of direct branches, from the page's start */
    const uint8_t *code[JIT_INSNS + 1]; /* where the hot code of each begins; its end */
    uint8_t kind[JIT_INSNS];
    uint32_t live_in[JIT_INSNS], live_after[JIT_INSNS], reads[JIT_INSNS];
    struct access access[JIT_INSNS];
    bool busy[JIT_INSNS]; /* S3 must stay as it is */
    struct cold cold[JIT_INSNS * 8 + 8];
    struct jit_link link[TX_LINKS];
    uint8_t *link_site[TX_LINKS]; /* where the code names it */
    uint32_t reloc[TX_RELOCS];
    uint16_t uop_at[JIT_INSNS]; /* page offsets */
    uint16_t span[TX_SPANS][2]; /* page offsets of the bytes that were looked at, and behind them */
    uint16_t field[TX_FIELDS];  /* of addresses inside instructions that were looked at (store.c) */
    uint8_t over[PAGE_SIZE + X86_MAX_LEN]; /* an instruction from its page and the next one */
};

/* The four bytes at `at` depend on where the code lies. */
static inline void tx_reloc(struct tx *t, enum jit_reloc kind, const uint8_t *at, unsigned index)
{
    bool cold = at >= t->j->start_cold;

    if (t->relocs < TX_RELOCS)
        t->reloc[t->relocs] = RELOC(kind, cold, index, at - (cold ? t->cold_start : t->hot_start));
    t->relocs++;
}

/* Is the running instruction the jump from one turn of a loop to the next, turned round? */
static inline bool tx_between_turns(const struct tx *t)
{
    return (t->i + 1) % t->turn == 0 && t->i + 1 < t->n;
}

/* The memory operand; NULL: there is none. */
static inline const struct x86_opnd *tx_memory(const struct x86_insn *in)
{
    for (unsigned i = 0; i < in->opnd_count; i++) {
        if (in->opnd[i].kind == X86_OPND_MEM)
            return &in->opnd[i];
    }
    return NULL;
}

extern const uint8_t tx_home[16]; /* host registers of guest registers; H_NONE: in st.gpr */

/* The interpreter runs the instruction if this register's address is not canonical. S2 is lost. */
struct cold *tx_canonical(struct tx *t, unsigned reg);
/* Flags will be lost: saves them if they are live. S2 is lost. */
void tx_clobber_flags(struct tx *t);
/* Brings saved flags back into EFLAGS. S2 is lost. */
void tx_need_flags(struct tx *t);
void tx_save_flags(struct tx *t);
/* Emits their restoration alone. */
void tx_restore_flags(struct emit *e);
/* The successor may read the flags: from memory, as the convention between blocks is. */
void tx_flags_out(struct tx *t, bool needed);
/* The host register of a guest register, or the scratch `temp`, into which it is loaded. */
unsigned tx_reg_or(struct tx *t, unsigned guest, unsigned temp);
/* Copies a guest register to a scratch. */
void tx_load_gpr(struct tx *t, unsigned to, unsigned guest);
/* The linear address at this distance from the page's start, at most 2 GiB and 8 KiB. */
void tx_page_offset(const struct tx *t, struct emit *e, unsigned to, int64_t off);
/* lea, mov from and to memory of a word: what is above 32 bits goes away in 32-bit code. */
static inline void tx_lea(struct tx *t, unsigned to, struct mem m)
{
    put_op_mem(&t->hot, t->word == 8, 0x8d, to, m);
}

static inline void tx_load(struct tx *t, unsigned to, struct mem m)
{
    put_op_mem(&t->hot, t->word == 8, 0x8b, to, m);
}

static inline void tx_store(struct tx *t, struct mem m, unsigned from)
{
    put_op_mem(&t->hot, t->word == 8, 0x89, from, m);
}

static inline void tx_mov(struct tx *t, unsigned to, unsigned from)
{
    put_op_reg(&t->hot, t->word == 8, 0x89, from, to);
}
/* The effective address of a memory operand, without its segment. S1 and S2 may be lost. */
void tx_address(struct tx *t, const struct x86_insn *in, unsigned to);
void tx_probe(struct tx *t, unsigned seg, unsigned size, bool write, unsigned align);
/*
 * The address of the running instruction's memory operand in the host: a probe, or what an earlier
 * one has found. Flags and S2 are lost, S1 may be.
 */
struct mem tx_operand(struct tx *t, const struct x86_insn *in, unsigned size, bool write,
                      unsigned align);
/* The same for what lies at [base + disp] on the stack. */
struct mem tx_stack(struct tx *t, unsigned base, int32_t disp, bool write);
/* S2: where the table's entry for S1 is; and one of its fields. Flags are lost. */
void tx_index(struct tx *t);
struct mem tx_tlb(const struct tx *t, size_t field);
/* Makes the interpreter's form of the running instruction; its place in the arena. */
uint32_t tx_uop(struct tx *t);
/*
 * Pushes and pops that follow each other on memory already probed move RSP once, at their end:
 * nothing can look at it in between.
 */
void tx_settle_rsp(struct tx *t);
/* After a push or pop of the running instruction: RSP moves, now or later. */
void tx_move_rsp(struct tx *t, int32_t by);
void tx_need_vectors(struct tx *t);
void tx_need_x87(struct tx *t);
struct cold *tx_cold(struct tx *t, enum cold_kind kind, uint8_t *jump);

/* To S1: the linear address of the memory operand. S2 and the flags may be lost. */
void tx_linear(struct tx *t, const struct x86_insn *in);

/* ---- flow.c ---- */
void tx_jcc(struct tx *t, const struct x86_insn *in);
void tx_jmp(struct tx *t, const struct x86_insn *in);
void tx_call(struct tx *t, const struct x86_insn *in);
void tx_ret(struct tx *t, const struct x86_insn *in);
/* On to an offset from this page's start, in it or not; branch: see FAR_FALLS. */
void tx_goto(struct tx *t, int64_t target, uint32_t branch);
/* The interpreter's handler runs the instruction; ends: it may go anywhere. */
void tx_helper(struct tx *t, const struct x86_insn *in, bool ends);
/* At a block's start: looks for what is pending; counts its instructions. */
void tx_poll(struct tx *t);
/* At the start of a block whose instruction goes on in the next page: is it the same still? */
void tx_across(struct tx *t, uint64_t pa);
void tx_count(struct tx *t);
void tx_finish_cold(struct tx *t, struct cold *c, struct emit *e);

/* ---- share.c ---- */
/* Finds accesses that can share a probe. */
void tx_share(struct tx *t);

/* ---- system.c ---- */
bool tx_is_system(const struct tx *t, const struct x86_insn *in);
void tx_system(struct tx *t, const struct x86_insn *in);

/* ---- plain.c ---- */
/* What the address of the memory operand must not meet. */
unsigned tx_alignment(const struct x86_insn *in, const struct x86_opnd *mem);
bool tx_is_plain(const struct tx *t, const struct x86_insn *in);
bool tx_is_cl_shift(const struct x86_insn *in);
void tx_plain(struct tx *t, const struct x86_insn *in);

#endif
