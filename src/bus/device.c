#include "bus/device.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "host/clock.h"

enum { GUEST_LOG_BURST = 10 }; /* lines a device may log in ten seconds for a guest's mistakes */

void dev_env_init(struct dev_env *env, const char *name)
{
    memset(env, 0, sizeof(*env));
    env->name = name;
    env->guest_log_left = GUEST_LOG_BURST;
    pthread_mutex_init(&env->lock, NULL);
}

void dev_env_fini(struct dev_env *env)
{
    pthread_mutex_destroy(&env->lock);
}

uint64_t wall_now(struct dev_env *env)
{
    return env->wall_stepped ? env->wall_base_ns + clock_now(env) : host_wall_ns();
}

int64_t wall_offset(struct dev_env *env)
{
    return env->rtc_local ? host_utc_offset((time_t)(wall_now(env) / NSEC_PER_SEC)) : 0;
}

void log_guest(struct dev_env *env, const char *fmt, ...)
{
    uint64_t now = clock_now(env);
    char text[512];
    va_list ap;

    if (now - env->guest_log_since > 10 * NSEC_PER_SEC) {
        env->guest_log_since = now;
        env->guest_log_left = GUEST_LOG_BURST;
    }
    if (env->guest_log_left == 0)
        return;
    env->guest_log_left--;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    log_warn(env->log, "%s: guest: %s%s", env->name, text,
             env->guest_log_left == 0 ? " (more of these are dropped for a while)" : "");
}

/* One mapped range of a device; the bus's context. Lives inside the map's region. */
static uint64_t port_read(void *ctx, uint64_t offset, unsigned size)
{
    struct device_range *r = ctx;

    if (r->port->in == NULL)
        return ~0ull;
    return r->port->in(r->impl, (unsigned)offset, size);
}

static void port_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct device_range *r = ctx;

    if (r->port->out != NULL)
        r->port->out(r->impl, (unsigned)offset, size, (uint32_t)value);
}

static uint64_t mmio_read(void *ctx, uint64_t offset, unsigned size)
{
    struct device_range *r = ctx;

    return r->mmio->read != NULL ? r->mmio->read(r->impl, offset, size) : ~0ull;
}

static void mmio_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct device_range *r = ctx;

    if (r->mmio->write != NULL)
        r->mmio->write(r->impl, offset, size, value);
}

static const struct bus_ops port_bus_ops = {.read = port_read, .write = port_write};
static const struct bus_ops mmio_bus_ops = {.read = mmio_read, .write = mmio_write};

int device_create(const struct dev_ops *ops, struct dev_env *env, const struct options *opts,
                  struct device *out, struct error *err)
{
    static const struct options none;
    int rc;

    memset(out, 0, sizeof(*out));
    if (ops->port_count + ops->mmio_count > DEVICE_RANGES)
        return error_set(err, -EINVAL, "%s: too many ranges", ops->name);
    rc = ops->create(env, opts != NULL ? opts : &none, &out->impl, err);
    if (rc != 0)
        return rc;
    out->ops = ops;
    out->env = env;
    for (size_t i = 0; rc == 0 && i < ops->port_count + ops->mmio_count; i++) {
        bool port = i < ops->port_count;
        struct device_range *r = &out->range[i];
        struct bus_region region = {.ctx = r, .lock = &env->lock, .name = ops->name};

        r->impl = out->impl;
        if (port) {
            r->port = &ops->ports[i];
            region.base = r->port->base;
            region.len = r->port->len;
            region.ops = &port_bus_ops;
        } else {
            r->mmio = &ops->mmio[i - ops->port_count];
            region.base = r->mmio->base;
            region.len = r->mmio->len;
            region.ops = &mmio_bus_ops;
        }
        region.priority = ops->priority;
        rc = bus_map(env->bus, port ? BUS_PIO : BUS_MMIO, &region, err);
        if (rc == 0)
            out->mapped++;
    }
    if (rc != 0)
        device_destroy(out);
    return rc;
}

void device_destroy(struct device *d)
{
    if (d->ops == NULL)
        return;
    for (unsigned i = 0; i < d->mapped; i++) {
        struct device_range *r = &d->range[i];

        if (r->port != NULL)
            bus_unmap(d->env->bus, BUS_PIO, r->port->base, r);
        else
            bus_unmap(d->env->bus, BUS_MMIO, r->mmio->base, r);
    }
    pthread_mutex_lock(&d->env->lock);
    d->ops->destroy(d->impl);
    pthread_mutex_unlock(&d->env->lock);
    memset(d, 0, sizeof(*d));
}

void device_reset(struct device *d)
{
    if (d->ops == NULL || d->ops->reset == NULL)
        return;
    pthread_mutex_lock(&d->env->lock);
    d->ops->reset(d->impl);
    pthread_mutex_unlock(&d->env->lock);
}

void device_save(struct device *d, struct state_buf *out)
{
    pthread_mutex_lock(&d->env->lock);
    state_save(d->ops->state, d->ops->state_count, d->impl, d->env->timers, out);
    pthread_mutex_unlock(&d->env->lock);
}

int device_load(struct device *d, const uint8_t *data, size_t len, size_t *pos, struct error *err)
{
    int rc;

    pthread_mutex_lock(&d->env->lock);
    rc = state_load(d->ops->state, d->ops->state_count, d->impl, d->env->timers, data, len, pos,
                    err);
    if (rc == 0 && d->ops->loaded != NULL)
        d->ops->loaded(d->impl);
    pthread_mutex_unlock(&d->env->lock);
    return rc;
}
