/*
 * What a device is, and what it gets to see of its machine.
 *
 * A device is one const table (struct dev_ops). The VM makes it with an environment of its own:
 * memory, interrupts, timers, log, clock. It never sees the VM, a host descriptor or the host's
 * clock. env->lock is held by the bus, the timer queue and the loop around every call into the
 * device, which takes none itself, and is never held into another device.
 */
#ifndef BUS_DEVICE_H
#define BUS_DEVICE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/config.h"
#include "base/error.h"
#include "base/log.h"
#include "bus/bus.h"
#include "bus/irq.h"
#include "bus/state.h"
#include "bus/timer.h"

struct gmem;
struct loop;

enum dev_event {
    DEV_EVENT_RESET,       /* 0xCF9, port 0x92, keyboard controller */
    DEV_EVENT_POWEROFF,    /* ACPI S5 */
    DEV_EVENT_PANIC,       /* pvpanic: the guest kernel has panicked */
    DEV_EVENT_CRASHLOADED, /* pvpanic: the guest runs its crash kernel */
    DEV_EVENT_A20,         /* arg: 1 = address line 20 passes */
    DEV_EVENT_IGNNE,       /* the x87 error interrupt was acknowledged: IGNNE# */
    DEV_EVENT_QUIT,        /* the user asked at the console (Ctrl-A x) */
    DEV_EVENT_EXIT,        /* the guest ends the VM; arg: the exit status, 0-255 */
};

struct dev_env {
    const char *name; /* of the instance: "com1", "pci.0.3.0"; borrowed */
    pthread_mutex_t lock;
    struct gmem *mem;
    struct bus *bus;
    struct irq_router *irqs;
    struct timerq *timers;
    struct log *log;
    struct loop *loop; /* for back ends only; NULL under the null engine */
    /* Tells the VM; any thread, returns at once, carried out later on the loop. */
    void (*event)(void *ctx, enum dev_event event, uint64_t arg);
    void *event_ctx;
    uint64_t mem_low, mem_high; /* bytes of RAM below 3 GiB and from 4 GiB */
    unsigned cpus;
    uint8_t uuid[16];  /* the machine's, bytes in the order of its text */
    bool rtc_local;    /* the wall clock is local time, not UTC */
    bool wall_stepped; /* tests: wall time is wall_base_ns + clock_now */
    uint64_t wall_base_ns;
    unsigned guest_log_left; /* rate limit of log_guest */
    uint64_t guest_log_since;
};

/* Sets up lock and limits; the pointers are the caller's to fill in. */
void dev_env_init(struct dev_env *env, const char *name);
void dev_env_fini(struct dev_env *env);

/* VM time in nanoseconds. */
static inline uint64_t clock_now(struct dev_env *env)
{
    return timerq_now(env->timers);
}

/* Wall clock, nanoseconds since 1970 UTC; local time is up to rtc_local and wall_offset. */
uint64_t wall_now(struct dev_env *env);
/* Seconds to add to it for what the RTC shows (0 unless rtc_local). */
int64_t wall_offset(struct dev_env *env);

/* A guest's mistake: rate-limited, "NAME: ..." at warn level. */
void log_guest(struct dev_env *env, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static inline void dev_event(struct dev_env *env, enum dev_event event, uint64_t arg)
{
    if (env->event != NULL)
        env->event(env->event_ctx, event, arg);
}

static inline struct irq_line *irq_open(struct dev_env *env, unsigned gsi)
{
    return irq_line_create(env->irqs, gsi);
}

static inline struct timer *timer_create_env(struct dev_env *env, void (*fn)(void *), void *ctx)
{
    return timer_create_on(env->timers, &env->lock, fn, ctx);
}

/* ---- options ---- */

enum opt_type { OPT_STRING, OPT_BOOL, OPT_U64, OPT_SIZE };

struct dev_option {
    const char *name;
    enum opt_type type;
    const char *value_name; /* "PATH", for help */
    const char *help;
    bool positional; /* the first bare word after the device's name */
};

/* A device's settings: its node of the configuration tree, already checked against its table. */
struct options {
    const struct config *node; /* may be NULL: nothing set */
    const struct dev_option *table;
    size_t count;
};

const char *opt_string(const struct options *o, const char *name, const char *dflt);
bool opt_bool(const struct options *o, const char *name, bool dflt);
uint64_t opt_u64(const struct options *o, const char *name, uint64_t dflt); /* and sizes */

/*
 * Checks node's children against the table: unknown names (with the nearest known one) and bad
 * values are -EINVAL. `ignore` is a NULL-terminated list of names that are not options ("device").
 */
int options_check(const struct config *node, const struct dev_option *table, size_t count,
                  const char *const *ignore, const char *what, struct error *err);

/* Parses "word,name=value,flag" into node by the table; a bare known name means true. */
int options_parse(struct config *node, const struct dev_option *table, size_t count,
                  const char *text, const char *what, struct error *err);

/* ---- devices ---- */

struct port_range {
    uint16_t base, len;
    uint32_t (*in)(void *dev, unsigned offset, unsigned size);
    void (*out)(void *dev, unsigned offset, unsigned size, uint32_t value);
};

struct mmio_range {
    uint64_t base, len;
    uint64_t (*read)(void *dev, uint64_t offset, unsigned size);
    void (*write)(void *dev, uint64_t offset, unsigned size, uint64_t value);
};

struct dev_ops {
    const char *name;
    const char *summary;
    const struct dev_option *options;
    size_t option_count;
    const struct port_range *ports;
    size_t port_count;
    const struct mmio_range *mmio;
    size_t mmio_count;
    int priority; /* of its ranges on the bus, 0 normally */
    const struct state_field *state;
    size_t state_count;
    int (*create)(struct dev_env *env, const struct options *opts, void **out, struct error *err);
    void (*destroy)(void *dev); /* not for NULL; lines and timers are freed here; lock held */
    void (*reset)(void *dev);   /* to the power-on state */
    void (*loaded)(void *dev);  /* after state was loaded: recompute what is derived */
};

#define DEVICE_RANGES 8u

/* One mapped range; filled by device_create. */
struct device_range {
    void *impl;
    const struct port_range *port; /* or mmio */
    const struct mmio_range *mmio;
};

/* A device on the board: made, mapped at its fixed ranges. Must not move while it exists. */
struct device {
    const struct dev_ops *ops;
    struct dev_env *env;
    void *impl;
    unsigned mapped;
    struct device_range range[DEVICE_RANGES];
};

/*
 * Creates impl and maps ports and MMIO. env is borrowed and outlives the device. opts may be NULL.
 */
int device_create(const struct dev_ops *ops, struct dev_env *env, const struct options *opts,
                  struct device *out, struct error *err);
void device_destroy(struct device *d); /* unmaps; a zeroed struct is allowed */
void device_reset(struct device *d);
void device_save(struct device *d, struct state_buf *out);
int device_load(struct device *d, const uint8_t *data, size_t len, size_t *pos, struct error *err);

#endif
