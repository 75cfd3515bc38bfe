/*
 * pvpanic: a guest kernel that has panicked writes a bit here. Reading tells which are understood.
 * Stateless. Called by the bus with the device's lock held.
 */
#include "dev/chips.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"

#define PVPANIC_PANICKED (1u << 0)
#define PVPANIC_CRASH_LOADED (1u << 1)
#define PVPANIC_EVENTS (PVPANIC_PANICKED | PVPANIC_CRASH_LOADED)

struct pvpanic {
    struct dev_env *env;
};

static uint32_t pvpanic_in(void *dev, unsigned offset, unsigned size)
{
    (void)dev;
    (void)offset;
    (void)size;
    return PVPANIC_EVENTS;
}

static void pvpanic_out(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    struct pvpanic *p = dev;

    (void)offset;
    (void)size;
    if (value & ~PVPANIC_EVENTS)
        log_guest(p->env, "event %#x is not known", value);
    if (value & PVPANIC_PANICKED)
        dev_event(p->env, DEV_EVENT_PANIC, 0);
    else if (value & PVPANIC_CRASH_LOADED)
        dev_event(p->env, DEV_EVENT_CRASHLOADED, 0);
}

static int pvpanic_create(struct dev_env *env, const struct options *opts, void **out,
                          struct error *err)
{
    struct pvpanic *p = calloc(1, sizeof(*p));

    (void)opts;
    if (p == NULL)
        return error_set(err, -ENOMEM, "no memory for pvpanic");
    p->env = env;
    *out = p;
    return 0;
}

static const struct port_range pvpanic_ports[] = {
    {.base = 0x505, .len = 1, .in = pvpanic_in, .out = pvpanic_out},
};

const struct dev_ops pvpanic_ops = {
    .name = "pvpanic",
    .summary = "tells the host of a guest's panic",
    .ports = pvpanic_ports,
    .port_count = countof(pvpanic_ports),
    .create = pvpanic_create,
    .destroy = free,
};
