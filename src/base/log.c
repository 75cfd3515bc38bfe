#include "base/log.h"

#include <errno.h>
#include <fnmatch.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define PATIENCE_MS 1000 /* with a reader of the log that has stopped reading */

struct log {
    pthread_mutex_t lock; /* orders lines; guards sink, trace text and what is lost */
    int fd;
    _Atomic(enum log_level) level;
    atomic_bool crlf;
    atomic_bool tracing; /* a pattern is set; read without the lock */
    char trace[256];     /* patterns, NUL-separated, empty one ends */
    void (*sink)(void *ctx, enum log_level, const char *line);
    void *sink_ctx;
    unsigned lost; /* lines, since the descriptor last took one */
};

struct log *log_create(int fd, enum log_level level)
{
    struct log *log = calloc(1, sizeof(*log));

    if (log == NULL)
        return NULL;
    pthread_mutex_init(&log->lock, NULL);
    log->fd = fd;
    log->level = level;
    return log;
}

void log_destroy(struct log *log)
{
    if (log == NULL)
        return;
    pthread_mutex_destroy(&log->lock);
    free(log);
}

static const char *const level_names[] = {"error", "warn", "info", "debug"};

int log_parse_level(const char *text, enum log_level *out)
{
    for (unsigned i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++) {
        if (strcasecmp(text, level_names[i]) == 0) {
            *out = (enum log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

void log_set_level(struct log *log, enum log_level level)
{
    log->level = level;
}

int log_set_trace(struct log *log, const char *patterns, struct error *err)
{
    size_t len = strlen(patterns);

    if (len + 2 > sizeof(log->trace))
        return error_set(err, -EINVAL, "trace pattern is longer than %zu characters; use wildcards",
                         sizeof(log->trace) - 2);
    pthread_mutex_lock(&log->lock);
    memset(log->trace, 0, sizeof(log->trace));
    memcpy(log->trace, patterns, len);
    for (size_t i = 0; i < len; i++) {
        if (log->trace[i] == ',')
            log->trace[i] = '\0';
    }
    pthread_mutex_unlock(&log->lock);
    atomic_store(&log->tracing, len > 0);
    return 0;
}

void log_set_crlf(struct log *log, bool on)
{
    atomic_store(&log->crlf, on);
}

void log_set_sink(struct log *log, void (*sink)(void *ctx, enum log_level, const char *line),
                  void *ctx)
{
    pthread_mutex_lock(&log->lock);
    log->sink = sink;
    log->sink_ctx = ctx;
    pthread_mutex_unlock(&log->lock);
}

/*
 * A vCPU that waited for the log's reader would stall the guest, and one that waits for ever could
 * not be stopped: after a second without progress lines are dropped until there is room again.
 */
static void log_put(struct log *log, const char *line, size_t len)
{
    struct pollfd p = {.fd = log->fd, .events = POLLOUT};
    ssize_t ignored;
    int n;

    do
        n = poll(&p, 1, log->lost > 0 ? 0 : PATIENCE_MS);
    while (n < 0 && errno == EINTR);
    if (n <= 0) {
        log->lost++;
        return;
    }
    if (log->lost > 0) {
        char text[80];
        int size = snprintf(text, sizeof(text), "xhyve: warn: %u lines of the log are lost%s\n",
                            log->lost, atomic_load(&log->crlf) ? "\r" : "");

        log->lost = 0;
        ignored = write(log->fd, text, (size_t)size);
    }
    ignored = write(log->fd, line, len); /* a log that cannot be written has nowhere to say so */
    (void)ignored;
}

__attribute__((format(printf, 4, 0))) static void
log_emit(struct log *log, enum log_level level, const char *tag, const char *fmt, va_list ap)
{
    char line[1024];
    int n = snprintf(line, sizeof(line) - 2, "xhyve: %s: ", tag);
    int m = vsnprintf(line + n, sizeof(line) - 2 - (size_t)n, fmt, ap);
    size_t len;

    if (m < 0)
        return;
    len = strlen(line);
    pthread_mutex_lock(&log->lock);
    if (log->sink != NULL) {
        log->sink(log->sink_ctx, level, line + n);
    } else {
        if (atomic_load(&log->crlf))
            line[len++] = '\r';
        line[len++] = '\n';
        log_put(log, line, len);
    }
    pthread_mutex_unlock(&log->lock);
}

void log_writev(struct log *log, enum log_level level, const char *fmt, va_list ap)
{
    if (log != NULL && level <= log->level)
        log_emit(log, level, level_names[level], fmt, ap);
}

void log_write(struct log *log, enum log_level level, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    log_writev(log, level, fmt, ap);
    va_end(ap);
}

bool log_tracing(struct log *log, const char *module)
{
    bool hit = false;

    if (log == NULL || !atomic_load_explicit(&log->tracing, memory_order_relaxed))
        return false;
    pthread_mutex_lock(&log->lock);
    for (const char *p = log->trace; *p != '\0' && !hit; p += strlen(p) + 1)
        hit = fnmatch(p, module, 0) == 0;
    pthread_mutex_unlock(&log->lock);
    return hit;
}

void log_trace_write(struct log *log, const char *module, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    log_emit(log, LOG_DEBUG, module, fmt, ap);
    va_end(ap);
}
