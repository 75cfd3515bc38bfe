/*
 * The device tests' runner: scripts against a board with devices, a stepped clock and no CPU.
 *
 * A script is lines of words; '#' starts a comment, "..." is one word. Each line is a command from
 * one of the tables in commands.c: write one there, or a table in a file of its own and its name in
 * command_tables[]. What lives on the board is a list of units, mostly devices by name out of
 * devices.c; another kind (a PCI function, say) brings its own struct unit_ops and uses unit_add.
 *
 * With -s everything on the board is saved, destroyed, made anew and loaded before every line, at
 * another VM time, and the script must not notice. Single-threaded.
 */
#ifndef TESTS_DEV_RUNNER_H
#define TESTS_DEV_RUNNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bus/device.h"
#include "mem/gmem.h"

#define RUNNER_WORDS 32u
#define RUNNER_QUEUE 256u
#define RUNNER_UNITS 32u

struct runner;
struct unit;

struct unit_ops {
    int (*create)(struct unit *u, struct error *err); /* also after a save; u->env is set up */
    void (*destroy)(struct unit *u);
    void (*save)(struct unit *u, struct state_buf *out);
    int (*load)(struct unit *u, const uint8_t *data, size_t len, size_t *pos, struct error *err);
    void (*reset)(struct unit *u);
    void (*fini)(struct unit *u); /* frees ctx at the script's end; may be NULL */
};

/* One thing on the board. Never moves: devices borrow env. */
struct unit {
    const struct unit_ops *ops;
    struct runner *r;
    char name[64];
    struct dev_env env;
    struct device device;      /* of the usual kind */
    const struct dev_ops *dev; /* likewise */
    struct config *config;     /* options, owned; may be NULL */
    void *ctx;                 /* another kind's own */
};

struct seen_event {
    enum dev_event event;
    uint64_t arg;
};

struct runner {
    bool verbose, saved;
    const char *file;
    unsigned line, checks, failures;

    struct log *log;
    struct bus *bus;
    struct irq_router *irqs;
    struct timerq *timers;
    struct gmem *mem;
    uint64_t wall_base_ns, mem_low, mem_high; /* for the env of units */

    struct unit *units[RUNNER_UNITS];
    unsigned unit_count;

    struct irq_line *lines[IRQ_GSI_COUNT]; /* driven by the script */
    bool muted;                            /* between destroy and load */
    unsigned edges[IRQ_GSI_COUNT];
    unsigned guest_logs;
    struct irq_message msgs[RUNNER_QUEUE]; /* seen and not yet expected, oldest first */
    unsigned msg_count;
    struct seen_event events[RUNNER_QUEUE];
    unsigned event_count;
};

/* words[0] is the command's name; words[count] is NULL. */
struct command {
    const char *name;
    unsigned min, max; /* words after the name */
    void (*run)(struct runner *r, unsigned count, char **words);
    const char *usage;
};

extern const struct command *const command_tables[]; /* each ends with a zeroed entry */
extern const struct command pci_commands[];          /* pci.c */
extern const struct command serial_commands[];       /* serial.c */
extern const struct command image_commands[];        /* image.c */
extern const struct dev_ops *const runner_devices[]; /* NULL-terminated */

/* Reports FILE:LINE and the sentence; the script goes on. */
void fail(struct runner *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Counts a check, and a failure unless ok. */
void check(struct runner *r, bool ok, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* A check of a value against "0x41", "0x41&0xF0" (only these bits count) or "*". */
void check_value(struct runner *r, const char *what, uint64_t got, const char *want);

/* Numbers as in C, without sign; false after fail(). */
bool number(struct runner *r, const char *word, uint64_t *out);

/* The unit of this name, NULL if none. */
struct unit *unit_find(struct runner *r, const char *name);

/* Makes a unit with its environment and creates it; NULL after fail(). config may be NULL; it is
 * the unit's from now on, also after a failure. */
struct unit *unit_add(struct runner *r, const char *name, const struct unit_ops *ops,
                      const struct dev_ops *dev, struct config *config, void *ctx);

extern const struct unit_ops device_unit_ops; /* over struct dev_ops */

/* A copy of text with "@NAME" replaced by that image's path; NULL after fail(). */
char *image_expand(struct runner *r, const char *text);

/* pci_insert of function 0 in a slot. */
int board_insert(struct runner *r, unsigned slot, unsigned unit, const char *path, bool force,
                 struct error *err);

/* The next "ns16550", "ns16550.2" ...: a serial port whose outside the script plays. */
void serial_add(struct runner *r, struct config *config);

#endif
