/*
 * A PS/2 keyboard and a PS/2 mouse with a wheel: bytes in, bytes out. Plain data, no threads, no
 * interrupts; the controller (i8042.c) holds them and its lock, and saves their fields.
 */
#ifndef DEV_PS2_H
#define DEV_PS2_H

#include <stdbool.h>
#include <stdint.h>

#define PS2_QUEUE 64u

struct ps2_queue {
    uint8_t data[PS2_QUEUE];
    uint8_t head, count;
};

bool ps2_queue_get(struct ps2_queue *q, uint8_t *out);

struct ps2_keyboard {
    struct ps2_queue out;
    uint8_t command;  /* waits for its parameter; 0: none */
    uint8_t scan_set; /* 1 or 2 */
    uint8_t enabled, leds, rate;
    uint8_t last; /* for "resend" */
};

struct ps2_mouse {
    struct ps2_queue out;
    uint8_t command;
    uint8_t enabled, remote, wrap, scaling, resolution, rate;
    uint8_t id;       /* 0; 3 with wheel; 4 with five buttons: chosen by the knock of rates */
    uint8_t knock[2]; /* the two rates set before */
    uint8_t buttons, sent_buttons;
    uint8_t last;
    int32_t dx, dy, dz; /* moved, but not yet told */
};

void ps2_keyboard_reset(struct ps2_keyboard *k);
void ps2_keyboard_write(struct ps2_keyboard *k, uint8_t byte);
/* code as in i8042.h. A full queue drops the key. */
void ps2_keyboard_key(struct ps2_keyboard *k, unsigned code, bool down);

void ps2_mouse_reset(struct ps2_mouse *m);
void ps2_mouse_write(struct ps2_mouse *m, uint8_t byte);
void ps2_mouse_move(struct ps2_mouse *m, int dx, int dy, int dz, unsigned buttons);
/* Makes packets of what has gathered, while there is room. */
void ps2_mouse_flush(struct ps2_mouse *m);

/* The controller's translation from set 2 to set 1; codes from 0x80 are (but for two) themselves.
 */
uint8_t ps2_translate(uint8_t code);

/* After loading a snapshot: indices back into bounds. */
void ps2_keyboard_loaded(struct ps2_keyboard *k);
void ps2_mouse_loaded(struct ps2_mouse *m);

#endif
