/*
 * The reset control register at port 0xCF9. It lies inside the PCI configuration address port,
 * which takes 32-bit accesses at 0xCF8; the bus gives this one the bytes addressed to 0xCF9 itself.
 *
 * Called by the bus with the device's lock held.
 */
#include "dev/chips.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"

#define RESET_SYSTEM (1u << 1) /* the whole board, not the processor alone */
#define RESET_CPU (1u << 2)    /* its rising edge resets */
#define RESET_FULL (1u << 3)   /* with a power cycle */

struct reset {
    struct dev_env *env;
    uint8_t value;
};

static uint32_t reset_in(void *dev, unsigned offset, unsigned size)
{
    struct reset *r = dev;

    (void)offset;
    (void)size;
    return r->value;
}

static void reset_out(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    struct reset *r = dev;
    bool rising = (value & RESET_CPU) != 0 && !(r->value & RESET_CPU);

    (void)offset;
    (void)size;
    r->value = (uint8_t)(value & (RESET_SYSTEM | RESET_CPU | RESET_FULL));
    if (!rising)
        return;
    if (value & RESET_SYSTEM)
        dev_event(r->env, DEV_EVENT_RESET, 0);
    else
        log_guest(r->env, "not implemented: reset of the processor alone, which needs firmware");
}

static void reset_reset(void *dev)
{
    struct reset *r = dev;

    r->value = 0;
}

static int reset_create(struct dev_env *env, const struct options *opts, void **out,
                        struct error *err)
{
    struct reset *r = calloc(1, sizeof(*r));

    (void)opts;
    if (r == NULL)
        return error_set(err, -ENOMEM, "no memory for the reset register");
    r->env = env;
    *out = r;
    return 0;
}

static const struct port_range reset_ports[] = {
    {.base = 0xCF9, .len = 1, .in = reset_in, .out = reset_out},
};

static const struct state_field reset_state[] = {
    STATE_FIELD(1, struct reset, value),
};

const struct dev_ops reset_ops = {
    .name = "reset",
    .summary = "reset control register",
    .ports = reset_ports,
    .port_count = countof(reset_ports),
    .priority = 1, /* over the PCI address port around it */
    .state = reset_state,
    .state_count = countof(reset_state),
    .create = reset_create,
    .destroy = free,
    .reset = reset_reset,
};
