#include "dev/ps2.h"

#include <string.h>

#include "base/bits.h"

enum { ACK = 0xFA, RESEND = 0xFE, TEST_PASSED = 0xAA };

/* Room kept for replies; input stops before it. */
#define QUEUE_RESERVE 16u

/* ---- queues ---- */

bool ps2_queue_get(struct ps2_queue *q, uint8_t *out)
{
    if (q->count == 0)
        return false;
    *out = q->data[q->head];
    q->head = (uint8_t)((q->head + 1) % PS2_QUEUE);
    q->count--;
    return true;
}

static void put(struct ps2_queue *q, uint8_t byte)
{
    if (q->count < PS2_QUEUE)
        q->data[(q->head + q->count++) % PS2_QUEUE] = byte;
}

static bool has_room(const struct ps2_queue *q, unsigned bytes)
{
    return q->count + bytes <= PS2_QUEUE - QUEUE_RESERVE;
}

static void clear(struct ps2_queue *q)
{
    q->count = 0;
}

static void queue_loaded(struct ps2_queue *q)
{
    q->head %= PS2_QUEUE;
    if (q->count > PS2_QUEUE)
        q->count = PS2_QUEUE;
}

/* ---- scan codes ---- */

/* Set 2 → set 1, as the controller's firmware does it. */
static const uint8_t translation[0x85] = {
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29,
    0x59, 0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11,
    0x03, 0x5b, 0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14,
    0x13, 0x06, 0x5d, 0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24,
    0x16, 0x08, 0x09, 0x5f, 0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35,
    0x26, 0x27, 0x19, 0x0c, 0x61, 0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36,
    0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76, 0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c,
    0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, 0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45,
    0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54, 0x80, 0x81, 0x82, 0x41, 0x54,
};

uint8_t ps2_translate(uint8_t code)
{
    return code < countof(translation) ? translation[code] : code;
}

/* From above, since of two codes with one translation the higher is the key's (F7, SysRq). */
static uint8_t set2_code(uint8_t set1)
{
    for (unsigned i = countof(translation) - 1; i > 0; i--) {
        if (translation[i] == set1)
            return (uint8_t)i;
    }
    return 0;
}

/* ---- keyboard ---- */

static void keyboard_defaults(struct ps2_keyboard *k)
{
    k->scan_set = 2;
    k->rate = 0x2B; /* 10.9 a second after half a second */
    k->command = 0;
}

void ps2_keyboard_reset(struct ps2_keyboard *k)
{
    memset(k, 0, sizeof(*k));
    keyboard_defaults(k);
    k->enabled = 1;
}

static void keyboard_reply(struct ps2_keyboard *k, uint8_t byte)
{
    k->last = byte;
    put(&k->out, byte);
}

static void keyboard_parameter(struct ps2_keyboard *k, uint8_t command, uint8_t byte)
{
    keyboard_reply(k, ACK);
    switch (command) {
    case 0xED:
        k->leds = byte & 7;
        break;
    case 0xF0:
        if (byte == 0)
            keyboard_reply(k, k->scan_set);
        else if (byte <= 2) /* there is no set 3: the keyboard stays as it is, and says so */
            k->scan_set = byte;
        break;
    case 0xF3:
        k->rate = byte & 0x7F;
        break;
    default: /* 0xFB to 0xFD: the kind of one key, which only set 3 has */
        break;
    }
}

static void keyboard_command(struct ps2_keyboard *k, uint8_t byte)
{
    switch (byte) {
    case 0xED: /* LEDs */
    case 0xF0: /* scan code set */
    case 0xF3: /* repeat rate */
    case 0xFB:
    case 0xFC:
    case 0xFD:
        k->command = byte;
        keyboard_reply(k, ACK);
        break;
    case 0xEE: /* echo */
        keyboard_reply(k, 0xEE);
        break;
    case 0xF2: /* identify: an MF2 keyboard */
        keyboard_reply(k, ACK);
        keyboard_reply(k, 0xAB);
        keyboard_reply(k, 0x83);
        break;
    case 0xF4: /* enable */
        clear(&k->out);
        k->enabled = 1;
        keyboard_reply(k, ACK);
        break;
    case 0xF5: /* defaults, and off */
    case 0xF6: /* defaults */
        clear(&k->out);
        keyboard_defaults(k);
        k->enabled = byte == 0xF6;
        keyboard_reply(k, ACK);
        break;
    case 0xF7: /* kinds of all keys, set 3 */
    case 0xF8:
    case 0xF9:
    case 0xFA:
        keyboard_reply(k, ACK);
        break;
    case 0xFE: /* resend */
        put(&k->out, k->last);
        break;
    case 0xFF:
        ps2_keyboard_reset(k);
        keyboard_reply(k, ACK);
        keyboard_reply(k, TEST_PASSED);
        break;
    default:
        keyboard_reply(k, RESEND);
        break;
    }
}

void ps2_keyboard_write(struct ps2_keyboard *k, uint8_t byte)
{
    uint8_t command = k->command;

    k->command = 0;
    /* A command in place of a parameter ends the wait; LEDs, rates and sets are all below. */
    if (command != 0 && (byte < 0xED || command >= 0xFB))
        keyboard_parameter(k, command, byte);
    else
        keyboard_command(k, byte);
}

void ps2_keyboard_key(struct ps2_keyboard *k, unsigned code, bool down)
{
    static const uint8_t pause1[] = {0xE1, 0x1D, 0x45, 0xE1, 0x9D, 0xC5};
    static const uint8_t pause2[] = {0xE1, 0x14, 0x77, 0xE1, 0xF0, 0x14, 0xF0, 0x77};
    uint8_t key = code & 0x7F;

    if (!k->enabled || !has_room(&k->out, sizeof(pause2)))
        return;
    if (code == 0xE11D) { /* Pause makes and breaks at once */
        if (!down)
            return;
        for (unsigned i = 0; k->scan_set == 1 && i < sizeof(pause1); i++)
            put(&k->out, pause1[i]);
        for (unsigned i = 0; k->scan_set != 1 && i < sizeof(pause2); i++)
            put(&k->out, pause2[i]);
        return;
    }
    if ((code & 0xFF00) == 0xE000)
        put(&k->out, 0xE0);
    if (k->scan_set == 1) {
        put(&k->out, (uint8_t)(key | (down ? 0 : 0x80)));
        return;
    }
    if (!down)
        put(&k->out, 0xF0);
    put(&k->out, set2_code(key));
}

void ps2_keyboard_loaded(struct ps2_keyboard *k)
{
    queue_loaded(&k->out);
}

/* ---- mouse ---- */

static void mouse_defaults(struct ps2_mouse *m)
{
    m->enabled = m->remote = m->wrap = m->scaling = m->command = 0;
    m->resolution = 2; /* 4 counts a millimetre */
    m->rate = 100;
    m->dx = m->dy = m->dz = 0;
}

void ps2_mouse_reset(struct ps2_mouse *m)
{
    memset(m, 0, sizeof(*m));
    mouse_defaults(m);
}

static void mouse_reply(struct ps2_mouse *m, uint8_t byte)
{
    m->last = byte;
    put(&m->out, byte);
}

static int32_t clamp(int32_t v, int32_t lo, int32_t hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

static void mouse_packet(struct ps2_mouse *m)
{
    int32_t dx = clamp(m->dx, -255, 255), dy = clamp(m->dy, -255, 255);

    put(&m->out, (uint8_t)(8 | (m->buttons & 7) | (dx < 0 ? 0x10 : 0) | (dy < 0 ? 0x20 : 0)));
    put(&m->out, (uint8_t)dx);
    put(&m->out, (uint8_t)dy);
    m->dx -= dx;
    m->dy -= dy;
    if (m->id == 0) {
        m->dz = 0;
    } else {
        int32_t dz = clamp(m->dz, -8, 7);

        put(&m->out, (uint8_t)(m->id == 4 ? dz & 15 : dz));
        m->dz -= dz;
    }
    m->sent_buttons = m->buttons;
}

void ps2_mouse_flush(struct ps2_mouse *m)
{
    if (!m->enabled || m->remote || m->wrap)
        return;
    while ((m->dx != 0 || m->dy != 0 || m->dz != 0 || m->buttons != m->sent_buttons) &&
           has_room(&m->out, 4))
        mouse_packet(m);
}

void ps2_mouse_move(struct ps2_mouse *m, int dx, int dy, int dz, unsigned buttons)
{
    const int32_t far = 1 << 14; /* a guest that never reads must not make it overflow */

    m->dx = clamp(m->dx + clamp(dx, -far, far), -far, far);
    m->dy = clamp(m->dy - clamp(dy, -far, far), -far, far); /* the mouse counts upwards */
    m->dz = clamp(m->dz - clamp(dz, -far, far), -far, far);
    m->buttons = buttons & 7;
    if (!m->enabled)
        m->dx = m->dy = m->dz = 0;
    ps2_mouse_flush(m);
}

static void mouse_parameter(struct ps2_mouse *m, uint8_t command, uint8_t byte)
{
    mouse_reply(m, ACK);
    if (command == 0xE8) {
        m->resolution = byte & 3;
        return;
    }
    /* Rates 200, 100, 80 turn the wheel on, 200, 200, 80 the two more buttons. */
    m->rate = byte;
    if (byte == 80 && m->knock[0] == 200 && m->knock[1] == 100)
        m->id = 3;
    else if (byte == 80 && m->knock[0] == 200 && m->knock[1] == 200 && m->id == 3)
        m->id = 4;
    m->knock[0] = m->knock[1];
    m->knock[1] = byte;
}

static uint8_t mouse_status(const struct ps2_mouse *m)
{
    return (uint8_t)((m->remote ? 0x40 : 0) | (m->enabled ? 0x20 : 0) | (m->scaling ? 0x10 : 0) |
                     (m->buttons & 1) << 2 | (m->buttons & 4) >> 1 | (m->buttons & 2) >> 1);
}

static void mouse_command(struct ps2_mouse *m, uint8_t byte)
{
    if (byte != 0xFE && byte != 0xFF)
        mouse_reply(m, ACK);
    switch (byte) {
    case 0xE6: /* scaling 1:1, 2:1 */
    case 0xE7:
        m->scaling = byte == 0xE7;
        break;
    case 0xE8: /* resolution */
    case 0xF3: /* sample rate */
        m->command = byte;
        break;
    case 0xE9:
        mouse_reply(m, mouse_status(m));
        mouse_reply(m, m->resolution);
        mouse_reply(m, m->rate);
        break;
    case 0xEA: /* stream mode */
        m->remote = 0;
        break;
    case 0xEB: /* read: a packet now */
        mouse_packet(m);
        break;
    case 0xEC: /* the end of wrap mode, which it is not in */
        break;
    case 0xEE:
        m->wrap = 1;
        break;
    case 0xF0:
        m->remote = 1;
        break;
    case 0xF2:
        mouse_reply(m, m->id);
        break;
    case 0xF4:
        m->enabled = 1;
        break;
    case 0xF5:
        m->enabled = 0;
        break;
    case 0xF6:
        mouse_defaults(m);
        break;
    case 0xFE:
        put(&m->out, m->last);
        break;
    case 0xFF:
        ps2_mouse_reset(m);
        mouse_reply(m, ACK);
        mouse_reply(m, TEST_PASSED);
        mouse_reply(m, m->id);
        break;
    default: /* unknown: an error in place of the acknowledgement */
        m->out.count--;
        mouse_reply(m, RESEND);
        break;
    }
}

void ps2_mouse_write(struct ps2_mouse *m, uint8_t byte)
{
    uint8_t command = m->command;

    if (m->wrap && byte != 0xEC && byte != 0xFF) {
        put(&m->out, byte);
        return;
    }
    m->wrap = 0;
    m->command = 0;
    /* A reply must not come behind old movements: the host takes what it reads for the reply. */
    clear(&m->out);
    if (command != 0 && byte != 0xFF)
        mouse_parameter(m, command, byte);
    else
        mouse_command(m, byte);
}

void ps2_mouse_loaded(struct ps2_mouse *m)
{
    const int32_t far = 1 << 14;

    queue_loaded(&m->out);
    m->dx = clamp(m->dx, -far, far);
    m->dy = clamp(m->dy, -far, far);
    m->dz = clamp(m->dz, -far, far);
    m->buttons &= 7;
    m->sent_buttons &= 7;
}
