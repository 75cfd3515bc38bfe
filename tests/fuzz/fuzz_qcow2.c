/*
 * A hostile qcow2 file through everything that is done to one. Nothing is expected of the answers
 * but that they come: no crash, no hang, no memory without bound (the sanitizers watch). For
 * libFuzzer (meson setup -Dfuzz=true, with clang), and included by tests/unit/test_qcow2_hostile.c,
 * which makes the files itself.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "block/qcow2.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct bfile *hostile_file(const uint8_t *data, size_t len)
{
    struct bfile *f = NULL;

    if (bfile_memory("hostile", len, &f, NULL) < 0 || bfile_write(f, 0, data, len) < 0)
        abort();
    return f;
}

/* Places all over the disk, those at the ends of tables too. */
static uint64_t place(uint64_t size, unsigned i)
{
    uint64_t at = i < 16 ? i * 4096ull : size / 61 * i;

    return align_down(at % size, 512);
}

static void hostile_read(struct qcow2 *q)
{
    uint8_t *buf = malloc(65536);
    uint64_t size = q->header.size;

    for (unsigned i = 0; size > 0 && i < 61; i++) {
        uint64_t at = place(size, i), len, in_file;
        struct iovec iov = {.iov_base = buf, .iov_len = min_u64(65536, size - at)};
        enum block_extent kind;

        (void)qcow2_read(q, at, &iov, 1);
        (void)qcow2_map(q, at, &kind, &len, &in_file);
        (void)qcow2_locate(q, i % 2 == 0, at, 512, &in_file);
    }
    free(buf);
}

static void hostile_write(struct qcow2 *q)
{
    uint8_t *buf = calloc(1, 65536);
    uint64_t size = q->header.size;

    for (unsigned i = 0; size > 0 && i < 61; i++) {
        uint64_t at = place(size, i);
        struct iovec iov = {.iov_base = buf, .iov_len = min_u64(512u << i % 8, size - at)};

        memset(buf, (int)i + 1, 65536);
        (void)qcow2_write(q, at, &iov, 1);
        if (i % 7 == 3)
            (void)qcow2_zero(q, at, min_u64(1 << 20, size - at), i % 2 == 0);
        if (i % 16 == 9)
            (void)qcow2_commit(q, true);
    }
    free(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct bfile *f = hostile_file(data, len);
    struct block_open o = {.read_only = true};
    struct block_check c = {0};
    struct error err = {0};
    struct qcow2 *q;

    (void)block_qcow2.probe(data, min_u64(len, BLOCK_HEAD), len);
    (void)qcow2_check(f, false, &c, &err);
    if (qcow2_open_slots(f, &o, 64, &q, &err) == 0) {
        hostile_read(q);
        qcow2_close(q);
    }
    o.read_only = false;
    if (qcow2_open_slots(f, &o, 64, &q, &err) == 0) {
        hostile_write(q);
        hostile_read(q);
        if (q->header.size < 1ull << 40)
            (void)qcow2_resize(q, q->header.size + (1 << 20), &err);
        qcow2_close(q);
    }
    (void)qcow2_check(f, true, &c, &err);
    bfile_close(f);
    return 0;
}
