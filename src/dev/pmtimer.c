/*
 * The ACPI power-management timer (PM_TMR): a free-running 32-bit counter at 3.579545 MHz behind
 * one read-only port. Guests use it as a clock source and to calibrate others.
 *
 * Called by the bus on any vCPU's thread with the device's lock held. Uses no timer and no thread.
 */
#include "dev/chips.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"

#define PM_TMR_PORT 0x408u
#define PM_TMR_HZ 3579545u /* fixed by ACPI for every machine */

struct pmtimer {
    struct dev_env *env; /* borrowed, outlives the device */
    uint64_t epoch_ns;   /* clock_now() at which the counter read zero */
};

/*
 * Computed from the clock, never ticked: an idle guest costs nothing, and after the host slept the
 * guest reads what real hardware would have counted.
 */
static uint32_t pmtimer_count(const struct pmtimer *t)
{
    return (uint32_t)muldiv64(clock_now(t->env) - t->epoch_ns, PM_TMR_HZ, NSEC_PER_SEC);
}

/* offset 0..3, size 1, 2 or 4, not beyond the port's end: the bus has checked both. */
static uint32_t pmtimer_in(void *dev, unsigned offset, unsigned size)
{
    return extract32(pmtimer_count(dev), 8 * offset, 8 * size);
}

/* Hardware ignores the write; so do we, but a guest that tries has a bug worth a line. */
static void pmtimer_out(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    struct pmtimer *t = dev;

    log_guest(t->env, "write of %#x to the read-only PM timer (+%u, %u bytes)", value, offset,
              size);
}

static const struct port_range pmtimer_ports[] = {
    {.base = PM_TMR_PORT, .len = 4, .in = pmtimer_in, .out = pmtimer_out},
};

static void pmtimer_reset(void *dev)
{
    struct pmtimer *t = dev;

    t->epoch_ns = clock_now(t->env);
}

static int pmtimer_create(struct dev_env *env, const struct options *opts, void **out,
                          struct error *err)
{
    struct pmtimer *t = calloc(1, sizeof(*t));

    (void)opts; /* pmtimer_ops has no .options, so the parser has refused any */
    if (t == NULL)
        return error_set(err, -ENOMEM, "no memory for the PM timer");
    t->env = env;
    t->epoch_ns = clock_now(env);
    *out = t;
    return 0;
}

/* What a snapshot holds. Clock values are stored as distances from now, so they survive a move. */
static const struct state_field pmtimer_state[] = {
    STATE_CLOCK(1, struct pmtimer, epoch_ns),
};

const struct dev_ops pmtimer_ops = {
    .name = "pmtimer",
    .summary = "ACPI power-management timer",
    .ports = pmtimer_ports,
    .port_count = countof(pmtimer_ports),
    .state = pmtimer_state,
    .state_count = countof(pmtimer_state),
    .create = pmtimer_create,
    .destroy = free,
    .reset = pmtimer_reset,
};
