/*
 * The programs that tools/bench.sh runs on the host, in xhyve and in qemu. All are in one static
 * binary, so that a guest needs nothing else. A program is a round that main.c repeats: the number
 * of rounds is the scale, and each round does the same work from the same start, so that its
 * checksum is a constant that stands in table.c, whatever the scale. Single-threaded.
 */
#ifndef BENCH_XBENCH_H
#define BENCH_XBENCH_H

#include <stddef.h>
#include <stdint.h>

struct program {
    const char *name;
    const char *group; /* the geometric mean it goes into */
    unsigned rounds;   /* at scale 1: some 0.2 s on a machine of 2023 */
    uint64_t sum;      /* what each round returns */
    uint64_t (*round)(void);
    void (*setup)(void);        /* not timed; may be NULL */
    const char *(*unfit)(void); /* why it cannot run on this CPU, or NULL; may be NULL */
};

extern const struct program programs[];
extern const size_t program_count;

/* The path of this binary, for what executes it again. */
extern const char *self_path;

/* Ends with a sentence if ok is false; errno says why. */
void need(int ok, const char *what);
void *need_memory(size_t size);

/* Keeps the compiler from knowing what is in memory, so that no round is done once for all. */
#define BARRIER() __asm__ volatile("" : : : "memory")
#define KEEP(value) __asm__ volatile("" : : "r"(value) : "memory")

static inline uint32_t next_random(uint32_t *state)
{
    uint32_t x = *state;

    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *state = x;
}

static inline uint64_t mix(uint64_t sum, uint64_t value)
{
    sum ^= value;
    sum *= UINT64_C(0x9e3779b97f4a7c15);
    return sum ^ (sum >> 29);
}

/* Text with some repetition, as compressors and parsers meet it. Fills size bytes, the last a NUL.
 */
void make_text(char *text, size_t size);

/* compute.c */
void list_setup(void);
uint64_t list_round(void);
void matint_setup(void);
uint64_t matint_round(void);
void crc32_setup(void);
uint64_t crc32_round(void);
uint64_t sieve_round(void);
void sha256_setup(void);
uint64_t sha256_round(void);
void chase_setup(void);
uint64_t chase_round(void);
void hash_setup(void);
uint64_t hash_round(void);
void sort_setup(void);
uint64_t sort_round(void);
uint64_t qsort_round(void);

/* calls.c */
uint64_t fib_round(void);
void virtual_setup(void);
uint64_t virtual_round(void);
void indirect_setup(void);
uint64_t indirect_round(void);
uint64_t interp_round(void);
void state_setup(void);
uint64_t state_round(void);

/* text.c */
void awk_setup(void);
uint64_t awk_round(void);
void lz_setup(void);
uint64_t pack_round(void);
uint64_t unpack_round(void);

/* real.c */
void matsse_setup(void);
uint64_t matsse_round(void);
uint64_t nbody_round(void);
uint64_t x87_round(void);
const char *avx2_unfit(void);
void avx2_setup(void);
uint64_t avx2_round(void);
void stride_setup(void);
uint64_t stride_round(void);

/* strings.c */
void copy_setup(void);
uint64_t movs_round(void);
uint64_t stos_round(void);
uint64_t ssecopy_round(void);
void libc_setup(void);
uint64_t libc_round(void);
void scan_setup(void);
uint64_t scan_round(void);

/* system.c */
uint64_t syscall_round(void);
void exec_setup(void);
uint64_t exec_round(void);
void pipe_setup(void);
uint64_t pipe_round(void);
void fault_setup(void);
uint64_t fault_round(void);
void signal_setup(void);
uint64_t signal_round(void);
uint64_t mmap_round(void);
void switch_setup(void);
uint64_t switch_round(void);

#endif
