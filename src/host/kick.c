#include "host/kick.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>

static void nothing(int signo)
{
    (void)signo;
}

/* Real-time signals are Linux's; elsewhere nothing waits in a call that this would have to end. */
static int kick_signal(void)
{
#ifdef SIGRTMIN
    return SIGRTMIN;
#else
    return SIGUSR2;
#endif
}

int host_kick_setup(void)
{
    struct sigaction sa = {.sa_handler = nothing};

    sigemptyset(&sa.sa_mask);
    return sigaction(kick_signal(), &sa, NULL) == 0 ? 0 : -errno;
}

void host_kick(pthread_t thread)
{
    pthread_kill(thread, kick_signal());
}
