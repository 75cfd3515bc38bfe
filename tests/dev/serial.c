/*
 * Serial ports with a back end in memory: feed [UNIT] TEXT sends to the guest, output [UNIT] TEXT
 * expects all that the guest has written since the last time. In TEXT, \n, \r, \\ and \xHH are
 * bytes. UNIT may be left out for the first port.
 *
 * A snapshot holds the chip, not what is on its way outside: the runner carries that over.
 */
#include "runner.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chardev/chardev.h"
#include "dev/chips.h"
#include "dev/uart.h"

enum { OUTSIDE_MAX = 8192 };

struct outside {
    uint8_t in[OUTSIDE_MAX], out[OUTSIDE_MAX];
    size_t in_len, out_len;
};

static struct chardev *backend(struct unit *u)
{
    return uart_chardev(u->device.impl);
}

static int serial_create(struct unit *u, struct error *err)
{
    return device_unit_ops.create(u, err);
}

static void collect(struct unit *u)
{
    struct outside *o = u->ctx;

    pthread_mutex_lock(&u->env.lock);
    o->out_len += chardev_memory_take(backend(u), o->out + o->out_len, OUTSIDE_MAX - o->out_len);
    pthread_mutex_unlock(&u->env.lock);
}

static void serial_destroy(struct unit *u)
{
    struct outside *o = u->ctx;

    collect(u);
    pthread_mutex_lock(&u->env.lock);
    o->in_len = chardev_read(backend(u), o->in, OUTSIDE_MAX);
    pthread_mutex_unlock(&u->env.lock);
    device_unit_ops.destroy(u);
}

static void serial_save(struct unit *u, struct state_buf *out)
{
    device_unit_ops.save(u, out);
}

static int serial_load(struct unit *u, const uint8_t *data, size_t len, size_t *pos,
                       struct error *err)
{
    struct outside *o = u->ctx;
    int rc = device_unit_ops.load(u, data, len, pos, err);

    pthread_mutex_lock(&u->env.lock);
    if (rc == 0 && o->in_len > 0)
        chardev_memory_feed(backend(u), o->in, o->in_len);
    pthread_mutex_unlock(&u->env.lock);
    o->in_len = 0;
    return rc;
}

static void serial_reset(struct unit *u)
{
    device_unit_ops.reset(u);
}

static void serial_fini(struct unit *u)
{
    free(u->ctx);
}

static const struct unit_ops serial_unit_ops = {
    .create = serial_create,
    .destroy = serial_destroy,
    .save = serial_save,
    .load = serial_load,
    .reset = serial_reset,
    .fini = serial_fini,
};

void serial_add(struct runner *r, struct config *config)
{
    struct outside *o = calloc(1, sizeof(*o));

    if (o == NULL || unit_add(r, "ns16550", &serial_unit_ops, &ns16550_ops, config, o) == NULL)
        fail(r, "no serial port");
}

/* Bytes of TEXT into to[OUTSIDE_MAX]; -1 after fail(). */
static int unescape(struct runner *r, const char *text, uint8_t *to)
{
    int len = 0;

    for (; *text != '\0' && len < OUTSIDE_MAX; text++) {
        unsigned byte;

        if (*text != '\\') {
            to[len++] = (uint8_t)*text;
        } else if (text[1] == 'x' && sscanf(text + 2, "%2x", &byte) == 1) {
            to[len++] = (uint8_t)byte;
            text += 3;
        } else if (text[1] == 'n' || text[1] == 'r' || text[1] == '\\') {
            to[len++] = text[1] == 'n' ? '\n' : text[1] == 'r' ? '\r' : '\\';
            text++;
        } else {
            fail(r, "'%s' is no escape", text);
            return -1;
        }
    }
    return len;
}

/* The port that words[1] names, else the first one. */
static struct unit *port(struct runner *r, unsigned count, char **words)
{
    struct unit *u = unit_find(r, count > 2 ? words[1] : "ns16550");

    if (u != NULL && u->ops == &serial_unit_ops)
        return u;
    fail(r, "there is no serial port '%s'", count > 2 ? words[1] : "ns16550");
    return NULL;
}

static void cmd_feed(struct runner *r, unsigned count, char **words)
{
    struct unit *u = port(r, count, words);
    uint8_t bytes[OUTSIDE_MAX];
    int len = u != NULL ? unescape(r, words[count - 1], bytes) : -1;

    if (len < 0)
        return;
    pthread_mutex_lock(&u->env.lock);
    chardev_memory_feed(backend(u), bytes, (size_t)len);
    pthread_mutex_unlock(&u->env.lock);
}

static void cmd_output(struct runner *r, unsigned count, char **words)
{
    struct unit *u = port(r, count, words);
    uint8_t want[OUTSIDE_MAX];
    int len = u != NULL ? unescape(r, words[count - 1], want) : -1;
    struct outside *o;

    if (len < 0)
        return;
    o = u->ctx;
    collect(u);
    check(r, o->out_len == (size_t)len && memcmp(o->out, want, (size_t)len) == 0,
          "the output is %zu bytes: '%.*s'", o->out_len, (int)o->out_len, (const char *)o->out);
    o->out_len = 0;
}

const struct command serial_commands[] = {
    {"feed", 1, 2, cmd_feed, "[UNIT] TEXT"},
    {"output", 1, 2, cmd_output, "[UNIT] TEXT"},
    {0},
};
