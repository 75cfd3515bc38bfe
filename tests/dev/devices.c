/* Every device that a script's `device NAME` can put on the board. */
#include "dev/chips.h"
#include "runner.h"

const struct dev_ops *const runner_devices[] = {
    &acpipm_ops, &fpuerr_ops, &fwcfg_ops,   &testdev_ops,  &hpet_ops,    &i8042_ops,
    &i8254_ops,  &i8259_ops,  &ioapic_ops,  &mc146818_ops, &ns16550_ops, &pmtimer_ops,
    &port92_ops, &post_ops,   &pvpanic_ops, &reset_ops,    NULL,
};
