#include "dev/uart.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "chardev/chardev.h"

#define FIFO_SIZE 16u

enum uart_reg {
    REG_DATA = 0, /* RBR and THR; divisor's low byte while LCR_DLAB */
    REG_IER = 1,  /* divisor's high byte while LCR_DLAB */
    REG_IIR = 2,  /* FCR when written */
    REG_LCR = 3,
    REG_MCR = 4,
    REG_LSR = 5,
    REG_MSR = 6,
    REG_SCR = 7,
};

#define IER_RX 0x01u
#define IER_THRE 0x02u
#define IER_LINE 0x04u
#define IER_MODEM 0x08u

#define IIR_MODEM 0x00u
#define IIR_NONE 0x01u
#define IIR_THRE 0x02u
#define IIR_RX 0x04u
#define IIR_LINE 0x06u
#define IIR_TIMEOUT 0x0Cu
#define IIR_FIFO 0xC0u

#define FCR_ENABLE 0x01u
#define FCR_CLEAR_RX 0x02u
#define FCR_KEPT 0xC9u /* what lasts: enable, DMA mode, trigger level */

#define LCR_WORD_LENGTH 0x03u
#define LCR_DLAB 0x80u

#define MCR_DTR 0x01u
#define MCR_RTS 0x02u
#define MCR_OUT1 0x04u
#define MCR_OUT2 0x08u
#define MCR_LOOP 0x10u
#define MCR_MASK 0x1Fu

#define LSR_DR 0x01u
#define LSR_OE 0x02u
#define LSR_ERRORS 0x1Eu
#define LSR_THRE 0x20u
#define LSR_TEMT 0x40u

#define MSR_DCTS 0x01u
#define MSR_DDSR 0x02u
#define MSR_TERI 0x04u
#define MSR_DDCD 0x08u
#define MSR_DELTAS 0x0Fu
#define MSR_CTS 0x10u
#define MSR_DSR 0x20u
#define MSR_RI 0x40u
#define MSR_DCD 0x80u

#define DIVISOR_RESET 12u /* 9600 baud; it slows nothing down here */

struct uart {
    struct dev_env *env; /* borrowed */
    void (*irq)(void *ctx, bool level);
    void *ctx;
    struct chardev *chardev;
    bool level; /* of the interrupt output, as told to irq */

    uint8_t ier, fcr, lcr, mcr, scr, dll, dlm;
    uint8_t errors; /* LSR's error bits; the rest of it is derived */
    uint8_t msr;
    uint8_t thre; /* the transmitter-empty interrupt waits: not the LSR bit, which is always set */
    uint8_t fifo[FIFO_SIZE];
    uint8_t fifo_head, fifo_count;
};

const struct state_field uart_state[] = {
    STATE_FIELD(1, struct uart, ier),         STATE_FIELD(2, struct uart, fcr),
    STATE_FIELD(3, struct uart, lcr),         STATE_FIELD(4, struct uart, mcr),
    STATE_FIELD(5, struct uart, scr),         STATE_FIELD(6, struct uart, dll),
    STATE_FIELD(7, struct uart, dlm),         STATE_FIELD(8, struct uart, errors),
    STATE_FIELD(9, struct uart, msr),         STATE_FIELD(10, struct uart, thre),
    STATE_FIELD(11, struct uart, fifo),       STATE_FIELD(12, struct uart, fifo_head),
    STATE_FIELD(13, struct uart, fifo_count),
};
const size_t uart_state_count = countof(uart_state);
static_assert(countof(uart_state) == UART_STATE_COUNT, "uart.h tells other tables the count");

/* ---- interrupts ---- */

static unsigned fifo_size(const struct uart *u)
{
    return u->fcr & FCR_ENABLE ? FIFO_SIZE : 1;
}

static unsigned fifo_trigger(const struct uart *u)
{
    static const uint8_t levels[4] = {1, 4, 8, 14};

    return u->fcr & FCR_ENABLE ? levels[u->fcr >> 6] : 1;
}

/* The one of highest priority. */
static uint8_t uart_cause(const struct uart *u)
{
    if ((u->ier & IER_LINE) && u->errors != 0)
        return IIR_LINE;
    if ((u->ier & IER_RX) && u->fifo_count > 0)
        return u->fifo_count >= fifo_trigger(u) ? IIR_RX : IIR_TIMEOUT;
    if ((u->ier & IER_THRE) && u->thre)
        return IIR_THRE;
    if ((u->ier & IER_MODEM) && (u->msr & MSR_DELTAS))
        return IIR_MODEM;
    return IIR_NONE;
}

/* On a PC, OUT2 is not a modem signal: it connects the interrupt output to the bus. */
static void uart_update(struct uart *u)
{
    bool level = (u->mcr & MCR_OUT2) && uart_cause(u) != IIR_NONE;

    if (level == u->level)
        return;
    u->level = level;
    u->irq(u->ctx, level);
}

/* ---- receiver ---- */

static void fifo_put(struct uart *u, uint8_t byte)
{
    u->fifo[(u->fifo_head + u->fifo_count) % FIFO_SIZE] = byte;
    u->fifo_count++;
}

/* Takes what there is room for; the back end holds its peer back meanwhile. Not in loopback. */
static void uart_fill(struct uart *u)
{
    uint8_t byte;

    if (u->chardev == NULL || (u->mcr & MCR_LOOP))
        return;
    while (u->fifo_count < fifo_size(u) && chardev_read(u->chardev, &byte, 1) == 1)
        fifo_put(u, byte);
    uart_update(u);
}

/* From our own transmitter, which does not ask whether there is room. */
static void uart_receive(struct uart *u, uint8_t byte)
{
    if (u->fifo_count < fifo_size(u)) {
        fifo_put(u, byte);
        return;
    }
    u->errors |= LSR_OE;
    if (!(u->fcr & FCR_ENABLE))
        u->fifo[u->fifo_head] = byte; /* the holding register is overwritten, a FIFO is not */
}

/*
 * The interrupt is brought up to date before the next byte comes in, too: without a FIFO each byte
 * has to be an edge of its own.
 */
static uint8_t read_data(struct uart *u)
{
    uint8_t byte;

    if (u->fifo_count == 0)
        return 0;
    byte = u->fifo[u->fifo_head];
    u->fifo_head = (u->fifo_head + 1) % FIFO_SIZE;
    u->fifo_count--;
    uart_update(u);
    uart_fill(u);
    return byte;
}

static void clear_rx(struct uart *u)
{
    u->fifo_head = 0;
    u->fifo_count = 0;
}

/* ---- transmitter ---- */

static void write_data(struct uart *u, uint8_t value)
{
    uint8_t byte = value & (uint8_t)(0xFFu >> (3 - (u->lcr & LCR_WORD_LENGTH)));

    u->thre = 0; /* an edge again, though the byte takes no time */
    uart_update(u);
    if (u->mcr & MCR_LOOP)
        uart_receive(u, byte);
    else
        chardev_write(u->chardev, &byte, 1);
    u->thre = 1;
    uart_update(u);
}

/* ---- modem lines ---- */

/* The peer is always there and ready; in loopback our own outputs come back. */
static uint8_t modem_lines(const struct uart *u)
{
    uint8_t lines = 0;

    if (!(u->mcr & MCR_LOOP))
        return MSR_CTS | MSR_DSR | MSR_DCD;
    if (u->mcr & MCR_RTS)
        lines |= MSR_CTS;
    if (u->mcr & MCR_DTR)
        lines |= MSR_DSR;
    if (u->mcr & MCR_OUT1)
        lines |= MSR_RI;
    if (u->mcr & MCR_OUT2)
        lines |= MSR_DCD;
    return lines;
}

static void update_modem(struct uart *u)
{
    uint8_t lines = modem_lines(u);
    uint8_t changed = (u->msr ^ lines) & 0xF0u;
    uint8_t deltas = u->msr & MSR_DELTAS;

    if (changed & MSR_CTS)
        deltas |= MSR_DCTS;
    if (changed & MSR_DSR)
        deltas |= MSR_DDSR;
    if ((changed & MSR_RI) && !(lines & MSR_RI)) /* the end of ringing only */
        deltas |= MSR_TERI;
    if (changed & MSR_DCD)
        deltas |= MSR_DDCD;
    u->msr = lines | deltas;
}

/* ---- registers ---- */

static uint8_t read_iir(struct uart *u)
{
    uint8_t cause = uart_cause(u);

    if (cause == IIR_THRE) {
        u->thre = 0;
        uart_update(u);
    }
    return cause | (u->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static uint8_t read_lsr(struct uart *u)
{
    uint8_t lsr = LSR_THRE | LSR_TEMT | u->errors | (u->fifo_count > 0 ? LSR_DR : 0);

    if (u->errors != 0) {
        u->errors = 0;
        uart_update(u);
    }
    return lsr;
}

static uint8_t read_msr(struct uart *u)
{
    uint8_t msr = u->msr;

    u->msr &= (uint8_t)~MSR_DELTAS;
    uart_update(u);
    return msr;
}

uint8_t uart_read(struct uart *u, unsigned offset)
{
    bool dlab = u->lcr & LCR_DLAB;

    switch ((enum uart_reg)(offset % UART_PORTS)) {
    case REG_DATA:
        return dlab ? u->dll : read_data(u);
    case REG_IER:
        return dlab ? u->dlm : u->ier;
    case REG_IIR:
        return read_iir(u);
    case REG_LCR:
        return u->lcr;
    case REG_MCR:
        return u->mcr;
    case REG_LSR:
        return read_lsr(u);
    case REG_MSR:
        return read_msr(u);
    case REG_SCR:
        return u->scr;
    }
    return 0xFF;
}

/* Drivers kick their transmit path by enabling this interrupt: it comes at once when empty. */
static void write_ier(struct uart *u, uint8_t value)
{
    uint8_t enabled = value & (uint8_t)~u->ier;

    u->ier = value & (IER_RX | IER_THRE | IER_LINE | IER_MODEM);
    if (enabled & IER_THRE)
        u->thre = 1;
    uart_update(u);
}

/* Without the enable bit the others do not count; turning FIFOs on or off empties them. */
static void write_fcr(struct uart *u, uint8_t value)
{
    if (((value ^ u->fcr) & FCR_ENABLE) || ((value & FCR_ENABLE) && (value & FCR_CLEAR_RX)))
        clear_rx(u);
    u->fcr = value & FCR_ENABLE ? value & FCR_KEPT : 0;
    uart_update(u);
    uart_fill(u);
}

static void write_mcr(struct uart *u, uint8_t value)
{
    u->mcr = value & MCR_MASK;
    update_modem(u);
    uart_update(u);
    uart_fill(u);
}

void uart_write(struct uart *u, unsigned offset, uint8_t value)
{
    bool dlab = u->lcr & LCR_DLAB;

    switch ((enum uart_reg)(offset % UART_PORTS)) {
    case REG_DATA:
        if (dlab)
            u->dll = value;
        else
            write_data(u, value);
        break;
    case REG_IER:
        if (dlab)
            u->dlm = value;
        else
            write_ier(u, value);
        break;
    case REG_IIR:
        write_fcr(u, value);
        break;
    case REG_LCR:
        u->lcr = value; /* parity, stop bits and break reach no back end: none can carry them */
        break;
    case REG_MCR:
        write_mcr(u, value);
        break;
    case REG_LSR: /* read-only but for factory tests */
    case REG_MSR:
        break;
    case REG_SCR:
        u->scr = value;
        break;
    }
}

/* ---- life ---- */

static void uart_readable(void *ctx)
{
    uart_fill(ctx);
}

static void uart_quit(void *ctx)
{
    struct uart *u = ctx;

    dev_event(u->env, DEV_EVENT_QUIT, 0);
}

static const struct chardev_events uart_events = {
    .readable = uart_readable,
    .quit = uart_quit,
};

static int open_backend(struct uart *u, const char *spec, struct error *err)
{
    struct dev_env *env = u->env;
    bool none = spec == NULL || spec[0] == '\0';

    if ((none && env->loop == NULL) || (!none && strcmp(spec, "memory") == 0)) {
        u->chardev = chardev_memory(&uart_events, u);
        return u->chardev == NULL ? error_set(err, -ENOMEM, "%s: no memory", env->name) : 0;
    }
    return chardev_open(none ? "null" : spec, env->name, env->loop, env->log, &env->lock,
                        &uart_events, u, &u->chardev, err);
}

static void set_registers(struct uart *u)
{
    u->ier = u->fcr = u->lcr = u->mcr = u->scr = 0;
    u->dll = DIVISOR_RESET;
    u->dlm = 0;
    u->errors = 0;
    u->thre = 1;
    u->msr = modem_lines(u);
    clear_rx(u);
}

struct uart *uart_create(struct dev_env *env, void (*irq)(void *ctx, bool level), void *ctx,
                         const char *backend, struct error *err)
{
    struct uart *u = calloc(1, sizeof(*u));

    if (u == NULL) {
        error_set(err, -ENOMEM, "%s: no memory", env->name);
        return NULL;
    }
    u->env = env;
    u->irq = irq;
    u->ctx = ctx;
    set_registers(u);
    if (open_backend(u, backend, err) < 0) {
        free(u);
        return NULL;
    }
    return u;
}

void uart_destroy(struct uart *u)
{
    if (u == NULL)
        return;
    chardev_close(u->chardev);
    free(u);
}

void *uart_context(const struct uart *u)
{
    return u->ctx;
}

void uart_reset(struct uart *u)
{
    set_registers(u);
    uart_update(u);
    uart_fill(u);
}

/* A snapshot is a file, and files lie: nothing in it may point outside the FIFO. */
void uart_loaded(struct uart *u)
{
    u->ier &= IER_RX | IER_THRE | IER_LINE | IER_MODEM;
    u->fcr &= FCR_KEPT;
    u->mcr &= MCR_MASK;
    u->errors &= LSR_ERRORS;
    u->fifo_head %= FIFO_SIZE;
    if (u->fifo_count > fifo_size(u))
        u->fifo_count = (uint8_t)fifo_size(u);
    u->level = (u->mcr & MCR_OUT2) && uart_cause(u) != IIR_NONE;
    u->irq(u->ctx, u->level); /* whatever it was: the wire's state is not in the snapshot */
    uart_fill(u);
}

struct chardev *uart_chardev(struct uart *u)
{
    return u->chardev;
}
