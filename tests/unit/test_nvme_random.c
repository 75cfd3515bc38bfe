/*
 * A random driver against the NVMe controller: several queues, many commands under way, a disk that
 * ends them in any order and sometimes fails, queues deleted and made again, resets, snapshots,
 * shadow doorbells. Every command must come back once, with its status and its data. Then a driver
 * that writes nonsense everywhere, after which the controller must still work.
 *
 *     test_nvme_random [SEED]      the seed is printed
 */
#include <time.h>

#include "nvme_fixture.h"

#define PAIRS 4u
#define CHUNK 0x10000u /* of the disk; each is in use by one command at most */
#define CHUNKS (DISK_SIZE / CHUNK)
#define AREA(i) (0x400000ull + (i)*0x20000ull) /* memory of the command on chunk i */
#define SHADOW 0x3E0000ull
#define EVENTIDX 0x3E1000ull
#define STEPS 30000u

static uint64_t seed;

static uint32_t rnd(uint32_t below)
{
    static uint64_t x;

    if (x == 0)
        x = seed * 0x9E3779B97F4A7C15ull | 1;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return (uint32_t)((x >> 33) % below);
}

struct op {
    bool busy;
    uint8_t code;
    unsigned sq;
    uint16_t cid;
    uint64_t at; /* on the disk */
    unsigned len, status;
    unsigned pieces;
    struct {
        uint64_t gpa;
        unsigned len;
    } piece[20];
};

struct world {
    struct drv *d;
    uint8_t *model; /* what the disk must hold */
    struct op ops[CHUNKS];
    bool shadow;
    uint32_t rung[PAIRS + 1]; /* the tail that was last told */
    unsigned cq_of[PAIRS + 1];
    unsigned waiting[PAIRS + 1]; /* commands in a submission queue, not completed */
    unsigned long done, failed, resets, snapshots, deletions;
};

/* Linux's rule for when the controller wants to hear of it. */
static bool wants(uint16_t event, uint16_t new, uint16_t old)
{
    return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

static void tell(struct world *w, unsigned q, bool cq, uint32_t old, uint32_t value)
{
    uint64_t at = 8ull * q + (cq ? 4 : 0);

    if (w->shadow) {
        gmem_write(w->d->m.mem, SHADOW + at, &value, 4);
        if (!wants((uint16_t)gmem_read32(w->d->m.mem, EVENTIDX + at), (uint16_t)value,
                   (uint16_t)old))
            return;
    }
    set_reg(w->d, (unsigned)(0x1000 + at), value);
}

static void make_queues(struct world *w)
{
    struct drv *d = w->d;

    enable(d);
    w->shadow = rnd(2) != 0;
    if (w->shadow) {
        gmem_fill(d->m.mem, SHADOW, 0, 0x2000);
        assert_int_equal(admin(d, (struct sqe){.op = 0x7C, .prp1 = SHADOW, .prp2 = EVENTIDX}), 0);
    }
    for (unsigned q = 1; q <= PAIRS; q++)
        assert_int_equal(create_cq(d, q, 2 + rnd(10), 0), 0);
    for (unsigned q = 1; q <= PAIRS; q++) {
        w->cq_of[q] = 1 + rnd(PAIRS);
        w->rung[q] = 0;
        w->waiting[q] = 0;
        assert_int_equal(create_sq(d, q, 2 + rnd(30), w->cq_of[q]), 0);
    }
}

/* PRPs for len bytes in the chunk's area: pages in any order, lists anywhere. */
static void lay_out(struct world *w, unsigned chunk, struct op *o, struct sqe *e)
{
    uint64_t area = AREA(chunk), list = area + 0x1E000 + 8 * rnd(512);
    unsigned offset = 4 * rnd(1024), left = o->len, order[28];
    uint64_t entry;

    for (unsigned i = 0; i < 28; i++)
        order[i] = i;
    for (unsigned i = 27; i > 0; i--) {
        unsigned j = rnd(i + 1), t = order[i];

        order[i] = order[j];
        order[j] = t;
    }
    o->pieces = 0;
    for (unsigned i = 0; left > 0; i++) {
        unsigned room = i == 0 ? 0x1000 - offset : 0x1000, n = left < room ? left : room;

        o->piece[i].gpa = area + 0x1000ull * order[i] + (i == 0 ? offset : 0);
        o->piece[i].len = n;
        o->pieces++;
        left -= n;
    }
    e->prp1 = o->piece[0].gpa;
    e->prp2 = o->pieces == 2 ? o->piece[1].gpa : o->pieces > 2 ? list : 0xDEAD;
    for (unsigned i = 1; o->pieces > 2 && i < o->pieces; i++) {
        if ((list & 0xFFF) == 0xFF8 && i + 1 < o->pieces) {
            entry = area + 0x1F000;
            gmem_write(w->d->m.mem, list, &entry, 8);
            list = entry;
        }
        gmem_write(w->d->m.mem, list, &o->piece[i].gpa, 8);
        list += 8;
    }
}

static void fill(struct world *w, struct op *o)
{
    uint8_t bytes[4096];

    for (unsigned i = 0; i < o->pieces; i++) {
        uint8_t x = (uint8_t)rnd(256);

        for (unsigned k = 0; k < o->piece[i].len; k++)
            bytes[k] = (uint8_t)(x += (uint8_t)(k | 1));
        gmem_write(w->d->m.mem, o->piece[i].gpa, bytes, o->piece[i].len);
    }
}

static bool sq_full(struct world *w, unsigned q)
{
    return w->waiting[q] >= w->d->sq[q].size - 1;
}

static void begin(struct world *w)
{
    static const uint8_t codes[] = {0, 1, 1, 1, 2, 2, 2, 8, 9, 0x55};
    unsigned chunk = rnd(CHUNKS), q = 1 + rnd(PAIRS);
    struct op *o = &w->ops[chunk];
    uint64_t range[2];
    struct sqe e;

    if (o->busy || sq_full(w, q))
        return;
    *o = (struct op){.busy = true, .code = codes[rnd(countof(codes))], .sq = q};
    o->at = (uint64_t)chunk * CHUNK + 512 * rnd(CHUNK / 512);
    o->len = 512 * (1 + rnd((unsigned)(CHUNK - o->at % CHUNK) / 512));
    e = rw(o->code, o->at / 512, o->len / 512, 0, 0);
    if (o->code == 1 || o->code == 2)
        lay_out(w, chunk, o, &e);
    if (o->code == 1)
        fill(w, o);
    if (o->code == 9) {
        range[0] = (uint64_t)(o->len / 512) << 32;
        range[1] = o->at / 512;
        e.prp1 = AREA(chunk);
        gmem_write(w->d->m.mem, e.prp1, range, sizeof(range));
        e.dw10 = 0;
        e.dw11 = 4;
    }
    if (o->code == 0x55)
        o->status = 1;
    o->cid = put(w->d, q, &e);
    w->waiting[q]++;
}

static void ring(struct world *w)
{
    unsigned q = 1 + rnd(PAIRS);
    uint32_t tail = w->d->sq[q].at;

    if (tail == w->rung[q])
        return;
    tell(w, q, false, w->rung[q], tail);
    w->rung[q] = tail;
}

/* The disk ends one, in any order. A failed one was not carried out. */
static void end_one(struct world *w)
{
    static const int errors[] = {-EIO, -ENOSPC};
    unsigned n;

    if (disk->count == 0)
        return;
    n = rnd(disk->count);
    if (rnd(20) == 0 && disk->queue[n]->op != BLOCK_FLUSH) {
        uint64_t chunk = disk->queue[n]->offset / CHUNK;
        int rc = errors[rnd(2)];
        struct op *o = &w->ops[chunk];

        o->status = rc == -ENOSPC ? 0x81 : o->code == 2 ? 0x281 : 0x280;
        disk_finish(n, rc);
    } else {
        disk_finish(n, 0);
    }
}

/* Data as it must be; the model as it is now. */
static void judge(struct world *w, struct op *o, unsigned status)
{
    uint8_t *m = w->model + o->at;

    assert_int_equal(status & 0x7FF, o->status);
    if (o->status != 0)
        w->failed++;
    else if (o->code == 8 || o->code == 9)
        memset(m, o->code == 8 ? 0 : 0xDD, o->len);
    for (unsigned i = 0; o->status == 0 && i < o->pieces; i++) {
        const uint8_t *p = gmem_ptr_ro(w->d->m.mem, o->piece[i].gpa, o->piece[i].len);

        if (o->code == 1)
            memcpy(m, p, o->piece[i].len);
        else
            assert_memory_equal(m, p, o->piece[i].len);
        m += o->piece[i].len;
    }
    assert_memory_equal(w->model + o->at, disk->data + o->at, o->len);
    o->busy = false;
    w->waiting[o->sq]--;
    w->done++;
}

static void reap(struct world *w, unsigned q, unsigned most)
{
    uint32_t old = w->d->cq[q].at;
    struct cqe c;
    unsigned n = 0;

    while (n < most && take(w->d, q, &c, false)) {
        struct op *o = NULL;

        for (unsigned i = 0; i < CHUNKS; i++)
            if (w->ops[i].busy && w->ops[i].cid == c.cid)
                o = &w->ops[i];
        assert_non_null(o);
        assert_int_equal(o->sq, c.sqid);
        assert_int_equal(w->cq_of[c.sqid], q);
        assert_true(c.sqhd < w->d->sq[c.sqid].size);
        judge(w, o, c.status);
        n++;
    }
    if (n != 0)
        tell(w, q, true, old, w->d->cq[q].at);
}

/* After a reset: what was under way is done or not. */
static void forget(struct world *w, unsigned sq)
{
    for (unsigned i = 0; i < CHUNKS; i++) {
        if (!w->ops[i].busy || (sq != 0 && w->ops[i].sq != sq))
            continue;
        memcpy(w->model + (size_t)i * CHUNK, disk->data + (size_t)i * CHUNK, CHUNK);
        w->ops[i].busy = false;
    }
}

static void reset(struct world *w)
{
    if (rnd(2) != 0) {
        disable(w->d);
    } else {
        pci_reset(w->d->m.pci);
        cfgw(&w->d->m, SLOT, 0, 4, 2, 6);
    }
    assert_int_equal(disk->count, 0);
    forget(w, 0);
    assert_memory_equal(w->model, disk->data, DISK_SIZE);
    make_queues(w);
    w->resets++;
}

static void delete_queue(struct world *w)
{
    unsigned q = 1 + rnd(PAIRS);
    struct cqe c;

    put(w->d, 0, &(struct sqe){.op = 0, .dw10 = q});
    ring_sq(w->d, 0);
    while (!take(w->d, 0, &c, true)) {
        assert_true(disk->count > 0);
        end_one(w);
    }
    assert_int_equal(c.status, 0);
    for (unsigned i = 1; i <= PAIRS; i++) /* what was told before the end counts */
        reap(w, i, ~0u);
    forget(w, q);
    w->waiting[q] = 0;
    w->rung[q] = 0;
    if (w->shadow)
        gmem_fill(w->d->m.mem, SHADOW + 8 * q, 0, 4);
    assert_int_equal(create_sq(w->d, q, 2 + rnd(30), w->cq_of[q]), 0);
    w->deletions++;
}

static void step_world(struct world *w)
{
    unsigned what = rnd(1000);

    if (what < 400)
        begin(w);
    else if (what < 550)
        ring(w);
    else if (what < 800)
        end_one(w);
    else if (what < 985)
        reap(w, 1 + rnd(PAIRS), 1 + rnd(4));
    else if (what < 990)
        delete_queue(w);
    else if (what < 993)
        reset(w);
    else if (what < 996) {
        machine_save_load(&w->d->m);
        timerq_step(w->d->m.timers, 1);
        w->snapshots++;
    } else {
        disk->manual = !disk->manual;
    }
}

static void finish_all(struct world *w)
{
    for (unsigned i = 0; i < 10000; i++) {
        ring(w);
        end_one(w);
        reap(w, 1 + rnd(PAIRS), ~0u);
    }
    for (unsigned i = 0; i < CHUNKS; i++)
        assert_false(w->ops[i].busy);
    assert_false(irq_gsi_level(w->d->m.irqs, 16 + SLOT)); /* the wire of INTx fell with the last */
    assert_memory_equal(w->model, disk->data, DISK_SIZE);
}

static void test_driver(void **state)
{
    struct world w = {0};

    (void)state;
    disk_geometry.discard = true;
    w.d = nvme_start("path=x,maxq=4,qsz=64,ioslots=24");
    w.model = calloc(1, DISK_SIZE);
    make_queues(&w);
    disk->manual = true;
    for (unsigned i = 0; i < STEPS; i++)
        step_world(&w);
    finish_all(&w);
    assert_int_equal(w.d->m.guest_errors > 0, w.failed > 0);
    printf("%lu commands, %lu of them failed, %lu resets, %lu deletions, %lu snapshots, "
           "%u under way at once\n",
           w.done, w.failed, w.resets, w.deletions, w.snapshots, disk->most);
    assert_true(w.done > STEPS / 20 && disk->most > 8);
    free(w.model);
    nvme_stop(w.d);
    disk_geometry = usual_geometry;
}

/* Memory full of commands that are nearly right; registers and doorbells at random. */
static void nonsense(struct drv *d)
{
    uint8_t e[64];

    for (unsigned i = 0; i < 200; i++) {
        uint64_t at = rnd(3) == 0 ? ASQ + 64 * rnd(16) : IOSQ(1 + rnd(4)) + 64 * rnd(32);

        for (unsigned k = 0; k < 64; k += 4)
            le32_store(e + k, rnd(4) == 0 ? rnd(0xFFFFFFFF) : rnd(2) * 0x1000 * rnd(0x1100));
        e[0] = (uint8_t)(rnd(10) == 0 ? rnd(256) : rnd(13));
        e[1] = (uint8_t)(rnd(10) == 0 ? rnd(256) : 0);
        le32_store(e + 4, rnd(10) == 0 ? rnd(0xFFFFFFFF) : rnd(2));
        le32_store(e + 28, rnd(10) == 0 ? 0xFFFFFFFF : 0);
        le32_store(e + 36, rnd(10) == 0 ? 0xFFFFFFFF : 0);
        if (rnd(2) == 0) { /* queues: small numbers */
            le32_store(e + 40, rnd(70) << 16 | rnd(6));
            le32_store(e + 44, rnd(6) << 16 | rnd(4));
            le32_store(e + 24, (uint32_t)IOSQ(1 + rnd(4)));
        }
        gmem_write(d->m.mem, at, e, 64);
    }
    for (unsigned i = 0; i < 100; i++) {
        unsigned what = rnd(20);

        if (what < 12)
            set_reg(d, 0x1000 + 4 * rnd(12), rnd(20) == 0 ? rnd(0xFFFFFFFF) : rnd(18));
        else if (what < 16)
            end_one(&(struct world){.d = d});
        else if (what < 17)
            mmio_out(&d->m, d->bar + rnd(0x1100), 1u << rnd(4), rnd(0xFFFFFFFF));
        else if (what < 18)
            disk->manual = !disk->manual;
        else if (rnd(30) == 0)
            set_reg(d, 0x14, 0x00460000 | rnd(2) << 14 | rnd(2));
        else if (rnd(50) == 0)
            machine_save_load(&d->m);
    }
}

static void test_nonsense(void **state)
{
    struct sqe e = rw(2, 0, 8, DATA, 0);

    (void)state;
    disk_geometry.discard = true;
    for (unsigned i = 0; i < 60; i++) {
        struct drv *d = nvme_start("path=x,maxq=4,qsz=64,ioslots=8");

        enable(d);
        create_pair(d, 1, 16);
        create_pair(d, 2, 8);
        for (unsigned k = 0; k < 20; k++)
            nonsense(d);
        set_reg(d, 0x14, 0);
        disk->manual = false;
        enable(d);
        create_pair(d, 1, 16);
        assert_int_equal(run(d, 1, &e, NULL), 0);
        nvme_stop(d);
    }
    disk_geometry = usual_geometry;
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_driver),
        cmocka_unit_test(test_nonsense),
    };

    seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL);
    printf("seed %llu\n", (unsigned long long)seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
