#include "ctl/client.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bits.h"
#include "ctl/wire.h"
#include "host/clock.h"
#include "host/fd.h"
#include "host/peer.h"

#define NSEC_PER_MSEC 1000000ull

struct ctl_client {
    int fd;
    unsigned milliseconds; /* as asked for, for the sentence */
    uint64_t deadline;     /* host_clock_ns() */
    char name[80];
    size_t len; /* bytes in buf: lines not looked at yet */
    char buf[CTL_ANSWER_MAX];
};

/* ---- waiting ---- */

static int too_late(const struct ctl_client *c, struct error *err)
{
    return error_set(err, -ETIMEDOUT,
                     "the VM has not answered for %u seconds; its process may be stopped, or wait "
                     "for a disk",
                     (c->milliseconds + 999) / 1000);
}

/* Until the descriptor is ready; -ETIMEDOUT. */
static int wait_ready(const struct ctl_client *c, short events)
{
    for (;;) {
        uint64_t now = host_clock_ns();
        struct pollfd p = {.fd = c->fd, .events = events};
        int n;

        if (now >= c->deadline)
            return -ETIMEDOUT;
        n = poll(&p, 1, (int)min_u64((c->deadline - now) / NSEC_PER_MSEC + 1, 1000000));
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return -errno;
    }
}

/* More bytes into buf: 0, -ECONNRESET at the end, -ETIMEDOUT, -EPROTO if there is no room. */
static int read_more(struct ctl_client *c)
{
    if (c->len == sizeof(c->buf))
        return -EPROTO;
    for (;;) {
        ssize_t n = read(c->fd, c->buf + c->len, sizeof(c->buf) - c->len);
        int rc;

        if (n > 0) {
            c->len += (size_t)n;
            return 0;
        }
        if (n == 0 || errno == ECONNRESET)
            return -ECONNRESET;
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
            return -errno;
        rc = wait_ready(c, POLLIN);
        if (rc < 0)
            return rc;
    }
}

/* The next line, without its newline and with a 0; line is CTL_ANSWER_MAX bytes. */
static int read_line(struct ctl_client *c, char *line, struct error *err)
{
    char *end;
    int rc;

    while ((end = memchr(c->buf, '\n', c->len)) == NULL) {
        rc = read_more(c);
        if (rc == -ETIMEDOUT)
            return too_late(c, err);
        if (rc == -ECONNRESET)
            return error_set(err, rc, "the VM has ended before it answered");
        if (rc < 0)
            return error_set(err, rc, "the VM's answer cannot be read: %s", strerror(-rc));
    }
    *end = '\0';
    memcpy(line, c->buf, (size_t)(end - c->buf) + 1);
    c->len -= (size_t)(end + 1 - c->buf);
    memmove(c->buf, end + 1, c->len);
    return 0;
}

/* ---- the connection ---- */

static int connect_fd(struct ctl_client *c, const struct sockaddr_un *sun)
{
    while (connect(c->fd, (const struct sockaddr *)sun, sizeof(*sun)) < 0) {
        struct pollfd none = {.fd = -1};

        if (errno == EINPROGRESS || errno == EISCONN)
            return 0;
        if (errno != EAGAIN && errno != EINTR)
            return -errno;
        if (host_clock_ns() >= c->deadline)
            return -ETIMEDOUT;
        (void)poll(&none, 1, 10); /* more wait there than the VM lets wait */
    }
    return 0;
}

static int connect_to(struct ctl_client *c, const char *path, struct error *err)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    uid_t user = 0;
    int rc;

    if (path[0] == '\0' || strlen(path) >= sizeof(sun.sun_path))
        return error_set(err, -ENAMETOOLONG, "the path of a socket has 1 to %zu bytes",
                         sizeof(sun.sun_path) - 1);
    memcpy(sun.sun_path, path, strlen(path) + 1);
    c->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (c->fd < 0)
        return error_set(err, -errno, "cannot make a socket: %s", strerror(errno));
    rc = fd_setup(c->fd, true);
    if (rc < 0)
        return error_set(err, rc, "cannot set up a socket: %s", strerror(-rc));
    fd_no_sigpipe(c->fd);
    rc = connect_fd(c, &sun);
    if (rc == -ETIMEDOUT)
        return too_late(c, err);
    if (rc == -ECONNREFUSED)
        return error_set(err, rc, "nothing listens on %s: its VM is gone", path);
    if (rc == -EACCES || rc == -EPERM)
        return error_set(err, -EACCES,
                         "no permission for %s: ask as the user whose VM it is, or as root", path);
    if (rc < 0)
        return error_set(err, rc, "cannot connect to %s: %s", path, strerror(-rc));
    rc = peer_user(c->fd, &user);
    if (rc == 0 && user != 0 && user != geteuid() && geteuid() != 0)
        return error_set(err, -EACCES, "%s is served by user %lu, who may be anyone", path,
                         (unsigned long)user);
    return 0;
}

/* "xhyve VERSION NAME", or why not. */
static int read_greeting(struct ctl_client *c, const char *path, struct error *err)
{
    char line[CTL_ANSWER_MAX], *words[CTL_WORDS_MAX], version[16];
    int rc = read_line(c, line, err);

    if (rc < 0)
        return rc;
    if (strncmp(line, "error ", 6) == 0)
        return error_set(err, -EACCES, "%s", line + 6);
    snprintf(version, sizeof(version), "%u", CTL_VERSION);
    rc = ctl_words(line, strlen(line), words, NULL);
    if (rc < 3 || strcmp(words[0], "xhyve") != 0)
        return error_set(err, -EPROTO, "%s is not the control socket of a VM", path);
    if (strcmp(words[1], version) != 0)
        return error_set(err, -EPROTO,
                         "the VM at %s speaks version %.8s, and this xhyvectl version %s: use the "
                         "xhyvectl of its xhyve",
                         path, words[1], version);
    snprintf(c->name, sizeof(c->name), "%.79s", words[2]);
    return 0;
}

int ctl_client_open(const char *path, unsigned milliseconds, struct ctl_client **out,
                    struct error *err)
{
    struct ctl_client *c = calloc(1, sizeof(*c));
    int rc;

    *out = NULL;
    if (c == NULL)
        return error_set(err, -ENOMEM, "no memory for a connection");
    c->fd = -1;
    ctl_client_renew(c, milliseconds);
    rc = connect_to(c, path, err);
    if (rc == 0)
        rc = read_greeting(c, path, err);
    if (rc < 0) {
        ctl_client_close(c);
        return rc;
    }
    *out = c;
    return 0;
}

void ctl_client_close(struct ctl_client *c)
{
    if (c == NULL)
        return;
    if (c->fd >= 0)
        close(c->fd);
    free(c);
}

const char *ctl_client_name(const struct ctl_client *c)
{
    return c->name;
}

void ctl_client_renew(struct ctl_client *c, unsigned milliseconds)
{
    c->milliseconds = milliseconds;
    c->deadline = host_clock_ns() + milliseconds * NSEC_PER_MSEC;
}

/* ---- asking ---- */

static int send_all(struct ctl_client *c, const char *data, size_t len, struct error *err)
{
    while (len > 0) {
        ssize_t n = fd_send(c->fd, data, len);
        int rc = 0;

        if (n == -EAGAIN || n == -EWOULDBLOCK)
            rc = wait_ready(c, POLLOUT);
        else if (n < 0 && n != -EINTR)
            return error_set(err, -ECONNRESET, "the VM has ended before it was asked");
        if (rc < 0)
            return too_late(c, err);
        if (n > 0) {
            data += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

int ctl_client_ask(struct ctl_client *c, const char *const *words, size_t count,
                   void (*each)(void *ctx, char *const *words, int count), void *ctx,
                   struct error *err)
{
    char line[CTL_ANSWER_MAX], *parts[CTL_WORDS_MAX];
    size_t at = 0;
    int rc;

    for (size_t i = 0; i < count; i++) {
        at = ctl_word_put(line, CTL_LINE_MAX, at, words[i]);
        if (at >= CTL_LINE_MAX - 1)
            return error_set(err, -ENAMETOOLONG,
                             "a request has at most %u bytes, and '%.40s...' "
                             "makes it longer: use a shorter path",
                             CTL_LINE_MAX, words[i]);
        line[at++] = i + 1 < count ? ' ' : '\n';
    }
    rc = send_all(c, line, at, err);
    while (rc == 0) {
        rc = read_line(c, line, err);
        if (rc < 0 || strcmp(line, "ok") == 0)
            break;
        if (strncmp(line, "error ", 6) == 0)
            return error_set(err, -EREMOTE, "%s", line + 6);
        rc = ctl_words(line, strlen(line), parts, NULL);
        if (rc > 0 && each != NULL)
            each(ctx, parts, rc);
        rc = 0; /* a line that this version does not understand is for another */
    }
    return rc;
}

int ctl_client_wait_end(struct ctl_client *c)
{
    int rc;

    do {
        c->len = 0;
        rc = read_more(c);
    } while (rc == 0);
    return rc == -ETIMEDOUT ? rc : 0;
}
