#include "engine/soft/alu.h"

/* Multiplication and division, bit operations, BMI, decimal adjustment, wide compare-exchange. */

/* ---- multiplication ---- */

/* One-operand MUL and IMUL: rDX:rAX = rAX * r/m (AX = AL * r/m8) */
#define DEF_MUL1(name, insn, n, type, sfx, reg)                                                    \
    static void name##_##n(struct soft_cpu *cpu, const struct uop *u)                              \
    {                                                                                              \
        type a = (type)reg_get(cpu, X86_RAX, n), b = (type)rm_load(cpu, u, n), d;                  \
        uint8_t of, ah;                                                                            \
        __asm__(insn sfx " %[b]\n\tmov %%rax, %%rcx\n\tlahf\n\tseto %[of]\n\tmov %%ah, %[ah]\n\t"  \
                         "mov %%rcx, %%rax"                                                        \
                : "+a"(a), "=&d"(d), [of] "=&q"(of), [ah] "=&Q"(ah)                                \
                : [b] "r"(b)                                                                       \
                : "cc", "rcx");                                                                    \
        cpu->cc = (uint32_t)ah << 8 | of;                                                          \
        reg_set(cpu, X86_RAX, n, a);                                                               \
        reg_set(cpu, X86_RDX, n, d);                                                               \
    }
#define DEF_MUL1_BYTE(name, insn)                                                                  \
    static void name##_1(struct soft_cpu *cpu, const struct uop *u)                                \
    {                                                                                              \
        uint16_t a = (uint16_t)reg_get(cpu, 8 * X86_RAX, 1);                                       \
        uint8_t b = (uint8_t)rm_load(cpu, u, 1), of, ah;                                           \
        __asm__(insn "b %[b]\n\tmov %%eax, %%ecx\n\tlahf\n\tseto %[of]\n\tmov %%ah, %[ah]\n\t"     \
                     "mov %%ecx, %%eax"                                                            \
                : "+a"(a), [of] "=&q"(of), [ah] "=&Q"(ah)                                          \
                : [b] "q"(b)                                                                       \
                : "cc", "rcx");                                                                    \
        cpu->cc = (uint32_t)ah << 8 | of;                                                          \
        reg_set(cpu, X86_RAX, 2, a);                                                               \
    }
DEF_MUL1_BYTE(mul, "mul")
DEF_MUL1_BYTE(imul, "imul")
DEF_MUL1(mul, "mul", 2, uint16_t, "w", "r")
DEF_MUL1(mul, "mul", 4, uint32_t, "l", "r")
DEF_MUL1(mul, "mul", 8, uint64_t, "q", "r")
DEF_MUL1(imul, "imul", 2, uint16_t, "w", "r")
DEF_MUL1(imul, "imul", 4, uint32_t, "l", "r")
DEF_MUL1(imul, "imul", 8, uint64_t, "q", "r")

/* Two and three operands: dst = a * b, truncated */
#define DEF_IMUL2(n, type, sfx, reg)                                                               \
    ALU_BINARY(imul, "imul", n, type, sfx, reg)                                                    \
    static void imul2_##n(struct soft_cpu *cpu, const struct uop *u)                               \
    {                                                                                              \
        type b = (type)(u->flags & UOP_REG ? reg_get(cpu, u->src, n)                               \
                                           : mem_load(cpu, u->seg, soft_ea(cpu, u), n));           \
        reg_set(cpu, u->dst, n, alu_imul_##n(cpu, (type)reg_get(cpu, u->dst, n), b));              \
    }                                                                                              \
    static void imul3_##n(struct soft_cpu *cpu, const struct uop *u)                               \
    {                                                                                              \
        type b = (type)(u->flags & UOP_REG ? reg_get(cpu, u->src, n)                               \
                                           : mem_load(cpu, u->seg, soft_ea(cpu, u), n));           \
        reg_set(cpu, u->dst, n, alu_imul_##n(cpu, b, (type)u->imm));                               \
    }
DEF_IMUL2(2, uint16_t, "w", "r")
DEF_IMUL2(4, uint32_t, "l", "r")
DEF_IMUL2(8, uint64_t, "q", "r")

/* ---- division: flags are undefined and stay ---- */

static void op_div(struct soft_cpu *cpu, const struct uop *u)
{
    unsigned n = u->osize;
    uint64_t d = rm_load(cpu, u, n);
    unsigned __int128 num, q;

    if (n == 1)
        num = (uint16_t)cpu->st.gpr[X86_RAX];
    else
        num = (unsigned __int128)reg_get(cpu, X86_RDX, n) << (8 * n) | reg_get(cpu, X86_RAX, n);
    if (d == 0)
        soft_raise(cpu, X86_EXC_DE);
    q = num / d;
    if (q > bytes_mask(n))
        soft_raise(cpu, X86_EXC_DE);
    if (n == 1) {
        reg_set(cpu, X86_RAX, 2, (uint64_t)(num % d) << 8 | (uint64_t)q);
    } else {
        reg_set(cpu, X86_RAX, n, (uint64_t)q);
        reg_set(cpu, X86_RDX, n, (uint64_t)(num % d));
    }
}

static int64_t sign_extend(uint64_t v, unsigned size)
{
    return (int64_t)(v << (64 - 8 * size)) >> (64 - 8 * size);
}

static void op_idiv(struct soft_cpu *cpu, const struct uop *u)
{
    unsigned n = u->osize;
    int64_t d = sign_extend(rm_load(cpu, u, n), n);
    __int128 num, q;

    if (n == 1)
        num = (int16_t)cpu->st.gpr[X86_RAX];
    else
        num = (__int128)((unsigned __int128)(__int128)sign_extend(reg_get(cpu, X86_RDX, n), n)
                             << (8 * n) |
                         reg_get(cpu, X86_RAX, n));
    if (d == 0 || (d == -1 && num == (__int128)((unsigned __int128)1 << 127)))
        soft_raise(cpu, X86_EXC_DE);
    q = num / d;
    if (q != sign_extend((uint64_t)q, n))
        soft_raise(cpu, X86_EXC_DE);
    if (n == 1) {
        reg_set(cpu, X86_RAX, 2, (uint64_t)(num % d) << 8 | (uint8_t)q);
    } else {
        reg_set(cpu, X86_RAX, n, (uint64_t)q);
        reg_set(cpu, X86_RDX, n, (uint64_t)(num % d));
    }
}

/* ---- double shifts ---- */

#define DEF_DSHIFT(name, n, type, sfx)                                                             \
    static type do_##name##_##n(struct soft_cpu *cpu, type a, type b, uint8_t count)               \
    {                                                                                              \
        uint16_t f;                                                                                \
        __asm__(#name sfx " %%cl, %[b], %[a]\n\t" ALU_FLAGS                                        \
                : [a] "+r"(a), "=&a"(f)                                                            \
                : [b] "r"(b), "c"(count)                                                           \
                : "cc");                                                                           \
        cpu->cc = f;                                                                               \
        return a;                                                                                  \
    }
DEF_DSHIFT(shld, 2, uint16_t, "w")
DEF_DSHIFT(shld, 4, uint32_t, "l")
DEF_DSHIFT(shld, 8, uint64_t, "q")
DEF_DSHIFT(shrd, 2, uint16_t, "w")
DEF_DSHIFT(shrd, 4, uint32_t, "l")
DEF_DSHIFT(shrd, 8, uint64_t, "q")

/* cc: 1 = right; the count is CL if rep is set (no string instruction: the field is free) */
static void op_dshift(struct soft_cpu *cpu, const struct uop *u)
{
    unsigned n = u->osize;
    uint8_t count = (uint8_t)(u->rep ? cpu->st.gpr[X86_RCX] : u->imm) & (n == 8 ? 63 : 31);
    uint64_t b = reg_get(cpu, u->src, n), a;

    if (!(u->flags & UOP_REG))
        soft_probe_write(cpu, u->seg, soft_ea(cpu, u), n);
    a = rm_load(cpu, u, n);
    if (count != 0) {
        if (u->cc)
            a = n == 2   ? do_shrd_2(cpu, (uint16_t)a, (uint16_t)b, count)
                : n == 4 ? do_shrd_4(cpu, (uint32_t)a, (uint32_t)b, count)
                         : do_shrd_8(cpu, a, b, count);
        else
            a = n == 2   ? do_shld_2(cpu, (uint16_t)a, (uint16_t)b, count)
                : n == 4 ? do_shld_4(cpu, (uint32_t)a, (uint32_t)b, count)
                         : do_shld_8(cpu, a, b, count);
    }
    rm_store(cpu, u, n, a);
}

/* ---- bit tests: cc 0 BT, 1 BTS, 2 BTR, 3 BTC. Only CF is defined; the others stay. ---- */

static uint64_t bit_change(struct soft_cpu *cpu, uint64_t v, uint64_t bit, unsigned kind)
{
    cpu->cc = (cpu->cc & ~CC_CF) | (v & bit ? CC_CF : 0);
    switch (kind) {
    case 1:
        return v | bit;
    case 2:
        return v & ~bit;
    case 3:
        return v ^ bit;
    default:
        return v;
    }
}

static bool cas_sized(uint8_t *p, unsigned n, uint64_t *expect, uint64_t want)
{
    bool ok;

    if (n == 2) {
        uint16_t e = (uint16_t)*expect;
        ok = alu_cas_2(p, &e, (uint16_t)want);
        *expect = e;
    } else if (n == 4) {
        uint32_t e = (uint32_t)*expect;
        ok = alu_cas_4(p, &e, (uint32_t)want);
        *expect = e;
    } else {
        ok = alu_cas_8(p, expect, want);
    }
    return ok;
}

static void op_bt_reg(struct soft_cpu *cpu, const struct uop *u)
{
    unsigned n = u->osize;
    uint64_t index = u->rep ? u->imm : reg_get(cpu, u->src, n);
    uint64_t bit = 1ull << (index & (8 * n - 1));
    uint64_t v = bit_change(cpu, reg_get(cpu, u->dst, n), bit, u->cc);

    if (u->cc != 0)
        reg_set(cpu, u->dst, n, v);
}

/* A register index reaches beyond the operand, to either side. rep: the index is immediate. */
static void op_bt_mem(struct soft_cpu *cpu, const struct uop *u)
{
    unsigned n = u->osize, log = n == 2 ? 4 : n == 4 ? 5 : 6;
    int64_t index =
        u->rep ? (int64_t)(u->imm & (8 * n - 1)) : sign_extend(reg_get(cpu, u->src, n), n);
    uint64_t ea = soft_ea(cpu, u) + (uint64_t)(index >> log) * n;
    uint64_t bit = 1ull << (index & (8 * n - 1)), lin, old, v;
    uint8_t *p;

    if (u->asize != 8)
        ea = u->asize == 4 ? (uint32_t)ea : (uint16_t)ea;
    if (u->cc == 0) {
        bit_change(cpu, mem_load(cpu, u->seg, ea, n), bit, 0);
        return;
    }
    lin = lin_addr(cpu, u->seg, ea, n, true);
    p = mem_rmw(cpu, u->seg, lin, n);
    if (p == NULL) {
        old = mem_load_lin(cpu, u->seg, lin, n);
        mem_store_lin(cpu, u->seg, lin, n, bit_change(cpu, old, bit, u->cc));
        return;
    }
    old = host_load(p, n);
    v = bit_change(cpu, old, bit, u->cc);
    if (!(u->flags & UOP_LOCK)) {
        host_store(p, n, v);
        return;
    }
    while (!cas_sized(p, n, &old, v))
        v = bit_change(cpu, old, bit, u->cc);
}

/* ---- scans and counts: the source is dst of a register form's second operand ---- */

static uint64_t src_load(struct soft_cpu *cpu, const struct uop *u, unsigned n)
{
    return u->flags & UOP_REG ? reg_get(cpu, u->src, n) : mem_load(cpu, u->seg, soft_ea(cpu, u), n);
}

/* A zero source leaves the destination of BSF and BSR alone; only ZF is defined. */
static void op_bsf(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t v = src_load(cpu, u, u->osize);

    cpu->cc = (cpu->cc & ~CC_ZF) | (v == 0 ? CC_ZF : 0);
    if (v != 0)
        reg_set(cpu, u->dst, u->osize, (uint64_t)__builtin_ctzll(v));
}

static void op_bsr(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t v = src_load(cpu, u, u->osize);

    cpu->cc = (cpu->cc & ~CC_ZF) | (v == 0 ? CC_ZF : 0);
    if (v != 0)
        reg_set(cpu, u->dst, u->osize, 63u - (uint64_t)__builtin_clzll(v));
}

static void op_tzcnt(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t v = src_load(cpu, u, u->osize);
    uint64_t r = v == 0 ? 8u * u->osize : (uint64_t)__builtin_ctzll(v);

    cpu->cc = (cpu->cc & ~(CC_ZF | CC_CF)) | (v == 0 ? CC_CF : 0) | (r == 0 ? CC_ZF : 0);
    reg_set(cpu, u->dst, u->osize, r);
}

static void op_lzcnt(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t v = src_load(cpu, u, u->osize);
    uint64_t r = v == 0 ? 8u * u->osize : (uint64_t)__builtin_clzll(v) - (64 - 8u * u->osize);

    cpu->cc = (cpu->cc & ~(CC_ZF | CC_CF)) | (v == 0 ? CC_CF : 0) | (r == 0 ? CC_ZF : 0);
    reg_set(cpu, u->dst, u->osize, r);
}

static void op_popcnt(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t v = src_load(cpu, u, u->osize);

    cpu->cc = v == 0 ? CC_ZF : 0;
    reg_set(cpu, u->dst, u->osize, (uint64_t)__builtin_popcountll(v));
}

/* CRC-32C, reflected, bit by bit from a table of 16: no host instruction needed. cc: source size */
static void op_crc32(struct soft_cpu *cpu, const struct uop *u)
{
    unsigned n = u->cc;
    uint32_t crc = (uint32_t)cpu->st.gpr[u->dst];
    uint64_t v = src_load(cpu, u, n);

    for (unsigned i = 0; i < n; i++) {
        crc ^= (uint8_t)(v >> (8 * i));
        for (unsigned b = 0; b < 8; b++)
            crc = (crc >> 1) ^ (crc & 1 ? 0x82F63B78u : 0);
    }
    cpu->st.gpr[u->dst] = crc;
}

/* ADCX carries through CF only, ADOX through OF only. cc: the flag */
static void op_adx(struct soft_cpu *cpu, const struct uop *u)
{
    uint32_t flag = u->cc ? CC_OF : CC_CF;
    unsigned n = u->osize;
    unsigned __int128 sum =
        (unsigned __int128)src_load(cpu, u, n) + reg_get(cpu, u->dst, n) + ((cpu->cc & flag) != 0);

    cpu->cc = (cpu->cc & ~flag) | ((sum >> (8 * n)) & 1 ? flag : 0);
    reg_set(cpu, u->dst, n, (uint64_t)sum);
}

/* ---- BMI1, BMI2: operands dst, and two sources; cc holds vvvv ---- */

static uint32_t sign_zero(uint64_t v, unsigned n)
{
    return ((v >> (8 * n - 1)) & 1 ? CC_SF : 0) | ((v & bytes_mask(n)) == 0 ? CC_ZF : 0);
}

/* The r/m operand of a VEX instruction; imm holds its register where there is no memory. */
static uint64_t vex_rm(struct soft_cpu *cpu, const struct uop *u)
{
    return u->flags & UOP_REG ? reg_get(cpu, u->src, u->osize)
                              : mem_load(cpu, u->seg, soft_ea(cpu, u), u->osize);
}

static void op_andn(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t v = ~reg_get(cpu, u->cc, u->osize) & vex_rm(cpu, u);

    cpu->cc = sign_zero(v, u->osize);
    reg_set(cpu, u->dst, u->osize, v);
}

static void op_bextr(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t v = vex_rm(cpu, u), ctl = cpu->st.gpr[u->cc];
    unsigned start = ctl & 0xff, len = (ctl >> 8) & 0xff;

    v = start >= 64 ? 0 : v >> start;
    if (len < 64)
        v &= (1ull << len) - 1;
    cpu->cc = (v & bytes_mask(u->osize)) == 0 ? CC_ZF : 0;
    reg_set(cpu, u->dst, u->osize, v);
}

/* imm: 1 BLSR, 2 BLSMSK, 3 BLSI; the destination is vvvv */
static void op_bls(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t s = vex_rm(cpu, u) & bytes_mask(u->osize), v;
    bool carry = s == 0;

    if (u->imm == 1) {
        v = s & (s - 1);
    } else if (u->imm == 2) {
        v = s ^ (s - 1);
    } else {
        v = s & (0 - s);
        carry = s != 0;
    }
    cpu->cc = sign_zero(v, u->osize) | (carry ? CC_CF : 0);
    if (u->imm == 2)
        cpu->cc &= ~CC_ZF;
    reg_set(cpu, u->cc, u->osize, v);
}

static void op_bzhi(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t v = vex_rm(cpu, u);
    unsigned index = cpu->st.gpr[u->cc] & 0xff;
    bool beyond = index > 8u * u->osize - 1;

    if (!beyond)
        v &= (1ull << index) - 1;
    cpu->cc = sign_zero(v, u->osize) | (beyond ? CC_CF : 0);
    reg_set(cpu, u->dst, u->osize, v);
}

/* The high half goes to dst, the low to vvvv; the same register gets the high half. */
static void op_mulx(struct soft_cpu *cpu, const struct uop *u)
{
    unsigned __int128 p = (unsigned __int128)vex_rm(cpu, u) * reg_get(cpu, X86_RDX, u->osize);

    reg_set(cpu, u->cc, u->osize, (uint64_t)p);
    reg_set(cpu, u->dst, u->osize, (uint64_t)(p >> (8 * u->osize)));
}

static void op_pdep(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t mask = vex_rm(cpu, u), from = cpu->st.gpr[u->cc], v = 0;

    for (; mask != 0; mask &= mask - 1, from >>= 1) {
        if (from & 1)
            v |= mask & (0 - mask);
    }
    reg_set(cpu, u->dst, u->osize, v);
}

static void op_pext(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t mask = vex_rm(cpu, u), from = cpu->st.gpr[u->cc], v = 0, bit = 1;

    for (; mask != 0; mask &= mask - 1, bit <<= 1) {
        if (from & mask & (0 - mask))
            v |= bit;
    }
    reg_set(cpu, u->dst, u->osize, v);
}

static void op_rorx(struct soft_cpu *cpu, const struct uop *u)
{
    unsigned bits = 8u * u->osize, count = (unsigned)u->imm & (bits - 1);
    uint64_t v = vex_rm(cpu, u);

    if (count != 0)
        v = v >> count | v << (bits - count);
    reg_set(cpu, u->dst, u->osize, v);
}

/* imm: 0 SHLX, 1 SHRX, 2 SARX */
static void op_shiftx(struct soft_cpu *cpu, const struct uop *u)
{
    unsigned count = (unsigned)cpu->st.gpr[u->cc] & (8u * u->osize - 1);
    uint64_t v = vex_rm(cpu, u);

    v = u->imm == 0   ? v << count
        : u->imm == 1 ? v >> count
                      : (uint64_t)(sign_extend(v, u->osize) >> count);
    reg_set(cpu, u->dst, u->osize, v);
}

/* ---- decimal adjustment, by the manual's pseudocode ---- */

static uint32_t szp(uint8_t v)
{
    return (v & 0x80 ? CC_SF : 0) | (v == 0 ? CC_ZF : 0) | (__builtin_parity(v) ? 0 : CC_PF);
}

static void op_daa_das(struct soft_cpu *cpu, const struct uop *u)
{
    uint8_t al = (uint8_t)cpu->st.gpr[X86_RAX], old = al;
    uint32_t cc = cpu->cc, out = 0;
    bool sub = u->cc != 0;

    if ((al & 15) > 9 || (cc & CC_AF)) {
        out |= CC_AF;
        if (sub ? old < 6 : old > 0xf9)
            out |= CC_CF;
        al = (uint8_t)(sub ? al - 6 : al + 6);
    }
    if (old > 0x99 || (cc & CC_CF)) {
        al = (uint8_t)(sub ? al - 0x60 : al + 0x60);
        out |= CC_CF;
    } else if (!sub) {
        out &= ~CC_CF;
    }
    if (cc & CC_CF)
        out |= CC_CF;
    cpu->cc = out | szp(al);
    reg_set(cpu, 8 * X86_RAX, 1, al);
}

static void op_aaa_aas(struct soft_cpu *cpu, const struct uop *u)
{
    uint16_t ax = (uint16_t)cpu->st.gpr[X86_RAX];
    bool adjust = (ax & 15) > 9 || (cpu->cc & CC_AF);

    if (adjust)
        ax = (uint16_t)(u->cc ? ax - 0x106 : ax + 0x106);
    ax &= 0xff0f;
    cpu->cc = (adjust ? CC_AF | CC_CF : 0) | szp((uint8_t)ax);
    reg_set(cpu, X86_RAX, 2, ax);
}

static void op_aam(struct soft_cpu *cpu, const struct uop *u)
{
    uint8_t base = (uint8_t)u->imm, al = (uint8_t)cpu->st.gpr[X86_RAX];

    if (base == 0)
        soft_raise(cpu, X86_EXC_DE);
    reg_set(cpu, X86_RAX, 2, (uint64_t)(al / base) << 8 | (uint64_t)(al % base));
    cpu->cc = szp(al % base);
}

static void op_aad(struct soft_cpu *cpu, const struct uop *u)
{
    uint16_t ax = (uint16_t)cpu->st.gpr[X86_RAX];
    uint8_t al = (uint8_t)((ax & 0xff) + (ax >> 8) * (uint8_t)u->imm);

    reg_set(cpu, X86_RAX, 2, al);
    cpu->cc = szp(al);
}

/* ---- CMPXCHG8B, CMPXCHG16B: the destination is written in any case; only ZF changes ---- */

static void op_cmpxchg8b(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t lin = lin_addr(cpu, u->seg, soft_ea(cpu, u), 8, true);
    uint64_t acc = (uint64_t)(uint32_t)cpu->st.gpr[X86_RDX] << 32 | (uint32_t)cpu->st.gpr[X86_RAX];
    uint64_t want = (uint64_t)(uint32_t)cpu->st.gpr[X86_RCX] << 32 | (uint32_t)cpu->st.gpr[X86_RBX];
    uint8_t *p = mem_rmw(cpu, u->seg, lin, 8);
    uint64_t old = acc;

    if (p != NULL) {
        alu_cas_8(p, &old, want);
    } else {
        old = mem_load_lin(cpu, u->seg, lin, 8);
        mem_store_lin(cpu, u->seg, lin, 8, old == acc ? want : old);
    }
    cpu->cc = (cpu->cc & ~CC_ZF) | (old == acc ? CC_ZF : 0);
    if (old != acc) {
        cpu->st.gpr[X86_RAX] = (uint32_t)old;
        cpu->st.gpr[X86_RDX] = old >> 32;
    }
}

static void op_cmpxchg16b(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t lin = lin_addr(cpu, u->seg, soft_ea(cpu, u), 16, true);
    uint64_t lo = cpu->st.gpr[X86_RAX], hi = cpu->st.gpr[X86_RDX];
    bool equal;
    uint8_t *p;

    if (!soft_canonical(cpu, lin))
        soft_raise_error(cpu, u->seg == X86_SS ? X86_EXC_SS : X86_EXC_GP, 0);
    if (lin & 15)
        soft_raise_error(cpu, X86_EXC_GP, 0);
    p = mem_rmw(cpu, u->seg, lin, 16); /* aligned, so in one page */
    if (p != NULL) {
        __asm__ volatile("lock cmpxchg16b %[m]\n\tsete %[ok]"
                         : [m] "+m"(*(uint64_t(*)[2])(void *)p), "+a"(lo),
                           "+d"(hi), [ok] "=q"(equal)
                         : "b"(cpu->st.gpr[X86_RBX]), "c"(cpu->st.gpr[X86_RCX])
                         : "cc", "memory");
    } else {
        uint64_t old_lo = mem_load_lin(cpu, u->seg, lin, 8);
        uint64_t old_hi = mem_load_lin(cpu, u->seg, lin + 8, 8);

        equal = old_lo == lo && old_hi == hi;
        mem_store_lin(cpu, u->seg, lin, 8, equal ? cpu->st.gpr[X86_RBX] : old_lo);
        mem_store_lin(cpu, u->seg, lin + 8, 8, equal ? cpu->st.gpr[X86_RCX] : old_hi);
        lo = old_lo;
        hi = old_hi;
    }
    cpu->cc = (cpu->cc & ~CC_ZF) | (equal ? CC_ZF : 0);
    if (!equal) {
        cpu->st.gpr[X86_RAX] = lo;
        cpu->st.gpr[X86_RDX] = hi;
    }
}

/* ---- table ---- */

/* Where the source stands: VEX forms have it second or third, with vvvv in the other place. */
static void set_vex(const struct x86_insn *insn, struct uop *u, unsigned rm)
{
    u->cc = insn->mode == X86_MODE_64 ? insn->vvvv : insn->vvvv & 7; /* no more registers */
    if (insn->opnd[rm].kind == X86_OPND_REG)
        u->src = insn->opnd[rm].reg;
    u->osize = (uint8_t)insn->opnd[0].size;
}

static bool build_vex(const struct x86_insn *insn, struct uop *u)
{
    switch (insn->op) {
    case X86_ANDN:
    case X86_MULX:
    case X86_PDEP:
    case X86_PEXT:
        set_vex(insn, u, 2);
        u->fn = insn->op == X86_ANDN   ? op_andn
                : insn->op == X86_MULX ? op_mulx
                : insn->op == X86_PDEP ? op_pdep
                                       : op_pext;
        return true;
    case X86_BEXTR:
    case X86_BZHI:
    case X86_SHLX:
    case X86_SHRX:
    case X86_SARX:
        set_vex(insn, u, 1);
        u->imm = insn->op == X86_SHLX ? 0 : insn->op == X86_SHRX ? 1 : 2;
        u->fn = insn->op == X86_BEXTR ? op_bextr : insn->op == X86_BZHI ? op_bzhi : op_shiftx;
        return true;
    case X86_BLSR:
    case X86_BLSMSK:
    case X86_BLSI:
        set_vex(insn, u, 1);
        u->imm = insn->op == X86_BLSR ? 1 : insn->op == X86_BLSMSK ? 2 : 3;
        u->fn = op_bls;
        return true;
    case X86_RORX:
        set_vex(insn, u, 1);
        u->fn = op_rorx;
        return true;
    default:
        return false;
    }
}

static bool build_multiply(const struct x86_insn *insn, struct uop *u)
{
    static const uop_fn mul[4] = {mul_1, mul_2, mul_4, mul_8};
    static const uop_fn imul[4] = {imul_1, imul_2, imul_4, imul_8};
    static const uop_fn imul2[4] = {NULL, imul2_2, imul2_4, imul2_8};
    static const uop_fn imul3[4] = {NULL, imul3_2, imul3_4, imul3_8};
    unsigned size = size_index(insn->opnd[0].size);

    if (insn->op == X86_MUL)
        u->fn = mul[size];
    else if (insn->opnd_count == 1)
        u->fn = imul[size];
    else
        u->fn = insn->opnd_count == 3 ? imul3[size] : imul2[size];
    return true;
}

static bool build_bt(const struct x86_insn *insn, struct uop *u)
{
    u->rep = insn->opnd[1].kind == X86_OPND_IMM;
    u->osize = (uint8_t)insn->opnd[0].size;
    u->cc = insn->op == X86_BT ? 0 : insn->op == X86_BTS ? 1 : insn->op == X86_BTR ? 2 : 3;
    u->fn = u->flags & UOP_REG ? op_bt_reg : op_bt_mem;
    return true;
}

/* Operations with one handler; osize is the first operand's size. */
static const struct {
    uint16_t op;
    uint8_t cc;
    uop_fn fn;
} simple_table[] = {
    {X86_DIV, 0, op_div},
    {X86_IDIV, 0, op_idiv},
    {X86_BSF, 0, op_bsf},
    {X86_BSR, 0, op_bsr},
    {X86_TZCNT, 0, op_tzcnt},
    {X86_LZCNT, 0, op_lzcnt},
    {X86_POPCNT, 0, op_popcnt},
    {X86_ADCX, 0, op_adx},
    {X86_ADOX, 1, op_adx},
    {X86_DAA, 0, op_daa_das},
    {X86_DAS, 1, op_daa_das},
    {X86_AAA, 0, op_aaa_aas},
    {X86_AAS, 1, op_aaa_aas},
    {X86_AAM, 0, op_aam},
    {X86_AAD, 0, op_aad},
    {X86_CMPXCHG8B, 0, op_cmpxchg8b},
    {X86_CMPXCHG16B, 0, op_cmpxchg16b},
};

bool build_bits(const struct x86_insn *insn, struct uop *u)
{
    for (size_t i = 0; i < countof(simple_table); i++) {
        if (simple_table[i].op == insn->op) {
            u->fn = simple_table[i].fn;
            u->cc = simple_table[i].cc;
            u->osize = (uint8_t)insn->opnd[0].size;
            return true;
        }
    }
    switch (insn->op) {
    case X86_MUL:
    case X86_IMUL:
        return build_multiply(insn, u);
    case X86_BT:
    case X86_BTS:
    case X86_BTR:
    case X86_BTC:
        return build_bt(insn, u);
    case X86_SHLD:
    case X86_SHRD:
        u->rep = insn->opnd[2].kind == X86_OPND_REG;
        u->osize = (uint8_t)insn->opnd[0].size;
        u->cc = insn->op == X86_SHRD;
        u->fn = op_dshift;
        return true;
    case X86_CRC32:
        u->cc = (uint8_t)insn->opnd[1].size;
        u->fn = op_crc32;
        return true;
    default:
        return build_vex(insn, u);
    }
}
