#include "host/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#ifdef __linux__
#include <sys/sysinfo.h>
#endif
#include <unistd.h>

#include "base/bits.h"

#define HUGE_PAGE (2 * MIB)

#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif
#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif

static size_t page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static size_t round_pages(size_t size)
{
    return (size_t)align_up(size, page_size());
}

static void *map_pages(size_t size, int flags)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

/* A mapping that starts on a huge page: one that is too long, cut at both ends. */
static void *map_huge(size_t size)
{
    size_t slack = (size_t)HUGE_PAGE - page_size();
    uint8_t *raw = map_pages(size + slack, MAP_NORESERVE);
    uint8_t *p;
    size_t head;

    if (raw == NULL)
        return NULL;
    head = (size_t)(align_up((uintptr_t)raw, HUGE_PAGE) - (uintptr_t)raw);
    p = raw + head;
    if (head > 0)
        munmap(raw, head);
    if (slack > head)
        munmap(p + size, slack - head);
#ifdef __linux__
    madvise(p, size, MADV_HUGEPAGE); /* a wish: kernels without it refuse, and we run on */
#endif
    return p;
}

void *host_buffer(size_t size)
{
    void *p = NULL;

    if (size < 2 * HUGE_PAGE)
        return malloc(size > 0 ? size : 1);
    if (posix_memalign(&p, HUGE_PAGE, size) != 0)
        return NULL;
#ifdef __linux__
    madvise(p, size, MADV_HUGEPAGE); /* a wish, as above */
#endif
    return p;
}

static bool size_ok(size_t size)
{
    return size > 0 && size <= SIZE_MAX / 2;
}

#ifdef __linux__
/* A control group's limit in bytes; UINT64_MAX if there is none. */
static uint64_t group_limit(const char *path)
{
    char text[32] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return UINT64_MAX;
    n = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (n <= 0 || text[0] < '0' || text[0] > '9')
        return UINT64_MAX; /* "max" */
    return strtoull(text, NULL, 10);
}

static uint64_t host_most(void)
{
    uint64_t limit = min_u64(group_limit("/sys/fs/cgroup/memory.max"),
                             group_limit("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    struct sysinfo info;
    uint64_t most;

    if (sysinfo(&info) < 0)
        return limit;
    most = ((uint64_t)info.totalram + info.totalswap) * info.mem_unit;
    return limit > UINT64_MAX - most
               ? most
               : min_u64(most, limit + (uint64_t)info.totalswap * info.mem_unit);
}
#else
static uint64_t host_most(void)
{
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * page_size();
}
#endif

/*
 * Memory is mapped without reserving it: most guests never touch all of theirs, and hosts that
 * count strictly would refuse a VM that would have fitted. So the kernel lets everything pass, and
 * what can never be there has to be refused here, or the guest dies when it touches it.
 */
static int check_host(size_t size, struct error *err)
{
    uint64_t most = size < HUGE_PAGE ? UINT64_MAX : host_most();

    if (size <= most)
        return 0;
    return error_set(err, -ENOMEM, "cannot allocate %zu MiB of memory: the host has %llu MiB",
                     (size_t)(size / MIB), (unsigned long long)(most / MIB));
}

void *host_memory_alloc(size_t size, struct error *err)
{
    void *p;

    if (!size_ok(size)) {
        error_set(err, -EINVAL, "cannot allocate %zu bytes of memory", size);
        return NULL;
    }
    if (check_host(size, err) < 0)
        return NULL;
    size = round_pages(size);
    p = size >= HUGE_PAGE ? map_huge(size) : map_pages(size, MAP_NORESERVE);
    if (p == NULL) {
        int code = -errno;

        error_set(err, code, "cannot allocate %zu MiB of memory: %s", (size_t)(size / MIB),
                  strerror(-code));
    }
    return p;
}

/* ---- reserved huge pages, wired memory ---- */

#ifdef __linux__
/* A line of /proc/meminfo: the number behind "NAME:"; 0 if there is none. */
static uint64_t meminfo(const char *name)
{
    FILE *f = fopen("/proc/meminfo", "re");
    size_t len = strlen(name);
    uint64_t value = 0;
    char line[128];

    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, name, len) == 0 && line[len] == ':')
            value = strtoull(line + len + 1, NULL, 10);
    }
    if (f != NULL)
        fclose(f);
    return value;
}

size_t host_huge_page(void)
{
    uint64_t kib = meminfo("Hugepagesize");

    return kib <= SIZE_MAX / 1024 ? (size_t)kib * 1024 : 0;
}

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

void *host_memory_alloc_huge(size_t size, struct error *err)
{
    size_t page = host_huge_page();
    uint64_t total = meminfo("HugePages_Total"), left = meminfo("HugePages_Free"),
             promised = meminfo("HugePages_Rsvd"), want;
    void *p;

    if (page == 0 || !size_ok(size) || size % page != 0) {
        error_set(err, -ENOTSUP, "this host's kernel has no huge pages that could be reserved");
        return NULL;
    }
    left = left > promised ? left - promised : 0;
    want = size / page;
    p = map_pages(size, MAP_HUGETLB);
    if (p == NULL) {
        int code = -errno;

        if (left < want)
            error_set(err, code,
                      "%llu huge pages of %llu KiB are needed, and %llu of the %llu reserved ones "
                      "are free; reserve more (sysctl vm.nr_hugepages=%llu)",
                      (unsigned long long)want, (unsigned long long)(page / 1024),
                      (unsigned long long)left, (unsigned long long)total,
                      (unsigned long long)(total + want - left));
        else
            error_set(err, code, "the host gives no huge pages: %s", strerror(-code));
        return NULL;
    }
    /* EINVAL: an older kernel, which gives each page when it is touched */
    if (madvise(p, size, MADV_POPULATE_WRITE) < 0 && errno != EINVAL) {
        int code = -errno;

        munmap(p, size);
        error_set(err, code,
                  "the host does not give all of the huge pages: %s; a limit of a control group "
                  "(hugetlb.%lluMB.max) may be lower than their number",
                  strerror(-code), (unsigned long long)(page / MIB));
        return NULL;
    }
    return p;
}
#else
size_t host_huge_page(void)
{
    return 0;
}

void *host_memory_alloc_huge(size_t size, struct error *err)
{
    (void)size;
    error_set(err, -ENOTSUP, "this host has no huge pages that could be reserved");
    return NULL;
}
#endif

int host_memory_wire(void *p, size_t size, struct error *err)
{
    struct rlimit most = {.rlim_cur = RLIM_INFINITY};
    int code;

    if (mlock(p, size) == 0)
        return 0;
    code = -errno;
    if (getrlimit(RLIMIT_MEMLOCK, &most) == 0 && most.rlim_cur < size && code != -EAGAIN)
        return error_set(err, code,
                         "at most %llu KiB may be wired (RLIMIT_MEMLOCK); allow more (ulimit -l "
                         "unlimited, or LimitMEMLOCK= of the service)",
                         (unsigned long long)(most.rlim_cur / 1024));
    return error_set(err, code, "%s; the host may have too little memory", strerror(-code));
}

const void *host_file_map(int fd, size_t size)
{
    void *p = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);

    return p == MAP_FAILED ? NULL : p;
}

void host_file_rest(const void *p, size_t size)
{
    madvise((void *)(uintptr_t)p, size, MADV_DONTNEED);
}

void host_file_unmap(const void *p, size_t size)
{
    if (p != NULL)
        munmap((void *)(uintptr_t)p, size);
}

void host_memory_free(void *p, size_t size)
{
    if (p != NULL)
        munmap(p, round_pages(size));
}

void host_memory_discard(void *p, size_t size)
{
    size = round_pages(size);
#ifdef __linux__
    if (madvise(p, size, MADV_DONTNEED) == 0)
        return;
#else
    /* MADV_DONTNEED keeps the contents elsewhere; a fresh mapping in place reads zero. */
    if (mmap(p, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p)
        return;
#endif
    memset(p, 0, size); /* locked pages, for one: the backing stays, the promise of zero holds */
}

void *host_code_alloc(size_t size, struct error *err)
{
    void *p;

    if (!size_ok(size)) {
        error_set(err, -EINVAL, "cannot allocate %zu bytes of code memory", size);
        return NULL;
    }
    p = map_pages(round_pages(size), 0);
    if (p == NULL) {
        int code = -errno;

        error_set(err, code, "cannot allocate %zu bytes of code memory: %s", size, strerror(-code));
    }
    return p;
}

static int code_protect(void *p, size_t size, int prot, const char *what, struct error *err)
{
    int code;

    if (mprotect(p, round_pages(size), prot) == 0)
        return 0;
    code = -errno;
    return error_set(err, code, "the host refuses to make code memory %s: %s", what,
                     strerror(-code));
}

int host_code_seal(void *p, size_t size, struct error *err)
{
    return code_protect(p, size, PROT_READ | PROT_EXEC, "executable", err);
}

int host_code_unseal(void *p, size_t size, struct error *err)
{
    return code_protect(p, size, PROT_READ | PROT_WRITE, "writable", err);
}

#ifdef __linux__
/*
 * Shared memory without a file: the host's perf looks for names of what runs there in the map of
 * the process (/tmp/perf-PID.map), which it does not for a memfd.
 */
static void map_views(size_t size, void **rw, void **rx)
{
    *rw =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (*rw == MAP_FAILED)
        return;
    *rx = mremap(*rw, 0, size, MREMAP_MAYMOVE); /* a length of 0: a second mapping of the same */
    if (*rx != MAP_FAILED && mprotect(*rx, size, PROT_READ | PROT_EXEC) < 0) {
        int code = errno;

        munmap(*rx, size);
        *rx = MAP_FAILED;
        errno = code;
    }
}
#else
static void map_views(size_t size, void **rw, void **rx)
{
    char name[32];
    int fd, code;

    snprintf(name, sizeof(name), "/xhyve-code-%d", (int)getpid());
    fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0)
        return;
    shm_unlink(name);
    if (ftruncate(fd, (off_t)size) == 0) {
        *rw = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (*rw != MAP_FAILED)
            *rx = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    }
    code = errno;
    close(fd);
    errno = code;
}
#endif

int host_code_views(size_t size, void **rw, void **rx, struct error *err)
{
    int code;

    *rw = *rx = MAP_FAILED;
    size = round_pages(size);
    map_views(size, rw, rx);
    if (*rx != MAP_FAILED)
        return 0;
    code = -errno;
    if (*rw != MAP_FAILED)
        munmap(*rw, size);
    return error_set(err, code, "the host refuses memory for translated code: %s", strerror(-code));
}

void host_code_views_free(void *rw, void *rx, size_t size)
{
    size = round_pages(size);
    munmap(rw, size);
    munmap(rx, size);
}
