/* A virtio device whose notifications an engine takes: where they are, and what a ring does. */
#include <errno.h>
#include <unistd.h>

#include "bus/doorbell.h"
#include "virtio/virtio.h"
#include "virtio_fixture.h"

#define DATA 0x200000u
#define LEN 64u

/* An engine's side: the bells that it was told of. */
struct engine {
    struct bus_spot spot[4];
    int fd[4];
    unsigned count;
};

static int engine_set(void *ctx, const struct bus_spot *spot, int fd, bool on)
{
    struct engine *e = ctx;

    if (on) {
        assert_true(e->count < 4);
        e->spot[e->count] = *spot;
        e->fd[e->count++] = fd;
        return 0;
    }
    for (unsigned i = 0; i < e->count; i++) {
        if (e->fd[i] == fd) {
            e->fd[i] = e->fd[--e->count];
            e->spot[i] = e->spot[e->count];
            return 0;
        }
    }
    return -ENOENT;
}

static bool has(const struct engine *e, enum bus_space space, uint64_t addr, bool match, int *fd)
{
    for (unsigned i = 0; i < e->count; i++) {
        if (e->spot[i].space == space && e->spot[i].addr == addr && e->spot[i].len == 2 &&
            e->spot[i].match == match && e->spot[i].value == 0) {
            *fd = e->fd[i];
            return true;
        }
    }
    return false;
}

static void start(struct driver *d, struct engine *e, const char *options)
{
    memset(e, 0, sizeof(*e));
    driver_start(d, &virtio_rnd_ops, options, true);
    bus_attach_doorbells(d->m.bus, engine_set, e);
}

static void stop(struct driver *d)
{
    bus_attach_doorbells(d->m.bus, NULL, NULL);
    driver_stop(d);
}

static void ring(int fd)
{
    uint64_t one = 1;

    assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
}

/* Off where nobody asks; on with a thread of the device's own. */
static void test_wanted(void **state)
{
    struct driver d = {0};
    struct engine e;

    (void)state;
    start(&d, &e, "");
    assert_int_equal(e.count, 0);
    stop(&d);
    start(&d, &e, "ioeventfd=on");
    assert_int_equal(e.count, 2);
    stop(&d);
    driver_start(&d, &virtio_rnd_ops, "ioeventfd=on", false); /* without a loop */
    bus_attach_doorbells(d.m.bus, engine_set, &e);
    assert_int_equal(e.count, 0);
    stop(&d);
}

static void test_places(void **state)
{
    struct driver d = {0};
    struct engine e;
    uint64_t io;
    int fd;

    (void)state;
    start(&d, &e, "ioeventfd=on");
    io = cfgr(&d.m, 4, 0, 0x10, 4) & 0xFFFCu;
    assert_true(has(&e, BUS_MMIO, d.bar + 0x3000, false, &fd));
    assert_true(has(&e, BUS_PIO, io + 0x10, true, &fd));
    cfgw(&d.m, 4, 0, 4, 2, 5); /* no memory */
    assert_int_equal(e.count, 1);
    cfgw(&d.m, 4, 0, 0x20, 4, 0xD0000000);
    cfgw(&d.m, 4, 0, 4, 2, 6); /* no ports */
    assert_int_equal(e.count, 1);
    assert_true(has(&e, BUS_MMIO, 0xD0003000, false, &fd));
    cfgw(&d.m, 4, 0, 4, 2, 7);
    pci_reset(d.m.pci);
    assert_true(has(&e, BUS_MMIO, d.bar + 0x3000, false, &fd));
    assert_true(has(&e, BUS_PIO, io + 0x10, true, &fd));
    stop(&d);
}

static void test_served(void **state)
{
    struct driver d = {0};
    struct engine e;
    struct vbuf buf = {DATA, LEN, true};
    unsigned tag;
    uint32_t len;
    int modern = -1, legacy = -1;

    (void)state;
    start(&d, &e, "ioeventfd=on");
    assert_true(has(&e, BUS_MMIO, d.bar + 0x3000, false, &modern));
    has(&e, BUS_PIO, (cfgr(&d.m, 4, 0, 0x10, 4) & 0xFFFCu) + 0x10, true, &legacy);
    ring(modern); /* nobody has set it up */
    driver_begin(&d, F_VERSION_1, 1, 16);
    for (unsigned i = 0; i < 40; i++) {
        assert_true(queue_add(&d, 0, &buf, 1, 3));
        ring(i % 2 == 0 ? modern : legacy);
        queue_wait(&d, 0, &tag, &len);
        assert_int_equal(tag, 3);
        assert_int_equal(len, LEN);
    }
    /* what was rung before a reset is heard after it, and means nothing */
    assert_true(queue_add(&d, 0, &buf, 1, 5));
    pthread_mutex_lock(&d.m.env[0].lock);
    ring(modern);
    virtio_pci_reset(d.m.pci->funcs[0]->impl);
    pthread_mutex_unlock(&d.m.env[0].lock);
    driver_begin(&d, F_VERSION_1, 1, 16);
    assert_true(queue_add(&d, 0, &buf, 1, 6));
    queue_kick(&d, 0); /* by an access */
    queue_wait(&d, 0, &tag, &len);
    assert_int_equal(tag, 6);
    stop(&d);
}

/* A ring that the loop has not come to is heard before the device is saved. */
static void test_saved(void **state)
{
    struct driver d = {0};
    struct engine e;
    struct vbuf buf = {DATA, LEN, true};
    struct state_buf out = {0};
    unsigned tag;
    uint32_t len;
    int fd = -1;

    (void)state;
    start(&d, &e, "ioeventfd=on");
    assert_true(has(&e, BUS_MMIO, d.bar + 0x3000, false, &fd));
    driver_begin(&d, F_VERSION_1, 1, 16);
    loop_stop(d.loop);
    pthread_join(d.thread, NULL);
    assert_true(queue_add(&d, 0, &buf, 1, 2));
    ring(fd);
    pci_save(d.m.pci, &out);
    assert_true(queue_take(&d, 0, &tag, &len));
    assert_int_equal(len, LEN);
    free(out.data);
    bus_attach_doorbells(d.m.bus, NULL, NULL);
    machine_stop(&d.m);
    loop_destroy(d.loop);
    config_destroy(d.node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wanted),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_served),
        cmocka_unit_test(test_saved),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
