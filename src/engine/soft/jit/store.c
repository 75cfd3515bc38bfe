#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/soft/jit/store_file.h"
#include "host/memory.h"
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
             is_distance(load32(code + in->off_disp)))
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

bool store_sound(const struct record *r)
{
    return r->size == record_size(r) && r->sum == record_sum(r);
}

const struct record *store_record(struct jit_store *s, uint64_t at)
{
    const struct record *r = (const void *)(s->bytes + at);

    if ((at & 7) != 0 || at > s->size || s->size - at < sizeof(*r) || r->size < sizeof(*r) ||
        r->size > MOST_RECORD || r->size > s->size - at)
        return NULL;
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

/* Records lie in the order in which a boot used them: the next one is wanted soon. */
static void fetch_next(const struct jit_store *s, const struct record *r)
{
    const uint8_t *next = (const uint8_t *)r + r->size;

    for (unsigned i = 0; i < NEXT_BYTES && next + i < s->bytes + s->size; i += 64)
        __builtin_prefetch(next + i);
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
        uop[i] = jit_place(j, u);
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
            v = jit_place(j, &link[n]);
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
            .from = jit_place(j, b),
        };
    *b = (struct jit_block){
        .pa = pa,
        .body = jit_offset(j, j->hot + r->body),
        .entry = r->entry ? jit_offset(j, j->hot) : 0,
        .lo = r->lo,
        .hi = r->hi,
        .key = r->key,
        .insns = r->insns,
        .polls = r->polls,
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
    const uint8_t *guest = p->guest;
    unsigned n = 0;

    *by = 0;
    for (unsigned i = 0; i < r->spans; i++) {
        unsigned at = p->span[i][0], end = p->span[i][1];

        while (n < r->fields && (p->field[n] & ~FIELD_BACK) + 4 <= end) {
            unsigned f = p->field[n] & ~FIELD_BACK;
            bool back = (p->field[n] & FIELD_BACK) != 0;
            uint32_t now = load32(page + f), was;

            if (f < at || memcmp(guest, page + at, f - at) != 0)
                return false;
            was = load32(guest + (f - at));
            if (n++ == 0)
                *by = back ? was - now : now - was;
            if (!(back ? is_distance(now) : is_address(now)) ||
                (back ? was - now : now - was) != *by)
                return false;
            guest += f - at + 4;
            at = f + 4;
        }
        if (memcmp(guest, page + at, end - at) != 0)
            return false;
        guest += end - at;
    }
    return n == r->fields;
}

/* Makes a block of the record, if it is one for this code. */
static struct jit_block *try_record(struct soft_cpu *cpu, const struct record *r, uint64_t pa,
                                    const uint8_t *page, unsigned key)
{
    struct jit *j = cpu->jit;
    struct jit_store *s = j->store;
    uint64_t at = (uint64_t)((const uint8_t *)r - s->bytes);
    struct jit_block *b;
    struct parts p;
    uint32_t by;

    if (r->off != (pa & 4095) || r->key != key || r->smap != smap_on(cpu) || !store_sound(r))
        return NULL;
    fetch_next(s, r);
    p = parts_of(r);
    if (!fits(r, &p, page, &by))
        return NULL;
    b = take(cpu, r, &p, pa, page, by);
    b->origin = jit_alloc(j, sizeof(*b->origin));
    *b->origin = (struct jit_origin){.at = (uint32_t)(at / 8)};
    s->next = at + r->size;
    if (++j->stats.loaded % REST_AFTER == 0)
        host_file_rest(s->bytes, s->size);
    remember(s, b);
    jit_insert(j, b);
    return b;
}

/*
 * First among the records behind the last one, which lie in the order in which they were wanted
 * before; the index is a table so large that a look at it waits for memory.
 */
struct jit_block *store_find(struct soft_cpu *cpu, uint64_t pa, const uint8_t *page, unsigned key)
{
    struct jit *j = cpu->jit;
    struct jit_store *s = j->store;
    const struct record *r;
    struct jit_block *b;
    uint64_t at = s->next;
    uint32_t hash;

    if (s->slots == 0)
        return NULL;
    for (unsigned n = 0; n < AHEAD && (r = store_record(s, at)) != NULL; n++) {
        b = try_record(cpu, r, pa, page, key);
        if (b != NULL)
            return b;
        at += r->size;
    }
    hash = store_place(page, pa & 4095, key, smap_on(cpu));
    for (unsigned n = hash & (s->slots - 1); s->index[n].at != 0; n = (n + 1) & (s->slots - 1)) {
        r = s->index[n].hash == hash ? store_record(s, 8ull * s->index[n].at) : NULL;
        b = r != NULL ? try_record(cpu, r, pa, page, key) : NULL;
        if (b != NULL)
            return b;
    }
    return NULL;
}

/* ---- what the cache holds ---- */

static int by_start(const void *a, const void *b)
{
    const uint16_t *p = a, *q = b;

    return p[0] - q[0];
}

/* In order, none touching another; how many. */
static unsigned sort_spans(uint16_t (*span)[2], unsigned n)
{
    unsigned kept = 0;

    qsort(span, n, sizeof(*span), by_start);
    for (unsigned i = 0; i < n; i++) {
        uint16_t *last = kept != 0 ? span[kept - 1] : NULL;

        if (last != NULL && span[i][0] <= last[1]) {
            if (span[i][1] > last[1])
                last[1] = span[i][1];
            continue;
        }
        span[kept][0] = span[i][0];
        span[kept++][1] = span[i][1];
    }
    return kept;
}

void store_note(struct soft_cpu *cpu, struct jit_block *b)
{
    struct jit *j = cpu->jit;
    struct jit_store *s = j->store;
    struct tx *t = j->tx;
    struct jit_origin *o;
    unsigned spans, bytes = 0;
    uint8_t *guest;

    if (t->relocs > TX_RELOCS || t->spans > TX_SPANS || b->hi > PAGE_SIZE || (b->key & KEY_COUNT))
        return;
    spans = sort_spans(t->span, t->spans);
    for (unsigned i = 0; i < spans; i++)
        bytes += (unsigned)(t->span[i][1] - t->span[i][0]);
    o = b->origin =
        jit_alloc(j, sizeof(*o) + t->relocs * sizeof(uint32_t) + spans * sizeof(uint32_t) +
                         (t->uops + t->fields) * sizeof(uint16_t) + bytes);
    *o = (struct jit_origin){
        .hash = store_place(t->page, b->pa & 4095, b->key, smap_on(cpu)),
        .hot = jit_offset(j, t->hot_start),
        .cold = jit_offset(j, t->cold_start),
        .hot_len = (uint16_t)(j->hot - t->hot_start),
        .cold_len = (uint16_t)(j->cold - t->cold_start),
        .relocs = (uint16_t)t->relocs,
        .uops = (uint16_t)t->uops,
        .fields = (uint16_t)t->fields,
        .spans = (uint16_t)spans,
        .guest = (uint16_t)bytes,
        .smap = smap_on(cpu),
    };
    memcpy(o->reloc, t->reloc, t->relocs * sizeof(uint32_t));
    memcpy(origin_spans(o), t->span, spans * sizeof(uint32_t));
    memcpy(origin_uops(o), t->uop_at, t->uops * sizeof(uint16_t));
    memcpy(origin_fields(o), t->field, t->fields * sizeof(uint16_t));
    guest = origin_guest(o);
    for (unsigned i = 0; i < spans; i++) {
        unsigned len = (unsigned)(t->span[i][1] - t->span[i][0]);

        memcpy(guest, t->page + t->span[i][0], len);
        guest += len;
    }
    s->fresh++;
    remember(s, b);
}

void store_forget(struct soft_cpu *cpu)
{
    struct jit_store *s = ((struct jit *)cpu->jit)->store;

    s->blocks = s->fresh = 0;
    s->next = sizeof(struct head);
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
        h.size != (uint64_t)st.st_size || h.slots == 0 || (h.slots & (h.slots - 1)) != 0 ||
        h.slots > MOST_FILE / sizeof(struct record) || h.count >= h.slots || h.index > h.size ||
        h.size - h.index != h.slots * sizeof(struct index))
        return false;
    s->index = malloc(h.slots * sizeof(*s->index));
    s->size = h.index;
    s->next = sizeof(h);
    s->bytes = host_file_map(s->fd, s->size);
    if (s->index == NULL || s->bytes == NULL ||
        pread(s->fd, s->index, h.slots * sizeof(*s->index), (off_t)h.index) !=
            (ssize_t)(h.slots * sizeof(*s->index)) ||
        h.sum != head_sum(&h, s->index))
        return false;
    s->count = (unsigned)h.count;
    s->slots = (unsigned)h.slots;
    return true;
}

void store_rest(struct soft_cpu *cpu)
{
    struct jit *j = cpu->jit;
    struct jit_store *s = j->store;

    if (j->stats.loaded - s->rested < REST_AFTER / 16)
        return;
    s->rested = j->stats.loaded;
    host_file_rest(s->bytes, s->size);
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
    if (s->fresh >= cpu->vm->env.jit_worth && s->fresh >= s->count / 16 && !s->failed)
        store_save(cpu);
    if (s->fd >= 0)
        close(s->fd);
    close(s->dir);
    host_file_unmap(s->bytes, s->size);
    free(s->index);
    free(s->block);
    free(s);
    j->store = NULL;
}
