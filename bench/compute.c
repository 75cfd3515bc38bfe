/* Plain integer programs on arrays, lists and tables. */
#include <string.h>

#include "xbench.h"

/* ---- linked lists: build, reverse, merge sort, walk ---- */

#define LIST_NODES 16384

struct node {
    struct node *next;
    uint32_t key, weight;
};

static struct node *list_nodes;

void list_setup(void)
{
    list_nodes = need_memory(LIST_NODES * sizeof(*list_nodes));
}

static struct node *merge(struct node *a, struct node *b)
{
    struct node head = {0}, *tail = &head;

    while (a != NULL && b != NULL) {
        struct node **least = a->key <= b->key ? &a : &b;

        tail->next = *least;
        tail = *least;
        *least = (*least)->next;
    }
    tail->next = a != NULL ? a : b;
    return head.next;
}

static struct node *list_sort(struct node *list)
{
    struct node *bin[32] = {0}, *sorted = NULL;

    while (list != NULL) {
        struct node *one = list;
        unsigned i = 0;

        list = list->next;
        one->next = NULL;
        for (; bin[i] != NULL; i++) {
            one = merge(bin[i], one);
            bin[i] = NULL;
        }
        bin[i] = one;
    }
    for (unsigned i = 0; i < 32; i++)
        sorted = merge(bin[i], sorted);
    return sorted;
}

uint64_t list_round(void)
{
    struct node *list = NULL, *reversed = NULL;
    uint32_t seed = 99;
    uint64_t sum = 0;

    for (unsigned i = 0; i < LIST_NODES; i++) {
        list_nodes[i] = (struct node){list, next_random(&seed), i};
        list = &list_nodes[i];
    }
    list = list_sort(list);
    while (list != NULL) {
        struct node *next = list->next;

        list->next = reversed;
        reversed = list;
        list = next;
    }
    for (unsigned i = 1; reversed != NULL; reversed = reversed->next)
        sum += (uint64_t)(reversed->key ^ reversed->weight) * i++;
    return sum;
}

/* ---- matrices of integers ---- */

#define MATINT 96

static int32_t matint_a[MATINT][MATINT], matint_b[MATINT][MATINT], matint_c[MATINT][MATINT];

void matint_setup(void)
{
    uint32_t seed = 7;

    for (unsigned i = 0; i < MATINT; i++) {
        for (unsigned j = 0; j < MATINT; j++) {
            matint_a[i][j] = (int32_t)(next_random(&seed) % 2000) - 1000;
            matint_b[i][j] = (int32_t)(next_random(&seed) % 2000) - 1000;
        }
    }
}

uint64_t matint_round(void)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < MATINT; i++) {
        for (unsigned j = 0; j < MATINT; j++) {
            int32_t c = 0;

            for (unsigned k = 0; k < MATINT; k++)
                c += matint_a[i][k] * matint_b[k][j];
            matint_c[i][j] = c;
        }
    }
    for (unsigned i = 0; i < MATINT; i++)
        sum = mix(sum, (uint32_t)matint_c[i][(i * 5) % MATINT]);
    return sum;
}

/* ---- CRC-32 by a table of 256 words ---- */

#define CRC_BYTES 262144

static uint32_t crc_table[256];
static char *crc_text;

void crc32_setup(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;

        for (unsigned bit = 0; bit < 8; bit++)
            c = (c & 1) != 0 ? (c >> 1) ^ 0xedb88320u : c >> 1;
        crc_table[i] = c;
    }
    crc_text = need_memory(CRC_BYTES);
    make_text(crc_text, CRC_BYTES);
}

uint64_t crc32_round(void)
{
    uint32_t crc = 0xffffffffu;

    for (size_t i = 0; i < CRC_BYTES; i++)
        crc = crc_table[(crc ^ (uint8_t)crc_text[i]) & 0xff] ^ (crc >> 8);
    return ~crc;
}

/* ---- the sieve of Eratosthenes, a byte for each number ---- */

#define SIEVE 400000

static uint8_t sieve[SIEVE];

uint64_t sieve_round(void)
{
    uint64_t count = 0, sum = 0;

    memset(sieve, 1, sizeof(sieve));
    for (unsigned i = 2; i < SIEVE; i++) {
        if (sieve[i] == 0)
            continue;
        count++;
        sum += i;
        for (unsigned j = i * 2; j < SIEVE; j += i)
            sieve[j] = 0;
    }
    return mix(count, sum);
}

/* ---- SHA-256 ---- */

#define SHA_BYTES 262144

static char *sha_text;

static const uint32_t sha_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t ror(uint32_t x, unsigned n)
{
    return (x >> n) | (x << (32 - n));
}

static void sha_block(uint32_t h[8], const uint8_t *p)
{
    uint32_t w[64], s[8];

    for (unsigned i = 0; i < 16; i++) {
        uint32_t word;

        memcpy(&word, p + 4 * i, 4);
        w[i] = __builtin_bswap32(word);
    }
    for (unsigned i = 16; i < 64; i++)
        w[i] = w[i - 16] + w[i - 7] + (ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ (w[i - 15] >> 3)) +
               (ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ (w[i - 2] >> 10));
    memcpy(s, h, sizeof(s));
    for (unsigned i = 0; i < 64; i++) {
        uint32_t t1 = s[7] + (ror(s[4], 6) ^ ror(s[4], 11) ^ ror(s[4], 25)) +
                      ((s[4] & s[5]) ^ (~s[4] & s[6])) + sha_k[i] + w[i];
        uint32_t t2 = (ror(s[0], 2) ^ ror(s[0], 13) ^ ror(s[0], 22)) +
                      ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));

        memmove(s + 1, s, 7 * sizeof(s[0]));
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (unsigned i = 0; i < 8; i++)
        h[i] += s[i];
}

void sha256_setup(void)
{
    sha_text = need_memory(SHA_BYTES);
    make_text(sha_text, SHA_BYTES);
}

uint64_t sha256_round(void)
{
    uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                     0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint8_t tail[64] = {0x80};

    for (size_t i = 0; i < SHA_BYTES; i += 64)
        sha_block(h, (const uint8_t *)sha_text + i);
    for (unsigned i = 0; i < 8; i++)
        tail[56 + i] = (uint8_t)((uint64_t)SHA_BYTES * 8 >> (56 - 8 * i));
    sha_block(h, tail);
    return (uint64_t)h[0] << 32 | h[1];
}

/* ---- a pointer chase through 8 MiB: caches and the guest's TLB miss ---- */

#define CHASE 131072

struct link {
    struct link *next;
    uint64_t value, pad[6];
};

static struct link *chain;

void chase_setup(void)
{
    uint32_t seed = 4711;
    uint32_t *order = need_memory(CHASE * sizeof(*order));

    chain = need_memory(CHASE * sizeof(*chain));
    for (uint32_t i = 0; i < CHASE; i++)
        order[i] = i;
    for (uint32_t i = CHASE - 1; i > 0; i--) {
        uint32_t j = next_random(&seed) % (i + 1), t = order[i];

        order[i] = order[j];
        order[j] = t;
    }
    for (uint32_t i = 0; i < CHASE; i++) {
        chain[order[i]].next = &chain[order[(i + 1) % CHASE]];
        chain[order[i]].value = i;
    }
}

uint64_t chase_round(void)
{
    const struct link *at = chain;
    uint64_t sum = 0;

    for (unsigned i = 0; i < CHASE; i++) {
        sum = sum * 3 + at->value;
        at = at->next;
    }
    return mix(sum, at == chain);
}

/* ---- a hash table with open addressing: insert, find, delete ---- */

#define SLOTS 32768
#define KEYS 16384

static uint32_t hash_key[SLOTS], hash_value[SLOTS];
static uint32_t *hash_keys;

void hash_setup(void)
{
    uint32_t seed = 31337;

    hash_keys = need_memory(KEYS * sizeof(*hash_keys));
    for (unsigned i = 0; i < KEYS; i++)
        hash_keys[i] = next_random(&seed);
}

/* The slot of a key, or the empty one where it belongs. A deleted one keeps its key, with value 0.
 */
static uint32_t find_slot(uint32_t key)
{
    uint32_t at = (key * 2654435769u) >> 17;

    while (hash_key[at] != 0 && hash_key[at] != key)
        at = (at + 1) % SLOTS;
    return at;
}

uint64_t hash_round(void)
{
    uint64_t sum = 0;

    memset(hash_key, 0, sizeof(hash_key));
    for (unsigned i = 0; i < KEYS; i++) {
        uint32_t at = find_slot(hash_keys[i]);

        hash_key[at] = hash_keys[i];
        hash_value[at] = i + 1;
    }
    for (unsigned i = 0; i < KEYS; i += 3)
        hash_value[find_slot(hash_keys[i])] = 0;
    for (unsigned pass = 0; pass < 4; pass++) {
        for (unsigned i = 0; i < KEYS; i++) {
            uint32_t at = find_slot(hash_keys[i] ^ (pass & 1)); /* every second pass misses */

            sum += hash_key[at] == 0 ? pass : hash_value[at];
        }
    }
    return sum;
}

/* ---- quicksort, with the comparison in line and by a function pointer ---- */

#define SORT 16384

static uint32_t *sort_from, *sort_work;

void sort_setup(void)
{
    uint32_t seed = 271828;

    sort_from = need_memory(SORT * sizeof(*sort_from));
    sort_work = need_memory(SORT * sizeof(*sort_work));
    for (unsigned i = 0; i < SORT; i++)
        sort_from[i] = next_random(&seed);
}

static void quick(uint32_t *a, long low, long high)
{
    while (low < high) {
        uint32_t pivot = a[low + (high - low) / 2];
        long i = low, j = high;

        while (i <= j) {
            while (a[i] < pivot)
                i++;
            while (a[j] > pivot)
                j--;
            if (i <= j) {
                uint32_t t = a[i];

                a[i++] = a[j];
                a[j--] = t;
            }
        }
        quick(a, low, j);
        low = i;
    }
}

typedef int compare(const void *a, const void *b);

static void swap_bytes(char *a, char *b, size_t size)
{
    while (size-- > 0) {
        char t = *a;

        *a++ = *b;
        *b++ = t;
    }
}

/* As a library has it: elements of any size, the order by a function. */
static void quick_any(char *a, long low, long high, size_t size, compare *order)
{
    char pivot[16];

    while (low < high) {
        long i = low, j = high;

        memcpy(pivot, a + (size_t)(low + (high - low) / 2) * size, size);
        while (i <= j) {
            while (order(a + (size_t)i * size, pivot) < 0)
                i++;
            while (order(a + (size_t)j * size, pivot) > 0)
                j--;
            if (i <= j)
                swap_bytes(a + (size_t)i++ * size, a + (size_t)j-- * size, size);
        }
        quick_any(a, low, j, size, order);
        low = i;
    }
}

static int by_number(const void *a, const void *b)
{
    uint32_t x, y;

    memcpy(&x, a, sizeof(x));
    memcpy(&y, b, sizeof(y));
    return (x > y) - (x < y);
}

static uint64_t sorted_sum(void)
{
    uint64_t sum = 0;

    for (unsigned i = 1; i < SORT; i++)
        sum += (sort_work[i] >= sort_work[i - 1]) + (uint64_t)sort_work[i] * i;
    return sum;
}

uint64_t sort_round(void)
{
    memcpy(sort_work, sort_from, SORT * sizeof(*sort_work));
    quick(sort_work, 0, SORT - 1);
    return sorted_sum();
}

uint64_t qsort_round(void)
{
    compare *volatile order = by_number; /* not to be inlined */

    memcpy(sort_work, sort_from, SORT * sizeof(*sort_work));
    quick_any((char *)sort_work, 0, SORT - 1, sizeof(*sort_work), order);
    return sorted_sum();
}
