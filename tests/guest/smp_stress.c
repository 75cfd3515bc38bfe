/*
 * Threads of a guest against each other: atomic operations, locks, the order of memory accesses,
 * translations that are taken away, instructions that another thread has written. For a Linux with
 * several processors; a static program, run as
 *
 *     smp_stress [SECONDS [THREADS]]
 *
 * Each check says its name and how often it was tried; status 1 if one failed.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 16u

static unsigned threads;
static double seconds;
static unsigned failed;
static atomic_bool stop;
static pthread_barrier_t begin;

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void report(const char *what, uint64_t tried, bool ok)
{
    printf("%s %s (%llu times)\n", ok ? "ok" : "FAIL", what, (unsigned long long)tried);
    fflush(stdout);
    failed += !ok;
}

struct worker {
    pthread_t id;
    unsigned n;
    uint64_t count, wrong;
} worker[THREADS_MAX];

/* fn on n threads, each on a processor of its own where there are as many, for the given time. */
static void race(void *(*fn)(void *), unsigned n, double time)
{
    double end;

    atomic_store(&stop, false);
    pthread_barrier_init(&begin, NULL, n + 1);
    for (unsigned i = 0; i < n; i++) {
        cpu_set_t set;

        worker[i] = (struct worker){.n = i};
        pthread_create(&worker[i].id, NULL, fn, &worker[i]);
        CPU_ZERO(&set);
        CPU_SET(i % (unsigned)sysconf(_SC_NPROCESSORS_ONLN), &set);
        pthread_setaffinity_np(worker[i].id, sizeof(set), &set);
    }
    pthread_barrier_wait(&begin);
    for (end = now() + time; now() < end;)
        usleep(10000);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < n; i++)
        pthread_join(worker[i].id, NULL);
    pthread_barrier_destroy(&begin);
}

static uint64_t sum(unsigned n)
{
    uint64_t s = 0;

    for (unsigned i = 0; i < n; i++)
        s += worker[i].count;
    return s;
}

static uint64_t wrongs(unsigned n)
{
    uint64_t s = 0;

    for (unsigned i = 0; i < n; i++)
        s += worker[i].wrong;
    return s;
}

/* ---- atomic operations ---- */

static struct {
    _Alignas(4096) uint8_t room[8192];
} split; /* of two lines, of two pages */

static _Alignas(64) struct {
    uint64_t xadd, cmpxchg, dec, inc, orand, spun;
    uint32_t word;
    uint16_t half;
    uint8_t byte;
    _Alignas(16) uint64_t pair[2];
    atomic_uint lock;
} shared;

#define LINE_AT (64u - 3u)
#define PAGE_AT (4096u - 3u)

static void lock_inc(void *p)
{
    __asm__ volatile("lock incq (%0)" : : "r"(p) : "memory", "cc");
}

static void *atomics(void *arg)
{
    struct worker *w = arg;

    pthread_barrier_wait(&begin);
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        uint64_t one = 1, old, want[2];
        uint32_t unlocked = 0;
        bool done;

        __asm__ volatile("lock xaddq %0, %1" : "+r"(one), "+m"(shared.xadd) : : "cc");
        old = __atomic_load_n(&shared.cmpxchg, __ATOMIC_RELAXED);
        while (!__atomic_compare_exchange_n(&shared.cmpxchg, &old, old + 1, false, __ATOMIC_SEQ_CST,
                                            __ATOMIC_RELAXED))
            ;
        __asm__ volatile("lock decq %0" : "+m"(shared.dec) : : "cc");
        __asm__ volatile("lock addl $1, %0" : "+m"(shared.word) : : "cc");
        __asm__ volatile("lock subw $-1, %0" : "+m"(shared.half) : : "cc");
        __asm__ volatile("lock incb %0" : "+m"(shared.byte) : : "cc");
        /* a bit of one's own, beside those of others */
        __asm__ volatile("lock btsq %1, %0" : "+m"(shared.orand) : "r"((uint64_t)w->n) : "cc");
        w->wrong += !(__atomic_load_n(&shared.orand, __ATOMIC_RELAXED) >> w->n & 1);
        __asm__ volatile("lock btrq %1, %0" : "+m"(shared.orand) : "r"((uint64_t)w->n) : "cc");
        w->wrong += __atomic_load_n(&shared.orand, __ATOMIC_RELAXED) >> w->n & 1;
        want[0] = __atomic_load_n(&shared.pair[0], __ATOMIC_RELAXED);
        want[1] = __atomic_load_n(&shared.pair[1], __ATOMIC_RELAXED);
        do {
            __asm__ volatile("lock cmpxchg16b %1"
                             : "=@ccz"(done), "+m"(shared.pair), "+a"(want[0]), "+d"(want[1])
                             : "b"(want[0] + 1), "c"(want[1] + 3)
                             : "memory");
        } while (!done);
        while (!atomic_compare_exchange_weak(&shared.lock, &unlocked, 1)) {
            unlocked = 0;
            __builtin_ia32_pause();
        }
        shared.spun++;
        __asm__ volatile("xchgl %0, %1" : "+r"(unlocked), "+m"(shared.lock) : : "memory");
        if (w->count % 64 == 0) {
            lock_inc(split.room + LINE_AT);
            lock_inc(split.room + PAGE_AT);
        }
        w->count++;
    }
    return NULL;
}

static void check_atomics(void)
{
    uint64_t n, line, page, rare = 0;

    memset(&shared, 0, sizeof(shared));
    race(atomics, threads, seconds);
    n = sum(threads);
    for (unsigned i = 0; i < threads; i++)
        rare += (worker[i].count + 63) / 64;
    memcpy(&line, split.room + LINE_AT, 8);
    memcpy(&page, split.room + PAGE_AT, 8);
    report("lock xadd", n, shared.xadd == n);
    report("lock cmpxchg", n, shared.cmpxchg == n);
    report("lock dec", n, shared.dec == 0 - n);
    report("lock add, 32 bits", n, shared.word == (uint32_t)n);
    report("lock sub, 16 bits", n, shared.half == (uint16_t)n);
    report("lock inc, 8 bits", n, shared.byte == (uint8_t)n);
    report("lock bts and btr", n, wrongs(threads) == 0 && shared.orand == 0);
    report("lock cmpxchg16b", n, shared.pair[0] == n && shared.pair[1] == 3 * n);
    report("a spin lock", n, shared.spun == n);
    report("lock inc over two lines", rare, line == rare);
    report("lock inc over two pages", rare, page == rare);
}

/* ---- locks that sleep ---- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static uint64_t guarded;
static unsigned turn;

static void *mutexes(void *arg)
{
    struct worker *w = arg;

    pthread_barrier_wait(&begin);
    while (!atomic_load(&stop)) {
        pthread_mutex_lock(&mutex);
        guarded++;
        pthread_mutex_unlock(&mutex);
        w->count++;
    }
    return NULL;
}

/* Each in its turn: a wake-up that is lost stops all. */
static void *turns(void *arg)
{
    struct worker *w = arg;

    pthread_barrier_wait(&begin);
    pthread_mutex_lock(&mutex);
    while (!atomic_load(&stop)) {
        while (turn % threads != w->n && !atomic_load(&stop))
            pthread_cond_wait(&cond, &mutex);
        turn++;
        w->count++;
        pthread_cond_broadcast(&cond);
    }
    pthread_mutex_unlock(&mutex);
    return NULL;
}

/* ---- the order of accesses; what x86 forbids ---- */

static struct {
    _Alignas(64) volatile uint32_t x;
    _Alignas(64) volatile uint32_t y;
    _Alignas(64) volatile uint32_t r[2];
    _Alignas(64) atomic_uint gate;
} order;

/* Both threads at once into a round; the second time they meet its results are there. */
static void meet(unsigned *round)
{
    *round += 2;
    atomic_fetch_add(&order.gate, 1);
    for (unsigned spin = 0; atomic_load(&order.gate) < *round && !atomic_load(&stop); spin++) {
        if (spin % 4096 == 4095)
            sched_yield();
    }
}

/* Stores stay in order, and loads: who sees the second store sees the first. */
static void *message(void *arg)
{
    struct worker *w = arg;

    pthread_barrier_wait(&begin);
    for (uint32_t i = 1; !atomic_load_explicit(&stop, memory_order_relaxed); i++) {
        if (w->n == 0) {
            order.x = i;
            order.y = i;
        } else {
            uint32_t y = order.y, x = order.x;

            w->wrong += (int32_t)(x - y) < 0;
        }
        w->count++;
    }
    return NULL;
}

/* Each stores, fences, loads the other's: not both may miss it. */
static void *fenced(void *arg)
{
    struct worker *w = arg;
    volatile uint32_t *mine = w->n == 0 ? &order.x : &order.y;
    volatile uint32_t *other = w->n == 0 ? &order.y : &order.x;
    unsigned round = 0;

    pthread_barrier_wait(&begin);
    while (!atomic_load(&stop)) {
        meet(&round);
        *mine = 1;
        if (w->count & 1)
            __asm__ volatile("mfence" : : : "memory");
        else
            __asm__ volatile("lock orl $0, (%%rsp)" : : : "memory", "cc");
        order.r[w->n] = *other;
        meet(&round);
        if (w->n == 0 && !atomic_load(&stop))
            w->wrong += order.r[0] == 0 && order.r[1] == 0;
        meet(&round);
        *mine = 0;
        w->count++;
    }
    return NULL;
}

/* ---- pages that go away ---- */

#define PAGES 8u

static uint8_t *window;
static int pages_fd;
static atomic_uint version; /* which of the file's pages the window shows */

static void *remap(void *arg)
{
    struct worker *w = arg;

    pthread_barrier_wait(&begin);
    while (!atomic_load(&stop)) {
        if (w->n == 0) {
            unsigned next = atomic_load(&version) + 1;

            mmap(window, 4096, PROT_READ, MAP_SHARED | MAP_FIXED, pages_fd, next % PAGES * 4096);
            atomic_store(&version, next);
            if (next % 64 == 0)
                sched_yield();
        } else {
            unsigned before = atomic_load(&version);
            unsigned seen = *(volatile uint32_t *)window;
            unsigned after = atomic_load(&version);

            /* what was shown when we looked, or what is about to be: never an older one */
            w->wrong += (seen - before) % PAGES > after + 1 - before && after - before < PAGES - 2;
        }
        w->count++;
    }
    return NULL;
}

static void check_remap(void)
{
    pages_fd = memfd_create("pages", 0);
    for (uint32_t i = 0; i < PAGES; i++) {
        if (pwrite(pages_fd, &i, sizeof(i), i * 4096) != sizeof(i))
            exit(2);
    }
    window = mmap(NULL, 4096, PROT_READ, MAP_SHARED, pages_fd, 0);
    race(remap, threads, seconds);
    report("a page in another one's place", sum(threads), wrongs(threads) == 0);
}

static _Thread_local sigjmp_buf fault;

static void on_fault(int sig)
{
    (void)sig;
    siglongjmp(fault, 1);
}

static atomic_uint protected_round; /* odd: the window is not to be written */

static void *protect(void *arg)
{
    struct worker *w = arg;

    pthread_barrier_wait(&begin);
    while (!atomic_load(&stop)) {
        if (w->n == 0) {
            mprotect(window, 4096, PROT_READ);
            atomic_fetch_add(&protected_round, 1);
            for (unsigned i = 0; i < 200; i++)
                __builtin_ia32_pause();
            atomic_fetch_add(&protected_round, 1);
            mprotect(window, 4096, PROT_READ | PROT_WRITE);
        } else {
            unsigned before = atomic_load(&protected_round);

            if (sigsetjmp(fault, 1) == 0) {
                ((volatile uint32_t *)window)[w->n] = before;
                /* it went well: then it was not forbidden all the time */
                w->wrong += before % 2 == 1 && atomic_load(&protected_round) == before;
            }
        }
        w->count++;
    }
    return NULL;
}

static void check_protect(void)
{
    struct sigaction sa = {.sa_handler = on_fault, .sa_flags = SA_NODEFER};

    sigaction(SIGSEGV, &sa, NULL);
    window = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    race(protect, threads, seconds);
    report("a page that may not be written any more", sum(threads), wrongs(threads) == 0);
    signal(SIGSEGV, SIG_DFL);
}

/* ---- instructions of another thread's ---- */

static uint8_t *code; /* mov eax, imm32; ret, the number at a multiple of four */
static atomic_uint written;

static void *cross(void *arg)
{
    struct worker *w = arg;
    uint32_t (*fn)(void) = (uint32_t(*)(void))(uintptr_t)(code + 3);

    pthread_barrier_wait(&begin);
    while (!atomic_load(&stop)) {
        if (w->n == 0) {
            uint32_t next = atomic_load(&written) + 1;

            __atomic_store_n((uint32_t *)(void *)(code + 4), next, __ATOMIC_RELAXED);
            atomic_store(&written, next);
            for (unsigned i = 0; i < 50; i++)
                __builtin_ia32_pause();
        } else {
            uint32_t before = atomic_load(&written), a = 0, b, c, d, seen;

            __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d)); /* serializes */
            seen = fn();
            w->wrong += (int32_t)(seen - before) < 0;
        }
        w->count++;
    }
    return NULL;
}

static void check_cross(void)
{
    static const uint8_t mov[] = {0xb8, 0, 0, 0, 0, 0xc3};

    code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(code + 3, mov, sizeof(mov));
    race(cross, threads, seconds);
    report("code that another thread writes", sum(threads), wrongs(threads) == 0);
}

/* A function is called at once after another thread has written it whole, elsewhere each time. */
static _Atomic(uint8_t *) fresh;

static void *publish(void *arg)
{
    static const uint8_t mov[] = {0xb8, 0, 0, 0, 0, 0xc3};
    struct worker *w = arg;

    pthread_barrier_wait(&begin);
    while (!atomic_load(&stop)) {
        if (w->n == 0) {
            uint8_t *at = code + 16 * (1 + w->count % 200);
            uint32_t number = (uint32_t)w->count;

            atomic_store(&fresh, NULL);
            for (unsigned i = 1; i < threads; i++) { /* nobody is in it: let them see that */
                while (__atomic_load_n(&worker[i].wrong, __ATOMIC_ACQUIRE) >> 63 &&
                       !atomic_load(&stop))
                    __builtin_ia32_pause();
            }
            memcpy(at, mov, sizeof(mov));
            memcpy(at + 1, &number, 4);
            atomic_store(&fresh, at);
            for (unsigned i = 0; i < 50; i++)
                __builtin_ia32_pause();
        } else {
            uint8_t *at;

            /* the top bit says that we are inside */
            __atomic_fetch_or(&w->wrong, 1ull << 63, __ATOMIC_SEQ_CST);
            at = atomic_load(&fresh);
            if (at != NULL) {
                uint32_t want, got = ((uint32_t(*)(void))(uintptr_t)at)();

                memcpy(&want, at + 1, 4);
                if (want != got)
                    w->wrong++;
            }
            __atomic_fetch_and(&w->wrong, ~(1ull << 63), __ATOMIC_SEQ_CST);
        }
        w->count++;
    }
    return NULL;
}

/* ---- processors' clocks ---- */

static atomic_uint_least64_t latest;

static void *clocks(void *arg)
{
    struct worker *w = arg;

    pthread_barrier_wait(&begin);
    while (!atomic_load(&stop)) {
        uint64_t seen = atomic_load(&latest), lo, hi, t;

        __asm__ volatile("lfence\n rdtsc" : "=a"(lo), "=d"(hi));
        t = hi << 32 | lo;
        w->wrong += t < seen;
        while (seen < t && !atomic_compare_exchange_weak(&latest, &seen, t))
            ;
        w->count++;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    seconds = argc > 1 ? atof(argv[1]) : 1;
    threads = argc > 2 ? (unsigned)atoi(argv[2]) : (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    if (threads < 2 || threads > THREADS_MAX)
        threads = threads < 2 ? 2 : THREADS_MAX;
    printf("%u threads on %ld processors, %g s each\n", threads, sysconf(_SC_NPROCESSORS_ONLN),
           seconds);
    check_atomics();
    race(mutexes, threads, seconds);
    report("a mutex", sum(threads), guarded == sum(threads));
    race(turns, threads, seconds);
    report("in turns", sum(threads), turn > threads);
    race(message, 2, seconds);
    report("stores in order, loads in order", sum(2), wrongs(2) == 0);
    order.x = order.y = 0;
    race(fenced, 2, seconds);
    report("store, fence, load", sum(2), wrongs(2) == 0);
    check_remap();
    check_protect();
    check_cross();
    race(publish, threads, seconds);
    report("a function that was written just now", sum(threads),
           (wrongs(threads) & ~(1ull << 63)) == 0);
    race(clocks, threads, seconds);
    report("clocks that never go back", sum(threads), wrongs(threads) == 0);
    printf("%s\n", failed == 0 ? "all is well" : "something failed");
    return failed != 0;
}
