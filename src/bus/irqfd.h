/*
 * Interrupt messages by descriptor: what is counted up on an eventfd is one message to the local
 * APICs. An engine whose local APICs are the kernel's takes the descriptor there (an irqfd); while
 * none does, threads of this process send as they always did, and what others write is read on the
 * loop. Nothing is lost when that changes.
 *
 * allow: once, before devices are made. attach: any thread; no lock of a device or chip held. The
 * rest: any thread, the owner's lock may be held.
 */
#ifndef BUS_IRQFD_H
#define BUS_IRQFD_H

#include "bus/irq.h"

struct irq_fd;
struct loop;

/*
 * From now on there are such descriptors, and the IOAPIC's pins send by them, too. The loop
 * (borrowed) must outlive the router. -errno with a sentence; -ENOSYS: this host has no eventfd.
 */
int irq_fds_allow(struct irq_router *r, struct loop *loop, struct error *err);
bool irq_fds_allowed(const struct irq_router *r);

/* It sends nothing yet. NULL: they are not allowed, or no memory, or too many open files. */
struct irq_fd *irq_fd_create(struct irq_router *r);
void irq_fd_free(struct irq_fd *f); /* NULL is allowed */

/*
 * What it sends from now on. NULL: nothing, as a masked vector; what is counted up meanwhile is one
 * message when there is one again.
 */
void irq_fd_message(struct irq_fd *f, const struct irq_message *msg);

/* For a thread of this process: msg, which it must have been given last, by the cheapest way. */
void irq_fd_send(struct irq_fd *f, const struct irq_message *msg);

/* The eventfd, for who is no thread of this process: writes of 8 bytes. It stays ours. */
int irq_fd_descriptor(const struct irq_fd *f);

/*
 * For an engine: `set` says that fd sends msg from now on, or nothing more (NULL), after which the
 * engine does not read it again. slot: the pin's number for the IOAPIC's, else from IRQ_GSI_COUNT
 * on, the lowest that is free. -errno: it stays here, which is logged once. Those that have a
 * message are set at once; set is called with a lock held that irq_deliver does not need, and calls
 * nothing of this. NULL: the engine takes none for now.
 */
typedef int irq_fd_set(void *ctx, unsigned slot, int fd, const struct irq_message *msg);
void irq_attach_fds(struct irq_router *r, irq_fd_set *set, void *ctx);

/* How many messages threads of this process have sent by an engine's descriptors until now. */
uint64_t irq_fds_sent(const struct irq_router *r);

#endif
