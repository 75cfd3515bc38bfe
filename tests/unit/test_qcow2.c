/*
 * qcow2: what is refused and by which sentence, what the header says afterwards, where data lies,
 * and images of qemu-img's: read, written, and looked at by it again. Crashes: tests/block/crash.c.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "base/endian.h"
#include "block/qcow2.h"

#define DISK (4 * MIB)

static struct bfile *new_image(struct block_create o)
{
    struct bfile *f;
    struct error err;

    if (o.size == 0)
        o.size = DISK;
    assert_int_equal(bfile_memory("test", 0, &f, &err), 0);
    if (qcow2_create(f, &o, &err) < 0)
        fail_msg("%s", err.text);
    return f;
}

static struct qcow2 *open_rw(struct bfile *f)
{
    struct block_open o = {0};
    struct qcow2 *q = NULL;
    struct error err = {0};

    if (qcow2_open_slots(f, &o, 0, &q, &err) < 0)
        fail_msg("%s", err.text);
    return q;
}

static void write_at(struct qcow2 *q, uint64_t offset, uint8_t byte, size_t len)
{
    uint8_t *p = malloc(len);
    struct iovec iov = {.iov_base = p, .iov_len = len};

    memset(p, byte, len);
    assert_int_equal(qcow2_write(q, offset, &iov, 1), 0);
    free(p);
}

static void expect_at(struct qcow2 *q, uint64_t offset, uint8_t byte, size_t len)
{
    uint8_t *p = malloc(len);
    struct iovec iov = {.iov_base = p, .iov_len = len};

    assert_int_equal(qcow2_read(q, offset, &iov, 1), 0);
    for (size_t i = 0; i < len; i++) {
        if (p[i] != byte)
            fail_msg("byte %zu is %#x, not %#x", (size_t)offset + i, p[i], byte);
    }
    free(p);
}

static struct block_check check(struct bfile *f, bool fix)
{
    struct block_check c = {0};
    struct error err = {0};

    if (qcow2_check(f, fix, &c, &err) < 0)
        fail_msg("%s", err.text);
    return c;
}

static void expect_whole(struct bfile *f)
{
    struct block_check c = check(f, false);

    assert_int_equal(c.errors, 0);
    assert_int_equal(c.leaks, 0);
}

static void put64(struct bfile *f, uint64_t at, uint64_t v)
{
    uint8_t p[8];

    be64_store(p, v);
    assert_int_equal(bfile_write(f, at, p, 8), 0);
}

static void put32(struct bfile *f, uint64_t at, uint32_t v)
{
    uint8_t p[4];

    be32_store(p, v);
    assert_int_equal(bfile_write(f, at, p, 4), 0);
}

static uint64_t get64(struct bfile *f, uint64_t at)
{
    uint8_t p[8];

    assert_int_equal(bfile_read(f, at, p, 8), 0);
    return be64_load(p);
}

/* ---- refusals ---- */

static void refuse(struct bfile *f, bool read_only, int code, const char *words)
{
    struct block_open o = {.read_only = read_only};
    struct error err = {0};
    struct qcow2 *q;
    int rc = qcow2_open_slots(f, &o, 0, &q, &err);

    if (rc != code || strstr(err.text, words) == NULL)
        fail_msg("wanted %d '%s', got %d '%s'", code, words, rc, err.text);
}

static void refuse32(uint64_t at, uint32_t v, int code, const char *words)
{
    struct bfile *f = new_image((struct block_create){0});

    put32(f, at, v);
    refuse(f, true, code, words);
    bfile_close(f);
}

static void refuse64(uint64_t at, uint64_t v, int code, const char *words)
{
    struct bfile *f = new_image((struct block_create){0});

    put64(f, at, v);
    refuse(f, true, code, words);
    bfile_close(f);
}

static void test_header(void **state)
{
    (void)state;
    refuse32(0, 0, -EINVAL, "is no qcow2 image");
    refuse32(QCOW2_H_VERSION, 1, -ENOTSUP, "version 1; supported are 2 and 3");
    refuse32(QCOW2_H_VERSION, 4, -ENOTSUP, "version 4");
    refuse32(QCOW2_H_CLUSTER_BITS, 8, -ENOTSUP, "clusters of 2^8 bytes");
    refuse32(QCOW2_H_CLUSTER_BITS, 22, -ENOTSUP, "clusters of 2^22 bytes");
    refuse32(QCOW2_H_CRYPT, 1, -ENOTSUP, "is encrypted");
    refuse32(QCOW2_H_REFCOUNT_ORDER, 7, -EINVAL, "refcounts of 2^7 bits");
    refuse32(QCOW2_H_L1_SIZE, 0, -EINVAL, "too small for the disk");
    refuse32(QCOW2_H_L1_SIZE, 0x00400001, -EFBIG, "an L1 table of 4194305 entries");
    refuse32(QCOW2_H_REFTABLE_CLUSTERS, 0, -EINVAL, "a refcount table of 0 clusters");
    refuse32(QCOW2_H_REFTABLE_CLUSTERS, 129, -EINVAL, "a refcount table of 129 clusters");
    refuse32(QCOW2_H_LENGTH, 100, -EINVAL, "it says that it is 100 bytes long");
    refuse32(QCOW2_H_LENGTH, 65544, -EINVAL, "it says that it is 65544 bytes long");
    refuse32(QCOW2_H_SNAPSHOTS, 65537, -EFBIG, "65537 snapshots");
    refuse64(QCOW2_H_SIZE, 1ull << 63, -EINVAL, "corrupt header: its disk");
    refuse64(QCOW2_H_L1_OFFSET, 0, -EINVAL, "the L1 table cannot be at 0");
    refuse64(QCOW2_H_L1_OFFSET, 65536 + 512, -EINVAL, "the L1 table cannot be at 0x10200");
    refuse64(QCOW2_H_L1_OFFSET, 1ull << 40, -EINVAL, "the L1 table cannot be at");
    refuse64(QCOW2_H_L1_OFFSET, ~0xffffull, -EINVAL, "the L1 table cannot be at");
    refuse64(QCOW2_H_REFTABLE_OFFSET, 1, -EINVAL, "the refcount table cannot be at 0x1");
}

static void test_features(void **state)
{
    (void)state;
    refuse64(QCOW2_H_INCOMPATIBLE, QCOW2_EXTERNAL, -ENOTSUP, "external data file");
    refuse64(QCOW2_H_INCOMPATIBLE, QCOW2_EXTENDED_L2, -ENOTSUP, "extended L2 entries");
    refuse64(QCOW2_H_INCOMPATIBLE, 1ull << 33, -ENOTSUP, "unknown qcow2 feature of bit 33");
    refuse64(QCOW2_H_INCOMPATIBLE, QCOW2_COMPRESSION, -ENOTSUP, "unknown compression type 0");
}

static void test_marked_corrupt(void **state)
{
    struct bfile *f = new_image((struct block_create){0});
    struct block_open o = {.read_only = true};
    struct qcow2 *q;

    (void)state;
    put64(f, QCOW2_H_INCOMPATIBLE, QCOW2_CORRUPT);
    refuse(f, false, -EIO, "is marked as corrupt");
    assert_int_equal(qcow2_open_slots(f, &o, 0, &q, NULL), 0);
    qcow2_close(q);
    check(f, true);
    qcow2_close(open_rw(f));
    bfile_close(f);
}

/* ---- tables that lie on each other ---- */

static void test_overlaps(void **state)
{
    struct bfile *f = new_image((struct block_create){0});
    uint64_t l1 = get64(f, QCOW2_H_L1_OFFSET), l2;
    struct qcow2 *q = open_rw(f);
    uint8_t buf[512] = {7};
    struct iovec iov = {.iov_base = buf, .iov_len = 512};

    (void)state;
    write_at(q, 0, 1, 512);
    qcow2_close(q);
    l2 = get64(f, l1) & QCOW2_OFFSET;
    /* guest data on the L1 table: the write is not done, and the image is marked */
    put64(f, l2, l1 | QCOW2_COPIED);
    q = open_rw(f);
    assert_int_equal(qcow2_write(q, 0, &iov, 1), -EIO);
    assert_int_equal(qcow2_write(q, 1 << 20, &iov, 1), -EIO);
    qcow2_close(q);
    assert_int_equal(get64(f, l1) & QCOW2_OFFSET, l2);
    assert_int_equal(get64(f, QCOW2_H_INCOMPATIBLE), QCOW2_CORRUPT);
    assert_true(check(f, false).errors > 0);
    put64(f, QCOW2_H_INCOMPATIBLE, 0);
    /* behind the end of the file */
    put64(f, l2, 1ull << 50 | QCOW2_COPIED);
    q = open_rw(f);
    assert_int_equal(qcow2_write(q, 0, &iov, 1), -EIO);
    qcow2_close(q);
    put64(f, QCOW2_H_INCOMPATIBLE, 0);
    /* an L2 table on the refcount table */
    put64(f, l1, 65536 | QCOW2_COPIED);
    refuse(f, false, -EINVAL, "lies on other metadata");
    bfile_close(f);
}

static void test_discard_of_metadata(void **state)
{
    struct bfile *f = new_image((struct block_create){0});
    uint64_t l1 = get64(f, QCOW2_H_L1_OFFSET), l2;
    struct qcow2 *q = open_rw(f);

    (void)state;
    write_at(q, 0, 1, 512);
    qcow2_close(q);
    l2 = get64(f, l1) & QCOW2_OFFSET;
    put64(f, l2 + 8, l2 | QCOW2_COPIED);
    q = open_rw(f);
    (void)qcow2_zero(q, 65536, 65536, true);
    (void)qcow2_commit(q, true);
    (void)qcow2_commit(q, true);
    qcow2_close(q);
    assert_int_equal(get64(f, l1) & QCOW2_OFFSET, l2);
    assert_int_equal(get64(f, QCOW2_H_INCOMPATIBLE), QCOW2_CORRUPT);
    bfile_close(f);
}

/* ---- backing files ---- */

struct chain {
    struct bfile *file;
    unsigned depth;
};

static int same_file(void *ctx, const char *name, unsigned depth, struct bfile **file,
                     struct error *err)
{
    struct chain *c = ctx;
    uint64_t size;

    (void)name;
    c->depth = depth;
    if (bfile_size(c->file, &size) < 0 || bfile_memory("copy", size, file, err) < 0)
        return -ENOMEM;
    for (uint64_t at = 0; at < size; at += 512) {
        uint8_t buf[512];

        bfile_read(c->file, at, buf, 512);
        bfile_write(*file, at, buf, 512);
    }
    return 0;
}

static void test_backing(void **state)
{
    struct block_create create = {.backing = "base", .backing_format = "raw", .cluster = 4096};
    struct bfile *f = new_image(create), *raw;
    struct chain c = {0};
    struct block_open o = {.backing = same_file, .backing_ctx = &c};
    struct error err = {0};
    struct qcow2 *q;
    uint8_t buf[512];

    (void)state;
    refuse(f, false, -EPERM, "the backing file 'base', which is followed only if asked for");
    /* shorter than the disk, and not of whole clusters */
    assert_int_equal(bfile_memory("raw", 10 * 512, &raw, &err), 0);
    memset(buf, 0xbb, sizeof(buf));
    for (unsigned i = 0; i < 10; i++)
        bfile_write(raw, i * 512, buf, 512);
    c.file = raw;
    assert_int_equal(qcow2_open_slots(f, &o, 0, &q, &err), 0);
    expect_at(q, 0, 0xbb, 5120);
    expect_at(q, 5120, 0, 65536);
    write_at(q, 512, 0x11, 512);
    write_at(q, 5120, 0x22, 512);
    expect_at(q, 0, 0xbb, 512);
    expect_at(q, 512, 0x11, 512);
    expect_at(q, 1024, 0xbb, 4096);
    expect_at(q, 5120, 0x22, 512);
    expect_at(q, 5632, 0, 8192);
    assert_int_equal(qcow2_zero(q, 0, 8192, true), 0);
    expect_at(q, 0, 0, 8192);
    qcow2_close(q);
    expect_whole(f);
    bfile_close(raw);
    bfile_close(f);
    /* one that leads to itself */
    create.backing_format = "qcow2";
    f = new_image(create);
    c.file = f;
    assert_int_equal(qcow2_open_slots(f, &o, 0, &q, &err), -ELOOP);
    assert_non_null(strstr(err.text, "loop"));
    bfile_close(f);
    /* without a format a backing file is opened, but leads no further */
    create.backing_format = NULL;
    f = new_image(create);
    c.file = f;
    assert_int_equal(qcow2_open_slots(f, &o, 0, &q, &err), -EPERM);
    assert_int_equal(c.depth, 1);
    bfile_close(f);
}

/* ---- marks ---- */

static void test_autoclear(void **state)
{
    struct bfile *f = new_image((struct block_create){0});
    struct qcow2 *q;

    (void)state;
    put64(f, QCOW2_H_AUTOCLEAR, 1ull << 40);
    q = open_rw(f);
    expect_at(q, 0, 0, 512);
    qcow2_close(q);
    assert_int_equal(get64(f, QCOW2_H_AUTOCLEAR), 1ull << 40);
    q = open_rw(f);
    write_at(q, 0, 1, 512);
    assert_int_equal(get64(f, QCOW2_H_AUTOCLEAR), 0);
    qcow2_close(q);
    bfile_close(f);
}

/* Counts that somebody left for later, and the mark that says so. */
static void test_dirty(void **state)
{
    struct bfile *f = new_image((struct block_create){.lazy_refcounts = true});
    uint64_t block = get64(f, get64(f, QCOW2_H_REFTABLE_OFFSET));
    struct qcow2 *q = open_rw(f);

    (void)state;
    write_at(q, 0, 5, 300000);
    qcow2_close(q);
    for (unsigned i = 4; i < 16; i++)
        put32(f, block + 4 * i, 0);
    put64(f, QCOW2_H_INCOMPATIBLE, QCOW2_DIRTY);
    assert_true(check(f, false).errors > 0);
    q = open_rw(f);
    assert_int_equal(get64(f, QCOW2_H_INCOMPATIBLE), 0);
    write_at(q, 1 << 20, 6, 300000);
    expect_at(q, 0, 5, 300000);
    qcow2_close(q);
    expect_whole(f);
    bfile_close(f);
}

static void test_mend(void **state)
{
    struct bfile *f = new_image((struct block_create){.cluster = 4096});
    uint64_t table = get64(f, QCOW2_H_REFTABLE_OFFSET), block = get64(f, table);
    struct block_check c;
    struct qcow2 *q = open_rw(f);

    (void)state;
    write_at(q, 0, 5, 300000);
    qcow2_close(q);
    put32(f, block + 2 * 1000, 0x00010001); /* two that nobody uses */
    c = check(f, false);
    assert_int_equal(c.errors, 0);
    assert_int_equal(c.leaks, 2);
    assert_int_equal(check(f, true).fixed, 2);
    expect_whole(f);
    table = get64(f, QCOW2_H_REFTABLE_OFFSET);
    for (unsigned i = 0; i < 512; i++) /* every entry names the same block */
        put64(f, table + 8 * i, get64(f, table));
    assert_true(check(f, false).errors > 0);
    check(f, true);
    expect_whole(f);
    q = open_rw(f);
    expect_at(q, 0, 5, 300000);
    qcow2_close(q);
    bfile_close(f);
}

/* ---- where things are ---- */

static void test_locate(void **state)
{
    struct bfile *f = new_image((struct block_create){.cluster = 4096});
    struct qcow2 *q = open_rw(f);
    uint64_t at = 0, other = 0;
    uint8_t buf[512];

    (void)state;
    assert_false(qcow2_locate(q, false, 0, 512, &at));
    write_at(q, 0, 1, 16384);
    assert_true(qcow2_locate(q, false, 512, 1024, &at));
    assert_int_equal(bfile_read(f, at, buf, 512), 0);
    assert_int_equal(buf[0], 1);
    assert_true(qcow2_locate(q, true, 0, 16384, &other));
    assert_int_equal(other + 512, at);
    assert_false(qcow2_locate(q, false, 0, 16384 + 512, &at));
    /* zeros lie nowhere; and what was given back is given to nobody before a flush */
    assert_int_equal(qcow2_zero(q, 0, 4096, true), 0);
    assert_false(qcow2_locate(q, false, 0, 512, &at));
    write_at(q, 1 << 20, 2, 4096);
    assert_true(qcow2_locate(q, true, 1 << 20, 4096, &at));
    assert_int_not_equal(at, other);
    assert_int_equal(qcow2_commit(q, true), 0);
    write_at(q, 65536, 3, 4096);
    assert_true(qcow2_locate(q, true, 65536, 4096, &at));
    assert_int_equal(at, other);
    qcow2_close(q);
    expect_whole(f);
    bfile_close(f);
}

static void test_resize(void **state)
{
    struct bfile *f = new_image((struct block_create){.cluster = 512, .size = 512 * 1000});
    struct qcow2 *q = open_rw(f);
    struct error err;

    (void)state;
    write_at(q, 0, 1, 512 * 1000);
    assert_int_equal(qcow2_resize(q, 512 * 100000, &err), 0); /* a longer L1 table */
    expect_at(q, 0, 1, 512 * 1000);
    expect_at(q, 512 * 1000, 0, 512 * 1000);
    write_at(q, 512 * 99999, 2, 512);
    assert_int_equal(qcow2_resize(q, 512 * 500, &err), 0);
    assert_int_equal(qcow2_resize(q, 512 * 100000, &err), 0);
    expect_at(q, 0, 1, 512 * 500);
    expect_at(q, 512 * 500, 0, 512 * 1000);
    expect_at(q, 512 * 99999, 0, 512);
    assert_int_equal(qcow2_resize(q, 513, &err), -EINVAL);
    assert_int_equal(qcow2_resize(q, 1ull << 62, &err), -EFBIG);
    qcow2_close(q);
    expect_whole(f);
    bfile_close(f);
}

/* Widths of counts below a byte begin at the least significant bits. */
static void test_widths(void **state)
{
    uint8_t block[64] = {0};

    (void)state;
    for (unsigned order = 0; order <= 6; order++) {
        uint64_t max = order == 6 ? UINT64_MAX : (1ull << (1u << order)) - 1;

        memset(block, 0, sizeof(block));
        qcow2_ref_store(block, order, 3, max);
        for (uint64_t i = 0; i < 8; i++)
            assert_int_equal(qcow2_ref_load(block, order, i), i == 3 ? max : 0);
        qcow2_ref_store(block, order, 3, 0);
        for (unsigned i = 0; i < sizeof(block); i++)
            assert_int_equal(block[i], 0);
    }
    qcow2_ref_store(block, 0, 10, 1);
    assert_int_equal(block[1], 4);
    qcow2_ref_store(block, 2, 1, 9);
    assert_int_equal(block[0], 0x90);
}

/* ---- qemu-img ---- */

static char *dir; /* of its files */

static int __attribute__((format(printf, 1, 2))) shell(const char *fmt, ...)
{
    char line[2048];
    va_list ap;
    int n = snprintf(line, sizeof(line), "cd %s && exec >out 2>&1; ", dir);

    va_start(ap, fmt);
    vsnprintf(line + n, sizeof(line) - (size_t)n, fmt, ap);
    va_end(ap);
    return system(line);
}

static struct bfile *host_file(const char *name)
{
    const struct bfile_flags flags = {.lock = true};
    char path[512];
    struct bfile *f;
    struct error err;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    if (bfile_open(path, &flags, &f, &err) < 0)
        fail_msg("%s", err.text);
    return f;
}

/* A snapshot holds what it held, after its clusters were written over. */
static void test_snapshot(void **state)
{
    static const char *const kinds[] = {"", "-c", "-o compat=0.10", "-o cluster_size=512",
                                        "-o refcount_bits=64,cluster_size=4096"};

    (void)state;
    if (dir == NULL)
        skip();
    for (unsigned i = 0; i < countof(kinds); i++) {
        struct bfile *f;
        struct qcow2 *q;

        assert_int_equal(shell("head -c 3000000 /dev/urandom >a.raw; truncate -s 4M a.raw; "
                               "qemu-img convert %s -O qcow2 a.raw s.qcow2 && "
                               "qemu-img snapshot -c one s.qcow2",
                               kinds[i]),
                         0);
        f = host_file("s.qcow2");
        q = open_rw(f);
        write_at(q, 1000 * 512, 0x77, 512);
        write_at(q, 65536, 0x78, 200000);
        assert_int_equal(qcow2_zero(q, 1 << 20, 1 << 20, true), 0);
        assert_int_equal(qcow2_commit(q, true), 0);
        write_at(q, 3 << 20, 0x79, 500000);
        expect_at(q, 1000 * 512, 0x77, 512);
        expect_at(q, 65536, 0x78, 200000);
        qcow2_close(q);
        expect_whole(f);
        bfile_close(f);
        assert_int_equal(shell("qemu-img check s.qcow2"), 0);
        assert_int_equal(shell("qemu-img convert -l one -O raw s.qcow2 b.raw && cmp a.raw b.raw"),
                         0);
        assert_int_equal(shell("qemu-img snapshot -d one s.qcow2 && qemu-img check s.qcow2"), 0);
    }
}

/* Half by us, half by qemu-io, and both read all of it. */
static void test_both_write(void **state)
{
    static const unsigned clusters[] = {512, 4096, 65536, 2 << 20};

    (void)state;
    if (dir == NULL)
        skip();
    for (unsigned i = 0; i < countof(clusters) * 2; i++) {
        struct block_create o = {.size = 8 * MIB, .cluster = clusters[i / 2], .version = 2 + i % 2};
        const struct bfile_flags flags = {.create = true};
        char path[512];
        struct bfile *f;
        struct qcow2 *q;
        struct error err;

        snprintf(path, sizeof(path), "%s/both.qcow2", dir);
        unlink(path);
        assert_int_equal(bfile_open(path, &flags, &f, &err), 0);
        assert_int_equal(qcow2_create(f, &o, &err), 0);
        q = open_rw(f);
        write_at(q, 1536, 0x31, 700000);
        qcow2_close(q);
        bfile_close(f);
        assert_int_equal(shell("qemu-img check both.qcow2"), 0);
        assert_int_equal(shell("qemu-io -c 'read -P 0x31 1536 700000' -c 'write -P 0x32 1M 3M' "
                               "-c 'write -z 2M 64k' -c 'write -c -P 0x33 6M 2M' both.qcow2 && "
                               "! grep -i -e fail -e error out"),
                         0);
        f = host_file("both.qcow2");
        q = open_rw(f);
        expect_at(q, 1536, 0x31, 700000 - 700000 % 512);
        expect_at(q, 1 << 20, 0x32, 1 << 20);
        expect_at(q, 2 << 20, 0, 65536);
        expect_at(q, 6 << 20, 0x33, 2 << 20);
        write_at(q, (6 << 20) + 512, 0x34, 1 << 20);
        expect_at(q, 6 << 20, 0x33, 512);
        qcow2_close(q);
        expect_whole(f);
        bfile_close(f);
        assert_int_equal(shell("qemu-img check both.qcow2"), 0);
    }
}

static int set_up(void **state)
{
    static char path[] = "/tmp/qcow2-XXXXXX";

    (void)state;
    if (system("command -v qemu-img >/dev/null && command -v qemu-io >/dev/null") == 0)
        dir = mkdtemp(path);
    else
        print_message("skipped: qemu-img is missing\n");
    return 0;
}

static int tear_down(void **state)
{
    char line[256];

    (void)state;
    snprintf(line, sizeof(line), "rm -rf %s", dir != NULL ? dir : "");
    return dir == NULL ? 0 : system(line);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_features),
        cmocka_unit_test(test_marked_corrupt),
        cmocka_unit_test(test_overlaps),
        cmocka_unit_test(test_discard_of_metadata),
        cmocka_unit_test(test_backing),
        cmocka_unit_test(test_autoclear),
        cmocka_unit_test(test_dirty),
        cmocka_unit_test(test_mend),
        cmocka_unit_test(test_locate),
        cmocka_unit_test(test_resize),
        cmocka_unit_test(test_widths),
        cmocka_unit_test(test_snapshot),
        cmocka_unit_test(test_both_write),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
