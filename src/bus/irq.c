#include "bus/irq.h"

#include <stdlib.h>

#include "base/bits.h"
#include "bus/internal.h"

enum { IRQ_PIC_PINS = 16, REFUSED_SHOWN = 10 };

struct irq_line {
    struct irq_router *r;
    uint8_t pin;
    bool pic_only;
    bool hpet;
    bool level; /* its holder's to read; written under r->lock, too */
};

struct irq_router {
    struct log *log;
    /*
     * Counts of high lines; held only to count, never while a chip is called: two devices that
     * change one wire at once then both tell the chip the level they find.
     */
    pthread_mutex_t lock;
    pthread_mutex_t order;             /* recursive: a chip hears of a wire's changes in order */
    unsigned gsi_high[IRQ_GSI_COUNT];  /* lines that reach PIC and IOAPIC */
    unsigned hpet_high[IRQ_GSI_COUNT]; /* of those, the HPET's */
    unsigned pic_high[IRQ_PIC_PINS];   /* lines that reach the PIC only */
    bool replaced;                     /* HPET legacy replacement */
    struct irq_chip pic, ioapic;
    const struct lapic_ops *lapics;
    void *lapics_ctx;
    struct irq_fds *fds; /* NULL: messages have no descriptors */
    atomic_bool pic_output;
    atomic_uint refused; /* messages that were dropped: only the first are worth a line */
    void (*obs_gsi)(void *ctx, unsigned gsi, bool level);
    void (*obs_msg)(void *ctx, const struct irq_message *msg);
    void *obs_ctx;
};

struct irq_router *irq_router_create(struct log *log)
{
    struct irq_router *r = calloc(1, sizeof(*r));
    pthread_mutexattr_t attr;

    if (r == NULL)
        return NULL;
    r->log = log;
    pthread_mutex_init(&r->lock, NULL);
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&r->order, &attr);
    pthread_mutexattr_destroy(&attr);
    return r;
}

void irq_router_destroy(struct irq_router *r)
{
    if (r == NULL)
        return;
    irq_fds_free(r->fds);
    pthread_mutex_destroy(&r->lock);
    pthread_mutex_destroy(&r->order);
    free(r);
}

static struct irq_line *line_create(struct irq_router *r, unsigned pin, bool pic_only)
{
    struct irq_line *line = calloc(1, sizeof(*line));

    if (line == NULL)
        return NULL;
    line->r = r;
    line->pin = (uint8_t)pin;
    line->pic_only = pic_only;
    return line;
}

struct irq_line *irq_line_create(struct irq_router *r, unsigned gsi)
{
    return gsi < IRQ_GSI_COUNT ? line_create(r, gsi, false) : NULL;
}

struct irq_line *irq_line_create_hpet(struct irq_router *r, unsigned gsi)
{
    struct irq_line *line = irq_line_create(r, gsi);

    if (line != NULL)
        line->hpet = true;
    return line;
}

struct irq_line *irq_line_create_pic(struct irq_router *r, unsigned irq)
{
    return irq < IRQ_PIC_PINS ? line_create(r, irq, true) : NULL;
}

void irq_line_free(struct irq_line *line)
{
    if (line == NULL)
        return;
    irq_set(line, false);
    free(line);
}

static void chip_set(const struct irq_chip *chip, unsigned pin, bool level)
{
    if (chip->set == NULL)
        return;
    pthread_mutex_lock(chip->lock);
    chip->set(chip->ctx, pin, level);
    pthread_mutex_unlock(chip->lock);
}

/* Levels as the chips see them. Under r->lock. */
static bool gsi_is_high(const struct irq_router *r, unsigned gsi)
{
    bool cut = r->replaced && (gsi == 0 || gsi == 8);

    return (cut ? r->hpet_high[gsi] : r->gsi_high[gsi]) > 0;
}

static bool pic_is_high(const struct irq_router *r, unsigned pin)
{
    return r->pic_high[pin] > 0 || gsi_is_high(r, pin);
}

/* ISA interrupt 0 comes in at pin 2, where a line on GSI 2 does too. */
static unsigned ioapic_pin(unsigned gsi)
{
    return gsi == 0 ? 2 : gsi;
}

static bool ioapic_is_high(const struct irq_router *r, unsigned gsi)
{
    return gsi_is_high(r, gsi) || (ioapic_pin(gsi) == 2 && gsi_is_high(r, 2 - gsi));
}

struct levels {
    bool gsi, pic, ioapic;
};

static struct levels levels_of(const struct irq_router *r, unsigned pin)
{
    return (struct levels){gsi_is_high(r, pin), pin < IRQ_PIC_PINS && pic_is_high(r, pin),
                           ioapic_is_high(r, pin)};
}

/* Tells the chips what has changed. Under r->order, not r->lock. */
static void tell(struct irq_router *r, unsigned pin, struct levels before, struct levels now)
{
    if (before.pic != now.pic)
        chip_set(&r->pic, pin, now.pic);
    if (before.ioapic != now.ioapic)
        chip_set(&r->ioapic, ioapic_pin(pin), now.ioapic);
    if (before.gsi != now.gsi && r->obs_gsi != NULL)
        r->obs_gsi(r->obs_ctx, pin, now.gsi);
}

void irq_set(struct irq_line *line, bool level)
{
    struct levels before, now;
    struct irq_router *r;
    unsigned pin, step;

    /* Whoever holds a line changes it under its own lock, so nobody else does so now. */
    if (line == NULL || line->level == level)
        return;
    r = line->r;
    pin = line->pin;
    step = level ? 1u : -1u;
    pthread_mutex_lock(&r->order);
    pthread_mutex_lock(&r->lock);
    before = levels_of(r, pin);
    line->level = level;
    if (line->pic_only)
        r->pic_high[pin] += step;
    else
        r->gsi_high[pin] += step;
    if (line->hpet)
        r->hpet_high[pin] += step;
    now = levels_of(r, pin);
    pthread_mutex_unlock(&r->lock);
    tell(r, pin, before, now);
    pthread_mutex_unlock(&r->order);
}

void irq_legacy_replacement(struct irq_router *r, bool on)
{
    struct levels before[2], now[2];

    pthread_mutex_lock(&r->order);
    pthread_mutex_lock(&r->lock);
    before[0] = levels_of(r, 0);
    before[1] = levels_of(r, 8);
    r->replaced = on;
    now[0] = levels_of(r, 0);
    now[1] = levels_of(r, 8);
    pthread_mutex_unlock(&r->lock);
    tell(r, 0, before[0], now[0]);
    tell(r, 8, before[1], now[1]);
    pthread_mutex_unlock(&r->order);
}

bool irq_level(const struct irq_line *line)
{
    return line->level;
}

void irq_pulse(struct irq_line *line)
{
    irq_set(line, true);
    irq_set(line, false);
}

bool irq_gsi_level(struct irq_router *r, unsigned gsi)
{
    bool level;

    pthread_mutex_lock(&r->lock);
    level = gsi < IRQ_GSI_COUNT && gsi_is_high(r, gsi);
    pthread_mutex_unlock(&r->lock);
    return level;
}

void irq_attach_pic(struct irq_router *r, const struct irq_chip *pic)
{
    r->pic = *pic;
}

void irq_attach_ioapic(struct irq_router *r, const struct irq_chip *ioapic)
{
    r->ioapic = *ioapic;
}

void irq_attach_lapics(struct irq_router *r, const struct lapic_ops *ops, void *ctx)
{
    r->lapics = ops;
    r->lapics_ctx = ctx;
}

const struct lapic_ops *irq_lapics(const struct irq_router *r, void **ctx)
{
    *ctx = r->lapics_ctx;
    return r->lapics;
}

struct irq_fds *router_fds(const struct irq_router *r)
{
    return r->fds;
}

void router_set_fds(struct irq_router *r, struct irq_fds *fds)
{
    r->fds = fds;
}

struct log *router_log(const struct irq_router *r)
{
    return r->log;
}

void irq_pin(struct irq_router *r, unsigned pin, const struct irq_message *msg, bool masked)
{
    struct irq_fd *fd = irq_fds_pin(r->fds, pin);

    if (r->lapics != NULL && r->lapics->pin != NULL)
        r->lapics->pin(r->lapics_ctx, pin, msg);
    if (fd != NULL)
        irq_fd_message(fd, masked ? NULL : msg);
}

void irq_pic_output(struct irq_router *r, bool level)
{
    if (atomic_exchange(&r->pic_output, level) == level)
        return;
    if (r->lapics != NULL)
        r->lapics->extint(r->lapics_ctx, level);
    chip_set(&r->ioapic, 0, level);
}

bool irq_pic_pending(struct irq_router *r)
{
    return atomic_load(&r->pic_output);
}

uint8_t irq_pic_ack(struct irq_router *r)
{
    uint8_t vector;

    if (r->pic.ack == NULL)
        return 0xff;
    pthread_mutex_lock(r->pic.lock);
    vector = r->pic.ack(r->pic.ctx);
    pthread_mutex_unlock(r->pic.lock);
    return vector;
}

void irq_deliver(struct irq_router *r, const struct irq_message *msg)
{
    if (r->obs_msg != NULL)
        r->obs_msg(r->obs_ctx, msg);
    if (r->lapics != NULL)
        r->lapics->deliver(r->lapics_ctx, msg);
}

void irq_deliver_pin(struct irq_router *r, unsigned pin, const struct irq_message *msg)
{
    struct irq_fd *fd = irq_fds_pin(r->fds, pin);

    if (fd != NULL)
        irq_fd_send(fd, msg);
    else
        irq_deliver(r, msg);
}

static void refuse(struct irq_router *r, const char *why, uint64_t addr, uint32_t data)
{
    if (atomic_load(&r->refused) >= REFUSED_SHOWN)
        return;
    atomic_fetch_add(&r->refused, 1);
    log_warn(r->log, "interrupt message %#x to %#llx dropped: %s", data, (unsigned long long)addr,
             why);
}

/* Address and data as in the Intel SDM Vol.3, "Message Signalled Interrupts". */
const char *msi_message(uint64_t addr, uint32_t data, struct irq_message *msg)
{
    *msg = (struct irq_message){
        .dest = (uint32_t)(addr >> 12) & 0xff,
        .logical = (addr & 4) != 0,
        .level = (data & 0x8000) != 0,
        .assert = (data & 0xC000) != 0x8000, /* an edge always is */
        .delivery = (data >> 8) & 7,
        .vector = data & 0xff,
    };

    if (addr >> 20 != 0xFEE)
        return "not an APIC address";
    if (msg->delivery == 3 || msg->delivery == IRQ_STARTUP)
        return "its delivery mode is reserved";
    /* The redirection hint: one of those addressed, whichever is the least busy. */
    if ((addr & 8) != 0 && msg->delivery == IRQ_FIXED)
        msg->delivery = IRQ_LOWEST;
    return NULL;
}

void msi_send(struct irq_router *r, uint64_t addr, uint32_t data)
{
    struct irq_message msg;
    const char *why = msi_message(addr, data, &msg);

    if (why != NULL)
        refuse(r, why, addr, data);
    else
        irq_deliver(r, &msg);
}

void irq_eoi_broadcast(struct irq_router *r, uint8_t vector)
{
    if (r->ioapic.eoi == NULL)
        return;
    pthread_mutex_lock(r->ioapic.lock);
    r->ioapic.eoi(r->ioapic.ctx, vector);
    pthread_mutex_unlock(r->ioapic.lock);
}

void irq_set_observer(struct irq_router *r, void (*gsi)(void *ctx, unsigned gsi, bool level),
                      void (*msg)(void *ctx, const struct irq_message *msg), void *ctx)
{
    r->obs_gsi = gsi;
    r->obs_msg = msg;
    r->obs_ctx = ctx;
}
