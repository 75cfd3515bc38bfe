/* Two VMs in one process share nothing: each has its own memory, console, clock and end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <pthread.h>

#include "../guest/tiny.h"
#include "vmm/vm.h"

struct one {
    char kernel[64], console[64];
    struct config *cfg;
    struct log *log;
    struct vm *vm;
    pthread_t thread;
    int status;
    unsigned lines; /* of the log */
};

static void on_line(void *ctx, enum log_level level, const char *line)
{
    struct one *o = ctx;

    (void)level;
    (void)line;
    o->lines++;
}

static void temp(char *path, size_t room, const void *data, size_t len)
{
    int fd;

    snprintf(path, room, "/tmp/two-vms-XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    if (len > 0)
        assert_int_equal(write(fd, data, len), (ssize_t)len);
    close(fd);
}

static void make(struct one *o, const char *guest, const char *trace)
{
    uint8_t image[TINY_SIZE];
    struct error err = {0};
    char backend[80];

    memset(o, 0, sizeof(*o));
    assert_true(tiny_guest(guest, image));
    temp(o->kernel, sizeof(o->kernel), image, sizeof(image));
    temp(o->console, sizeof(o->console), NULL, 0);
    snprintf(backend, sizeof(backend), "file=%s", o->console);
    o->cfg = config_create();
    assert_non_null(o->cfg);
    assert_int_equal(config_set(o->cfg, "name", guest, NULL), 0);
    assert_int_equal(config_set(o->cfg, "memory.size", "16M", NULL), 0);
    assert_int_equal(config_set(o->cfg, "engine", "soft", NULL), 0);
    assert_int_equal(config_set(o->cfg, "acpi_tables", "true", NULL), 0);
    assert_int_equal(config_set(o->cfg, "boot.method", "kexec", NULL), 0);
    assert_int_equal(config_set(o->cfg, "boot.kernel", o->kernel, NULL), 0);
    assert_int_equal(config_set(o->cfg, "pci.0.31.0.device", "lpc", NULL), 0);
    assert_int_equal(config_set(o->cfg, "lpc.com1.path", backend, NULL), 0);
    o->log = log_create(STDERR_FILENO, LOG_DEBUG);
    assert_non_null(o->log);
    log_set_sink(o->log, on_line, o);
    if (trace != NULL)
        assert_int_equal(log_set_trace(o->log, trace, &err), 0);
    if (vm_create_from_config(o->cfg, o->log, &o->vm, &err) != 0)
        fail_msg("%s: %s", guest, err.text);
}

static void *run(void *arg)
{
    struct one *o = arg;

    o->status = vm_run(o->vm);
    return NULL;
}

static void start(struct one *o)
{
    assert_int_equal(pthread_create(&o->thread, NULL, run, o), 0);
}

static void join(struct one *o)
{
    assert_int_equal(pthread_join(o->thread, NULL), 0);
}

/* The console's whole output; ends the VM's life. */
static void end(struct one *o, int status, const char *output)
{
    char text[256] = "";
    FILE *f;

    vm_destroy(o->vm);
    f = fopen(o->console, "r");
    assert_non_null(f);
    text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
    fclose(f);
    assert_int_equal(o->status, status);
    assert_string_equal(text, output);
    unlink(o->kernel);
    unlink(o->console);
    log_destroy(o->log);
    config_destroy(o->cfg);
}

static void wait_for(const struct one *o, const char *output)
{
    char text[256] = "";

    for (unsigned i = 0; i < 3000 && strcmp(text, output) != 0; i++) {
        FILE *f = fopen(o->console, "r");

        assert_non_null(f);
        text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
        fclose(f);
        usleep(10000);
    }
    assert_string_equal(text, output);
}

static void test_side_by_side(void **state)
{
    struct one a, b;

    (void)state;
    make(&a, "work", NULL);
    make(&b, "work", NULL);
    start(&a);
    start(&b);
    join(&a);
    join(&b);
    end(&a, VM_REBOOT, "work\ndone\n");
    end(&b, VM_REBOOT, "work\ndone\n");
}

/* One ends in every way there is while the other sleeps and wakes. */
static void test_ends(void **state)
{
    static const struct {
        const char *guest;
        int status;
        const char *output;
    } ends[] = {
        {"reset", VM_REBOOT, "reset\n"}, {"off", VM_POWEROFF, "off\n"},
        {"halt", VM_HALT, "halt\n"},     {"triple", VM_TRIPLE_FAULT, "triple\n"},
        {"panic", VM_ERROR, "panic\n"},  {"smi", VM_ERROR, "smi\n"},
        {"ticks", VM_REBOOT, "ticks\n"},
    };
    struct one idle, other;

    (void)state;
    make(&idle, "idle", NULL);
    start(&idle);
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        make(&other, ends[i].guest, i % 2 == 0 ? "*" : NULL);
        start(&other);
        join(&other);
        assert_true(i % 2 != 0 || other.lines > 10);
        end(&other, ends[i].status, ends[i].output);
    }
    vm_stop(idle.vm, VM_SUSPENDED);
    join(&idle);
    end(&idle, VM_SUSPENDED, "idle\n");
}

/* A signal goes to the VM that it is for. */
static void test_signals(void **state)
{
    struct one a, b;

    (void)state;
    make(&a, "button", NULL);
    make(&b, "button", NULL);
    start(&a);
    start(&b);
    wait_for(&a, "button\n");
    wait_for(&b, "button\n");
    vm_signal(a.vm, 15);
    wait_for(&a, "button\npressed\n");
    vm_signal(a.vm, 15);
    join(&a);
    end(&a, VM_POWEROFF, "button\npressed\n");
    vm_signal(b.vm, 15);
    wait_for(&b, "button\npressed\n");
    vm_stop(b.vm, VM_HALT);
    vm_stop(b.vm, VM_REBOOT); /* the first counts */
    join(&b);
    end(&b, VM_HALT, "button\npressed\n");
}

/* Made and never run; stopped before it runs. */
static void test_not_run(void **state)
{
    struct one a;

    (void)state;
    make(&a, "spin", NULL);
    end(&a, 0, "");
    make(&a, "spin", NULL);
    vm_stop(a.vm, VM_HALT);
    start(&a);
    join(&a);
    unlink(a.kernel);
    vm_destroy(a.vm);
    assert_int_equal(a.status, VM_HALT);
    unlink(a.console);
    log_destroy(a.log);
    config_destroy(a.cfg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_side_by_side),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_signals),
        cmocka_unit_test(test_not_run),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
