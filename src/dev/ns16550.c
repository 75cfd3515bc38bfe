/*
 * The board's COM ports: a 16550A (uart.c) at one of the PC's four places. COM1 and COM3 share an
 * interrupt line, and so do COM2 and COM4.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"
#include "dev/chips.h"
#include "dev/uart.h"

static const struct {
    uint16_t base;
    uint8_t irq;
} places[] = {{0x3F8, 4}, {0x2F8, 3}, {0x3E8, 4}, {0x2E8, 3}};

/* The device's object is the struct uart, which the state table is about; this is its context. */
struct ns16550 {
    struct dev_env *env; /* borrowed, outlives the device */
    struct uart *uart;
    struct irq_line *irq;
    uint16_t base;
    bool mapped;
};

static void ns16550_irq(void *ctx, bool level)
{
    struct ns16550 *s = ctx;

    irq_set(s->irq, level);
}

/* Eight bits wide: a wider access is as many of them, in ascending order. */
static uint64_t ns16550_in(void *ctx, uint64_t offset, unsigned size)
{
    struct ns16550 *s = ctx;
    uint64_t value = 0;

    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)uart_read(s->uart, (unsigned)offset + i) << (8 * i);
    return value;
}

static void ns16550_out(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct ns16550 *s = ctx;

    for (unsigned i = 0; i < size; i++)
        uart_write(s->uart, (unsigned)offset + i, (uint8_t)(value >> (8 * i)));
}

static const struct bus_ops ns16550_ports = {.read = ns16550_in, .write = ns16550_out};

/* env->lock held: the back end's callbacks may be on their way. */
static void ns16550_free(struct ns16550 *s)
{
    if (s->mapped)
        bus_unmap(s->env->bus, BUS_PIO, s->base, s);
    uart_destroy(s->uart);
    irq_line_free(s->irq);
    free(s);
}

static int ns16550_map(struct ns16550 *s, struct error *err)
{
    const struct bus_region region = {
        .base = s->base,
        .len = UART_PORTS,
        .ops = &ns16550_ports,
        .ctx = s,
        .lock = &s->env->lock,
        .name = s->env->name,
    };
    int rc = bus_map(s->env->bus, BUS_PIO, &region, err);

    s->mapped = rc == 0;
    return rc;
}

static int ns16550_create(struct dev_env *env, const struct options *opts, void **out,
                          struct error *err)
{
    uint64_t port = opts != NULL ? opt_u64(opts, "port", 1) : 1;
    const char *backend = opts != NULL ? opt_string(opts, "backend", NULL) : NULL;
    struct ns16550 *s;
    int rc;

    if (port < 1 || port > countof(places))
        return error_set(err, -EINVAL, "%s: there is no COM%llu; ports are 1 to %zu", env->name,
                         (unsigned long long)port, countof(places));
    s = calloc(1, sizeof(*s));
    if (s == NULL)
        return error_set(err, -ENOMEM, "%s: no memory", env->name);
    s->env = env;
    s->base = places[port - 1].base;
    s->irq = irq_open(env, places[port - 1].irq);
    if (s->irq == NULL) {
        rc = error_set(err, -ENOMEM, "%s: no memory for its interrupt", env->name);
        goto out;
    }
    s->uart = uart_create(env, ns16550_irq, s, backend, err);
    if (s->uart == NULL) {
        rc = err != NULL ? err->code : -EINVAL;
        goto out;
    }
    rc = ns16550_map(s, err);
    if (rc < 0)
        goto out;
    *out = s->uart;
    return 0;
out:
    pthread_mutex_lock(&env->lock);
    ns16550_free(s);
    pthread_mutex_unlock(&env->lock);
    return rc;
}

static void ns16550_destroy(void *dev)
{
    ns16550_free(uart_context(dev));
}

static void ns16550_reset(void *dev)
{
    uart_reset(dev);
}

static void ns16550_loaded(void *dev)
{
    uart_loaded(dev);
}

static const struct dev_option ns16550_options[] = {
    {.name = "port", .type = OPT_U64, .value_name = "N", .help = "COM port, 1 to 4 (default 1)"},
    {.name = "backend",
     .type = OPT_STRING,
     .value_name = "BACKEND",
     .help = "stdio, autopty[=LINK], tcp=[ADDR:]PORT, unix=PATH, file=PATH, null or a terminal",
     .positional = true},
};

const struct dev_ops ns16550_ops = {
    .name = "ns16550",
    .summary = "16550A serial port",
    .options = ns16550_options,
    .option_count = countof(ns16550_options),
    .state = uart_state,
    .state_count = UART_STATE_COUNT,
    .create = ns16550_create,
    .destroy = ns16550_destroy,
    .reset = ns16550_reset,
    .loaded = ns16550_loaded,
};
