/* Host clocks. Any thread, no state. */
#ifndef HOST_CLOCK_H
#define HOST_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Monotonic nanoseconds that count through host sleep (CLOCK_BOOTTIME on Linux). */
uint64_t host_clock_ns(void);

/* Nanoseconds since 1970-01-01 UTC. */
uint64_t host_wall_ns(void);

/* Seconds to add to UTC for local time at that moment. */
int64_t host_utc_offset(time_t at);

/* CPU time this process has used, nanoseconds. */
uint64_t host_cpu_ns(void);

/* The time-stamp counter. */
static inline uint64_t host_tsc(void)
{
    return __builtin_ia32_rdtsc();
}

/* A TSC value and the clock at one moment, the tightest of several tries. */
struct host_tsc_sample {
    uint64_t tsc, ns;
};
struct host_tsc_sample host_tsc_sample(void);

/*
 * The TSC's frequency in Hz from the sample taken at program start to now, at least 10 ms apart
 * (waits if they are nearer).
 */
uint64_t host_tsc_hz(struct host_tsc_sample since);

#endif
