/*
 * A signal whose only use is to make a system call of another thread return early. Any thread, no
 * state but the process's handler for SIGRTMIN, which does nothing and is set at each call.
 */
#ifndef HOST_KICK_H
#define HOST_KICK_H

#include <pthread.h>

/* To be called once before host_kick. 0 or -errno. */
int host_kick_setup(void);

/* The thread's blocking system call ends with EINTR. The thread must not have ended. */
void host_kick(pthread_t thread);

#endif
