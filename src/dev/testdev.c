/*
 * The PC test device: what small test programs use to say how they ended, to raise interrupts, and
 * to try port and memory-mapped I/O on something that answers simply.
 *
 *     0xE0-0xE3, 0xE8-0xEB   latches, four bytes each: read back what was written
 *     0xE4                   flushes the guest page of this address
 *     0xE9, 0xF1             a byte of text for the user; 0xE9 reads as 0xE9
 *     0xF4-0xF7              ends the VM with status (code << 1 | 1) & 0xFF
 *     0x2000-0x2017          the level of GSI 0 to 23
 *     0xFF000000, 64 KiB     memory behind MMIO
 *
 * Called by the bus with the device's lock held; the loop writes the text, with the same lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "chardev/chardev.h"
#include "dev/chips.h"
#include "mem/gmem.h"

#define LATCH_SIZE 4u
#define TEXT_PORT 0xE9u
#define TEXT_OFFSET (TEXT_PORT - 0xE8u)
#define WINDOW_SIZE 0x10000u

struct testdev {
    struct dev_env *env;
    struct irq_line *line[IRQ_GSI_COUNT];
    struct chardev *text; /* NULL: text is dropped */
    uint8_t level[IRQ_GSI_COUNT];
    uint8_t latch[2][LATCH_SIZE];
    uint8_t window[WINDOW_SIZE];
};

/* ---- latches ---- */

static uint32_t latch_read(const uint8_t *latch, unsigned offset, unsigned size)
{
    uint32_t value = 0;

    for (unsigned i = 0; i < size; i++)
        value |= (uint32_t)latch[offset + i] << (8 * i);
    return value;
}

static void latch_write(uint8_t *latch, unsigned offset, unsigned size, uint32_t value)
{
    for (unsigned i = 0; i < size; i++)
        latch[offset + i] = (uint8_t)(value >> (8 * i));
}

static uint32_t low_in(void *dev, unsigned offset, unsigned size)
{
    const struct testdev *t = dev;

    return latch_read(t->latch[0], offset, size);
}

static void low_out(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    struct testdev *t = dev;

    latch_write(t->latch[0], offset, size, value);
}

/* ---- text ---- */

static void text_put(struct testdev *t, uint8_t byte)
{
    if (t->text != NULL)
        chardev_write(t->text, &byte, 1);
}

/*
 * The debug port lies inside the second group of latches. A byte for it is text, and reading it
 * says that it is here; wider accesses see the latches alone.
 */
static uint32_t high_in(void *dev, unsigned offset, unsigned size)
{
    const struct testdev *t = dev;

    if (offset == TEXT_OFFSET && size == 1)
        return TEXT_PORT;
    return latch_read(t->latch[1], offset, size);
}

static void high_out(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    struct testdev *t = dev;

    if (offset == TEXT_OFFSET && size == 1)
        text_put(t, (uint8_t)value);
    latch_write(t->latch[1], offset, size, value);
}

static void text_out(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    (void)offset;
    (void)size;
    text_put(dev, (uint8_t)value);
}

/* ---- the rest ---- */

/*
 * Test programs use this to have the page taken from under a running processor: its contents stay,
 * but the next access must find it anew. Guest RAM never moves here, so addresses held in a
 * translation cache stay true; what can be stale is decoded code, and that is forgotten.
 */
static void flush_out(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    struct testdev *t = dev;

    if (size != 4) {
        log_guest(t->env, "port %#x takes an address of four bytes, not %u", 0xE4 + offset, size);
        return;
    }
    gmem_written(t->env->mem, align_down(value, GMEM_PAGE), GMEM_PAGE);
}

static void exit_out(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    struct testdev *t = dev;

    (void)offset;
    (void)size;
    dev_event(t->env, DEV_EVENT_EXIT, (value << 1 | 1) & 0xFF);
}

/* A port is one line, however wide the access: the value is its level. */
static void line_out(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    struct testdev *t = dev;

    (void)size;
    t->level[offset] = value != 0;
    irq_set(t->line[offset], value != 0);
}

static uint64_t window_read(void *dev, uint64_t offset, unsigned size)
{
    const struct testdev *t = dev;
    uint64_t value = 0;

    memcpy(&value, t->window + offset, size); /* little-endian, as every host is */
    return value;
}

static void window_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct testdev *t = dev;

    memcpy(t->window + offset, &value, size);
}

/* ---- life ---- */

static void set_lines(struct testdev *t)
{
    for (unsigned i = 0; i < IRQ_GSI_COUNT; i++)
        irq_set(t->line[i], t->level[i] != 0);
}

static void testdev_reset(void *dev)
{
    struct testdev *t = dev;

    memset(t->level, 0, sizeof(t->level));
    memset(t->latch, 0, sizeof(t->latch));
    memset(t->window, 0, sizeof(t->window));
    set_lines(t);
}

static void testdev_destroy(void *dev)
{
    struct testdev *t = dev;

    if (t->text != NULL)
        chardev_close(t->text);
    for (unsigned i = 0; i < IRQ_GSI_COUNT; i++)
        irq_line_free(t->line[i]);
    free(t);
}

static int testdev_create(struct dev_env *env, const struct options *opts, void **out,
                          struct error *err)
{
    const char *backend = opt_string(opts, "backend", NULL);
    struct testdev *t = calloc(1, sizeof(*t));
    int rc = 0;

    if (t == NULL)
        return error_set(err, -ENOMEM, "no memory for the PC test device");
    t->env = env;
    for (unsigned i = 0; i < IRQ_GSI_COUNT && rc == 0; i++) {
        t->line[i] = irq_open(env, i);
        if (t->line[i] == NULL)
            rc = error_set(err, -ENOMEM, "no memory for the PC test device's interrupts");
    }
    if (rc == 0 && backend != NULL)
        rc = chardev_open(backend, env->name, env->loop, env->log, &env->lock, NULL, NULL, &t->text,
                          err);
    if (rc != 0) {
        pthread_mutex_lock(&env->lock);
        testdev_destroy(t);
        pthread_mutex_unlock(&env->lock);
        return rc;
    }
    *out = t;
    return 0;
}

/* A snapshot is a file: a level is zero or one, whatever it says. */
static void testdev_loaded(void *dev)
{
    struct testdev *t = dev;

    for (unsigned i = 0; i < IRQ_GSI_COUNT; i++)
        t->level[i] = t->level[i] != 0;
    set_lines(t);
}

static const struct port_range testdev_ports[] = {
    {.base = 0xE0, .len = LATCH_SIZE, .in = low_in, .out = low_out},
    {.base = 0xE4, .len = 4, .out = flush_out},
    {.base = 0xE8, .len = LATCH_SIZE, .in = high_in, .out = high_out},
    {.base = 0xF1, .len = 1, .out = text_out},
    {.base = 0xF4, .len = 4, .out = exit_out},
    {.base = 0x2000, .len = IRQ_GSI_COUNT, .out = line_out},
};

static const struct mmio_range testdev_mmio[] = {
    {.base = 0xFF000000, .len = WINDOW_SIZE, .read = window_read, .write = window_write},
};

static const struct state_field testdev_state[] = {
    STATE_FIELD(1, struct testdev, level),
    STATE_FIELD(2, struct testdev, latch),
    STATE_FIELD(3, struct testdev, window),
};

static const struct dev_option testdev_options[] = {
    {.name = "backend",
     .type = OPT_STRING,
     .value_name = "BACKEND",
     .help = "where text goes; nowhere if not given",
     .positional = true},
};

const struct dev_ops testdev_ops = {
    .name = "pc-testdev",
    .summary = "test device: exit status, latches, interrupt lines, text",
    .options = testdev_options,
    .option_count = countof(testdev_options),
    .ports = testdev_ports,
    .port_count = countof(testdev_ports),
    .mmio = testdev_mmio,
    .mmio_count = countof(testdev_mmio),
    .state = testdev_state,
    .state_count = countof(testdev_state),
    .create = testdev_create,
    .destroy = testdev_destroy,
    .reset = testdev_reset,
    .loaded = testdev_loaded,
};
