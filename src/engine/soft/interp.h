/*
 * Inside the interpreter: memory fast paths, register access, and what its files call of each
 * other. Threading as in cpu.h.
 */
#ifndef ENGINE_SOFT_INTERP_H
#define ENGINE_SOFT_INTERP_H

#include <string.h>

#include "engine/soft/cpu.h"

#define PAGE_SIZE 4096u
#define PAGE_MASK (~(uint64_t)4095)

#define soft_inline static inline __attribute__((always_inline))

/* cc bits: where LAHF and SETO leave the flags in AX */
#define CC_OF 0x0001u
#define CC_CF 0x0100u
#define CC_PF 0x0400u
#define CC_AF 0x1000u
#define CC_ZF 0x4000u
#define CC_SF 0x8000u

soft_inline uint32_t cc_to_flags(uint32_t cc)
{
    return ((cc >> 8) & 0xd5) | ((cc & CC_OF) << 11);
}

soft_inline uint32_t cc_from_flags(uint64_t fl)
{
    return (uint32_t)(((fl & 0xd5) << 8) | ((fl >> 11) & 1));
}

/* RFLAGS as the guest sees them. */
soft_inline uint64_t soft_flags(const struct soft_cpu *cpu)
{
    return (cpu->st.rflags & ~(uint64_t)X86_FL_ARITH) | cc_to_flags(cpu->cc) | X86_FL_FIXED;
}

/* ---- memory ---- */

enum soft_access { ACC_READ, ACC_WRITE, ACC_EXEC };

/*
 * Translates the page of lin for an access by this privilege and fills the TLB. Returns the host
 * address of lin, or NULL for what is not plain RAM (*gpa is set): MMIO, ROM written, code written.
 */
uint8_t *mmu_translate(struct soft_cpu *cpu, unsigned seg, uint64_t lin, enum soft_access acc,
                       enum tlb_mode mode, uint64_t *gpa);
uint64_t mmu_load_slow(struct soft_cpu *cpu, unsigned seg, uint64_t lin, unsigned size);
void mmu_store_slow(struct soft_cpu *cpu, unsigned seg, uint64_t lin, unsigned size, uint64_t v);
/* As mmu_translate for an instruction fetch at this privilege, by a small TLB of its own. */
const uint8_t *mmu_fetch(struct soft_cpu *cpu, uint64_t lin, uint64_t *gpa);
/* Instruction bytes from what is not RAM, within one page. */
void mmu_fetch_device(struct soft_cpu *cpu, uint64_t gpa, uint8_t *to, unsigned len);
void mmu_init(struct soft_cpu *cpu);
void mmu_flush_all(struct soft_cpu *cpu);
/* All but global pages. */
void mmu_flush_context(struct soft_cpu *cpu);
void mmu_flush_page(struct soft_cpu *cpu, uint64_t lin);
/* Drops the write tags of one page: it holds decoded instructions now. */
void mmu_protect_code(struct soft_cpu *cpu, uint64_t gpa_page);
/* After an instruction for which mmu_rmw_slow has given the address of code, or taken vm->split. */
void mmu_rmw_end(struct soft_cpu *cpu);
/* After changes of CPL, CR0, CR4, EFER, AC: which table data accesses use. */
void mmu_update_mode(struct soft_cpu *cpu);

/* Accesses of the processor itself to GDT, TSS and the like: supervisor, by linear address. */
uint64_t sys_load(struct soft_cpu *cpu, uint64_t lin, unsigned size);
void sys_store(struct soft_cpu *cpu, uint64_t lin, unsigned size, uint64_t v);

#ifdef __has_feature
#if __has_feature(thread_sanitizer)
#define GUEST_RACES 1
#endif
#endif

/* Races on guest memory are the guest's own: the thread sanitizer does not look. */
#ifdef GUEST_RACES
#define guest_access static __attribute__((noinline, unused, no_sanitize("thread")))
#else
#define guest_access soft_inline
#endif

guest_access uint64_t host_load(const uint8_t *p, unsigned size)
{
    switch (size) {
    case 1:
        return __atomic_load_n(p, __ATOMIC_ACQUIRE);
    case 2: {
        uint16_t v;
        __builtin_memcpy(&v, p, 2);
        return v;
    }
    case 4: {
        uint32_t v;
        __builtin_memcpy(&v, p, 4);
        return v;
    }
    default: {
        uint64_t v;
        __builtin_memcpy(&v, p, 8);
        return v;
    }
    }
}

guest_access void host_store(uint8_t *p, unsigned size, uint64_t v)
{
    switch (size) {
    case 1:
        *p = (uint8_t)v;
        break;
    case 2:
        __builtin_memcpy(p, &v, 2);
        break;
    case 4:
        __builtin_memcpy(p, &v, 4);
        break;
    case 8:
        __builtin_memcpy(p, &v, 8);
        break;
    default:
        memcpy(p, &v, size);
        break;
    }
}

soft_inline uint64_t lin_addr(struct soft_cpu *cpu, unsigned seg, uint64_t ea, unsigned size,
                              bool write)
{
    if (likely(cpu->long_code))
        return cpu->base[seg] + ea;
    return soft_linear(cpu, seg, ea, size, write);
}

soft_inline uint64_t mem_load_lin(struct soft_cpu *cpu, unsigned seg, uint64_t lin, unsigned size)
{
    const struct tlb_entry *e = &cpu->tlb[(lin >> 12) & (SOFT_TLB_SIZE - 1)];

    if (likely(tlb_hit(e->rtag, lin, size)))
        return host_load((const uint8_t *)(lin + e->addend), size);
    return mmu_load_slow(cpu, seg, lin, size);
}

soft_inline void mem_store_lin(struct soft_cpu *cpu, unsigned seg, uint64_t lin, unsigned size,
                               uint64_t v)
{
    const struct tlb_entry *e = &cpu->tlb[(lin >> 12) & (SOFT_TLB_SIZE - 1)];

    if (likely(tlb_hit(e->wtag, lin, size)))
        host_store((uint8_t *)(lin + e->addend), size, v);
    else
        mmu_store_slow(cpu, seg, lin, size, v);
}

soft_inline uint64_t mem_load(struct soft_cpu *cpu, unsigned seg, uint64_t ea, unsigned size)
{
    return mem_load_lin(cpu, seg, lin_addr(cpu, seg, ea, size, false), size);
}

soft_inline void mem_store(struct soft_cpu *cpu, unsigned seg, uint64_t ea, unsigned size,
                           uint64_t v)
{
    mem_store_lin(cpu, seg, lin_addr(cpu, seg, ea, size, true), size, v);
}

/*
 * Host address for a read-modify-write that lies in one page of plain RAM; NULL means the slow way:
 * mmu_rmw_begin has checked that the write will not fault, load and store are then done apart.
 */
uint8_t *mmu_rmw_slow(struct soft_cpu *cpu, unsigned seg, uint64_t lin, unsigned size);

soft_inline uint8_t *mem_rmw(struct soft_cpu *cpu, unsigned seg, uint64_t lin, unsigned size)
{
    const struct tlb_entry *e = &cpu->tlb[(lin >> 12) & (SOFT_TLB_SIZE - 1)];

    if (likely(tlb_hit(e->wtag, lin, size) && e->rtag == e->wtag))
        return (uint8_t *)(lin + e->addend);
    return mmu_rmw_slow(cpu, seg, lin, size);
}

/* ---- registers ---- */

/* Byte registers are named by their offset in gpr[]: 8n for the low byte, 8n + 1 for AH..BH. */
soft_inline uint64_t reg_get(const struct soft_cpu *cpu, unsigned r, unsigned size)
{
    switch (size) {
    case 1:
        return ((const uint8_t *)cpu->st.gpr)[r];
    case 2:
        return (uint16_t)cpu->st.gpr[r];
    case 4:
        return (uint32_t)cpu->st.gpr[r];
    default:
        return cpu->st.gpr[r];
    }
}

soft_inline void reg_set(struct soft_cpu *cpu, unsigned r, unsigned size, uint64_t v)
{
    switch (size) {
    case 1:
        ((uint8_t *)cpu->st.gpr)[r] = (uint8_t)v;
        break;
    case 2:
        cpu->st.gpr[r] = (cpu->st.gpr[r] & ~0xffffull) | (uint16_t)v;
        break;
    case 4:
        cpu->st.gpr[r] = (uint32_t)v;
        break;
    default:
        cpu->st.gpr[r] = v;
    }
}

/* The r/m operand of generic handlers: register u->dst if UOP_REG, else memory. */
soft_inline uint64_t rm_load(struct soft_cpu *cpu, const struct uop *u, unsigned size)
{
    if (u->flags & UOP_REG)
        return reg_get(cpu, u->dst, size);
    return mem_load(cpu, u->seg, soft_ea(cpu, u), size);
}

soft_inline void rm_store(struct soft_cpu *cpu, const struct uop *u, unsigned size, uint64_t v)
{
    if (u->flags & UOP_REG)
        reg_set(cpu, u->dst, size, v);
    else
        mem_store(cpu, u->seg, soft_ea(cpu, u), size, v);
}

soft_inline bool cond_true(const struct soft_cpu *cpu, unsigned cc)
{
    uint32_t f = cpu->cc;
    bool r;

    switch (cc >> 1) {
    case 0:
        r = (f & CC_OF) != 0;
        break;
    case 1:
        r = (f & CC_CF) != 0;
        break;
    case 2:
        r = (f & CC_ZF) != 0;
        break;
    case 3:
        r = (f & (CC_CF | CC_ZF)) != 0;
        break;
    case 4:
        r = (f & CC_SF) != 0;
        break;
    case 5:
        r = (f & CC_PF) != 0;
        break;
    case 6:
        r = ((f >> 15) ^ f) & 1;
        break;
    default:
        r = (((f >> 15) ^ f) & 1) != 0 || (f & CC_ZF) != 0;
        break;
    }
    return r != (cc & 1);
}

/* ---- stack: width by SS.B or 64-bit mode ---- */

soft_inline uint64_t sp_mask(const struct soft_cpu *cpu)
{
    return cpu->sp_size == 8 ? ~0ull : cpu->sp_size == 4 ? 0xffffffffull : 0xffffull;
}

soft_inline void sp_set(struct soft_cpu *cpu, uint64_t v)
{
    reg_set(cpu, X86_RSP, cpu->sp_size, v);
}

soft_inline void stack_push(struct soft_cpu *cpu, unsigned size, uint64_t v)
{
    uint64_t sp = (cpu->st.gpr[X86_RSP] - size) & sp_mask(cpu);

    mem_store(cpu, X86_SS, sp, size, v);
    sp_set(cpu, sp);
}

/* Reads without moving the pointer; off is in bytes. */
soft_inline uint64_t stack_peek(struct soft_cpu *cpu, unsigned size, uint64_t off)
{
    return mem_load(cpu, X86_SS, (cpu->st.gpr[X86_RSP] + off) & sp_mask(cpu), size);
}

soft_inline void stack_drop(struct soft_cpu *cpu, uint64_t bytes)
{
    sp_set(cpu, cpu->st.gpr[X86_RSP] + bytes);
}

/* ---- modes ---- */

soft_inline bool in_long_mode(const struct soft_cpu *cpu)
{
    return (cpu->st.efer & X86_EFER_LMA) != 0;
}

soft_inline bool in_protected(const struct soft_cpu *cpu)
{
    return (cpu->st.cr0 & X86_CR0_PE) != 0;
}

soft_inline bool in_vm86(const struct soft_cpu *cpu)
{
    return (cpu->st.rflags & X86_FL_VM) != 0;
}

/* Protected mode and not virtual-8086: selectors name descriptors. */
soft_inline bool has_descriptors(const struct soft_cpu *cpu)
{
    return in_protected(cpu) && !in_vm86(cpu);
}

soft_inline void need_cpl0(struct soft_cpu *cpu)
{
    if (cpu->cpl != 0)
        soft_raise_error(cpu, X86_EXC_GP, 0);
}

/* For instructions that real and virtual-8086 mode do not know. */
soft_inline void need_descriptors(struct soft_cpu *cpu)
{
    if (!has_descriptors(cpu))
        soft_raise(cpu, X86_EXC_UD);
}

/* By the paging mode: 57 bits under CR4.LA57, else 48. */
bool soft_canonical(const struct soft_cpu *cpu, uint64_t lin);
/* For what registers keep (bases, entry points): by the widest address the processor has. */
bool soft_canonical_register(const struct soft_cpu *cpu, uint64_t lin);
bool soft_has(const struct soft_cpu *cpu, enum x86_feature f);

/* Recomputes everything derived from segments, CRs, EFER, RFLAGS.VM: mode, bases, masks. */
void soft_mode_changed(struct soft_cpu *cpu);

/* Stores RFLAGS bits: the whole word; IF, TF and VM effects are taken care of. */
void soft_set_flags(struct soft_cpu *cpu, uint64_t value);

/*
 * Virtual-8086 mode with CR4.VME and IOPL below 3: FLAGS as the 8086 program sees them (IF is VIF,
 * IOPL is 3), and what it loads: #GP for TF, or for IF while an interrupt waits (VIP).
 */
uint16_t vme_image(const struct soft_cpu *cpu);
void vme_load(struct soft_cpu *cpu, uint64_t flags);

/* IF has become 1 or an event may wait: makes the run loop look. */
void soft_check_irq(struct soft_cpu *cpu);
/* The run loop must go instruction by instruction (TF, shadows, breakpoints). */
void soft_set_slow(struct soft_cpu *cpu);
/* Leave the block after the running instruction. */
soft_inline void soft_stop_block(struct soft_cpu *cpu)
{
    cpu->uop_end = cpu->uop + 1;
}

/* Looks at a segment's limit and rights for cpu->flat. */
soft_inline void soft_set_flat(struct soft_cpu *cpu, unsigned seg)
{
    const struct x86_segment *s = &cpu->st.seg[seg];
    /* data that can be written and does not expand down; code as it is */
    bool rights = seg == X86_CS || (s->attr & (X86_SEG_UNUSABLE | 0xe)) == 2;

    if (rights && s->limit == UINT32_MAX)
        cpu->flat |= (uint8_t)(1u << seg);
    else
        cpu->flat &= (uint8_t) ~(1u << seg);
}

/* ---- soft.c: runs a block from st.rip; in *cpu where it stopped ---- */
void soft_run_block(struct soft_cpu *cpu, struct soft_block *k);
/* The block at st.rip, by the cache of jumps. May fault (fetch). */
struct soft_block *soft_next_block(struct soft_cpu *cpu);
/* After a fault jumped out: RIP and the counts are those before the instruction. */
void soft_rewind(struct soft_cpu *cpu);

/* ---- seg.c ---- */
struct descriptor {
    uint32_t lo, hi;
};
/* Reads a descriptor; false if the selector is beyond its table. */
bool desc_read(struct soft_cpu *cpu, uint16_t sel, struct descriptor *out, uint64_t *lin);
void desc_to_segment(struct descriptor d, uint16_t sel, struct x86_segment *out);
void desc_mark_accessed(struct soft_cpu *cpu, struct descriptor *d, uint64_t lin);
/* MOV to a segment register and POP: full checks, #GP/#NP/#SS with the selector. */
void seg_load(struct soft_cpu *cpu, unsigned seg, uint16_t sel);
/* Loads as real mode does. */
void seg_load_real(struct soft_cpu *cpu, unsigned seg, uint16_t sel);
void seg_lldt(struct soft_cpu *cpu, uint16_t sel);
void seg_ltr(struct soft_cpu *cpu, uint16_t sel);
void far_jump(struct soft_cpu *cpu, uint16_t sel, uint64_t off, unsigned osize);
void far_call(struct soft_cpu *cpu, uint16_t sel, uint64_t off, unsigned osize);
void far_return(struct soft_cpu *cpu, unsigned osize, unsigned drop);
void soft_iret(struct soft_cpu *cpu, unsigned osize);
/* SS:SP of a more privileged level from the TSS. */
void tss_stack(struct soft_cpu *cpu, unsigned cpl, uint16_t *ss, uint64_t *sp);
/* #SS(error) unless n values of this size fit below sp on a stack segment; before any is written.
 */
void stack_room(struct soft_cpu *cpu, const struct x86_segment *ss, uint64_t sp, unsigned size,
                unsigned n, uint32_t error);
void set_cpl(struct soft_cpu *cpu, unsigned cpl);
/* 64-bit flat code/stack segments as SYSCALL and friends load them. */
void seg_flat_code(struct soft_cpu *cpu, uint16_t sel, unsigned dpl, bool l);
void seg_flat_stack(struct soft_cpu *cpu, uint16_t sel, unsigned dpl);

/* ---- task.c ---- */
enum task_cause { TASK_JUMP, TASK_CALL, TASK_IRET, TASK_EVENT };
/* Far JMP or CALL to a TSS or a task gate: d is its descriptor. Not in long mode. */
void task_jump(struct soft_cpu *cpu, uint16_t sel, struct descriptor d, bool call);
/* IRET with NT = 1: back to the task that the TSS's link names. */
void task_return(struct soft_cpu *cpu);
/* An event through a task gate to this TSS; flags: what the old task's EFLAGS become. */
void task_event(struct soft_cpu *cpu, uint16_t sel, uint64_t flags, bool has_error, uint32_t error);

/* ---- except.c ---- */
enum event_type { EV_EXTERNAL = 0, EV_NMI = 2, EV_EXCEPTION = 3, EV_SOFT_INT = 4, EV_SOFT_EXC = 6 };
/*
 * Delivers an event through the IDT from the current state; st.rip is what is pushed. May fault
 * (longjmp) with cpu->delivering set.
 */
void event_deliver(struct soft_cpu *cpu, uint8_t vector, enum event_type type, bool has_error,
                   uint32_t error);
/* A fault came: what to deliver now (double fault rules). false: shutdown. */
bool event_escalate(struct soft_cpu *cpu);
void raise_pf(struct soft_cpu *cpu, uint64_t lin, uint32_t error) __attribute__((noreturn));
void raise_db(struct soft_cpu *cpu, uint64_t dr6) __attribute__((noreturn));

/* ---- block.c ---- */
struct soft_block {
    struct soft_block *hash_next;
    struct soft_block *page_next; /* blocks of the same physical page */
    uint64_t pa;
    uint16_t bytes;
    uint16_t count;
    uint8_t mode; /* soft_cpu's block_mode */
    bool dead;    /* invalidated while it ran; freed when left */
    struct uop uop[];
};
int blocks_init(struct soft_cpu *cpu, struct error *err);
void blocks_fini(struct soft_cpu *cpu);
/*
 * The block at the current CS:RIP, decoded if need be; may fault (fetch, #UD comes when it runs).
 * single: a block of one instruction, outside the cache.
 */
struct soft_block *block_get(struct soft_cpu *cpu, bool single);
/* Bytes of guest RAM changed: forget what was decoded from them. */
void block_written(struct soft_cpu *cpu, uint64_t gpa, unsigned len);
/* Forgets a page that another has written; its mark is not ours to take. */
void block_flush_page(struct soft_cpu *cpu, uint64_t gpa_page);
void block_flush_all(struct soft_cpu *cpu);
/*
 * Marks a page before its bytes are decoded: every write after this is noticed. false: not yet,
 * since another vCPU may write there still; what is decoded now is good for one use.
 */
bool block_protect(struct soft_cpu *cpu, uint64_t gpa_page);
/*
 * Another vCPU may write the bytes while they are decoded: those of a page from `from` to `to`,
 * each aligned word read once, so that none is half of one instruction and half of another. The
 * address of such a copy's byte `from`, good until the next; with one vCPU that in the page itself.
 */
const uint8_t *soft_code_copy(struct soft_cpu *cpu, const uint8_t *at, unsigned from, unsigned to);
/*
 * The instruction at code[0..avail), `off` bytes from what block_rip will be; what cannot be
 * decoded becomes one that faults.
 */
void block_make_uop(struct soft_cpu *cpu, const uint8_t *code, unsigned avail, unsigned off,
                    struct uop *u);

/*
 * To the vCPUs of these bits, but oneself: forget what they decoded from this page. They act on it
 * at their next look around.
 */
void soft_tell_written(struct soft_cpu *cpu, uint64_t gpa_page, uint32_t who);
/*
 * To those: write to it no more without telling, for it holds decoded instructions (tell: they have
 * not been asked yet). true: none of them can write unnoticed any more.
 */
bool soft_settle(struct soft_cpu *cpu, uint64_t gpa_page, uint32_t who, bool tell);

/* ---- build.c: decoded record → uop ---- */
void uop_build(struct soft_cpu *cpu, const struct x86_insn *insn, const uint8_t *bytes,
               struct uop *u);

/* Handler families: each fills u->fn for its operations, false if op is not its own. */
bool build_alu(const struct x86_insn *insn, struct uop *u);
bool build_bits(const struct x86_insn *insn, struct uop *u);
bool build_data(const struct x86_insn *insn, struct uop *u);
bool build_control(const struct x86_insn *insn, struct uop *u);
bool build_string(const struct x86_insn *insn, struct uop *u);
bool build_system(const struct x86_insn *insn, struct uop *u);
bool build_table(const struct x86_insn *insn, struct uop *u);
bool build_port(const struct x86_insn *insn, struct uop *u);

/* ---- msr.c ---- */
#define MISC_ENABLE_LIMIT_CPUID (1ull << 22)
#define MISC_ENABLE_XD_OFF (1ull << 34)
#define DEBUGCTL_BTF 2u /* TF traps on branches only */
void msr_read(struct soft_cpu *cpu, uint32_t index, uint64_t *value);
void msr_write(struct soft_cpu *cpu, uint32_t index, uint64_t value);
uint64_t soft_guest_tsc(const struct soft_cpu *cpu);
void cr_write(struct soft_cpu *cpu, unsigned cr, uint64_t value);
/* PKRU has changed: what the TLB holds was checked against the old one. */
void soft_pkru_changed(struct soft_cpu *cpu);
uint64_t cr_read(struct soft_cpu *cpu, unsigned cr);

/* ---- ports ---- */
uint32_t port_in(struct soft_cpu *cpu, uint16_t port, unsigned size);
void port_out(struct soft_cpu *cpu, uint16_t port, unsigned size, uint32_t v);
/* #GP unless CPL <= IOPL or the TSS's bitmap allows. */
void port_check(struct soft_cpu *cpu, uint16_t port, unsigned size);

/* Index 0-3 of an operand size 1, 2, 4, 8. */
soft_inline unsigned size_index(unsigned size)
{
    return size == 1 ? 0u : size == 2 ? 1u : size == 4 ? 2u : 3u;
}

#endif
