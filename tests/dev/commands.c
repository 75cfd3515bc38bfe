/* The commands every script has. */
#define _DEFAULT_SOURCE

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "dev/chips.h"
#include "runner.h"

/* ---- the board ---- */

static void cmd_device(struct runner *r, unsigned count, char **words)
{
    const struct dev_ops *ops = NULL;
    struct config *config = NULL;
    struct error err = {0};

    for (unsigned i = 0; runner_devices[i] != NULL; i++) {
        if (strcmp(runner_devices[i]->name, words[1]) == 0)
            ops = runner_devices[i];
    }
    if (ops == NULL) {
        fail(r, "no device '%s' in devices.c", words[1]);
        return;
    }
    if (count > 2) {
        config = config_create();
        if (config == NULL ||
            options_parse(config, ops->options, ops->option_count, words[2], ops->name, &err)) {
            fail(r, "%s", err.text);
            if (config != NULL)
                config_destroy(config);
            return;
        }
    }
    if (ops == &ns16550_ops)
        serial_add(r, config);
    else
        unit_add(r, words[1], &device_unit_ops, ops, config, NULL);
}

static void cmd_ram(struct runner *r, unsigned count, char **words)
{
    (void)count;
    if (r->unit_count != 0)
        fail(r, "ram must come before the devices");
    else if (number(r, words[1], &r->mem_low))
        number(r, words[2], &r->mem_high);
}

static void cmd_reset(struct runner *r, unsigned count, char **words)
{
    (void)count;
    (void)words;
    for (unsigned i = 0; i < r->unit_count; i++)
        r->units[i]->ops->reset(r->units[i]);
}

/* ---- accesses ---- */

static unsigned width(char letter)
{
    switch (letter) {
    case 'b':
        return 1;
    case 'w':
        return 2;
    case 'l':
        return 4;
    default:
        return 8;
    }
}

static void cmd_read(struct runner *r, unsigned count, char **words)
{
    enum bus_space space = words[0][0] == 'i' ? BUS_PIO : BUS_MMIO;
    unsigned size = width(words[0][strlen(words[0]) - 1]);
    uint64_t addr, value;
    char what[64];

    if (!number(r, words[1], &addr))
        return;
    bus_read(r->bus, BUS_READER_OTHER, space, addr, size, &value);
    if (count == 2)
        return; /* for its side effects */
    if (count != 4 || strcmp(words[2], "=") != 0) {
        fail(r, "usage: %s ADDRESS = VALUE", words[0]);
        return;
    }
    snprintf(what, sizeof(what), "%s %s", words[0], words[1]);
    check_value(r, what, value, words[3]);
}

static void cmd_write(struct runner *r, unsigned count, char **words)
{
    enum bus_space space = words[0][0] == 'o' ? BUS_PIO : BUS_MMIO;
    unsigned size = width(words[0][strlen(words[0]) - 1]);
    uint64_t addr, value;

    (void)count;
    if (!number(r, words[1], &addr) || !number(r, words[2], &value))
        return;
    if (value & ~bytes_mask(size))
        fail(r, "%s does not fit %u bytes", words[2], size);
    else
        bus_write(r->bus, BUS_READER_OTHER, space, addr, size, value);
}

/* ---- time ---- */

static void cmd_clock(struct runner *r, unsigned count, char **words)
{
    static const struct {
        const char *name;
        uint64_t ns;
    } units[] = {
        {"ns", 1},          {"us", 1000},           {"ms", 1000000},        {"s", NSEC_PER_SEC},
        {"m", 60000000000}, {"h", 3600000000000ll}, {"d", 86400000000000ll}};
    char *end;
    uint64_t n;

    (void)count;
    if (words[1][0] != '+' || !isdigit((unsigned char)words[1][1])) {
        fail(r, "usage: clock +NUMBER ns|us|ms|s|m|h|d, as one word");
        return;
    }
    n = strtoull(words[1] + 1, &end, 10);
    for (unsigned i = 0; i < countof(units); i++) {
        if (strcmp(end, units[i].name) == 0) {
            timerq_step(r->timers, n * units[i].ns);
            return;
        }
    }
    fail(r, "'%s' is no unit of time", end);
}

static void cmd_wall(struct runner *r, unsigned count, char **words)
{
    struct tm tm = {0};
    const char *end = strptime(words[1], "%Y-%m-%dT%H:%M:%S", &tm);

    (void)count;
    if (end == NULL || *end != '\0') {
        fail(r, "usage: wall YYYY-MM-DDTHH:MM:SS");
        return;
    }
    r->wall_base_ns = (uint64_t)timegm(&tm) * NSEC_PER_SEC - timerq_now(r->timers);
    for (unsigned i = 0; i < r->unit_count; i++)
        r->units[i]->env.wall_base_ns = r->wall_base_ns;
}

/* ---- interrupts ---- */

static bool gsi_number(struct runner *r, const char *word, uint64_t *gsi)
{
    if (!number(r, word, gsi))
        return false;
    if (*gsi < IRQ_GSI_COUNT)
        return true;
    fail(r, "there is no GSI %s", word);
    return false;
}

static void cmd_irq(struct runner *r, unsigned count, char **words)
{
    uint64_t gsi, level;

    (void)count;
    if (!gsi_number(r, words[1], &gsi) || !number(r, words[2], &level))
        return;
    if (r->lines[gsi] == NULL)
        r->lines[gsi] = irq_line_create(r->irqs, (unsigned)gsi);
    irq_set(r->lines[gsi], level != 0);
}

static void cmd_ack(struct runner *r, unsigned count, char **words)
{
    (void)count;
    if (strcmp(words[1], "=") != 0)
        fail(r, "usage: ack = VECTOR");
    else
        check_value(r, "ack", irq_pic_ack(r->irqs), words[2]);
}

/* ---- expect ---- */

static void expect_irq(struct runner *r, unsigned count, char **words)
{
    uint64_t gsi;

    (void)count;
    if (gsi_number(r, words[1], &gsi))
        check_value(r, "the GSI's level", irq_gsi_level(r->irqs, (unsigned)gsi), words[2]);
}

static void expect_edges(struct runner *r, unsigned count, char **words)
{
    uint64_t gsi;

    (void)count;
    if (!gsi_number(r, words[1], &gsi))
        return;
    check_value(r, "the number of edges", r->edges[gsi], words[2]);
    r->edges[gsi] = 0;
}

static void expect_pic(struct runner *r, unsigned count, char **words)
{
    (void)count;
    check_value(r, "the PIC's output", irq_pic_pending(r->irqs), words[1]);
}

static bool take_message(struct runner *r, struct irq_message *out)
{
    if (r->msg_count == 0) {
        check(r, false, "no message was sent");
        return false;
    }
    *out = r->msgs[0];
    memmove(r->msgs, r->msgs + 1, --r->msg_count * sizeof(r->msgs[0]));
    return true;
}

/* The message as an MSI; the redirection hint and the assert bit are not kept. */
static void expect_msi(struct runner *r, unsigned count, char **words)
{
    struct irq_message m;
    uint64_t addr, data, got_addr, got_data;

    (void)count;
    if (!number(r, words[1], &addr) || !number(r, words[2], &data) || !take_message(r, &m))
        return;
    got_addr = 0xFEE00000 | (uint64_t)(m.dest & 0xFF) << 12 | (m.logical ? 4 : 0);
    got_data = (uint64_t)m.vector | (uint64_t)m.delivery << 8 | (m.level ? 0x8000 : 0);
    check(r, got_addr == (addr & ~8ull) && got_data == (data & ~0x4000ull),
          "the message is %#llx %#llx", (unsigned long long)got_addr, (unsigned long long)got_data);
}

static void expect_msg(struct runner *r, unsigned count, char **words)
{
    struct irq_message m;

    if (!take_message(r, &m))
        return;
    for (unsigned i = 1; i < count; i++) {
        const struct {
            const char *name;
            uint64_t value;
        } fields[] = {{"vector", m.vector},     {"dest", m.dest},   {"logical", m.logical},
                      {"delivery", m.delivery}, {"level", m.level}, {"assert", m.assert}};
        char *eq = strchr(words[i], '=');
        bool known = false;

        if (eq != NULL)
            *eq++ = '\0';
        for (unsigned f = 0; eq != NULL && f < countof(fields); f++) {
            if (strcmp(fields[f].name, words[i]) == 0) {
                check_value(r, fields[f].name, fields[f].value, eq);
                known = true;
            }
        }
        if (!known)
            fail(r, "expect msg: vector=, dest=, logical=, delivery=, level= or assert=");
    }
}

static void expect_none(struct runner *r, unsigned count, char **words)
{
    (void)count;
    (void)words;
    check(r, r->msg_count == 0, "%u messages wait, the first with vector %#x", r->msg_count,
          r->msgs[0].vector);
    check(r, r->event_count == 0, "%u events wait", r->event_count);
}

static void expect_log(struct runner *r, unsigned count, char **words)
{
    (void)count;
    if (strcmp(words[1], "guest") != 0) {
        fail(r, "usage: expect log guest COUNT");
        return;
    }
    check_value(r, "the number of guest mistakes logged", r->guest_logs, words[2]);
    r->guest_logs = 0;
}

static void expect_event(struct runner *r, unsigned count, char **words)
{
    static const char *const names[] = {
        [DEV_EVENT_RESET] = "reset", [DEV_EVENT_POWEROFF] = "poweroff",
        [DEV_EVENT_PANIC] = "panic", [DEV_EVENT_CRASHLOADED] = "crashloaded",
        [DEV_EVENT_A20] = "a20",     [DEV_EVENT_QUIT] = "quit",
        [DEV_EVENT_EXIT] = "exit",   [DEV_EVENT_IGNNE] = "ignne",
    };
    struct seen_event e;

    if (r->event_count == 0) {
        check(r, false, "no event was raised");
        return;
    }
    e = r->events[0];
    memmove(r->events, r->events + 1, --r->event_count * sizeof(r->events[0]));
    check(r, (size_t)e.event < countof(names) && strcmp(names[e.event], words[1]) == 0,
          "the event is %s",
          (size_t)e.event < countof(names) ? names[e.event] : "one without a name");
    if (count > 2)
        check_value(r, "the event's argument", e.arg, words[2]);
}

static const struct command expectations[] = {
    {"irq", 2, 2, expect_irq, "GSI 0|1"},
    {"edges", 2, 2, expect_edges, "GSI COUNT"},
    {"pic", 1, 1, expect_pic, "0|1"},
    {"msi", 2, 2, expect_msi, "ADDRESS DATA"},
    {"msg", 1, 6, expect_msg, "FIELD=VALUE..."},
    {"none", 0, 0, expect_none, ""},
    {"log", 2, 2, expect_log, "guest COUNT"},
    {"event", 1, 2, expect_event, "NAME [ARGUMENT]"},
    {0},
};

static void cmd_expect(struct runner *r, unsigned count, char **words)
{
    for (const struct command *c = expectations; c->name != NULL; c++) {
        if (strcmp(c->name, words[1]) != 0)
            continue;
        if (count - 2 < c->min || count - 2 > c->max)
            fail(r, "usage: expect %s %s", c->name, c->usage);
        else
            c->run(r, count - 1, words + 1);
        return;
    }
    fail(r, "cannot expect '%s'", words[1]);
}

static const struct command basic_commands[] = {
    {"device", 1, 2, cmd_device, "NAME [OPTIONS]"},
    {"ram", 2, 2, cmd_ram, "BYTES-BELOW-3G BYTES-FROM-4G"},
    {"reset", 0, 0, cmd_reset, ""},
    {"inb", 1, 3, cmd_read, "PORT [= VALUE]"},
    {"inw", 1, 3, cmd_read, "PORT [= VALUE]"},
    {"inl", 1, 3, cmd_read, "PORT [= VALUE]"},
    {"readb", 1, 3, cmd_read, "ADDRESS [= VALUE]"},
    {"readw", 1, 3, cmd_read, "ADDRESS [= VALUE]"},
    {"readl", 1, 3, cmd_read, "ADDRESS [= VALUE]"},
    {"readq", 1, 3, cmd_read, "ADDRESS [= VALUE]"},
    {"outb", 2, 2, cmd_write, "PORT VALUE"},
    {"outw", 2, 2, cmd_write, "PORT VALUE"},
    {"outl", 2, 2, cmd_write, "PORT VALUE"},
    {"writeb", 2, 2, cmd_write, "ADDRESS VALUE"},
    {"writew", 2, 2, cmd_write, "ADDRESS VALUE"},
    {"writel", 2, 2, cmd_write, "ADDRESS VALUE"},
    {"writeq", 2, 2, cmd_write, "ADDRESS VALUE"},
    {"clock", 1, 1, cmd_clock, "+NUMBER ns|us|ms|s|m|h|d"},
    {"wall", 1, 1, cmd_wall, "YYYY-MM-DDTHH:MM:SS"},
    {"irq", 2, 2, cmd_irq, "GSI 0|1"},
    {"ack", 2, 2, cmd_ack, "= VECTOR"},
    {"expect", 1, 7, cmd_expect, "irq|edges|pic|msi|msg|none|log|event ..."},
    {0},
};

const struct command *const command_tables[] = {basic_commands, pci_commands, serial_commands,
                                                image_commands, NULL};
