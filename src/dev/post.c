/*
 * The POST code ports 0x80 and 0x84: a latch each, traced. Kernels also write 0x80 as a delay.
 *
 * Called by the bus with the device's lock held.
 */
#include "dev/chips.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"

struct post {
    struct dev_env *env;
    uint8_t code[2]; /* ports 0x80 and 0x84 */
};

static uint32_t post80_in(void *dev, unsigned offset, unsigned size)
{
    struct post *p = dev;

    (void)offset;
    (void)size;
    return p->code[0];
}

static uint32_t post84_in(void *dev, unsigned offset, unsigned size)
{
    struct post *p = dev;

    (void)offset;
    (void)size;
    return p->code[1];
}

static void post_write(struct post *p, unsigned which, uint32_t value)
{
    p->code[which] = (uint8_t)value;
    log_trace(p->env->log, "post", "port %#x: %#04x", which == 0 ? 0x80u : 0x84u, value & 0xFF);
}

static void post80_out(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    (void)offset;
    (void)size;
    post_write(dev, 0, value);
}

static void post84_out(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    (void)offset;
    (void)size;
    post_write(dev, 1, value);
}

static void post_reset(void *dev)
{
    struct post *p = dev;

    p->code[0] = p->code[1] = 0;
}

static int post_create(struct dev_env *env, const struct options *opts, void **out,
                       struct error *err)
{
    struct post *p = calloc(1, sizeof(*p));

    (void)opts;
    if (p == NULL)
        return error_set(err, -ENOMEM, "no memory for the POST ports");
    p->env = env;
    *out = p;
    return 0;
}

static const struct port_range post_ports[] = {
    {.base = 0x80, .len = 1, .in = post80_in, .out = post80_out},
    {.base = 0x84, .len = 1, .in = post84_in, .out = post84_out},
};

static const struct state_field post_state[] = {
    STATE_FIELD(1, struct post, code),
};

const struct dev_ops post_ops = {
    .name = "post",
    .summary = "POST code ports",
    .ports = post_ports,
    .port_count = countof(post_ports),
    .state = post_state,
    .state_count = countof(post_state),
    .create = post_create,
    .destroy = free,
    .reset = post_reset,
};
