/*
 * The 16550A register machine, for the board's COM ports (ns16550.c) and the PCI uart. Eight byte
 * registers, one interrupt output, one character back end.
 *
 * Sending takes no time: a byte written is with the back end at once and the transmitter is empty
 * again. Input is taken from the back end only while the receive FIFO has room, so nothing is
 * lost before the guest reads. The receive timeout interrupt comes at once, not after four
 * character times.
 *
 * Every call with env->lock held; irq and the back end's callbacks come under it too.
 */
#ifndef DEV_UART_H
#define DEV_UART_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "bus/device.h"
#include "bus/state.h"

struct chardev;
struct uart;

#define UART_PORTS 8u /* registers, each a byte */

/*
 * irq(ctx, level) gets every change of the interrupt output; ctx also comes back from
 * uart_context. backend is a chardev spec; NULL or "": output is dropped and no input comes
 * (without env->loop it is kept in memory for tests). "memory" is always the memory-backed one.
 * NULL and err on failure.
 */
struct uart *uart_create(struct dev_env *env, void (*irq)(void *ctx, bool level), void *ctx,
                         const char *backend, struct error *err);
void uart_destroy(struct uart *u); /* NULL is allowed; does not lower the interrupt */

void *uart_context(const struct uart *u);

/* offset 0-7; higher bits are ignored. */
uint8_t uart_read(struct uart *u, unsigned offset);
void uart_write(struct uart *u, unsigned offset, uint8_t value);

/* To the power-on state; what the back end holds is kept. */
void uart_reset(struct uart *u);

/* State is relative to struct uart. After loading, uart_loaded drives the interrupt again. */
#define UART_STATE_COUNT 13u
extern const struct state_field uart_state[];
extern const size_t uart_state_count;
void uart_loaded(struct uart *u);

/* The back end, for the test runner. */
struct chardev *uart_chardev(struct uart *u);

#endif
