/*
 * Random requests, several under way at once, against a model in memory: on raw files and in
 * memory, inline, by threads and by io_uring, with and without the host's cache. Requests under way
 * do not overlap, so that each has one right answer. BLOCK_SEED and BLOCK_COUNT choose others.
 */
#include "block_fixture.h"

#include <errno.h>
#include <time.h>

#define SECTORS 4096u /* 2 MiB */
#define SIZE (SECTORS * 512u)
#define DEPTH 12u
#define PIECES 40u

struct flight {
    struct block_request r;
    struct random *all;
    struct iovec iov[PIECES];
    uint8_t *memory; /* of the whole request, and some to misalign it */
    bool used;
};

struct random {
    struct disk *d;
    uint64_t seed;
    uint8_t *model;
    uint8_t *known;   /* by sector: 0: was discarded, may be anything */
    uint8_t *written; /* by sector: a write or zero is under way */
    struct flight f[DEPTH];
    unsigned under_way, ended;
};

/* splitmix64 */
static uint32_t rnd(struct random *t, uint32_t below)
{
    uint64_t z = (t->seed += 0x9e3779b97f4a7c15ull);

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return (uint32_t)(((z ^ z >> 31) >> 32) * below >> 32);
}

static void check_read(struct random *t, struct flight *f)
{
    uint64_t offset = f->r.offset;
    size_t at = 0;
    uint8_t *flat = malloc((size_t)f->r.len);

    for (unsigned i = 0; i < f->r.iov_count; i++) {
        memcpy(flat + at, f->iov[i].iov_base, f->iov[i].iov_len);
        at += f->iov[i].iov_len;
    }
    for (uint64_t s = 0; s < f->r.len; s += 512) {
        if (t->known[(offset + s) / 512])
            must(memcmp(flat + s, t->model + offset + s, 512) == 0);
    }
    free(flat);
}

static void mark(struct random *t, const struct flight *f, int add)
{
    for (uint64_t s = f->r.offset / 512; s < (f->r.offset + f->r.len) / 512; s++)
        t->written[s] = (uint8_t)(t->written[s] + add);
}

/* With the disk's lock. */
static void flight_done(struct block_request *r, int rc)
{
    struct flight *f = container_of(r, struct flight, r);
    struct random *t = f->all;

    must(rc == 0);
    if (r->op == BLOCK_READ)
        check_read(t, f);
    mark(t, f, -1);
    free(f->memory);
    f->used = false;
    t->under_way--;
    t->ended++;
    pthread_cond_broadcast(&t->d->ended);
}

static bool is_free(struct random *t, uint64_t from, uint64_t len)
{
    for (uint64_t s = from / 512; s < (from + len) / 512; s++) {
        if (t->written[s] != 0)
            return false;
    }
    return true;
}

/* Cuts the memory into pieces of any length, at any address. */
static void scatter(struct random *t, struct flight *f)
{
    size_t len = (size_t)f->r.len, at = 0;
    unsigned n = 0, align = rnd(t, 3) == 0 ? 1 : rnd(t, 2) == 0 ? 512 : 4096;
    uint8_t *base;

    assert_int_equal(posix_memalign((void **)&f->memory, 4096, len + 4096 * (PIECES + 1)), 0);
    base = f->memory + (align == 1 ? rnd(t, 4096) : 0);
    while (at < len && n < PIECES) {
        size_t part = n == PIECES - 1 ? len - at : rnd(t, (uint32_t)(len - at) + 1);

        if (align > 1 && n < PIECES - 1)
            part = (size_t)align_up(part, align);
        if (part > len - at)
            part = len - at;
        f->iov[n++] = (struct iovec){.iov_base = base, .iov_len = part};
        base += part + (align == 1 ? rnd(t, 100) : 0);
        at += part;
    }
    f->r.iov = f->iov;
    f->r.iov_count = n;
}

static void fill(struct random *t, struct flight *f)
{
    uint64_t offset = f->r.offset;

    for (unsigned i = 0; i < f->r.iov_count; i++) {
        uint8_t *p = f->iov[i].iov_base;

        for (size_t n = 0; n < f->iov[i].iov_len; n++)
            t->model[offset + n] = p[n] = (uint8_t)rnd(t, 256);
        offset += f->iov[i].iov_len;
    }
}

/* What the disk will hold, once this is done. */
static void foresee(struct random *t, struct flight *f)
{
    bool known = f->r.op != BLOCK_DISCARD;

    if (f->r.op == BLOCK_READ || f->r.op == BLOCK_FLUSH)
        return;
    if (f->r.op == BLOCK_ZERO)
        memset(t->model + f->r.offset, 0, (size_t)f->r.len);
    for (uint64_t s = f->r.offset / 512; s < (f->r.offset + f->r.len) / 512; s++)
        t->known[s] = known;
}

static void submit_one(struct random *t, struct flight *f)
{
    static const enum block_op ops[] = {BLOCK_READ,  BLOCK_READ,    BLOCK_READ,
                                        BLOCK_WRITE, BLOCK_WRITE,   BLOCK_WRITE,
                                        BLOCK_ZERO,  BLOCK_DISCARD, BLOCK_FLUSH};
    enum block_op op = ops[rnd(t, countof(ops))];
    uint32_t sectors = 1 + (rnd(t, 8) == 0 ? rnd(t, 600) : rnd(t, 24));
    uint64_t from = (uint64_t)rnd(t, SECTORS - sectors + 1) * 512, len = (uint64_t)sectors * 512;

    if (op == BLOCK_FLUSH)
        from = len = 0;
    if (!is_free(t, from, len))
        return;
    *f = (struct flight){.all = t, .used = true};
    f->r = (struct block_request){.op = op,
                                  .offset = from,
                                  .len = len,
                                  .fua = rnd(t, 5) == 0,
                                  .punch = rnd(t, 2) == 0,
                                  .done = flight_done};
    if (op == BLOCK_READ || op == BLOCK_WRITE)
        scatter(t, f);
    if (op == BLOCK_WRITE)
        fill(t, f);
    foresee(t, f);
    mark(t, f, 1);
    t->under_way++;
    block_submit(t->d->b, &f->r);
}

/* What a device held before. */
static void load(struct random *t)
{
    int fd = open(t->d->path, O_RDONLY);

    assert_int_equal(pread(fd, t->model, SIZE, 0), SIZE);
    close(fd);
}

static void check_file(struct random *t)
{
    uint8_t *content = malloc(SIZE);
    int fd = open(t->d->path, O_RDONLY);

    assert_int_equal(pread(fd, content, SIZE, 0), SIZE);
    close(fd);
    for (unsigned s = 0; s < SECTORS; s++) {
        if (t->known[s])
            assert_memory_equal(content + s * 512, t->model + s * 512, 512);
    }
    free(content);
}

static void steps(struct random *t, unsigned count)
{
    while (t->ended < count) {
        unsigned plug = rnd(t, 4) == 0;

        if (plug)
            block_plug(t->d->b);
        for (unsigned i = 0; i < DEPTH; i++) {
            if (!t->f[i].used && rnd(t, 3) > 0)
                submit_one(t, &t->f[i]);
        }
        if (plug)
            block_unplug(t->d->b);
        if (rnd(t, 200) == 0) {
            block_drain(t->d->b);
            assert_int_equal(t->under_way, 0);
        }
        if (t->under_way > 0 && t->d->loop != NULL)
            pthread_cond_wait(&t->d->ended, &t->d->env.lock);
    }
}

static uint64_t number(const char *name, uint64_t dflt)
{
    const char *text = getenv(name);

    return text != NULL ? strtoull(text, NULL, 0) : dflt;
}

/* file: the image's path, "" for a new file, NULL for one in memory. */
static void run(bool loop, const char *options, const char *file)
{
    struct random t = {.d = disk_create(loop),
                       .seed = number("BLOCK_SEED", (uint64_t)time(NULL)),
                       .model = calloc(1, SIZE),
                       .known = malloc(SECTORS),
                       .written = calloc(1, SECTORS)};
    struct error err = {0};

    print_message("BLOCK_SEED=%llu %s %s\n", (unsigned long long)t.seed, loop ? "loop" : "inline",
                  options);
    memset(t.known, 1, SECTORS);
    if (file != NULL && file[0] == '\0')
        disk_file(t.d, SIZE);
    else if (file != NULL)
        snprintf(t.d->path, sizeof(t.d->path), "%s", file);
    if (file != NULL)
        load(&t);
    if (disk_open(t.d, options, false, &err) < 0) {
        print_message("skipped: %s\n", err.text);
    } else {
        pthread_mutex_lock(&t.d->env.lock);
        steps(&t, (unsigned)number("BLOCK_COUNT", 800));
        block_close(t.d->b); /* with requests under way */
        t.d->b = NULL;
        pthread_mutex_unlock(&t.d->env.lock);
        assert_int_equal(t.under_way, 0);
        if (file != NULL)
            check_file(&t);
    }
    if (file != NULL && file[0] != '\0')
        t.d->path[0] = '\0'; /* not ours to remove */
    disk_destroy(t.d);
    free(t.model);
    free(t.known);
    free(t.written);
}

static void test_inline(void **state)
{
    (void)state;
    run(false, "ram=2m", NULL);
    run(false, "nocache", "");
}

static void test_memory(void **state)
{
    (void)state;
    run(true, "ram=2m", NULL);
}

static void test_threads(void **state)
{
    (void)state;
    run(true, "aio=threads", "");
    run(true, "aio=threads,nocache", "");
}

static void test_uring(void **state)
{
    (void)state;
    run(true, "aio=io_uring", "");
    run(true, "aio=io_uring,nocache", "");
    run(true, "aio=io_uring,nocache,sync,sectorsize=512/4096", "");
}

/* A device whose blocks are larger than the disk's sectors: half a block is read, changed, written.
 */
static void test_large_blocks(void **state)
{
    struct disk *d = disk_create(false), *second = disk_create(false);
    char command[128], dev[48] = "";
    struct block_geometry g;
    FILE *p;

    (void)state;
    disk_file(d, SIZE);
    snprintf(command, sizeof(command), "losetup --find --show -b 4096 %s 2>/dev/null", d->path);
    p = popen(command, "r");
    if (p == NULL || fgets(dev, sizeof(dev), p) == NULL || strncmp(dev, "/dev/", 5) != 0) {
        print_message("skipped: no loop device can be had (losetup as root)\n");
    } else {
        dev[strcspn(dev, "\n")] = '\0';
        run(true, "aio=io_uring,nocache,sectorsize=512/4096", dev);
        run(true, "aio=threads,nocache,sectorsize=512/4096", dev);
        snprintf(second->path, sizeof(second->path), "%s", dev);
        disk_open_ok(second, ""); /* its own sectors, if nothing else is said */
        block_geometry(second->b, &g);
        assert_int_equal(g.sector, 4096);
        assert_int_equal(g.physical, 4096);
        disk_close(second);
        second->path[0] = '\0';
        snprintf(command, sizeof(command), "losetup -d %s", dev);
        assert_int_equal(system(command), 0);
    }
    if (p != NULL)
        pclose(p);
    disk_destroy(second);
    disk_destroy(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inline),       cmocka_unit_test(test_memory),
        cmocka_unit_test(test_threads),      cmocka_unit_test(test_uring),
        cmocka_unit_test(test_large_blocks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
