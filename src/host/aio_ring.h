/* io_uring behind a few functions, so that one file alone knows it. For aio.c, under its rules. */
#ifndef HOST_AIO_RING_H
#define HOST_AIO_RING_H

#include "host/aio.h"

struct aio_ring;

#if defined(HAVE_URING) && HAVE_URING
/* notify: an eventfd that is written when something is done. */
int aio_ring_create(int notify, struct aio_ring **out, struct error *err);
void aio_ring_destroy(struct aio_ring *r);
/* false: there is no room just now. */
bool aio_ring_put(struct aio_ring *r, struct aio_job *job);
/*
 * Hands over what was put. What the kernel does not take (it has no memory for more) comes back as
 * a list. What it has done by the end of the call is not told: the caller reaps.
 */
struct aio_job *aio_ring_submit(struct aio_ring *r);
struct aio_job *aio_ring_reap(struct aio_ring *r);
#endif

#endif
