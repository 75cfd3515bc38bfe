/*
 * What a disk may hold after a crash, from the record of xhyve-record:
 *
 *     guest-crash --trace FILE --image FILE --out DIR [--count N] [--seed N] [--unit BYTES]
 *                 [--then COMMAND]
 *     guest-crash --check PROMISES NUMBER FOLDER
 *
 * The first opened file of the trace is the disk, which was --image before; on the second the guest
 * says what it promises (promise.h). At N moments (half of them when something has just been
 * promised) DIR/crash-K.img becomes what the disk may then hold, K from 0, and DIR/promises what
 * must be there of it. COMMAND is run after each, with K as its argument; the image is removed if
 * it ends with 0.
 *
 * A write is stable when a flush has ended that began after the write had ended. What is not may be
 * there or not, each --unit on its own, in any of its versions since. A discard may do nothing, at
 * any time; zeros are a write.
 *
 * --check compares a folder with the promises of image NUMBER.
 */
#include <errno.h>
#include <fcntl.h>
#include <assert.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "promise.h"
#include "record.h"
#include "trace.h"

#define PROMISES_STEP 65536u
static_assert(sizeof(struct promises) <= PROMISES_STEP, "an image's promises have their place");

struct content {
    const uint8_t *data; /* a sector of the trace or of the image; NULL: zeros */
    uint32_t id;         /* of the call; 0: it was there before */
    uint32_t began;      /* entry of the trace */
    bool weak;           /* may never come */
};

/* What a sector may hold, oldest first. */
struct place {
    struct content *may;
    unsigned count, room;
    bool touched; /* in `touched`: a flush may change it */
};

struct call {
    uint32_t began, ended; /* entries; ended is 0 until it has, and if it failed */
    uint64_t to;           /* WRITE: the end of what it writes; FLUSH: of what had been written */
};

struct crash {
    const uint8_t *trace, *image;
    size_t trace_len, image_len, at;
    uint32_t entry, entries;
    struct call *call; /* by id */
    uint32_t calls;
    struct place *place;
    uint64_t places;
    uint64_t *touched; /* places */
    size_t touched_count, touched_room;
    uint64_t size, ended_size,
        stable_size; /* bytes: what writes reach; that have ended; that stay */
    struct promises promises;
    struct rng rng;
    uint64_t unit;
    const char *out;
};

static void __attribute__((format(printf, 1, 2), noreturn)) die(const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "guest-crash: ");
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\n");
    exit(2);
}

static const uint8_t *map_file(const char *path, size_t *len)
{
    struct stat st;
    void *p;
    int fd = open(path, O_RDONLY);

    if (fd < 0 || fstat(fd, &st) < 0)
        die("%s: %s", path, strerror(errno));
    *len = (size_t)st.st_size;
    p = mmap(NULL, *len, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        die("%s: %s", path, strerror(errno));
    close(fd);
    return p;
}

static void *more(void *p, size_t count, size_t size)
{
    p = reallocarray(p, count, size);
    if (p == NULL)
        die("no memory");
    return p;
}

/* ---- sectors ---- */

static struct place *place_at(struct crash *c, uint64_t n)
{
    if (n >= c->places) {
        uint64_t room = max_u64(n + 1, c->places * 2);

        c->place = more(c->place, room, sizeof(*c->place));
        memset(c->place + c->places, 0, (room - c->places) * sizeof(*c->place));
        c->places = room;
    }
    return &c->place[n];
}

static void place_add(struct crash *c, uint64_t n, struct content what)
{
    struct place *p = place_at(c, n);

    if (p->count == p->room) {
        p->room = p->room * 2 + 2;
        p->may = more(p->may, p->room, sizeof(*p->may));
    }
    if (p->count == 0) { /* what was there before */
        const uint8_t *old = (n + 1) * SECTOR <= c->image_len ? c->image + n * SECTOR : NULL;

        p->may[p->count++] = (struct content){.data = old};
    }
    if (!p->touched) {
        p->touched = true;
        if (c->touched_count == c->touched_room) {
            c->touched_room = c->touched_room * 2 + 1024;
            c->touched = more(c->touched, c->touched_room, sizeof(*c->touched));
        }
        c->touched[c->touched_count++] = n;
    }
    p->may[p->count++] = what;
}

/* A write of part of a sector leaves the rest as the last one made it. */
static const uint8_t *merge(struct crash *c, uint64_t n, uint64_t in, const uint8_t *from,
                            size_t len)
{
    struct place *p = place_at(c, n);
    const uint8_t *old = NULL;
    uint8_t *to = calloc(1, SECTOR); /* stays for as long as the program runs */

    if (to == NULL)
        die("no memory");
    if (p->count > 0)
        old = p->may[p->count - 1].data;
    else if ((n + 1) * SECTOR <= c->image_len)
        old = c->image + n * SECTOR;
    if (old != NULL)
        memcpy(to, old, SECTOR);
    if (from != NULL)
        memcpy(to + in, from, len);
    else
        memset(to + in, 0, len);
    return to;
}

/* data NULL: zeros */
static void change(struct crash *c, const struct trace_entry *e, const uint8_t *data)
{
    uint64_t offset = e->offset, left = e->len;

    while (left > 0) {
        uint64_t n = offset / SECTOR, in = offset % SECTOR;
        size_t part = min_u64(left, SECTOR - in);
        const uint8_t *what = part < SECTOR ? merge(c, n, in, data, part) : data;

        place_add(
            c, n,
            (struct content){
                .data = what, .id = e->id, .began = c->entry, .weak = e->kind == TRACE_DISCARD});
        if (data != NULL)
            data += part;
        offset += part;
        left -= part;
    }
}

static bool ended_before(const struct crash *c, const struct content *v, uint32_t entry)
{
    return v->id == 0 || (c->call[v->id].ended != 0 && c->call[v->id].ended < entry);
}

/* A flush that began there has ended: contents that a stable one came after are gone for good. */
static void settle(struct crash *c, uint32_t flush_began)
{
    size_t kept = 0;

    for (size_t i = 0; i < c->touched_count; i++) {
        struct place *p = &c->place[c->touched[i]];
        uint32_t latest = 0;
        unsigned n = 0;
        bool open = false;

        for (unsigned k = 0; k < p->count; k++) {
            const struct content *v = &p->may[k];

            if (!v->weak && ended_before(c, v, flush_began))
                latest = v->began > latest ? v->began : latest;
        }
        for (unsigned k = 0; k < p->count; k++) {
            if (latest != 0 && ended_before(c, &p->may[k], latest))
                continue;
            open |= n > 0 && !p->may[k].weak;
            p->may[n++] = p->may[k];
        }
        p->count = n;
        p->touched = open;
        if (open)
            c->touched[kept++] = c->touched[i];
    }
    c->touched_count = kept;
}

/* ---- the trace ---- */

static struct call *call_at(struct crash *c, uint32_t id)
{
    if (id >= c->calls) {
        uint32_t room = id * 2 + 1024;

        c->call = more(c->call, room, sizeof(*c->call));
        memset(c->call + c->calls, 0, (room - c->calls) * sizeof(*c->call));
        c->calls = room;
    }
    return &c->call[id];
}

static bool has_data(const struct trace_entry *e)
{
    return e->kind == TRACE_WRITE || e->kind == TRACE_FILE;
}

/* The trace may end in the middle of an entry: the program was killed. */
static bool read_entry(struct crash *c, struct trace_entry *e, const uint8_t **data)
{
    size_t left = c->trace_len - c->at;

    if (left < sizeof(*e))
        return false;
    memcpy(e, c->trace + c->at, sizeof(*e));
    if (e->magic != TRACE_MAGIC)
        die("the trace is wrong at %zu", c->at);
    if (has_data(e) && e->len > left - sizeof(*e))
        return false;
    *data = c->trace + c->at + sizeof(*e);
    c->at += sizeof(*e) + (has_data(e) ? e->len : 0);
    return true;
}

static void hear(struct crash *c, const uint8_t *data, uint64_t len)
{
    struct say s;

    for (; len >= sizeof(s); len -= sizeof(s), data += sizeof(s)) {
        memcpy(&s, data, sizeof(s));
        promise_say(&c->promises, &s);
    }
}

static void call_ended(struct crash *c, const struct trace_entry *e)
{
    struct call *call = call_at(c, e->id);

    if (e->offset == 0)
        return; /* failed: it may be there in part, and proves nothing */
    call->ended = c->entry;
    if (call->began == 0)
        return; /* of the other file */
    if (call->to & 1) {
        c->stable_size = max_u64(c->stable_size, call->to & ~1ull);
        settle(c, call->began);
    } else {
        c->ended_size = max_u64(c->ended_size, call->to);
    }
}

/* The next entry; false: no more. */
static bool step(struct crash *c)
{
    const uint8_t *data;
    struct trace_entry e;

    if (!read_entry(c, &e, &data))
        return false;
    c->entry++;
    if (e.kind == TRACE_FILE) {
        if (e.file == 0 && e.offset != c->image_len)
            die("the disk had %" PRIu64 " bytes, --image has %zu", e.offset, c->image_len);
        return true;
    }
    if (e.kind == TRACE_END) {
        call_ended(c, &e);
        return true;
    }
    if (e.file != 0) {
        if (e.kind == TRACE_WRITE && e.file == 1)
            hear(c, data, e.len);
        return true;
    }
    call_at(c, e.id)->began = c->entry;
    switch ((enum trace_kind)e.kind) {
    case TRACE_WRITE:
        c->call[e.id].to = align_up(e.offset + e.len, SECTOR);
        c->size = max_u64(c->size, c->call[e.id].to);
        change(c, &e, data);
        break;
    case TRACE_ZERO:
    case TRACE_DISCARD:
        e.len = e.offset < c->size ? min_u64(e.len, c->size - e.offset) : 0;
        change(c, &e, NULL);
        break;
    case TRACE_FLUSH:
        c->call[e.id].to = c->ended_size | 1; /* sizes are even */
        break;
    case TRACE_SIZE:
        if (e.offset < c->size)
            die("the file becomes shorter, which is not built");
        c->size = c->call[e.id].to = align_up(e.offset, SECTOR);
        break;
    case TRACE_FILE:
    case TRACE_END:
        break;
    }
    return true;
}

/* ---- crashes ---- */

/* How likely what is not stable is to be there: seldom the same twice. */
static unsigned luck(struct rng *rng)
{
    static const unsigned percent[] = {0, 2, 10, 50, 90, 98, 100};

    return percent[rng_below(rng, countof(percent))];
}

/* The contents of one unit: its sectors agree on a moment, and each has what it held then. */
static void pick_unit(struct crash *c, uint64_t first, unsigned percent, bool last,
                      const struct content **picked)
{
    uint64_t n = c->unit / SECTOR;
    uint32_t moment = 0;

    if (rng_below(&c->rng, 100) < percent)
        moment = UINT32_MAX;
    if (moment != 0 && !last) {
        const struct place *p = place_at(c, first + rng_below(&c->rng, n));

        for (uint64_t i = 0; i < n && p->count < 2; i++)
            p = place_at(c, first + i);
        moment = p->may[rng_below(&c->rng, p->count)].began;
    }
    for (uint64_t i = 0; i < n; i++) {
        const struct place *p = place_at(c, first + i);

        picked[i] = p->count > 0 ? &p->may[0] : NULL;
        for (unsigned k = 0; k < p->count && p->may[k].began <= moment; k++)
            picked[i] = &p->may[k];
    }
}

static void write_image(struct crash *c, const char *path, unsigned percent, bool last)
{
    uint64_t n = c->unit / SECTOR, size = c->stable_size;
    const struct content *picked[4096 / SECTOR];
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    uint8_t *to;

    if (fd < 0 || ftruncate(fd, (off_t)c->size) < 0)
        die("%s: %s", path, strerror(errno));
    to = mmap(NULL, c->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (to == MAP_FAILED)
        die("%s: %s", path, strerror(errno));
    for (uint64_t unit = 0; unit * c->unit < c->size; unit++) {
        bool open_unit = false;

        for (uint64_t i = 0; i < n; i++)
            open_unit |= place_at(c, unit * n + i)->count > 1;
        pick_unit(c, unit * n, open_unit ? percent : 0, last, picked);
        for (uint64_t i = 0; i < n && (unit * n + i + 1) * SECTOR <= c->size; i++) {
            uint64_t at = (unit * n + i) * SECTOR;
            const uint8_t *from = picked[i] != NULL             ? picked[i]->data
                                  : at + SECTOR <= c->image_len ? c->image + at
                                                                : NULL;
            static const uint8_t zeros[SECTOR];

            if (picked[i] != NULL && picked[i]->id != 0)
                size = max_u64(size, at + SECTOR);
            if (from != NULL && memcmp(from, zeros, SECTOR) != 0)
                memcpy(to + at, from, SECTOR);
        }
    }
    munmap(to, c->size);
    if (ftruncate(fd, (off_t)size) < 0)
        die("%s: %s", path, strerror(errno));
    close(fd);
}

/* 0: the command, if there is one, was content. */
static int crash(struct crash *c, unsigned number, const char *then)
{
    unsigned percent = luck(&c->rng);
    bool last = rng_below(&c->rng, 2) == 0;
    char path[512], command[1024];
    int fd, rc = 0;

    snprintf(path, sizeof(path), "%s/promises", c->out);
    fd = open(path, O_WRONLY | O_CREAT, 0644);
    if (fd < 0 || pwrite(fd, &c->promises, sizeof(c->promises), (off_t)number * PROMISES_STEP) !=
                      sizeof(c->promises))
        die("%s: %s", path, strerror(errno));
    close(fd);
    snprintf(path, sizeof(path), "%s/crash-%u.img", c->out, number);
    write_image(c, path, percent, last);
    if (then == NULL)
        return 0;
    snprintf(command, sizeof(command), "%s %u", then, number);
    rc = system(command);
    if (rc == 0)
        unlink(path);
    else
        printf("image %u: at entry %" PRIu32 " of %" PRIu32 ", %u of 100 unstable, %s\n", number,
               c->entry, c->entries, percent, last ? "the last" : "any");
    return rc;
}

/* Counts entries, and notes those after which something was just promised. */
static uint32_t *survey(struct crash *c, size_t *count)
{
    uint32_t *promised = NULL;
    const uint8_t *data;
    struct trace_entry e;
    struct say s;

    for (*count = 0; read_entry(c, &e, &data);) {
        c->entries++;
        if (e.kind != TRACE_WRITE || e.file != 1 || e.len < sizeof(s))
            continue;
        memcpy(&s, data, sizeof(s));
        if (s.magic != SAY_MAGIC || s.stable == 0)
            continue;
        if ((*count & (*count - 1)) == 0)
            promised = more(promised, *count * 2 + 1, sizeof(*promised));
        promised[(*count)++] = c->entries;
    }
    c->at = 0;
    if (*count < WORKERS)
        die("the trace holds %zu promises: too few", *count);
    return promised;
}

static int compare(const void *a, const void *b)
{
    uint32_t x, y;

    memcpy(&x, a, sizeof(x));
    memcpy(&y, b, sizeof(y));
    return x < y ? -1 : x > y;
}

static unsigned sample(struct crash *c, unsigned count, const char *then)
{
    uint32_t *point = calloc(count + 1, sizeof(*point));
    unsigned failed = 0;
    size_t promises;
    uint32_t *promised = survey(c, &promises);

    if (point == NULL)
        die("no memory");
    for (unsigned i = 0; i < count; i++)
        point[i] = i % 2 == 0 ? promised[rng_below(&c->rng, promises)]
                              : (uint32_t)rng_below(&c->rng, c->entries + 1);
    qsort(point, count, sizeof(*point), compare);
    for (unsigned i = 0; i < count; i++) {
        while (c->entry < point[i] && step(c))
            ;
        failed += crash(c, i, then) != 0;
    }
    printf("%u crash images from %" PRIu32 " entries with %zu promises", count, c->entries,
           promises);
    printf(then != NULL ? ", %u wrong\n" : "\n", failed);
    free(point);
    free(promised);
    return failed;
}

static int check(char **argv)
{
    const char *promises = argv[0], *number = argv[1], *folder = argv[2];
    char name[32];
    size_t len, at = strtoul(number, NULL, 0) * PROMISES_STEP;
    const uint8_t *p = map_file(promises, &len);
    static struct promises all;

    if (len < sizeof(all) || at > len - sizeof(all))
        die("%s has no image %s", promises, number);
    memcpy(&all, p + at, sizeof(all));
    snprintf(name, sizeof(name), "image %s", number);
    return promise_check(&all, folder, name) > 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"trace", required_argument, NULL, 't'}, {"image", required_argument, NULL, 'i'},
        {"out", required_argument, NULL, 'o'},   {"count", required_argument, NULL, 'c'},
        {"seed", required_argument, NULL, 's'},  {"unit", required_argument, NULL, 'u'},
        {"then", required_argument, NULL, 'x'},  {NULL, 0, NULL, 0},
    };
    static struct crash c = {.rng = {1}, .unit = SECTOR};
    const char *then = NULL;
    unsigned count = 20;
    int o;

    if (argc == 5 && strcmp(argv[1], "--check") == 0)
        return check(argv + 2);
    setvbuf(stdout, NULL, _IOLBF, 0);
    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (o == 't')
            c.trace = map_file(optarg, &c.trace_len);
        else if (o == 'i')
            c.image = map_file(optarg, &c.image_len);
        else if (o == 'o')
            c.out = optarg;
        else if (o == 'c')
            count = (unsigned)strtoul(optarg, NULL, 0);
        else if (o == 's')
            c.rng.state = strtoull(optarg, NULL, 0);
        else if (o == 'u')
            c.unit = strtoull(optarg, NULL, 0);
        else if (o == 'x')
            then = optarg;
        else
            return 2;
    }
    if (c.trace == NULL || c.image == NULL || c.out == NULL)
        die("--trace, --image and --out are needed");
    if (c.unit < SECTOR || c.unit > 4096 || (c.unit & (c.unit - 1)) != 0)
        die("--unit is 512, 1024, 2048 or 4096");
    c.size = c.ended_size = c.stable_size = c.image_len;
    return sample(&c, count, then) > 0;
}
