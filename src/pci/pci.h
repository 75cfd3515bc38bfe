/*
 * PCI: buses, configuration space (CF8/CFC and ECAM), BARs, INTx, MSI, MSI-X, capabilities.
 *
 * A PCI device is a const table like every device, with BARs instead of ports. Its env->lock is
 * held around every callback. Configuration accesses take the PCI object's lock and then the
 * device's. PCI Local Bus 3.0 and PCI Express Base.
 */
#ifndef PCI_PCI_H
#define PCI_PCI_H

#include "bus/device.h"

#define PCI_BARS 6u
#define PCI_CFG_SIZE 4096u

struct pci;      /* all buses of one VM */
struct pci_func; /* one function; devices keep a pointer to it */

enum pci_bar_type { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64, PCI_BAR_ROM };

struct pci_ops {
    const char *name;
    const char *summary;
    const struct dev_option *options;
    size_t option_count;
    const struct state_field *state; /* of impl; configuration space is saved by pci/ itself */
    size_t state_count;
    /* Adds ids, BARs and capabilities to f; keeps f for interrupts. env->lock is not held. */
    int (*create)(struct dev_env *env, struct pci_func *f, const struct options *opts, void **out,
                  struct error *err);
    void (*destroy)(void *dev);
    void (*reset)(void *dev);
    void (*loaded)(void *dev);
    uint64_t (*bar_read)(void *dev, unsigned bar, uint64_t offset, unsigned size);
    void (*bar_write)(void *dev, unsigned bar, uint64_t offset, unsigned size, uint64_t value);
    /* A write to configuration space above the common header has been stored; may be NULL. */
    void (*cfg_written)(void *dev, unsigned offset, unsigned size);
    /* A read of configuration space is about to happen; may be NULL. */
    void (*cfg_read)(void *dev, unsigned offset, unsigned size);
    /* What is behind the device, an image, may have another size: look. May be NULL. */
    void (*refresh)(void *dev);
    /*
     * Before anything is saved: ends what the device has under way (requests to a disk), and begins
     * nothing new until the VM's clock goes on. May be NULL.
     */
    void (*quiesce)(void *dev);
    /* The n-th doorbell (pci_add_doorbell) was rung, perhaps before what has happened since. */
    void (*doorbell)(void *dev, unsigned n);
    /* custom state beyond the table; may be NULL */
    void (*save)(void *dev, struct state_buf *out);
    int (*load)(void *dev, const uint8_t *data, size_t len, size_t *pos, struct error *err);
    /*
     * For a device whose options are more than a flat table: the text behind its name into node
     * (keys may have dots), and the check of all that stands in node. NULL: as `options` says.
     */
    int (*parse)(struct config *node, const char *text, const char *what, struct error *err);
    int (*check)(const struct config *node, const char *what, struct error *err);
    /*
     * Another medium into the unit-th drive, from outside; path NULL takes out what is in. force:
     * although the guest has locked it. Without it that is -EBUSY, and the guest is asked. NULL:
     * there are no drives.
     */
    int (*insert)(void *dev, unsigned unit, const char *path, bool force, struct error *err);
};

/* Every known PCI device, NULL-terminated; the one table that -s help prints (src/pci/table.h). */

/* ---- for devices, at create ---- */
void pci_set_ids(struct pci_func *f, uint16_t vendor, uint16_t device, uint8_t revision,
                 uint32_t class_code /* 24 bits */, uint16_t subsys_vendor, uint16_t subsys);
/* size a power of two; allocated by pci_assign. Registers bar_read/bar_write. -EINVAL, -EEXIST. */
int pci_add_bar(struct pci_func *f, unsigned bar, enum pci_bar_type type, uint64_t size,
                struct error *err);
void pci_add_intx(struct pci_func *f); /* pin by function and slot; wires to PIRQ and GSI */
/* Space for a capability of `len` bytes (from its id on) in the list; its offset, 0 if full. */
unsigned pci_add_cap(struct pci_func *f, uint8_t id, unsigned len);
int pci_add_msi(struct pci_func *f, unsigned vectors, struct error *err);
/* Table and PBA live in `bar`, which this adds (4 KiB or more). */
int pci_add_msix(struct pci_func *f, unsigned vectors, unsigned bar, struct error *err);

/*
 * A write of `len` bytes at `offset` in the BAR, of `value` alone if `match`, may come as a call of
 * pci_ops.doorbell(n) on env->loop instead of bar_write, if the engine can do that: see
 * bus/doorbell.h. The BAR is there. -ENOMEM.
 */
struct pci_doorbell {
    unsigned n, bar;
    uint64_t offset;
    uint8_t len;
    bool match;
    uint64_t value;
};
int pci_add_doorbell(struct pci_func *f, const struct pci_doorbell *d, struct error *err);

/* ---- for devices, at run time; env->lock held ---- */
uint8_t *pci_cfg(struct pci_func *f); /* the 4096 bytes, little-endian */
void pci_intx(struct pci_func *f, bool level);
bool pci_msi_enabled(const struct pci_func *f);
bool pci_msix_enabled(const struct pci_func *f);
void pci_msi_send(struct pci_func *f, unsigned vector);
/* MSI-X: masked vectors go pending and are sent when unmasked. */
void pci_msix_send(struct pci_func *f, unsigned vector);
bool pci_bus_master(const struct pci_func *f);

/* ---- for the VM ---- */
struct pci_config {
    struct dev_env *env; /* of the PCI object itself: CF8/CFC, ECAM */
    uint64_t mem32_base, mem32_end, mem64_base, mem64_size, ecam_base, ecam_size;
    uint16_t io_base; /* up to 0xFFFF */
    bool ecam;
    bool prefer_msi; /* -W: virtio uses MSI, not MSI-X */
};
int pci_create(const struct pci_config *cfg, struct pci **out, struct error *err);
void pci_destroy(struct pci *p); /* destroys all functions */

/*
 * Makes a device in a slot. env: as for any device, borrowed; node: its options, may be NULL.
 * -EEXIST if the slot is taken, -EINVAL.
 */
int pci_add(struct pci *p, unsigned bus, unsigned slot, unsigned func, const struct pci_ops *ops,
            struct dev_env *env, const struct config *node, struct error *err);

/* Options by a device's table, or by its own functions. As options_parse and options_check. */
int pci_options_parse(const struct pci_ops *ops, struct config *node, const char *text,
                      const char *what, struct error *err);
int pci_options_check(const struct pci_ops *ops, const struct config *node, const char *what,
                      struct error *err);

/* pci_ops.refresh of every function; their locks are taken. The loop's thread. */
void pci_refresh(struct pci *p);

/* pci_ops.insert of the function there; its lock is taken. -ENODEV. Any thread. */
int pci_insert(struct pci *p, unsigned bus, unsigned slot, unsigned func, unsigned unit,
               const char *path, bool force, struct error *err);

/* Gives every BAR an address (as firmware would) and enables decoding. Once, after all are added.
 */
int pci_assign(struct pci *p, struct error *err);
void pci_reset(struct pci *p);
void pci_save(struct pci *p, struct state_buf *out);
int pci_load(struct pci *p, const uint8_t *data, size_t len, size_t *pos, struct error *err);

/* The n-th function, for tables: false past the last. pin 0: none; pirq 0-7. */
struct pci_info {
    unsigned bus, slot, func, pin, pirq;
    const char *name;
};
bool pci_info_at(struct pci *p, unsigned n, struct pci_info *out);

/* PIRQ of an interrupt pin (1-4) of a slot. */
unsigned pci_pirq(unsigned bus, unsigned slot, unsigned pin);

/*
 * The LPC bridge routes PIRQ n (0-7) to an ISA IRQ (0: not routed). Called by pci/lpc.c when the
 * guest writes its routing registers.
 */
void pci_route_pirq(struct pci *p, unsigned pirq, unsigned isa_irq);

#endif
