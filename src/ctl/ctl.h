/*
 * The control socket of a running VM: a Unix stream socket on which a person's tools ask for its
 * state, change its discs and end it (docs/control.md is the protocol, xhyvectl(8) speaks it).
 *
 * Served on the VM's loop, by the thread in vm_run, and never in the way of it: nothing here waits
 * for a client. At most CTL_CLIENTS are connected; one more takes the place of the one that has
 * been silent longest. A client has a line's worth of input and an answer's worth of output, and
 * its next request is not looked at before it has taken the answer to the last.
 *
 * ctl_create, ctl_stop and ctl_destroy on the thread that runs the VM, while it does not run.
 */
#ifndef CTL_CTL_H
#define CTL_CTL_H

#include "base/error.h"
#include "base/log.h"
#include "vmm/vm.h"

#define CTL_CLIENTS 8u

struct ctl;

/*
 * Listens at path (copied), for root and this process's user alone. What a VM that is gone has left
 * there is taken over; -EBUSY if a VM that runs has it, other -errno if there can be no socket.
 */
int ctl_create(struct vm *vm, const char *path, struct log *log, struct ctl **out,
               struct error *err);

/*
 * Serves no more and forgets the VM, which can be destroyed then. Connections stay open until
 * ctl_destroy: a client that sees its own closed knows that the VM, its disks and its name are
 * free.
 */
void ctl_stop(struct ctl *ctl);

void ctl_destroy(struct ctl *ctl); /* NULL is allowed; stops first if nobody has */

#endif
