/*
 * INTx: a function's pin drives its PIRQ, and that two wires: GSI 16 + PIRQ at the IOAPIC, always,
 * and the PIC input that the LPC bridge has routed it to.
 */
#include "pci/internal.h"

unsigned pci_pirq(unsigned bus, unsigned slot, unsigned pin)
{
    (void)bus; /* every bus is a root bus and is wired the same */
    return (slot + pin - 1) & (PCI_PIRQS - 1);
}

void pci_add_intx(struct pci_func *f)
{
    if (f->pin != 0)
        return;
    f->pin = (uint8_t)((f->func & 3) + 1);
    f->pirq = (uint8_t)pci_pirq(f->bus, f->slot, f->pin);
    f->line = irq_line_create(f->env->irqs, 16u + f->pirq);
    f->cfg[PCI_INT_PIN] = f->pin;
    f->cfg[PCI_INT_LINE] = 0xFF; /* unknown; pci_assign knows better */
}

void pci_intx_update(struct pci_func *f)
{
    struct pci *p = f->pci;
    struct pci_pirq *pirq = &p->pirqs[f->pirq];
    bool drive;

    if (f->pin == 0)
        return;
    if (f->intx_level)
        f->cfg[PCI_STATUS] |= PCI_STATUS_INTX;
    else
        f->cfg[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTX;
    drive = f->intx_level && (pci_command(f) & PCI_CMD_INTX_DISABLE) == 0 && !pci_msi_enabled(f) &&
            !pci_msix_enabled(f);
    if (drive == f->intx_driven)
        return;
    f->intx_driven = drive;
    if (f->line != NULL)
        irq_set(f->line, drive);
    pthread_mutex_lock(&p->route_lock);
    if (drive)
        pirq->asserted++;
    else
        pirq->asserted--;
    if (pirq->line != NULL)
        irq_set(pirq->line, pirq->asserted != 0);
    pthread_mutex_unlock(&p->route_lock);
}

void pci_intx(struct pci_func *f, bool level)
{
    f->intx_level = level && f->pin != 0;
    pci_intx_update(f);
}

void pci_route_pirq(struct pci *p, unsigned pirq, unsigned isa_irq)
{
    struct pci_pirq *r;

    if (pirq >= PCI_PIRQS || isa_irq >= IRQ_ISA_COUNT)
        return;
    r = &p->pirqs[pirq];
    pthread_mutex_lock(&p->route_lock);
    if (r->irq != isa_irq) {
        irq_line_free(r->line);
        r->line = NULL;
        r->irq = isa_irq;
        if (isa_irq != 0) {
            r->line = irq_line_create_pic(p->env->irqs, isa_irq);
            if (r->line != NULL)
                irq_set(r->line, r->asserted != 0);
            else
                log_error(p->env->log, "no memory for the line from PIRQ%c to IRQ %u",
                          (int)('A' + pirq), isa_irq);
        }
    }
    pthread_mutex_unlock(&p->route_lock);
}
