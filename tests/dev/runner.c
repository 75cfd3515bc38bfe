#include "runner.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FAILURES_SHOWN 20u
#define CYCLE_SHIFT_NS 12345678901u

void fail(struct runner *r, const char *fmt, ...)
{
    va_list ap;

    if (++r->failures > FAILURES_SHOWN)
        return;
    fprintf(stderr, "%s:%u: %s", r->file, r->line, r->saved ? "(saved) " : "");
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

void check(struct runner *r, bool ok, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    r->checks++;
    if (ok)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    fail(r, "%s", text);
}

bool number(struct runner *r, const char *word, uint64_t *out)
{
    char *end;

    errno = 0;
    *out = strtoull(word, &end, 0);
    if (!isdigit((unsigned char)word[0]) || *end != '\0' || errno != 0) {
        fail(r, "'%s' is not a number", word);
        return false;
    }
    return true;
}

void check_value(struct runner *r, const char *what, uint64_t got, const char *want)
{
    char value[64];
    const char *amp = strchr(want, '&');
    uint64_t expected, mask = ~0ull;

    if (strcmp(want, "*") == 0)
        return;
    snprintf(value, sizeof(value), "%.*s", amp != NULL ? (int)(amp - want) : 63, want);
    if (!number(r, value, &expected) || (amp != NULL && !number(r, amp + 1, &mask)))
        return;
    check(r, (got & mask) == (expected & mask), "%s is %#llx (%llu), not %s", what,
          (unsigned long long)got, (unsigned long long)got, want);
}

/* ---- what devices tell the board ---- */

static void on_log(void *ctx, enum log_level level, const char *line)
{
    struct runner *r = ctx;

    if (level == LOG_WARN && strstr(line, ": guest: ") != NULL)
        r->guest_logs++;
    if (r->verbose || level == LOG_ERROR)
        fprintf(stderr, "%s:%u: log: %s\n", r->file, r->line, line);
}

static void on_gsi(void *ctx, unsigned gsi, bool level)
{
    struct runner *r = ctx;

    if (!r->muted && level)
        r->edges[gsi]++;
}

static void on_msg(void *ctx, const struct irq_message *msg)
{
    struct runner *r = ctx;

    if (r->muted)
        return;
    if (r->msg_count < RUNNER_QUEUE)
        r->msgs[r->msg_count++] = *msg;
    else
        fail(r, "too many messages that nothing expects");
}

static void on_event(void *ctx, enum dev_event event, uint64_t arg)
{
    struct runner *r = ctx;

    if (r->event_count < RUNNER_QUEUE)
        r->events[r->event_count++] = (struct seen_event){event, arg};
    else
        fail(r, "too many events that nothing expects");
}

/* ---- units ---- */

static int device_unit_create(struct unit *u, struct error *err)
{
    struct options opts = {u->config, u->dev->options, u->dev->option_count};

    return device_create(u->dev, &u->env, &opts, &u->device, err);
}

static void device_unit_destroy(struct unit *u)
{
    device_destroy(&u->device);
}

static void device_unit_save(struct unit *u, struct state_buf *out)
{
    device_save(&u->device, out);
}

static int device_unit_load(struct unit *u, const uint8_t *data, size_t len, size_t *pos,
                            struct error *err)
{
    return device_load(&u->device, data, len, pos, err);
}

static void device_unit_reset(struct unit *u)
{
    device_reset(&u->device);
}

const struct unit_ops device_unit_ops = {
    .create = device_unit_create,
    .destroy = device_unit_destroy,
    .save = device_unit_save,
    .load = device_unit_load,
    .reset = device_unit_reset,
};

struct unit *unit_find(struct runner *r, const char *name)
{
    for (unsigned i = 0; i < r->unit_count; i++) {
        if (strcmp(r->units[i]->name, name) == 0)
            return r->units[i];
    }
    return NULL;
}

static void unit_free(struct unit *u)
{
    if (u->ops->fini != NULL)
        u->ops->fini(u);
    if (u->config != NULL)
        config_destroy(u->config);
    dev_env_fini(&u->env);
    free(u);
}

struct unit *unit_add(struct runner *r, const char *name, const struct unit_ops *ops,
                      const struct dev_ops *dev, struct config *config, void *ctx)
{
    struct unit *u = calloc(1, sizeof(*u));
    struct error err = {0};

    if (u == NULL || r->unit_count == RUNNER_UNITS) {
        fail(r, "no room for '%s'", name);
        free(u);
        if (config != NULL)
            config_destroy(config);
        return NULL;
    }
    u->ops = ops;
    u->r = r;
    u->dev = dev;
    u->config = config;
    u->ctx = ctx;
    snprintf(u->name, sizeof(u->name), "%s", name);
    for (unsigned i = 2; unit_find(r, u->name) != NULL; i++)
        snprintf(u->name, sizeof(u->name), "%.50s.%u", name, i);
    dev_env_init(&u->env, u->name);
    u->env.mem = r->mem;
    u->env.bus = r->bus;
    u->env.irqs = r->irqs;
    u->env.timers = r->timers;
    u->env.log = r->log;
    u->env.event = on_event;
    u->env.event_ctx = r;
    u->env.mem_low = r->mem_low;
    u->env.mem_high = r->mem_high;
    u->env.cpus = 3;
    for (unsigned i = 0; i < sizeof(u->env.uuid); i++)
        u->env.uuid[i] = (uint8_t)(0xA0 + i);
    u->env.wall_stepped = true;
    u->env.wall_base_ns = r->wall_base_ns;
    if (ops->create(u, &err) != 0) {
        fail(r, "%s: %s", name, err.text);
        unit_free(u);
        return NULL;
    }
    r->units[r->unit_count++] = u;
    return u;
}

/* Save, destroy, create, load: what follows must see no difference. */
static void board_cycle(struct runner *r)
{
    struct state_buf state = {0};
    bool level[IRQ_GSI_COUNT], intr = irq_pic_pending(r->irqs);
    struct error err = {0};
    size_t pos = 0;

    for (unsigned i = 0; i < r->unit_count; i++)
        r->units[i]->ops->save(r->units[i], &state);
    if (state.error != 0)
        fail(r, "no memory to save");
    for (unsigned i = 0; i < IRQ_GSI_COUNT; i++)
        level[i] = irq_gsi_level(r->irqs, i);
    r->muted = true;
    for (unsigned i = r->unit_count; i-- > 0;)
        r->units[i]->ops->destroy(r->units[i]);
    /* The clock of the machine it is loaded on shows another time; the wall clock does not. */
    timerq_set_now(r->timers, timerq_now(r->timers) + CYCLE_SHIFT_NS);
    r->wall_base_ns -= CYCLE_SHIFT_NS;
    for (unsigned i = 0; i < r->unit_count; i++)
        r->units[i]->env.wall_base_ns = r->wall_base_ns;
    for (unsigned i = 0; i < r->unit_count; i++) {
        if (r->units[i]->ops->create(r->units[i], &err) != 0) {
            fail(r, "%s cannot be made again: %s", r->units[i]->name, err.text);
            r->unit_count = i;
        }
    }
    for (unsigned i = 0; i < r->unit_count; i++) {
        if (r->units[i]->ops->load(r->units[i], state.data, state.len, &pos, &err) != 0) {
            fail(r, "%s: loading: %s", r->units[i]->name, err.text);
            break;
        }
    }
    r->muted = false;
    if (pos != state.len)
        fail(r, "%zu bytes of saved state were not loaded", state.len - pos);
    for (unsigned i = 0; i < IRQ_GSI_COUNT; i++) {
        if (irq_gsi_level(r->irqs, i) != level[i])
            fail(r, "GSI %u is %u after saving and loading", i, !level[i]);
    }
    if (irq_pic_pending(r->irqs) != intr)
        fail(r, "the PIC's output is %u after saving and loading", !intr);
    free(state.data);
}

/* ---- scripts ---- */

/* Splits in place; the number of words, -1 if malformed. */
static int split(char *line, char **words)
{
    unsigned count = 0;
    char *p = line;

    for (;;) {
        while (isspace((unsigned char)*p))
            p++;
        if (*p == '\0' || *p == '#')
            break;
        if (count == RUNNER_WORDS)
            return -1;
        if (*p == '"') {
            words[count++] = ++p;
            p = strchr(p, '"');
            if (p == NULL)
                return -1;
            *p++ = '\0';
            if (*p != '\0' && !isspace((unsigned char)*p))
                return -1;
        } else {
            words[count++] = p;
            while (*p != '\0' && !isspace((unsigned char)*p))
                p++;
            if (*p != '\0')
                *p++ = '\0';
        }
    }
    words[count] = NULL;
    return (int)count;
}

static const struct command *command_find(const char *name)
{
    for (unsigned t = 0; command_tables[t] != NULL; t++) {
        for (const struct command *c = command_tables[t]; c->name != NULL; c++) {
            if (strcmp(c->name, name) == 0)
                return c;
        }
    }
    return NULL;
}

static void run_line(struct runner *r, char *line)
{
    char *words[RUNNER_WORDS + 1];
    const struct command *c;
    int count = split(line, words);

    if (count < 0) {
        fail(r, "malformed line");
        return;
    }
    if (count == 0)
        return;
    if (r->saved)
        board_cycle(r);
    c = command_find(words[0]);
    if (c == NULL)
        fail(r, "unknown command '%s'", words[0]);
    else if ((unsigned)count - 1 < c->min || (unsigned)count - 1 > c->max)
        fail(r, "usage: %s %s", c->name, c->usage);
    else
        c->run(r, (unsigned)count, words);
}

static int board_create(struct runner *r, struct error *err)
{
    r->log = log_create(STDERR_FILENO, LOG_DEBUG);
    r->bus = bus_create(r->log);
    r->irqs = irq_router_create(r->log);
    r->timers = timerq_create(true, NULL, NULL);
    r->mem = gmem_create(16 * MIB, err);
    if (r->mem == NULL)
        return err->code;
    if (r->log == NULL || r->bus == NULL || r->irqs == NULL || r->timers == NULL)
        return error_set(err, -ENOMEM, "no memory for the board");
    r->mem_low = gmem_lowmem(r->mem);
    r->mem_high = gmem_highmem(r->mem);
    log_set_sink(r->log, on_log, r);
    irq_set_observer(r->irqs, on_gsi, on_msg, r);
    return 0;
}

static void board_destroy(struct runner *r)
{
    r->muted = true;
    for (unsigned i = r->unit_count; i-- > 0;)
        r->units[i]->ops->destroy(r->units[i]);
    for (unsigned i = 0; i < r->unit_count; i++)
        unit_free(r->units[i]);
    for (unsigned i = 0; i < IRQ_GSI_COUNT; i++)
        irq_line_free(r->lines[i]);
    gmem_destroy(r->mem);
    timerq_destroy(r->timers);
    irq_router_destroy(r->irqs);
    bus_destroy(r->bus);
    log_destroy(r->log);
}

static void run_script(struct runner *r, const char *file)
{
    struct error err = {0};
    char *line = NULL;
    size_t cap = 0;
    FILE *f = fopen(file, "r");

    r->file = file;
    if (f == NULL) {
        fail(r, "%s", strerror(errno));
        return;
    }
    if (board_create(r, &err) != 0) {
        fail(r, "%s", err.text);
    } else {
        while (getline(&line, &cap, f) >= 0) {
            r->line++;
            run_line(r, line);
        }
        if (r->checks == 0)
            fail(r, "the script checks nothing");
    }
    board_destroy(r);
    free(line);
    fclose(f);
}

int main(int argc, char **argv)
{
    unsigned checks = 0, failures = 0;
    bool saved = false, verbose = false;
    int opt;

    while ((opt = getopt(argc, argv, "sv")) != -1) {
        if (opt == '?') {
            fprintf(stderr, "usage: %s [-s] [-v] SCRIPT...\n", argv[0]);
            return 2;
        }
        saved |= opt == 's';
        verbose |= opt == 'v';
    }
    for (int i = optind; i < argc; i++) {
        struct runner *r = calloc(1, sizeof(*r));

        if (r == NULL)
            return 2;
        r->saved = saved;
        r->verbose = verbose;
        run_script(r, argv[i]);
        checks += r->checks;
        failures += r->failures;
        free(r);
    }
    printf("%u checks, %u failures\n", checks, failures);
    return failures != 0 || checks == 0;
}
