/*
 * The log: one object a VM, lines to one descriptor (stderr). Levels and trace patterns choose what
 * is printed. On a terminal in raw mode lines end in CR LF. Any thread; lines never interleave.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

struct log;

/* fd is borrowed. Never returns NULL-dereferenceable surprises: NULL means no memory. */
struct log *log_create(int fd, enum log_level level);
void log_destroy(struct log *log);

/* "error", "warn", "info", "debug" (any case) → level; -EINVAL otherwise. */
int log_parse_level(const char *text, enum log_level *out);
void log_set_level(struct log *log, enum log_level level);

/* Trace lines of modules that match one of the comma-separated shell patterns ("pci*,lapic"). */
int log_set_trace(struct log *log, const char *patterns, struct error *err);

/* Lines end in CR LF while set: the console has put the shared terminal into raw mode. */
void log_set_crlf(struct log *log, bool on);

/* A sink for tests: called with every finished line (no newline) instead of writing to fd. */
void log_set_sink(struct log *log, void (*sink)(void *ctx, enum log_level, const char *line),
                  void *ctx);

/* All of these accept log == NULL and drop the line. */
void log_write(struct log *log, enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void log_writev(struct log *log, enum log_level level, const char *fmt, va_list ap)
    __attribute__((format(printf, 3, 0)));

#define log_error(log, ...) log_write(log, LOG_ERROR, __VA_ARGS__)
#define log_warn(log, ...) log_write(log, LOG_WARN, __VA_ARGS__)
#define log_info(log, ...) log_write(log, LOG_INFO, __VA_ARGS__)
#define log_debug(log, ...) log_write(log, LOG_DEBUG, __VA_ARGS__)

/* True if trace lines of this module are wanted; cheap when no pattern is set. */
bool log_tracing(struct log *log, const char *module);
void log_trace_write(struct log *log, const char *module, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
#define log_trace(log, module, ...)                                                                \
    do {                                                                                           \
        if (log_tracing(log, module))                                                              \
            log_trace_write(log, module, __VA_ARGS__);                                             \
    } while (0)

/*
 * A gap in what is built: logs at error level with the place. The caller then stops loudly (the
 * engine ends the VM with status 4). Found with grep; each stands in docs/STATUS.md.
 */
#define UNIMPLEMENTED(log, fmt, ...)                                                               \
    log_write(log, LOG_ERROR, "not implemented: " fmt " (%s:%d)", ##__VA_ARGS__, __FILE__, __LINE__)

#endif
