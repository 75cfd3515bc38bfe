/*
 * The ISA bridge (LPC). Its only function of its own is to route the eight PCI interrupt lines to
 * the PIC: a byte for each, at 0x60-0x63 and 0x68-0x6B. Bit 7 set: not routed; bits 3:0 the IRQ.
 * The serial ports and other ISA devices that stand behind it are the board's.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"
#include "pci/internal.h"
#include "pci/table.h"

#define PIRQ_DISABLED 0x80u
#define PIRQ_IRQ_MASK 0x0Fu
#define PIRQ_ALLOWED 0xDEF8u /* not the timer, keyboard, cascade, RTC and coprocessor */

struct lpc {
    struct dev_env *env;
    struct pci_func *f;
};

static const uint8_t pirq_register[PCI_PIRQS] = {0x60, 0x61, 0x62, 0x63, 0x68, 0x69, 0x6A, 0x6B};

/* As firmware would set them up: IRQs that no ISA device of the board uses. */
static const uint8_t pirq_preset[PCI_PIRQS] = {10, 11, 5, 15, 10, 11, 5, 15};

static void lpc_route(struct lpc *l, unsigned pirq, bool guest)
{
    uint8_t v = pci_cfg(l->f)[pirq_register[pirq]];
    unsigned irq = v & PIRQ_IRQ_MASK;

    if ((v & PIRQ_DISABLED) != 0) {
        irq = 0;
    } else if ((PIRQ_ALLOWED >> irq & 1) == 0) {
        if (guest)
            log_guest(l->env, "PIRQ%c cannot be routed to IRQ %u", (int)('A' + pirq), irq);
        irq = 0;
    }
    pci_route_pirq(pci_of(l->f), pirq, irq);
}

static void lpc_route_all(void *dev)
{
    for (unsigned i = 0; i < PCI_PIRQS; i++)
        lpc_route(dev, i, false);
}

static void lpc_cfg_written(void *dev, unsigned offset, unsigned size)
{
    for (unsigned i = 0; i < PCI_PIRQS; i++)
        if (pirq_register[i] >= offset && pirq_register[i] < offset + size)
            lpc_route(dev, i, true);
}

static int lpc_create(struct dev_env *env, struct pci_func *f, const struct options *opts,
                      void **out, struct error *err)
{
    struct lpc *l;
    int rc;

    (void)opts;
    if (f->bus != 0)
        return error_set(err, -EINVAL, "lpc must be on bus 0");
    rc = pci_claim_lpc(pci_of(f), f, err);
    if (rc != 0)
        return rc;
    l = calloc(1, sizeof(*l));
    if (l == NULL) {
        pci_claim_lpc(pci_of(f), NULL, NULL);
        return error_set(err, -ENOMEM, "no memory for the LPC bridge");
    }
    l->env = env;
    l->f = f;
    pci_set_ids(f, 0x8086, 0x7000, 0, 0x060100, 0, 0);
    for (unsigned i = 0; i < PCI_PIRQS; i++) {
        pci_cfg(f)[pirq_register[i]] = pirq_preset[i];
        f->wmask[pirq_register[i]] = PIRQ_DISABLED | PIRQ_IRQ_MASK;
    }
    lpc_route_all(l);
    *out = l;
    return 0;
}

static void lpc_destroy(void *dev)
{
    struct lpc *l = dev;

    pci_claim_lpc(pci_of(l->f), NULL, NULL);
    free(l);
}

const struct pci_ops pci_lpc_ops = {
    .name = "lpc",
    .summary = "ISA bridge: serial ports, firmware, interrupt routing",
    .create = lpc_create,
    .destroy = lpc_destroy,
    .reset = lpc_route_all,
    .loaded = lpc_route_all,
    .cfg_written = lpc_cfg_written,
};
