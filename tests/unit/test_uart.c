/* The 16550A by its registers, at COM1 and COM2 of a board without an engine. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "chardev/chardev.h"
#include "dev/chips.h"
#include "dev/uart.h"
#include "host/clock.h"
#include "loop_fixture.h"

struct fixture {
    struct dev_env env;
    struct device dev;
    struct config *config;
    unsigned edges; /* rising, on IRQ 4 */
    unsigned base;
    struct error err;
};

static void on_gsi(void *ctx, unsigned gsi, bool level)
{
    struct fixture *f = ctx;

    if (gsi == 4 && level)
        f->edges++;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    dev_env_init(&f->env, "com1");
    f->env.bus = bus_create(NULL);
    f->env.irqs = irq_router_create(NULL);
    f->env.timers = timerq_create(true, NULL, NULL);
    irq_set_observer(f->env.irqs, on_gsi, NULL, f);
    f->base = 0x3F8;
    *state = f;
    return device_create(&ns16550_ops, &f->env, NULL, &f->dev, &f->err);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    device_destroy(&f->dev);
    timerq_destroy(f->env.timers);
    irq_router_destroy(f->env.irqs);
    bus_destroy(f->env.bus);
    dev_env_fini(&f->env);
    free(f);
    return 0;
}

static uint8_t in(struct fixture *f, unsigned reg)
{
    uint64_t value = 0;

    assert_true(bus_read(f->env.bus, BUS_READER_OTHER, BUS_PIO, f->base + reg, 1, &value));
    return (uint8_t)value;
}

static void out(struct fixture *f, unsigned reg, uint8_t value)
{
    assert_true(bus_write(f->env.bus, BUS_READER_OTHER, BUS_PIO, f->base + reg, 1, value));
}

static bool irq(struct fixture *f)
{
    return irq_gsi_level(f->env.irqs, 4);
}

static struct chardev *backend(struct fixture *f)
{
    return uart_chardev(f->dev.impl);
}

static void feed(struct fixture *f, const char *text)
{
    chardev_memory_feed(backend(f), text, strlen(text));
}

static void expect_output(struct fixture *f, const char *text)
{
    char buf[256];
    size_t n = chardev_memory_take(backend(f), buf, sizeof(buf) - 1);

    buf[n] = '\0';
    assert_string_equal(buf, text);
}

static void test_reset_values(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(in(f, 1), 0x00);
    assert_int_equal(in(f, 2), 0x01);
    assert_int_equal(in(f, 3), 0x00);
    assert_int_equal(in(f, 4), 0x00);
    assert_int_equal(in(f, 5), 0x60);
    assert_int_equal(in(f, 6), 0xB0);
    assert_int_equal(in(f, 0), 0x00);
    assert_false(irq(f));
}

static void test_plain_registers(void **state)
{
    struct fixture *f = *state;
    uint64_t value;

    out(f, 7, 0xA5);
    assert_int_equal(in(f, 7), 0xA5);
    out(f, 1, 0xFF);
    assert_int_equal(in(f, 1), 0x0F); /* the upper half reads zero: how a driver knows it */
    out(f, 4, 0xFF);
    assert_int_equal(in(f, 4), 0x1F);
    out(f, 5, 0x00); /* read-only */
    assert_int_equal(in(f, 5), 0x60);
    out(f, 3, 0x83);
    out(f, 0, 0x34);
    out(f, 1, 0x12);
    assert_int_equal(in(f, 0), 0x34);
    assert_int_equal(in(f, 1), 0x12);
    assert_true(bus_read(f->env.bus, BUS_READER_OTHER, BUS_PIO, f->base, 2, &value));
    assert_int_equal(value, 0x1234);
    out(f, 3, 0x03);
    assert_int_equal(in(f, 1), 0x0F); /* the divisor is not the enable register */
    expect_output(f, "");
}

static void test_output(void **state)
{
    struct fixture *f = *state;

    out(f, 3, 3);
    for (const char *p = "hello\n"; *p != '\0'; p++) {
        assert_int_equal(in(f, 5) & 0x60, 0x60);
        out(f, 0, (uint8_t)*p);
    }
    expect_output(f, "hello\n");
    out(f, 3, 2); /* seven bits */
    out(f, 0, 0xC1);
    expect_output(f, "A");
}

static void test_thre_interrupt(void **state)
{
    struct fixture *f = *state;

    out(f, 1, 0x02);
    assert_false(irq(f)); /* OUT2 is off */
    assert_int_equal(in(f, 2), 0x02);
    assert_int_equal(in(f, 2), 0x01);
    out(f, 4, 0x08);
    out(f, 1, 0x00);
    out(f, 1, 0x02);
    assert_true(irq(f)); /* enabling raises it again */
    f->edges = 0;
    out(f, 0, 'a');
    assert_true(irq(f));
    assert_int_equal(f->edges, 1); /* each byte is an edge */
    out(f, 1, 0x02);
    assert_int_equal(f->edges, 1);
    assert_int_equal(in(f, 2), 0x02);
    assert_false(irq(f)); /* reading it was the acknowledge */
    out(f, 0, 'b');
    assert_true(irq(f));
    out(f, 4, 0x00);
    assert_false(irq(f));
    out(f, 4, 0x08);
    out(f, 1, 0x00);
    assert_false(irq(f));
}

static void test_input_without_fifo(void **state)
{
    struct fixture *f = *state;

    out(f, 3, 3);
    out(f, 4, 0x08);
    out(f, 1, 0x01);
    feed(f, "abc");
    assert_true(irq(f));
    assert_int_equal(f->edges, 1);
    assert_int_equal(in(f, 5), 0x61);
    assert_int_equal(in(f, 2), 0x04);
    assert_int_equal(in(f, 0), 'a');
    assert_int_equal(f->edges, 2); /* the next byte is an edge of its own */
    assert_int_equal(in(f, 0), 'b');
    assert_int_equal(in(f, 0), 'c');
    assert_int_equal(in(f, 5), 0x60);
    assert_false(irq(f));
}

static void test_fifo(void **state)
{
    static const char text[] = "0123456789abcdefGHIJ";
    struct fixture *f = *state;

    out(f, 3, 3);
    out(f, 4, 0x08);
    out(f, 2, 0x81); /* trigger at 8 */
    out(f, 1, 0x01);
    assert_int_equal(in(f, 2), 0xC1);
    feed(f, "0123456");
    assert_true(irq(f));
    assert_int_equal(in(f, 2), 0xCC); /* timeout */
    feed(f, text + 7);
    assert_int_equal(in(f, 2), 0xC4);
    for (const char *p = text; *p != '\0'; p++) {
        assert_int_equal(in(f, 5), 0x61);
        assert_int_equal(in(f, 0), *p);
    }
    assert_int_equal(in(f, 5), 0x60);
    assert_int_equal(in(f, 2), 0xC1);
    assert_false(irq(f));
}

/* Only 16 bytes are in the chip; clearing it loses these, and not what the peer still holds. */
static void test_fifo_clear(void **state)
{
    struct fixture *f = *state;

    out(f, 2, 0x01);
    feed(f, "0123456789abcdefXY");
    out(f, 2, 0x03);
    assert_int_equal(in(f, 0), 'X');
    out(f, 2, 0x00); /* turning it off clears it, too */
    assert_int_equal(in(f, 5), 0x60);
    assert_int_equal(in(f, 2), 0x01);
    out(f, 2, 0xC6); /* without the enable bit nothing counts */
    assert_int_equal(in(f, 2), 0x01);
}

static void test_loopback(void **state)
{
    struct fixture *f = *state;

    out(f, 3, 3);
    out(f, 4, 0x10);
    assert_int_equal(in(f, 6), 0x0B); /* CTS, DSR, DCD have gone */
    assert_int_equal(in(f, 6), 0x00);
    out(f, 4, 0x1A);
    assert_int_equal(in(f, 6), 0x99); /* OUT2 → DCD, RTS → CTS */
    out(f, 4, 0x14);
    assert_int_equal(in(f, 6), 0x49);
    out(f, 4, 0x10);
    assert_int_equal(in(f, 6), 0x04); /* the ring's end */
    feed(f, "outside");
    assert_int_equal(in(f, 5), 0x60);
    out(f, 0, 0x5A);
    assert_int_equal(in(f, 5), 0x61);
    assert_int_equal(in(f, 0), 0x5A);
    expect_output(f, "");
    out(f, 4, 0x00);
    assert_int_equal(in(f, 0), 'o'); /* it waited */
}

static void test_overrun(void **state)
{
    struct fixture *f = *state;

    out(f, 3, 3);
    out(f, 4, 0x18);
    out(f, 1, 0x04);
    out(f, 0, 'a');
    assert_false(irq(f));
    out(f, 0, 'b');
    assert_true(irq(f));
    assert_int_equal(in(f, 2), 0x06);
    assert_int_equal(in(f, 5), 0x63);
    assert_false(irq(f));
    assert_int_equal(in(f, 5), 0x61);
    assert_int_equal(in(f, 0), 'b'); /* the register was overwritten */
    out(f, 2, 0x01);
    for (char c = 'A'; c <= 'Q'; c++)
        out(f, 0, (uint8_t)c);
    assert_int_equal(in(f, 5), 0x63);
    for (char c = 'A'; c <= 'P'; c++)
        assert_int_equal(in(f, 0), c); /* a FIFO keeps what it has */
    assert_int_equal(in(f, 5), 0x60);
}

static void test_priorities(void **state)
{
    struct fixture *f = *state;

    out(f, 3, 3);
    out(f, 4, 0x18);
    out(f, 0, 'a');
    out(f, 0, 'b'); /* overrun, data, THRE and modem changes all at once */
    out(f, 1, 0x0F);
    assert_int_equal(in(f, 2), 0x06);
    in(f, 5);
    assert_int_equal(in(f, 2), 0x04);
    in(f, 0);
    assert_int_equal(in(f, 2), 0x02);
    assert_int_equal(in(f, 2), 0x00);
    assert_true(irq(f));
    in(f, 6);
    assert_int_equal(in(f, 2), 0x01);
    assert_false(irq(f));
}

static void test_save_load(void **state)
{
    struct fixture *f = *state;
    struct state_buf saved = {.data = NULL};
    size_t pos = 0;

    out(f, 3, 0x80);
    out(f, 0, 3);
    out(f, 3, 0x03);
    out(f, 7, 0x77);
    out(f, 2, 0xC1);
    out(f, 4, 0x0B);
    out(f, 1, 0x03);
    feed(f, "0123");
    assert_int_equal(in(f, 0), '0');
    device_save(&f->dev, &saved);
    assert_int_equal(saved.error, 0);
    device_destroy(&f->dev);
    assert_false(irq(f));
    assert_int_equal(device_create(&ns16550_ops, &f->env, NULL, &f->dev, &f->err), 0);
    assert_int_equal(device_load(&f->dev, saved.data, saved.len, &pos, &f->err), 0);
    assert_int_equal(pos, saved.len);
    assert_true(irq(f));
    assert_int_equal(in(f, 2), 0xCC);
    assert_int_equal(in(f, 0), '1');
    assert_int_equal(in(f, 0), '2');
    assert_int_equal(in(f, 0), '3');
    assert_int_equal(in(f, 2), 0xC2);
    assert_int_equal(in(f, 1), 0x03);
    assert_int_equal(in(f, 3), 0x03);
    assert_int_equal(in(f, 4), 0x0B);
    assert_int_equal(in(f, 7), 0x77);
    out(f, 3, 0x80);
    assert_int_equal(in(f, 0), 3);

    /* A snapshot that lies: every byte of every value 0xFF. */
    for (pos = 0; pos + 8 <= saved.len;) {
        uint32_t len;

        memcpy(&len, saved.data + pos + 4, 4);
        pos += 8;
        memset(saved.data + pos, 0xFF, len);
        pos += len;
    }
    pos = 0;
    assert_int_equal(device_load(&f->dev, saved.data, saved.len, &pos, &f->err), 0);
    out(f, 3, 3);
    for (int i = 0; i < 16; i++)
        assert_int_equal(in(f, 0), 0xFF);
    assert_int_equal(in(f, 5) & 1, 0);
    free(saved.data);
}

static void test_device_reset(void **state)
{
    struct fixture *f = *state;

    out(f, 3, 3);
    out(f, 4, 0x08);
    out(f, 1, 0x02);
    assert_true(irq(f));
    device_reset(&f->dev);
    assert_false(irq(f));
    test_reset_values(state);
}

/* COM2 by its option, on a loop and with no back end: output vanishes at once. */
static void test_com2_bare(void **state)
{
    struct fixture *f = *state;
    struct config *config = config_create();
    struct options opts = {
        .node = config, .table = ns16550_ops.options, .count = ns16550_ops.option_count};
    struct dev_env env = {.name = NULL};
    struct device com2;
    uint64_t before;

    assert_int_equal(config_set(config, "port", "2", &f->err), 0);
    dev_env_init(&env, "com2");
    env.bus = f->env.bus;
    env.irqs = f->env.irqs;
    env.timers = f->env.timers;
    env.loop = loop_create(&f->err);
    assert_int_equal(device_create(&ns16550_ops, &env, &opts, &com2, &f->err), 0);
    f->base = 0x2F8;
    before = host_clock_ns();
    for (int i = 0; i < 100000; i++) {
        assert_int_equal(in(f, 5), 0x60);
        out(f, 0, 'x');
    }
    assert_true(host_clock_ns() - before < 2 * NSEC_PER_SEC);
    out(f, 4, 0x08);
    out(f, 1, 0x02);
    assert_true(irq_gsi_level(f->env.irqs, 3));
    assert_false(irq(f));
    device_destroy(&com2);
    assert_false(irq_gsi_level(f->env.irqs, 3));
    assert_false(bus_read(env.bus, BUS_READER_OTHER, BUS_PIO, 0x2F8, 1, &before));
    loop_destroy(env.loop);
    dev_env_fini(&env);
    config_destroy(config);
}

struct peer {
    char path[64];
    unsigned got;
};

#define ECHO_BYTES 200000u

static uint8_t pattern(unsigned i)
{
    return (uint8_t)(i * 7 + i / 251);
}

/* Sends a lot, gets it back, counts what is right. */
static void *peer_thread(void *arg)
{
    struct peer *p = arg;
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    unsigned sent = 0;

    memcpy(sun.sun_path, p->path, sizeof(p->path));
    if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0)
        return NULL;
    while (p->got < ECHO_BYTES) {
        uint8_t buf[1000];
        size_t want = min_u64(sizeof(buf), ECHO_BYTES - sent);
        ssize_t n;

        for (size_t i = 0; i < want; i++)
            buf[i] = pattern(sent + (unsigned)i);
        n = send(fd, buf, want, MSG_DONTWAIT | MSG_NOSIGNAL);
        sent += n > 0 ? (unsigned)n : 0;
        n = recv(fd, buf, sizeof(buf), sent == ECHO_BYTES ? 0 : MSG_DONTWAIT);
        for (ssize_t i = 0; i < n; i++) {
            if (buf[i] != pattern(p->got++))
                goto out;
        }
        if (n == 0 || (n < 0 && errno != EAGAIN))
            break;
    }
out:
    close(fd);
    return NULL;
}

/* The whole way, three threads: a peer on a socket, the loop, and a guest that echoes by polling.
 */
static void test_echo(void **state)
{
    struct fixture *f = *state;
    struct config *config = config_create();
    struct options opts = {
        .node = config, .table = ns16550_ops.options, .count = ns16550_ops.option_count};
    char spec[80], dir[] = "/tmp/uart.XXXXXX";
    struct loop_thread server;
    struct peer peer = {.got = 0};
    pthread_t peer_id;
    uint64_t start;
    unsigned echoed = 0;

    assert_non_null(mkdtemp(dir));
    snprintf(peer.path, sizeof(peer.path), "%s/x", dir);
    snprintf(spec, sizeof(spec), "unix=%s", peer.path);
    assert_int_equal(config_set(config, "backend", spec, &f->err), 0);
    device_destroy(&f->dev);
    assert_int_equal(loop_thread_start(&server), 0);
    f->env.loop = server.loop;
    assert_int_equal(device_create(&ns16550_ops, &f->env, &opts, &f->dev, &f->err), 0);
    out(f, 3, 3);
    out(f, 2, 0xC1); /* before the peer is there: turning the FIFO on drops what has come */
    pthread_create(&peer_id, NULL, peer_thread, &peer);
    start = host_clock_ns();
    while (echoed < ECHO_BYTES && host_clock_ns() - start < 60 * NSEC_PER_SEC) {
        if (!(in(f, 5) & 1)) {
            sched_yield();
            continue;
        }
        out(f, 0, in(f, 0));
        echoed++;
    }
    pthread_join(peer_id, NULL);
    assert_int_equal(echoed, ECHO_BYTES);
    assert_int_equal(peer.got, ECHO_BYTES);
    device_destroy(&f->dev);
    loop_thread_stop(&server);
    rmdir(dir);
    config_destroy(config);
}

static void test_refused(void **state)
{
    struct fixture *f = *state;
    struct config *config = config_create();
    struct options opts = {
        .node = config, .table = ns16550_ops.options, .count = ns16550_ops.option_count};
    struct device bad;

    assert_int_equal(device_create(&ns16550_ops, &f->env, NULL, &bad, &f->err), -EEXIST);
    assert_int_equal(config_set(config, "port", "5", &f->err), 0);
    assert_int_equal(device_create(&ns16550_ops, &f->env, &opts, &bad, &f->err), -EINVAL);
    assert_non_null(strstr(f->err.text, "COM5"));
    assert_int_equal(config_set(config, "port", "3", &f->err), 0);
    assert_int_equal(config_set(config, "backend", "nonsense", &f->err), 0);
    assert_int_equal(device_create(&ns16550_ops, &f->env, &opts, &bad, &f->err), -EINVAL);
    assert_non_null(strstr(f->err.text, "nonsense"));
    config_destroy(config);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_reset_values),
        CASE(test_plain_registers),
        CASE(test_output),
        CASE(test_thre_interrupt),
        CASE(test_input_without_fifo),
        CASE(test_fifo),
        CASE(test_fifo_clear),
        CASE(test_loopback),
        CASE(test_overrun),
        CASE(test_priorities),
        CASE(test_save_load),
        CASE(test_device_reset),
        CASE(test_com2_bare),
        CASE(test_echo),
        CASE(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
