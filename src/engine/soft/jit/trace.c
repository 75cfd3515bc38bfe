#include "engine/soft/jit/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/soft/jit/translate.h"

struct jit_trace {
    bool list; /* --trace jit */
    int map;   /* descriptor of the map; -1: none is written */
};

/* ---- the stubs' names ---- */

enum { STUBS = 7 + JIT_FNS };

struct stub {
    const uint8_t *at; /* in the executable view */
    const char *name;
    unsigned data; /* words behind a call of it */
};

/* In the order in which they lie in the cache. */
static void list_stubs(const struct jit *j, struct stub list[STUBS])
{
    static const char *const names[JIT_FNS] = {
        [FN_SLOW] = "slow", [FN_UOP] = "uop",   [FN_END] = "end",     [FN_MISS] = "miss",
        [FN_LINK] = "link", [FN_STEP] = "step", [FN_APART] = "group", [FN_ACROSS] = "across",
    };
    static const uint8_t data[JIT_FNS] = {
        [FN_SLOW] = 3, [FN_STEP] = 1, [FN_APART] = 4, [FN_ACROSS] = 1};
    const struct stub first[] = {
        {j->rx, "enter", 0},          {j->vec_save, "vec_save", 0}, {j->vec_load, "vec_load", 0},
        {j->x87_save, "x87_save", 0}, {j->x87_load, "x87_load", 0}, {j->exit, "exit", 0},
        {j->poll, "poll", 0},
    };

    memcpy(list, first, sizeof(first));
    for (unsigned i = 0; i < JIT_FNS; i++)
        list[countof(first) + i] = (struct stub){j->stub[i], names[i], data[i]};
}

/* ---- the map ---- */

static int open_map(const struct soft_cpu *cpu, struct error *err)
{
    /* the first vCPU makes the file; whoever put one there before, or a link, gets nothing */
    int flags = O_WRONLY | O_APPEND | O_NOFOLLOW | O_CLOEXEC, fd;
    char path[40];
    struct stat st;

    if (cpu->id == 0)
        flags |= O_CREAT | O_EXCL;
    snprintf(path, sizeof(path), "/tmp/perf-%ld.map", (long)getpid());
    fd = open(path, flags, 0600);
    if (fd < 0 && errno == EEXIST) {
        if (lstat(path, &st) == 0 && st.st_uid != geteuid())
            return error_set(err, -EEXIST,
                             "the map %s exists and belongs to another user; remove it", path);
        /* left by an earlier process of this number */
        if (unlink(path) == 0)
            fd = open(path, flags, 0600);
    }
    if (fd < 0)
        return error_set(err, -errno, "cannot create the map %s: %s", path, strerror(errno));
    return fd;
}

/* A line for [at, at + size) of the writable view. Whole lines, so that vCPUs may share the file.
 */
static void put_map(struct soft_cpu *cpu, const uint8_t *at, size_t size, const char *name)
{
    struct jit *j = cpu->jit;
    struct jit_trace *r = j->trace;
    char line[96];
    int len;

    if (r->map < 0 || size == 0)
        return;
    len = snprintf(line, sizeof(line), "%llx %zx %s\n",
                   (unsigned long long)(uintptr_t)jit_rx(j, at), size, name);
    if (write(r->map, line, (size_t)len) == len)
        return;
    log_warn(cpu->vm->env.log, "the map for perf ends here: %s", strerror(errno));
    close(r->map);
    r->map = -1;
}

/* part: "", "_cold" or "_entry" */
static void map_guest(struct soft_cpu *cpu, uint64_t lin, unsigned key, const char *part,
                      const uint8_t *at, size_t size)
{
    char name[64];

    snprintf(name, sizeof(name), "guest_%llx_%c%s", (unsigned long long)lin,
             key & KEY_USER ? 'u' : 'k', part);
    put_map(cpu, at, size, name);
}

/* ---- the listing ---- */

enum { TEXT = 128, LEFT = 60 };

/* One instruction; its length. A byte that begins none stands for itself. */
static unsigned disassemble(const uint8_t *code, size_t len, enum x86_mode mode, uint64_t addr,
                            char text[TEXT])
{
    struct x86_insn in;
    int n = x86_decode(code, len, mode, &in);

    if (n > 0) {
        x86_format(&in, addr, text, TEXT);
        return (unsigned)n;
    }
    snprintf(text, TEXT, ".byte %#x", code[0]);
    return 1;
}

/* The stub that the call or jump at `code` leads to, NULL if it is none. */
static const struct stub *stub_of(const struct jit *j, const struct stub list[STUBS],
                                  const uint8_t *code, unsigned len)
{
    unsigned op = len == 5 ? 1 : 2;
    const uint8_t *target;
    int32_t distance;

    if (!(len == 5 && (code[0] == 0xe8 || code[0] == 0xe9)) &&
        !(len == 6 && code[0] == 0x0f && (code[1] & 0xf0) == 0x80))
        return NULL;
    memcpy(&distance, code + op, 4);
    target = jit_rx(j, code + len) + distance;
    for (unsigned i = 0; i < STUBS; i++) {
        if (list[i].at == target)
            return &list[i];
    }
    return NULL;
}

/* Host code [at, end) of the writable view, an instruction a line; `left` beside the first. */
static void list_host(struct soft_cpu *cpu, const char *left, const uint8_t *at, const uint8_t *end)
{
    const struct jit *j = cpu->jit;
    struct log *log = cpu->vm->env.log;
    struct stub stubs[STUBS];
    char text[TEXT];

    list_stubs(j, stubs);
    if (at == end)
        log_trace_write(log, "jit", "  %s", left);
    while (at < end) {
        uint64_t addr = (uintptr_t)jit_rx(j, at);
        unsigned len = disassemble(at, (size_t)(end - at), X86_MODE_64, addr, text);
        const struct stub *to = stub_of(j, stubs, at, len);

        log_trace_write(log, "jit", "  %-*s | %llx  %s%s%s", LEFT, left, (unsigned long long)addr,
                        text, to != NULL ? "  ; " : "", to != NULL ? to->name : "");
        left = "";
        at += len;
        for (unsigned i = 0; to != NULL && i < to->data && end - at >= 4; i++, at += 4) {
            uint32_t word;

            memcpy(&word, at, 4);
            log_trace_write(log, "jit", "  %-*s | %llx  .long %#x", LEFT, "",
                            (unsigned long long)(uintptr_t)jit_rx(j, at), word);
        }
    }
}

static void list_head(struct soft_cpu *cpu, uint64_t lin, const struct jit_block *b,
                      const uint8_t *hot, const uint8_t *cold)
{
    static const struct {
        unsigned bit;
        const char *name;
    } bits[] = {
        {KEY_SSE, " sse"},     {KEY_AVX, " avx"},     {KEY_X87, " x87"},   {KEY_STRICT, " strict"},
        {KEY_APART, " apart"}, {KEY_COUNT, " count"}, {KEY_32, " 32-bit"},
    };
    const struct jit *j = cpu->jit;
    const struct tx *t = j->tx;
    char key[64];
    int n = snprintf(key, sizeof(key), "%s", b->key & KEY_USER ? "user" : "kernel");

    for (size_t i = 0; i < countof(bits); i++) {
        if (b->key & bits[i].bit)
            n += snprintf(key + n, sizeof(key) - (size_t)n, "%s", bits[i].name);
    }
    log_trace_write(cpu->vm->env.log, "jit",
                    "block %llx, physical %llx, key %#x (%s): %u instructions, %u bytes; host: %td "
                    "hot at %llx, %td cold at %llx",
                    (unsigned long long)lin, (unsigned long long)b->pa, b->key, key, t->i,
                    t->off[t->i - 1] + t->insn[t->i - 1].len - t->off[0], j->hot - hot,
                    (unsigned long long)(uintptr_t)jit_rx(j, hot), j->cold - cold,
                    (unsigned long long)(uintptr_t)jit_rx(j, cold));
}

/* What the guest has beside what the host gets for it; jit.tx still holds the translation. */
static void list_block(struct soft_cpu *cpu, uint64_t lin, const uint8_t *hot, const uint8_t *cold)
{
    const struct jit *j = cpu->jit;
    const struct tx *t = j->tx;
    char text[TEXT], left[TEXT + 24];

    if (t->code[0] != hot)
        list_host(cpu, "(before)", hot, t->code[0]);
    for (unsigned i = 0; i < t->i; i++) {
        uint64_t at = (lin & PAGE_MASK) + t->off[i];
        unsigned len = t->insn[i].len != 0 ? t->insn[i].len : 1;

        disassemble(t->text + t->off[i], len, t->mode, at, text);
        snprintf(left, sizeof(left), "%llx  %s", (unsigned long long)at, text);
        list_host(cpu, left, t->code[i], t->code[i + 1]);
    }
    if (t->code[t->i] != j->hot)
        list_host(cpu, "(behind)", t->code[t->i], j->hot);
    if (cold != j->cold)
        list_host(cpu, "(cold)", cold, j->cold);
}

/* ---- hooks ---- */

void jit_trace_block(struct soft_cpu *cpu, uint64_t lin, const struct jit_block *b,
                     const uint8_t *hot, const uint8_t *cold)
{
    const struct jit *j = cpu->jit;

    if (b == NULL)
        return;
    map_guest(cpu, lin, b->key, "", hot, (size_t)(j->hot - hot));
    map_guest(cpu, lin, b->key, "_cold", cold, (size_t)(j->cold - cold));
    if (!j->trace->list)
        return;
    list_head(cpu, lin, b, hot, cold);
    list_block(cpu, lin, hot, cold);
}

void jit_trace_entry(struct soft_cpu *cpu, uint64_t lin, const struct jit_block *b)
{
    const struct jit *j = cpu->jit;
    const uint8_t *at = jit_at(j, b->entry);

    map_guest(cpu, lin, b->key, "_entry", at, (size_t)(j->cold - at));
    if (!j->trace->list)
        return;
    log_trace_write(cpu->vm->env.log, "jit", "entry of %llx", (unsigned long long)lin);
    list_host(cpu, "", at, j->cold);
}

void jit_trace_flush(struct soft_cpu *cpu)
{
    const struct jit *j = cpu->jit;

    if (j->trace->list && j->hot != j->start_hot)
        log_trace_write(cpu->vm->env.log, "jit", "cache emptied: %td bytes hot, %td cold",
                        j->hot - j->start_hot, j->cold - j->start_cold);
}

static void map_stubs(struct soft_cpu *cpu)
{
    const struct jit *j = cpu->jit;
    struct stub list[STUBS];
    char name[32];

    list_stubs(j, list);
    for (unsigned i = 0; i < STUBS; i++) {
        const uint8_t *end = i + 1 < STUBS ? list[i + 1].at : jit_rx(j, j->start_hot);

        snprintf(name, sizeof(name), "jit_%s", list[i].name);
        put_map(cpu, j->rw + (list[i].at - j->rx), (size_t)(end - list[i].at), name);
    }
}

int jit_trace_init(struct soft_cpu *cpu, struct error *err)
{
    struct jit *j = cpu->jit;
    const struct engine_env *env = &cpu->vm->env;
    bool list = log_tracing(env->log, "jit");
    struct jit_trace *r;

    if (!list && !env->perf_map)
        return 0;
    r = calloc(1, sizeof(*r));
    if (r == NULL)
        return error_set(err, -ENOMEM, "no memory to trace translations");
    j->trace = r;
    r->list = list;
    r->map = -1;
    if (!env->perf_map)
        return 0;
    r->map = open_map(cpu, err);
    if (r->map < 0)
        return r->map;
    map_stubs(cpu);
    return 0;
}

void jit_trace_fini(struct jit_trace *r)
{
    if (r == NULL)
        return;
    if (r->map >= 0)
        close(r->map);
    free(r);
}
