/* Every device that a script's `device NAME` can put on the board. */
#include "dev/chips.h"
#include "runner.h"

const struct dev_ops *const runner_devices[] = {
<<<<<<< HEAD
    &i8254_ops,  &i8259_ops,  &mc146818_ops, &pmtimer_ops, &acpipm_ops, &i8042_ops,
    &ioapic_ops, &port92_ops, &post_ops,     &pvpanic_ops, &reset_ops,  NULL,
=======
    &hpet_ops, &i8254_ops, &i8259_ops, &mc146818_ops, &pmtimer_ops, NULL,
>>>>>>> h-chips
};
