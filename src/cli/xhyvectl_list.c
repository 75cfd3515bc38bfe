/* xhyvectl list: the VMs that run, as far as they have a socket where one is looked for. */
#include "cli/xhyvectl.h"

#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/config.h"
#include "ctl/client.h"
#include "ctl/place.h"

#define LIST_MS 2000 /* one VM that hangs must not hide the others for long */

/* ---- texts ---- */

void ctl_memory_text(const char *bytes, char *to, size_t room)
{
    static const char suffixes[] = "KMGT";
    uint64_t size;
    unsigned n = 0;

    if (parse_u64(bytes, &size) < 0) {
        snprintf(to, room, "%s", bytes);
        return;
    }
    while (n < 4 && size >= 1024 && size % 1024 == 0) {
        size /= 1024;
        n++;
    }
    snprintf(to, room, "%llu%.1s", (unsigned long long)size, n > 0 ? suffixes + n - 1 : "");
}

void ctl_uptime_text(const char *ns, char *to, size_t room)
{
    uint64_t n;
    unsigned days, seconds;

    if (parse_u64(ns, &n) < 0) {
        snprintf(to, room, "%s", ns);
        return;
    }
    days = (unsigned)(n / NSEC_PER_SEC / 86400);
    seconds = (unsigned)(n / NSEC_PER_SEC % 86400);
    if (days > 0)
        snprintf(to, room, "%ud %u:%02u:%02u", days, seconds / 3600, seconds / 60 % 60,
                 seconds % 60);
    else
        snprintf(to, room, "%u:%02u:%02u", seconds / 3600, seconds / 60 % 60, seconds % 60);
}

/* ---- sockets ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names without their suffix, sorted; NULL without memory. The caller frees them and the array. */
static char **read_names(DIR *dir, size_t *count)
{
    size_t room = 0, n = 0, suffix = strlen(CTL_SUFFIX);
    char **names = NULL;
    struct dirent *e;

    while ((e = readdir(dir)) != NULL) {
        size_t len = strlen(e->d_name);

        if (len <= suffix || strcmp(e->d_name + len - suffix, CTL_SUFFIX) != 0)
            continue;
        if (n == room) {
            char **grown = realloc(names, (2 * room + 8) * sizeof(*names));

            if (grown == NULL)
                break;
            names = grown;
            room = 2 * room + 8;
        }
        names[n] = strndup(e->d_name, len - suffix);
        if (names[n] == NULL)
            break;
        n++;
    }
    if (n > 1)
        qsort(names, n, sizeof(*names), by_name);
    *count = n;
    return names;
}

int ctl_each_socket(void (*each)(void *ctx, const char *name, const char *path), void *ctx,
                    struct error *err)
{
    char path[512];
    int rc = ctl_place_dir(false, path, sizeof(path), err);
    char **names;
    size_t count, at;
    DIR *dir;

    if (rc == -ENOENT)
        return 0;
    if (rc < 0)
        return rc;
    dir = opendir(path);
    if (dir == NULL)
        return error_set(err, -errno, "cannot read the directory %s: %s", path, strerror(errno));
    names = read_names(dir, &count);
    closedir(dir);
    at = strlen(path);
    for (size_t i = 0; i < count; i++) {
        if ((size_t)snprintf(path + at, sizeof(path) - at, "/%s" CTL_SUFFIX, names[i]) <
            sizeof(path) - at)
            each(ctx, names[i], path);
        free(names[i]);
    }
    free(names);
    return 0;
}

struct running {
    char *to;
    size_t room, len;
};

static void add_running(void *ctx, const char *name, const char *path)
{
    struct running *r = ctx;
    struct ctl_client *c;
    int rc = ctl_client_open(path, LIST_MS / 4, &c, NULL);

    ctl_client_close(c);
    if ((rc == 0 || rc == -ETIMEDOUT) && r->len < r->room)
        r->len += (size_t)snprintf(r->to + r->len, r->room - r->len, "%s%s", r->len > 0 ? ", " : "",
                                   name);
}

void ctl_running(char *to, size_t room)
{
    struct running r = {to, room, 0};

    to[0] = '\0';
    (void)ctl_each_socket(add_running, &r, NULL);
    if (r.len == 0)
        snprintf(to, room, "none");
}

/* ---- the list ---- */

struct row {
    char state[16], engine[16], cpus[8], memory[24], uptime[32], pid[16];
};

static void row_word(void *ctx, char *const *words, int count)
{
    struct row *r = ctx;

    if (count != 2)
        return;
    if (strcmp(words[0], "state") == 0)
        snprintf(r->state, sizeof(r->state), "%.15s", words[1]);
    else if (strcmp(words[0], "engine") == 0)
        snprintf(r->engine, sizeof(r->engine), "%.15s", words[1]);
    else if (strcmp(words[0], "cpus") == 0)
        snprintf(r->cpus, sizeof(r->cpus), "%.7s", words[1]);
    else if (strcmp(words[0], "pid") == 0)
        snprintf(r->pid, sizeof(r->pid), "%.15s", words[1]);
    else if (strcmp(words[0], "memory") == 0)
        ctl_memory_text(words[1], r->memory, sizeof(r->memory));
    else if (strcmp(words[0], "uptime_ns") == 0)
        ctl_uptime_text(words[1], r->uptime, sizeof(r->uptime));
}

static void print_row(void *ctx, const char *name, const char *path)
{
    static const char *const status[] = {"status"};
    struct row r = {"-", "-", "-", "-", "-", "-"};
    struct ctl_client *c;
    int rc = ctl_client_open(path, LIST_MS, &c, NULL);

    (void)ctx;
    if (rc == 0)
        rc = ctl_client_ask(c, status, 1, row_word, &r, NULL);
    ctl_client_close(c);
    if (rc == -ETIMEDOUT)
        snprintf(r.state, sizeof(r.state), "silent");
    else if (rc < 0)
        return; /* its VM is gone, or ends just now */
    printf("%-20s %-8s %-6s %5s %8s %13s %8s\n", name, r.state, r.engine, r.cpus, r.memory,
           r.uptime, r.pid);
}

int ctl_list(void)
{
    struct error err = {0};
    char dir[512];
    int rc = ctl_place_dir(false, dir, sizeof(dir), &err);

    if (rc < 0 && rc != -ENOENT)
        return ctl_fail(&err);
    printf("%-20s %-8s %-6s %5s %8s %13s %8s\n", "NAME", "STATE", "ENGINE", "VCPUS", "MEMORY",
           "UPTIME", "PID");
    if (ctl_each_socket(print_row, NULL, &err) < 0)
        return ctl_fail(&err);
    if (fflush(stdout) != 0) {
        error_set(&err, -errno, "cannot write to standard output: %s", strerror(errno));
        return ctl_fail(&err);
    }
    return 0;
}
