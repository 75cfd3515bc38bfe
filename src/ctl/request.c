#include "ctl/request.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"

#define ERROR_ROOM 600u /* of an answer, kept for its end */

struct answer {
    char *text;
    size_t room, len;
    bool full; /* something did not fit */
};

/* Whole lines or nothing. */
static void add(struct answer *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add(struct answer *a, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(a->text + a->len, a->room - a->len, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= a->room - a->len)
        a->full = true;
    else
        a->len += (size_t)n;
}

/* "KEY WORD", whatever bytes the word has; NULL: not known, no line. */
static void add_word(struct answer *a, const char *key, const char *word)
{
    size_t start = a->len, end;

    if (word == NULL || word[0] == '\0')
        return;
    add(a, "%s ", key);
    end = ctl_word_put(a->text, a->room, a->len, word);
    if (a->full || a->room - end < 2) {
        a->len = start;
        a->full = true;
        return;
    }
    a->text[end] = '\n';
    a->len = end + 1;
}

size_t ctl_answer_error(char *to, size_t room, const char *sentence)
{
    int n = snprintf(to, room, "error %s", sentence);
    size_t len = n < 0 ? 0 : min_u64((uint64_t)n, room - 2);

    for (size_t i = 0; i < len; i++) { /* file names may hold anything; a line is a line */
        if (iscntrl((unsigned char)to[i]))
            to[i] = '?';
    }
    to[len] = '\n';
    return len + 1;
}

/* ---- what can be asked; 0 or -errno and a sentence ---- */

static int do_status(struct vm *vm, char **words, int count, struct answer *a, struct error *err)
{
    struct vm_device device;
    struct vm_info info;

    (void)words;
    (void)count;
    (void)err;
    vm_get_info(vm, &info);
    add_word(a, "name", info.name);
    add(a, "state %s\n", info.ending ? "ending" : "running");
    add(a, "pid %ld\n", (long)getpid());
    add_word(a, "engine", info.engine);
    add(a, "engine_changes %u\n", info.changes);
    add(a, "engine_changes_failed %u\n", info.failed_changes);
    add(a, "cpus %u\n", info.cpus);
    add(a, "memory %" PRIu64 "\n", info.memory);
    add(a, "uptime_ns %" PRIu64 "\n", info.uptime_ns);
    add(a, "power_button %s\n", info.acpi ? "yes" : "no");
    add_word(a, "kernel", info.kernel);
    for (unsigned i = 0; vm_device_at(vm, i, &device); i++)
        add(a, "device %s %s\n", device.where, device.name);
    return 0;
}

static int do_powerdown(struct vm *vm, char **words, int count, struct answer *a, struct error *err)
{
    struct vm_info info;

    (void)words;
    (void)count;
    (void)a;
    vm_get_info(vm, &info);
    if (!info.acpi) /* who asks for the button does not ask for the plug */
        return error_set(err, -ENOTSUP,
                         "the VM has no power button, since it was started without -A; poweroff "
                         "ends it at once");
    vm_power_button(vm);
    return 0;
}

static int do_poweroff(struct vm *vm, char **words, int count, struct answer *a, struct error *err)
{
    (void)words;
    (void)count;
    (void)a;
    (void)err;
    vm_stop(vm, VM_POWEROFF);
    return 0;
}

static int do_reset(struct vm *vm, char **words, int count, struct answer *a, struct error *err)
{
    (void)words;
    (void)count;
    (void)a;
    (void)err;
    vm_stop(vm, VM_REBOOT);
    return 0;
}

static int do_refresh(struct vm *vm, char **words, int count, struct answer *a, struct error *err)
{
    (void)words;
    (void)count;
    (void)a;
    (void)err;
    vm_refresh(vm);
    return 0;
}

static int do_engine(struct vm *vm, char **words, int count, struct answer *a, struct error *err)
{
    (void)words;
    (void)count;
    (void)a;
    return vm_switch_engine(vm, err);
}

/* The word behind the others that a person must add on purpose. */
static int read_force(const char *word, bool *force, struct error *err)
{
    if (word != NULL && strcmp(word, "force") != 0)
        return error_set(err, -EINVAL, "unknown word '%.64s' at the end; force is the only one",
                         word);
    *force = word != NULL;
    return 0;
}

static int do_insert(struct vm *vm, char **words, int count, struct answer *a, struct error *err)
{
    bool force = false;
    int rc = read_force(count > 3 ? words[3] : NULL, &force, err);

    (void)a;
    if (rc == 0 && words[2][0] != '/') /* the VM's working directory is not the client's */
        rc = error_set(err, -EINVAL, "the path '%.200s' does not begin with /", words[2]);
    return rc < 0 ? rc : vm_insert(vm, words[1], words[2], force, err);
}

static int do_eject(struct vm *vm, char **words, int count, struct answer *a, struct error *err)
{
    bool force = false;
    int rc = read_force(count > 2 ? words[2] : NULL, &force, err);

    (void)a;
    return rc < 0 ? rc : vm_insert(vm, words[1], NULL, force, err);
}

static int do_help(struct vm *vm, char **words, int count, struct answer *a, struct error *err);

static const struct request {
    const char *name, *usage;
    int min, max; /* words behind the name */
    int (*fn)(struct vm *vm, char **words, int count, struct answer *a, struct error *err);
} requests[] = {
    {"help", "", 0, 0, do_help},
    {"status", "", 0, 0, do_status},
    {"powerdown", "", 0, 0, do_powerdown},
    {"poweroff", "", 0, 0, do_poweroff},
    {"reset", "", 0, 0, do_reset},
    {"refresh", "", 0, 0, do_refresh},
    {"insert", " WHERE PATH [force]", 2, 3, do_insert},
    {"eject", " WHERE [force]", 1, 2, do_eject},
    {"engine", "", 0, 0, do_engine},
};

static int do_help(struct vm *vm, char **words, int count, struct answer *a, struct error *err)
{
    (void)vm;
    (void)words;
    (void)count;
    (void)err;
    for (size_t i = 0; i < countof(requests); i++)
        add(a, "request %s%s\n", requests[i].name, requests[i].usage);
    return 0;
}

static int run(struct vm *vm, char **words, int count, struct answer *a, struct error *err)
{
    for (size_t i = 0; i < countof(requests); i++) {
        const struct request *r = &requests[i];

        if (strcmp(r->name, words[0]) != 0)
            continue;
        if (count - 1 < r->min || count - 1 > r->max)
            return error_set(err, -EINVAL, "the request is %s%s", r->name, r->usage);
        return r->fn(vm, words, count, a, err);
    }
    return error_set(err, -EINVAL, "unknown request '%.64s'; help lists what there is", words[0]);
}

size_t ctl_request(struct vm *vm, char *line, size_t len, char answer[CTL_ANSWER_MAX])
{
    struct answer a = {.text = answer, .room = CTL_ANSWER_MAX - ERROR_ROOM};
    char *words[CTL_WORDS_MAX];
    struct error err = {0};
    int rc = ctl_words(line, len, words, &err);

    if (rc > 0)
        rc = run(vm, words, rc, &a, &err);
    if (rc == 0 && a.full)
        rc = error_set(&err, -ENOSPC, "the answer is longer than %u bytes", CTL_ANSWER_MAX);
    if (rc < 0) /* half an answer is none */
        return ctl_answer_error(answer, CTL_ANSWER_MAX, err.text);
    memcpy(answer + a.len, "ok\n", 3);
    return a.len + 3;
}

size_t ctl_greeting(struct vm *vm, char *to, size_t room)
{
    struct vm_info info;
    size_t at;

    vm_get_info(vm, &info);
    at = (size_t)snprintf(to, room, "xhyve %u ", CTL_VERSION);
    at = ctl_word_put(to, room - 1, at, info.name != NULL ? info.name : "-");
    to[at++] = '\n';
    return at;
}
