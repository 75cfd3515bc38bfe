/* Doorbells in BARs: they move with them. */
#include <errno.h>
#include <stdlib.h>

#include "bus/doorbell.h"
#include "pci/internal.h"

static void rung(void *ctx)
{
    struct pci_bell *bell = ctx;

    bell->f->ops->doorbell(bell->f->impl, bell->at.n);
}

int pci_add_doorbell(struct pci_func *f, const struct pci_doorbell *d, struct error *err)
{
    struct pci_bell *bell = calloc(1, sizeof(*bell));

    if (bell != NULL)
        bell->bell = bus_doorbell_create(f->env->bus, f->env->loop, &f->env->lock, rung, bell);
    if (bell == NULL || bell->bell == NULL) {
        free(bell);
        return error_set(err, -ENOMEM, "no memory for a doorbell of %s", f->env->name);
    }
    bell->f = f;
    bell->at = *d;
    bell->next = f->bells;
    f->bells = bell;
    return 0;
}

void pci_bells_place(const struct pci_bar *b)
{
    for (struct pci_bell *bell = b->f->bells; bell != NULL; bell = bell->next) {
        const struct pci_doorbell *at = &bell->at;
        struct bus_spot spot = {.space = b->type == PCI_BAR_IO ? BUS_PIO : BUS_MMIO,
                                .addr = b->mapped_at + at->offset,
                                .len = at->len,
                                .match = at->match,
                                .value = at->value};

        if (at->bar == b->index)
            bus_doorbell_place(bell->bell, b->mapped ? &spot : NULL, b);
    }
}

void pci_bells_poll(struct pci_func *f)
{
    for (struct pci_bell *bell = f->bells; bell != NULL; bell = bell->next)
        bus_doorbell_poll(bell->bell);
}

void pci_bells_free(struct pci_func *f)
{
    while (f->bells != NULL) {
        struct pci_bell *bell = f->bells;

        f->bells = bell->next;
        bus_doorbell_free(bell->bell);
        free(bell);
    }
}
