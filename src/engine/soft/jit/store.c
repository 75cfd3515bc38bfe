#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/soft/jit/store_file.h"
#include "host/program.h"

/* Opening the file, finding translations in it, noting those that are made. */

/* What translations depend on beside the guest's code and the block's key. */
static uint64_t identity(const struct soft_cpu *cpu, const uint8_t *id, size_t len)
{
    const struct engine_env *env = &cpu->vm->env;
    const struct jit *j = cpu->jit;
    uint64_t h = sum_of(2, id, len);

    h = sum_of(h, env->cpuid->feature, sizeof(env->cpuid->feature));
    h = mix(h, env->exit_on_pause);
    h = mix(h, (uint64_t)(j->start_hot - j->rw) << 32 | (uint64_t)(j->start_cold - j->rw));
    return mix(h, j->xsave);
}

unsigned store_fields(const struct x86_insn *in, const uint8_t *code, unsigned at[2])
{
    unsigned n = 0;

    if (in->disp_size == 4 && in->base != X86_REG_RIP && is_address(load32(code + in->off_disp)))
        at[n++] = in->off_disp;
    else if (in->disp_size == 4 && in->base == X86_REG_RIP && in->seg == X86_GS &&
             load32(code + in->off_disp) >> 30 == 1)
        at[n++] = in->off_disp | FIELD_BACK;
    if (in->imm_size == 4 && in->opnd[0].kind != X86_OPND_REL &&
        is_address(load32(code + in->off_imm)))
        at[n++] = in->off_imm;
    return n;
}

/* Where the index has code: by the first instructions, without addresses. */
uint32_t store_place(const uint8_t *page, unsigned off, unsigned key, bool smap)
{
    unsigned len = PAGE_SIZE - off < FIRST_BYTES ? PAGE_SIZE - off : FIRST_BYTES, done = 0;
    uint8_t first[FIRST_BYTES + 16] = {0};

    memcpy(first, page + off, len);
    while (!(key & KEY_USER) && done < len) {
        struct x86_insn in;
        unsigned at[2], n;
        int got = x86_decode(page + off + done, PAGE_SIZE - off - done, X86_MODE_64, &in);

        if (got <= 0)
            break;
        n = store_fields(&in, page + off + done, at);
        for (unsigned i = 0; i < n; i++)
            memset(first + done + (at[i] & ~FIELD_BACK), 0, 4);
        done += (unsigned)got;
    }
    return (uint32_t)sum_of((uint64_t)off << 32 | key << 1 | smap, first, len);
}

static bool smap_on(const struct soft_cpu *cpu)
{
    return (cpu->st.cr4 & X86_CR4_SMAP) != 0;
}

/* ---- reading ---- */

/* Bytes of the file, until the next call but WINDOWS - 1; NULL: they cannot be had. */
static const uint8_t *bytes_at(struct jit_store *s, uint64_t at, size_t len)
{
    struct window *old = &s->window[0];
    ssize_t n;

    if (len > MOST_RECORD || at > s->size || len > s->size - at)
        return NULL;
    s->uses++;
    for (unsigned i = 0; i < WINDOWS; i++) {
        struct window *w = &s->window[i];

        if (at >= w->at && at + len <= w->at + w->len) {
            w->used = s->uses;
            return w->bytes + (at - w->at);
        }
        if (w->used < old->used)
            old = w;
    }
    if (old->bytes == NULL)
        old->bytes = malloc(MOST_RECORD);
    old->len = 0;
    if (old->bytes == NULL)
        return NULL;
    n = pread(s->fd, old->bytes, len > WINDOW ? len : WINDOW, (off_t)at);
    if (n < 0 || (size_t)n < len)
        return NULL;
    old->at = at;
    old->len = (size_t)n;
    old->used = s->uses;
    return old->bytes;
}

/* Every number in it is one that this program could have written. */
bool store_sound(const struct record *r, size_t most)
{
    struct parts p;

    if (r->lo > r->hi || r->hi > PAGE_SIZE || r->off >= PAGE_SIZE || r->hot > CODE_MOST ||
        r->cold > CODE_MOST || r->relocs > TX_RELOCS || r->links > JIT_EXITS + JIT_INSNS ||
        r->uops > JIT_INSNS || r->insns == 0 || r->insns > JIT_INSNS || r->body > r->hot ||
        r->size != record_size(r) || r->size > most || r->sum != record_sum(r))
        return false;
    p = parts_of(r);
    for (unsigned i = 0; i < r->relocs; i++) {
        unsigned n = RELOC_INDEX(p.reloc[i]), kind = RELOC_KIND(p.reloc[i]);

        if (RELOC_POS(p.reloc[i]) + 4u > (RELOC_COLD(p.reloc[i]) ? r->cold : r->hot) ||
            (kind == RELOC_LINK && n >= r->links) ||
            (kind == RELOC_UOP && n >= r->uops && n < RELOC_BACK))
            return false;
    }
    for (unsigned i = 0; i < r->links; i++) {
        if (p.link[i].at + 4u > (p.link[i].at_cold ? r->cold : r->hot) ||
            p.link[i].cold > r->cold || p.link[i].target >= PAGE_SIZE)
            return false;
    }
    for (unsigned i = 0; i < r->uops; i++) {
        if (p.uop_at[i] >= PAGE_SIZE)
            return false;
    }
    for (unsigned i = 0; i < r->fields; i++) {
        unsigned f = p.field[i] & ~FIELD_BACK;

        if (f < r->lo || f + 4 > r->hi)
            return false;
    }
    return true;
}

const struct record *store_record(struct jit_store *s, uint64_t at)
{
    const struct record *r = (const void *)bytes_at(s, at, sizeof(*r));
    uint32_t size;

    if (r == NULL || r->size < sizeof(*r) || r->size > MOST_RECORD)
        return NULL;
    size = r->size;
    r = (const void *)bytes_at(s, at, size);
    return r;
}

void store_relocate(uint8_t *hot, uint8_t *cold, const uint32_t *reloc, unsigned n, int64_t by_hot,
                    int64_t by_cold)
{
    for (unsigned i = 0; i < n; i++) {
        bool in_cold = RELOC_COLD(reloc[i]);
        uint8_t *at = (in_cold ? cold : hot) + RELOC_POS(reloc[i]);
        uint32_t v;

        memcpy(&v, at, 4);
        if (RELOC_KIND(reloc[i]) == RELOC_FIXED)
            v -= (uint32_t)(in_cold ? by_cold : by_hot);
        else if (RELOC_KIND(reloc[i]) == RELOC_OTHER)
            v += (uint32_t)(in_cold ? by_hot - by_cold : by_cold - by_hot);
        memcpy(at, &v, 4);
    }
}

static void remember(struct jit_store *s, struct jit_block *b)
{
    if (s->blocks == s->room) {
        unsigned room = s->room != 0 ? 2 * s->room : 4096;
        struct jit_block **list = realloc(s->block, room * sizeof(struct jit_block *));

        if (list == NULL) {
            s->failed = true;
            return;
        }
        s->block = list;
        s->room = room;
    }
    s->block[s->blocks++] = b;
}

/* Puts a sound record into the cache. */
static struct jit_block *take(struct soft_cpu *cpu, const struct record *r, const struct parts *p,
                              uint64_t pa, const uint8_t *page, uint32_t by)
{
    struct jit *j = cpu->jit;
    struct jit_block *b = jit_alloc(j, sizeof(*b));
    struct jit_link *link = jit_alloc(j, r->links * sizeof(*link));
    uint32_t uop[JIT_INSNS];

    for (unsigned i = 0; i < r->uops; i++) {
        struct uop *u = jit_alloc(j, sizeof(*u));

        block_make_uop(cpu, page + p->uop_at[i], PAGE_SIZE - p->uop_at[i], p->uop_at[i], u);
        uop[i] = (uint32_t)((uint8_t *)u - j->arena);
    }
    memset(b, 0, sizeof(*b));
    memset(link, 0, r->links * sizeof(*link));
    memcpy(j->hot, p->hot, r->hot);
    memcpy(j->cold, p->cold, r->cold);
    store_relocate(j->hot, j->cold, p->reloc, r->relocs, j->hot - j->start_hot,
                   j->cold - j->start_cold);
    for (unsigned i = 0; i < r->relocs; i++) {
        unsigned kind = RELOC_KIND(p->reloc[i]), n = RELOC_INDEX(p->reloc[i]);
        uint8_t *at = (RELOC_COLD(p->reloc[i]) ? j->cold : j->hot) + RELOC_POS(p->reloc[i]);
        uint32_t v;

        if (kind == RELOC_LINK)
            v = (uint32_t)((uint8_t *)&link[n] - j->arena);
        else if (kind == RELOC_UOP && n >= RELOC_BACK)
            v = load32(at) + (n == RELOC_GUEST ? by : 0u - by);
        else if (kind == RELOC_UOP)
            v = uop[n];
        else
            continue;
        memcpy(at, &v, 4);
    }
    for (unsigned i = 0; i < r->links; i++)
        link[i] = (struct jit_link){
            .at = jit_offset(j, (p->link[i].at_cold ? j->cold : j->hot) + p->link[i].at),
            .cold = jit_offset(j, j->cold + p->link[i].cold),
            .target = p->link[i].target,
            .apart = p->link[i].apart,
            .from = b,
        };
    *b = (struct jit_block){
        .pa = pa,
        .body = jit_offset(j, j->hot + r->body),
        .entry = r->entry ? jit_offset(j, j->hot) : 0,
        .lo = r->lo,
        .hi = r->hi,
        .key = r->key,
        .insns = r->insns,
        .links = (uint8_t)r->links,
        .link = link,
    };
    j->hot += r->hot;
    j->cold += r->cold;
    return b;
}

/*
 * Has the guest the code that the record is for? *by: how far its addresses have moved.
 */
static bool fits(const struct record *r, const struct parts *p, const uint8_t *page, uint32_t *by)
{
    unsigned at = r->lo;

    *by = 0;
    for (unsigned i = 0; i < r->fields; i++) {
        unsigned f = p->field[i] & ~FIELD_BACK;
        bool back = (p->field[i] & FIELD_BACK) != 0;
        uint32_t now = load32(page + f), was = load32(p->guest + (f - r->lo));

        if (i == 0)
            *by = back ? was - now : now - was;
        if (f < at || memcmp(p->guest + (at - r->lo), page + at, f - at) != 0 ||
            now >> 30 != (back ? 1 : 2) || (back ? was - now : now - was) != *by)
            return false;
        at = f + 4;
    }
    return memcmp(p->guest + (at - r->lo), page + at, r->hi - at) == 0;
}

struct jit_block *store_find(struct soft_cpu *cpu, uint64_t pa, const uint8_t *page, unsigned key)
{
    struct jit *j = cpu->jit;
    struct jit_store *s = j->store;
    unsigned off = (unsigned)(pa & 4095);
    uint32_t hash;

    if (s->count == 0)
        return NULL;
    hash = store_place(page, off, key, smap_on(cpu));
    for (uint32_t n = s->head[hash & (HEADS - 1)]; n != 0; n = s->next[n - 1]) {
        const struct index *x = &s->index[n - 1];
        const struct record *r;
        struct jit_block *b;
        struct parts p;
        uint32_t by;

        if (x->hash != hash)
            continue;
        r = store_record(s, 8ull * x->at);
        if (r == NULL || r->off != off || r->key != key || r->smap != smap_on(cpu) ||
            !store_sound(r, MOST_RECORD))
            continue;
        p = parts_of(r);
        if (!fits(r, &p, page, &by))
            continue;
        b = take(cpu, r, &p, pa, page, by);
        b->origin = jit_alloc(j, sizeof(*b->origin));
        *b->origin = (struct jit_origin){.number = n};
        s->kept[n - 1] = 1;
        j->stats.loaded++;
        remember(s, b);
        jit_insert(j, b);
        return b;
    }
    return NULL;
}

/* ---- what the cache holds ---- */

void store_note(struct soft_cpu *cpu, struct jit_block *b)
{
    struct jit *j = cpu->jit;
    struct jit_store *s = j->store;
    const struct tx *t = j->tx;
    struct jit_origin *o;

    if (t->relocs > TX_RELOCS || (b->key & KEY_COUNT))
        return;
    o = b->origin =
        jit_alloc(j, sizeof(*o) + t->relocs * sizeof(uint32_t) +
                         (t->uops + t->fields) * sizeof(uint16_t) + (size_t)(b->hi - b->lo));
    *o = (struct jit_origin){
        .hot = jit_offset(j, t->hot_start),
        .cold = jit_offset(j, t->cold_start),
        .hot_len = (uint16_t)(j->hot - t->hot_start),
        .cold_len = (uint16_t)(j->cold - t->cold_start),
        .relocs = (uint16_t)t->relocs,
        .uops = (uint16_t)t->uops,
        .fields = (uint16_t)t->fields,
        .smap = smap_on(cpu),
        .hash = store_place(t->page, b->pa & 4095, b->key, smap_on(cpu)),
    };
    memcpy(origin_fields(o), t->field, t->fields * sizeof(uint16_t));
    memcpy(origin_guest(o), t->page + b->lo, (size_t)(b->hi - b->lo));
    memcpy(o->reloc, t->reloc, t->relocs * sizeof(uint32_t));
    memcpy(origin_uops(o), t->uop_at, t->uops * sizeof(uint16_t));
    s->fresh++;
    remember(s, b);
}

void store_forget(struct soft_cpu *cpu)
{
    struct jit_store *s = ((struct jit *)cpu->jit)->store;

    s->blocks = s->fresh = 0;
    if (s->count != 0)
        memset(s->kept, 0, s->count);
}

/* ---- opening ---- */

static bool read_index(struct jit_store *s)
{
    struct head h;
    struct stat st;

    if (fstat(s->fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid() ||
        (st.st_mode & 077) != 0 || st.st_size > MOST_FILE + MOST_FILE / 4)
        return false;
    if (pread(s->fd, &h, sizeof(h), 0) != (ssize_t)sizeof(h) ||
        memcmp(h.magic, STORE_MAGIC, sizeof(h.magic)) != 0 || h.identity != s->identity ||
        h.size != (uint64_t)st.st_size || h.count == 0 ||
        h.count > MOST_FILE / sizeof(struct record) || h.index > h.size ||
        h.size - h.index != h.count * sizeof(struct index))
        return false;
    s->index = malloc(h.count * sizeof(*s->index));
    s->next = calloc(h.count, sizeof(*s->next));
    s->kept = calloc(h.count, 1);
    if (s->index == NULL || s->next == NULL || s->kept == NULL ||
        pread(s->fd, s->index, h.count * sizeof(*s->index), (off_t)h.index) !=
            (ssize_t)(h.count * sizeof(*s->index)) ||
        h.sum != head_sum(&h, s->index))
        return false;
    s->size = h.index;
    s->count = (unsigned)h.count;
    for (unsigned i = s->count; i-- > 0;) {
        uint32_t *at = &s->head[s->index[i].hash & (HEADS - 1)];

        s->next[i] = *at;
        *at = i + 1;
    }
    return true;
}

void store_open(struct soft_cpu *cpu, const char *dir)
{
    struct jit *j = cpu->jit;
    struct jit_store *s = calloc(1, sizeof(*s));
    uint8_t id[64];
    size_t len = host_build_id(id, sizeof(id));

    if (s == NULL || len == 0 || cpu->vm->count || j->trace != NULL) {
        free(s);
        return;
    }
    s->fd = -1;
    s->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->dir < 0) {
        log_warn(cpu->vm->env.log, "translations are not kept for the next run: %s: %s", dir,
                 strerror(errno));
        free(s);
        return;
    }
    s->identity = identity(cpu, id, len);
    snprintf(s->name, sizeof(s->name), "code-%016llx", (unsigned long long)s->identity);
    s->fd = openat(s->dir, s->name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (s->fd >= 0 && !read_index(s))
        log_info(cpu->vm->env.log,
                 "the kept translations in %s/%s are of no use; they will be written anew", dir,
                 s->name);
    j->store = s;
}

void store_close(struct soft_cpu *cpu)
{
    struct jit *j = cpu->jit;
    struct jit_store *s = j->store;

    if (s == NULL)
        return;
    log_debug(cpu->vm->env.log, "%llu translations of an earlier run were used, %u made",
              (unsigned long long)j->stats.loaded, s->fresh);
    if (s->fresh >= WORTH && s->fresh >= s->count / 16 && !s->failed)
        store_save(cpu);
    if (s->fd >= 0)
        close(s->fd);
    close(s->dir);
    for (unsigned i = 0; i < WINDOWS; i++)
        free(s->window[i].bytes);
    free(s->index);
    free(s->next);
    free(s->kept);
    free(s->block);
    free(s);
    j->store = NULL;
}
