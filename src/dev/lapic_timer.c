/*
 * The local APIC's timer. The count is computed from the VM's clock and never ticked; the timer
 * queue is asked only for the moment it reaches zero. Intel SDM Vol.3, APIC timer.
 */
#include "dev/lapic_impl.h"

#include "base/bits.h"

/*
 * A guest may ask for a period of a nanosecond; the loop would do nothing else. Interrupts closer
 * than this merge into one, as they would in IRR.
 */
#define PERIOD_FLOOR_NS 20000ull
#define FAR_NS (1ull << 60)

static unsigned timer_mode(struct lapic *a)
{
    return (a->lvt[LVT_TIMER] >> 17) & 3;
}

/* Bits 3, 1, 0 of the divide configuration: 2, 4 ... 128, and 111 for 1. */
static unsigned timer_divisor(const struct lapic *a)
{
    unsigned code = (a->timer_divide & 3) | (a->timer_divide & 8) >> 1;

    return 1u << ((code + 1) & 7);
}

static uint64_t ticks_to_ns(const struct lapic *a, uint64_t ticks)
{
    return muldiv64(ticks * timer_divisor(a), NSEC_PER_SEC, a->set->bus_hz);
}

static uint64_t ns_to_ticks(const struct lapic *a, uint64_t ns)
{
    return muldiv64(ns, a->set->bus_hz, NSEC_PER_SEC) / timer_divisor(a);
}

static uint32_t current_count(struct lapic *a, uint64_t now)
{
    uint64_t elapsed;

    if (!a->timer_running)
        return 0;
    elapsed = ns_to_ticks(a, now > a->timer_base_ns ? now - a->timer_base_ns : 0);
    if (elapsed < a->timer_base_count)
        return (uint32_t)(a->timer_base_count - elapsed);
    if (timer_mode(a) != TIMER_PERIODIC || a->timer_initial == 0)
        return 0;
    return (uint32_t)(a->timer_initial - (elapsed - a->timer_base_count) % a->timer_initial);
}

/* A periodic count that has begun anew since: its base becomes the last time it did. */
static void rebase(struct lapic *a, uint64_t now)
{
    uint64_t elapsed = ns_to_ticks(a, now > a->timer_base_ns ? now - a->timer_base_ns : 0);
    uint64_t whole;

    if (timer_mode(a) != TIMER_PERIODIC || a->timer_initial == 0 || elapsed < a->timer_base_count)
        return;
    whole = (elapsed - a->timer_base_count) / a->timer_initial * a->timer_initial;
    a->timer_base_ns += ticks_to_ns(a, a->timer_base_count + whole);
    a->timer_base_count = a->timer_initial;
}

/* Asks the queue for the first zero of the count after now. */
static void arm_count(struct lapic *a, uint64_t now)
{
    uint64_t when = a->timer_base_ns + ticks_to_ns(a, a->timer_base_count);

    if (timer_mode(a) == TIMER_PERIODIC && when <= now) {
        uint64_t period = ticks_to_ns(a, a->timer_initial);
        uint64_t passed = (now - when) / period + 1;

        if (period < PERIOD_FLOOR_NS)
            passed += PERIOD_FLOOR_NS / period;
        when += passed * period;
    }
    timer_set(a->timer, when);
}

static void arm_deadline(struct lapic *a)
{
    struct lapics *l = a->set;
    uint64_t tsc = l->signals->tsc_now(l->signals_ctx, a->id);
    uint64_t hz = l->signals->tsc_hz(l->signals_ctx, a->id);
    uint64_t now = clock_now(l->env), left;

    if (a->timer_deadline <= tsc || hz == 0) {
        timer_set(a->timer, now);
        return;
    }
    left = a->timer_deadline - tsc;
    if (left / hz >= FAR_NS / NSEC_PER_SEC)
        left = FAR_NS;
    else
        left =
            muldiv64(left, NSEC_PER_SEC, hz) + (left * (unsigned __int128)NSEC_PER_SEC % hz != 0);
    timer_set(a->timer, now + left);
}

static void disarm(struct lapic *a)
{
    a->timer_running = false;
    a->timer_initial = 0;
    a->timer_deadline = 0;
    timer_cancel(a->timer);
}

void lapic_timer_stop(struct lapic *a)
{
    pthread_mutex_lock(&a->lock);
    disarm(a);
    a->timer_divide = 0;
    pthread_mutex_unlock(&a->lock);
}

static void fired_deadline(struct lapic *a)
{
    struct lapics *l = a->set;

    if (a->timer_deadline == 0)
        return;
    /* The guest's TSC may have been moved back since, and rounding may come a tick short. */
    if (l->signals->tsc_hz(l->signals_ctx, a->id) != 0 &&
        l->signals->tsc_now(l->signals_ctx, a->id) < a->timer_deadline) {
        arm_deadline(a);
        return;
    }
    a->timer_deadline = 0;
    lapic_lvt_fire(a, LVT_TIMER);
}

void lapic_timer_fired(void *lapic)
{
    struct lapic *a = lapic;
    uint64_t now = clock_now(a->set->env);

    if (timer_mode(a) == TIMER_DEADLINE) {
        fired_deadline(a);
        return;
    }
    if (!a->timer_running)
        return;
    if (timer_mode(a) == TIMER_PERIODIC)
        arm_count(a, now);
    else
        a->timer_running = false;
    lapic_lvt_fire(a, LVT_TIMER);
}

/*
 * The guest looks at or changes what has run out already, and is there before the loop: the
 * interrupt comes first.
 */
static void expire_due(struct lapic *a)
{
    if (timer_when(a->timer) > clock_now(a->set->env))
        return;
    timer_cancel(a->timer);
    lapic_timer_fired(a);
}

/* A change of mode: one-shot and periodic share the running count, the deadline does not. */
void lapic_timer_set_lvt(struct lapic *a, uint32_t value)
{
    unsigned before, after;

    pthread_mutex_lock(&a->lock);
    expire_due(a);
    before = timer_mode(a);
    after = (value >> 17) & 3;
    if (before != after) {
        uint64_t now = clock_now(a->set->env);

        rebase(a, now);
        a->lvt[LVT_TIMER] = value;
        if (before >= TIMER_DEADLINE || after >= TIMER_DEADLINE) {
            disarm(a);
        } else if (a->timer_running) {
            arm_count(a, now);
        }
    }
    a->lvt[LVT_TIMER] = value;
    pthread_mutex_unlock(&a->lock);
}

void lapic_timer_set_initial(struct lapic *a, uint32_t value)
{
    pthread_mutex_lock(&a->lock);
    expire_due(a);
    if (timer_mode(a) < TIMER_DEADLINE) { /* ignored in deadline mode */
        a->timer_initial = a->timer_base_count = value;
        a->timer_running = value != 0;
        a->timer_base_ns = clock_now(a->set->env);
        if (a->timer_running)
            arm_count(a, a->timer_base_ns);
        else
            timer_cancel(a->timer);
    }
    pthread_mutex_unlock(&a->lock);
}

/* The count goes on from where it is, at the new pace. */
void lapic_timer_set_divide(struct lapic *a, uint32_t value)
{
    uint64_t now;

    pthread_mutex_lock(&a->lock);
    expire_due(a);
    now = clock_now(a->set->env);
    a->timer_base_count = current_count(a, now);
    a->timer_base_ns = now;
    a->timer_divide = value & 0xB;
    if (a->timer_running)
        arm_count(a, now);
    pthread_mutex_unlock(&a->lock);
}

uint32_t lapic_timer_current(struct lapic *a)
{
    uint32_t count;

    pthread_mutex_lock(&a->lock);
    expire_due(a);
    count = current_count(a, clock_now(a->set->env));
    pthread_mutex_unlock(&a->lock);
    return count;
}

uint64_t lapic_timer_get_deadline(struct lapic *a)
{
    uint64_t tsc;

    pthread_mutex_lock(&a->lock);
    expire_due(a);
    tsc = timer_mode(a) == TIMER_DEADLINE ? a->timer_deadline : 0;
    pthread_mutex_unlock(&a->lock);
    return tsc;
}

void lapic_timer_set_deadline(struct lapic *a, uint64_t tsc)
{
    struct lapics *l = a->set;

    pthread_mutex_lock(&a->lock);
    expire_due(a);
    if (timer_mode(a) == TIMER_DEADLINE) { /* ignored otherwise */
        a->timer_deadline = tsc;
        if (tsc == 0)
            timer_cancel(a->timer);
        else if (tsc <= l->signals->tsc_now(l->signals_ctx, a->id)) {
            /* Already past: fire here, without the way through the loop. */
            timer_cancel(a->timer);
            a->timer_deadline = 0;
            lapic_lvt_fire(a, LVT_TIMER);
        } else
            arm_deadline(a);
    }
    pthread_mutex_unlock(&a->lock);
}

void lapic_timer_get(struct lapic *a, bool stop, struct lapic_timer_state *out)
{
    pthread_mutex_lock(&a->lock);
    expire_due(a);
    *out = (struct lapic_timer_state){
        .lvt = a->lvt[LVT_TIMER],
        .divide = a->timer_divide,
        .initial = a->timer_initial,
        .current = current_count(a, clock_now(a->set->env)),
        .deadline = timer_mode(a) == TIMER_DEADLINE ? a->timer_deadline : 0,
    };
    if (stop)
        disarm(a);
    pthread_mutex_unlock(&a->lock);
}

void lapic_timer_put(struct lapic *a, const struct lapic_timer_state *in)
{
    pthread_mutex_lock(&a->lock);
    disarm(a);
    a->lvt[LVT_TIMER] = in->lvt;
    a->timer_divide = in->divide & 0xB;
    if (timer_mode(a) == TIMER_DEADLINE) {
        a->timer_deadline = in->deadline;
        if (in->deadline != 0)
            arm_deadline(a);
    } else if (timer_mode(a) < TIMER_DEADLINE) {
        a->timer_initial = in->initial;
        a->timer_base_count = in->current <= in->initial ? in->current : in->initial;
        a->timer_base_ns = clock_now(a->set->env);
        if (in->current == 0 && timer_mode(a) == TIMER_PERIODIC)
            a->timer_base_count = in->initial;
        a->timer_running = a->timer_base_count != 0;
        if (a->timer_running)
            arm_count(a, a->timer_base_ns);
    }
    pthread_mutex_unlock(&a->lock);
}
