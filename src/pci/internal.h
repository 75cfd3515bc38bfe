/*
 * What the files of pci/ and the transports built on it (virtio/) share beyond pci.h.
 *
 * Locks, in order: the PCI object's (env->lock: configuration accesses, `refused`), then the
 * function's own (its env->lock: everything else in struct pci_func), then route_lock, then the
 * PIC's and IOAPIC's inside irq_set.
 */
#ifndef PCI_INTERNAL_H
#define PCI_INTERNAL_H

#include "pci/pci.h"

/* Configuration header, type 0. */
#define PCI_VENDOR 0x00u
#define PCI_DEVICE 0x02u
#define PCI_COMMAND 0x04u
#define PCI_STATUS 0x06u
#define PCI_REVISION 0x08u
#define PCI_CACHE_LINE 0x0Cu
#define PCI_LATENCY 0x0Du
#define PCI_HEADER_TYPE 0x0Eu
#define PCI_BAR0 0x10u
#define PCI_SUBSYS_VENDOR 0x2Cu
#define PCI_SUBSYS 0x2Eu
#define PCI_ROM 0x30u
#define PCI_CAP_POINTER 0x34u
#define PCI_INT_LINE 0x3Cu
#define PCI_INT_PIN 0x3Du
#define PCI_HEADER_END 0x40u

#define PCI_CMD_IO 0x0001u
#define PCI_CMD_MEM 0x0002u
#define PCI_CMD_MASTER 0x0004u
#define PCI_CMD_INTX_DISABLE 0x0400u
#define PCI_STATUS_INTX 0x0008u
#define PCI_STATUS_CAPS 0x0010u
#define PCI_MULTIFUNCTION 0x80u

#define PCI_CAP_MSI 0x05u
#define PCI_CAP_VENDOR 0x09u
#define PCI_CAP_EXPRESS 0x10u
#define PCI_CAP_MSIX 0x11u

#define PCI_MAX_FUNCS 256u /* in one VM: what the firmware tables can name */
#define PCI_PIRQS 8u
#define PCI_BAR_SLOTS (PCI_BARS + 1u) /* the last is the expansion ROM */

struct pci_bar {
    struct pci_func *f;
    uint64_t size;
    uint64_t mapped_at;
    uint64_t refused_at; /* where the bus had no room, so that it is logged once */
    uint8_t index;
    uint8_t type; /* enum pci_bar_type */
    bool upper;   /* the second half of a 64-bit BAR */
    bool msix;    /* holds the MSI-X table: pci/msix.c answers */
    bool mapped;
    bool refused;
    bool held; /* while loading: others map first */
};

struct pci_msix {
    uint8_t *table; /* 16 bytes a vector */
    uint64_t *pba;
    struct irq_fd **fd; /* one for each vector that was unmasked; NULL: messages have none */
    unsigned vectors, cap;
    uint32_t pba_offset;
};

struct pci_bell {
    struct pci_func *f;
    struct pci_doorbell at;
    struct bus_doorbell *bell;
    struct pci_bell *next;
};

struct pci_func {
    struct pci *pci;
    struct dev_env *env;
    const struct pci_ops *ops;
    void *impl;
    uint8_t bus, slot, func, pin, pirq;
    bool intx_level;  /* what the device asks for */
    bool intx_driven; /* what the line has: not while disabled or MSI is in use */
    struct irq_line *line;
    struct pci_bar bars[PCI_BAR_SLOTS];
    struct pci_bell *bells;
    unsigned msi_cap, msi_vectors;
    struct pci_msix msix;
    unsigned cap_last, cap_next; /* the list's last entry, the next free byte */
    uint8_t cfg[PCI_CFG_SIZE];
    uint8_t wmask[PCI_CFG_SIZE];     /* bits that the guest can write */
    uint8_t cfg_reset[PCI_CFG_SIZE]; /* what a reset brings back: as firmware left it */
};

struct pci_pirq {
    struct irq_line *line; /* to the PIC, NULL: not routed */
    unsigned irq;
    unsigned asserted; /* functions that drive it now */
};

struct pci {
    struct pci_config config;
    struct dev_env *env;
    uint32_t address; /* the CF8 latch */
    struct pci_func **buses[256];
    struct pci_func *funcs[PCI_MAX_FUNCS]; /* ascending by bus, slot, function */
    unsigned func_count;
    struct pci_func *lpc;
    pthread_mutex_t route_lock;
    struct pci_pirq pirqs[PCI_PIRQS]; /* route_lock */
    bool ports_mapped, ecam_mapped;
};

/* The object a function belongs to. */
static inline struct pci *pci_of(const struct pci_func *f)
{
    return f->pci;
}

/* -W: MSI where a device would offer MSI-X. */
static inline bool pci_prefer_msi(const struct pci_func *f)
{
    return f->pci->config.prefer_msi;
}

/* Makes whole bytes of configuration space writable to the guest; at create. */
void pci_cfg_writable(struct pci_func *f, unsigned offset, unsigned len);

/* Registers f as the one ISA bridge: -EEXIST if there is one. NULL takes it away. */
int pci_claim_lpc(struct pci *p, struct pci_func *f, struct error *err);

static inline uint16_t pci_command(const struct pci_func *f)
{
    return (uint16_t)(f->cfg[PCI_COMMAND] | f->cfg[PCI_COMMAND + 1] << 8);
}

/* ---- bar.c; PCI object's and function's lock held, or before the VM runs ---- */
unsigned pci_bar_register(const struct pci_bar *b);
uint64_t pci_bar_addr(const struct pci_bar *b);
void pci_bar_set_addr(struct pci_bar *b, uint64_t addr);
void pci_bars_update(struct pci_func *f); /* maps and unmaps as the registers say */
void pci_bars_unmap(struct pci_func *f);
bool pci_bars_refused(const struct pci_func *f);

/* ---- doorbell.c; function's lock held ---- */
void pci_bells_place(const struct pci_bar *b); /* where the BAR is now, or nowhere */
void pci_bells_poll(struct pci_func *f);       /* what was rung until now has been heard after it */
void pci_bells_free(struct pci_func *f);

/* ---- intx.c ---- */
void pci_intx_update(struct pci_func *f);

/* ---- msi.c, msix.c ---- */
void pci_msi_written(struct pci_func *f);
void pci_msix_written(struct pci_func *f);
void pci_msix_reset(struct pci_func *f);
void pci_msix_tell(struct pci_func *f); /* descriptors hear of what messages are now */
void pci_msix_free(struct pci_func *f);
uint64_t pci_msix_bar_read(struct pci_func *f, uint64_t offset, unsigned size);
void pci_msix_bar_write(struct pci_func *f, uint64_t offset, unsigned size, uint64_t value);

#endif
