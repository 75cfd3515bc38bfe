#include "host/memory.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
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

static bool size_ok(size_t size)
{
    return size > 0 && size <= SIZE_MAX / 2;
}

void *host_memory_alloc(size_t size, struct error *err)
{
    void *p;

    if (!size_ok(size)) {
        error_set(err, -EINVAL, "cannot allocate %zu bytes of memory", size);
        return NULL;
    }
    size = round_pages(size);
    p = size >= HUGE_PAGE ? map_huge(size) : map_pages(size, MAP_NORESERVE);
    if (p == NULL) {
        int code = -errno;

        error_set(err, code, "cannot allocate %zu MiB of memory: %s", (size_t)(size / MIB),
                  strerror(-code));
    }
    return p;
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
