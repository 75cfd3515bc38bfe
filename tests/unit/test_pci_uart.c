/* The serial card: registers by its BAR, interrupt by its pin, back end in memory. */
#include "pci_fixture.h"
#include "pci/table.h"

static void test_uart(void **state)
{
    struct machine m;
    uint16_t io;

    (void)state;
    machine_start(&m, false);
    assert_int_equal(machine_add(&m, 2, 0, &pci_uart_ops), 0);
    assert_int_equal(pci_assign(m.pci, NULL), 0);
    assert_int_equal(cfgr(&m, 2, 0, 0, 4), 0x2000131F);
    assert_int_equal(cfgr(&m, 2, 0, 8, 4), 0x07000200);
    io = (uint16_t)(cfgr(&m, 2, 0, 0x10, 4) & ~3u);
    out(&m, (uint16_t)(io + 7), 1, 0x5A); /* scratch */
    assert_int_equal(in(&m, (uint16_t)(io + 7), 1), 0x5A);
    assert_int_equal(in(&m, (uint16_t)(io + 5), 1) & 0x60, 0x60); /* transmitter empty */
    assert_false(irq_gsi_level(m.irqs, 18));
    out(&m, (uint16_t)(io + 4), 1, 8); /* OUT2 lets interrupts out */
    out(&m, (uint16_t)(io + 1), 1, 2); /* interrupt when empty: now */
    assert_true(irq_gsi_level(m.irqs, 18));
    machine_save_load(&m);
    assert_true(irq_gsi_level(m.irqs, 18));
    assert_int_equal(in(&m, (uint16_t)(io + 7), 1), 0x5A);
    assert_int_equal(in(&m, (uint16_t)(io + 2), 1) & 0xF, 2);
    assert_false(irq_gsi_level(m.irqs, 18));
    pci_reset(m.pci);
    assert_int_equal(in(&m, (uint16_t)(io + 1), 1), 0);
    machine_stop(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
