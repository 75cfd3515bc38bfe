/* virtio-scsi and the commands of its disk, by a driver. */
#include <unistd.h>

#include "base/endian.h"
#include "virtio/virtio.h"
#include "virtio_fixture.h"

#define DISK (8u << 20)
#define BLOCKS (DISK / 512)
#define HEAD 0x200000u
#define ANSWER 0x201000u
#define DATA 0x210000u
#define OUT 1
#define IN 0

#define REQUESTS 2u /* the queue */

struct world {
    struct driver d;
    char path[64];
    uint8_t status, response;
    uint32_t sense, residual; /* key << 16 | code << 8 | qualifier */
    uint8_t lun[8];
    uint32_t used;
};

static void open_world(struct world *w, const char *more, uint64_t features)
{
    char options[160];
    int fd;

    memset(w, 0, sizeof(*w));
    strcpy(w->path, "/tmp/test_virtio_scsi.XXXXXX");
    fd = mkstemp(w->path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, DISK), 0);
    close(fd);
    snprintf(options, sizeof(options), "%s,ser=SERIAL%s", w->path, more);
    driver_seed(&w->d);
    driver_start(&w->d, &virtio_scsi_ops, options, false);
    driver_begin(&w->d, F_VERSION_1 | features, 3, 16);
    w->lun[0] = 1;
}

static void close_world(struct world *w)
{
    driver_stop(&w->d);
    unlink(w->path);
}

/* The room of the ring: 4 places, less in a hostile build without indirect tables. */
static bool fits(struct world *w)
{
    return w->d.q[REQUESTS].size >= 4;
}

/* A command with len bytes of data in DATA; the status. */
static uint8_t run(struct world *w, const void *cdb, size_t cdb_len, bool to_device, uint32_t len)
{
    uint8_t head[51] = {0}, answer[108];
    struct vbuf b[3] = {{HEAD, sizeof(head), false}};
    unsigned n = 1, tag;

    memcpy(head, w->lun, 8);
    memcpy(head + 19, cdb, cdb_len);
    assert_int_equal(gmem_write(w->d.m.mem, HEAD, head, sizeof(head)), 0);
    assert_int_equal(gmem_fill(w->d.m.mem, ANSWER, 0xEE, sizeof(answer)), 0);
    if (to_device && len != 0)
        b[n++] = (struct vbuf){DATA, len, false};
    b[n++] = (struct vbuf){ANSWER, sizeof(answer), true};
    if (!to_device && len != 0)
        b[n++] = (struct vbuf){DATA, len, true};
    assert_true(queue_add(&w->d, REQUESTS, b, n, 0));
    queue_kick(&w->d, REQUESTS);
    queue_wait(&w->d, REQUESTS, &tag, &w->used);
    assert_int_equal(gmem_read(w->d.m.mem, ANSWER, answer, sizeof(answer)), 0);
    w->residual = le32_load(answer + 4);
    w->status = answer[10];
    w->response = answer[11];
    w->sense = le32_load(answer) == 0 ? 0
                                      : (uint32_t)answer[12 + 2] << 16 |
                                            (uint32_t)answer[12 + 12] << 8 | answer[12 + 13];
    return w->status;
}

#define RUN(w, to_device, len, ...)                                                                \
    run(w, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), to_device, len)

static void expect_sense(struct world *w, uint32_t sense)
{
    assert_int_equal(w->response, 0);
    assert_int_equal(w->status, 2);
    assert_int_equal(w->sense, sense);
}

static uint8_t *data(struct world *w)
{
    return gmem_ptr(w->d.m.mem, DATA, 1 << 20);
}

static void ready(struct world *w)
{
    RUN(w, IN, 0, 0x00);
    expect_sense(w, 0x062900); /* it was switched on */
    assert_int_equal(RUN(w, IN, 0, 0x00), 0);
}

static void test_describes(void **state)
{
    struct world w;

    (void)state;
    open_world(&w, "", 0);
    if (!fits(&w))
        return close_world(&w);
    assert_int_equal(RUN(&w, IN, 255, 0x12, 0, 0, 0, 255), 0); /* not held back by attention */
    assert_int_equal(w.residual, 255 - 36);
    assert_int_equal(w.used, 108 + 36);
    assert_memory_equal(data(&w) + 8, "XHYVE   DISK            ", 24);
    assert_int_equal(data(&w)[0], 0);
    assert_int_equal(RUN(&w, IN, 16, 0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 16), 0);
    assert_int_equal(be32_load(data(&w)), 8);
    assert_int_equal(be64_load(data(&w) + 8), 0);
    ready(&w);
    assert_int_equal(RUN(&w, IN, 8, 0x25), 0);
    assert_int_equal(be32_load(data(&w)), BLOCKS - 1);
    assert_int_equal(be32_load(data(&w) + 4), 512);
    assert_int_equal(RUN(&w, IN, 32, 0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32), 0);
    assert_int_equal(be64_load(data(&w)), BLOCKS - 1);
    assert_int_equal(data(&w)[14], 0x80);
    for (unsigned page = 0; page < 256; page++) {
        bool known = page == 0 || page == 0x80 || page == 0x83 || (page >= 0xB0 && page <= 0xB2);

        RUN(&w, IN, 255, 0x12, 1, (uint8_t)page, 0, 255);
        if (!known) {
            expect_sense(&w, 0x052400);
            continue;
        }
        assert_int_equal(w.status, 0);
        assert_int_equal(data(&w)[1], page);
        assert_int_equal(be16_load(data(&w) + 2) + 4, 255 - w.residual);
    }
    assert_int_equal(RUN(&w, IN, 64, 0x12, 1, 0x80, 0, 64), 0);
    assert_memory_equal(data(&w) + 4, "SERIAL", 6);
    assert_int_equal(RUN(&w, IN, 64, 0x1A, 8, 0x08, 0, 64), 0); /* the cache, no descriptor */
    assert_int_equal(data(&w)[0], 23);
    assert_int_equal(data(&w)[4], 8);
    assert_int_equal(data(&w)[6] & 4, 4);
    assert_int_equal(RUN(&w, IN, 64, 0x5A, 0, 0x3F, 0, 0, 0, 0, 0, 64), 0);
    assert_int_equal(be16_load(data(&w)), 6 + 8 + 20 + 12);
    RUN(&w, IN, 64, 0x1A, 8, 0xC8, 0, 64);
    expect_sense(&w, 0x053900); /* nothing is saved */
    RUN(&w, IN, 64, 0x1A, 8, 0x02, 0, 64);
    expect_sense(&w, 0x052400);
    assert_int_equal(RUN(&w, IN, 18, 0x03, 0, 0, 0, 18), 0);
    assert_int_equal(data(&w)[0], 0x70);
    assert_int_equal(data(&w)[2], 0);
    close_world(&w);
}

static void pattern(struct world *w, unsigned seed, size_t len)
{
    for (size_t i = 0; i < len; i++)
        data(w)[i] = (uint8_t)(i * 7 + seed + (i >> 9) * 13);
}

static void expect_pattern(struct world *w, unsigned seed, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (data(w)[i] != (uint8_t)(i * 7 + seed + (i >> 9) * 13))
            fail_msg("byte %zu is %#x", i, data(w)[i]);
}

/* Each length of command writes, each reads it. */
static void test_reads_and_writes(void **state)
{
    static const uint8_t write[][16] = {
        {0x0A, 0, 0, 16, 4},
        {0x2A, 8, 0, 0, 0, 16, 0, 0, 4}, /* FUA */
        {0xAA, 0, 0, 0, 0, 16, 0, 0, 0, 4},
        {0x8A, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 4},
    };
    static const uint8_t read[][16] = {
        {0x08, 0, 0, 16, 4},
        {0x28, 0x10, 0, 0, 0, 16, 0, 0, 4},
        {0xA8, 0, 0, 0, 0, 16, 0, 0, 0, 4},
        {0x88, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 4},
    };
    struct world w;

    (void)state;
    open_world(&w, "", F_PACKED);
    if (!fits(&w))
        return close_world(&w);
    ready(&w);
    for (unsigned i = 0; i < 4; i++) {
        pattern(&w, i, 2048);
        assert_int_equal(run(&w, write[i], 16, OUT, 2048), 0);
        assert_int_equal(w.used, 108);
        for (unsigned n = 0; n < 4; n++) {
            memset(data(&w), 0xEE, 4096);
            assert_int_equal(run(&w, read[n], 16, IN, 2560), 0); /* more room than that */
            assert_int_equal(w.residual, 512);
            assert_int_equal(w.used, 108 + 2048);
            expect_pattern(&w, i, 2048);
            assert_int_equal(data(&w)[2048], 0xEE);
        }
    }
    RUN(&w, IN, 2047, 0x28, 0, 0, 0, 0, 16, 0, 0, 4);
    assert_int_equal(w.response, 1); /* OVERRUN */
    RUN(&w, IN, 2048, 0x2A, 0, 0, 0, 0, 16, 0, 0, 4);
    assert_int_equal(w.response, 1); /* the data goes the other way */
    assert_int_equal(RUN(&w, IN, 0, 0x28, 0, 0, 0, 0x40, 0, 0, 0, 0), 0); /* nothing, at the end */
    RUN(&w, IN, 512, 0x28, 0, 0, 0, 0x40, 0, 0, 0, 1);
    expect_sense(&w, 0x052100);
    RUN(&w, IN, 512, 0x88, 0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 1);
    expect_sense(&w, 0x052100);
    RUN(&w, IN, 512, 0x28, 0x20, 0, 0, 0, 0, 0, 0, 1);
    expect_sense(&w, 0x052400); /* protection */
    RUN(&w, IN, 512, 0xFF);
    expect_sense(&w, 0x052000);
    assert_int_equal(RUN(&w, IN, 0, 0x35), 0);
    assert_int_equal(RUN(&w, IN, 0, 0x91), 0);
    assert_int_equal(RUN(&w, IN, 0, 0x2F, 0, 0, 0, 0, 16, 0, 0, 4), 0);
    RUN(&w, IN, 0, 0x2F, 2, 0, 0, 0, 16, 0, 0, 4);
    expect_sense(&w, 0x052400);
    assert_int_equal(RUN(&w, IN, 0, 0x1B, 0, 0, 0, 0), 0);
    close_world(&w);
}

static void test_many_blocks(void **state)
{
    struct world w;

    (void)state;
    open_world(&w, "", 0);
    if (!fits(&w))
        return close_world(&w);
    ready(&w);
    pattern(&w, 5, 512); /* WRITE SAME (10), 300 blocks: longer than what is written at once */
    assert_int_equal(RUN(&w, OUT, 512, 0x41, 0, 0, 0, 0, 100, 0, 1, 44), 0);
    for (unsigned at = 0; at < 300; at++) {
        memset(data(&w), 0xEE, 512);
        assert_int_equal(RUN(&w, IN, 512, 0x28, 0, 0, 0, (uint8_t)((100 + at) >> 8),
                             (uint8_t)(100 + at), 0, 0, 1),
                         0);
        expect_pattern(&w, 5, 512);
    }
    assert_int_equal(RUN(&w, IN, 512, 0x28, 0, 0, 0, 1, 0x90, 0, 0, 1), 0);
    assert_int_equal(data(&w)[1], 0); /* block 400 is not one of them */
    memset(data(&w), 0, 512);         /* WRITE SAME (16) of zeros, with UNMAP */
    assert_int_equal(RUN(&w, OUT, 512, 0x93, 8, 0, 0, 0, 0, 0, 0, 0, 101, 0, 0, 0, 4), 0);
    assert_int_equal(RUN(&w, IN, 3072, 0x28, 0, 0, 0, 0, 100, 0, 0, 6), 0);
    assert_int_equal(data(&w)[1], 12);
    for (unsigned i = 512; i < 2560; i++)
        assert_int_equal(data(&w)[i], 0);
    assert_int_equal(data(&w)[2561], 12);
    RUN(&w, OUT, 512, 0x41, 0, 0, 0, 0, 0, 0, 0, 0);
    expect_sense(&w, 0x052400); /* 0 blocks are not "to the end" */
    RUN(&w, OUT, 100, 0x41, 0, 0, 0, 0, 0, 0, 0, 1);
    assert_int_equal(w.response, 1);
    RUN(&w, OUT, 512, 0x41, 0, 0, 0, 0x3F, 255, 0, 0, 2);
    expect_sense(&w, 0x052100);
    close_world(&w);
}

static void unmap_range(struct world *w, unsigned n, uint64_t lba, uint32_t blocks)
{
    uint8_t *p = data(w);

    be16_store(p, (uint16_t)(6 + 16 * (n + 1)));
    be16_store(p + 2, (uint16_t)(16 * (n + 1)));
    be64_store(p + 8 + 16 * n, lba);
    be32_store(p + 16 + 16 * n, blocks);
}

static void test_unmap(void **state)
{
    struct world w;

    (void)state;
    open_world(&w, "", 0);
    if (!fits(&w))
        return close_world(&w);
    ready(&w);
    unmap_range(&w, 0, 0, 100);
    unmap_range(&w, 1, 500, 0);
    unmap_range(&w, 2, BLOCKS - 1, 1);
    assert_int_equal(RUN(&w, OUT, 56, 0x42, 0, 0, 0, 0, 0, 0, 0, 56), 0);
    assert_int_equal(RUN(&w, OUT, 0, 0x42, 0, 0, 0, 0, 0, 0, 0, 0), 0);
    unmap_range(&w, 2, BLOCKS - 1, 2);
    RUN(&w, OUT, 56, 0x42, 0, 0, 0, 0, 0, 0, 0, 56);
    expect_sense(&w, 0x052100);
    unmap_range(&w, 2, UINT64_MAX, UINT32_MAX);
    RUN(&w, OUT, 56, 0x42, 0, 0, 0, 0, 0, 0, 0, 56);
    expect_sense(&w, 0x052100);
    RUN(&w, OUT, 55, 0x42, 0, 0, 0, 0, 0, 0, 0, 56);
    assert_int_equal(w.response, 1);
    RUN(&w, OUT, 56, 0x42, 0, 0, 0, 0, 0, 0, 0, 7);
    expect_sense(&w, 0x051A00);
    RUN(&w, OUT, 56, 0x42, 0, 0, 0, 0, 0, 0, 0, 40); /* the list is longer than is said */
    expect_sense(&w, 0x052600);
    be16_store(data(&w) + 2, 16 * 65);
    RUN(&w, OUT, 2000, 0x42, 0, 0, 0, 0, 0, 0, 7, 208);
    expect_sense(&w, 0x052600);
    close_world(&w);
}

static void test_read_only(void **state)
{
    struct world w;

    (void)state;
    open_world(&w, ",ro", 0);
    if (!fits(&w))
        return close_world(&w);
    ready(&w);
    RUN(&w, OUT, 512, 0x2A, 0, 0, 0, 0, 0, 0, 0, 1);
    expect_sense(&w, 0x072700);
    RUN(&w, OUT, 512, 0x41, 0, 0, 0, 0, 0, 0, 0, 1);
    expect_sense(&w, 0x072700);
    RUN(&w, OUT, 24, 0x42, 0, 0, 0, 0, 0, 0, 0, 24);
    expect_sense(&w, 0x072700);
    assert_int_equal(RUN(&w, IN, 64, 0x1A, 8, 0x08, 0, 64), 0);
    assert_int_equal(data(&w)[2], 0x90);
    close_world(&w);
}

/* Who is not there, and who has no room. */
static void test_addresses(void **state)
{
    struct world w;

    (void)state;
    open_world(&w, "", F_INDIRECT);
    if (!fits(&w))
        return close_world(&w);
    w.lun[1] = 1;
    RUN(&w, IN, 36, 0x12, 0, 0, 0, 36);
    assert_int_equal(w.response, 3); /* BAD_TARGET */
    w.lun[1] = 0;
    w.lun[0] = 2;
    RUN(&w, IN, 36, 0x12, 0, 0, 0, 36);
    assert_int_equal(w.response, 3);
    w.lun[0] = 1;
    w.lun[2] = 0x40;
    w.lun[3] = 7;
    assert_int_equal(RUN(&w, IN, 36, 0x12, 0, 0, 0, 36), 0);
    assert_int_equal(data(&w)[0], 0x7F);
    assert_int_equal(RUN(&w, IN, 16, 0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 16), 0);
    RUN(&w, IN, 0, 0x00);
    expect_sense(&w, 0x052500);
    close_world(&w);
}

static void test_abuse(void **state)
{
    static const struct vbuf bad[][2] = {
        {{HEAD, 50, false}, {ANSWER, 108, true}},
        {{HEAD, 51, false}, {ANSWER, 107, true}},
        {{HEAD, 51, false}, {0xFEC00000, 108, true}},
    };
    struct world w;

    (void)state;
    for (unsigned i = 0; i < countof(bad); i++) {
        open_world(&w, "", 0);
        assert_true(queue_add(&w.d, REQUESTS, bad[i], 2, 0));
        queue_kick(&w.d, REQUESTS);
        assert_int_equal(driver_status(&w.d), 0x4F);
        close_world(&w);
    }
    open_world(&w, "", F_PACKED);
    if (fits(&w)) { /* data both ways */
        const struct vbuf both[] = {
            {HEAD, 51, false}, {DATA, 512, false}, {ANSWER, 108, true}, {DATA + 512, 512, true}};
        unsigned tag;

        assert_int_equal(gmem_fill(w.d.m.mem, HEAD, 0, 51), 0);
        put(&w.d, HEAD, 1, 1);
        assert_true(queue_add(&w.d, REQUESTS, both, 4, 0));
        queue_kick(&w.d, REQUESTS);
        queue_wait(&w.d, REQUESTS, &tag, &w.used);
        assert_int_equal(*(uint8_t *)gmem_ptr(w.d.m.mem, ANSWER + 11, 1), 9); /* FAILURE */
    }
    close_world(&w);
}

/* Task management; the answer. */
static uint8_t manage(struct world *w, uint32_t type, uint32_t subtype)
{
    const struct vbuf b[] = {{HEAD, 24, false}, {ANSWER, 1, true}};
    uint32_t len;
    unsigned tag;

    put(&w->d, HEAD, type, 4);
    put(&w->d, HEAD + 4, subtype, 4);
    put(&w->d, HEAD + 8, 1, 8);
    put(&w->d, HEAD + 16, 99, 8);
    assert_true(queue_add(&w->d, 0, b, 2, 0));
    queue_kick(&w->d, 0);
    if (!queue_take(&w->d, 0, &tag, &len))
        return 0xFF;
    assert_int_equal(len, 1);
    return *(uint8_t *)gmem_ptr(w->d.m.mem, ANSWER, 1);
}

static void test_control(void **state)
{
    struct world w;

    (void)state;
    open_world(&w, "", 0);
    if (!fits(&w))
        return close_world(&w);
    ready(&w);
    assert_int_equal(manage(&w, 0, 0), 0);  /* ABORT TASK of one that has ended */
    assert_int_equal(manage(&w, 0, 6), 0);  /* QUERY TASK: not there */
    assert_int_equal(manage(&w, 0, 2), 11); /* CLEAR ACA is not known */
    assert_int_equal(manage(&w, 0, 5), 0);  /* LOGICAL UNIT RESET */
    RUN(&w, IN, 0, 0x00);
    expect_sense(&w, 0x062900);
    machine_save_load(&w.d.m);
    assert_int_equal(RUN(&w, IN, 0, 0x00), 0);
    assert_int_equal(manage(&w, 7, 0), 0xFF);
    assert_int_equal(driver_status(&w.d), 0x4F);
    close_world(&w);
}

/* Another size: an event, at once or with the next buffer, and a unit attention. */
static void test_resize(void **state)
{
    const struct vbuf b = {DATA, 16, true};
    struct world w;
    uint32_t len;
    unsigned tag;

    (void)state;
    open_world(&w, "", 1u << 2);
    if (!fits(&w))
        return close_world(&w);
    ready(&w);
    assert_true(queue_add(&w.d, 1, &b, 1, 3));
    queue_kick(&w.d, 1);
    assert_false(queue_take(&w.d, 1, &tag, &len));
    assert_int_equal(truncate(w.path, 2 * DISK), 0);
    driver_refresh(&w.d);
    assert_true(queue_take(&w.d, 1, &tag, &len));
    assert_int_equal(len, 16);
    assert_int_equal(le32_load(data(&w)), 3);
    assert_int_equal(le64_load(data(&w) + 4), 1);
    assert_int_equal(le32_load(data(&w) + 12), 0x092A);
    RUN(&w, IN, 0, 0x00);
    expect_sense(&w, 0x062A09);
    assert_int_equal(RUN(&w, IN, 8, 0x25), 0);
    assert_int_equal(be32_load(data(&w)), 2 * BLOCKS - 1);
    for (unsigned i = 3; i < 5; i++) { /* twice without a buffer: one of them is missed */
        assert_int_equal(truncate(w.path, i * DISK), 0);
        driver_refresh(&w.d);
    }
    machine_save_load(&w.d.m);
    assert_true(queue_add(&w.d, 1, &b, 1, 3));
    queue_kick(&w.d, 1);
    assert_true(queue_take(&w.d, 1, &tag, &len));
    assert_int_equal(le32_load(data(&w)), 0x80000003);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_describes),   cmocka_unit_test(test_reads_and_writes),
        cmocka_unit_test(test_many_blocks), cmocka_unit_test(test_unmap),
        cmocka_unit_test(test_read_only),   cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_abuse),       cmocka_unit_test(test_control),
        cmocka_unit_test(test_resize),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
