/*
 * "tcp=[ADDR:]PORT" and "unix=PATH": listen, serve one peer, listen again when it has gone. Further
 * peers wait in the backlog. What the guest writes in between is kept, as far as the ring goes, for
 * the next one.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bits.h"
#include "chardev/kinds.h"
#include "host/fd.h"
#include "host/loop.h"

#define BACKLOG 4

struct sock {
    int listener, peer;    /* -1: none */
    struct loop_fd *watch; /* of the listener; reads only while there is no peer */
    char *path;            /* of a Unix socket, removed at the end */
};

static struct sock *sock_new(struct chardev *c, struct error *err)
{
    struct sock *s = calloc(1, sizeof(*s));

    if (s == NULL) {
        error_set(err, -ENOMEM, "no memory for back end '%s'", c->kind->name);
        return NULL;
    }
    s->listener = -1;
    s->peer = -1;
    c->impl = s;
    return s;
}

static void sock_close(struct chardev *c)
{
    struct sock *s = c->impl;

    if (s == NULL)
        return;
    loop_del(s->watch);
    if (s->peer >= 0)
        close(s->peer);
    if (s->listener >= 0)
        close(s->listener);
    if (s->path != NULL)
        unlink(s->path);
    free(s->path);
    free(s);
}

static void sock_peer_gone(struct chardev *c, int code)
{
    struct sock *s = c->impl;

    chardev_detach(c);
    close(s->peer);
    s->peer = -1;
    loop_mod(s->watch, LOOP_READ);
    log_debug(c->log, "%s: peer has gone%s%s", c->name, code < 0 ? ": " : "",
              code < 0 ? strerror(-code) : "");
}

static void sock_accept(void *ctx, unsigned events)
{
    struct chardev *c = ctx;
    struct sock *s = c->impl;
    struct error err = {0, ""};
    int on = 1;
    int fd = fd_accept(s->listener);

    (void)events;
    if (fd == -EAGAIN || fd == -EINTR || fd == -ECONNABORTED)
        return;
    if (fd < 0) {
        /* Out of descriptors, say. The listener stays ready: to look again would spin. */
        log_error(c->log, "%s: accepts no more peers: %s", c->name, strerror(-fd));
        loop_mod(s->watch, 0);
        return;
    }
    if (c->kind == &chardev_tcp) /* keystrokes must not wait for each other */
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (chardev_attach(c, fd, fd, &err) < 0) {
        log_error(c->log, "%s: %s", c->name, err.text);
        close(fd);
        return;
    }
    s->peer = fd;
    loop_mod(s->watch, 0);
    log_debug(c->log, "%s: peer connected", c->name);
}

static int sock_listen(struct chardev *c, struct error *err)
{
    struct sock *s = c->impl;
    int rc = fd_setup(s->listener, true);

    if (rc == 0 && listen(s->listener, BACKLOG) < 0)
        rc = -errno;
    if (rc < 0)
        return error_set(err, rc, "cannot listen: %s", strerror(-rc));
    s->watch = loop_add(c->loop, s->listener, LOOP_READ, c->lock, sock_accept, c, err);
    return s->watch == NULL ? -ENOMEM : 0;
}

/* ---- tcp ---- */

/* "[ADDR:]PORT", ADDR perhaps in brackets; addr and port are cut from text. */
static int split_address(char *text, const char **addr, const char **port)
{
    char *colon = strrchr(text, ':');
    size_t len;

    *addr = "127.0.0.1"; /* a console is a login: not for the whole network unless asked */
    *port = text;
    if (colon != NULL) {
        *colon = '\0';
        *port = colon + 1;
        len = strlen(text);
        if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
            text[len - 1] = '\0';
            text++;
        }
        if (text[0] != '\0')
            *addr = text;
    }
    len = strlen(*port);
    if (len == 0 || len > 5 || strspn(*port, "0123456789") != len || atoi(*port) > 65535)
        return -EINVAL;
    return 0;
}

static int tcp_bind(struct sock *s, const struct addrinfo *ai)
{
    int on = 1;

    s->listener = socket(ai->ai_family, ai->ai_socktype, ai->ai_protocol);
    if (s->listener < 0)
        return -errno;
    (void)setsockopt(s->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    return bind(s->listener, ai->ai_addr, ai->ai_addrlen) < 0 ? -errno : 0;
}

/* Names the port the host has chosen if 0 was asked for. */
static void tcp_announce(struct chardev *c, int fd)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);
    char host[64], port[16];

    if (getsockname(fd, (struct sockaddr *)&ss, &len) == 0 &&
        getnameinfo((struct sockaddr *)&ss, len, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) == 0)
        log_info(c->log, "%s: listening on TCP %s port %s", c->name, host, port);
}

static int tcp_open(struct chardev *c, const char *arg, struct error *err)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    struct sock *s = sock_new(c, err);
    const char *addr, *port;
    char text[128];
    int rc;

    if (s == NULL)
        return -ENOMEM;
    if (arg == NULL || strlen(arg) >= sizeof(text))
        return error_set(err, -EINVAL, "back end 'tcp' needs an address: tcp=[ADDR:]PORT");
    snprintf(text, sizeof(text), "%s", arg);
    if (split_address(text, &addr, &port) < 0)
        return error_set(err, -EINVAL, "'%s' has no port number; write tcp=[ADDR:]PORT", arg);
    hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
    rc = getaddrinfo(addr, port, &hints, &list);
    if (rc != 0)
        return error_set(err, -EINVAL, "cannot resolve '%s': %s", addr, gai_strerror(rc));
    rc = tcp_bind(s, list);
    freeaddrinfo(list);
    if (rc < 0)
        return error_set(err, rc, "cannot listen on TCP '%s': %s", arg, strerror(-rc));
    rc = sock_listen(c, err);
    if (rc == 0)
        tcp_announce(c, s->listener);
    return rc;
}

/* ---- unix ---- */

/* A socket nobody accepts on is left over from a run that was killed. */
static bool unix_stale(const struct sockaddr_un *sun)
{
    struct stat st;
    int fd, rc;

    if (lstat(sun->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return false;
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0)
        return false;
    rc = fd_setup(fd, true);
    if (rc == 0)
        rc = connect(fd, (const struct sockaddr *)sun, sizeof(*sun)) < 0 ? -errno : 0;
    close(fd);
    return rc == -ECONNREFUSED;
}

static int unix_open(struct chardev *c, const char *arg, struct error *err)
{
    struct sockaddr_un sun;
    struct sock *s = sock_new(c, err);
    int rc;

    if (s == NULL)
        return -ENOMEM;
    memset(&sun, 0, sizeof(sun));
    sun.sun_family = AF_UNIX;
    if (arg == NULL || arg[0] == '\0' || strlen(arg) >= sizeof(sun.sun_path))
        return error_set(err, -EINVAL, "back end 'unix' needs a path of at most %zu bytes",
                         sizeof(sun.sun_path) - 1);
    memcpy(sun.sun_path, arg, strlen(arg));
    s->listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (s->listener < 0)
        return error_set(err, -errno, "cannot make a socket: %s", strerror(errno));
    rc = bind(s->listener, (struct sockaddr *)&sun, sizeof(sun)) < 0 ? -errno : 0;
    if (rc == -EADDRINUSE && unix_stale(&sun) && unlink(arg) == 0)
        rc = bind(s->listener, (struct sockaddr *)&sun, sizeof(sun)) < 0 ? -errno : 0;
    if (rc < 0)
        return error_set(err, rc, "cannot listen on '%s': %s", arg, strerror(-rc));
    s->path = strdup(arg); /* without memory for it the path merely stays behind */
    rc = sock_listen(c, err);
    if (rc == 0)
        log_info(c->log, "%s: listening on %s", c->name, arg);
    return rc;
}

const struct chardev_kind chardev_tcp = {
    .name = "tcp",
    .in_size = 4 * KIB,
    .out_size = 64 * KIB,
    .flush_ns = CHARDEV_SECOND,
    .open = tcp_open,
    .close = sock_close,
    .input_end = sock_peer_gone,
    .output_end = sock_peer_gone,
};

const struct chardev_kind chardev_unix = {
    .name = "unix",
    .in_size = 4 * KIB,
    .out_size = 64 * KIB,
    .flush_ns = CHARDEV_SECOND,
    .open = unix_open,
    .close = sock_close,
    .input_end = sock_peer_gone,
    .output_end = sock_peer_gone,
};
