/*
 * A 16550A serial port behind PCI: eight registers in an I/O BAR, level interrupt by INTx. Guests
 * know the ids as a single-port serial card.
 */
#include <errno.h>
#include <stdlib.h>

#include "dev/uart.h"
#include "pci/internal.h"
#include "pci/table.h"

#define UART_BAR 0u
#define UART_CLASS 0x070002u /* serial controller, 16550-compatible */

/* The device's object is the struct uart, which the state table is about; this is its context. */
struct pci_uart {
    struct pci_func *f;
    struct uart *uart;
};

static void uart_irq(void *ctx, bool level)
{
    struct pci_uart *s = ctx;

    pci_intx(s->f, level);
}

static int uart_card_create(struct dev_env *env, struct pci_func *f, const struct options *opts,
                            void **out, struct error *err)
{
    struct pci_uart *s = calloc(1, sizeof(*s));
    int rc;

    if (s == NULL)
        return error_set(err, -ENOMEM, "%s: no memory", env->name);
    s->f = f;
    pci_set_ids(f, 0x131F, 0x2000, 0, UART_CLASS, 0x131F, 0x2000);
    pci_add_intx(f);
    rc = pci_add_bar(f, UART_BAR, PCI_BAR_IO, UART_PORTS, err);
    if (rc == 0) {
        s->uart = uart_create(env, uart_irq, s, opt_string(opts, "backend", NULL), err);
        if (s->uart == NULL)
            rc = err != NULL && err->code != 0 ? err->code : -EINVAL;
    }
    if (rc != 0) {
        free(s);
        return rc;
    }
    *out = s->uart;
    return 0;
}

static void uart_card_destroy(void *dev)
{
    struct pci_uart *s = uart_context(dev);

    uart_destroy(s->uart);
    free(s);
}

static void uart_card_reset(void *dev)
{
    uart_reset(dev);
}

static void uart_card_loaded(void *dev)
{
    uart_loaded(dev);
}

/* Eight bits wide: a wider access is as many of them, in ascending order. */
static uint64_t uart_bar_read(void *dev, unsigned bar, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    (void)bar;
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)uart_read(dev, (unsigned)offset + i) << 8 * i;
    return value;
}

static void uart_bar_write(void *dev, unsigned bar, uint64_t offset, unsigned size, uint64_t value)
{
    (void)bar;
    for (unsigned i = 0; i < size; i++)
        uart_write(dev, (unsigned)offset + i, (uint8_t)(value >> 8 * i));
}

static const struct dev_option uart_options[] = {
    {.name = "backend",
     .type = OPT_STRING,
     .value_name = "BACKEND",
     .help = "stdio, autopty[=LINK], tcp=[ADDR:]PORT, unix=PATH, file=PATH, null or a terminal",
     .positional = true},
};

const struct pci_ops pci_uart_ops = {
    .name = "uart",
    .summary = "16550A serial port on a PCI card",
    .options = uart_options,
    .option_count = countof(uart_options),
    .state = uart_state,
    .state_count = UART_STATE_COUNT,
    .create = uart_card_create,
    .destroy = uart_card_destroy,
    .reset = uart_card_reset,
    .loaded = uart_card_loaded,
    .bar_read = uart_bar_read,
    .bar_write = uart_bar_write,
};
