/*
 * Build-time tool: reads decode.tab, writes decode_tables.c. The language of the table stands at
 * its top.
 *
 *   mktables decode.tab decode_tables.c
 */
#include "x86/decode_tables.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ROWS 4096
#define MAX_NODES 0x7000
#define MAX_FLAGSETS 128
#define MAX_CELL 512
#define MAX_TOKENS 40

static const unsigned dim_width[X86_DIM_COUNT] = {4, 2, 2, 8, 8, 2, 4, 2};

struct line {
    unsigned enc, map, first, last;
    unsigned allow[X86_DIM_COUNT]; /* values that fit, a bit each */
    bool has_modrm;
    char op[32], feature[32];
    struct x86_row row; /* op and feature are above, by name */
};

static struct line lines[MAX_ROWS];
static unsigned line_count = 1; /* row 0 is "no such instruction" */
static struct x86_flagset flagsets[MAX_FLAGSETS];
static unsigned flagset_count = 1;
static uint16_t nodes[MAX_NODES];
static unsigned node_count;
static const char *input;
static unsigned line_number;

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...)
{
    va_list ap;

    fprintf(stderr, "%s:%u: ", input, line_number);
    va_start(ap, format);
    vfprintf(stderr, format, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

static const struct {
    const char *name;
    uint32_t attr;
} attributes[] = {
    {"lock", X86_AT_LOCK},   {"shift", X86_AT_SHIFT},   {"cc", X86_AT_CC},
    {"d64", X86_AT_D64},     {"f64", X86_AT_F64},       {"sp", X86_AT_SP},
    {"rep", X86_AT_REP},     {"br", X86_AT_BR},         {"sys", X86_AT_SYS},
    {"bc4", X86_AT_BC4},     {"bc8", X86_AT_BC8},       {"er", X86_AT_ER},
    {"sae", X86_AT_SAE},     {"nok", X86_AT_NOK},       {"rk", X86_AT_RK},
    {"noz", X86_AT_NOZ},     {"lig", X86_AT_LIG},       {"vs4", X86_AT_VS4},
    {"vs8", X86_AT_VS8},     {"modreg", X86_AT_MODREG}, {"sib", X86_AT_SIB},
    {"dist", X86_AT_DIST},   {"l1avx2", X86_AT_L1AVX2}, {"blend", X86_AT_BLEND},
    {"elem1", X86_AT_ELEM1}, {"elem2", X86_AT_ELEM2},   {"elem4", X86_AT_ELEM4},
    {"elem8", X86_AT_ELEM8},
};

static const struct {
    const char *name;
    struct x86_spec spec;
} fixed[] = {
    {"AL", {'$', 'b'}}, {"rAX", {'$', 'v'}}, {"AX", {'$', 'w'}},  {"CL", {'%', 'b'}},
    {"DX", {'&', 'w'}}, {"1", {'1', 'b'}},   {"ES", {'#', 0}},    {"CS", {'#', 1}},
    {"SS", {'#', 2}},   {"DS", {'#', 3}},    {"FS", {'#', 4}},    {"GS", {'#', 5}},
    {"f", {'f', 't'}},  {"F", {'F', 't'}},   {"eAX", {'$', 'i'}}, {"X0", {'0', 'o'}},
};

static uint32_t flag_bits(const char *letters)
{
    static const char names[] = "cpazstidonrvklfge";
    static const unsigned char bits[] = {0,  2,  4,  6,  7,  8,  9,  10, 11,
                                         14, 16, 17, 18, 12, 19, 20, 21};
    uint32_t mask = 0;

    for (; *letters != 0; letters++) {
        const char *at = strchr(names, *letters);

        if (at == NULL)
            fail("unknown flag %c", *letters);
        mask |= 1u << bits[at - names];
        if (*letters == 'l')
            mask |= 1u << 13;
    }
    return mask;
}

static uint16_t gpr_bits(const char *digits)
{
    unsigned mask = 0;

    for (; *digits != 0; digits++) {
        static const char hex[] = "0123456789abcdef";
        const char *at = strchr(hex, *digits);

        if (at == NULL)
            fail("bad register list");
        mask |= 1u << (at - hex);
    }
    return (uint16_t)mask;
}

/* A condition such as /2, /0-3, rm4-7, mem, f3; false if the token is not one. */
static bool condition(struct line *l, const char *t, unsigned *seen)
{
    static const struct {
        const char *name;
        unsigned dim, value;
    } names[] = {
        {"np", X86_DIM_PP, 0},   {"66", X86_DIM_PP, 1},    {"f3", X86_DIM_PP, 2},
        {"f2", X86_DIM_PP, 3},   {"m32", X86_DIM_MODE, 0}, {"m64", X86_DIM_MODE, 1},
        {"mem", X86_DIM_MOD, 0}, {"reg", X86_DIM_MOD, 1},  {"w0", X86_DIM_W, 0},
        {"w1", X86_DIM_W, 1},    {"l0", X86_DIM_L, 0},     {"l1", X86_DIM_L, 1},
        {"l2", X86_DIM_L, 2},    {"b0", X86_DIM_B, 0},     {"b1", X86_DIM_B, 1},
    };
    unsigned dim = X86_DIM_COUNT, lo = 0, hi = 0;
    int n = 0;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(t, names[i].name) == 0) {
            dim = names[i].dim;
            lo = hi = names[i].value;
        }
    if (t[0] == '/')
        dim = X86_DIM_REG, n = sscanf(t + 1, "%1u-%1u", &lo, &hi);
    else if (strncmp(t, "rm", 2) == 0)
        dim = X86_DIM_RM, n = sscanf(t + 2, "%1u-%1u", &lo, &hi);
    if (dim == X86_DIM_COUNT)
        return false;
    if (n == 1)
        hi = lo;
    if ((*seen & 1u << dim) == 0)
        l->allow[dim] = 0;
    *seen |= 1u << dim;
    for (unsigned v = lo; v <= hi; v++)
        l->allow[dim] |= 1u << v;
    if (dim == X86_DIM_REG || dim == X86_DIM_RM || dim == X86_DIM_MOD)
        l->has_modrm = true;
    return true;
}

static void operands(struct line *l, char *text)
{
    bool uses_vvvv = false;
    unsigned n = 0;
    char *save = NULL;

    if (strcmp(text, "-") == 0)
        text[0] = 0;
    for (char *t = strtok_r(text, ",", &save); t != NULL; t = strtok_r(NULL, ",", &save)) {
        struct x86_spec spec = {0, 0};

        for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
            if (strcmp(t, fixed[i].name) == 0)
                spec = fixed[i].spec;
        if (spec.addr == 0) {
            if (strlen(t) != 2 || strchr("EGMRBZVHWULPQNSCDIJAOXYKkjlvTtu", t[0]) == NULL)
                fail("bad operand %s", t);
            spec.addr = t[0];
            spec.size = t[1];
        }
        if (n == 5)
            fail("too many operands");
        if (strchr("EGMRVWUPQNSCDKjlvTtF", spec.addr) != NULL)
            l->has_modrm = true;
        if (strchr("BHku", spec.addr) != NULL)
            uses_vvvv = true;
        l->row.opnd[n++] = spec;
    }
    if (l->enc != 0 && !uses_vvvv)
        l->row.attr |= X86_AT_NOVVVV;
}

static void attribute(struct line *l, const char *t, struct x86_flagset *flags)
{
    if (t[0] == '=') {
        for (unsigned i = 0; t[i + 1] != 0; i++)
            l->row.access &= (uint16_t) ~(3u << (2 * i));
        for (unsigned i = 0; t[i + 1] != 0; i++)
            l->row.access |= (uint16_t)((strchr("nrwx", t[i + 1]) - &"nrwx"[0]) & 3) << (2 * i);
        return;
    }
    for (size_t i = 0; i < sizeof(attributes) / sizeof(attributes[0]); i++)
        if (strcmp(t, attributes[i].name) == 0) {
            l->row.attr |= attributes[i].attr;
            return;
        }
    if (t[0] == '<')
        flags->read |= flag_bits(t + 1);
    else if (t[0] == '!')
        flags->written |= flag_bits(t + 1);
    else if (t[0] == '?')
        flags->undefined |= flag_bits(t + 1);
    else if (strncmp(t, "r:", 2) == 0)
        l->row.gpr_read |= gpr_bits(t + 2);
    else if (strncmp(t, "w:", 2) == 0)
        l->row.gpr_written |= gpr_bits(t + 2);
    else if (islower((unsigned char)t[0]) && strlen(t) < sizeof(l->feature))
        strcpy(l->feature, t);
    else
        fail("what is %s?", t);
}

static uint8_t flagset(const struct x86_flagset *flags)
{
    for (unsigned i = 0; i < flagset_count; i++)
        if (memcmp(&flagsets[i], flags, sizeof(*flags)) == 0)
            return (uint8_t)i;
    if (flagset_count == MAX_FLAGSETS)
        fail("too many flag sets");
    flagsets[flagset_count] = *flags;
    return (uint8_t)flagset_count++;
}

static void section(char *text, struct line *model)
{
    static const char *const encs[] = {"legacy", "vex", "evex"};
    static const char *const maps[] = {"one", "0f", "0f38", "0f3a"};
    char enc[16], map[16], feature[32];

    if (sscanf(text, "[%15s %15s %31[^]]]", enc, map, feature) != 3)
        fail("bad section");
    model->enc = model->map = 99;
    for (unsigned i = 0; i < 3; i++)
        if (strcmp(enc, encs[i]) == 0)
            model->enc = i;
    for (unsigned i = 0; i < 4; i++)
        if (strcmp(map, maps[i]) == 0)
            model->map = i;
    if (model->enc == 99 || model->map == 99)
        fail("bad section");
    strcpy(model->feature, feature);
}

static void entry(char *text, const struct line *model)
{
    char *token[MAX_TOKENS], *save = NULL;
    struct line *l = &lines[line_count];
    struct x86_flagset flags = {0, 0, 0};
    unsigned n = 0, i = 1, seen = 0;

    for (char *t = strtok_r(text, " \n", &save); t != NULL; t = strtok_r(NULL, " \n", &save)) {
        if (n == MAX_TOKENS)
            fail("line too long");
        token[n++] = t;
    }
    if (n == 0)
        return;
    if (line_count == MAX_ROWS)
        fail("too many lines");
    *l = *model;
    for (unsigned d = 0; d < X86_DIM_COUNT; d++)
        l->allow[d] = (1u << dim_width[d]) - 1;
    switch (sscanf(token[0], "%x-%x", &l->first, &l->last)) {
    case 1:
        l->last = l->first;
        break;
    case 2:
        break;
    default:
        fail("bad opcode");
    }
    while (i < n && condition(l, token[i], &seen))
        i++;
    if (i + 2 > n || strlen(token[i]) >= sizeof(l->op))
        fail("no operation or no operands");
    strcpy(l->op, token[i++]);
    l->row.access = (uint16_t)((l->enc == 0 ? 3 : 2) | 0x154);
    operands(l, token[i++]);
    for (; i < n; i++)
        attribute(l, token[i], &flags);
    l->row.flags = flagset(&flags);
    line_count++;
}

/* fixed[] holds the values already chosen, one bit each, or all where the choice is still open. */
static uint16_t build(const unsigned *cell, unsigned count, const unsigned open[X86_DIM_COUNT])
{
    const struct line *l;
    uint16_t children[9];
    unsigned dim, where;

    if (count == 0)
        return 0;
    l = &lines[cell[0]];
    for (dim = 0; dim < X86_DIM_COUNT; dim++)
        if ((l->allow[dim] & open[dim]) != open[dim])
            break;
    if (dim == X86_DIM_COUNT)
        return (uint16_t)cell[0];
    children[0] = (uint16_t)dim;
    for (unsigned v = 0; v < dim_width[dim]; v++) {
        unsigned sub[MAX_CELL], n = 0, narrowed[X86_DIM_COUNT];

        memcpy(narrowed, open, sizeof(narrowed));
        narrowed[dim] = 1u << v;
        for (unsigned i = 0; i < count; i++)
            if ((lines[cell[i]].allow[dim] & 1u << v) != 0)
                sub[n++] = cell[i];
        children[v + 1] = build(sub, n, narrowed);
    }
    for (where = 0; where + dim_width[dim] + 1 <= node_count; where++)
        if (memcmp(&nodes[where], children, (dim_width[dim] + 1) * sizeof(nodes[0])) == 0)
            return (uint16_t)(0x8000 + where);
    if (node_count + dim_width[dim] + 1 > MAX_NODES)
        fail("too many nodes");
    where = node_count;
    memcpy(&nodes[where], children, (dim_width[dim] + 1) * sizeof(nodes[0]));
    node_count += dim_width[dim] + 1;
    return (uint16_t)(0x8000 + where);
}

static uint16_t root(unsigned enc, unsigned map, unsigned opcode, bool *has_modrm)
{
    unsigned cell[MAX_CELL], n = 0, open[X86_DIM_COUNT];

    *has_modrm = enc != 0 && !(enc == 1 && map == 1 && opcode == 0x77);
    for (unsigned i = 1; i < line_count; i++)
        if (lines[i].enc == enc && lines[i].map == map && lines[i].first <= opcode &&
            opcode <= lines[i].last) {
            if (n == MAX_CELL)
                fail("too many lines for one opcode");
            cell[n++] = i;
            *has_modrm |= lines[i].has_modrm;
        }
    for (unsigned d = 0; d < X86_DIM_COUNT; d++)
        open[d] = (1u << dim_width[d]) - 1;
    return build(cell, n, open);
}

static void write_rows(FILE *out)
{
    fprintf(out, "#include \"x86/decode_tables.h\"\n#include \"x86/decode.h\"\n\n"
                 "const struct x86_row x86_rows[] = {\n    {.op = X86_INVALID},\n");
    for (unsigned i = 1; i < line_count; i++) {
        const struct x86_row *r = &lines[i].row;

        fprintf(out, "    {%#x, X86_%s, %#x, {", r->attr, lines[i].op, r->access);
        for (unsigned o = 0; o < 5; o++)
            fprintf(out, "{%d, %d},", r->opnd[o].addr, r->opnd[o].size);
        fprintf(out, "}, %#x, %#x, X86_FEAT_", r->gpr_read, r->gpr_written);
        for (const char *c = lines[i].feature; *c != 0; c++)
            fputc(toupper((unsigned char)*c), out);
        fprintf(out, ", %u},\n", r->flags);
    }
    fprintf(out, "};\n\nconst struct x86_flagset x86_flagsets[] = {\n");
    for (unsigned i = 0; i < flagset_count; i++)
        fprintf(out, "    {%#x, %#x, %#x},\n", flagsets[i].read, flagsets[i].written,
                flagsets[i].undefined);
    fprintf(out, "};\n");
}

static void write_trees(FILE *out)
{
    static bool modrm[3][4][256];

    fprintf(out, "\nconst uint16_t x86_roots[3][4][256] = {\n");
    for (unsigned enc = 0; enc < 3; enc++) {
        fprintf(out, "{\n");
        for (unsigned map = 0; map < 4; map++) {
            fprintf(out, "{");
            for (unsigned op = 0; op < 256; op++)
                fprintf(out, "%u,%s", root(enc, map, op, &modrm[enc][map][op]),
                        op % 16 == 15 ? "\n" : " ");
            fprintf(out, "},\n");
        }
        fprintf(out, "},\n");
    }
    fprintf(out, "};\n\nconst uint8_t x86_has_modrm[3][4][256] = {\n");
    for (unsigned enc = 0; enc < 3; enc++) {
        fprintf(out, "{\n");
        for (unsigned map = 0; map < 4; map++) {
            fprintf(out, "{");
            for (unsigned op = 0; op < 256; op++)
                fprintf(out, "%d,%s", modrm[enc][map][op], op % 32 == 31 ? "\n" : " ");
            fprintf(out, "},\n");
        }
        fprintf(out, "},\n");
    }
    fprintf(out, "};\n\nconst uint16_t x86_nodes[] = {\n");
    for (unsigned i = 0; i < node_count; i++)
        fprintf(out, "%u,%s", nodes[i], i % 16 == 15 ? "\n" : " ");
    fprintf(out, "0};\n");
}

int main(int argc, char **argv)
{
    char text[512];
    struct line model = {0};
    FILE *in, *out;

    if (argc != 3)
        return 2;
    input = argv[1];
    in = fopen(argv[1], "r");
    out = fopen(argv[2], "w");
    if (in == NULL || out == NULL)
        fail("cannot open");
    while (fgets(text, sizeof(text), in) != NULL) {
        line_number++;
        text[strcspn(text, "\n")] = 0;
        if (text[0] == '[')
            section(text, &model);
        else if (text[0] != '#')
            entry(text, &model);
    }
    write_rows(out);
    write_trees(out);
    fclose(in);
    return fclose(out) == 0 ? 0 : 1;
}
