/* virtio-blk against a model of a disk, with requests cut at random, and against bad drivers. */
#include <unistd.h>

#include "base/endian.h"
#include "virtio/virtio.h"
#include "virtio_fixture.h"

#define SECTOR 512u
#define PART (256u << 10) /* of the disk, for each request that is out */
#define DISK (VQ_TAGS * PART)
#define DATA 0x200000u /* of memory, and PLACE for each */
#define PLACE 0x20000u
#define PIECES 12u

#define T_IN 0u
#define T_OUT 1u
#define T_FLUSH 4u
#define T_GET_ID 8u
#define T_DISCARD 11u
#define T_ZEROES 13u

#define S_OK 0u
#define S_IOERR 1u
#define S_UNSUPP 2u

#define F_BLK_ALL 0x7FFFull /* every feature of the type that may be there */

struct request {
    bool out;
    uint32_t type;
    uint8_t status; /* expected */
    uint64_t sector;
    uint32_t len;          /* of the data */
    uint8_t head[16 + 64]; /* what the device reads, but for data to write */
    unsigned head_len;
    struct vbuf bufs[PIECES + 8];
    unsigned count;
    uint64_t data[PIECES], status_at; /* where it is */
    uint32_t data_len[PIECES];
    unsigned data_count;
};

struct world {
    struct driver d;
    uint8_t *disk, *expect; /* the model; what memory should be */
    bool *unknown;          /* sectors that were discarded */
    struct request r[VQ_TAGS];
    char path[64];
};

/* The next piece of memory, some bytes after the last one: what lies between must stay. */
static void piece(struct world *w, struct request *r, uint64_t *at, uint32_t len, bool write)
{
    *at += rnd(&w->d, 40);
    r->bufs[r->count++] = (struct vbuf){*at, len, write};
    *at += len;
}

static void cut(struct world *w, struct request *r, uint64_t *at, uint32_t len, bool write)
{
    while (len > 0) {
        uint32_t n = r->data_count + 1 < PIECES ? 1 + (uint32_t)rnd(&w->d, len) : len;

        piece(w, r, at, n, write);
        r->data[r->data_count] = r->bufs[r->count - 1].gpa;
        r->data_len[r->data_count++] = n;
        len -= n;
    }
}

/* Header, data and status into memory: sometimes together, sometimes in pieces. */
static void lay_out(struct world *w, struct request *r, unsigned tag)
{
    uint64_t at = DATA + PLACE * tag + rnd(&w->d, 64);
    unsigned first = rnd(&w->d, 3) == 0 ? 1 + (unsigned)rnd(&w->d, r->head_len - 1) : r->head_len;

    r->count = r->data_count = 0;
    piece(w, r, &at, first, false);
    assert_int_equal(gmem_write(w->d.m.mem, r->bufs[0].gpa, r->head, first), 0);
    if (first < r->head_len) {
        piece(w, r, &at, r->head_len - first, false);
        assert_int_equal(
            gmem_write(w->d.m.mem, r->bufs[1].gpa, r->head + first, r->head_len - first), 0);
    }
    if (rnd(&w->d, 8) == 0)
        piece(w, r, &at, 0, false);
    cut(w, r, &at, r->len, r->type != T_OUT);
    if (r->type != T_OUT && r->data_count > 0 && rnd(&w->d, 3) == 0) {
        r->bufs[r->count - 1].len++; /* the status right behind the data */
        r->status_at = at;
    } else {
        piece(w, r, &at, 1, true);
        r->status_at = at - 1;
        if (rnd(&w->d, 8) == 0)
            piece(w, r, &at, 0, true);
    }
    put(&w->d, r->status_at, 0xFF, 1);
}

static void choose_ranges(struct world *w, struct request *r, unsigned tag)
{
    unsigned n = 1 + (unsigned)rnd(&w->d, 4);

    for (unsigned i = 0; i < n; i++) {
        uint64_t first = rnd(&w->d, 500), sectors = rnd(&w->d, 512 - first);

        le64_store(r->head + 16 + 16 * i, tag * (PART / SECTOR) + first);
        le32_store(r->head + 24 + 16 * i, (uint32_t)sectors);
        le32_store(r->head + 28 + 16 * i, r->type == T_ZEROES ? (uint32_t)rnd(&w->d, 2) : 0);
    }
    r->head_len = 16 + 16 * n;
    if (rnd(&w->d, 8) == 0) {
        le32_store(r->head + 28, r->type == T_ZEROES ? 2 : 1);
        r->status = S_UNSUPP;
    } else if (rnd(&w->d, 8) == 0) {
        le64_store(r->head + 16, DISK / SECTOR);
        le32_store(r->head + 24, 1);
        r->status = S_IOERR;
    } else if (rnd(&w->d, 8) == 0) {
        r->head_len -= 1 + (unsigned)rnd(&w->d, 15);
        r->status = S_IOERR;
    }
}

static void choose(struct world *w, struct request *r, unsigned tag)
{
    static const uint32_t types[] = {T_IN,    T_OUT,    T_IN,      T_OUT,    T_OUT,
                                     T_FLUSH, T_GET_ID, T_DISCARD, T_ZEROES, 77};

    memset(r, 0, sizeof(*r));
    r->type = types[rnd(&w->d, countof(types))];
    r->head_len = 16;
    if (r->type == T_IN || r->type == T_OUT) {
        uint64_t first = rnd(&w->d, 448);

        r->len = SECTOR * (uint32_t)rnd(&w->d, 65);
        r->sector = tag * (PART / SECTOR) + first;
        if (rnd(&w->d, 12) == 0) {
            r->sector = rnd(&w->d, 2) == 0 ? DISK / SECTOR - 1 : UINT64_MAX / SECTOR;
            r->len = 2 * SECTOR;
            r->status = S_IOERR;
        } else if (rnd(&w->d, 12) == 0) {
            r->len += 1 + (uint32_t)rnd(&w->d, SECTOR - 1);
            r->status = S_IOERR;
        }
    } else if (r->type == T_GET_ID) {
        r->len = rnd(&w->d, 3) == 0 ? 7 : 20;
    } else if (r->type == T_DISCARD || r->type == T_ZEROES) {
        choose_ranges(w, r, tag);
    } else if (r->type == 77) {
        r->status = S_UNSUPP;
    }
    le32_store(r->head, r->type);
    le64_store(r->head + 8, r->sector);
    lay_out(w, r, tag);
    r->out = true;
}

/* Data to write is random, and what the model becomes. */
static void model_write(struct world *w, struct request *r)
{
    uint8_t bytes[SECTOR * 66];
    uint64_t at = 0;

    for (uint32_t i = 0; i < r->len; i++)
        bytes[i] = (uint8_t)rnd(&w->d, 256);
    for (unsigned i = 0; i < r->data_count; at += r->data_len[i++])
        assert_int_equal(gmem_write(w->d.m.mem, r->data[i], bytes + at, r->data_len[i]), 0);
    if (r->status != S_OK)
        return;
    memcpy(w->disk + r->sector * SECTOR, bytes, r->len);
    memset(w->unknown + r->sector, 0, r->len / SECTOR);
}

static void model_ranges(struct world *w, struct request *r)
{
    if (r->status != S_OK)
        return;
    for (const uint8_t *p = r->head + 16; p < r->head + r->head_len; p += 16) {
        uint64_t first = le64_load(p), sectors = le32_load(p + 8);

        if (r->type == T_ZEROES)
            memset(w->disk + first * SECTOR, 0, sectors * SECTOR);
        memset(w->unknown + first, r->type == T_DISCARD, sectors);
    }
}

static uint8_t *memory(struct world *w, uint64_t gpa)
{
    return gmem_ptr(w->d.m.mem, gpa, 1);
}

/* What memory should look like when it is done. */
static void model_read(struct world *w, struct request *r)
{
    static const char id[20] = "MODEL";
    uint64_t at = r->sector * SECTOR;

    if (r->type == T_GET_ID)
        for (unsigned i = 0, n = 0; i < r->data_count; n += r->data_len[i++])
            memcpy(w->expect + r->data[i] - DATA, id + n, r->data_len[i]);
    if (r->type == T_IN && r->status == S_OK) {
        for (unsigned i = 0; i < r->data_count; i++) {
            for (uint32_t n = 0; n < r->data_len[i]; n++, at++) {
                uint8_t *got = memory(w, r->data[i] + n);

                if (w->unknown[at / SECTOR]) /* it may change until it is written */
                    w->expect[r->data[i] + n - DATA] = *got;
                else
                    w->expect[r->data[i] + n - DATA] = w->disk[at];
            }
        }
    }
    w->expect[r->status_at - DATA] = r->status;
}

static void begin_batch(struct world *w, unsigned queues)
{
    unsigned count = 1 + (unsigned)rnd(&w->d, VQ_TAGS);

    for (unsigned i = 0; i < count; i++) {
        struct request *r = &w->r[i];

        choose(w, r, i);
        if (r->type == T_OUT)
            model_write(w, r);
        model_ranges(w, r);
    }
    assert_int_equal(gmem_read(w->d.m.mem, DATA, w->expect, PLACE * VQ_TAGS), 0);
    for (unsigned i = 0; i < count; i++) {
        unsigned queue = i % queues;

        w->r[i].out = queue_add(&w->d, queue, w->r[i].bufs, w->r[i].count, i);
        if (!w->r[i].out) { /* no room: it did not happen */
            queue_kick(&w->d, queue);
            while (!w->r[i].out) {
                unsigned tag;
                uint32_t len;

                queue_wait(&w->d, queue, &tag, &len);
                assert_true(w->r[tag].out);
                w->r[tag].out = false;
                model_read(w, &w->r[tag]);
                w->r[i].out = queue_add(&w->d, queue, w->r[i].bufs, w->r[i].count, i);
            }
        }
        if (rnd(&w->d, 4) == 0)
            queue_kick(&w->d, queue);
    }
    for (unsigned i = 0; i < queues; i++)
        queue_kick(&w->d, i);
}

static void end_batch(struct world *w, unsigned queues)
{
    for (unsigned i = 0; i < VQ_TAGS; i++) {
        unsigned tag;
        uint32_t len;

        if (!w->r[i].out)
            continue;
        queue_wait(&w->d, i % queues, &tag, &len);
        if (!w->r[tag].out || tag % queues != i % queues)
            fail_msg("request %u came back twice", tag);
        assert_int_equal(len, (w->r[tag].type == T_OUT ? 0 : w->r[tag].len) + 1);
        w->r[tag].out = false;
        model_read(w, &w->r[tag]);
        if (tag != i)
            i--; /* this one is still to come */
    }
    if (memcmp(memory(w, DATA), w->expect, PLACE * VQ_TAGS) == 0)
        return;
    for (unsigned i = 0; i < PLACE * VQ_TAGS; i++)
        if (*memory(w, DATA + i) != w->expect[i])
            fail_msg("memory +%#x is %#x, not %#x (request %u, type %u)", i, *memory(w, DATA + i),
                     w->expect[i], i / PLACE, w->r[i / PLACE].type);
}

static void open_world(struct world *w, const char *more, bool threaded)
{
    char options[160];
    int fd;

    strcpy(w->path, "/tmp/test_virtio_blk.XXXXXX");
    fd = mkstemp(w->path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, DISK), 0);
    close(fd);
    snprintf(options, sizeof(options), "%s,ser=MODEL%s", w->path, more);
    driver_start(&w->d, &virtio_blk_ops, options, threaded);
    w->disk = calloc(1, DISK);
    w->expect = calloc(1, PLACE * VQ_TAGS);
    w->unknown = calloc(DISK / SECTOR, sizeof(bool));
}

static void close_world(struct world *w)
{
    driver_stop(&w->d);
    unlink(w->path);
    free(w->disk);
    free(w->expect);
    free(w->unknown);
    free(w);
}

static const uint64_t rings[] = {
    F_VERSION_1 | F_RING_RESET,
    F_VERSION_1 | F_RING_RESET | F_INDIRECT,
    F_VERSION_1 | F_RING_RESET | F_INDIRECT | F_EVENT_IDX,
    F_VERSION_1 | F_RING_RESET | F_PACKED,
    F_VERSION_1 | F_RING_RESET | F_PACKED | F_INDIRECT,
    F_VERSION_1 | F_RING_RESET | F_PACKED | F_INDIRECT | F_EVENT_IDX,
};

/* The longest request in a ring without indirect tables is PIECES + 6 places. */
static unsigned some_size(struct world *w, uint64_t features)
{
    if ((features & F_PACKED) == 0)
        return rnd(&w->d, 2) == 0 ? 32 : 64;
    return 24 + (unsigned)rnd(&w->d, 41);
}

static void model(bool threaded, unsigned rounds)
{
    struct world *w = calloc(1, sizeof(*w));

    driver_seed(&w->d);
    open_world(w, ",queues=3", threaded);
    for (unsigned i = 0; i < rounds; i++) {
        uint64_t ring = rings[rnd(&w->d, countof(rings))];

        /* flushes and writes that are stable at once, both */
        driver_begin(&w->d, ring | (F_BLK_ALL & ~(rnd(&w->d, 2) << 9)), 3, some_size(w, ring));
        assert_true(w->d.features & F_VERSION_1);
        if (w->d.q[0].size < 24) { /* a hostile build: nothing fits */
            close_world(w);
            return;
        }
        for (unsigned n = 0; n < 12; n++) {
            begin_batch(w, 3);
            end_batch(w, 3);
            if (!threaded && rnd(&w->d, 4) == 0)
                machine_save_load(&w->d.m);
        }
        assert_int_equal(driver_status(&w->d), 0xF);
    }
    close_world(w);
}

static void test_model(void **state)
{
    (void)state;
    model(false, 30);
}

static void test_model_threads(void **state)
{
    (void)state;
    model(true, 15);
}

/* Reads of everything, held back by a limit, so that they are out when something happens. */
static void many_reads(struct world *w)
{
    for (unsigned i = 0; i < VQ_TAGS; i++) {
        struct request *r = &w->r[i];

        memset(r, 0, sizeof(*r));
        r->type = T_IN;
        r->head_len = 16;
        r->sector = i * (PART / SECTOR);
        r->len = 64 * SECTOR;
        le32_store(r->head, T_IN);
        le64_store(r->head + 8, r->sector);
        lay_out(w, r, i);
        r->out = queue_add(&w->d, 0, r->bufs, r->count, i);
    }
    queue_kick(&w->d, 0);
}

static void expect_still(struct world *w)
{
    uint8_t *before = malloc(4u << 20), *now = malloc(4u << 20);

    assert_int_equal(gmem_read(w->d.m.mem, 0, before, 4u << 20), 0);
    for (unsigned i = 0; i < 50; i++) { /* time for what a limit held back */
        timerq_step(w->d.m.timers, 20000000);
        usleep(1000);
    }
    assert_int_equal(gmem_read(w->d.m.mem, 0, now, 4u << 20), 0);
    assert_memory_equal(before, now, 4u << 20);
    free(before);
    free(now);
}

/* After a reset nothing is written any more, and what was out does not come back. */
static void test_reset(void **state)
{
    struct world *w = calloc(1, sizeof(*w));

    (void)state;
    driver_seed(&w->d);
    open_world(w, ",iops=20", true);
    for (unsigned i = 0; i < countof(rings); i++) {
        driver_begin(&w->d, rings[i] | F_BLK_ALL, 1, 64);
        many_reads(w);
        driver_set_status(&w->d, 0);
        assert_int_equal(driver_status(&w->d), 0);
        expect_still(w);
        driver_begin(&w->d, rings[i] | F_BLK_ALL, 1, 64);
        many_reads(w);
        mmio_out(&w->d.m, w->d.bar + 0x16, 2, 0);
        mmio_out(&w->d.m, w->d.bar + 0x3A, 2, 1); /* the queue alone */
        assert_int_equal(mmio_in(&w->d.m, w->d.bar + 0x3A, 2), 0);
        assert_int_equal(mmio_in(&w->d.m, w->d.bar + 0x1C, 2), 0);
        expect_still(w);
        queue_start(&w->d, 0, w->d.q[0].size < 32 ? w->d.q[0].size : 32);
        memset(w->r, 0, sizeof(w->r));
        if (w->d.q[0].size == 32) {
            begin_batch(w, 1);
            end_batch(w, 1);
        }
        many_reads(w);
        pci_reset(w->d.m.pci);
        cfgw(&w->d.m, 4, 0, 4, 2, 7);
        expect_still(w);
    }
    many_reads(w); /* the queue is not there */
    close_world(w);
}

/* What is out when the machine is saved is done before, and comes back after. */
static void test_save(void **state)
{
    struct world *w = calloc(1, sizeof(*w));

    (void)state;
    driver_seed(&w->d);
    open_world(w, ",iops=20", true);
    for (unsigned i = 0; i < countof(rings); i++) {
        driver_begin(&w->d, rings[i] | F_BLK_ALL, 1, 64);
        many_reads(w);
        machine_save_load(&w->d.m);
        for (unsigned n = 0; n < VQ_TAGS; n++) {
            unsigned tag;
            uint32_t len;

            if (!w->r[n].out) /* it found no room */
                continue;
            assert_true(queue_take(&w->d, 0, &tag, &len));
            assert_int_equal(len, 64 * SECTOR + 1);
        }
        queue_kick(&w->d, 0);
        assert_int_equal(driver_status(&w->d), 0xF);
    }
    close_world(w);
}

/* A header or a status that has no room, and rings that move. */
static void test_abuse(void **state)
{
    static const struct vbuf bad[][3] = {
        {{DATA, 15, false}, {DATA + 64, 1, true}},
        {{DATA, 16, false}},
        {{DATA, 16, false}, {DATA + 64, 0, true}},
        {{DATA, 16, true}},
        {{DATA, 1u << 30, false}, {DATA + 64, 1, true}},
        {{0xFEE00000, 16, false}, {DATA + 64, 1, true}},
        {{DATA, 16, false}, {0xFEE00000, 1, true}},
        {{DATA, 16, false}, {UINT64_MAX, 2, true}},
    };
    struct world *w = calloc(1, sizeof(*w));

    (void)state;
    driver_seed(&w->d);
    open_world(w, "", false);
    for (unsigned i = 0; i < countof(bad) * 2; i++) {
        const struct vbuf *b = bad[i / 2];
        unsigned n = b[1].gpa != 0 ? 2 : 1;

        driver_begin(&w->d, (i % 2 ? F_PACKED : 0) | F_VERSION_1, 1, 8);
        assert_true(queue_add(&w->d, 0, b, n, 0));
        queue_kick(&w->d, 0);
        assert_int_equal(driver_status(&w->d), 0x4F); /* DEVICE_NEEDS_RESET */
        queue_kick(&w->d, 0);
        machine_save_load(&w->d.m);
        assert_int_equal(driver_status(&w->d), 0x4F);
    }
    close_world(w);
}

/* What was settled stays: queues, features, addresses. */
static void test_frozen(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct driver *d = &w->d;
    uint64_t bar;

    (void)state;
    driver_seed(d);
    open_world(w, ",queues=2", false);
    bar = d->bar;
    driver_set_status(d, 0);
    mmio_out(&d->m, bar + 0x1C, 2, 1); /* before FEATURES_OK */
    assert_int_equal(mmio_in(&d->m, bar + 0x1C, 2), 0);
    driver_begin(d, F_VERSION_1 | F_BLK_ALL, 1, 8);
    mmio_out(&d->m, bar + 0x18, 2, 4);
    mmio_out(&d->m, bar + 0x20, 8, 0x50000);
    mmio_out(&d->m, bar + 0x28, 4, 0x50000);
    mmio_out(&d->m, bar + 0x30, 4, 0x50000);
    mmio_out(&d->m, bar + 8, 4, 0);
    mmio_out(&d->m, bar + 0xC, 4, 0);
    assert_int_equal(mmio_in(&d->m, bar + 0x18, 2), d->q[0].size);
    assert_int_equal(mmio_in(&d->m, bar + 0x20, 8), d->q[0].desc);
    assert_int_equal(mmio_in(&d->m, bar + 0x28, 8), d->q[0].avail);
    assert_int_equal(mmio_in(&d->m, bar + 0x30, 8), d->q[0].used);
    mmio_out(&d->m, bar + 8, 4, 0);
    assert_int_equal(mmio_in(&d->m, bar + 0xC, 4), (uint32_t)d->features);
    mmio_out(&d->m, bar + 0x3A, 2, 1); /* RING_RESET was not negotiated */
    assert_int_equal(mmio_in(&d->m, bar + 0x1C, 2), 1);
    out(&d->m, 0x2008, 4, 0x50); /* nor by the legacy registers */
    assert_int_equal(mmio_in(&d->m, bar + 0x20, 8), d->q[0].desc);
    mmio_out(&d->m, bar + 0x16, 2, 1); /* one that was left out */
    mmio_out(&d->m, bar + 0x20, 8, 0x50000);
    mmio_out(&d->m, bar + 0x1C, 2, 1);
    assert_int_equal(mmio_in(&d->m, bar + 0x20, 8), 0);
    assert_int_equal(mmio_in(&d->m, bar + 0x1C, 2), 0);
    mmio_out(&d->m, bar + 0x16, 2, 2); /* one that is not there */
    mmio_out(&d->m, bar + 0x1C, 2, 1);
    assert_int_equal(mmio_in(&d->m, bar + 0x18, 2), 0);
    queue_kick(d, 1);
    queue_kick(d, 2);
    queue_kick(d, 63);
    assert_int_equal(driver_status(d), 0xF);
    assert_true(d->m.guest_errors > 5);
    close_world(w);
}

static void code_written(void *ctx, uint64_t gpa_page, uint32_t who)
{
    uint64_t *pages = ctx;

    assert_int_equal(who, 1);
    *pages |= 1ull << (gpa_page / GMEM_PAGE - DATA / GMEM_PAGE);
}

/* Pages with code that the disk is read into, and that of the status: the engines hear of it. */
static void test_code(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    const struct vbuf in[] = {{DATA, 16, false},
                              {DATA + 0x1800, 0x1000, true},
                              {DATA + 0x4000, 0x200, true},
                              {DATA + 0x6000, 1, true}};
    uint64_t pages = 0;
    uint32_t len;
    unsigned tag;

    (void)state;
    driver_seed(&w->d);
    open_world(w, "", false);
    driver_begin(&w->d, F_VERSION_1, 1, 8);
    if (w->d.q[0].size < 4) {
        close_world(w);
        return;
    }
    gmem_set_code_hook(w->d.m.mem, code_written, &pages);
    for (unsigned i = 1; i < 9; i++)
        gmem_mark_code(w->d.m.mem, DATA + GMEM_PAGE * i, 1);
    put(&w->d, DATA, T_IN, 8);
    put(&w->d, DATA + 8, 0, 8);
    assert_true(queue_add(&w->d, 0, in, 4, 0));
    queue_kick(&w->d, 0);
    queue_wait(&w->d, 0, &tag, &len);
    assert_int_equal(pages, 1u << 1 | 1u << 2 | 1u << 4 | 1u << 6);
    gmem_set_code_hook(w->d.m.mem, NULL, NULL);
    close_world(w);
}

/* The cache can be switched off only by who has negotiated that. */
static void test_cache(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct driver *d = &w->d;

    (void)state;
    driver_seed(d);
    open_world(w, "", false);
    driver_begin(d, F_VERSION_1, 1, 8); /* neither FLUSH nor CONFIG_WCE */
    assert_int_equal(mmio_in(&d->m, d->bar + 0x2020, 1), 0);
    mmio_out(&d->m, d->bar + 0x2020, 1, 1);
    assert_int_equal(mmio_in(&d->m, d->bar + 0x2020, 1), 0);
    driver_begin(d, F_VERSION_1 | 1u << 9, 1, 8);
    assert_int_equal(mmio_in(&d->m, d->bar + 0x2020, 1), 1);
    mmio_out(&d->m, d->bar + 0x2020, 1, 0);
    assert_int_equal(mmio_in(&d->m, d->bar + 0x2020, 1), 1);
    driver_begin(d, F_VERSION_1 | 1u << 9 | 1u << 11, 1, 8);
    mmio_out(&d->m, d->bar + 0x2020, 1, 0);
    assert_int_equal(mmio_in(&d->m, d->bar + 0x2020, 1), 0);
    mmio_out(&d->m, d->bar + 0x2020, 1, 2);
    mmio_out(&d->m, d->bar + 0x2000, 1, 1);
    assert_int_equal(mmio_in(&d->m, d->bar + 0x2020, 1), 0);
    assert_int_equal(mmio_in(&d->m, d->bar + 0x2000, 8), DISK / SECTOR);
    machine_save_load(&d->m);
    assert_int_equal(mmio_in(&d->m, d->bar + 0x2020, 1), 0);
    close_world(w);
}

/* Another size: the capacity, its generation, and the configuration's interrupt. */
static void test_resize(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct driver *d = &w->d;
    uint64_t generation;

    (void)state;
    driver_seed(d);
    open_world(w, "", false);
    driver_begin(d, F_VERSION_1 | F_BLK_ALL, 1, 32);
    generation = mmio_in(&d->m, d->bar + 0x15, 1);
    assert_int_equal(mmio_in(&d->m, d->bar + 0x2000, 8), DISK / SECTOR);
    driver_refresh(d);
    assert_int_equal(mmio_in(&d->m, d->bar + 0x15, 1), generation);
    assert_int_equal(mmio_in(&d->m, d->bar + 0x1000, 1), 0);
    assert_int_equal(truncate(w->path, DISK + SECTOR), 0);
    driver_refresh(d);
    assert_int_equal(mmio_in(&d->m, d->bar + 0x2000, 8), DISK / SECTOR + 1);
    assert_int_not_equal(mmio_in(&d->m, d->bar + 0x15, 1), generation);
    assert_int_equal(mmio_in(&d->m, d->bar + 0x1000, 1), 2);
    close_world(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),  cmocka_unit_test(test_model_threads),
        cmocka_unit_test(test_reset),  cmocka_unit_test(test_save),
        cmocka_unit_test(test_abuse),  cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_code),   cmocka_unit_test(test_cache),
        cmocka_unit_test(test_resize),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
