/* Anonymous and executable host memory. Any thread. Sizes are rounded up to pages. */
#ifndef HOST_MEMORY_H
#define HOST_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* Zeroed, lazily backed memory, huge pages asked for. NULL and err on failure. */
void *host_memory_alloc(size_t size, struct error *err);
void host_memory_free(void *p, size_t size);

/*
 * Memory out of the huge pages that the host's administrator has reserved, all of it taken at once:
 * one that cannot be had is an error here, not the end of the program later. size is a multiple of
 * host_huge_page(), which is 0 where there is nothing of the kind.
 */
size_t host_huge_page(void);
void *host_memory_alloc_huge(size_t size, struct error *err);

/* Takes all of it and keeps it from being paged out until it is freed. */
int host_memory_wire(void *p, size_t size, struct error *err);

/*
 * Memory that free() gives back, for what is filled at once: its backing is taken in huge pages
 * where the host gives them. NULL: there is none.
 */
void *host_buffer(size_t size);

/* Gives the backing of whole pages back to the host; they read zero afterwards. */
void host_memory_discard(void *p, size_t size);

/*
 * The first `size` bytes of a file, to read; NULL: it cannot be mapped. Who makes the file shorter
 * meanwhile ends this program (SIGBUS): for files that are replaced, never changed.
 */
const void *host_file_map(int fd, size_t size);
/* Its pages are not counted as ours until they are read again. */
void host_file_rest(const void *p, size_t size);
void host_file_unmap(const void *p, size_t size);

/* Page-aligned code memory: writable now, executable after host_code_seal, never both. */
void *host_code_alloc(size_t size, struct error *err);
int host_code_seal(void *p, size_t size, struct error *err);
int host_code_unseal(void *p, size_t size, struct error *err);

/*
 * Code memory seen twice: through *rw it can be written, through *rx executed, and neither view is
 * ever both. Zeroed, lazily backed. -errno: the host does not allow it.
 */
int host_code_views(size_t size, void **rw, void **rx, struct error *err);
void host_code_views_free(void *rw, void *rx, size_t size);

#endif
