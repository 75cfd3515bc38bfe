#include "host/clock.h"

#include <errno.h>

#include "base/bits.h"

#define TSC_TRIES 8
#define TSC_WINDOW_NS 10000000ull /* shortest span that gives a frequency to some 10 ppm */

static uint64_t clock_ns(clockid_t id)
{
    struct timespec ts;

    if (clock_gettime(id, &ts) < 0)
        return 0; /* only for an id this host lacks, and these all exist */
    return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

uint64_t host_clock_ns(void)
{
#ifdef __linux__
    return clock_ns(CLOCK_BOOTTIME); /* CLOCK_MONOTONIC stands still while the host sleeps */
#else
    return clock_ns(CLOCK_MONOTONIC_RAW); /* counts through sleep on macOS; never slewed */
#endif
}

uint64_t host_wall_ns(void)
{
    return clock_ns(CLOCK_REALTIME);
}

int64_t host_utc_offset(time_t at)
{
    struct tm tm;

    if (localtime_r(&at, &tm) == NULL)
        return 0;
    return tm.tm_gmtoff;
}

uint64_t host_cpu_ns(void)
{
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

/* A preemption between the two reads would shift one against the other, hence the tightest. */
struct host_tsc_sample host_tsc_sample(void)
{
    struct host_tsc_sample best = {0, 0};
    uint64_t best_width = UINT64_MAX;

    for (unsigned i = 0; i < TSC_TRIES; i++) {
        uint64_t before = host_tsc();
        uint64_t ns = host_clock_ns();
        uint64_t width = host_tsc() - before;

        if (width < best_width) {
            best_width = width;
            best.tsc = before + width / 2;
            best.ns = ns;
        }
    }
    return best;
}

uint64_t host_tsc_hz(struct host_tsc_sample since)
{
    struct host_tsc_sample now = host_tsc_sample();

    while (now.ns - since.ns < TSC_WINDOW_NS) {
        uint64_t left = TSC_WINDOW_NS - (now.ns - since.ns);
        struct timespec ts = {.tv_sec = 0, .tv_nsec = (long)left};

        nanosleep(&ts, NULL);
        now = host_tsc_sample();
    }
    return muldiv64(now.tsc - since.tsc, NSEC_PER_SEC, now.ns - since.ns);
}
