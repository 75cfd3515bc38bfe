/*
 * Reads and writes a block device past the guest's cache, for tools/bench-disk.sh:
 *     xdisk DEVICE SECONDS
 * prints a line for each kind of load:  disk NAME REQUESTS SECONDS
 * Requests are queued by the kernel's own asynchronous I/O, so that no library is needed. What the
 * device held is lost.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define DEPTH_MAX 32u
#define LOAD_MAX (1u << 20)

static const struct load {
    const char *name;
    bool write, random;
    unsigned size, depth;
} loads[] = {
    {"read-4k-1", false, true, 4096, 1},         {"read-4k-32", false, true, 4096, 32},
    {"write-4k-1", true, true, 4096, 1},         {"write-4k-32", true, true, 4096, 32},
    {"read-1m-4", false, false, 1024 * 1024, 4}, {"write-1m-4", true, false, 1024 * 1024, 4},
};

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const char *what)
{
    fprintf(stderr, "xdisk: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* Places of requests: the same numbers in every run. */
static uint64_t next_place(const struct load *l, uint64_t blocks, uint64_t *state)
{
    if (!l->random)
        return (*state)++ % blocks;
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return (*state >> 20) % blocks;
}

static void run(const struct load *l, int fd, uint64_t bytes, double seconds)
{
    struct iocb cb[DEPTH_MAX], *one;
    struct io_event event[DEPTH_MAX];
    uint64_t done = 0, state = 1, blocks = bytes / l->size;
    aio_context_t ctx = 0;
    double start, end;
    void *buffer;

    if (posix_memalign(&buffer, 4096, (size_t)l->depth * l->size) != 0)
        die("memory");
    memset(buffer, 0x5a, (size_t)l->depth * l->size);
    if (syscall(SYS_io_setup, l->depth, &ctx) != 0)
        die("io_setup");
    start = now();
    for (unsigned i = 0; i < l->depth; i++) {
        memset(&cb[i], 0, sizeof(cb[i]));
        cb[i].aio_data = i;
        cb[i].aio_fildes = (uint32_t)fd;
        cb[i].aio_lio_opcode = l->write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
        cb[i].aio_buf = (uint64_t)(uintptr_t)buffer + (uint64_t)i * l->size;
        cb[i].aio_nbytes = l->size;
        cb[i].aio_offset = (int64_t)(next_place(l, blocks, &state) * l->size);
        one = &cb[i];
        if (syscall(SYS_io_submit, ctx, 1L, &one) != 1)
            die("io_submit");
    }
    do {
        long n = syscall(SYS_io_getevents, ctx, 1L, (long)l->depth, event, NULL);

        if (n < 1)
            die("io_getevents");
        for (long i = 0; i < n; i++) {
            if (event[i].res != (int64_t)l->size) {
                errno = event[i].res < 0 ? (int)-event[i].res : EIO;
                die(l->name);
            }
            done++;
            one = &cb[event[i].data];
            one->aio_offset = (int64_t)(next_place(l, blocks, &state) * l->size);
            if (syscall(SYS_io_submit, ctx, 1L, &one) != 1)
                die("io_submit");
        }
        end = now();
    } while (end - start < seconds);
    syscall(SYS_io_destroy, ctx); /* waits for the rest */
    free(buffer);
    printf("disk %s %llu %.3f\n", l->name, (unsigned long long)done, end - start);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    uint64_t bytes = 0;
    int fd;

    if (argc != 3) {
        fprintf(stderr, "usage: xdisk DEVICE SECONDS\n");
        return 2;
    }
    fd = open(argv[1], O_RDWR | O_DIRECT);
    if (fd < 0 || ioctl(fd, BLKGETSIZE64, &bytes) != 0)
        die(argv[1]);
    if (bytes < 64u * LOAD_MAX) {
        fprintf(stderr, "xdisk: %s: has less than 64 MiB\n", argv[1]);
        return 1;
    }
    for (unsigned i = 0; i < sizeof(loads) / sizeof(loads[0]); i++)
        run(&loads[i], fd, bytes, atof(argv[2]));
    return 0;
}
