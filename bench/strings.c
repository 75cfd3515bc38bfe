/* Blocks of bytes: the processor's string instructions, the C library's functions, plain loops. */
#include <emmintrin.h>
#include <string.h>

#include "xbench.h"

#define COPY_BYTES 262144

static uint8_t *copy_from, *copy_to;

void copy_setup(void)
{
    uint32_t seed = 3;

    copy_from = need_memory(COPY_BYTES + 64);
    copy_to = need_memory(COPY_BYTES + 64);
    for (unsigned i = 0; i < COPY_BYTES; i++)
        copy_from[i] = (uint8_t)next_random(&seed);
}

/* A few bytes of all: looking at each would take as long as copying them. */
static uint64_t sample(const uint8_t *p, size_t size)
{
    uint64_t sum = p[size - 1];

    for (size_t i = 0; i < size; i += 1021)
        sum = sum * 31 + p[i];
    return sum;
}

uint64_t movs_round(void)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < 64; i++) {
        size_t odd = i % 4 == 3 ? i % 16 : 0; /* most copies are of whole pages */
        void *to = copy_to + odd;
        const void *from = copy_from + i / 16 * (odd != 0);
        size_t count = COPY_BYTES - 16;

        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
        if (i % 16 == 15)
            sum = mix(sum, sample(copy_to, COPY_BYTES - 16));
    }
    return sum;
}

uint64_t stos_round(void)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < 64; i++) {
        void *to = copy_to;
        size_t count = COPY_BYTES / 8;

        __asm__ volatile("rep stosq"
                         : "+D"(to), "+c"(count)
                         : "a"(i * UINT64_C(0x0101010101010101))
                         : "memory");
        if (i % 16 == 15)
            sum = mix(sum, sample(copy_to, COPY_BYTES));
    }
    return sum;
}

uint64_t ssecopy_round(void)
{
    uint64_t sum = 0;

    for (unsigned pass = 0; pass < 16; pass++) {
        const uint8_t *from = copy_from + pass; /* mostly not aligned */

        for (size_t i = 0; i < COPY_BYTES - 64; i += 64) {
            __m128i a = _mm_loadu_si128((const __m128i_u *)(from + i));
            __m128i b = _mm_loadu_si128((const __m128i_u *)(from + i + 16));
            __m128i c = _mm_loadu_si128((const __m128i_u *)(from + i + 32));
            __m128i d = _mm_loadu_si128((const __m128i_u *)(from + i + 48));

            _mm_store_si128((__m128i *)(void *)(copy_to + i), a);
            _mm_store_si128((__m128i *)(void *)(copy_to + i + 16), b);
            _mm_store_si128((__m128i *)(void *)(copy_to + i + 32), c);
            _mm_store_si128((__m128i *)(void *)(copy_to + i + 48), d);
        }
        BARRIER();
        sum = mix(sum, copy_to[(pass * 7919) % (COPY_BYTES - 64)]);
    }
    return mix(sum, sample(copy_to, COPY_BYTES - 64));
}

/* ---- memcpy and memset of the sizes that programs use: mostly small ---- */

#define CALLS 4096

struct call {
    uint32_t from, to, size;
    int fill;
};

static struct call *calls;

void libc_setup(void)
{
    uint32_t seed = 8;

    copy_setup();
    calls = need_memory(CALLS * sizeof(*calls));
    for (unsigned i = 0; i < CALLS; i++) {
        uint32_t most = UINT32_C(8) << (next_random(&seed) >> 5) % 10; /* up to 4 KiB */

        calls[i].from = next_random(&seed) % (COPY_BYTES - 8192);
        calls[i].to = next_random(&seed) % (COPY_BYTES - 8192);
        calls[i].size = next_random(&seed) % most;
        calls[i].fill = i % 4 == 0 ? (int)(i & 0xff) : -1;
    }
}

uint64_t libc_round(void)
{
    memset(copy_to, 0, COPY_BYTES);
    for (unsigned pass = 0; pass < 4; pass++) {
        for (unsigned i = 0; i < CALLS; i++) {
            const struct call *c = &calls[i];

            if (c->fill >= 0)
                memset(copy_to + c->to, c->fill, c->size);
            else
                memcpy(copy_to + c->to, copy_from + c->from, c->size);
        }
        BARRIER();
    }
    return sample(copy_to, COPY_BYTES);
}

/* ---- looking for bytes: the library's functions and a plain loop ---- */

#define SCAN_BYTES 65536

static char *scan_text;

void scan_setup(void)
{
    scan_text = need_memory(SCAN_BYTES);
    make_text(scan_text, SCAN_BYTES);
}

/* One library call for each line and each word, as a parser makes them. */
static uint64_t scan_calls(void)
{
    const char *end = scan_text + strlen(scan_text);
    uint64_t sum = (uint64_t)(end - scan_text);

    for (const char *line = scan_text; line < end;) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));

        if (stop == NULL)
            stop = end;
        for (const char *word = line; word < stop;) {
            const char *space = strchr(word, ' ');

            if (space == NULL || space > stop)
                space = stop;
            sum += (uint64_t)(space - word) * 3;
            word = space + 1;
        }
        sum = mix(sum, (uint64_t)(stop - line));
        line = stop + 1;
    }
    return sum;
}

/* The same counts by bytes: what the library would do without vectors. */
static uint64_t scan_bytes(void)
{
    uint64_t spaces = 0, lines = 0, length = 0;

    for (const volatile char *p = scan_text; *p != '\0'; p++) {
        char c = *p;

        length++;
        if (c == ' ')
            spaces++;
        else if (c == '\n')
            lines++;
    }
    return mix(mix(spaces, lines), length);
}

uint64_t scan_round(void)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < 4; i++) {
        BARRIER();
        sum = mix(sum, scan_calls());
    }
    for (unsigned i = 0; i < 64; i++) {
        BARRIER();
        sum = mix(sum, (uint64_t)(strchr(scan_text, '~') == NULL) + strlen(scan_text));
        sum = mix(sum, memchr(scan_text, 'Z', SCAN_BYTES) == NULL);
    }
    return mix(sum, scan_bytes());
}
