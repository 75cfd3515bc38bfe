/*
 * System control port A (0x92): the fast ways to gate address line 20 and to reset.
 *
 * Called by the bus with the device's lock held. The machine starts with A20 open.
 */
#include "dev/chips.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"

#define PORT92_RESET (1u << 0) /* its rising edge resets */
#define PORT92_A20 (1u << 1)

struct port92 {
    struct dev_env *env;
    uint8_t value;
};

static uint32_t port92_in(void *dev, unsigned offset, unsigned size)
{
    struct port92 *p = dev;

    (void)offset;
    (void)size;
    return p->value;
}

static void port92_out(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    struct port92 *p = dev;
    uint32_t changed = p->value ^ value;

    (void)offset;
    (void)size;
    p->value = (uint8_t)(value & (PORT92_RESET | PORT92_A20));
    if (changed & PORT92_A20)
        dev_event(p->env, DEV_EVENT_A20, (value & PORT92_A20) != 0);
    if ((changed & PORT92_RESET) != 0 && (value & PORT92_RESET) != 0)
        dev_event(p->env, DEV_EVENT_RESET, 0);
}

static void port92_reset(void *dev)
{
    struct port92 *p = dev;

    p->value = PORT92_A20;
}

static int port92_create(struct dev_env *env, const struct options *opts, void **out,
                         struct error *err)
{
    struct port92 *p = calloc(1, sizeof(*p));

    (void)opts;
    if (p == NULL)
        return error_set(err, -ENOMEM, "no memory for port 0x92");
    p->env = env;
    port92_reset(p);
    *out = p;
    return 0;
}

static const struct port_range port92_ports[] = {
    {.base = 0x92, .len = 1, .in = port92_in, .out = port92_out},
};

static const struct state_field port92_state[] = {
    STATE_FIELD(1, struct port92, value),
};

const struct dev_ops port92_ops = {
    .name = "port92",
    .summary = "A20 gate and fast reset",
    .ports = port92_ports,
    .port_count = countof(port92_ports),
    .state = port92_state,
    .state_count = countof(port92_state),
    .create = port92_create,
    .destroy = free,
    .reset = port92_reset,
};
