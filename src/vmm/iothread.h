/*
 * Event loops beside the VM's own, for devices that ask for one by its number (iothread=N): their
 * descriptors and completions are served there, so that a busy disk does not hold up the others.
 * Timers stay with the VM's loop.
 *
 * create, get and destroy on the thread that builds the VM. The threads run from get to stop.
 */
#ifndef VMM_IOTHREAD_H
#define VMM_IOTHREAD_H

#include <stdint.h>

#include "base/error.h"

struct iothreads;
struct loop;

/* Empty. NULL: no memory. */
struct iothreads *iothreads_create(void);

/* The loop of that number, made and started if it is new. -EINVAL: too many; -errno. */
int iothreads_get(struct iothreads *t, uint64_t number, struct loop **out, struct error *err);

/* They run no more; what they serve may be taken down. NULL is allowed. */
void iothreads_stop(struct iothreads *t);
/* After stop, and after all that is on their loops has gone. NULL is allowed. */
void iothreads_destroy(struct iothreads *t);

#endif
