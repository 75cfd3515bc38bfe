/* Every device that a script's `device NAME` can put on the board. */
#include "dev/chips.h"
#include "runner.h"

const struct dev_ops *const runner_devices[] = {
    &i8254_ops, &i8259_ops, &mc146818_ops, &pmtimer_ops, NULL,
};
