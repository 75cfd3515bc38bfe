/*
 * About this program itself, and where its user keeps what can be made again.
 */
#ifndef HOST_PROGRAM_H
#define HOST_PROGRAM_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/*
 * The linker's fingerprint of this program, at most `size` bytes of it; how many. 0: it has none,
 * or this host does not say.
 */
size_t host_build_id(uint8_t *id, size_t size);

/*
 * The directory `name` in the user's cache directory ($XDG_CACHE_HOME, else ~/.cache), which is
 * made if it is not there, for the owner alone. 0, or -errno if the user has no such place.
 */
int host_cache_dir(const char *name, char *path, size_t size);

/*
 * A directory that is ours alone: made if it is not there. -errno and a sentence if it cannot be,
 * or if others may write there.
 */
int host_own_dir(const char *path, struct error *err);

#endif
