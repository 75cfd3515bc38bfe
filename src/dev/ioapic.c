/*
 * The I/O APIC: 24 pins, version 0x20 with its EOI register. Lines are logical here, so the
 * polarity bit is kept and otherwise ignored.
 *
 * Registers: called by the bus with the device's lock held. set and eoi: by the interrupt router,
 * with the same lock. Messages leave with it held; posting to a local APIC takes none.
 * Intel 82093AA datasheet; the EOI register is that of later I/O controller hubs.
 */
#include "dev/chips.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"

enum { IOAPIC_PINS = 24 };

#define IOAPIC_VERSION (0x20u | (IOAPIC_PINS - 1) << 16)

enum { REG_SELECT = 0x00, REG_WINDOW = 0x10, REG_EOI = 0x40 };
enum { INDEX_ID = 0, INDEX_VERSION = 1, INDEX_ARBITRATION = 2, INDEX_REDIRECTION = 0x10 };

#define RTE_LOGICAL (1ull << 11)
#define RTE_REMOTE_IRR (1ull << 14)
#define RTE_LEVEL (1ull << 15)
#define RTE_MASKED (1ull << 16)
#define RTE_WRITABLE 0xFF0000000001AFFFull

struct ioapic {
    struct dev_env *env;
    uint32_t id, select;
    uint32_t levels; /* a bit for each pin: what the wires say, reset does not change them */
    uint64_t entry[IOAPIC_PINS];
};

static uint8_t delivery(uint64_t entry)
{
    return (entry >> 8) & 7;
}

/* Only the two modes that go through IRR know levels; the others act on the rising edge. */
static bool level_triggered(uint64_t entry)
{
    return (entry & RTE_LEVEL) != 0 && delivery(entry) <= IRQ_LOWEST;
}

static struct irq_message message(uint64_t entry)
{
    return (struct irq_message){
        .dest = (uint32_t)(entry >> 56),
        .logical = (entry & RTE_LOGICAL) != 0,
        .level = level_triggered(entry),
        .assert = true,
        .delivery = delivery(entry),
        .vector = (uint8_t)entry,
    };
}

static void announce(struct ioapic *io, unsigned pin)
{
    struct irq_message msg = message(io->entry[pin]);

    irq_pin(io->env->irqs, pin, &msg, (io->entry[pin] & RTE_MASKED) != 0);
}

static void send(struct ioapic *io, unsigned pin)
{
    struct irq_message msg = message(io->entry[pin]);

    if (msg.delivery == 3 || msg.delivery == IRQ_STARTUP) {
        log_guest(io->env, "pin %u has the reserved delivery mode %u", pin, msg.delivery);
        return;
    }
    irq_deliver_pin(io->env->irqs, pin, &msg);
}

/* A level pin sends once, then waits for the EOI that clears remote IRR. */
static void check_level(struct ioapic *io, unsigned pin)
{
    uint64_t entry = io->entry[pin];

    if (!level_triggered(entry) || (entry & (RTE_MASKED | RTE_REMOTE_IRR)) != 0 ||
        !(io->levels & 1u << pin))
        return;
    io->entry[pin] |= RTE_REMOTE_IRR;
    send(io, pin);
}

static void ioapic_set(void *ctx, unsigned pin, bool level)
{
    struct ioapic *io = ctx;
    bool before;

    if (pin >= IOAPIC_PINS)
        return;
    before = (io->levels & 1u << pin) != 0;
    if (level)
        io->levels |= 1u << pin;
    else
        io->levels &= ~(1u << pin);
    if (level_triggered(io->entry[pin]))
        check_level(io, pin);
    else if (level && !before && !(io->entry[pin] & RTE_MASKED))
        send(io, pin); /* an edge that comes while masked is lost */
}

/*
 * One vector may stand at several pins. A line still high sends again at once: a guest that does
 * not quiet its device sees the storm it would see on hardware and turns the interrupt off.
 */
static void ioapic_eoi(void *ctx, uint8_t vector)
{
    struct ioapic *io = ctx;

    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        if ((uint8_t)io->entry[pin] != vector || !(io->entry[pin] & RTE_REMOTE_IRR))
            continue;
        io->entry[pin] &= ~RTE_REMOTE_IRR;
        check_level(io, pin);
    }
}

static uint32_t window_read(struct ioapic *io)
{
    unsigned pin = (io->select - INDEX_REDIRECTION) / 2;

    switch (io->select) {
    case INDEX_ID:
    case INDEX_ARBITRATION:
        return io->id << 24;
    case INDEX_VERSION:
        return IOAPIC_VERSION;
    default:
        break;
    }
    if (io->select < INDEX_REDIRECTION || pin >= IOAPIC_PINS)
        return 0;
    return (uint32_t)(io->entry[pin] >> (io->select & 1 ? 32 : 0));
}

static void entry_write(struct ioapic *io, unsigned pin, bool high, uint32_t value)
{
    uint64_t entry = io->entry[pin];

    if (high)
        entry = (entry & 0xFFFFFFFFu) | (uint64_t)value << 32;
    else
        entry = (entry & ~0xFFFFFFFFull) | value;
    entry = (entry & RTE_WRITABLE) | (io->entry[pin] & RTE_REMOTE_IRR);
    /* Guests clear a remote IRR that is stuck by a turn through edge triggering. */
    if (!level_triggered(entry))
        entry &= ~RTE_REMOTE_IRR;
    io->entry[pin] = entry;
    announce(io, pin);
    log_trace(io->env->log, "ioapic", "pin %u: %#llx", pin, (unsigned long long)entry);
    check_level(io, pin);
}

static void window_write(struct ioapic *io, uint32_t value)
{
    unsigned pin = (io->select - INDEX_REDIRECTION) / 2;

    if (io->select == INDEX_ID)
        io->id = (value >> 24) & 0xF;
    else if (io->select >= INDEX_REDIRECTION && pin < IOAPIC_PINS)
        entry_write(io, pin, io->select & 1, value);
    else if (io->select != INDEX_VERSION && io->select != INDEX_ARBITRATION)
        log_guest(io->env, "write of %#x to register %#x, which is not there", value, io->select);
}

/* Registers are four bytes wide and sixteen apart. Reads may be narrower, writes of data not. */
static uint64_t ioapic_read(void *dev, uint64_t offset, unsigned size)
{
    struct ioapic *io = dev;
    unsigned inside = offset & 15;
    uint32_t value;

    switch (offset & ~15ull) {
    case REG_SELECT:
        value = io->select;
        break;
    case REG_WINDOW:
        value = window_read(io);
        break;
    case REG_EOI:
        value = 0;
        break;
    default:
        return bytes_mask(size);
    }
    return inside < 4 ? (value >> (8 * inside)) & bytes_mask(size) : 0;
}

static void ioapic_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct ioapic *io = dev;

    if (offset == REG_SELECT) {
        io->select = value & 0xFF; /* a byte write is enough */
    } else if (offset == REG_EOI) {
        ioapic_eoi(io, (uint8_t)value);
    } else if (offset == REG_WINDOW && size >= 4) {
        window_write(io, (uint32_t)value);
    } else {
        log_guest(io->env, "write of %u bytes at offset %#llx", size, (unsigned long long)offset);
    }
}

static void ioapic_reset(void *dev)
{
    struct ioapic *io = dev;

    io->id = 0;
    io->select = 0;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        io->entry[pin] = RTE_MASKED;
}

static void ioapic_loaded(void *dev)
{
    struct ioapic *io = dev;

    io->id &= 0xF;
    io->select &= 0xFF;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        io->entry[pin] &= RTE_WRITABLE | RTE_REMOTE_IRR;
        announce(io, pin);
    }
}

static void ioapic_destroy(void *dev)
{
    struct ioapic *io = dev;

    irq_attach_ioapic(io->env->irqs, &(struct irq_chip){0}); /* lines may still fall */
    free(io);
}

static int ioapic_create(struct dev_env *env, const struct options *opts, void **out,
                         struct error *err)
{
    struct ioapic *io = calloc(1, sizeof(*io));
    struct irq_chip chip = {
        .ctx = io,
        .lock = &env->lock,
        .set = ioapic_set,
        .eoi = ioapic_eoi,
    };

    (void)opts;
    if (io == NULL)
        return error_set(err, -ENOMEM, "no memory for the I/O APIC");
    io->env = env;
    ioapic_reset(io);
    irq_attach_ioapic(env->irqs, &chip);
    *out = io;
    return 0;
}

static const struct state_field ioapic_state[] = {
    STATE_FIELD(1, struct ioapic, id),
    STATE_FIELD(2, struct ioapic, select),
    STATE_FIELD(3, struct ioapic, levels),
    STATE_FIELD(4, struct ioapic, entry),
};

static const struct mmio_range ioapic_mmio[] = {
    {.base = 0xFEC00000, .len = 0x1000, .read = ioapic_read, .write = ioapic_write},
};

const struct dev_ops ioapic_ops = {
    .name = "ioapic",
    .summary = "I/O APIC",
    .mmio = ioapic_mmio,
    .mmio_count = countof(ioapic_mmio),
    .state = ioapic_state,
    .state_count = countof(ioapic_state),
    .create = ioapic_create,
    .destroy = ioapic_destroy,
    .reset = ioapic_reset,
    .loaded = ioapic_loaded,
};
