/*
 * Input for the PS/2 keyboard and mouse behind the keyboard controller: what a display's viewer or
 * a script presses and moves. Any thread; the device's lock is taken here.
 */
#ifndef DEV_I8042_H
#define DEV_I8042_H

#include "bus/device.h"

#define I8042_KEY_EXTENDED 0xE000u /* added to the code of a key with that prefix */
#define I8042_KEY_PAUSE 0xE11Du

/* code: the key's make code in scan code set 1, 0x01 to 0x7F; sent in the set the guest chose. */
void i8042_key(struct device *d, unsigned code, bool down);

/* dx to the right, dy downwards, dz away from the screen; buttons: 1 left, 2 right, 4 middle. */
void i8042_mouse(struct device *d, int dx, int dy, int dz, unsigned buttons);

#endif
