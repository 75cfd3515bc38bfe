/*
 * The PC's real-time clock and its battery-backed RAM: an MC146818 with 128 bytes behind an index
 * port (0x70) and a data port (0x71), interrupting by ISA IRQ 8.
 *
 *   00 seconds  02 minutes  04 hours  06 weekday  07 day  08 month  09 year  32 century
 *   01 03 05    alarm: second, minute, hour; 0xC0 and up match anything
 *   0A-0D       registers A to D
 *   15/16 17/18 30/31   base memory, and memory from 1 MiB (KiB)
 *   34/35       memory from 16 MiB to 3 GiB (64 KiB)
 *   5B-5D       memory from 4 GiB (64 KiB)
 *
 * DSE moves the hour as the chip does, by the United States' old rule.
 *
 * The time is the host's wall clock and a distance the guest has made by setting it; nothing ticks.
 * Flags are found by comparing now with when they were last looked at, so the timer is armed only
 * while the guest has an interrupt enabled and none pending.
 *
 * Ports on any vCPU's thread, the timer on the loop's, all with the device's lock held.
 */
#include "dev/chips.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/bytes.h"

#define RTC_HZ 32768u
/*
 * UIP: 244 us of warning, then the update's 1984 us, at whose end the new second is there. Until
 * then the registers show the old one, where the chip's would be undefined.
 */
#define UIP_NS (244000u + 1984000u)
#define RECHECK_NS (60 * NSEC_PER_SEC) /* the host's clock may be set meanwhile */
#define DAY 86400
#define TIME_MIN (-62167219200ll) /* 0000-01-01, the calendar's limits with a century byte */
#define TIME_MAX 253402300799ll   /* 9999-12-31 */

enum rtc_reg {
    RTC_SEC = 0x00,
    RTC_SEC_ALARM,
    RTC_MIN,
    RTC_MIN_ALARM,
    RTC_HOUR,
    RTC_HOUR_ALARM,
    RTC_WEEKDAY,
    RTC_DAY,
    RTC_MONTH,
    RTC_YEAR,
    RTC_A,
    RTC_B,
    RTC_C,
    RTC_D,
    RTC_BASE_MEM = 0x15,
    RTC_EXT_MEM = 0x17,
    RTC_EXT_MEM_COPY = 0x30,
    RTC_CENTURY = 0x32,
    RTC_MEM_16M = 0x34,
    RTC_MEM_HIGH = 0x5B,
    RTC_RAM_SIZE = 0x80,
};

#define A_UIP 0x80u
#define A_DV(a) ((a) >> 4 & 7u)
#define A_DV_RUN 2u /* 32768 Hz; 6 and 7 hold the divider in reset */
#define A_DV_RESET 6u
#define A_RATE 0x0Fu
#define B_SET 0x80u
#define B_PIE 0x40u /* as the flags PF, AF and UF of register C */
#define B_AIE 0x20u
#define B_UIE 0x10u
#define B_SQWE 0x08u
#define B_BINARY 0x04u
#define B_24H 0x02u
#define B_DSE 0x01u
#define C_IRQF 0x80u
#define D_VALID 0x80u
#define HOUR_PM 0x80u
#define ALARM_ANY 0xC0u

struct mc146818 {
    struct dev_env *env;
    struct irq_line *line; /* owned */
    struct timer *timer;   /* owned */
    int64_t offset_s;      /* what the guest has set the clock to, less the wall clock */
    uint64_t phase_ns;     /* below a second: likewise */
    uint64_t divider_ns;   /* clock_now() at which the divider was last let go */
    uint64_t now_ns;       /* clock_now() and */
    uint64_t wall_ns;      /* wall_now(), read once for each access: see rtc_moment */
    uint64_t periods;      /* periodic interrupts up to which PF has been looked at */
    int64_t looked_s;      /* second up to which UF and AF have been looked at */
    uint8_t index;
    uint8_t weekday_shift; /* the weekday is a counter of its own: ahead of the date's by so many */
    uint8_t repeated;      /* bool: this is the hour that comes twice in October */
    uint8_t ram[RTC_RAM_SIZE]; /* time registers: only valid while the clock is held */
};

struct rtc_time {
    int year;
    unsigned month, day, hour, min, sec, weekday; /* weekday 1 = Sunday */
};

/* ---- calendar ---- */

/* Days since 1970-01-01 in the Gregorian calendar; years are counted from March. */
static int64_t days_from_date(int64_t year, unsigned month, unsigned day)
{
    int64_t y = year - (month <= 2), era = (y >= 0 ? y : y - 399) / 400;
    int64_t in_era = y - era * 400;
    int64_t in_year = (153 * ((int64_t)month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

    return era * 146097 + in_era * 365 + in_era / 4 - in_era / 100 + in_year - 719468;
}

static struct rtc_time time_split(int64_t s)
{
    int64_t day = (s - TIME_MIN) / DAY, days = day - 719528; /* from year 0, from 1970 */
    unsigned in_day = (unsigned)((s - TIME_MIN) % DAY);
    int64_t z = days + 719468, era = (z >= 0 ? z : z - 146096) / 146097, of_era = z - era * 146097;
    int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t in_year = of_era - (365 * year + year / 4 - year / 100), m = (5 * in_year + 2) / 153;
    struct rtc_time t;

    t.day = (unsigned)(in_year - (153 * m + 2) / 5 + 1);
    t.month = (unsigned)(m < 10 ? m + 3 : m - 9);
    t.year = (int)(year + era * 400 + (t.month <= 2));
    t.hour = in_day / 3600;
    t.min = in_day / 60 % 60;
    t.sec = in_day % 60;
    t.weekday = (unsigned)((day + 6) % 7) + 1; /* year 0 began on a Saturday */
    return t;
}

/* ---- the clock ---- */

static bool rtc_divider_reset(const struct mc146818 *s)
{
    return A_DV(s->ram[RTC_A]) >= A_DV_RESET;
}

/* The guest is setting the clock: the registers are plain memory. */
static bool rtc_held(const struct mc146818 *s)
{
    return (s->ram[RTC_B] & B_SET) || rtc_divider_reset(s);
}

/*
 * Reads the clocks: all that follows from one access is of one moment. Were they read again on the
 * way, a second that ends in between would be waited for twice.
 */
static void rtc_moment(struct mc146818 *s)
{
    s->now_ns = clock_now(s->env);
    s->wall_ns = wall_now(s->env);
}

/* Nanoseconds since 1970 without what is whole seconds of the guest's making. */
static uint64_t rtc_base(const struct mc146818 *s)
{
    return s->wall_ns + s->phase_ns;
}

static int64_t rtc_seconds(struct mc146818 *s)
{
    int64_t t;

    if (__builtin_add_overflow((int64_t)(rtc_base(s) / NSEC_PER_SEC) + wall_offset(s->env),
                               s->offset_s, &t))
        return 0;
    return t < TIME_MIN ? TIME_MIN : t > TIME_MAX ? TIME_MAX : t;
}

static uint64_t rtc_subsecond(const struct mc146818 *s)
{
    return rtc_base(s) % NSEC_PER_SEC;
}

static uint8_t rtc_encode(const struct mc146818 *s, unsigned value)
{
    return s->ram[RTC_B] & B_BINARY ? (uint8_t)value : bcd_from(value);
}

static unsigned rtc_decode(const struct mc146818 *s, uint8_t raw)
{
    return s->ram[RTC_B] & B_BINARY ? raw : bcd_to(raw);
}

static uint8_t rtc_encode_hour(const struct mc146818 *s, unsigned hour)
{
    if (s->ram[RTC_B] & B_24H)
        return rtc_encode(s, hour);
    return rtc_encode(s, hour % 12 == 0 ? 12 : hour % 12) | (hour >= 12 ? HOUR_PM : 0);
}

static unsigned rtc_decode_hour(const struct mc146818 *s, uint8_t raw)
{
    if (s->ram[RTC_B] & B_24H)
        return rtc_decode(s, raw);
    return rtc_decode(s, raw & (uint8_t)~HOUR_PM) % 12 + (raw & HOUR_PM ? 12 : 0);
}

/* The time now into the registers. */
static void rtc_fill(struct mc146818 *s)
{
    struct rtc_time t = time_split(rtc_seconds(s));

    s->ram[RTC_SEC] = rtc_encode(s, t.sec);
    s->ram[RTC_MIN] = rtc_encode(s, t.min);
    s->ram[RTC_HOUR] = rtc_encode_hour(s, t.hour);
    s->ram[RTC_WEEKDAY] = rtc_encode(s, (t.weekday - 1 + s->weekday_shift) % 7 + 1);
    s->ram[RTC_DAY] = rtc_encode(s, t.day);
    s->ram[RTC_MONTH] = rtc_encode(s, t.month);
    s->ram[RTC_YEAR] = rtc_encode(s, (unsigned)t.year % 100);
    s->ram[RTC_CENTURY] = rtc_encode(s, (unsigned)t.year / 100);
}

/* The registers into the time. Values past their range carry over, as 31 February does. */
static void rtc_commit(struct mc146818 *s)
{
    unsigned month = rtc_decode(s, s->ram[RTC_MONTH]);
    int64_t year = (int64_t)rtc_decode(s, s->ram[RTC_CENTURY]) % 100 * 100 +
                   rtc_decode(s, s->ram[RTC_YEAR]) % 100;
    int64_t t;

    month = month < 1 ? 1 : month > 12 ? 12 : month;
    t = days_from_date(year, month, 1) + rtc_decode(s, s->ram[RTC_DAY]) - 1;
    t = t * DAY + (int64_t)rtc_decode_hour(s, s->ram[RTC_HOUR]) * 3600 +
        (int64_t)rtc_decode(s, s->ram[RTC_MIN]) * 60 + rtc_decode(s, s->ram[RTC_SEC]);
    s->offset_s = t - (int64_t)(rtc_base(s) / NSEC_PER_SEC) - wall_offset(s->env);
    s->looked_s = rtc_seconds(s);
    s->weekday_shift =
        (uint8_t)((rtc_decode(s, s->ram[RTC_WEEKDAY]) + 7 - time_split(s->looked_s).weekday % 7) %
                  7);
    s->repeated = 0;
}

/* ---- flags and the interrupt ---- */

/* Nanoseconds of one periodic interrupt as RTC_HZ ticks, 0 if off. */
static unsigned rtc_period_ticks(const struct mc146818 *s)
{
    unsigned rate = s->ram[RTC_A] & A_RATE;

    if (rate == 0 || rtc_divider_reset(s))
        return 0;
    return 1u << (rate <= 2 ? rate + 6 : rate - 1);
}

static uint64_t rtc_periods_now(const struct mc146818 *s)
{
    unsigned ticks = rtc_period_ticks(s);

    if (ticks == 0)
        return 0;
    return muldiv64(s->now_ns - s->divider_ns, RTC_HZ, NSEC_PER_SEC) / ticks;
}

static bool alarm_field(const struct mc146818 *s, enum rtc_reg reg, uint8_t now)
{
    return (s->ram[reg] & ALARM_ANY) == ALARM_ANY || s->ram[reg] == now;
}

/* The first second after `from` at which the alarm matches; INT64_MAX if none ever. */
static int64_t rtc_next_alarm(const struct mc146818 *s, int64_t from)
{
    int64_t t = from + 1, end = from + DAY;

    while (t <= end) {
        unsigned in_day = (unsigned)((t - TIME_MIN) % DAY);

        if (!alarm_field(s, RTC_HOUR_ALARM, rtc_encode_hour(s, in_day / 3600)))
            t += 3600 - in_day % 3600;
        else if (!alarm_field(s, RTC_MIN_ALARM, rtc_encode(s, in_day / 60 % 60)))
            t += 60 - in_day % 60;
        else if (!alarm_field(s, RTC_SEC_ALARM, rtc_encode(s, in_day % 60)))
            t++;
        else
            return t;
    }
    return INT64_MAX;
}

/* ---- daylight saving (DSE): the last Sundays of April and October, at two o'clock ---- */

/* The second at which the clock would show 2:00:00 on the month's last Sunday, as it counts them.
 */
static int64_t rtc_changeover(const struct mc146818 *s, int year, unsigned month)
{
    int64_t last = days_from_date(year, month, month == 4 ? 30 : 31);
    int64_t since_sunday = (last - TIME_MIN / DAY + 6 + s->weekday_shift) % 7;

    return (last - since_sunday) * DAY + 2 * 3600;
}

/* The first changeover after `from`, INT64_MAX if there is none up to `to`; and its month. */
static int64_t rtc_next_changeover(const struct mc146818 *s, int64_t from, int64_t to,
                                   unsigned *month)
{
    int last = time_split(to).year;

    if (!(s->ram[RTC_B] & B_DSE) || to <= from)
        return INT64_MAX;
    for (int year = time_split(from).year; year <= last; year++) {
        for (*month = 4; *month <= 10; *month += 6) {
            int64_t at = rtc_changeover(s, year, *month);

            if (at > from && at <= to)
                return at;
        }
    }
    return INT64_MAX;
}

/* The seconds up to this one have been shown. */
static void rtc_pass(struct mc146818 *s, int64_t to)
{
    if (to > s->looked_s && rtc_next_alarm(s, s->looked_s) <= to)
        s->ram[RTC_C] |= B_AIE;
    s->looked_s = to;
}

/* All that has passed since last time; 2:00:00 is 3:00:00 in April, and at first 1:00:00 in
 * October. */
static void rtc_catch_up(struct mc146818 *s, int64_t now)
{
    int64_t at;
    unsigned month;

    while ((at = rtc_next_changeover(s, s->looked_s, now, &month)) != INT64_MAX) {
        int64_t shift = month == 4 ? 3600 : -3600;

        if (month == 10 && s->repeated) {
            s->repeated = 0;
            rtc_pass(s, at);
            continue;
        }
        s->repeated = month == 10;
        rtc_pass(s, at - 1);
        s->looked_s += shift;
        s->offset_s += shift;
        now += shift;
    }
    rtc_pass(s, now);
}

/* Sets the flags for what has happened since last time, and the line. */
static void rtc_look(struct mc146818 *s)
{
    uint64_t periods = rtc_periods_now(s);
    uint8_t *c = &s->ram[RTC_C];

    if (periods > s->periods)
        *c |= B_PIE;
    s->periods = periods;
    if (!rtc_held(s)) {
        int64_t now = rtc_seconds(s);

        if (now != s->looked_s)
            *c |= B_UIE;
        rtc_catch_up(s, now);
    }
    if (*c & s->ram[RTC_B] & (B_PIE | B_AIE | B_UIE))
        *c |= C_IRQF;
    else
        *c &= (uint8_t)~C_IRQF;
    if (irq_level(s->line) != ((*c & C_IRQF) != 0))
        irq_set(s->line, *c & C_IRQF);
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Arms the timer for the next interrupt; the flags have been looked at. */
static void rtc_schedule(struct mc146818 *s)
{
    uint64_t now = s->now_ns, when = UINT64_MAX;
    uint8_t enabled = s->ram[RTC_B];

    if (s->ram[RTC_C] & C_IRQF) { /* the line is high already */
        timer_cancel(s->timer);
        return;
    }
    if ((enabled & B_PIE) && rtc_period_ticks(s) != 0) {
        uint64_t tick = (s->periods + 1) * rtc_period_ticks(s);

        when = s->divider_ns + muldiv64(tick, NSEC_PER_SEC, RTC_HZ);
        if (muldiv64(when - s->divider_ns, RTC_HZ, NSEC_PER_SEC) < tick)
            when++; /* rounded down: not there yet */
    }
    if ((enabled & (B_UIE | B_AIE)) && !rtc_held(s)) {
        int64_t next = s->looked_s + 1;
        unsigned month;

        if (!(enabled & B_UIE))
            next = earlier(rtc_next_alarm(s, s->looked_s),
                           rtc_next_changeover(s, s->looked_s, s->looked_s + DAY, &month));
        if (next != INT64_MAX) {
            uint64_t wait = (uint64_t)(next - s->looked_s) * NSEC_PER_SEC - rtc_subsecond(s);

            when = min_u64(when, now + min_u64(wait, RECHECK_NS));
        }
    }
    if (when == UINT64_MAX)
        timer_cancel(s->timer);
    else
        timer_set(s->timer, max_u64(when, now));
}

static void rtc_timer(void *dev)
{
    rtc_moment(dev);
    rtc_look(dev);
    rtc_schedule(dev);
}

/* ---- registers ---- */

static bool rtc_is_time(unsigned reg)
{
    return (reg <= RTC_YEAR && (reg & 1) == 0 && reg <= RTC_WEEKDAY) ||
           (reg >= RTC_DAY && reg <= RTC_YEAR) || reg == RTC_CENTURY;
}

static uint8_t rtc_read(struct mc146818 *s)
{
    uint8_t value;

    rtc_moment(s);
    rtc_look(s);
    if (rtc_is_time(s->index) && !rtc_held(s))
        rtc_fill(s);
    value = s->ram[s->index];
    if (s->index == RTC_A && !rtc_held(s) && rtc_subsecond(s) >= NSEC_PER_SEC - UIP_NS)
        value |= A_UIP;
    if (s->index == RTC_C) {
        s->ram[RTC_C] = 0;
        rtc_look(s);
        rtc_schedule(s);
    }
    return value;
}

/* The divider's reset holds the clock; the first update comes half a second after its end. */
static void rtc_write_a(struct mc146818 *s, uint8_t value)
{
    bool was_held = rtc_held(s), was_reset = rtc_divider_reset(s);

    if (!was_held)
        rtc_fill(s);
    s->ram[RTC_A] = value & (uint8_t)~A_UIP;
    if (was_reset && !rtc_divider_reset(s)) {
        s->divider_ns = s->now_ns;
        s->phase_ns += NSEC_PER_SEC + NSEC_PER_SEC / 2 - rtc_subsecond(s);
        s->phase_ns %= NSEC_PER_SEC;
    }
    if (was_held && !rtc_held(s))
        rtc_commit(s);
    s->periods = rtc_periods_now(s);
    if (A_DV(value) != A_DV_RUN && A_DV(value) < A_DV_RESET)
        log_guest(s->env, "divider %u is for another crystal", A_DV(value));
}

static void rtc_write_b(struct mc146818 *s, uint8_t value)
{
    bool was_held = rtc_held(s);

    if (value & B_SET)
        value &= (uint8_t)~B_UIE;
    s->ram[RTC_B] = value;
    if (!was_held && rtc_held(s))
        rtc_fill(s); /* in the format just chosen */
    else if (was_held && !rtc_held(s))
        rtc_commit(s);
}

static void rtc_write(struct mc146818 *s, uint8_t value)
{
    rtc_moment(s);
    rtc_look(s);
    if (rtc_is_time(s->index)) {
        if (!rtc_held(s))
            rtc_fill(s);
        s->ram[s->index] = value;
        if (!rtc_held(s))
            rtc_commit(s);
    } else if (s->index == RTC_A) {
        rtc_write_a(s, value);
    } else if (s->index == RTC_B) {
        rtc_write_b(s, value);
    } else if (s->index != RTC_C && s->index != RTC_D) {
        s->ram[s->index] = value;
    }
    rtc_look(s);
    rtc_schedule(s);
}

static uint8_t rtc_in_byte(void *dev, unsigned offset)
{
    return offset == 0 ? 0xFF : rtc_read(dev); /* the index is write-only */
}

static void rtc_out_byte(void *dev, unsigned offset, uint8_t value)
{
    struct mc146818 *s = dev;

    if (offset == 0)
        s->index = value & 0x7F; /* bit 7 masks NMI, which nothing here raises */
    else
        rtc_write(s, value);
}

static uint32_t rtc_in(void *dev, unsigned offset, unsigned size)
{
    return bytes_in(dev, offset, size, rtc_in_byte);
}

static void rtc_out(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    bytes_out(dev, offset, size, value, rtc_out_byte);
}

static const struct port_range mc146818_ports[] = {
    {.base = 0x70, .len = 2, .in = rtc_in, .out = rtc_out},
};

/* ---- life ---- */

static void ram_store(struct mc146818 *s, unsigned reg, unsigned bytes, uint64_t value)
{
    for (unsigned i = 0; i < bytes; i++)
        s->ram[reg + i] = (uint8_t)(value >> (8 * i));
}

/* Sizes as firmware leaves them for boot loaders; each saturates at what its bytes hold. */
static void rtc_store_memory(struct mc146818 *s)
{
    uint64_t low = s->env->mem_low, high = s->env->mem_high / (64 * KIB);
    uint64_t above_1m = low > MIB ? min_u64((low - MIB) / KIB, 0xFFFF) : 0;
    uint64_t above_16m = low > 16 * MIB ? min_u64((low - 16 * MIB) / (64 * KIB), 0xFFFF) : 0;

    ram_store(s, RTC_BASE_MEM, 2, 640);
    ram_store(s, RTC_EXT_MEM, 2, above_1m);
    ram_store(s, RTC_EXT_MEM_COPY, 2, above_1m);
    ram_store(s, RTC_MEM_16M, 2, above_16m);
    ram_store(s, RTC_MEM_HIGH, 3, min_u64(high, 0xFFFFFF));
}

/* The battery keeps time, alarm and RAM; interrupts go off. */
static void mc146818_reset(void *dev)
{
    struct mc146818 *s = dev;

    rtc_moment(s);
    rtc_look(s); /* what has passed until now is gone with register C */
    s->ram[RTC_B] &= (uint8_t) ~(B_PIE | B_AIE | B_UIE | B_SQWE);
    s->ram[RTC_C] = 0;
    s->index = 0;
    irq_set(s->line, false);
    timer_cancel(s->timer);
}

static void mc146818_loaded(void *dev)
{
    struct mc146818 *s = dev;

    rtc_moment(s);
    s->index &= 0x7F;
    s->weekday_shift %= 7;
    s->repeated = s->repeated != 0;
    s->phase_ns %= NSEC_PER_SEC;
    s->ram[RTC_D] = D_VALID;
    if (s->looked_s < TIME_MIN || s->looked_s > TIME_MAX)
        s->looked_s = rtc_seconds(s);
    irq_set(s->line, s->ram[RTC_C] & C_IRQF);
    rtc_look(s);
    rtc_schedule(s);
}

static void mc146818_destroy(void *dev)
{
    struct mc146818 *s = dev;

    timer_free(s->timer);
    irq_line_free(s->line);
    free(s);
}

static int mc146818_create(struct dev_env *env, const struct options *opts, void **out,
                           struct error *err)
{
    struct mc146818 *s = calloc(1, sizeof(*s));

    (void)opts;
    if (s == NULL)
        return error_set(err, -ENOMEM, "no memory for the real-time clock");
    s->env = env;
    s->line = irq_open(env, 8);
    s->timer = timer_create_env(env, rtc_timer, s);
    if (s->line == NULL || s->timer == NULL) {
        mc146818_destroy(s);
        return error_set(err, -ENOMEM, "no memory for the real-time clock");
    }
    rtc_moment(s);
    s->divider_ns = s->now_ns;
    s->ram[RTC_A] = A_DV_RUN << 4 | 6; /* 1024 Hz */
    s->ram[RTC_B] = B_24H;
    s->ram[RTC_D] = D_VALID;
    s->looked_s = rtc_seconds(s);
    rtc_store_memory(s);
    *out = s;
    return 0;
}

static const struct state_field mc146818_state[] = {
    STATE_FIELD(1, struct mc146818, offset_s),   STATE_FIELD(2, struct mc146818, phase_ns),
    STATE_CLOCK(3, struct mc146818, divider_ns), STATE_FIELD(4, struct mc146818, periods),
    STATE_FIELD(5, struct mc146818, looked_s),   STATE_FIELD(6, struct mc146818, index),
    STATE_FIELD(7, struct mc146818, ram),        STATE_FIELD(8, struct mc146818, weekday_shift),
    STATE_FIELD(9, struct mc146818, repeated),
};

const struct dev_ops mc146818_ops = {
    .name = "mc146818",
    .summary = "real-time clock and CMOS memory",
    .ports = mc146818_ports,
    .port_count = countof(mc146818_ports),
    .state = mc146818_state,
    .state_count = countof(mc146818_state),
    .create = mc146818_create,
    .destroy = mc146818_destroy,
    .reset = mc146818_reset,
    .loaded = mc146818_loaded,
};
