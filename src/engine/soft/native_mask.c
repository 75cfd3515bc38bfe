/*
 * Vector accesses whose elements each stand alone: gathers, masked moves. An element that the mask
 * leaves out is not touched and cannot fault.
 */
#include <string.h>

#include "engine/soft/native.h"

static void ymm_get(const struct soft_cpu *cpu, unsigned reg, uint8_t out[32])
{
    memcpy(out, cpu->st.xsave + FX_XMM + 16u * reg, 16);
    memcpy(out + 16, cpu->st.xsave + X86_XSAVE_YMM + 16u * reg, 16);
}

static void ymm_put(struct soft_cpu *cpu, unsigned reg, const uint8_t in[32])
{
    memcpy(cpu->st.xsave + FX_XMM + 16u * reg, in, 16);
    memcpy(cpu->st.xsave + X86_XSAVE_YMM + 16u * reg, in + 16, 16);
}

static bool selected(const uint8_t *mask, unsigned element, unsigned size)
{
    return (mask[(element + 1) * size - 1] & 0x80u) != 0;
}

static uint64_t wrap(uint64_t ea, unsigned asize)
{
    if (asize == 8)
        return ea;
    return asize == 4 ? (uint32_t)ea : (uint16_t)ea;
}

/* dst: data register; src: mask register; cc: element size; imm: vector length */
static void vmaskmov_load(struct soft_cpu *cpu, const struct uop *u)
{
    uint8_t mask[32], data[32] = {0};
    unsigned size = u->cc, i;
    uint64_t ea;

    native_need_avx(cpu);
    ea = soft_ea(cpu, u);
    ymm_get(cpu, u->src, mask);
    for (i = 0; i < u->imm / size; i++)
        if (selected(mask, i, size))
            soft_read(cpu, u->seg, wrap(ea + (uint64_t)i * size, u->asize), data + i * size, size);
    ymm_put(cpu, u->dst, data);
    native_wide_written(cpu, u->dst);
    fx_touch(cpu, XFEATURE_SSE | XFEATURE_YMM);
}

static void vmaskmov_store(struct soft_cpu *cpu, const struct uop *u)
{
    uint8_t mask[32], data[32];
    unsigned size = u->cc, i;
    uint64_t ea;

    native_need_avx(cpu);
    ea = soft_ea(cpu, u);
    ymm_get(cpu, u->src, mask);
    ymm_get(cpu, u->dst, data);
    for (i = 0; i < u->imm / size; i++)
        if (selected(mask, i, size))
            soft_probe_write(cpu, u->seg, wrap(ea + (uint64_t)i * size, u->asize), size);
    for (i = 0; i < u->imm / size; i++)
        if (selected(mask, i, size))
            soft_write(cpu, u->seg, wrap(ea + (uint64_t)i * size, u->asize), data + i * size, size);
}

static void mask_bytes(struct soft_cpu *cpu, const struct uop *u, const uint8_t *data,
                       const uint8_t *mask, unsigned count)
{
    uint64_t ea = cpu->st.gpr[X86_RDI];
    unsigned i;

    for (i = 0; i < count; i++)
        if (selected(mask, i, 1))
            soft_probe_write(cpu, u->seg, wrap(ea + i, u->asize), 1);
    for (i = 0; i < count; i++)
        if (selected(mask, i, 1))
            soft_st8(cpu, u->seg, wrap(ea + i, u->asize), data[i]);
}

static void maskmovdqu(struct soft_cpu *cpu, const struct uop *u)
{
    if (u->cc != 0)
        native_need_avx(cpu);
    else
        native_need_sse(cpu);
    mask_bytes(cpu, u, cpu->st.xsave + FX_XMM + 16u * u->dst, cpu->st.xsave + FX_XMM + 16u * u->src,
               16);
}

static void maskmovq(struct soft_cpu *cpu, const struct uop *u)
{
    native_need_mmx(cpu);
    /* Like every MMX instruction: TOP 0, all registers in use; even if a store faults. */
    native_set_fsw(cpu, fx_get16(cpu, FX_FSW) & (uint16_t)~FSW_TOP);
    cpu->st.xsave[FX_FTW] = 0xff;
    fx_touch(cpu, XFEATURE_X87);
    mask_bytes(cpu, u, cpu->st.xsave + FX_ST + 16u * (u->dst & 7u),
               cpu->st.xsave + FX_ST + 16u * (u->src & 7u), 8);
}

/* Stores element bytes at off of a register from the same place in whole. */
static void put_element(struct soft_cpu *cpu, unsigned reg, unsigned off, const uint8_t *whole,
                        unsigned size)
{
    unsigned half = off < 16 ? FX_XMM : X86_XSAVE_YMM;

    memcpy(cpu->st.xsave + half + 16u * reg + (off & 15u), whole + off, size);
}

/* dst: data; src: mask; index: vector; cc: element size; imm: count | index size << 8 */
static void gather(struct soft_cpu *cpu, const struct uop *u)
{
    static const uint8_t zero[32];
    uint8_t mask[32], data[32], index[32];
    unsigned size = u->cc, count = u->imm & 0xffu, isize = u->imm >> 8 & 0xffu, i;

    native_need_avx(cpu);
    ymm_get(cpu, u->src, mask);
    ymm_get(cpu, u->dst, data);
    ymm_get(cpu, u->index, index);
    memset(mask + count * size, 0, sizeof(mask) - count * size);
    memset(data + count * size, 0, sizeof(data) - count * size);
    fx_touch(cpu, XFEATURE_SSE | XFEATURE_YMM);
    for (i = 0; i < count; i++) {
        uint64_t ea = (uint64_t)u->disp;
        int64_t k;

        if (selected(mask, i, size)) {
            if (isize == 4) {
                int32_t k32;

                memcpy(&k32, index + 4u * i, 4);
                k = k32;
            } else {
                memcpy(&k, index + 8u * i, 8);
            }
            if (u->base != X86_REG_NONE)
                ea += cpu->st.gpr[u->base];
            ea += (uint64_t)k << u->shift;
            soft_read(cpu, u->seg, wrap(ea, u->asize), data + i * size, size);
            put_element(cpu, u->dst, i * size, data, size);
        }
        /* The next element may fault: what is done must not be done again. */
        put_element(cpu, u->src, i * size, zero, size);
    }
    memset(mask, 0, sizeof(mask));
    ymm_put(cpu, u->dst, data);
    ymm_put(cpu, u->src, mask);
    native_wide_written(cpu, u->dst);
    native_wide_written(cpu, u->src);
}

/* Register numbers have three bits outside 64-bit mode, whatever VEX says. */
static uint8_t number(const struct x86_insn *insn, unsigned reg)
{
    return (uint8_t)(reg & (insn->mode == X86_MODE_64 ? 15u : 7u));
}

static uop_fn prepare_gather(const struct x86_insn *insn, struct uop *u, unsigned isize,
                             unsigned size)
{
    unsigned wide = isize > size ? isize : size;

    u->dst = number(insn, insn->reg);
    u->src = number(insn, insn->vvvv);
    u->index = number(insn, insn->index);
    u->base = insn->base;
    u->disp = insn->disp;
    u->shift = (uint8_t)__builtin_ctz(insn->scale);
    u->cc = (uint8_t)size;
    u->imm = insn->vl / wide | isize << 8;
    return gather;
}

static uop_fn prepare_vmaskmov(const struct x86_insn *insn, struct uop *u, unsigned size)
{
    u->dst = number(insn, insn->reg);
    u->src = number(insn, insn->vvvv);
    u->cc = (uint8_t)size;
    u->imm = insn->vl;
    return insn->opnd[0].kind == X86_OPND_MEM ? vmaskmov_store : vmaskmov_load;
}

uop_fn native_mask_handler(const struct x86_insn *insn, struct uop *u)
{
    if (insn->enc == X86_ENC_EVEX)
        return NULL;
    switch (insn->op) {
    case X86_MASKMOVQ:
    case X86_MASKMOVDQU:
    case X86_VMASKMOVDQU:
        u->dst = insn->reg;
        u->src = number(insn, insn->rm);
        u->cc = insn->enc == X86_ENC_VEX;
        return insn->op == X86_MASKMOVQ ? maskmovq : maskmovdqu;
    case X86_VMASKMOVPS:
    case X86_VPMASKMOVD:
        return prepare_vmaskmov(insn, u, 4);
    case X86_VMASKMOVPD:
    case X86_VPMASKMOVQ:
        return prepare_vmaskmov(insn, u, 8);
    case X86_VGATHERDPS:
    case X86_VPGATHERDD:
        return prepare_gather(insn, u, 4, 4);
    case X86_VGATHERDPD:
    case X86_VPGATHERDQ:
        return prepare_gather(insn, u, 4, 8);
    case X86_VGATHERQPS:
    case X86_VPGATHERQD:
        return prepare_gather(insn, u, 8, 4);
    case X86_VGATHERQPD:
    case X86_VPGATHERQQ:
        return prepare_gather(insn, u, 8, 8);
    default:
        return NULL;
    }
}
