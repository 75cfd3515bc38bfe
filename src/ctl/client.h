/*
 * The other end of a control socket: connects, asks, takes answers. One thread; calls wait, but
 * none past the deadline that is set when the connection is made or renewed.
 */
#ifndef CTL_CLIENT_H
#define CTL_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct ctl_client;

/*
 * Connects, and reads the greeting. -errno and a sentence: -ENOENT (nothing there), -ECONNREFUSED
 * (its VM is gone), -EACCES, -ETIMEDOUT (its VM does not answer in that time), -EPROTO (no VM of
 * ours).
 */
int ctl_client_open(const char *path, unsigned milliseconds, struct ctl_client **out,
                    struct error *err);
void ctl_client_close(struct ctl_client *c); /* NULL is allowed */

/* What the VM calls itself. */
const char *ctl_client_name(const struct ctl_client *c);

void ctl_client_renew(struct ctl_client *c, unsigned milliseconds);

/*
 * One request; `each` (may be NULL) gets the words of every line of the answer, decoded. 0 for
 * "ok"; -EREMOTE and the VM's sentence for "error"; -ETIMEDOUT, -ECONNRESET (the VM has ended).
 */
int ctl_client_ask(struct ctl_client *c, const char *const *words, size_t count,
                   void (*each)(void *ctx, char *const *words, int count), void *ctx,
                   struct error *err);

/* Waits until the VM and its process's hold on disks and name are gone. -ETIMEDOUT. */
int ctl_client_wait_end(struct ctl_client *c);

#endif
