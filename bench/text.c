/* Text: a report as awk would make it, and a compressor of the LZ77 kind with its inverse. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xbench.h"

#define TEXT_BYTES 65536

/* ---- fields, an associative array, a formatted report ---- */

#define BUCKETS 512
#define MAX_FIELDS 64
#define ENTRIES 4096

struct entry {
    struct entry *next;
    const char *key;
    unsigned count, length;
    double total;
};

static char *awk_text, *awk_line;
static struct entry *entries;
static size_t entry_count;
static struct entry *buckets[BUCKETS];

void awk_setup(void)
{
    awk_text = need_memory(TEXT_BYTES);
    awk_line = need_memory(TEXT_BYTES);
    entries = need_memory(ENTRIES * sizeof(*entries));
    make_text(awk_text, TEXT_BYTES);
}

static struct entry *look_up(const char *key)
{
    struct entry *e;
    uint32_t h = 0;

    for (const char *p = key; *p != '\0'; p++)
        h = h * 31 + (uint8_t)*p;
    for (e = buckets[h % BUCKETS]; e != NULL; e = e->next) {
        if (strcmp(e->key, key) == 0)
            return e;
    }
    need(entry_count < ENTRIES, "too many keys");
    e = &entries[entry_count++];
    *e = (struct entry){.next = buckets[h % BUCKETS], .key = key};
    buckets[h % BUCKETS] = e;
    return e;
}

static size_t split(char *line, char **field)
{
    size_t n = 0;

    while (*line != '\0' && n < MAX_FIELDS) {
        while (*line == ' ')
            *line++ = '\0';
        if (*line == '\0')
            break;
        field[n++] = line;
        line += strcspn(line, " ");
    }
    return n;
}

static int by_total(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;

    if (x->total != y->total)
        return x->total > y->total ? -1 : 1;
    return strcmp(x->key, y->key);
}

/* For each word: on how many lines, and the sum of the numbers that end these. */
uint64_t awk_round(void)
{
    char *field[MAX_FIELDS], out[128];
    uint64_t sum = 0;

    memcpy(awk_line, awk_text, TEXT_BYTES);
    memset(buckets, 0, sizeof(buckets));
    entry_count = 0;
    for (char *line = awk_line, *next; line != NULL; line = next) {
        size_t n;
        double number;

        next = strchr(line, '\n');
        if (next != NULL)
            *next++ = '\0';
        n = split(line, field);
        if (n == 0)
            continue;
        number = strtod(field[n - 1], NULL);
        for (size_t i = 0; i + 1 < n; i++) {
            struct entry *e = look_up(field[i]);

            e->count++;
            e->length += (unsigned)strlen(field[i]);
            e->total += number;
        }
    }
    qsort(entries, entry_count, sizeof(*entries), by_total);
    for (size_t i = 0; i < entry_count; i += 16) {
        int len = snprintf(out, sizeof(out), "%-12s %6u %6u %12.2f\n", entries[i].key,
                           entries[i].count, entries[i].length, entries[i].total);

        for (int j = 0; j < len; j++)
            sum = sum * 31 + (uint8_t)out[j];
    }
    return mix(sum, entry_count);
}

/* ---- LZ77 ----
 * A token's high four bits count literals and its low four the match's length less 4; 15 goes on in
 * bytes that are added up as long as they are 255. The literals follow, then the match's distance
 * in two bytes. The last token has no match. */

#define HASH_BITS 13
#define MIN_MATCH 4
#define MAX_CHAIN 8
#define PACKED_ROOM (TEXT_BYTES + TEXT_BYTES / 64)

static uint8_t *lz_text, *lz_packed, *lz_unpacked;
static size_t lz_size;
static int32_t lz_head[1 << HASH_BITS], *lz_previous;

static uint8_t *put_length(uint8_t *out, size_t n)
{
    for (; n >= 255; n -= 255)
        *out++ = 255;
    *out++ = (uint8_t)n;
    return out;
}

static uint8_t *put_token(uint8_t *out, const uint8_t *literal, size_t literals, size_t match,
                          size_t distance)
{
    size_t extra = match == 0 ? 0 : match - MIN_MATCH;

    *out++ = (uint8_t)((literals < 15 ? literals : 15) << 4 | (extra < 15 ? extra : 15));
    if (literals >= 15)
        out = put_length(out, literals - 15);
    memcpy(out, literal, literals);
    out += literals;
    if (match == 0)
        return out;
    *out++ = (uint8_t)distance;
    *out++ = (uint8_t)(distance >> 8);
    return extra >= 15 ? put_length(out, extra - 15) : out;
}

static uint32_t hash_at(const uint8_t *p)
{
    uint32_t word;

    memcpy(&word, p, sizeof(word));
    return (word * 2654435761u) >> (32 - HASH_BITS);
}

static size_t longest(const uint8_t *in, size_t at, size_t size, size_t *distance)
{
    int32_t candidate = lz_head[hash_at(in + at)];
    size_t best = 0;

    for (unsigned chain = 0; candidate >= 0 && chain < MAX_CHAIN; chain++) {
        const uint8_t *p = in + candidate;
        size_t len = 0;

        while (at + len < size && p[len] == in[at + len])
            len++;
        if (len > best) {
            best = len;
            *distance = at - (size_t)candidate;
        }
        candidate = lz_previous[candidate];
    }
    return best >= MIN_MATCH ? best : 0;
}

static void enter(const uint8_t *in, size_t at)
{
    uint32_t h = hash_at(in + at);

    lz_previous[at] = lz_head[h];
    lz_head[h] = (int32_t)at;
}

/* size is at most 64 KiB, so that each distance fits. */
static size_t pack(const uint8_t *in, size_t size, uint8_t *out)
{
    uint8_t *const start = out;
    size_t at = 0, literal = 0;

    memset(lz_head, 0xff, sizeof(lz_head));
    while (at + MIN_MATCH <= size) {
        size_t distance = 0, len = longest(in, at, size, &distance);

        if (len == 0) {
            enter(in, at++);
            continue;
        }
        out = put_token(out, in + literal, at - literal, len, distance);
        for (size_t end = at + len; at < end; at++) {
            if (at + MIN_MATCH <= size)
                enter(in, at);
        }
        literal = at;
    }
    out = put_token(out, in + literal, size - literal, 0, 0);
    return (size_t)(out - start);
}

static size_t get_length(const uint8_t **in, size_t n)
{
    uint8_t more;

    if (n < 15)
        return n;
    do {
        more = *(*in)++;
        n += more;
    } while (more == 255);
    return n;
}

static size_t unpack(const uint8_t *in, size_t size, uint8_t *out)
{
    const uint8_t *const end = in + size;
    uint8_t *const start = out;

    while (in < end) {
        uint8_t token = *in++;
        size_t literals = get_length(&in, token >> 4), distance, match;

        memcpy(out, in, literals);
        in += literals;
        out += literals;
        if (in >= end)
            break;
        distance = in[0] | (size_t)in[1] << 8;
        in += 2;
        match = get_length(&in, token & 15u) + MIN_MATCH;
        for (const uint8_t *from = out - distance; match > 0; match--)
            *out++ = *from++;
    }
    return (size_t)(out - start);
}

void lz_setup(void)
{
    lz_text = need_memory(TEXT_BYTES);
    lz_packed = need_memory(PACKED_ROOM);
    lz_unpacked = need_memory(TEXT_BYTES);
    lz_previous = need_memory(TEXT_BYTES * sizeof(*lz_previous));
    make_text((char *)lz_text, TEXT_BYTES);
    lz_size = pack(lz_text, TEXT_BYTES, lz_packed);
}

uint64_t pack_round(void)
{
    size_t size = pack(lz_text, TEXT_BYTES, lz_packed);
    uint64_t sum = size;

    for (size_t i = 0; i < size; i += 8)
        sum = mix(sum, lz_packed[i]);
    return sum;
}

uint64_t unpack_round(void)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < 8; i++) {
        BARRIER();
        sum = mix(sum, unpack(lz_packed, lz_size, lz_unpacked));
        sum = mix(sum, memcmp(lz_text, lz_unpacked, TEXT_BYTES) == 0);
    }
    return sum;
}
