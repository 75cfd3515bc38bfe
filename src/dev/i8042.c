/*
 * The keyboard controller of the PC/AT with its second port: commands at 0x64, data at 0x60, IRQ 1
 * for the keyboard and 12 for the mouse. The devices behind it answer at once.
 *
 * Called by the bus with the device's lock held; input may come from any thread (i8042.h).
 */
#include "dev/i8042.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"
#include "dev/chips.h"
#include "dev/ps2.h"

#define STATUS_OUTPUT_FULL 0x01u
#define STATUS_SYSTEM 0x04u
#define STATUS_COMMAND 0x08u  /* the last write went to 0x64 */
#define STATUS_UNLOCKED 0x10u /* the key in the case's lock */
#define STATUS_AUX 0x20u

#define MODE_KBD_IRQ 0x01u
#define MODE_AUX_IRQ 0x02u
#define MODE_SYSTEM 0x04u
#define MODE_KBD_OFF 0x10u
#define MODE_AUX_OFF 0x20u
#define MODE_TRANSLATE 0x40u

/* As firmware leaves it: keyboard on, translated, with its interrupt; mouse off. */
#define MODE_INITIAL (MODE_KBD_IRQ | MODE_SYSTEM | MODE_AUX_OFF | MODE_TRANSLATE)

#define OUTPUT_NO_RESET 0x01u
#define OUTPUT_A20 0x02u
#define OUTPUT_KBD_IRQ 0x10u
#define OUTPUT_AUX_IRQ 0x20u
#define OUTPUT_INITIAL (0xC0u | OUTPUT_A20 | OUTPUT_NO_RESET)

enum source { FROM_CONTROLLER, FROM_KEYBOARD, FROM_AUX };

struct i8042 {
    struct dev_env *env;
    struct irq_line *irq_kbd, *irq_aux;
    uint8_t ram[32]; /* the first byte is the mode ("command byte") */
    uint8_t output;  /* output port, without the two interrupt bits */
    uint8_t command; /* waits for its parameter; 0: none */
    uint8_t last_was_command;
    /* The output buffer, and a byte that a reply of the controller pushed out of it. */
    uint8_t full, data, source;
    uint8_t held_full, held_data, held_source;
    struct ps2_keyboard kbd;
    struct ps2_mouse mouse;
};

/* ---- output buffer ---- */

static void update_irqs(struct i8042 *c)
{
    bool aux = c->source == FROM_AUX;

    irq_set(c->irq_kbd, c->full && !aux && (c->ram[0] & MODE_KBD_IRQ) != 0);
    irq_set(c->irq_aux, c->full && aux && (c->ram[0] & MODE_AUX_IRQ) != 0);
}

/* The next byte of the keyboard as the host gets it. */
static bool next_from_keyboard(struct i8042 *c, uint8_t *out)
{
    uint8_t released = 0;

    while (ps2_queue_get(&c->kbd.out, out)) {
        if (!(c->ram[0] & MODE_TRANSLATE))
            return true;
        if (*out != 0xF0) {
            *out = ps2_translate(*out) | released;
            return true;
        }
        released = 0x80;
    }
    return false;
}

static void fill(struct i8042 *c)
{
    if (c->full)
        return;
    if (c->held_full) {
        c->held_full = 0;
        c->data = c->held_data;
        c->source = c->held_source;
        c->full = 1;
    } else if (!(c->ram[0] & MODE_KBD_OFF) && next_from_keyboard(c, &c->data)) {
        c->source = FROM_KEYBOARD;
        c->full = 1;
    } else if (!(c->ram[0] & MODE_AUX_OFF)) {
        ps2_mouse_flush(&c->mouse);
        if (ps2_queue_get(&c->mouse.out, &c->data)) {
            c->source = FROM_AUX;
            c->full = 1;
        }
    }
}

static void reply(struct i8042 *c, uint8_t byte, enum source source)
{
    if (c->full && c->source != FROM_CONTROLLER) {
        c->held_full = 1;
        c->held_data = c->data;
        c->held_source = c->source;
    }
    c->full = 1;
    c->data = byte;
    c->source = (uint8_t)source;
}

/* ---- commands ---- */

static void set_output(struct i8042 *c, uint8_t value)
{
    uint8_t changed = c->output ^ value;

    c->output = value & (uint8_t) ~(OUTPUT_KBD_IRQ | OUTPUT_AUX_IRQ);
    if (changed & OUTPUT_A20)
        dev_event(c->env, DEV_EVENT_A20, (value & OUTPUT_A20) != 0);
    if (!(value & OUTPUT_NO_RESET)) {
        c->output |= OUTPUT_NO_RESET; /* the reset itself puts it back */
        dev_event(c->env, DEV_EVENT_RESET, 0);
    }
}

static uint8_t get_output(struct i8042 *c)
{
    return (uint8_t)(c->output | (irq_level(c->irq_kbd) ? OUTPUT_KBD_IRQ : 0) |
                     (irq_level(c->irq_aux) ? OUTPUT_AUX_IRQ : 0));
}

static void run_command(struct i8042 *c, uint8_t command)
{
    c->command = 0;
    if (command >= 0x20 && command <= 0x3F) {
        reply(c, c->ram[command - 0x20], FROM_CONTROLLER);
        return;
    }
    if (command >= 0x60 && command <= 0x7F) {
        c->command = command;
        return;
    }
    if (command >= 0xF0) { /* pulse the low lines of the output port: bit 0 is reset */
        if (!(command & 1))
            dev_event(c->env, DEV_EVENT_RESET, 0);
        return;
    }
    switch (command) {
    case 0xA4: /* password installed? */
        reply(c, 0xF1, FROM_CONTROLLER);
        break;
    case 0xA7:
        c->ram[0] |= MODE_AUX_OFF;
        break;
    case 0xA8:
        c->ram[0] &= (uint8_t)~MODE_AUX_OFF;
        break;
    case 0xA9: /* tests of the two ports */
    case 0xAB:
        reply(c, 0x00, FROM_CONTROLLER);
        break;
    case 0xAA: /* self test */
        c->ram[0] |= MODE_SYSTEM;
        reply(c, 0x55, FROM_CONTROLLER);
        break;
    case 0xAD:
        c->ram[0] |= MODE_KBD_OFF;
        break;
    case 0xAE:
        c->ram[0] &= (uint8_t)~MODE_KBD_OFF;
        break;
    case 0xC0: /* input port: not locked */
        reply(c, 0x80, FROM_CONTROLLER);
        break;
    case 0xD0:
        reply(c, get_output(c), FROM_CONTROLLER);
        break;
    case 0xD1: /* output port, output buffer as keyboard or mouse, byte to the mouse */
    case 0xD2:
    case 0xD3:
    case 0xD4:
        c->command = command;
        break;
    case 0xDD:
        set_output(c, c->output & (uint8_t)~OUTPUT_A20);
        break;
    case 0xDF:
        set_output(c, c->output | OUTPUT_A20);
        break;
    case 0xE0: /* test inputs: both clocks high */
        reply(c, 0x03, FROM_CONTROLLER);
        break;
    default:
        log_guest(c->env, "unknown command %#x", command);
        break;
    }
}

static void run_parameter(struct i8042 *c, uint8_t command, uint8_t byte)
{
    c->command = 0;
    if (command <= 0x7F) {
        c->ram[command - 0x60] = byte;
        return;
    }
    switch (command) {
    case 0xD1:
        set_output(c, byte);
        break;
    case 0xD2:
        reply(c, byte, FROM_KEYBOARD);
        break;
    case 0xD3:
        reply(c, byte, FROM_AUX);
        break;
    case 0xD4:
        c->ram[0] &= (uint8_t)~MODE_AUX_OFF; /* as with the keyboard */
        ps2_mouse_write(&c->mouse, byte);
        break;
    default:
        break;
    }
}

/* ---- ports ---- */

static uint32_t data_in(void *dev, unsigned offset, unsigned size)
{
    struct i8042 *c = dev;
    uint8_t value = c->data;

    (void)offset;
    (void)size;
    c->full = 0;
    update_irqs(c); /* low in between, so that the next byte is an edge of its own */
    fill(c);
    update_irqs(c);
    return value;
}

static void data_out(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    struct i8042 *c = dev;

    (void)offset;
    (void)size;
    c->last_was_command = 0;
    if (c->command != 0) {
        run_parameter(c, c->command, (uint8_t)value);
    } else {
        c->ram[0] &= (uint8_t)~MODE_KBD_OFF; /* a byte for the keyboard starts its clock */
        ps2_keyboard_write(&c->kbd, (uint8_t)value);
    }
    fill(c);
    update_irqs(c);
}

static uint32_t status_in(void *dev, unsigned offset, unsigned size)
{
    struct i8042 *c = dev;
    uint32_t status = STATUS_UNLOCKED;

    (void)offset;
    (void)size;
    if (c->full)
        status |= STATUS_OUTPUT_FULL | (c->source == FROM_AUX ? STATUS_AUX : 0);
    if (c->ram[0] & MODE_SYSTEM)
        status |= STATUS_SYSTEM;
    if (c->last_was_command)
        status |= STATUS_COMMAND;
    return status;
}

static void command_out(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    struct i8042 *c = dev;

    (void)offset;
    (void)size;
    c->last_was_command = 1;
    run_command(c, (uint8_t)value);
    fill(c);
    update_irqs(c);
}

/* ---- input ---- */

void i8042_key(struct device *d, unsigned code, bool down)
{
    struct i8042 *c = d->impl;

    pthread_mutex_lock(&c->env->lock);
    ps2_keyboard_key(&c->kbd, code, down);
    fill(c);
    update_irqs(c);
    pthread_mutex_unlock(&c->env->lock);
}

void i8042_mouse(struct device *d, int dx, int dy, int dz, unsigned buttons)
{
    struct i8042 *c = d->impl;

    pthread_mutex_lock(&c->env->lock);
    ps2_mouse_move(&c->mouse, dx, dy, dz, buttons);
    fill(c);
    update_irqs(c);
    pthread_mutex_unlock(&c->env->lock);
}

/* ---- life ---- */

static void i8042_reset(void *dev)
{
    struct i8042 *c = dev;

    for (unsigned i = 0; i < sizeof(c->ram); i++)
        c->ram[i] = 0;
    c->ram[0] = MODE_INITIAL;
    c->output = OUTPUT_INITIAL;
    c->command = c->last_was_command = 0;
    c->full = c->data = c->source = 0;
    c->held_full = c->held_data = c->held_source = 0;
    ps2_keyboard_reset(&c->kbd);
    ps2_mouse_reset(&c->mouse);
    update_irqs(c);
}

static void i8042_loaded(void *dev)
{
    struct i8042 *c = dev;

    ps2_keyboard_loaded(&c->kbd);
    ps2_mouse_loaded(&c->mouse);
    if (c->command != 0 && (c->command < 0x60 || c->command > 0x7F) &&
        (c->command < 0xD1 || c->command > 0xD4))
        c->command = 0;
    update_irqs(c);
}

static void i8042_destroy(void *dev)
{
    struct i8042 *c = dev;

    irq_line_free(c->irq_kbd);
    irq_line_free(c->irq_aux);
    free(c);
}

static int i8042_create(struct dev_env *env, const struct options *opts, void **out,
                        struct error *err)
{
    struct i8042 *c = calloc(1, sizeof(*c));

    (void)opts;
    if (c == NULL)
        return error_set(err, -ENOMEM, "no memory for the keyboard controller");
    c->env = env;
    c->irq_kbd = irq_open(env, 1);
    c->irq_aux = irq_open(env, 12);
    if (c->irq_kbd == NULL || c->irq_aux == NULL) {
        i8042_destroy(c);
        return error_set(err, -ENOMEM, "no memory for the keyboard controller's interrupts");
    }
    i8042_reset(c);
    *out = c;
    return 0;
}

static const struct port_range i8042_ports[] = {
    {.base = 0x60, .len = 1, .in = data_in, .out = data_out},
    {.base = 0x64, .len = 1, .in = status_in, .out = command_out},
};

static const struct state_field i8042_state[] = {
    STATE_FIELD(1, struct i8042, ram),
    STATE_FIELD(2, struct i8042, output),
    STATE_FIELD(3, struct i8042, command),
    STATE_FIELD(4, struct i8042, last_was_command),
    STATE_FIELD(5, struct i8042, full),
    STATE_FIELD(6, struct i8042, data),
    STATE_FIELD(7, struct i8042, source),
    STATE_FIELD(8, struct i8042, held_full),
    STATE_FIELD(9, struct i8042, held_data),
    STATE_FIELD(10, struct i8042, held_source),
    STATE_FIELD(32, struct i8042, kbd.out.data),
    STATE_FIELD(33, struct i8042, kbd.out.head),
    STATE_FIELD(34, struct i8042, kbd.out.count),
    STATE_FIELD(35, struct i8042, kbd.command),
    STATE_FIELD(36, struct i8042, kbd.scan_set),
    STATE_FIELD(37, struct i8042, kbd.enabled),
    STATE_FIELD(38, struct i8042, kbd.leds),
    STATE_FIELD(39, struct i8042, kbd.rate),
    STATE_FIELD(40, struct i8042, kbd.last),
    STATE_FIELD(64, struct i8042, mouse.out.data),
    STATE_FIELD(65, struct i8042, mouse.out.head),
    STATE_FIELD(66, struct i8042, mouse.out.count),
    STATE_FIELD(67, struct i8042, mouse.command),
    STATE_FIELD(68, struct i8042, mouse.enabled),
    STATE_FIELD(69, struct i8042, mouse.remote),
    STATE_FIELD(70, struct i8042, mouse.wrap),
    STATE_FIELD(71, struct i8042, mouse.scaling),
    STATE_FIELD(72, struct i8042, mouse.resolution),
    STATE_FIELD(73, struct i8042, mouse.rate),
    STATE_FIELD(74, struct i8042, mouse.id),
    STATE_FIELD(75, struct i8042, mouse.knock),
    STATE_FIELD(76, struct i8042, mouse.buttons),
    STATE_FIELD(77, struct i8042, mouse.sent_buttons),
    STATE_FIELD(78, struct i8042, mouse.last),
    STATE_FIELD(79, struct i8042, mouse.dx),
    STATE_FIELD(80, struct i8042, mouse.dy),
    STATE_FIELD(81, struct i8042, mouse.dz),
};

const struct dev_ops i8042_ops = {
    .name = "i8042",
    .summary = "keyboard controller, PS/2 keyboard and mouse",
    .ports = i8042_ports,
    .port_count = countof(i8042_ports),
    .state = i8042_state,
    .state_count = countof(i8042_state),
    .create = i8042_create,
    .destroy = i8042_destroy,
    .reset = i8042_reset,
    .loaded = i8042_loaded,
};
