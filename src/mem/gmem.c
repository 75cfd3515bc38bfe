#include "mem/gmem.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/endian.h"
#include "host/memory.h"

enum { GMEM_RANGES = 8 };

struct range {
    uint64_t gpa, size;
    uint8_t *hva;
    bool rom;
    _Atomic(uint32_t) *code;          /* of a page: who caches instructions of it, a bit each ... */
    _Atomic(uint32_t) *writers;       /* ... and who may write to it unnoticed */
    _Atomic(uint64_t) *_Atomic dirty; /* a bit a page; from the first log until gmem_destroy */
};

struct gmem {
    uint64_t low, high;
    uint8_t *ram;  /* low and high memory, one after the other */
    size_t mapped; /* bytes there, whole pages of their kind */
    unsigned count;
    struct range range[GMEM_RANGES]; /* fixed once vCPUs run */
    /* set while others write: the context first, and whose hook it is makes no difference */
    gmem_code_hook *_Atomic hook;
    void *_Atomic hook_ctx;
    atomic_bool log; /* written pages are noted */
    int (*log_take)(void *ctx, unsigned range, uint64_t *bits, size_t words);
    void *log_ctx;
    pthread_rwlock_t keepers; /* held to read by who keeps addresses, to write by gmem_log_take */
};

static size_t marks_size(uint64_t size)
{
    return size / GMEM_PAGE * sizeof(uint32_t);
}

static int add_range(struct gmem *m, uint64_t gpa, uint64_t size, uint8_t *hva, bool rom,
                     struct error *err)
{
    struct range *r = &m->range[m->count];

    if (m->count == GMEM_RANGES)
        return error_set(err, -ENOSPC, "too many memory ranges");
    r->code = host_memory_alloc(marks_size(size), err);
    r->writers = host_memory_alloc(marks_size(size), err);
    if (r->code == NULL || r->writers == NULL) {
        host_memory_free((void *)(uintptr_t)r->code, marks_size(size));
        host_memory_free((void *)(uintptr_t)r->writers, marks_size(size));
        return -ENOMEM;
    }
    r->gpa = gpa;
    r->size = size;
    r->hva = hva;
    r->rom = rom;
    m->count++;
    return 0;
}

static struct gmem *new_map(void)
{
    struct gmem *m = calloc(1, sizeof(*m));

    if (m != NULL && pthread_rwlock_init(&m->keepers, NULL) != 0) {
        free(m);
        return NULL;
    }
    return m;
}

static int get_ram(struct gmem *m, uint64_t size, const struct gmem_backing *how, struct error *err)
{
    unsigned long long mib = (unsigned long long)(size >> 20);
    size_t page = how->huge ? host_huge_page() : 0;

    m->mapped = (size_t)(page != 0 ? align_up(size, page) : size);
    m->ram = how->huge ? host_memory_alloc_huge(m->mapped, err) : host_memory_alloc(size, err);
    if (m->ram == NULL) {
        if (how->huge)
            error_prefix(err, "memory.hugepages: no %llu MiB of guest memory", mib);
        else
            error_prefix(err, "cannot get %llu MiB of guest memory; try a smaller -m", mib);
        return -ENOMEM;
    }
    if (how->wired && host_memory_wire(m->ram, m->mapped, err) < 0) {
        error_prefix(err, "cannot wire %llu MiB of guest memory, which -S asks for", mib);
        return -ENOMEM;
    }
    return 0;
}

struct gmem *gmem_create(uint64_t size, struct error *err)
{
    static const struct gmem_backing any;

    return gmem_create_backed(size, &any, err);
}

struct gmem *gmem_create_backed(uint64_t size, const struct gmem_backing *how, struct error *err)
{
    struct gmem *m;

    if (size == 0 || size % GMEM_PAGE != 0) {
        error_set(err, -EINVAL, "guest memory of %llu bytes is not a positive multiple of 4 KiB",
                  (unsigned long long)size);
        return NULL;
    }
    m = new_map();
    if (m == NULL) {
        error_set(err, -ENOMEM, "no memory for the map of guest memory");
        return NULL;
    }
    m->low = min_u64(size, GMEM_LOWMEM_MAX);
    m->high = size - m->low;
    if (get_ram(m, size, how, err) != 0 || add_range(m, 0, m->low, m->ram, false, err) != 0 ||
        (m->high != 0 && add_range(m, GMEM_HIGH_BASE, m->high, m->ram + m->low, false, err) != 0)) {
        gmem_destroy(m);
        return NULL;
    }
    return m;
}

struct gmem *gmem_create_over(const struct gmem_range *ranges, unsigned n, struct error *err)
{
    struct gmem *m = new_map();

    if (m == NULL) {
        error_set(err, -ENOMEM, "no memory for the map of guest memory");
        return NULL;
    }
    for (unsigned i = 0; i < n; i++) {
        if (add_range(m, ranges[i].gpa, ranges[i].size, ranges[i].hva, false, err) != 0) {
            gmem_destroy(m);
            return NULL;
        }
    }
    return m;
}

static size_t log_words(const struct range *r)
{
    return (size_t)((r->size / GMEM_PAGE + 63) / 64);
}

void gmem_destroy(struct gmem *m)
{
    if (m == NULL)
        return;
    for (unsigned i = 0; i < m->count; i++) {
        struct range *r = &m->range[i];

        host_memory_free((void *)(uintptr_t)r->code, marks_size(r->size));
        host_memory_free((void *)(uintptr_t)r->writers, marks_size(r->size));
        host_memory_free((void *)(uintptr_t)atomic_load(&r->dirty), 8 * log_words(r));
        if (r->rom)
            host_memory_free(r->hva, r->size);
    }
    host_memory_free(m->ram, m->mapped);
    pthread_rwlock_destroy(&m->keepers);
    free(m);
}

uint64_t gmem_size(const struct gmem *m)
{
    return m->low + m->high;
}

uint64_t gmem_lowmem(const struct gmem *m)
{
    return m->low;
}

uint64_t gmem_highmem(const struct gmem *m)
{
    return m->high;
}

int gmem_add_rom(struct gmem *m, uint64_t gpa, const void *data, uint64_t size, struct error *err)
{
    uint8_t *p;
    int rc;

    if (size == 0 || size % GMEM_PAGE != 0 || gpa % GMEM_PAGE != 0 || gpa + size < gpa)
        return error_set(err, -EINVAL, "a ROM must be a positive multiple of 4 KiB");
    for (unsigned i = 0; i < m->count; i++) {
        if (gpa < m->range[i].gpa + m->range[i].size && m->range[i].gpa < gpa + size)
            return error_set(err, -EEXIST, "the ROM overlaps other memory");
    }
    p = host_memory_alloc(size, err);
    if (p == NULL)
        return -ENOMEM;
    memcpy(p, data, size);
    rc = add_range(m, gpa, size, p, true, err);
    if (rc != 0)
        host_memory_free(p, size);
    return rc;
}

/* The range that holds all of [gpa, gpa+len), or NULL. */
static const struct range *find(const struct gmem *m, uint64_t gpa, size_t len)
{
    for (unsigned i = 0; i < m->count; i++) {
        const struct range *r = &m->range[i];

        if (gpa >= r->gpa && gpa - r->gpa < r->size && r->size - (gpa - r->gpa) >= len)
            return r;
    }
    return NULL;
}

const void *gmem_ptr_ro(struct gmem *m, uint64_t gpa, size_t len)
{
    const struct range *r = find(m, gpa, len);

    return r != NULL ? r->hva + (gpa - r->gpa) : NULL;
}

/* [gpa, gpa+len) lies in the range. */
static void note_dirty(const struct gmem *m, const struct range *r, uint64_t gpa, size_t len)
{
    _Atomic(uint64_t) *dirty;
    uint64_t first, last;

    if (likely(!atomic_load_explicit(&m->log, memory_order_relaxed)) || len == 0 || r->rom)
        return;
    dirty = atomic_load(&r->dirty);
    first = (gpa - r->gpa) / GMEM_PAGE;
    last = (gpa - r->gpa + len - 1) / GMEM_PAGE;
    for (uint64_t page = first; page <= last; page++)
        atomic_fetch_or(&dirty[page / 64], 1ull << (page % 64));
}

void *gmem_ptr(struct gmem *m, uint64_t gpa, size_t len)
{
    const struct range *r = find(m, gpa, len);

    if (r == NULL || r->rom)
        return NULL;
    note_dirty(m, r, gpa, len);
    return r->hva + (gpa - r->gpa);
}

int gmem_read(struct gmem *m, uint64_t gpa, void *to, size_t len)
{
    const void *p = gmem_ptr_ro(m, gpa, len);

    if (p == NULL)
        return -EFAULT;
    memcpy(to, p, len);
    return 0;
}

int gmem_write(struct gmem *m, uint64_t gpa, const void *from, size_t len)
{
    void *p = gmem_ptr(m, gpa, len);

    if (p == NULL)
        return -EFAULT;
    memcpy(p, from, len);
    gmem_written(m, gpa, len);
    return 0;
}

int gmem_fill(struct gmem *m, uint64_t gpa, int byte, size_t len)
{
    void *p = gmem_ptr(m, gpa, len);

    if (p == NULL)
        return -EFAULT;
    memset(p, byte, len);
    gmem_written(m, gpa, len);
    return 0;
}

/* A device that reads an aligned ring index must see it whole. */
uint16_t gmem_read16(struct gmem *m, uint64_t gpa)
{
    const void *p = gmem_ptr_ro(m, gpa, 2);

    return p == NULL ? UINT16_MAX : le16_load(p);
}

uint32_t gmem_read32(struct gmem *m, uint64_t gpa)
{
    const void *p = gmem_ptr_ro(m, gpa, 4);

    return p == NULL ? UINT32_MAX : le32_load(p);
}

uint64_t gmem_read64(struct gmem *m, uint64_t gpa)
{
    const void *p = gmem_ptr_ro(m, gpa, 8);

    return p == NULL ? UINT64_MAX : le64_load(p);
}

static _Atomic(uint32_t) *mark_of(const struct gmem *m, uint64_t gpa, bool writers)
{
    const struct range *r = find(m, gpa, 1);

    return r != NULL ? &(writers ? r->writers : r->code)[(gpa - r->gpa) / GMEM_PAGE] : NULL;
}

static void call_hook(const struct gmem *m, uint64_t page, uint32_t who)
{
    gmem_code_hook *hook = atomic_load(&m->hook);
    void *ctx = atomic_load(&m->hook_ctx);

    if (hook != NULL && ctx != NULL)
        hook(ctx, page, who);
}

void gmem_written(struct gmem *m, uint64_t gpa, size_t len)
{
    const struct range *r = atomic_load(&m->log) ? find(m, gpa, len) : NULL;
    uint64_t end = gpa + len;

    if (r != NULL)
        note_dirty(m, r, gpa, len);
    if (len == 0 || atomic_load(&m->hook) == NULL)
        return;
    atomic_thread_fence(memory_order_seq_cst); /* the bytes, then a look at the marks */
    for (uint64_t page = align_down(gpa, GMEM_PAGE); page < end; page += GMEM_PAGE) {
        _Atomic(uint32_t) *mark = mark_of(m, page, false);
        uint32_t who = mark != NULL && atomic_load(mark) != 0 ? atomic_exchange(mark, 0) : 0;

        if (who != 0)
            call_hook(m, page, who);
    }
}

void gmem_set_code_hook(struct gmem *m, gmem_code_hook *hook, void *ctx)
{
    atomic_store(&m->hook_ctx, ctx);
    atomic_store(&m->hook, hook);
}

uint32_t gmem_mark_code(struct gmem *m, uint64_t gpa_page, uint32_t who)
{
    _Atomic(uint32_t) *mark = mark_of(m, gpa_page, false);

    return mark != NULL ? atomic_fetch_or(mark, who) : who;
}

uint32_t gmem_take_code(struct gmem *m, uint64_t gpa_page, uint32_t keep)
{
    _Atomic(uint32_t) *mark = mark_of(m, gpa_page, false);

    return mark != NULL ? atomic_fetch_and(mark, keep) : 0;
}

uint32_t gmem_is_code(const struct gmem *m, uint64_t gpa_page)
{
    _Atomic(uint32_t) *mark = mark_of(m, gpa_page, false);

    return mark != NULL ? atomic_load(mark) : 0;
}

uint32_t gmem_set_writer(struct gmem *m, uint64_t gpa_page, uint32_t who)
{
    _Atomic(uint32_t) *mark = mark_of(m, gpa_page, true);

    if (mark == NULL)
        return 0;
    return who != 0 ? atomic_fetch_or(mark, who) : atomic_load(mark);
}

void gmem_clear_writer(struct gmem *m, uint64_t gpa_page, uint32_t who)
{
    _Atomic(uint32_t) *mark = mark_of(m, gpa_page, true);

    if (mark != NULL)
        atomic_fetch_and(mark, ~who);
}

void gmem_clear_writer_all(struct gmem *m, uint32_t who)
{
    for (unsigned i = 0; i < m->count; i++) {
        const struct range *r = &m->range[i];

        for (uint64_t page = 0; page < r->size / GMEM_PAGE; page++) {
            if (atomic_load_explicit(&r->writers[page], memory_order_relaxed) & who)
                atomic_fetch_and(&r->writers[page], ~who);
        }
    }
}

/* ---- the log of written pages ---- */

int gmem_log_begin(struct gmem *m,
                   int (*take)(void *ctx, unsigned range, uint64_t *bits, size_t words), void *ctx,
                   struct error *err)
{
    atomic_store(&m->log, false);
    for (unsigned i = 0; i < m->count; i++) {
        struct range *r = &m->range[i];
        _Atomic(uint64_t) *dirty = atomic_load(&r->dirty);

        if (dirty == NULL)
            dirty = host_memory_alloc(8 * log_words(r), err);
        if (dirty == NULL)
            return -ENOMEM;
        for (size_t w = 0; w < log_words(r); w++)
            atomic_store_explicit(&dirty[w], 0, memory_order_relaxed);
        atomic_store(&r->dirty, dirty);
    }
    pthread_rwlock_wrlock(&m->keepers); /* who keeps an address has been given it unnoticed */
    m->log_take = take;
    m->log_ctx = ctx;
    atomic_store(&m->log, true);
    pthread_rwlock_unlock(&m->keepers);
    return 0;
}

/* The bits stay where they are: another thread may be about to set one. */
void gmem_log_end(struct gmem *m)
{
    atomic_store(&m->log, false);
}

bool gmem_log_on(const struct gmem *m)
{
    return atomic_load(&m->log);
}

int gmem_log_take(struct gmem *m, unsigned n, uint64_t *bits, size_t words)
{
    _Atomic(uint64_t) *dirty;
    int rc = 0;

    if (!atomic_load(&m->log) || n >= m->count || words < log_words(&m->range[n]))
        return -EINVAL;
    dirty = atomic_load(&m->range[n].dirty);
    pthread_rwlock_wrlock(&m->keepers);
    for (size_t w = 0; w < log_words(&m->range[n]); w++)
        bits[w] |= atomic_load(&dirty[w]) != 0 ? atomic_exchange(&dirty[w], 0) : 0;
    if (m->log_take != NULL)
        rc = m->log_take(m->log_ctx, n, bits, words);
    pthread_rwlock_unlock(&m->keepers);
    return rc;
}

void gmem_keeper_begin(struct gmem *m)
{
    pthread_rwlock_rdlock(&m->keepers);
}

void gmem_keeper_end(struct gmem *m)
{
    pthread_rwlock_unlock(&m->keepers);
}

bool gmem_range(const struct gmem *m, unsigned n, struct gmem_range *out)
{
    if (n >= m->count)
        return false;
    *out = (struct gmem_range){m->range[n].gpa, m->range[n].size, m->range[n].hva, m->range[n].rom};
    return true;
}
