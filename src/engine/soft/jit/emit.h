/*
 * Writing host instructions, byte by byte. The caller sees to it that there is room; nothing here
 * checks. Register numbers are the processor's (0 RAX ... 15 R15). Pure functions on the caller's
 * struct; any thread.
 */
#ifndef ENGINE_SOFT_JIT_EMIT_H
#define ENGINE_SOFT_JIT_EMIT_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum host_reg {
    H_RAX,
    H_RCX,
    H_RDX,
    H_RBX,
    H_RSP,
    H_RBP,
    H_RSI,
    H_RDI,
    H_R8,
    H_R9,
    H_R10,
    H_R11,
    H_R12,
    H_R13,
    H_R14,
    H_R15,
    H_NONE = 0xff
};

/* Condition codes as in the opcodes of Jcc. */
enum { CC_E = 4, CC_NE = 5, CC_B = 2, CC_AE = 3, CC_BE = 6, CC_A = 7, CC_S = 8, CC_NS = 9 };

struct emit {
    uint8_t *p; /* where the next byte goes, in the writable view */
};

/* An address: base + index * 2^shift + disp; base or index may be H_NONE. */
struct mem {
    uint8_t base, index, shift;
    int32_t disp;
};

static inline void put8(struct emit *e, unsigned b)
{
    *e->p++ = (uint8_t)b;
}

static inline void put32(struct emit *e, uint32_t v)
{
    memcpy(e->p, &v, 4);
    e->p += 4;
}

static inline void put64(struct emit *e, uint64_t v)
{
    memcpy(e->p, &v, 8);
    e->p += 8;
}

static inline struct mem mem_at(unsigned base, int32_t disp)
{
    return (struct mem){.base = (uint8_t)base, .index = H_NONE, .disp = disp};
}

/* A field of the vCPU, whose address is in RSP. */
static inline struct mem mem_cpu(size_t offset)
{
    return mem_at(H_RSP, (int32_t)offset);
}

/* REX for a register field and an address, if one is needed. */
static inline void put_rex_mem(struct emit *e, bool w, unsigned reg, struct mem m)
{
    unsigned rex = (w ? 8u : 0) | (reg >= 8 ? 4u : 0) |
                   (m.index != H_NONE && m.index >= 8 ? 2u : 0) |
                   (m.base != H_NONE && m.base >= 8 ? 1u : 0);

    if (rex != 0)
        put8(e, 0x40 | rex);
}

/* ModRM, SIB and displacement. */
static inline void put_modrm_mem(struct emit *e, unsigned reg, struct mem m)
{
    unsigned r = (reg & 7) << 3, mod;

    if (m.base == H_NONE) {
        put8(e, r | 4);
        put8(e, (unsigned)m.shift << 6 | (m.index == H_NONE ? 4u : m.index & 7u) << 3 | 5);
        put32(e, (uint32_t)m.disp);
        return;
    }
    mod = m.disp == 0 && (m.base & 7) != 5 ? 0 : m.disp >= -128 && m.disp <= 127 ? 1 : 2;
    if (m.index != H_NONE || (m.base & 7) == 4) {
        put8(e, mod << 6 | r | 4);
        put8(e,
             (unsigned)m.shift << 6 | (m.index == H_NONE ? 4u : m.index & 7u) << 3 | (m.base & 7u));
    } else {
        put8(e, mod << 6 | r | (m.base & 7u));
    }
    if (mod == 1)
        put8(e, (uint8_t)m.disp);
    else if (mod == 2)
        put32(e, (uint32_t)m.disp);
}

/* opcode reg, [mem] with a one-byte opcode. */
static inline void put_op_mem(struct emit *e, bool w, unsigned opcode, unsigned reg, struct mem m)
{
    put_rex_mem(e, w, reg, m);
    put8(e, opcode);
    put_modrm_mem(e, reg, m);
}

/* opcode rm, reg with a one-byte opcode. */
static inline void put_op_reg(struct emit *e, bool w, unsigned opcode, unsigned reg, unsigned rm)
{
    unsigned rex = (w ? 8u : 0) | (reg >= 8 ? 4u : 0) | (rm >= 8 ? 1u : 0);

    if (rex != 0)
        put8(e, 0x40 | rex);
    put8(e, opcode);
    put8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

static inline void put_mov(struct emit *e, unsigned to, unsigned from)
{
    put_op_reg(e, true, 0x89, from, to);
}

static inline void put_mov32(struct emit *e, unsigned to, unsigned from)
{
    put_op_reg(e, false, 0x89, from, to);
}

static inline void put_load(struct emit *e, unsigned to, struct mem m)
{
    put_op_mem(e, true, 0x8b, to, m);
}

static inline void put_store(struct emit *e, struct mem m, unsigned from)
{
    put_op_mem(e, true, 0x89, from, m);
}

static inline void put_lea(struct emit *e, unsigned to, struct mem m)
{
    put_op_mem(e, true, 0x8d, to, m);
}

static inline void put_mov_imm32(struct emit *e, unsigned to, uint32_t v)
{
    if (to >= 8)
        put8(e, 0x41);
    put8(e, 0xb8 | (to & 7));
    put32(e, v);
}

static inline void put_mov_imm64(struct emit *e, unsigned to, uint64_t v)
{
    if (v == (uint32_t)v) {
        put_mov_imm32(e, to, (uint32_t)v);
        return;
    }
    put8(e, to >= 8 ? 0x49 : 0x48);
    if ((uint64_t)(int32_t)(uint32_t)v == v) {
        put8(e, 0xc7);
        put8(e, 0xc0 | (to & 7));
        put32(e, (uint32_t)v);
        return;
    }
    put8(e, 0xb8 | (to & 7));
    put64(e, v);
}

/* op reg, imm: ext is the ModRM extension of group 1 (0 add, 4 and, 5 sub, 7 cmp). */
static inline void put_alu_imm(struct emit *e, bool w, unsigned ext, unsigned reg, int32_t v)
{
    bool small = v >= -128 && v <= 127;

    put_op_reg(e, w, small ? 0x83 : 0x81, ext, reg);
    if (small)
        put8(e, (uint8_t)v);
    else
        put32(e, (uint32_t)v);
}

/* cmp byte [m], imm */
static inline void put_cmp8_mem(struct emit *e, struct mem m, unsigned imm)
{
    put_op_mem(e, false, 0x80, 7, m);
    put8(e, imm);
}

/* A jump whose target is set later: returns the place of its displacement. */
static inline uint8_t *put_jcc(struct emit *e, unsigned cc)
{
    put8(e, 0x0f);
    put8(e, 0x80 | cc);
    put32(e, 0);
    return e->p - 4;
}

static inline uint8_t *put_jmp(struct emit *e)
{
    put8(e, 0xe9);
    put32(e, 0);
    return e->p - 4;
}

static inline uint8_t *put_call(struct emit *e)
{
    put8(e, 0xe8);
    put32(e, 0);
    return e->p - 4;
}

static inline void set_target(uint8_t *at, const uint8_t *target)
{
    int32_t rel = (int32_t)(target - (at + 4));

    memcpy(at, &rel, 4);
}

static inline void put_jmp_to(struct emit *e, const uint8_t *target)
{
    set_target(put_jmp(e), target);
}

static inline void put_jmp_mem(struct emit *e, struct mem m)
{
    put_op_mem(e, false, 0xff, 4, m);
}

#endif
