#include "ctl/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "ctl/request.h"
#include "ctl/socket.h"
#include "host/fd.h"
#include "host/loop.h"
#include "host/peer.h"

struct client {
    struct ctl *ctl;
    int fd; /* -1: this place is free */
    struct loop_fd *watch;
    uint64_t heard; /* the turn in which it was last heard of */
    bool closing;   /* when it has taken its answer */
    size_t in_len;
    size_t out_at, out_len; /* what is still to be sent */
    char *in, *out;         /* CTL_LINE_MAX and CTL_ANSWER_MAX bytes, while it is connected */
};

struct ctl {
    struct vm *vm;
    struct log *log;
    struct ctl_socket socket;
    struct loop_fd *watch; /* of the socket; NULL: not served */
    int spare;             /* a descriptor to have one when there is none left; -1: gone */
    uint64_t turn;
    struct client client[CTL_CLIENTS];
};

/* ---- a client ---- */

static void client_close(struct client *c)
{
    if (c->fd < 0)
        return;
    loop_del(c->watch);
    close(c->fd);
    free(c->in);
    free(c->out);
    *c = (struct client){.ctl = c->ctl, .fd = -1};
}

/* False: it has gone. */
static bool client_send(struct client *c)
{
    while (c->out_at < c->out_len) {
        ssize_t n = fd_send(c->fd, c->out + c->out_at, c->out_len - c->out_at);

        if (n == -EINTR)
            continue;
        if (n == -EAGAIN || n == -EWOULDBLOCK)
            return true;
        if (n <= 0)
            return false;
        c->out_at += (size_t)n;
    }
    c->out_at = c->out_len = 0;
    return true;
}

/* False: nothing more will come, and what is half there is nothing. */
static bool client_read(struct client *c)
{
    ssize_t n = read(c->fd, c->in + c->in_len, CTL_LINE_MAX - c->in_len);

    if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK))
        return true;
    if (n <= 0)
        return false;
    c->in_len += (size_t)n;
    return true;
}

static bool has_line(const struct client *c)
{
    return memchr(c->in, '\n', c->in_len) != NULL;
}

/* One request if there is a whole one. */
static void client_request(struct client *c)
{
    char *end = memchr(c->in, '\n', c->in_len);
    size_t len;

    if (end == NULL && c->in_len < CTL_LINE_MAX)
        return;
    if (end == NULL) { /* where the next one begins cannot be known before it has come */
        c->out_len = ctl_answer_error(c->out, CTL_ANSWER_MAX,
                                      "a request of more than 4096 bytes; the connection ends");
        c->closing = true;
        return;
    }
    len = (size_t)(end - c->in);
    c->out_len = ctl_request(c->ctl->vm, c->in, len, c->out);
    c->in_len -= len + 1;
    memmove(c->in, end + 1, c->in_len);
}

/*
 * A step: send what is left, or do one request. One, so that who sends many does not keep the loop;
 * and none before its last answer has been taken.
 */
static void client_ready(void *ctx, unsigned events)
{
    struct client *c = ctx;
    bool there = true;

    c->heard = ++c->ctl->turn;
    if (c->out_len == 0 && !has_line(c))
        there = (events & LOOP_READ) != 0 && client_read(c);
    if (there && c->out_len == 0)
        client_request(c);
    if (there)
        there = client_send(c);
    if (!there || (c->closing && c->out_len == 0)) {
        client_close(c);
        return;
    }
    loop_mod(c->watch, c->out_len > 0 || has_line(c) ? LOOP_WRITE : LOOP_READ);
}

/* ---- connections ---- */

/* A free place, or that of the client which has been silent longest. */
static struct client *find_place(struct ctl *ctl)
{
    struct client *oldest = &ctl->client[0];

    for (unsigned i = 0; i < CTL_CLIENTS; i++) {
        struct client *c = &ctl->client[i];

        if (c->fd < 0)
            return c;
        if (c->heard < oldest->heard)
            oldest = c;
    }
    log_debug(ctl->log, "control: more than %u clients; the most silent one is dropped",
              CTL_CLIENTS);
    client_close(oldest);
    return oldest;
}

/* Root and the user of this process; others are told why not. */
static bool allowed(struct ctl *ctl, int fd)
{
    static const char sentence[] = "the VM is another user's: ask as that user, or as root";
    char line[128];
    uid_t user = 0;
    int rc = peer_user(fd, &user);

    if (rc == 0 && (user == 0 || user == geteuid()))
        return true;
    log_warn(ctl->log, "control: user %lu was refused", rc < 0 ? 0 : (unsigned long)user);
    (void)fd_send(fd, line, ctl_answer_error(line, sizeof(line), sentence));
    return false;
}

static void connect_client(struct ctl *ctl, int fd)
{
    struct client *c = find_place(ctl);
    struct error err = {0};

    c->in = malloc(CTL_LINE_MAX);
    c->out = malloc(CTL_ANSWER_MAX);
    c->fd = fd;
    c->heard = ++ctl->turn;
    if (c->in != NULL && c->out != NULL)
        c->watch = loop_add(vm_loop(ctl->vm), fd, LOOP_READ, NULL, client_ready, c, &err);
    if (c->watch == NULL) {
        log_warn(ctl->log, "control: no memory for a client");
        client_close(c);
        return;
    }
    c->out_len = ctl_greeting(ctl->vm, c->out, CTL_ANSWER_MAX);
    if (!client_send(c))
        client_close(c);
    else if (c->out_len > 0)
        loop_mod(c->watch, LOOP_WRITE);
}

/*
 * All descriptors are in use, and who waits keeps the socket ready: the spare one is given up for a
 * moment, to let him in and out again.
 */
static void turn_away(struct ctl *ctl)
{
    int fd;

    log_warn(ctl->log, "control: too many open files; a client was turned away");
    if (ctl->spare >= 0)
        close(ctl->spare);
    fd = fd_accept(ctl->socket.fd);
    if (fd >= 0)
        close(fd);
    ctl->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd < 0 && fd != -EAGAIN && fd != -ECONNABORTED) {
        log_error(ctl->log, "control: accepts no more clients: %s", strerror(-fd));
        loop_mod(ctl->watch, 0);
    }
}

static void on_connect(void *ctx, unsigned events)
{
    struct ctl *ctl = ctx;
    int fd = fd_accept(ctl->socket.fd);

    (void)events;
    if (fd == -EMFILE || fd == -ENFILE) {
        turn_away(ctl);
    } else if (fd == -EAGAIN || fd == -EINTR || fd == -ECONNABORTED) {
        return;
    } else if (fd < 0) {
        log_error(ctl->log, "control: accepts no more clients: %s", strerror(-fd));
        loop_mod(ctl->watch, 0); /* or it would be ready for ever */
    } else if (allowed(ctl, fd)) {
        connect_client(ctl, fd);
    } else {
        close(fd);
    }
}

/* ---- the object ---- */

int ctl_create(struct vm *vm, const char *path, struct log *log, struct ctl **out,
               struct error *err)
{
    struct ctl *ctl = calloc(1, sizeof(*ctl));
    int rc;

    *out = NULL;
    if (ctl == NULL)
        return error_set(err, -ENOMEM, "no memory for the control socket");
    ctl->vm = vm;
    ctl->log = log;
    for (unsigned i = 0; i < CTL_CLIENTS; i++)
        ctl->client[i] = (struct client){.ctl = ctl, .fd = -1};
    ctl->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    rc = ctl_socket_open(path, &ctl->socket, err);
    if (rc == 0) {
        ctl->watch = loop_add(vm_loop(vm), ctl->socket.fd, LOOP_READ, NULL, on_connect, ctl, err);
        if (ctl->watch == NULL)
            rc = -ENOMEM;
    }
    if (rc < 0) {
        ctl_destroy(ctl);
        return rc;
    }
    log_info(log, "control: listening on %s", path);
    *out = ctl;
    return 0;
}

void ctl_stop(struct ctl *ctl)
{
    if (ctl == NULL || ctl->vm == NULL)
        return;
    loop_del(ctl->watch);
    ctl->watch = NULL;
    for (unsigned i = 0; i < CTL_CLIENTS; i++) {
        loop_del(ctl->client[i].watch);
        ctl->client[i].watch = NULL;
    }
    ctl->vm = NULL;
}

void ctl_destroy(struct ctl *ctl)
{
    if (ctl == NULL)
        return;
    ctl_stop(ctl);
    ctl_socket_close(&ctl->socket); /* before the clients see the end: the name is free by then */
    for (unsigned i = 0; i < CTL_CLIENTS; i++)
        client_close(&ctl->client[i]);
    if (ctl->spare >= 0)
        close(ctl->spare);
    free(ctl);
}
