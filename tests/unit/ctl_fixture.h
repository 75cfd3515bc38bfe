/* A VM with an idle guest, its control socket, and plain descriptors to it. */
#ifndef CTL_FIXTURE_H
#define CTL_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "../guest/tiny.h"
#include "ctl/client.h"
#include "ctl/ctl.h"
#include "ctl/place.h"
#include "ctl/socket.h"
#include "ctl/wire.h"
#include "host/fd.h"
#include "vmm/vm.h"

#define PATIENCE_MS 60000 /* for what must happen */

struct box {
    char dir[64], kernel[96], disc[96], path[96];
    struct config *cfg;
    struct log *log;
    struct vm *vm;
    struct ctl *ctl;
    pthread_t thread;
    int status;
};

static inline void put_file(const char *path, const void *data, size_t len)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    if (len > 0)
        assert_int_equal(fwrite(data, len, 1, f), 1);
    assert_int_equal(fclose(f), 0);
}

static inline void *box_run(void *arg)
{
    struct box *b = arg;

    b->status = vm_run(b->vm);
    return NULL;
}

static inline void set(struct box *b, const char *key, const char *value)
{
    assert_int_equal(config_set(b->cfg, key, value, NULL), 0);
}

/* The VM "NAME" with a CD drive in slot 3 and its socket; not running yet. */
static inline void box_make(struct box *b, const char *name)
{
    uint8_t image[TINY_SIZE], sector[2048] = {0};
    struct error err = {0};

    memset(b, 0, sizeof(*b));
    snprintf(b->dir, sizeof(b->dir), "/tmp/test-ctl-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    snprintf(b->kernel, sizeof(b->kernel), "%s/kernel", b->dir);
    snprintf(b->disc, sizeof(b->disc), "%s/disc", b->dir);
    snprintf(b->path, sizeof(b->path), "%s/socket", b->dir);
    assert_true(tiny_guest("idle", image));
    put_file(b->kernel, image, sizeof(image));
    put_file(b->disc, sector, sizeof(sector));
    b->cfg = config_create();
    assert_non_null(b->cfg);
    set(b, "name", name);
    set(b, "memory.size", "16M");
    set(b, "engine", "soft");
    set(b, "acpi_tables", "true");
    set(b, "boot.kernel", b->kernel);
    set(b, "pci.0.3.0.device", "ahci-cd");
    b->log = log_create(STDERR_FILENO, LOG_ERROR);
    assert_non_null(b->log);
    if (vm_create_from_config(b->cfg, b->log, &b->vm, &err) != 0 ||
        ctl_create(b->vm, b->path, b->log, &b->ctl, &err) != 0)
        fail_msg("%s", err.text);
}

static inline void box_start(struct box *b)
{
    assert_int_equal(pthread_create(&b->thread, NULL, box_run, b), 0);
}

static inline void box_join(struct box *b)
{
    assert_int_equal(pthread_join(b->thread, NULL), 0);
}

/* Of one that does not run any more. */
static inline void box_free(struct box *b)
{
    ctl_stop(b->ctl);
    vm_destroy(b->vm);
    ctl_destroy(b->ctl);
    config_destroy(b->cfg);
    log_destroy(b->log);
    unlink(b->kernel);
    unlink(b->disc);
    assert_int_equal(rmdir(b->dir), 0); /* socket and lock are gone */
}

static inline void box_end(struct box *b)
{
    vm_stop(b->vm, VM_HALT);
    box_join(b);
    assert_int_equal(b->status, VM_HALT);
    box_free(b);
}

/* ---- a client that does what it likes ---- */

static inline void address(struct sockaddr_un *sun, const char *path)
{
    memset(sun, 0, sizeof(*sun));
    sun->sun_family = AF_UNIX;
    assert_true(strlen(path) < sizeof(sun->sun_path));
    memcpy(sun->sun_path, path, strlen(path));
}

static inline int dial(const char *path)
{
    struct sockaddr_un sun;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    assert_true(fd >= 0);
    address(&sun, path);
    assert_int_equal(connect(fd, (const struct sockaddr *)&sun, sizeof(sun)), 0);
    return fd;
}

/* All of it; false if the VM has hung up. */
static inline bool say(int fd, const void *data, size_t len)
{
    const char *p = data;

    while (len > 0) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

        if (n < 0)
            return false;
        p += n;
        len -= (size_t)n;
    }
    return true;
}

static inline bool say_line(int fd, const char *line)
{
    return say(fd, line, strlen(line)) && say(fd, "\n", 1);
}

/* The next line without its newline; false: the end. */
static inline bool hear(int fd, char *line, size_t room)
{
    size_t at = 0;

    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        char c;

        if (poll(&p, 1, PATIENCE_MS) != 1)
            fail_msg("nothing to hear");
        if (read(fd, &c, 1) != 1)
            return false;
        if (c == '\n')
            break;
        assert_true(at + 1 < room);
        line[at++] = c;
    }
    line[at] = '\0';
    return true;
}

/* The line that ends an answer, and how many stood before it. */
static inline unsigned hear_answer(int fd, char *line, size_t room)
{
    unsigned lines = 0;

    for (;; lines++) {
        assert_true(hear(fd, line, room));
        if (strcmp(line, "ok") == 0 || strncmp(line, "error ", 6) == 0)
            return lines;
    }
}

static inline int dial_greeted(const struct box *b)
{
    int fd = dial(b->path);
    char line[256];

    assert_true(hear(fd, line, sizeof(line)));
    assert_memory_equal(line, "xhyve 1 ", 8);
    return fd;
}

static inline void expect_answer(int fd, const char *request, const char *answer)
{
    char line[CTL_ANSWER_MAX];

    assert_true(say_line(fd, request));
    hear_answer(fd, line, sizeof(line));
    if (strncmp(line, answer, strlen(answer)) != 0)
        fail_msg("%s: '%s', not '%s'", request, line, answer);
}

/* The VM answers somebody. */
static inline void expect_alive(const struct box *b)
{
    int fd = dial_greeted(b);

    expect_answer(fd, "status", "ok");
    close(fd);
}

#endif
