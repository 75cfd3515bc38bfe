#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/soft/jit/store_file.h"

/* Writing the translations of this run, and those of earlier ones, for the next. */

enum { KEEP_FILES = 4 };

struct writer {
    FILE *to;
    struct index *index;
    size_t count, room;
    uint64_t at;
    _Alignas(8) uint8_t buf[MOST_RECORD];
    /* for learn() */
    uint16_t field[TX_FIELDS];
    unsigned fields;
    uint32_t reloc[TX_RELOCS];
    uint8_t page[PAGE_SIZE], code[2][CODE_MOST];
};

static bool put_record(struct writer *w, const struct record *r)
{
    if (w->at + r->size > MOST_FILE)
        return true; /* full: the others are not kept */
    if (w->count == w->room) {
        size_t room = w->room != 0 ? 2 * w->room : 4096;
        struct index *list = realloc(w->index, room * sizeof(*list));

        if (list == NULL)
            return false;
        w->index = list;
        w->room = room;
    }
    w->index[w->count++] = (struct index){.hash = r->hash, .at = (uint32_t)(w->at / 8)};
    w->at += r->size;
    return fwrite(r, r->size, 1, w->to) == 1;
}

/* at: in units of 8 bytes */
static bool put_old(struct jit_store *s, struct writer *w, uint32_t at)
{
    const struct record *r = store_record(s, 8ull * at);

    return r == NULL || !store_sound(r) || put_record(w, r);
}

/* ---- addresses in the code ---- */

/* Translates the block's code again, where the cache goes on; what it needs is in jit.tx. */
static struct jit_block *again(struct soft_cpu *cpu, const struct jit_block *b, const uint8_t *page)
{
    struct jit *j = cpu->jit;
    uint8_t *hot = j->hot, *cold = j->cold;
    size_t used = j->arena_used;
    struct jit_block *made;

    if (j->hot_end - hot < CODE_MOST || j->cold_end - cold < CODE_MOST ||
        JIT_ARENA_SIZE - used < ARENA_MOST)
        return NULL; /* the cache is full, and what lies behind it is to be kept too */
    cpu->st.cr4 = b->origin->smap ? cpu->st.cr4 | X86_CR4_SMAP : cpu->st.cr4 & ~X86_CR4_SMAP;
    made = jit_translate(cpu, JIT_NOWHERE, b->pa, page, b->key, b->entry == b->origin->hot);
    j->hot = hot;
    j->cold = cold;
    j->arena_used = used;
    return made;
}

static int by_number(const void *a, const void *b)
{
    uint16_t p, q;

    memcpy(&p, a, sizeof(p));
    memcpy(&q, b, sizeof(q));
    return (int)(p & ~FIELD_BACK) - (int)(q & ~FIELD_BACK);
}

/* In order, each once, none over another. */
static unsigned sort_fields(uint16_t *field, unsigned n)
{
    unsigned kept = 0;

    qsort(field, n, sizeof(*field), by_number);
    for (unsigned i = 0; i < n; i++) {
        if (kept == 0 || (field[i] & ~FIELD_BACK) >= (field[kept - 1] & ~FIELD_BACK) + 4)
            field[kept++] = field[i];
        else if (field[i] != field[kept - 1])
            return 0; /* the same bytes, seen as different instructions */
    }
    return kept;
}

/*
 * Where `a` and `b` differ by `by`, as relocations; false: they differ in another way, or `a` is
 * not what the code was.
 */
static bool find_sites(const uint8_t *was, const uint8_t *a, const uint8_t *b, unsigned len,
                       bool cold, uint32_t by, uint32_t *reloc, uint16_t *relocs)
{
    for (unsigned i = 0; i < len; i++) {
        uint32_t moved;

        if (a[i] == b[i])
            continue;
        if (i + 4 > len || load32(a + i) != load32(was + i) || *relocs == TX_RELOCS)
            return false;
        moved = load32(b + i) - load32(a + i);
        if (moved != by && moved != 0u - by)
            return false;
        reloc[(*relocs)++] = RELOC(RELOC_UOP, cold, moved == by ? RELOC_GUEST : RELOC_BACK, i);
        i += 3;
    }
    return true;
}

/* The bytes that the block depends on, where they are in their page. */
static void put_guest(struct writer *w, struct jit_origin *o)
{
    const uint8_t *from = origin_guest(o);

    for (unsigned i = 0; i < o->spans; i++) {
        const uint16_t *span = origin_spans(o)[i];

        memcpy(w->page + span[0], from, (size_t)(span[1] - span[0]));
        from += span[1] - span[0];
    }
}

/*
 * Finds where the host code holds the guest's addresses, from what changes in it if they do. In
 * w->reloc, behind those that there are; false: it cannot be said.
 */
static bool learn(struct soft_cpu *cpu, struct writer *w, const struct jit_block *b,
                  uint16_t *relocs)
{
    struct jit *j = cpu->jit;
    struct jit_origin *o = b->origin;
    const struct tx *t = j->tx;
    uint32_t by, first;

    put_guest(w, o);
    first = load32(w->page + (w->field[0] & ~FIELD_BACK));
    by = ((first & 0x20000000u) != 0) != ((w->field[0] & FIELD_BACK) != 0) ? 0u - 0x01010101u
                                                                           : 0x01010101u;
    if (again(cpu, b, w->page) == NULL || t->relocs != o->relocs ||
        (size_t)(t->hot.p - t->hot_start) != o->hot_len ||
        memcmp(t->reloc, o->reloc, o->relocs * sizeof(uint32_t)) != 0)
        return false;
    memcpy(w->code[0], t->hot_start, o->hot_len);
    memcpy(w->code[1], t->cold_start, o->cold_len);
    for (unsigned i = 0; i < w->fields; i++) {
        unsigned at = w->field[i] & ~FIELD_BACK;
        bool back = (w->field[i] & FIELD_BACK) != 0;
        uint32_t was = load32(w->page + at), v = back ? was - by : was + by;

        if (back ? !is_distance(v) : !is_address(v))
            return false;
        memcpy(w->page + at, &v, 4);
    }
    if (again(cpu, b, w->page) == NULL || t->relocs != o->relocs ||
        (size_t)(t->hot.p - t->hot_start) != o->hot_len ||
        memcmp(t->reloc, o->reloc, o->relocs * sizeof(uint32_t)) != 0)
        return false;
    return find_sites(jit_at(j, o->hot), w->code[0], t->hot_start, o->hot_len, false, by, w->reloc,
                      relocs) &&
           find_sites(jit_at(j, o->cold), w->code[1], t->cold_start, o->cold_len, true, by,
                      w->reloc, relocs);
}

/* ---- records ---- */

static void put_links(struct writer *w, const struct jit_block *b, const struct parts *p)
{
    const struct jit_origin *o = b->origin;
    struct link_record *to = (void *)(w->buf + ((const uint8_t *)p->link - w->buf));

    for (unsigned i = 0; i < b->links; i++) {
        const struct jit_link *l = &b->link[i];
        bool in_cold = l->at >= o->cold && l->at < o->cold + o->cold_len;
        int32_t open = (int32_t)(l->cold - (l->at + 4));

        to[i] = (struct link_record){.at = (uint16_t)(l->at - (in_cold ? o->cold : o->hot)),
                                     .cold = (uint16_t)(l->cold - o->cold),
                                     .target = l->target,
                                     .apart = l->apart,
                                     .at_cold = in_cold};
        memcpy(w->buf + ((in_cold ? p->cold : p->hot) - w->buf) + to[i].at, &open, 4);
    }
}

static void put_part(struct writer *w, const void *part, const void *from, size_t len)
{
    memcpy(w->buf + ((const uint8_t *)part - w->buf), from, len);
}

static bool put_new(struct soft_cpu *cpu, struct writer *w, const struct jit_block *b)
{
    struct jit *j = cpu->jit;
    struct jit_origin *o = b->origin;
    struct record *r = (void *)w->buf;
    uint16_t relocs = o->relocs;
    struct parts p;

    if (b->dead && b->entry == o->hot)
        memcpy(jit_at(j, b->entry), b->first, sizeof(b->first));
    memcpy(w->reloc, o->reloc, o->relocs * sizeof(uint32_t));
    memcpy(w->field, origin_fields(o), o->fields * sizeof(uint16_t));
    w->fields = sort_fields(w->field, o->fields);
    if (w->fields != 0 && (w->fields > UINT8_MAX || !learn(cpu, w, b, &relocs))) {
        w->fields = 0;
        relocs = o->relocs;
    }
    *r = (struct record){
        .off = b->pa & 4095,
        .key = b->key,
        .lo = b->lo,
        .hi = b->hi,
        .hot = o->hot_len,
        .cold = o->cold_len,
        .relocs = relocs,
        .uops = o->uops,
        .links = b->links,
        .body = (uint16_t)(b->body - o->hot),
        .insns = b->insns,
        .polls = b->polls,
        .smap = o->smap,
        .entry = b->entry == o->hot,
        .fields = (uint8_t)w->fields,
        .spans = (uint8_t)o->spans,
        .guest = o->guest,
    };
    r->size = (uint32_t)record_size(r);
    if (r->size > MOST_RECORD)
        return true;
    memset(r + 1, 0, r->size - sizeof(*r));
    p = parts_of(r);
    put_part(w, p.guest, origin_guest(o), o->guest);
    put_part(w, p.span, origin_spans(o), o->spans * sizeof(uint32_t));
    put_part(w, p.hot, jit_at(j, o->hot), o->hot_len);
    put_part(w, p.cold, jit_at(j, o->cold), o->cold_len);
    put_part(w, p.reloc, w->reloc, relocs * sizeof(uint32_t));
    put_part(w, p.uop_at, origin_uops(o), o->uops * sizeof(uint16_t));
    put_part(w, p.field, w->field, w->fields * sizeof(uint16_t));
    put_links(w, b, &p);
    store_relocate(w->buf + (p.hot - w->buf), w->buf + (p.cold - w->buf), o->reloc, o->relocs,
                   (j->start_hot - j->rw) - (int64_t)o->hot,
                   (j->start_cold - j->rw) - (int64_t)o->cold);
    r->hash = o->hash;
    r->sum = record_sum(r);
    return put_record(w, r);
}

/* The index, and the head's words about it. NULL without memory. */
static struct index *make_table(const struct writer *w, struct head *h)
{
    struct index *table;

    h->slots = 1024;
    while (h->slots < 2 * w->count)
        h->slots *= 2;
    table = calloc(h->slots, sizeof(*table));
    if (table == NULL)
        return NULL;
    for (size_t i = 0; i < w->count; i++) {
        size_t at = w->index[i].hash & (h->slots - 1);

        while (table[at].at != 0)
            at = (at + 1) & (h->slots - 1);
        table[at] = w->index[i];
    }
    h->index = w->at;
    h->count = w->count;
    h->size = w->at + h->slots * sizeof(*table);
    h->sum = head_sum(h, table);
    return table;
}

static bool put_all(struct soft_cpu *cpu, struct writer *w)
{
    struct jit_store *s = ((struct jit *)cpu->jit)->store;
    struct head h = {.identity = s->identity};
    struct index *table;
    uint8_t *done = calloc(s->size / 8 + 1, 1); /* records, by where they are */
    bool ok;

    if (done == NULL)
        return false;
    memcpy(h.magic, STORE_MAGIC, sizeof(h.magic));
    w->at = sizeof(h);
    ok = fwrite(&h, sizeof(h), 1, w->to) == 1;
    for (unsigned i = 0; ok && i < s->blocks; i++) {
        const struct jit_origin *o = s->block[i]->origin;

        /* those that the guest has overwritten too: it will do the same again */
        ok = o->at == 0 ? put_new(cpu, w, s->block[i]) : done[o->at] || put_old(s, w, o->at);
        done[o->at] = 1;
    }
    for (unsigned i = 0; ok && i < s->slots; i++) {
        uint32_t at = s->index[i].at;

        if (at != 0 && at <= s->size / 8 && !done[at])
            ok = put_old(s, w, at);
    }
    free(done);
    table = ok ? make_table(w, &h) : NULL;
    ok = table != NULL && fwrite(table, h.slots * sizeof(*table), 1, w->to) == 1 &&
         fseek(w->to, 0, SEEK_SET) == 0 && fwrite(&h, sizeof(h), 1, w->to) == 1;
    free(table);
    return ok;
}

/*
 * Other builds and other processors have files of their own: all but the newest few go, so that the
 * directory does not grow for ever. Unfinished ones of programs that were killed count as well.
 */
static void tidy(const struct jit_store *s)
{
    struct {
        char name[64];
        int64_t when;
    } newest[KEEP_FILES];
    unsigned n = 0;
    int fd = openat(s->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = fd >= 0 ? fdopendir(fd) : NULL;
    const struct dirent *e;
    struct stat st;

    while (list != NULL && (e = readdir(list)) != NULL) {
        unsigned oldest = 0;

        if (strncmp(e->d_name, "code-", 5) != 0 || strlen(e->d_name) >= sizeof(newest[0].name) ||
            fstatat(s->dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        for (unsigned i = 1; i < n; i++) {
            if (newest[i].when < newest[oldest].when)
                oldest = i;
        }
        if (n < KEEP_FILES) {
            oldest = n++;
        } else if (st.st_mtime <= newest[oldest].when) {
            unlinkat(s->dir, e->d_name, 0);
            continue;
        } else {
            unlinkat(s->dir, newest[oldest].name, 0);
        }
        memcpy(newest[oldest].name, e->d_name, strlen(e->d_name) + 1);
        newest[oldest].when = st.st_mtime;
    }
    if (list != NULL)
        closedir(list);
    else if (fd >= 0)
        close(fd);
}

/* A file of another name first, so that who reads sees the old one or all of the new one. */
void store_save(struct soft_cpu *cpu)
{
    struct jit_store *s = ((struct jit *)cpu->jit)->store;
    struct writer *w = calloc(1, sizeof(*w));
    char name[64];
    bool ok;
    int fd;

    snprintf(name, sizeof(name), "%s.%ld", s->name, (long)getpid());
    fd = w != NULL
             ? openat(s->dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600)
             : -1;
    if (fd >= 0)
        w->to = fdopen(fd, "w");
    if (fd >= 0 && w->to == NULL)
        close(fd);
    ok = w != NULL && w->to != NULL && put_all(cpu, w);
    if (w != NULL && w->to != NULL)
        ok = fclose(w->to) == 0 && ok;
    if (ok)
        ok = renameat(s->dir, name, s->dir, s->name) == 0;
    if (!ok) {
        log_warn(cpu->vm->env.log,
                 "translations are not kept for the next run: %s (see --jit-cache)",
                 strerror(errno));
        if (fd >= 0)
            unlinkat(s->dir, name, 0);
    } else {
        tidy(s);
        log_debug(cpu->vm->env.log, "%zu translated blocks kept in %s", w->count, s->name);
    }
    if (w != NULL)
        free(w->index);
    free(w);
}
