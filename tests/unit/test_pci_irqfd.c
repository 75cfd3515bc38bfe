/* MSI-X by descriptor: what the engine is told of a vector, whatever the guest does to it. */
#include <errno.h>
#include <unistd.h>

#include "pci_fixture.h"

#include "bus/irqfd.h"
#include "host/loop.h"

enum { VECTORS = 3, SLOT = 3, BAR = 4, FIRST = IRQ_GSI_COUNT };

static struct pci_func *made; /* the latest one */

static int plain_create(struct dev_env *env, struct pci_func *f, const struct options *opts,
                        void **out_dev, struct error *err)
{
    (void)env;
    (void)opts;
    made = f;
    *out_dev = f;
    pci_set_ids(f, 0x1234, 0x5678, 3, 0xFF0102, 0x1111, 0x2222);
    return pci_add_msix(f, VECTORS, BAR, err);
}

static const struct pci_ops plain_ops = {
    .name = "plain", .summary = "a device for tests", .create = plain_create};

struct board {
    struct machine m;
    struct loop *loop; /* does not run: what the engine has not is sent by calls */
    struct pci_func *f;
    uint32_t bar;
    unsigned cap;
    struct {
        int fd; /* 0: not taken */
        struct irq_message msg;
    } at[FIRST + VECTORS];
};

static int engine_set(void *ctx, unsigned slot, int fd, const struct irq_message *msg)
{
    struct board *b = ctx;

    assert_true(slot < countof(b->at));
    b->at[slot].fd = msg != NULL ? fd : 0;
    if (msg != NULL)
        b->at[slot].msg = *msg;
    return 0;
}

static unsigned taken(const struct board *b)
{
    unsigned n = 0;

    for (unsigned i = 0; i < countof(b->at); i++)
        n += b->at[i].fd != 0;
    return n;
}

/* What the engine's descriptor at this slot has; they come to slots as they are first unmasked. */
static uint64_t counted(const struct board *b, unsigned slot)
{
    uint64_t count = 0;

    if (read(b->at[slot].fd, &count, sizeof(count)) < 0)
        assert_int_equal(errno, EAGAIN);
    return count;
}

static void entry(struct board *b, unsigned vector, uint32_t dest, uint32_t data, uint32_t control)
{
    mmio_out(&b->m, b->bar + 16 * vector + 12, 4, 1);
    mmio_out(&b->m, b->bar + 16 * vector, 8, 0xFEE00000 | dest << 12);
    mmio_out(&b->m, b->bar + 16 * vector + 8, 4, data);
    mmio_out(&b->m, b->bar + 16 * vector + 12, 4, control);
}

static int setup(void **state)
{
    struct board *b = calloc(1, sizeof(*b));
    struct error err = {0};

    *state = b;
    machine_start(&b->m, false);
    b->loop = loop_create(&err);
    assert_int_equal(irq_fds_allow(b->m.irqs, b->loop, &err), 0);
    assert_int_equal(machine_add(&b->m, SLOT, 0, &plain_ops), 0);
    assert_int_equal(pci_assign(b->m.pci, &err), 0);
    irq_attach_fds(b->m.irqs, engine_set, b);
    b->bar = cfgr(&b->m, SLOT, 0, 0x10 + 4 * BAR, 4);
    b->cap = find_cap(&b->m, SLOT, 0x11, 0);
    b->f = made;
    cfgw(&b->m, SLOT, 0, 4, 2, 6); /* memory, bus master */
    cfgw(&b->m, SLOT, 0, b->cap + 2, 2, 0x8000);
    return 0;
}

static int teardown(void **state)
{
    struct board *b = *state;

    machine_stop(&b->m);
    loop_destroy(b->loop);
    free(b);
    return 0;
}

static void test_sent(void **state)
{
    struct board *b = *state;

    assert_int_equal(taken(b), 0); /* all are masked */
    entry(b, 1, 7, 0x31, 0);
    assert_int_equal(taken(b), 1);
    assert_int_equal(b->at[FIRST].msg.vector, 0x31);
    assert_int_equal(b->at[FIRST].msg.dest, 7);
    entry(b, 0, 0, 0x30, 0);
    assert_int_equal(b->at[FIRST + 1].msg.vector, 0x30);
    pci_msix_send(b->f, 1);
    pci_msix_send(b->f, 1);
    pci_msix_send(b->f, 0);
    pci_msix_send(b->f, 2); /* masked: it pends */
    assert_int_equal(counted(b, FIRST), 2);
    assert_int_equal(counted(b, FIRST + 1), 1);
    assert_int_equal(b->m.messages, 0); /* by no other way */
    assert_int_equal(irq_fds_sent(b->m.irqs), 3);
    entry(b, 2, 0, 0x32, 0);
    assert_int_equal(counted(b, FIRST + 2), 1);
    mmio_out(&b->m, b->bar + 8, 4, 0x40); /* without a mask between */
    assert_int_equal(b->at[FIRST + 1].msg.vector, 0x40);
    irq_attach_fds(b->m.irqs, NULL, NULL);
    assert_int_equal(taken(b), 0);
    pci_msix_send(b->f, 0);
    assert_int_equal(b->m.messages, 1);
    assert_int_equal(b->m.last.vector, 0x40);
}

/* Whatever stands in the way of a message stands in the way of its descriptor. */
static void test_in_the_way(void **state)
{
    struct board *b = *state;

    entry(b, 0, 0, 0x30, 0);
    assert_int_equal(taken(b), 1);
    mmio_out(&b->m, b->bar + 12, 4, 1);
    assert_int_equal(taken(b), 0);
    mmio_out(&b->m, b->bar + 12, 4, 0);
    assert_int_equal(taken(b), 1);
    cfgw(&b->m, SLOT, 0, b->cap + 2, 2, 0xC000); /* the function's mask */
    assert_int_equal(taken(b), 0);
    cfgw(&b->m, SLOT, 0, b->cap + 2, 2, 0x8000);
    assert_int_equal(taken(b), 1);
    cfgw(&b->m, SLOT, 0, b->cap + 2, 2, 0);
    assert_int_equal(taken(b), 0);
    cfgw(&b->m, SLOT, 0, b->cap + 2, 2, 0x8000);
    cfgw(&b->m, SLOT, 0, 4, 2, 2); /* no bus master */
    assert_int_equal(taken(b), 0);
    pci_msix_send(b->f, 0);
    assert_int_equal(b->m.messages, 0);
    cfgw(&b->m, SLOT, 0, 4, 2, 6);
    assert_int_equal(taken(b), 1);
    mmio_out(&b->m, b->bar, 4, 0xC0000000); /* not an APIC's address */
    assert_int_equal(taken(b), 0);
    pci_msix_send(b->f, 0);
    assert_int_equal(b->m.messages, 0);
    mmio_out(&b->m, b->bar, 4, 0xFEE00000);
    assert_int_equal(taken(b), 1);
    mmio_out(&b->m, b->bar + 8, 4, 0x330); /* a reserved delivery mode */
    assert_int_equal(taken(b), 0);
}

static void test_reset_and_load(void **state)
{
    struct board *b = *state;

    entry(b, 0, 0, 0x30, 0);
    entry(b, 2, 5, 0x32, 0);
    machine_save_load(&b->m); /* with a reset between */
    assert_int_equal(taken(b), 2);
    assert_int_equal(b->at[FIRST].msg.vector, 0x30);
    assert_int_equal(b->at[FIRST + 1].msg.vector, 0x32);
    assert_int_equal(b->at[FIRST + 1].msg.dest, 5);
    pci_reset(b->m.pci);
    assert_int_equal(taken(b), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_sent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_in_the_way, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_and_load, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
