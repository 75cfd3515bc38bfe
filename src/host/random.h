/* The host's random numbers, fit for keys. Any thread, no state. */
#ifndef HOST_RANDOM_H
#define HOST_RANDOM_H

#include <stddef.h>

/*
 * Fills len bytes; does not block once the host has booted. -EIO if the host has no source (a
 * sandbox that forbids the system call and hides the device): the bytes must not be used then.
 */
int host_random(void *to, size_t len);

#endif
