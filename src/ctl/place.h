/*
 * Where control sockets lie: DIR/NAME.sock, DIR being $XDG_RUNTIME_DIR/xhyve (if that directory is
 * the user's own), else /run/xhyve for root and /tmp/xhyve-UID for others. Any thread; reads the
 * environment.
 */
#ifndef CTL_PLACE_H
#define CTL_PLACE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

#define CTL_SUFFIX ".sock"

/*
 * The directory; `make`: made if it is not there, for its owner alone. -ENOENT if it is not there,
 * -EPERM if it is somebody else's, a link, or open to others: no socket in it can be trusted.
 */
int ctl_place_dir(bool make, char *to, size_t room, struct error *err);

/* The socket of the VM of that name; the same errors. */
int ctl_place_socket(const char *name, bool make, char *to, size_t room, struct error *err);

#endif
