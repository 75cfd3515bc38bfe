/*
 * The high-precision event timer (IA-PC HPET 1.0a): one 64-bit counter at 10 MHz and eight
 * comparators, all of which can be periodic and interrupt through the IOAPIC, by messages, or, the
 * first two, in place of the 8254 and the RTC.
 *
 *   000 capabilities  010 configuration  020 interrupt status  0F0 counter
 *   100 + 20 * n      configuration of timer n, +8 comparator, +10 message data and address
 *
 * The counter is computed from the clock, which is read once for each access or timer: all that
 * follows from it is of that moment, or a match between two readings would be missed. A comparator
 * that can have an effect has a timer armed for its next match. Under legacy replacement the router
 * cuts the 8254's and the RTC's lines off.
 *
 * Registers on any vCPU's thread, timers on the loop's, all with the device's lock held.
 */
#include "dev/chips.h"

#include <errno.h>
#include <stdlib.h>

#define HPET_BASE 0xFED00000u
#define TICK_NS 100u
#define PERIOD_FS 0x05F5E100ull
#define TIMERS 8u
#define NEVER UINT64_MAX
/* A guest may ask for a period shorter than any host can deliver; interrupts then run together. */
#define PERIOD_MIN_NS 10000u
/* IOAPIC pins a timer can have: those at the end, where PCI's lines are fewest. */
#define ROUTE_FIRST 20u
#define ROUTE_COUNT 4u
#define ROUTES 0x00F00000ull

#define CAP_REV 0x01ull
#define CAP_64 (1ull << 13)
#define CAP_LEGACY (1ull << 15)
#define CAP_VENDOR (0x8086ull << 16)
#define CONF_ENABLE 1u
#define CONF_LEGACY 2u

#define T_LEVEL (1ull << 1)
#define T_ENABLE (1ull << 2)
#define T_PERIODIC (1ull << 3)
#define T_CAP_PERIODIC (1ull << 4)
#define T_CAP_64 (1ull << 5)
#define T_VAL_SET (1ull << 6)
#define T_32 (1ull << 8)
#define T_ROUTE_SHIFT 9u
#define T_ROUTE (31ull << T_ROUTE_SHIFT)
#define T_FSB (1ull << 14)
#define T_CAP_FSB (1ull << 15)
#define T_WRITABLE (T_LEVEL | T_ENABLE | T_PERIODIC | T_VAL_SET | T_32 | T_ROUTE | T_FSB)
#define T_CAPS (T_CAP_PERIODIC | T_CAP_64 | T_CAP_FSB | ROUTES << 32)

enum hpet_reg {
    HPET_CAP = 0x000,
    HPET_CONF = 0x010,
    HPET_STATUS = 0x020,
    HPET_COUNTER = 0x0F0,
    HPET_TIMER = 0x100,
    HPET_END = HPET_TIMER + TIMERS * 0x20,
};

struct hpet_timer {
    struct hpet *hpet;
    struct timer *timer;                /* owned */
    struct irq_line *line[ROUTE_COUNT]; /* owned */
    struct irq_line *legacy;            /* owned; timers 0 and 1 */
    uint64_t conf;                      /* without the capabilities */
    uint64_t compare, period, fsb;
};

struct hpet {
    struct dev_env *env;
    uint64_t conf, status;
    uint64_t base;    /* counter at base_ns, or where it stands still */
    uint64_t base_ns; /* clock_now() */
    uint64_t seen;    /* counter up to which matches have been looked at, and */
    uint64_t seen_ns; /* when that was */
    struct hpet_timer timer[TIMERS];
};

static uint64_t hpet_counter(const struct hpet *h, uint64_t now)
{
    if (!(h->conf & CONF_ENABLE))
        return h->base;
    return h->base + (now - h->base_ns) / TICK_NS;
}

static unsigned timer_index(const struct hpet_timer *t)
{
    return (unsigned)(t - t->hpet->timer);
}

static uint64_t timer_mask(const struct hpet_timer *t)
{
    return t->conf & T_32 ? UINT32_MAX : UINT64_MAX;
}

/* ---- interrupts ---- */

/* The wire this timer drives as it is set up now, NULL if none. */
static struct irq_line *timer_line(const struct hpet_timer *t)
{
    unsigned route = (unsigned)((t->conf & T_ROUTE) >> T_ROUTE_SHIFT);

    if (t->conf & T_FSB)
        return NULL;
    if ((t->hpet->conf & CONF_LEGACY) && t->legacy != NULL)
        return t->legacy;
    if (route < ROUTE_FIRST || route >= ROUTE_FIRST + ROUTE_COUNT)
        return NULL;
    return t->line[route - ROUTE_FIRST];
}

static bool timer_level(const struct hpet_timer *t)
{
    return (t->conf & (T_LEVEL | T_ENABLE)) == (T_LEVEL | T_ENABLE) &&
           (t->hpet->status >> timer_index(t) & 1);
}

/* Cuts the 8254 and the RTC off their interrupts, or connects them again. */
static void hpet_replace(const struct hpet *h)
{
    irq_legacy_replacement(h->env->irqs, (h->conf & CONF_LEGACY) != 0);
}

/* After any change of status, routing or mode: exactly one wire at most is high. */
static void timer_update_lines(const struct hpet_timer *t)
{
    struct irq_line *on = timer_level(t) ? timer_line(t) : NULL;

    for (unsigned i = 0; i < ROUTE_COUNT; i++)
        irq_set(t->line[i], t->line[i] == on);
    if (t->legacy != NULL)
        irq_set(t->legacy, t->legacy == on);
}

static void timer_interrupt(struct hpet_timer *t)
{
    struct irq_line *line = timer_line(t);

    if (t->conf & T_FSB) {
        if (t->conf & T_ENABLE)
            msi_send(t->hpet->env->irqs, t->fsb >> 32, (uint32_t)t->fsb);
    } else if (t->conf & T_LEVEL) {
        t->hpet->status |= 1ull << timer_index(t);
        timer_update_lines(t);
    } else if ((t->conf & T_ENABLE) && line != NULL) {
        irq_pulse(line);
    }
}

/* ---- matches ---- */

/* A match would show nowhere: no timer is armed, so that an idle guest costs nothing. */
static bool timer_silent(const struct hpet_timer *t)
{
    return (t->conf & (T_ENABLE | T_LEVEL)) == 0;
}

/* Arms the timer for the first match after what has been seen, no sooner than min_ns from then. */
static void timer_arm(struct hpet_timer *t, uint64_t min_ns)
{
    struct hpet *h = t->hpet;
    uint64_t ticks, into, when;

    timer_cancel(t->timer);
    if (!(h->conf & CONF_ENABLE) || timer_silent(t))
        return;
    /* A comparator equal to the counter matches the next time round. */
    ticks = ((t->compare - h->seen - 1) & timer_mask(t)) + 1;
    into = (h->seen_ns - h->base_ns) % TICK_NS;
    if (ticks == 0 || __builtin_mul_overflow(ticks, (uint64_t)TICK_NS, &when) ||
        __builtin_add_overflow(when - into, h->seen_ns, &when) || when == NEVER)
        return; /* centuries away */
    timer_set(t->timer, max_u64(when, h->seen_ns + min_ns));
}

/*
 * Carries out what has matched since last time: when an armed timer ends, and before a register is
 * touched, since the guest may be there before the loop is. A periodic comparator moves on at each
 * match, silent or not.
 */
static void hpet_catch_up(struct hpet *h)
{
    uint64_t before = h->seen, passed;

    h->seen_ns = clock_now(h->env);
    h->seen = hpet_counter(h, h->seen_ns);
    passed = h->seen - before;
    for (unsigned i = 0; i < TIMERS && passed != 0; i++) {
        struct hpet_timer *t = &h->timer[i];
        uint64_t mask = timer_mask(t), first = (t->compare - before - 1) & mask; /* less one */
        bool periodic = (t->conf & T_PERIODIC) && t->period != 0;

        if (first >= passed)
            continue;
        if (periodic)
            t->compare = (t->compare + ((passed - first - 1) / t->period + 1) * t->period) & mask;
        timer_interrupt(t);
        timer_arm(t, periodic ? PERIOD_MIN_NS : 0);
    }
}

static void timer_matched(void *ctx)
{
    struct hpet_timer *t = ctx;

    hpet_catch_up(t->hpet);
    if (timer_when(t->timer) == UINT64_MAX) /* nothing had matched after all */
        timer_arm(t, 0);
}

static void hpet_arm_all(struct hpet *h)
{
    for (unsigned i = 0; i < TIMERS; i++)
        timer_arm(&h->timer[i], 0);
}

/* ---- registers ---- */

static uint64_t timer_read(const struct hpet_timer *t, unsigned reg)
{
    switch (reg) {
    case 0x00:
        return t->conf | T_CAPS;
    case 0x08:
        return t->compare;
    case 0x10:
        return t->fsb;
    default:
        return 0;
    }
}

static uint64_t hpet_read_reg(const struct hpet *h, unsigned reg)
{
    if (reg >= HPET_TIMER && reg < HPET_END)
        return timer_read(&h->timer[(reg - HPET_TIMER) / 0x20], reg % 0x20);
    switch (reg) {
    case HPET_CAP:
        return CAP_REV | (TIMERS - 1) << 8 | CAP_64 | CAP_LEGACY | CAP_VENDOR | PERIOD_FS << 32;
    case HPET_CONF:
        return h->conf;
    case HPET_STATUS:
        return h->status;
    case HPET_COUNTER:
        return h->seen;
    default:
        return 0;
    }
}

static void timer_write_conf(struct hpet_timer *t, uint64_t value)
{
    struct hpet *h = t->hpet;
    unsigned route = (unsigned)((value & T_ROUTE) >> T_ROUTE_SHIFT);

    value &= T_WRITABLE;
    if (!(value & T_PERIODIC))
        value &= ~T_VAL_SET;
    if (!(ROUTES >> route & 1))
        value &= ~T_ROUTE; /* how the guest finds out that the pin cannot be had */
    t->conf = value;
    t->compare &= timer_mask(t);
    t->period &= timer_mask(t);
    if (!(value & T_LEVEL))
        h->status &= ~(1ull << timer_index(t));
    timer_update_lines(t);
    timer_arm(t, 0);
}

/* written: the bits that the guest's access covers; value has the register's others. */
static void timer_write_compare(struct hpet_timer *t, uint64_t value, uint64_t written)
{
    uint64_t mask = timer_mask(t);

    if (!(t->conf & T_PERIODIC)) {
        t->compare = value & mask;
    } else {
        /* The period always; the accumulator only if announced, for one write. */
        t->period = ((t->period & ~written) | (value & written)) & mask;
        if (t->conf & T_VAL_SET)
            t->compare = value & mask;
        t->conf &= ~T_VAL_SET;
    }
    timer_arm(t, 0);
}

static void hpet_write_conf(struct hpet *h, uint64_t value)
{
    uint64_t into = 0;

    if ((h->conf & CONF_ENABLE) && (value & CONF_ENABLE))
        into = (h->seen_ns - h->base_ns) % TICK_NS;
    h->base = h->seen;
    h->base_ns = h->seen_ns - into;
    h->conf = value & (CONF_ENABLE | CONF_LEGACY);
    hpet_replace(h);
    for (unsigned i = 0; i < TIMERS; i++)
        timer_update_lines(&h->timer[i]);
    hpet_arm_all(h);
}

static void hpet_write_reg(struct hpet *h, unsigned reg, uint64_t value, uint64_t written)
{
    if (reg >= HPET_TIMER && reg < HPET_END) {
        struct hpet_timer *t = &h->timer[(reg - HPET_TIMER) / 0x20];

        switch (reg % 0x20) {
        case 0x00:
            timer_write_conf(t, value);
            break;
        case 0x08:
            timer_write_compare(t, value, written);
            break;
        case 0x10:
            t->fsb = value;
            break;
        }
        return;
    }
    switch (reg) {
    case HPET_CONF:
        hpet_write_conf(h, value);
        break;
    case HPET_STATUS: /* ones clear */
        h->status &= ~(value & written);
        for (unsigned i = 0; i < TIMERS; i++)
            timer_update_lines(&h->timer[i]);
        break;
    case HPET_COUNTER:
        if (h->conf & CONF_ENABLE)
            log_guest(h->env, "the counter is set while it runs");
        h->base = h->seen = value;
        h->base_ns = h->seen_ns;
        hpet_arm_all(h);
        break;
    }
}

static uint64_t hpet_read(void *dev, uint64_t offset, unsigned size)
{
    struct hpet *h = dev;
    unsigned shift = 8 * (unsigned)(offset & 7);

    if ((offset & 7) + size > 8) {
        log_guest(h->env, "misaligned read at %#llx", (unsigned long long)offset);
        return bytes_mask(size);
    }
    if (offset >= HPET_CONF) /* what is below never changes */
        hpet_catch_up(h);
    return hpet_read_reg(h, (unsigned)offset & ~7u) >> shift & bytes_mask(size);
}

static void hpet_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct hpet *h = dev;
    unsigned reg = (unsigned)offset & ~7u, shift = 8 * (unsigned)(offset & 7);
    uint64_t written = bytes_mask(size) << shift;

    if (size < 4 || offset % size != 0) {
        log_guest(h->env, "write of %u bytes at %#llx", size, (unsigned long long)offset);
        return;
    }
    hpet_catch_up(h);
    value = (value << shift & written) | (hpet_read_reg(h, reg) & ~written);
    hpet_write_reg(h, reg, value, written);
}

static const struct mmio_range hpet_mmio[] = {
    {.base = HPET_BASE, .len = 0x400, .read = hpet_read, .write = hpet_write},
};

/* ---- life ---- */

static void hpet_reset(void *dev)
{
    struct hpet *h = dev;

    h->conf = 0;
    hpet_replace(h);
    h->status = 0;
    h->base = h->seen = 0;
    for (unsigned i = 0; i < TIMERS; i++) {
        struct hpet_timer *t = &h->timer[i];

        t->conf = 0;
        t->compare = UINT64_MAX;
        t->period = 0;
        t->fsb = 0;
        timer_cancel(t->timer);
        timer_update_lines(t);
    }
}

static void hpet_loaded(void *dev)
{
    struct hpet *h = dev;

    h->conf &= CONF_ENABLE | CONF_LEGACY;
    hpet_replace(h);
    h->status &= (1u << TIMERS) - 1;
    for (unsigned i = 0; i < TIMERS; i++) {
        struct hpet_timer *t = &h->timer[i];

        t->conf &= T_WRITABLE;
        t->compare &= timer_mask(t);
        t->period &= timer_mask(t);
        timer_update_lines(t);
    }
}

static void hpet_destroy(void *dev)
{
    struct hpet *h = dev;

    irq_legacy_replacement(h->env->irqs, false);
    for (unsigned i = 0; i < TIMERS; i++) {
        struct hpet_timer *t = &h->timer[i];

        timer_free(t->timer);
        irq_line_free(t->legacy);
        for (unsigned j = 0; j < ROUTE_COUNT; j++)
            irq_line_free(t->line[j]);
    }
    free(h);
}

static int hpet_create(struct dev_env *env, const struct options *opts, void **out,
                       struct error *err)
{
    struct hpet *h = calloc(1, sizeof(*h));
    bool ok = h != NULL;

    (void)opts;
    for (unsigned i = 0; ok && i < TIMERS; i++) {
        struct hpet_timer *t = &h->timer[i];

        h->env = env;
        t->hpet = h;
        t->timer = timer_create_env(env, timer_matched, t);
        ok = t->timer != NULL;
        for (unsigned j = 0; ok && j < ROUTE_COUNT; j++) {
            t->line[j] = irq_open(env, ROUTE_FIRST + j);
            ok = t->line[j] != NULL;
        }
        if (ok && i < 2) {
            t->legacy = irq_line_create_hpet(env->irqs, i == 0 ? 0 : 8);
            ok = t->legacy != NULL;
        }
    }
    if (!ok) {
        if (h != NULL)
            hpet_destroy(h);
        return error_set(err, -ENOMEM, "no memory for the event timers");
    }
    h->base_ns = clock_now(env);
    hpet_reset(h);
    *out = h;
    return 0;
}

#define TIMER_FIELDS(i, tag)                                                                       \
    STATE_TIMER((tag), struct hpet, timer[i].timer),                                               \
        STATE_FIELD((tag) + 1, struct hpet, timer[i].conf),                                        \
        STATE_FIELD((tag) + 2, struct hpet, timer[i].compare),                                     \
        STATE_FIELD((tag) + 3, struct hpet, timer[i].period),                                      \
        STATE_FIELD((tag) + 4, struct hpet, timer[i].fsb)

static const struct state_field hpet_state[] = {
    STATE_FIELD(1, struct hpet, conf),
    STATE_FIELD(2, struct hpet, status),
    STATE_FIELD(3, struct hpet, base),
    STATE_CLOCK(4, struct hpet, base_ns),
    STATE_FIELD(5, struct hpet, seen),
    TIMER_FIELDS(0, 16),
    TIMER_FIELDS(1, 24),
    TIMER_FIELDS(2, 32),
    TIMER_FIELDS(3, 40),
    TIMER_FIELDS(4, 48),
    TIMER_FIELDS(5, 56),
    TIMER_FIELDS(6, 64),
    TIMER_FIELDS(7, 72),
};

const struct dev_ops hpet_ops = {
    .name = "hpet",
    .summary = "high-precision event timer",
    .mmio = hpet_mmio,
    .mmio_count = countof(hpet_mmio),
    .state = hpet_state,
    .state_count = countof(hpet_state),
    .create = hpet_create,
    .destroy = hpet_destroy,
    .reset = hpet_reset,
    .loaded = hpet_loaded,
};
