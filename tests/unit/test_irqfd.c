/* Messages by descriptor: which the engine is told to take, and what becomes of the others. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "bus/irqfd.h"
#include "loop_fixture.h"

/* An engine's side: what it has, by slot. */
struct engine {
    struct {
        bool taken;
        int fd;
        struct irq_message msg;
    } at[40];
    unsigned calls, refuse_from; /* no slot from this one on */
};

struct fixture {
    struct log *log;
    struct irq_router *router;
    struct loop_thread server;
    pthread_mutex_t lock;
    pthread_cond_t heard;
    unsigned messages; /* to the board's local APICs */
    struct irq_message last;
    struct engine engine;
};

static const struct irq_message fixed = {.assert = true, .vector = 0x41};
static const struct irq_message other = {.assert = true, .vector = 0x42, .dest = 3};

static int engine_set(void *ctx, unsigned slot, int fd, const struct irq_message *msg)
{
    struct engine *e = ctx;

    e->calls++;
    assert_true(slot < countof(e->at));
    if (msg == NULL) {
        assert_true(e->at[slot].taken); /* nothing is taken back that was not told */
        assert_int_equal(e->at[slot].fd, fd);
        e->at[slot].taken = false;
        return 0;
    }
    if (slot >= e->refuse_from)
        return -ENOSPC;
    assert_true(!e->at[slot].taken || e->at[slot].fd == fd);
    e->at[slot].taken = true;
    e->at[slot].fd = fd;
    e->at[slot].msg = *msg;
    return 0;
}

static void deliver(void *ctx, const struct irq_message *msg)
{
    struct fixture *f = ctx;

    pthread_mutex_lock(&f->lock);
    f->messages++;
    f->last = *msg;
    pthread_cond_signal(&f->heard);
    pthread_mutex_unlock(&f->lock);
}

static const struct lapic_ops lapics = {.deliver = deliver};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err = {0};

    *state = f;
    f->log = log_create(2, LOG_WARN);
    f->router = irq_router_create(f->log);
    f->engine.refuse_from = countof(f->engine.at);
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->heard, NULL);
    irq_attach_lapics(f->router, &lapics, f);
    if (loop_thread_start(&f->server) != 0)
        return -1;
    return irq_fds_allow(f->router, f->server.loop, &err);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    irq_attach_fds(f->router, NULL, NULL);
    irq_router_destroy(f->router);
    loop_thread_stop(&f->server);
    log_destroy(f->log);
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->heard);
    free(f);
    return 0;
}

static void attach(struct fixture *f)
{
    irq_attach_fds(f->router, engine_set, &f->engine);
}

static void detach(struct fixture *f)
{
    irq_attach_fds(f->router, NULL, NULL);
}

static void count_up(const struct irq_fd *fd)
{
    uint64_t one = 1;

    assert_int_equal(write(irq_fd_descriptor(fd), &one, sizeof(one)), sizeof(one));
}

static uint64_t counted(const struct irq_fd *fd)
{
    uint64_t count = 0;

    if (read(irq_fd_descriptor(fd), &count, sizeof(count)) < 0)
        assert_int_equal(errno, EAGAIN);
    return count;
}

/* Waits until the board's have had that many messages. */
static void heard(struct fixture *f, unsigned messages, uint8_t vector)
{
    pthread_mutex_lock(&f->lock);
    while (f->messages < messages)
        pthread_cond_wait(&f->heard, &f->lock);
    assert_int_equal(f->messages, messages);
    assert_int_equal(f->last.vector, vector);
    pthread_mutex_unlock(&f->lock);
}

/* All that the loop had to do is done. */
static void done(void *ctx)
{
    struct fixture *f = ctx;

    pthread_mutex_lock(&f->lock);
    f->messages += 1000;
    pthread_cond_signal(&f->heard);
    pthread_mutex_unlock(&f->lock);
}

static void nothing_more(struct fixture *f, unsigned messages)
{
    for (unsigned turn = 0; turn < 2; turn++) { /* the second comes after what polling found */
        assert_int_equal(loop_post(f->server.loop, done, f), 0);
        pthread_mutex_lock(&f->lock);
        while (f->messages < 1000)
            pthread_cond_wait(&f->heard, &f->lock);
        f->messages -= 1000;
        assert_int_equal(f->messages, messages);
        pthread_mutex_unlock(&f->lock);
    }
}

static void test_not_allowed(void **state)
{
    struct irq_router *r = irq_router_create(NULL);

    (void)state;
    assert_false(irq_fds_allowed(r));
    assert_null(irq_fd_create(r));
    irq_attach_fds(r, engine_set, NULL);
    irq_pin(r, 3, &fixed, false);
    irq_deliver_pin(r, 3, &fixed);
    irq_router_destroy(r);
}

static void test_on_the_loop(void **state)
{
    struct fixture *f = *state;
    struct irq_fd *fd = irq_fd_create(f->router);

    irq_fd_message(fd, &fixed);
    count_up(fd);
    heard(f, 1, 0x41);
    irq_fd_send(fd, &fixed);
    heard(f, 2, 0x41);
    assert_int_equal(counted(fd), 0);
    nothing_more(f, 2);
    assert_int_equal(irq_fds_sent(f->router), 0);
    irq_fd_free(fd);
}

static void test_taken(void **state)
{
    struct fixture *f = *state;
    struct irq_fd *fd = irq_fd_create(f->router), *second = irq_fd_create(f->router);

    attach(f);
    assert_int_equal(f->engine.calls, 0); /* no message yet */
    irq_fd_message(fd, &fixed);
    irq_fd_message(fd, &fixed);
    assert_int_equal(f->engine.calls, 1);
    assert_true(f->engine.at[24].taken);
    assert_int_equal(f->engine.at[24].msg.vector, 0x41);
    irq_fd_message(fd, &other);
    assert_int_equal(f->engine.at[24].msg.vector, 0x42);
    assert_int_equal(f->engine.at[24].msg.dest, 3);
    irq_fd_message(second, &fixed);
    assert_true(f->engine.at[25].taken);
    irq_fd_send(fd, &other);
    count_up(fd);
    nothing_more(f, 0); /* the loop keeps off */
    assert_int_equal(counted(fd), 2);
    assert_int_equal(irq_fds_sent(f->router), 1);
    irq_fd_free(fd);
    assert_false(f->engine.at[24].taken);
    fd = irq_fd_create(f->router); /* the slot is free again */
    irq_fd_message(fd, &fixed);
    assert_true(f->engine.at[24].taken);
    irq_fd_free(fd);
    irq_fd_free(second);
    irq_fd_free(NULL);
}

/* What is on its way when the engine gives it back is not lost, nor what comes while it is here. */
static void test_given_back(void **state)
{
    struct fixture *f = *state;
    struct irq_fd *fd = irq_fd_create(f->router);

    irq_fd_message(fd, &fixed);
    attach(f);
    assert_true(f->engine.at[24].taken);
    irq_fd_send(fd, &fixed);
    nothing_more(f, 0);
    detach(f);
    assert_false(f->engine.at[24].taken);
    heard(f, 1, 0x41);
    irq_fd_send(fd, &fixed);
    heard(f, 2, 0x41);
    attach(f);
    assert_true(f->engine.at[24].taken);
    attach(f); /* another engine, say */
    assert_true(f->engine.at[24].taken);
    nothing_more(f, 2);
    irq_fd_free(fd);
}

static void test_masked(void **state)
{
    struct fixture *f = *state;
    struct irq_fd *fd = irq_fd_create(f->router);

    count_up(fd);
    nothing_more(f, 0);
    irq_fd_message(fd, &fixed);
    heard(f, 1, 0x41);
    irq_fd_message(fd, NULL);
    count_up(fd);
    count_up(fd);
    nothing_more(f, 1);
    irq_fd_message(fd, &other);
    heard(f, 2, 0x42); /* the two are one */
    attach(f);
    irq_fd_message(fd, NULL);
    assert_false(f->engine.at[24].taken);
    count_up(fd);
    nothing_more(f, 2);
    irq_fd_message(fd, &fixed); /* it is the engine's, with its count */
    assert_true(f->engine.at[24].taken);
    assert_int_equal(counted(fd), 1);
    irq_fd_free(fd);
}

/* What the kernel's APICs do not take is sent from here, whoever writes. */
static void test_not_plain(void **state)
{
    static const uint8_t kinds[] = {IRQ_SMI, IRQ_INIT, IRQ_EXTINT};
    struct fixture *f = *state;
    struct irq_fd *fd = irq_fd_create(f->router);
    struct irq_message msg = fixed;
    unsigned n = 0;

    attach(f);
    for (unsigned i = 0; i < countof(kinds); i++) {
        msg.delivery = IRQ_NMI;
        irq_fd_message(fd, &msg);
        assert_true(f->engine.at[24].taken);
        msg.delivery = kinds[i];
        irq_fd_message(fd, &msg);
        assert_false(f->engine.at[24].taken);
        count_up(fd);
        heard(f, ++n, 0x41);
        irq_fd_send(fd, &msg);
        heard(f, ++n, 0x41);
    }
    irq_fd_free(fd);
}

static void test_refused(void **state)
{
    struct fixture *f = *state;
    struct irq_fd *fd = irq_fd_create(f->router);

    f->engine.refuse_from = 24;
    attach(f);
    irq_fd_message(fd, &fixed);
    assert_false(f->engine.at[24].taken);
    count_up(fd);
    heard(f, 1, 0x41);
    irq_fd_send(fd, &fixed);
    heard(f, 2, 0x41);
    f->engine.refuse_from = 40;
    irq_fd_message(fd, &other);
    assert_true(f->engine.at[24].taken);
    f->engine.refuse_from = 24; /* a change of its message that is refused takes it back */
    irq_fd_message(fd, &fixed);
    assert_false(f->engine.at[24].taken);
    count_up(fd);
    heard(f, 3, 0x41);
    irq_fd_free(fd);
}

static void test_pins(void **state)
{
    struct fixture *f = *state;

    irq_pin(f->router, 5, &fixed, true);
    attach(f);
    assert_false(f->engine.at[5].taken);
    irq_pin(f->router, 5, &fixed, false);
    assert_true(f->engine.at[5].taken);
    irq_deliver_pin(f->router, 5, &fixed);
    nothing_more(f, 0);
    assert_int_equal(irq_fds_sent(f->router), 1);
    irq_pin(f->router, 5, &fixed, true);
    assert_false(f->engine.at[5].taken);
    irq_deliver_pin(f->router, 6, &other); /* a pin that nobody has told of */
    heard(f, 1, 0x42);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_not_allowed),
        cmocka_unit_test_setup_teardown(test_on_the_loop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(test_given_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_masked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_plain, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pins, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
