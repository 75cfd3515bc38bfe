/*
 * The NMI button: LINT1 of every vCPU, as its LVT entry says. Any thread, takes no lock. The same
 * function stands in the lapic_ops that the set attaches.
 */
#ifndef DEV_LAPIC_NMI_H
#define DEV_LAPIC_NMI_H

struct lapics;

void lapics_nmi(struct lapics *l);

#endif
