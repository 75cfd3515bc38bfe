/*
 * The PC's x87 error logic: FERR# of the processor latches IRQ 13; a write to port 0xF0 takes the
 * latch back and drives IGNNE#, so that the handler can use the unit. Only a guest that runs with
 * CR0.NE = 0 meets it.
 *
 * fpuerr_raise on a vCPU's thread without the lock; the rest by the bus with the lock held.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"
#include "dev/chips.h"

#define FPU_IRQ 13u

struct fpuerr {
    struct dev_env *env;
    struct irq_line *irq;
    bool latched;
};

void fpuerr_raise(struct device *d)
{
    struct fpuerr *f = d->impl;

    pthread_mutex_lock(&f->env->lock);
    f->latched = true;
    irq_set(f->irq, true);
    pthread_mutex_unlock(&f->env->lock);
}

static uint32_t fpuerr_in(void *dev, unsigned offset, unsigned size)
{
    (void)dev;
    (void)offset;
    return (uint32_t)bytes_mask(size); /* write-only */
}

static void fpuerr_out(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    struct fpuerr *f = dev;

    (void)offset;
    (void)size;
    (void)value; /* any value acknowledges */
    f->latched = false;
    irq_set(f->irq, false);
    dev_event(f->env, DEV_EVENT_IGNNE, 0);
}

static void fpuerr_reset(void *dev)
{
    struct fpuerr *f = dev;

    f->latched = false;
    irq_set(f->irq, false);
}

static void fpuerr_loaded(void *dev)
{
    struct fpuerr *f = dev;

    irq_set(f->irq, f->latched);
}

static void fpuerr_destroy(void *dev)
{
    struct fpuerr *f = dev;

    irq_line_free(f->irq);
    free(f);
}

static int fpuerr_create(struct dev_env *env, const struct options *opts, void **out,
                         struct error *err)
{
    struct fpuerr *f = calloc(1, sizeof(*f));

    (void)opts;
    if (f == NULL)
        return error_set(err, -ENOMEM, "no memory for the x87 error logic");
    f->env = env;
    f->irq = irq_open(env, FPU_IRQ);
    if (f->irq == NULL) {
        free(f);
        return error_set(err, -ENOMEM, "no memory for the x87 error interrupt");
    }
    *out = f;
    return 0;
}

static const struct port_range fpuerr_ports[] = {
    {.base = 0xF0, .len = 1, .in = fpuerr_in, .out = fpuerr_out},
};

static const struct state_field fpuerr_state[] = {
    STATE_FIELD(1, struct fpuerr, latched),
};

const struct dev_ops fpuerr_ops = {
    .name = "fpuerr",
    .summary = "x87 error interrupt (IRQ 13)",
    .ports = fpuerr_ports,
    .port_count = countof(fpuerr_ports),
    .state = fpuerr_state,
    .state_count = countof(fpuerr_state),
    .create = fpuerr_create,
    .destroy = fpuerr_destroy,
    .reset = fpuerr_reset,
    .loaded = fpuerr_loaded,
};
