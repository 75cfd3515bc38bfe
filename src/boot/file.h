/*
 * Reading a file the user named, with a sentence for whatever is wrong with it. The thread that
 * builds the VM; the caller owns what it gets.
 */
#ifndef BOOT_FILE_H
#define BOOT_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/*
 * Opens a regular, non-empty file of at most max bytes. `what` ("kernel", "initrd") starts the
 * sentence. Returns the descriptor or a negative errno; size in bytes.
 */
int file_open(const char *what, const char *path, uint64_t max, uint64_t *size, struct error *err);

/* Reads exactly size bytes from where fd stands. */
int file_read(const char *what, const char *path, int fd, void *to, uint64_t size,
              struct error *err);

/* The whole file in new memory; free() it. */
int file_load(const char *what, const char *path, uint64_t max, uint8_t **data, uint64_t *size,
              struct error *err);

#endif
