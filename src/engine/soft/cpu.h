/*
 * One processor of the soft engine: architectural state, soft TLB, decoded blocks; and the helpers
 * that instruction handlers are written with.
 *
 * Everything here is called on the vCPU's own thread from inside an instruction handler. A handler
 * that faults does not return: soft_raise jumps back to the run loop, which delivers the exception
 * with RIP at the instruction. So a handler changes guest state only when nothing can fault any
 * more
 * ("memory first, registers after").
 */
#ifndef ENGINE_SOFT_CPU_H
#define ENGINE_SOFT_CPU_H

#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"
#include "engine/engine.h"
#include "x86/decode.h"
#include "x86/state.h"

struct soft_cpu;
struct soft_vm;
struct uop;
struct native_stub;

typedef void (*uop_fn)(struct soft_cpu *cpu, const struct uop *u);

/* A decoded instruction in the form the interpreter runs: handler and operands. */
struct uop {
    uop_fn fn;
    union {
        uint64_t imm;
        const struct native_stub *native; /* of natively executed instructions */
    };
    int64_t disp; /* RIP-relative: already relative to the block's start */
    uint16_t op;  /* enum x86_op */
    uint16_t off; /* of the instruction in its block */
    uint8_t len;
    uint8_t seg;         /* effective segment */
    uint8_t base, index; /* GPR or X86_REG_NONE */
    uint8_t shift;       /* log2 of scale */
    uint8_t asize, osize;
    uint8_t dst, src; /* register operands; meaning is the handler's */
    uint8_t cc;       /* condition, or another small constant */
    uint8_t rep;
    uint8_t flags; /* UOP_* */
};

#define UOP_END 1u  /* ends a block */
#define UOP_LOCK 2u /* atomic */
#define UOP_RIP 4u  /* disp is from cpu->block_rip */
#define UOP_REG 8u  /* the r/m operand is a register: dst, or src where it is the source */
/* Native VEX instructions: bits 7:6 say which of dst, src, cc, rep is a vector register that is
 * written; XMM0 is written unsaid. */
#define UOP_VEX 16u
#define UOP_VEX_XMM0 32u
#define UOP_VEX_SHIFT 6u

/*
 * ---- soft TLB ----
 * A tag is a page's linear address, so that (address ^ tag) is the offset in the page if the entry
 * is the page's, and at least a page's size if it is not: one compare tells a hit that does not
 * cross the page's end. An empty tag names a page that belongs to another slot.
 */

#ifdef XHYVE_HOSTILE
#define SOFT_TLB_BITS 1u
#else
#define SOFT_TLB_BITS 12u
#endif
#define SOFT_TLB_SIZE (1u << SOFT_TLB_BITS)

struct tlb_entry {
    uint64_t rtag, wtag; /* for reads, for writes */
    uintptr_t page;      /* hva of the page */
    uintptr_t addend;    /* hva - linear address */
};

static inline uint64_t tlb_empty(unsigned slot)
{
    return ((uint64_t)slot ^ 1) << 12;
}

/* Does an access of this size hit the tag? */
static inline bool tlb_hit(uint64_t tag, uint64_t lin, unsigned size)
{
    return (lin ^ tag) <= 4096u - size;
}

/* Pages without memory behind them; tag is page | cpu->gen, 0 = empty. */
struct device_entry {
    uint64_t tag, gpa;
};
#define SOFT_DEVICE_PAGES 8u

/* Pages that instructions were fetched from; tag is page | generation, 0 = empty. */
struct fetch_entry {
    uint64_t tag, gpa;
    const uint8_t *page;
    bool writable; /* by the code that runs there */
    bool global;   /* the generation in the tag is gen_global */
};
#define SOFT_FETCH_SIZE 64u

/* Which table an access uses. */
enum tlb_mode {
    TLB_KERNEL,    /* CPL < 3, SMAP in force */
    TLB_KERNEL_AC, /* CPL < 3, no SMAP or AC = 1 */
    TLB_USER,      /* CPL = 3 */
    TLB_CHECKED,   /* never filled: every access goes the slow way (#AC armed, data breakpoints) */
    TLB_MODES
};

/* In a block's mode: decoded for real or virtual-8086 mode, where VEX prefixes are #UD. */
#define BLOCK_REAL 8u

struct soft_block;
struct soft_jump {
    uint64_t lin; /* of the first instruction */
    uint64_t key; /* generation, mode, privilege; 0 = empty */
    struct soft_block *block;
};
#define SOFT_JUMP_BITS 12u

enum { JIT_GROUPS = 8 }; /* probes in one block that accesses share */

/* What the translator's code reads and writes of the vCPU, most used first; jit/ owns it. */
struct jit_hot {
    uint64_t ctx[2];  /* of the jump tables' entries, supervisor and user; never reused */
    uint8_t vec_live; /* the host's vector registers and MXCSR are the guest's */
    uint8_t x87_live; /* the same for the x87 unit and MMX */
    uint8_t vec_was, x87_was;
    uint32_t x87_last; /* offset in its page of the last x87 instruction; from bit 12 on its FOP */
    uint64_t x87_page, x87_fdp;
    uint64_t next, ret, s1, s3;
    uint64_t budget; /* instructions at which blocks stop */
    void *block;     /* that counted last */
    uint64_t host_rsp, rax, rdx, header;
    const void *exit;                /* where code goes to leave */
    const void *fn[8];               /* C functions of the stubs */
    const void *light;               /* what FN_SLOW's stub calls first */
    uint64_t distance[JIT_GROUPS];   /* from guest to host addresses, of shared probes */
    _Alignas(32) uint8_t bounce[64]; /* what was read from two pages */
    uint32_t host_mxcsr;
    uint16_t key; /* of the code that runs */
};

/* Where translated code is for a linear address. */
struct jit_slot {
    const void *code;
    uint64_t lin, ctx;
    const void *body; /* behind the checks of lin and ctx */
};
#define JIT_SLOTS 65536u
/*
 * The slot's number is the upper half of a product: functions begin at multiples of 16, returns
 * follow each other closely, and a kernel has many pages.
 */
#define JIT_SLOT_FACTOR 0x9E3779B1u

static inline unsigned jit_slot_of(uint64_t lin)
{
    return ((uint32_t)lin * JIT_SLOT_FACTOR) >> 16;
}

/* What a fault now would belong to. */
enum soft_insn {
    INSN_NONE,     /* a fetch, the delivery of an event */
    INSN_RUNS,     /* a block runs: RIP is that of *uop */
    INSN_SWITCHED, /* it has switched to a task, whose RIP is in st.rip */
};

struct soft_cpu {
    /* The first 128 bytes: translated code names them by one byte. */
    uint64_t block_rip;    /* of the running block's first instruction */
    struct tlb_entry *tlb; /* tables[tlb_mode] */
    /*
     * Arithmetic flags as LAHF and SETO leave them in AX: CF 8, PF 10, AF 12, ZF 14, SF 15, OF 0.
     */
    uint32_t cc;
    _Atomic(uint32_t) pending; /* SOFT_PENDING_*: what the run loop must look at now */
    struct jit_hot hot;

    struct x86_state st; /* rflags' arithmetic bits are in .cc while instructions run */
    uint32_t cpl;
    /*
     * Where execution goes on after the block: preset to the end of it, changed by branches, which
     * are always a block's last instruction.
     */
    uint64_t next_rip;
    uint64_t rip_mask;            /* IP width: 64 or 32 bits */
    uint64_t base[X86_SEG_COUNT]; /* effective segment bases: 0 for ES CS SS DS in 64-bit mode */
    bool long_code;               /* 64-bit mode */
    uint8_t mode;                 /* enum x86_mode */
    uint8_t block_mode;           /* the same, with BLOCK_REAL */
    uint8_t sp_size;              /* 2, 4, 8: width of the stack pointer */
    uint8_t tlb_mode;             /* of data accesses now */
    uint8_t flat; /* outside 64-bit mode; bit n: no offset of 32 bits faults in segment n */
    uint64_t gen, gen_global;        /* TLB generations, 1..4095: of all entries, of global ones */
    uint64_t large_base, large_mask; /* region of all large pages cached; mask 0: none */
    _Alignas(64) struct tlb_entry tables[TLB_MODES][SOFT_TLB_SIZE];
    uint64_t tlb_used[TLB_MODES][(SOFT_TLB_SIZE + 63) / 64];      /* entries that are not empty */
    struct fetch_entry fetch[2][SOFT_FETCH_SIZE];                 /* supervisor, user */
    struct device_entry devices[TLB_MODES][2][SOFT_DEVICE_PAGES]; /* reads, writes */
    uint64_t tlb_global[TLB_MODES][(SOFT_TLB_SIZE + 63) / 64];    /* those that CR3 leaves alone */
    bool fetch_global, fetch_writable;                            /* what mmu_fetch found last */

    const struct uop *uop;     /* running */
    const struct uop *uop_end; /* the run loop stops here; lowered to leave a block early */
    struct soft_block *block;  /* running; its uops stay valid until it is left */
    struct soft_jump jumps[1u << SOFT_JUMP_BITS];
    bool jumps_live; /* some are of this generation */

    atomic_bool ignne_wanted; /* the board drives IGNNE#: taken with SOFT_PENDING_PINS */
    /*
     * An interrupt may wait in the local APIC. Kept apart from pending, which must be clear while
     * IF is: whoever sets IF looks here (pairs with soft_interrupt, which sets this first).
     */
    atomic_bool irq_waits;
    _Atomic(uint32_t) inval_lock; /* spin lock of inval[] */
    unsigned inval_count;         /* above SOFT_INVALS: everything */
    /*
     * Several vCPUs: it runs nothing, and looks at inval[] before it does again. And what its last
     * instruction did to memory by a host address that it was given for a read-modify-write: to a
     * page with code, ~0: none; under vm->split.
     */
    atomic_bool parked;
    bool split_held;
    uint8_t rmw_len;
    _Alignas(64) uint8_t code_copy[4096]; /* soft_code_copy */
    uint64_t rmw_code;
    uint64_t inval[16]; /* physical pages that others have written */
    jmp_buf *env;       /* where soft_raise goes */
    struct {
        uint8_t vector, type;
        bool has_error;
        uint32_t error;
        uint64_t payload;
    } fault;
    bool delivering; /* an event is being delivered; a fault now makes a double fault */
    uint8_t delivering_vector;
    uint8_t delivering_type;
    uint64_t deliver_rsp; /* RSP before a delivery began, should it fault */
    uint8_t insn;         /* enum soft_insn */
    bool halt_wanted;     /* HLT ran */
    bool exit_wanted;     /* an exit for the VM stands in *exit */
    struct vcpu_exit *exit;
    uint64_t budget;    /* stats.instructions at which to stop, if budgeted */
    uint64_t run_start; /* instructions when run() began */
    bool budgeted;

    uint64_t apic_page; /* where the xAPIC answers; all ones: nowhere */
    bool check_align;   /* #AC in force */
    uint64_t db_hit;    /* DR6 bits of data breakpoints that this instruction has hit */
    struct soft_vm *vm;
    unsigned id;
    struct vcpu_stats stats;
    void *native;                                     /* native.c's own state of this CPU */
    void *blocks;                                     /* block.c's */
    void *jit;                                        /* jit/'s; NULL: interpret only */
    void *check;                                      /* check.c's; NULL: not in lock-step */
    bool jit_runs;                                    /* translated code has called us */
    _Alignas(64) struct jit_slot slots[2][JIT_SLOTS]; /* supervisor, user */
};

/* In fault.type: no exception, but another reason to leave the instruction. */
enum { FAULT_CUT = 0xfd, FAULT_FREEZE = 0xfe, FAULT_EXIT = 0xff };

#define SOFT_PENDING_KICK 1u
#define SOFT_PENDING_IRQ 2u
#define SOFT_PENDING_NMI 4u
#define SOFT_PENDING_INVAL 8u
#define SOFT_PENDING_SLOW 16u /* TF, shadow, breakpoints: one instruction at a time */
#define SOFT_PENDING_PINS 32u /* A20M# or IGNNE# has changed */

struct soft_vm {
    struct engine_env env;
    struct soft_cpu *cpu[256];
    uint64_t phys_mask; /* valid physical address bits */
    atomic_bool a20_masked;
    bool count;            /* instructions are counted in translated code too */
    bool smp;              /* more than one vCPU */
    pthread_mutex_t split; /* held over a read-modify-write of two pages */
};

/* Its bit in gmem's marks. */
static inline uint32_t soft_bit(const struct soft_cpu *cpu)
{
    return 1u << (cpu->id % GMEM_MARKS);
}

/* ---- faults ---- */

_Noreturn void soft_raise(struct soft_cpu *cpu, uint8_t vector);
_Noreturn void soft_raise_error(struct soft_cpu *cpu, uint8_t vector, uint32_t error);

/*
 * The instruction does not begin: the processor waits before it for an interrupt, as in HLT.
 */
_Noreturn void soft_freeze(struct soft_cpu *cpu);

/*
 * Something that is not built: ends the VM (status 4) with RIP and the instruction's bytes.
 */
_Noreturn void soft_unimplemented(struct soft_cpu *cpu, const char *what);

/*
 * env.visiting: the instruction is left to the engine that the vCPU belongs to. Returns if it is
 * the visit's first, which that engine does not know.
 */
void soft_go_home(struct soft_cpu *cpu);

/* ---- addresses ---- */

/* RIP of the running instruction. */
static inline uint64_t soft_rip(const struct soft_cpu *cpu)
{
    return (cpu->block_rip + cpu->uop->off) & cpu->rip_mask;
}

static inline uint64_t soft_ea(const struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t ea = (uint64_t)u->disp;

    if (u->flags & UOP_RIP)
        ea += cpu->block_rip;
    if (u->base != X86_REG_NONE)
        ea += cpu->st.gpr[u->base];
    if (u->index != X86_REG_NONE)
        ea += cpu->st.gpr[u->index] << u->shift;
    if (u->asize == 8)
        return ea;
    return u->asize == 4 ? (uint32_t)ea : (uint16_t)ea;
}

/* ---- guest memory by segment and offset; faults as the manual says; any alignment ---- */

uint8_t soft_ld8(struct soft_cpu *cpu, unsigned seg, uint64_t ea);
uint16_t soft_ld16(struct soft_cpu *cpu, unsigned seg, uint64_t ea);
uint32_t soft_ld32(struct soft_cpu *cpu, unsigned seg, uint64_t ea);
uint64_t soft_ld64(struct soft_cpu *cpu, unsigned seg, uint64_t ea);
void soft_st8(struct soft_cpu *cpu, unsigned seg, uint64_t ea, uint8_t v);
void soft_st16(struct soft_cpu *cpu, unsigned seg, uint64_t ea, uint16_t v);
void soft_st32(struct soft_cpu *cpu, unsigned seg, uint64_t ea, uint32_t v);
void soft_st64(struct soft_cpu *cpu, unsigned seg, uint64_t ea, uint64_t v);

/* Any length up to a page; the whole range is checked before a byte moves. */
void soft_read(struct soft_cpu *cpu, unsigned seg, uint64_t ea, void *to, unsigned len);
void soft_write(struct soft_cpu *cpu, unsigned seg, uint64_t ea, const void *from, unsigned len);
/* Faults now if a later soft_write of this range would; sets A and D bits. */
void soft_probe_write(struct soft_cpu *cpu, unsigned seg, uint64_t ea, unsigned len);
/* The same for a read; nothing is read. */
void soft_probe_read(struct soft_cpu *cpu, unsigned seg, uint64_t ea, unsigned len);
/* The linear address of an access (segment limits and types checked). */
uint64_t soft_linear(struct soft_cpu *cpu, unsigned seg, uint64_t ea, unsigned len, bool write);

/* ---- native.c and fpu.c: x87, MMX, SSE, AVX ---- */

/*
 * Fills u->fn and u->native for an instruction that runs natively, or one of the FPU's C handlers
 * (FXSAVE ... EMMS in ops.def). The address fields of u are set already. Returns false if this
 * instruction is in no table: the caller makes it an UNIMPLEMENTED or, if the guest's CPUID hides
 * its feature, a #UD. bytes: the instruction as in memory.
 */
bool native_prepare(struct soft_cpu *cpu, const struct x86_insn *insn, const uint8_t *bytes,
                    struct uop *u);

/* Executable memory and stubs of one vCPU. -errno. fini accepts one that was never initialised. */
int native_init(struct soft_cpu *cpu, struct error *err);
void native_fini(struct soft_cpu *cpu);

#endif
