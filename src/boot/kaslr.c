#include "boot/kaslr.h"

#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/bits.h"

/* Linux splits the command line at any character up to and including the space. */
static bool is_space(char c)
{
    return (unsigned char)c <= ' ';
}

bool cmdline_has_word(const char *cmdline, const char *word)
{
    size_t len = strlen(word);

    for (const char *p = cmdline; *p != '\0';) {
        size_t n = 0;

        while (*p != '\0' && is_space(*p))
            p++;
        while (!is_space(p[n]))
            n++;
        if (n == len && memcmp(p, word, len) == 0)
            return true;
        p += n;
    }
    return false;
}

bool kaslr_bytes(void *to, size_t len)
{
    return getentropy(to, len) == 0;
}

/* A host without randomness gives the first choice: the kernel still runs, only not hidden. */
uint64_t kaslr_random(uint64_t n)
{
    uint64_t v;

    if (!kaslr_bytes(&v, sizeof(v)))
        return 0;
    return (uint64_t)(((unsigned __int128)v * n) >> 64);
}

static uint64_t slots(const struct kaslr_range *r, uint64_t size, uint64_t align)
{
    uint64_t base = align_up(r->base, align);

    if (r->end < base || r->end - base < size)
        return 0;
    return (r->end - base - size) / align + 1;
}

bool kaslr_place(const struct kaslr_range *ranges, unsigned n, uint64_t size, uint64_t align,
                 bool random, uint64_t *out)
{
    uint64_t total = 0, pick;

    for (unsigned i = 0; i < n; i++)
        total += slots(&ranges[i], size, align);
    if (total == 0)
        return false;
    pick = random ? kaslr_random(total) : 0;
    for (unsigned i = 0; i < n; i++) {
        uint64_t here = slots(&ranges[i], size, align);

        if (pick < here) {
            *out = align_up(ranges[i].base, align) + pick * align;
            return true;
        }
        pick -= here;
    }
    return false;
}
