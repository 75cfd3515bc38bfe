/*
 * What a request costs in the device alone: virtio-blk on a machine without a processor, driven by
 * this program in a guest's place, for tools/bench-disk.sh. It puts requests into a split ring,
 * notifies, and takes them back; what that costs the driver's side is in the figures.
 *
 *     request [IMAGE]
 *
 * prints  request STORE NAME NANOSECONDS  for a disk in memory, which the device copies from and to
 * before the notification returns, and for IMAGE, which goes by io_uring through the host's cache.
 * Each figure is the least of some batches.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/endian.h"
#include "host/clock.h"
#include "virtio/virtio.h"
#include "virtio_fixture.h"

#define T_IN 0u
#define T_OUT 1u
#define F_BLK_FLUSH (1ull << 9) /* without it each write is flushed */
#define HEADS 0x200000u         /* of memory: 32 bytes for each request, a status in the last */
#define DATA 0x300000u          /* 64 KiB for each */
#define DISK (64ull << 20)
#define BATCHES 20u
#define BATCH 2048u /* requests */

static const struct load {
    const char *name;
    uint32_t type, len;
    unsigned depth;
} loads[] = {
    {"read-512-1", T_IN, 512, 1},   {"read-4k-1", T_IN, 4096, 1},
    {"read-4k-16", T_IN, 4096, 16}, {"write-512-1", T_OUT, 512, 1},
    {"write-4k-1", T_OUT, 4096, 1}, {"write-4k-16", T_OUT, 4096, 16},
};

static void add(struct driver *d, const struct load *l, unsigned tag)
{
    uint64_t head = HEADS + 32ull * tag;
    struct vbuf bufs[3] = {{head, 16, false},
                           {DATA + 0x10000ull * tag, l->len, l->type == T_IN},
                           {head + 31, 1, true}};
    uint8_t raw[16] = {0};

    le32_store(raw, l->type);
    le64_store(raw + 8, rnd(d, DISK / l->len) * (l->len / 512));
    assert_int_equal(gmem_write(d->m.mem, head, raw, sizeof(raw)), 0);
    assert_true(queue_add(d, 0, bufs, countof(bufs), tag));
}

static void take(struct driver *d)
{
    unsigned tag;
    uint32_t len;

    queue_wait(d, 0, &tag, &len);
    assert_int_equal(*(uint8_t *)gmem_ptr(d->m.mem, HEADS + 32ull * tag + 31, 1), 0);
}

static void run(struct driver *d, const struct load *l, const char *store)
{
    uint64_t least = UINT64_MAX;

    for (unsigned batch = 0; batch < BATCHES; batch++) {
        uint64_t from = host_clock_ns(), took;

        for (unsigned i = 0; i < BATCH; i += l->depth) {
            for (unsigned tag = 0; tag < l->depth; tag++)
                add(d, l, tag);
            queue_kick(d, 0);
            for (unsigned tag = 0; tag < l->depth; tag++)
                take(d);
        }
        took = host_clock_ns() - from;
        if (took < least)
            least = took;
    }
    printf("request %s %s %.0f\n", store, l->name, (double)least / BATCH);
    fflush(stdout);
}

static void disk(const char *store, const char *options, bool threaded)
{
    struct driver *d = calloc(1, sizeof(*d));

    assert_non_null(d);
    d->x = 1;
    driver_start(d, &virtio_blk_ops, options, threaded);
    driver_begin(d, F_VERSION_1 | F_EVENT_IDX | F_BLK_FLUSH, 1, VQ_SIZE);
    for (size_t i = 0; i < countof(loads); i++)
        run(d, &loads[i], store);
    driver_stop(d);
    free(d);
}

int main(int argc, char **argv)
{
    char options[600];

    disk("memory", "ram=64m", false);
    if (argc > 1) {
        snprintf(options, sizeof(options), "%s,format=raw", argv[1]);
        disk("file", options, true);
    }
    return 0;
}
