/*
 * qcow2 under power failures: random sequences of writes, zeros, discards, flushes and resizes on a
 * file that records (record.h). At random moments an image is made of what the disk may then hold;
 * it must pass the check without an error, and every sector must read as what was flushed or as
 * something written since.
 *
 *     qcow2-crash [--count N] [--seed N] [--faults] [--images DIR] [--qemu N] [-v]
 *     qcow2-crash --raw FILE SECTORS
 *
 * --faults: instead of crashes, a call that fails in each sequence. --images: start from the images
 * there, too (crash.sh makes them with qemu-img, from
 * what --raw writes). --qemu: qemu-img looks at one crash image in N.
 * A failure prints the seed of its sequence: --seed S --count 1 runs it again.
 */
#include <errno.h>
#include <getopt.h>
#include <glob.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/endian.h"
#include "block/qcow2.h"
#include "record.h"

/* What a sector may read as: numbers of writes, 0 for zeros. */
struct set {
    uint64_t *tag;
    unsigned count, room;
};

struct model {
    struct set live;  /* now; more than one after a write that failed */
    struct set crash; /* after a crash */
};

struct settings {
    uint64_t qemu; /* one crash image in so many */
    bool faults, verbose;
    glob_t images;
};

struct run {
    const struct settings *set;
    uint64_t seed;
    struct rng rng, crash_rng;
    struct record *file;
    struct qcow2 *q;
    const char *base; /* its backing file, or NULL */
    struct model *model;
    uint64_t sectors, room; /* of the disk */
    uint64_t tag;
    unsigned crash_one_in;
    bool failed, big; /* big: tables of the smallest clusters become full */
    uint64_t crashes, crash_size_min, qemu_checks;
    char what[160];
};

static bool set_has(const struct set *s, uint64_t tag)
{
    for (unsigned i = 0; i < s->count; i++) {
        if (s->tag[i] == tag)
            return true;
    }
    return false;
}

static void set_add(struct set *s, uint64_t tag)
{
    if (set_has(s, tag))
        return;
    if (s->count == s->room) {
        s->room = s->room * 2 + 2;
        s->tag = realloc(s->tag, s->room * sizeof(*s->tag));
    }
    s->tag[s->count++] = tag;
}

static void set_copy(struct set *to, const struct set *from)
{
    to->count = 0;
    for (unsigned i = 0; i < from->count; i++)
        set_add(to, from->tag[i]);
}

static void __attribute__((format(printf, 2, 3))) fail(struct run *r, const char *fmt, ...)
{
    va_list ap;

    if (r->failed)
        return;
    r->failed = true;
    printf("FAIL: seed %" PRIu64 " (%s): ", r->seed, r->what);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
}

/* ---- the content of sectors ---- */

static void fill(uint8_t *p, uint64_t sector, uint64_t tag)
{
    for (unsigned i = 0; i < SECTOR; i += 8)
        le64_store(p + i, tag == 0 ? 0 : tag << 24 | (sector & 0xffffff));
}

/* The tag; UINT64_MAX: no sector that fill has made for this place. */
static uint64_t tag_of(const uint8_t *p, uint64_t sector)
{
    uint64_t v = le64_load(p);

    if (memcmp(p, p + 8, SECTOR - 8) != 0)
        return UINT64_MAX;
    if (v == 0)
        return 0;
    return (v & 0xffffff) == (sector & 0xffffff) ? v >> 24 : UINT64_MAX;
}

static bool compare(struct run *r, struct qcow2 *q, uint64_t first, uint64_t count, bool crash)
{
    uint8_t *buf = malloc(count * SECTOR);
    struct iovec iov = {.iov_base = buf, .iov_len = count * SECTOR};
    int rc = qcow2_read(q, first * SECTOR, &iov, 1);

    if (rc < 0 && !((r->file->faults > 0) && !crash))
        fail(r, "sectors %" PRIu64 "+%" PRIu64 " cannot be read: %s", first, count, strerror(-rc));
    for (uint64_t i = 0; rc == 0 && i < count; i++) {
        const struct model *m = &r->model[first + i];
        uint64_t tag = tag_of(buf + i * SECTOR, first + i);

        if (!set_has(crash ? &m->crash : &m->live, tag)) {
            fail(r, "sector %" PRIu64 " reads as %" PRIx64 ", not %" PRIu64 " (of %u)%s", first + i,
                 tag, m->live.tag[0], (crash ? &m->crash : &m->live)->count,
                 crash ? ", after a crash" : "");
            break;
        }
    }
    free(buf);
    return !r->failed;
}

static void compare_all(struct run *r, struct qcow2 *q, bool crash)
{
    uint64_t sectors = min_u64(r->sectors, q->header.size / SECTOR), step = 4096;

    for (uint64_t at = 0; at < sectors; at += step) {
        if (!compare(r, q, at, min_u64(step, sectors - at), crash))
            return;
    }
}

/* ---- looking at images ---- */

static int open_base(void *ctx, const char *name, unsigned depth, struct bfile **file,
                     struct error *err)
{
    struct run *r = ctx;
    char path[512];
    struct bfile_flags flags = {.read_only = true};

    (void)name, (void)depth;
    snprintf(path, sizeof(path), "%.*s/%s", (int)(strrchr(r->base, '/') - r->base), r->base, name);
    return bfile_open(path, &flags, file, err);
}

static struct qcow2 *open_image(struct run *r, struct bfile *f, bool read_only, size_t slots,
                                struct error *err)
{
    struct block_open o = {.read_only = read_only, .backing = open_base, .backing_ctx = r};
    struct qcow2 *q = NULL;

    if (qcow2_open_slots(f, &o, slots, &q, err) < 0)
        return NULL;
    return q;
}

static void say(void *ctx, const char *text)
{
    struct run *r = ctx;

    if (!r->failed)
        printf("  %s\n", text);
}

static void check(struct run *r, struct bfile *f, bool leaks_too, const char *when)
{
    struct block_check c = {0};
    struct error err = {0};
    int rc = qcow2_check(f, false, &c, &err);

    if (rc < 0) {
        fail(r, "%s: %s", when, err.text);
    } else if (c.errors > 0 || (leaks_too && c.leaks > 0)) {
        c.say = say;
        c.ctx = r;
        qcow2_check(f, false, &c, &err);
        fail(r, "%s: %" PRIu64 " errors, %" PRIu64 " leaks", when, c.errors, c.leaks);
    }
}

/* qemu-img's check: 3 is leaks alone. */
static void qemu_check(struct run *r, struct bfile *f)
{
    const char *slash = r->base != NULL ? strrchr(r->base, '/') : NULL;
    char path[256], command[600];
    int fd, status;

    /* beside its backing file, if it has one */
    snprintf(path, sizeof(path), "%.*s/crash-XXXXXX", slash != NULL ? (int)(slash - r->base) : 4,
             slash != NULL ? r->base : "/tmp");
    fd = mkstemp(path);

    close(fd);
    record_save(f, path);
    snprintf(command, sizeof(command), "qemu-img check -f qcow2 %s >%s.out 2>&1", path, path);
    status = system(command);
    if (status != 0 && WEXITSTATUS(status) != 3) {
        fail(r, "qemu-img check says %d", WEXITSTATUS(status));
        snprintf(command, sizeof(command), "head -5 %s.out", path);
        (void)!system(command);
    }
    snprintf(command, sizeof(command), "%s.out", path);
    unlink(command);
    unlink(path);
    r->qemu_checks++;
}

/* The image is used again: what was whole stays so, and mending leaves nothing to mend. */
static void use_again(struct run *r, struct bfile *f)
{
    struct error err = {0};
    struct block_check c = {0};
    struct qcow2 *q = open_image(r, f, false, 64, &err);
    uint8_t buf[SECTOR] = {1};
    struct iovec iov = {.iov_base = buf, .iov_len = sizeof(buf)};

    if (q == NULL) {
        fail(r, "after a crash: %s", err.text);
        return;
    }
    for (int i = 0; i < 8; i++) {
        uint64_t at = rng_below(&r->crash_rng, q->header.size / SECTOR), tag;
        struct iovec one = iov;

        if (qcow2_read(q, at * SECTOR, &one, 1) < 0)
            continue;
        tag = tag_of(buf, at);
        if (tag != UINT64_MAX)
            qcow2_write(q, at * SECTOR, &one, 1); /* the same again */
    }
    compare_all(r, q, true);
    qcow2_close(q);
    check(r, f, false, "written after a crash");
    if (r->failed || qcow2_check(f, true, &c, &err) == 0)
        check(r, f, true, "mended after a crash");
    else
        fail(r, "mending: %s", err.text);
}

/* Before a flush most is still open. */
static void crash(void *ctx, bool flush)
{
    struct run *r = ctx;
    struct error err = {0};
    struct bfile *f;
    struct qcow2 *q;

    if (r->failed || r->crash_one_in == 0 ||
        rng_below(&r->crash_rng, flush ? min_u64(r->crash_one_in, 3) : r->crash_one_in) != 0)
        return;
    r->crashes++;
    f = record_crash(r->file, &r->crash_rng, false);
    check(r, f, false, "after a crash");
    q = open_image(r, f, true, 64, &err);
    if (q == NULL) {
        fail(r, "after a crash: %s", err.text);
    } else {
        compare_all(r, q, true);
        qcow2_close(q);
    }
    if (!r->failed && r->set->qemu > 0 && rng_below(&r->crash_rng, r->set->qemu) == 0)
        qemu_check(r, f);
    if (!r->failed && rng_below(&r->crash_rng, 4) == 0)
        use_again(r, f);
    bfile_close(f);
}

/* ---- operations ---- */

static void model_room(struct run *r, uint64_t sectors)
{
    if (sectors <= r->room)
        return;
    r->model = realloc(r->model, sectors * sizeof(*r->model));
    memset(r->model + r->room, 0, (sectors - r->room) * sizeof(*r->model));
    for (uint64_t i = r->room; i < sectors; i++) {
        set_add(&r->model[i].live, 0);
        set_add(&r->model[i].crash, 0);
    }
    r->room = sectors;
}

/* The crash may come inside the call: what it writes may be there from now on. */
static void model_begin(struct run *r, uint64_t first, uint64_t count, uint64_t tag)
{
    for (uint64_t i = first; i < first + count; i++)
        set_add(&r->model[i].crash, tag);
}

static void model_end(struct run *r, uint64_t first, uint64_t count, uint64_t tag, int rc)
{
    for (uint64_t i = first; i < first + count; i++) {
        if (rc == 0)
            r->model[i].live.count = 0;
        set_add(&r->model[i].live, tag);
    }
}

static void op_range(struct run *r, uint64_t *first, uint64_t *count)
{
    uint64_t per = r->q->cluster / SECTOR, most = rng_below(&r->rng, 4) == 0 ? 12 * per : 2 * per;

    if (r->big && rng_below(&r->rng, 2) == 0)
        most = 6000;
    *count = 1 + rng_below(&r->rng, min_u64(max_u64(most, 8), r->sectors));
    *first = rng_below(&r->rng, r->sectors - *count + 1);
    if (rng_below(&r->rng, 3) == 0) { /* whole clusters */
        *first = align_down(*first, per);
        *count = min_u64(align_up(*count, per), r->sectors - *first);
    }
    *count = min_u64(*count, 16384);
}

static void expect(struct run *r, int rc, const char *what)
{
    if (rc < 0 && !(r->file->faults > 0))
        fail(r, "%s: %s", what, strerror(-rc));
}

static void op_write(struct run *r)
{
    uint64_t first, count, tag = ++r->tag;
    struct iovec iov[3];
    unsigned n = 1;
    uint8_t *buf;
    int rc;

    op_range(r, &first, &count);
    buf = malloc(count * SECTOR);
    for (uint64_t i = 0; i < count; i++)
        fill(buf + i * SECTOR, first + i, tag);
    iov[0] = (struct iovec){.iov_base = buf, .iov_len = count * SECTOR};
    if (count > 2 && rng_below(&r->rng, 2) == 0) {
        iov[0].iov_len = 100;
        iov[1] = (struct iovec){.iov_base = buf + 100, .iov_len = 0};
        iov[2] = (struct iovec){.iov_base = buf + 100, .iov_len = count * SECTOR - 100};
        n = 3;
    }
    model_begin(r, first, count, tag);
    rc = qcow2_write(r->q, first * SECTOR, iov, n);
    expect(r, rc, "write");
    model_end(r, first, count, tag, rc);
    free(buf);
}

static void op_zero(struct run *r)
{
    uint64_t first, count;
    int rc;

    op_range(r, &first, &count);
    if (rng_below(&r->rng, 6) == 0) {
        first = rng_below(&r->rng, r->sectors);
        count = r->sectors - first;
    }
    model_begin(r, first, count, 0);
    rc = qcow2_zero(r->q, first * SECTOR, count * SECTOR, rng_below(&r->rng, 2) == 0);
    expect(r, rc, "zero");
    model_end(r, first, count, 0, rc);
}

static void op_flush(struct run *r)
{
    int rc = qcow2_commit(r->q, true);

    expect(r, rc, "flush");
    for (uint64_t i = 0; rc == 0 && i < r->sectors; i++)
        set_copy(&r->model[i].crash, &r->model[i].live);
}

static void op_read(struct run *r)
{
    uint64_t first, count;

    op_range(r, &first, &count);
    compare(r, r->q, first, count, false);
}

static void op_resize(struct run *r)
{
    uint64_t per = r->q->cluster / SECTOR, most = 400 * max_u64(per, 8), old = r->sectors, size;
    struct error err = {0};
    int rc;

    if (r->q->version < 3 && r->q->header.snapshots > 0)
        return;
    size = old + rng_below(&r->rng, 64 * per);
    if (size > most || r->big || rng_below(&r->rng, 3) == 0)
        size = 1 + old / 2 + rng_below(&r->rng, old / 2 + 1);
    model_room(r, max_u64(size, old));
    for (uint64_t i = size; i < old; i++)
        set_add(&r->model[i].crash, 0);
    rc = qcow2_resize(r->q, size * SECTOR, &err);
    expect(r, rc, err.text);
    for (uint64_t i = size; i < old; i++) {
        if (rc == 0)
            r->model[i].live.count = r->model[i].crash.count = 0;
        set_add(&r->model[i].live, 0);
        set_add(&r->model[i].crash, 0);
    }
    r->sectors = r->q->header.size / SECTOR;
}

static void op_reopen(struct run *r)
{
    struct error err = {0};
    uint64_t faults = r->file->faults;

    qcow2_close(r->q);
    r->file->fail_at = 0;
    /* a close that fails is as a crash */
    for (uint64_t i = 0; r->file->faults != faults && i < r->sectors; i++)
        set_copy(&r->model[i].live, &r->model[i].crash);
    check(r, &r->file->f, !(r->file->faults > 0), "closed");
    r->q = open_image(r, &r->file->f, false, 64ull << rng_below(&r->rng, 3), &err);
    if (r->q == NULL)
        fail(r, "open again: %s", err.text);
    if (r->set->faults && !(r->file->faults > 0))
        r->file->fail_at = r->file->calls + 1 + rng_below(&r->rng, 50);
}

/* ---- sequences ---- */

static void setup_new(struct run *r)
{
    static const unsigned bits[] = {9, 9, 9, 10, 11, 12, 12, 13, 14, 16, 16, 18, 21};
    unsigned b = bits[rng_below(&r->rng, countof(bits))];
    struct block_create o = {.cluster = 1u << b};
    struct error err = {0};

    o.version = rng_below(&r->rng, 4) == 0 ? 2 : 3;
    o.lazy_refcounts = o.version == 3 && rng_below(&r->rng, 4) == 0;
    o.zstd = o.version == 3 && rng_below(&r->rng, 4) == 0;
    r->big = b == 9 && rng_below(&r->rng, 2) == 0;
    o.size = SECTOR * (1 + rng_below(&r->rng, (b > 16 ? 8 : 100) * max_u64(o.cluster / SECTOR, 8)));
    if (r->big)
        o.size = SECTOR * (2000 + rng_below(&r->rng, 30000));
    snprintf(r->what, sizeof(r->what), "version %u, clusters of %u, %" PRIu64 " bytes", o.version,
             o.cluster, o.size);
    if (qcow2_create(&r->file->f, &o, &err) < 0)
        fail(r, "create: %s", err.text);
}

/* Sectors that were there before get their tags from the content. */
static void learn(struct run *r)
{
    uint8_t buf[SECTOR];

    for (uint64_t i = 0; i < r->sectors; i++) {
        struct iovec iov = {.iov_base = buf, .iov_len = sizeof(buf)};
        uint64_t tag;

        if (qcow2_read(r->q, i * SECTOR, &iov, 1) < 0) {
            fail(r, "sector %" PRIu64 " of a good image cannot be read", i);
            return;
        }
        tag = tag_of(buf, i);
        r->model[i].live.count = r->model[i].crash.count = 0;
        set_add(&r->model[i].live, tag);
        set_add(&r->model[i].crash, tag);
        if (tag != UINT64_MAX && tag > r->tag)
            r->tag = tag;
    }
}

static void step(struct run *r)
{
    uint64_t what = rng_below(&r->rng, 100);

    if (what < 45)
        op_write(r);
    else if (what < 60)
        op_zero(r);
    else if (what < 75)
        op_flush(r);
    else if (what < 92)
        op_read(r);
    else if (what < 96)
        op_resize(r);
    else
        op_reopen(r);
}

static void finish(struct run *r)
{
    struct error err = {0};

    r->file->fail_at = 0; /* what failed before can now be written */
    if (r->q != NULL) {
        if (!r->failed)
            compare_all(r, r->q, false);
        qcow2_close(r->q);
        r->q = NULL;
    }
    if (r->failed)
        return;
    check(r, &r->file->f, !(r->file->faults > 0), "at the end");
    r->q = open_image(r, &r->file->f, true, 64, &err);
    if (r->q == NULL) {
        fail(r, "at the end: %s", err.text);
        return;
    }
    compare_all(r, r->q, false);
    qcow2_close(r->q);
    r->q = NULL;
    if (!r->failed && r->set->qemu > 0 && rng_below(&r->crash_rng, r->set->qemu) == 0) {
        struct bfile *f = record_crash(r->file, &r->crash_rng, true);

        qemu_check(r, f);
        bfile_close(f);
    }
}

static void start(struct run *r)
{
    size_t images = r->set->images.gl_pathc;
    uint64_t pick = rng_below(&r->rng, images + images / 4 + 1);
    struct error err = {0};

    r->file = record_create("image");
    if (pick < images) {
        r->base = r->set->images.gl_pathv[pick];
        snprintf(r->what, sizeof(r->what), "%s", r->base);
        record_load(r->file, r->base);
        r->big = strstr(r->base, "/grow") != NULL;
    } else {
        setup_new(r);
    }
    if (r->failed)
        return;
    r->q = open_image(r, &r->file->f, false, 64ull << rng_below(&r->rng, 3), &err);
    if (r->q == NULL) {
        fail(r, "open: %s", err.text);
        return;
    }
    r->sectors = r->q->header.size / SECTOR;
    model_room(r, r->sectors);
    learn(r);
}

static bool sequence(const struct settings *set, uint64_t seed, uint64_t *crashes, uint64_t *qemu)
{
    struct run r = {.set = set, .seed = seed, .rng = {seed}, .crash_rng = {~seed}};
    unsigned steps;

    start(&r);
    steps = 5 + (unsigned)rng_below(&r.rng, 60);
    if (set->faults) {
        static const uint64_t lengths[] = {0, 0, 0, 1, 3, 10, 100};

        r.file->fail_at = r.file->calls + 1 + rng_below(&r.rng, 200);
        r.file->fail_for = lengths[rng_below(&r.rng, countof(lengths))];
        r.file->fault = (enum record_fault)rng_below(&r.rng, 3);
        r.crash_one_in = rng_below(&r.rng, 3) == 0 ? 40 : 0;
    } else {
        r.crash_one_in = 1 + (unsigned)rng_below(&r.rng, 30);
    }
    if (r.big || (r.q != NULL && r.q->cluster_bits > 16)) /* these take longer to look at */
        r.crash_one_in *= 8;
    r.file->before = crash;
    r.file->ctx = &r;
    if (set->verbose)
        printf("seed %" PRIu64 ": %s, %u steps\n", seed, r.what, steps);
    for (unsigned i = 0; i < steps && !r.failed && r.q != NULL; i++)
        step(&r);
    if (!r.failed)
        finish(&r);
    else if (r.q != NULL)
        qcow2_close(r.q);
    *crashes += r.crashes;
    *qemu += r.qemu_checks;
    for (uint64_t i = 0; i < r.room; i++) {
        free(r.model[i].live.tag);
        free(r.model[i].crash.tag);
    }
    free(r.model);
    record_destroy(r.file);
    return !r.failed;
}

/* A disk of runs of sectors that fill has made, and of zeros between them. */
static int make_raw(const char *path, uint64_t sectors)
{
    struct rng rng = {sectors};
    FILE *to = fopen(path, "wb");
    uint64_t tag = 0, left = 0;
    uint8_t buf[SECTOR];
    bool full = false;

    for (uint64_t i = 0; to != NULL && i < sectors; i++, left--) {
        if (left == 0) {
            left = 1 + rng_below(&rng, 40);
            full = rng_below(&rng, 10) < 6;
            tag++;
        }
        fill(buf, i, full ? tag : 0);
        fwrite(buf, 1, sizeof(buf), to);
    }
    return to == NULL || fclose(to) != 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"count", required_argument, NULL, 'c'}, {"seed", required_argument, NULL, 's'},
        {"faults", no_argument, NULL, 'f'},      {"images", required_argument, NULL, 'i'},
        {"qemu", required_argument, NULL, 'q'},  {NULL, 0, NULL, 0},
    };
    struct settings set = {0};
    uint64_t count = 100, seed = 1, failed = 0, crashes = 0, qemu = 0;
    char pattern[512];
    int c;

    if (argc == 4 && strcmp(argv[1], "--raw") == 0)
        return make_raw(argv[2], strtoull(argv[3], NULL, 0));
    while ((c = getopt_long(argc, argv, "v", options, NULL)) != -1) {
        if (c == 'c')
            count = strtoull(optarg, NULL, 0);
        else if (c == 's')
            seed = strtoull(optarg, NULL, 0);
        else if (c == 'f')
            set.faults = true;
        else if (c == 'q')
            set.qemu = strtoull(optarg, NULL, 0);
        else if (c == 'v')
            set.verbose = true;
        else if (c == 'i') {
            snprintf(pattern, sizeof(pattern), "%s/*.qcow2", optarg);
            glob(pattern, 0, NULL, &set.images);
        } else
            return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("%" PRIu64 " sequences from seed %" PRIu64 ", %zu images\n", count, seed,
           set.images.gl_pathc);
    for (uint64_t i = 0; i < count && failed < 5; i++)
        failed += !sequence(&set, seed + i, &crashes, &qemu);
    printf("%" PRIu64 " crashes looked at, %" PRIu64 " by qemu-img too; %" PRIu64
           " sequences failed\n",
           crashes, qemu, failed);
    globfree(&set.images);
    return failed > 0;
}
