/*
 * The PC's 8254 interval timer: three 16-bit counters at 1.193182 MHz behind ports 0x40-0x43, and
 * port 0x61, which gates channel 2 and shows its output.
 *
 * Channel 0's output is ISA IRQ 0. Nothing ticks: a counter is its load and the tick at which it
 * was loaded, and everything a guest can see follows from the clock. A tick is one CLK pulse since
 * the device was made. Only channel 0 uses a timer, for its next edge.
 *
 * Ports on any vCPU's thread, the timer on the loop's, all with the device's lock held.
 */
#include "dev/chips.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/bytes.h"

#define PIT_HZ 1193182u
#define NEVER UINT64_MAX
/* A guest may ask for edges faster than any host delivers them; they are then run together. */
#define EDGE_MIN_NS 10000u
#define REFRESH_TICKS 18u /* a DRAM refresh each 15 us, as channel 1 would time it */

/* Control word */
#define CW_BCD 0x01u
#define CW_READ_BACK 3u
#define RB_NO_COUNT 0x20u
#define RB_NO_STATUS 0x10u
#define STATUS_OUT 0x80u
#define STATUS_NULL 0x40u
/* Port 0x61 */
#define SPK_GATE2 0x01u
#define SPK_WRITABLE 0x0Fu
#define SPK_REFRESH 0x10u
#define SPK_OUT2 0x20u

struct channel {
    uint64_t start;   /* tick at which the counter was loaded; if frozen, ticks counted since */
    uint64_t load_at; /* tick of the coming load, NEVER if none */
    uint64_t strobe;  /* mode 4: tick of a strobe that the gate met; it ends all the same */
    uint64_t seen;    /* channel 0: ticks up to here have been looked at for edges */
    uint32_t n;       /* what was loaded, 1-65536 */
    uint32_t next;    /* count register: what the coming load takes */
    uint16_t latch;
    uint8_t status;
    uint8_t latched; /* bytes of latch still to be read */
    uint8_t status_latched;
    uint8_t control; /* the control word's bits 5-0, as status shows them */
    uint8_t mode;    /* those of its mode: 6 and 7 are 2 and 3 */
    uint8_t bcd;
    uint8_t access;    /* 1 low byte, 2 high byte, 3 low then high */
    uint8_t read_high; /* next byte of a two-byte read */
    uint8_t half;      /* the low byte of a two-byte write is in low */
    uint8_t low;
    uint8_t gate;
    uint8_t armed;     /* a count was written since the control word */
    uint8_t active;    /* OUT follows the count */
    uint8_t held;      /* until the coming load: mode 0: OUT is low; modes 2 and 3: high */
    uint8_t frozen;    /* counting is disabled */
    uint8_t null;      /* the count written is not yet loaded */
    uint8_t low_first; /* mode 3: the load came at the start of a low half */
};

struct i8254 {
    struct dev_env *env;
    struct irq_line *line; /* owned */
    struct timer *timer;   /* owned; channel 0's next edge */
    uint64_t epoch_ns;     /* clock_now() at tick 0 */
    struct channel ch[3];
    uint8_t port61;
};

/* ---- ticks ---- */

static uint64_t pit_tick(const struct i8254 *s)
{
    return muldiv64(clock_now(s->env) - s->epoch_ns, PIT_HZ, NSEC_PER_SEC);
}

/* The first nanosecond at which the clock has reached this tick. */
static uint64_t pit_ns(const struct i8254 *s, uint64_t tick)
{
    unsigned __int128 scaled = (unsigned __int128)tick * NSEC_PER_SEC + (PIT_HZ - 1);

    return s->epoch_ns + (uint64_t)(scaled / PIT_HZ);
}

static uint64_t elapsed(const struct channel *c, uint64_t tick)
{
    if (c->frozen)
        return c->start;
    return tick > c->start ? tick - c->start : 0;
}

/* ---- what a counter shows, by the ticks since its load ---- */

static uint64_t half_first(const struct channel *c)
{
    return c->low_first ? c->n / 2 : (c->n + 1) / 2;
}

static bool channel_out(const struct channel *c, uint64_t tick)
{
    uint64_t e = elapsed(c, tick);

    switch (c->mode) {
    case 0:
        return c->active && !c->held && e >= c->n;
    case 1:
        return !c->active || e >= c->n;
    case 2:
        return !c->active || c->frozen || c->held || e % c->n != c->n - 1;
    case 3:
        if (!c->active || c->frozen || c->held)
            return true;
        return (e % c->n < half_first(c)) != (bool)c->low_first;
    default:
        return !c->active || e != c->n || (c->strobe != NEVER && c->strobe != tick);
    }
}

static uint16_t to_bcd(uint64_t v)
{
    return (uint16_t)(v / 1000 % 10 << 12 | v / 100 % 10 << 8 | v / 10 % 10 << 4 | v % 10);
}

static uint32_t from_bcd(uint32_t v)
{
    return ((v >> 12 & 15) * 1000 + (v >> 8 & 15) * 100 + (v >> 4 & 15) * 10 + (v & 15)) % 10000;
}

static uint16_t channel_count(const struct channel *c, uint64_t tick)
{
    uint64_t e = c->active ? elapsed(c, tick) : 0, n = c->n, value;

    switch (c->mode) {
    case 2:
        value = n - e % n;
        break;
    case 3: {
        uint64_t at = e % n, first = half_first(c);

        /* Down by two in each half; an odd count is loaded one lower. */
        value = (n & ~1ull) - 2 * (at < first ? at : at - first);
        break;
    }
    default: /* counts on below zero */
        value = n + (c->bcd ? 10000 - e % 10000 : 65536 - e % 65536);
        break;
    }
    return c->bcd ? to_bcd(value % 10000) : (uint16_t)value;
}

/* Rising edges in (0, e] ticks after a load. */
static uint64_t channel_rises(const struct channel *c, uint64_t e)
{
    if (!c->active || c->frozen || c->held)
        return 0;
    switch (c->mode) {
    case 0:
    case 1:
        return e >= c->n;
    case 2:
        return e / c->n;
    case 3:
        return (c->low_first ? e + c->n - half_first(c) : e) / c->n;
    default:
        return e > c->n;
    }
}

/* The tick of the next change of OUT that matters after this one. */
static uint64_t channel_next(const struct channel *c, uint64_t tick)
{
    uint64_t e = elapsed(c, tick), first, at;

    if (!c->active || c->frozen || c->held)
        return NEVER;
    switch (c->mode) {
    case 0:
    case 1:
        return e < c->n ? c->start + c->n : NEVER;
    case 2:
        return c->start + (e / c->n + 1) * c->n;
    case 3:
        first = half_first(c);
        at = e % c->n;
        return c->start + e - at + (at < first ? first : c->n);
    default:
        return e <= c->n ? c->start + c->n + 1 : NEVER;
    }
}

/* ---- events in a counter's life ---- */

static void channel_freeze(struct channel *c, uint64_t tick, bool freeze)
{
    if (freeze == (bool)c->frozen)
        return;
    if (freeze && c->mode == 4 && !channel_out(c, tick))
        c->strobe = tick;
    c->start = freeze ? elapsed(c, tick) : tick - c->start;
    c->frozen = freeze;
}

/* Modes 0, 2, 3 and 4 count only while the gate is high; mode 0 also waits for the second byte. */
static void channel_gate_level(struct channel *c, uint64_t tick)
{
    bool follows = c->mode != 1 && c->mode != 5;

    channel_freeze(c, tick, (follows && !c->gate) || (c->mode == 0 && c->half));
}

/* Carries out a load that has come due. True if OUT rose since `seen`. */
static bool channel_run(struct channel *c, uint64_t tick)
{
    uint64_t until = c->load_at <= tick ? c->load_at : tick;
    bool rose = false;

    if (until > c->seen && !c->frozen)
        rose = channel_rises(c, elapsed(c, until)) > channel_rises(c, elapsed(c, c->seen));
    c->seen = until;
    if (c->load_at <= tick) {
        c->low_first = c->mode == 3 && c->active && !c->frozen && !channel_out(c, c->load_at);
        c->n = c->next;
        c->start = c->frozen ? 0 : c->load_at;
        c->strobe = NEVER;
        c->load_at = NEVER;
        c->active = 1;
        c->held = 0;
        c->null = 0;
        rose |= channel_rises(c, elapsed(c, tick)) > 0;
        c->seen = tick;
    }
    return rose;
}

/* A whole count is in `next`. */
static void channel_written(struct channel *c, uint64_t tick)
{
    c->null = 1;
    c->armed = 1;
    switch (c->mode) {
    case 0:
        c->held = 1; /* OUT goes low at once */
        c->load_at = tick + 1;
        break;
    case 4:
        c->load_at = tick + 1;
        break;
    case 2:
    case 3:
        if (!c->active)
            c->load_at = tick + 1;
        else if (c->load_at == NEVER && !c->frozen) /* at the end of this period, or half */
            c->load_at = channel_next(c, tick);
        break;
    default: /* 1 and 5: with the next trigger */
        break;
    }
}

static void channel_write(struct channel *c, uint64_t tick, uint8_t value)
{
    uint32_t count;

    if (c->access == 3 && !c->half) {
        c->low = value;
        c->half = 1;
        if (c->mode == 0) {
            c->held = 1;
            c->load_at = NEVER;
        }
        channel_gate_level(c, tick);
        return;
    }
    if (c->access == 3)
        count = (uint32_t)value << 8 | c->low;
    else
        count = c->access == 2 ? (uint32_t)value << 8 : value;
    c->half = 0;
    channel_gate_level(c, tick);
    if (c->bcd)
        count = from_bcd(count);
    c->next = count != 0 ? count : c->bcd ? 10000 : 65536;
    channel_written(c, tick);
}

static void channel_latch(struct channel *c, uint64_t tick)
{
    if (c->latched != 0)
        return; /* a latched count stays until it has been read */
    c->latch = channel_count(c, tick);
    c->latched = c->access == 3 ? 2 : 1;
}

static void channel_latch_status(struct channel *c, uint64_t tick)
{
    if (c->status_latched)
        return;
    c->status_latched = 1;
    c->status = c->control;
    if (channel_out(c, tick))
        c->status |= STATUS_OUT;
    if (c->null)
        c->status |= STATUS_NULL;
}

static uint8_t channel_read(struct channel *c, uint64_t tick)
{
    uint16_t value;
    bool high;

    if (c->status_latched) {
        c->status_latched = 0;
        return c->status;
    }
    high = c->access == 2;
    if (c->access == 3) {
        high = c->read_high;
        c->read_high ^= 1;
    }
    value = c->latched != 0 ? c->latch : channel_count(c, tick);
    if (c->latched != 0)
        c->latched--;
    return (uint8_t)(high ? value >> 8 : value);
}

static void channel_control(struct channel *c, uint64_t tick, uint8_t value)
{
    uint32_t count = channel_count(c, tick);
    uint8_t mode = (value >> 1) & 7;

    if (c->bcd)
        count = from_bcd(count);
    c->n = count != 0 ? count : 65536; /* what a read shows until a count is loaded */
    c->control = value & 0x3F;
    c->mode = mode > 5 ? mode & 3 : mode;
    c->bcd = value & CW_BCD;
    c->access = (value >> 4) & 3;
    c->latched = 0;
    c->status_latched = 0;
    c->read_high = 0;
    c->half = 0;
    c->armed = 0;
    c->active = 0;
    c->held = 0;
    c->null = 1;
    c->low_first = 0;
    c->load_at = NEVER;
    c->strobe = NEVER;
    c->start = 0;
    c->frozen = 1;
    channel_freeze(c, tick, false);
    channel_gate_level(c, tick);
}

static void channel_gate(struct channel *c, uint64_t tick, bool gate)
{
    bool rising = gate && !c->gate;

    c->gate = gate;
    channel_gate_level(c, tick);
    if (!gate && c->active && !c->held && (c->mode == 2 || c->mode == 3))
        c->load_at = NEVER; /* the period does not end now; the trigger will load */
    /* A trigger: it loads the counter in the modes that have one. */
    if (rising && c->armed && c->mode != 0 && c->mode != 4) {
        c->held = c->mode == 2 || c->mode == 3;
        c->load_at = tick + 1;
    }
}

/* ---- the chip ---- */

/*
 * What the interrupt line shows. Modes 2, 4 and 5 pull OUT low for a single tick before the edge;
 * nobody could see that on the line, so it costs no timer and the line stays high.
 */
static bool pit_line_level(const struct channel *c, uint64_t tick)
{
    return c->mode == 2 || c->mode >= 4 || channel_out(c, tick);
}

/* Guests read ports in tight loops; the router is only troubled with changes. */
static void pit_drive(struct i8254 *s, uint64_t tick)
{
    bool level = pit_line_level(&s->ch[0], tick);

    if (irq_level(s->line) != level)
        irq_set(s->line, level);
}

/* Arms the timer for channel 0's next edge, no sooner than min_ns from now. */
static void pit_schedule(struct i8254 *s, uint64_t tick, uint64_t min_ns)
{
    const struct channel *c = &s->ch[0];
    uint64_t next = channel_next(c, tick);

    if (c->load_at < next)
        next = c->load_at;
    if (next == NEVER) {
        timer_cancel(s->timer);
        return;
    }
    timer_set(s->timer, max_u64(pit_ns(s, next), clock_now(s->env) + min_ns));
}

/* Brings all counters up to this tick and the line with them. */
static uint64_t pit_run(struct i8254 *s)
{
    uint64_t tick = pit_tick(s);
    bool rose = false;

    for (unsigned i = 0; i < 3; i++) {
        bool up = channel_run(&s->ch[i], tick);

        if (i == 0)
            rose = up;
    }
    if (rose) { /* an edge since we last looked */
        irq_set(s->line, false);
        irq_set(s->line, true);
    }
    pit_drive(s, tick);
    return tick;
}

static void pit_timer(void *dev)
{
    struct i8254 *s = dev;

    uint64_t tick = pit_run(s);

    pit_schedule(s, tick, s->ch[0].mode == 2 || s->ch[0].mode == 3 ? EDGE_MIN_NS : 0);
}

/* After a write: what follows at once from it. */
static void pit_written(struct i8254 *s, uint64_t tick)
{
    pit_drive(s, tick);
    pit_schedule(s, tick, 0);
}

static void pit_command(struct i8254 *s, uint64_t tick, uint8_t value)
{
    unsigned select = value >> 6;

    if (select == CW_READ_BACK) {
        for (unsigned i = 0; i < 3; i++) {
            if (!(value & 2u << i))
                continue;
            if (!(value & RB_NO_COUNT))
                channel_latch(&s->ch[i], tick);
            if (!(value & RB_NO_STATUS))
                channel_latch_status(&s->ch[i], tick);
        }
    } else if ((value & 0x30) == 0) {
        channel_latch(&s->ch[select], tick);
    } else {
        channel_control(&s->ch[select], tick, value);
    }
}

static uint8_t pit_in_byte(void *dev, unsigned offset)
{
    struct i8254 *s = dev;
    uint64_t tick = pit_run(s);

    return offset < 3 ? channel_read(&s->ch[offset], tick) : 0xFF;
}

static void pit_out_byte(void *dev, unsigned offset, uint8_t value)
{
    struct i8254 *s = dev;
    uint64_t tick = pit_run(s);

    if (offset < 3)
        channel_write(&s->ch[offset], tick, value);
    else
        pit_command(s, tick, value);
    pit_written(s, tick);
}

static uint32_t pit_in(void *dev, unsigned offset, unsigned size)
{
    return bytes_in(dev, offset, size, pit_in_byte);
}

static void pit_out(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    bytes_out(dev, offset, size, value, pit_out_byte);
}

static uint32_t port61_in(void *dev, unsigned offset, unsigned size)
{
    struct i8254 *s = dev;
    uint64_t tick = pit_run(s);
    uint32_t value = s->port61;

    (void)offset;
    (void)size;
    if (tick / REFRESH_TICKS & 1)
        value |= SPK_REFRESH;
    if (channel_out(&s->ch[2], tick))
        value |= SPK_OUT2;
    return value;
}

static void port61_out(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    struct i8254 *s = dev;
    uint64_t tick = pit_run(s);

    (void)offset;
    (void)size;
    s->port61 = value & SPK_WRITABLE;
    channel_gate(&s->ch[2], tick, (value & SPK_GATE2) != 0);
}

static const struct port_range i8254_ports[] = {
    {.base = 0x40, .len = 4, .in = pit_in, .out = pit_out},
    {.base = 0x61, .len = 1, .in = port61_in, .out = port61_out},
};

static void i8254_reset(void *dev)
{
    struct i8254 *s = dev;

    timer_cancel(s->timer);
    irq_set(s->line, false);
    s->epoch_ns = clock_now(s->env);
    s->port61 = 0;
    for (unsigned i = 0; i < 3; i++) {
        s->ch[i] = (struct channel){.load_at = NEVER,
                                    .strobe = NEVER,
                                    .n = 65536,
                                    .next = 65536,
                                    .access = 3,
                                    .control = 0x30};
        s->ch[i].gate = i != 2;
        s->ch[i].null = 1;
        s->ch[i].frozen = i == 2;
    }
}

static void i8254_loaded(void *dev)
{
    struct i8254 *s = dev;
    uint64_t tick = pit_tick(s);

    for (unsigned i = 0; i < 3; i++) {
        struct channel *c = &s->ch[i];

        if (c->n == 0 || c->n > 65536)
            c->n = 65536;
        if (c->next == 0 || c->next > 65536)
            c->next = 65536;
        if (c->mode > 5)
            c->mode &= 3;
        if (c->access == 0 || c->access > 3)
            c->access = 3;
        c->bcd &= 1;
        c->control &= 0x3F;
        c->held &= c->mode == 0 || c->mode == 2 || c->mode == 3;
        c->read_high &= 1;
        c->gate = i != 2 || (s->port61 & SPK_GATE2);
    }
    s->port61 &= SPK_WRITABLE;
    pit_drive(s, tick);
    pit_schedule(s, tick, 0);
}

static void i8254_destroy(void *dev)
{
    struct i8254 *s = dev;

    timer_free(s->timer);
    irq_line_free(s->line);
    free(s);
}

static int i8254_create(struct dev_env *env, const struct options *opts, void **out,
                        struct error *err)
{
    struct i8254 *s = calloc(1, sizeof(*s));

    (void)opts;
    if (s == NULL)
        return error_set(err, -ENOMEM, "no memory for the interval timer");
    s->env = env;
    s->line = irq_open(env, 0);
    s->timer = timer_create_env(env, pit_timer, s);
    if (s->line == NULL || s->timer == NULL) {
        i8254_destroy(s);
        return error_set(err, -ENOMEM, "no memory for the interval timer");
    }
    i8254_reset(s);
    *out = s;
    return 0;
}

#define CHANNEL_FIELDS(i, tag)                                                                     \
    STATE_FIELD((tag), struct i8254, ch[i].start),                                                 \
        STATE_FIELD((tag) + 1, struct i8254, ch[i].load_at),                                       \
        STATE_FIELD((tag) + 2, struct i8254, ch[i].seen),                                          \
        STATE_FIELD((tag) + 3, struct i8254, ch[i].n),                                             \
        STATE_FIELD((tag) + 4, struct i8254, ch[i].next),                                          \
        STATE_FIELD((tag) + 5, struct i8254, ch[i].latch),                                         \
        STATE_FIELD((tag) + 6, struct i8254, ch[i].status),                                        \
        STATE_FIELD((tag) + 7, struct i8254, ch[i].latched),                                       \
        STATE_FIELD((tag) + 8, struct i8254, ch[i].status_latched),                                \
        STATE_FIELD((tag) + 9, struct i8254, ch[i].mode),                                          \
        STATE_FIELD((tag) + 10, struct i8254, ch[i].bcd),                                          \
        STATE_FIELD((tag) + 11, struct i8254, ch[i].access),                                       \
        STATE_FIELD((tag) + 12, struct i8254, ch[i].read_high),                                    \
        STATE_FIELD((tag) + 13, struct i8254, ch[i].half),                                         \
        STATE_FIELD((tag) + 14, struct i8254, ch[i].low),                                          \
        STATE_FIELD((tag) + 15, struct i8254, ch[i].armed),                                        \
        STATE_FIELD((tag) + 16, struct i8254, ch[i].active),                                       \
        STATE_FIELD((tag) + 17, struct i8254, ch[i].frozen),                                       \
        STATE_FIELD((tag) + 18, struct i8254, ch[i].null),                                         \
        STATE_FIELD((tag) + 19, struct i8254, ch[i].low_first),                                    \
        STATE_FIELD((tag) + 20, struct i8254, ch[i].control),                                      \
        STATE_FIELD((tag) + 21, struct i8254, ch[i].held),                                         \
        STATE_FIELD((tag) + 22, struct i8254, ch[i].strobe)

static const struct state_field i8254_state[] = {
    STATE_CLOCK(1, struct i8254, epoch_ns),
    STATE_FIELD(2, struct i8254, port61),
    CHANNEL_FIELDS(0, 32),
    CHANNEL_FIELDS(1, 64),
    CHANNEL_FIELDS(2, 96),
};

const struct dev_ops i8254_ops = {
    .name = "i8254",
    .summary = "interval timer (8254) and speaker port",
    .ports = i8254_ports,
    .port_count = countof(i8254_ports),
    .state = i8254_state,
    .state_count = countof(i8254_state),
    .create = i8254_create,
    .destroy = i8254_destroy,
    .reset = i8254_reset,
    .loaded = i8254_loaded,
};
