/*
 * The board's chips. Each table is one device; the VM creates them in this order, at fixed ports.
 * PIC and IOAPIC attach themselves to env->irqs.
 */
#ifndef DEV_CHIPS_H
#define DEV_CHIPS_H

#include "bus/device.h"

extern const struct dev_ops i8259_ops;    /* both PICs, ELCR 0x4D0-1 */
extern const struct dev_ops ioapic_ops;   /* 0xFEC00000, 24 pins, id 0 */
extern const struct dev_ops i8254_ops;    /* 0x40-43 and port 0x61 */
extern const struct dev_ops mc146818_ops; /* 0x70-71, IRQ 8 */
extern const struct dev_ops hpet_ops;     /* 0xFED00000, 10 MHz, 8 timers */
extern const struct dev_ops pmtimer_ops;  /* 0x408 */
extern const struct dev_ops acpipm_ops;   /* PM1a event 0x400, control 0x404, SMI command 0xB2 */
extern const struct dev_ops i8042_ops;    /* 0x60, 0x64, IRQ 1 and 12 */
extern const struct dev_ops port92_ops;   /* 0x92: A20, fast reset */
extern const struct dev_ops reset_ops;    /* 0xCF9 */
extern const struct dev_ops post_ops;     /* 0x80, 0x84: POST codes, traced */
extern const struct dev_ops pvpanic_ops;  /* 0x505 */
extern const struct dev_ops fpuerr_ops;   /* 0xF0, IRQ 13: x87 errors when CR0.NE = 0 */
extern const struct dev_ops testdev_ops;  /* 0xE0-0xF7, 0x2000-0x2017, 0xFF000000; if asked for */
extern const struct dev_ops fwcfg_ops;    /* 0x510-0x511; if asked for; files: dev/fwcfg.h */
extern const struct dev_ops ns16550_ops;  /* option "port" 1-4, "backend" = chardev spec */

/* The ACPI power button: sets the status bit and raises the SCI. env->lock must not be held. */
void acpipm_power_button(struct device *acpipm);
/* True once the guest has enabled ACPI and the power button event (or the sleep button). */
bool acpipm_enabled(struct device *acpipm);

/* FERR#: raises IRQ 13 until the guest writes port 0xF0. env->lock must not be held. */
void fpuerr_raise(struct device *fpuerr);

#endif
