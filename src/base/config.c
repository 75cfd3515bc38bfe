/*
 * The configuration tree. A node is a name, perhaps a value, and children in order of insertion.
 * Trees are small (a hundred keys), so look-up is linear.
 *
 * "pci.0.1.0.device" is the value of the node device below 0 below 1 below 0 below pci. A node may
 * have both a value and children (lpc.com1=stdio beside lpc.com1.path); nobody makes that, and
 * the dump shows both.
 */
#include "base/config.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PARTS_MAX 32u             /* of a key: bounds the recursion over hostile ones */
#define KEY_MAX_LEN 1024u         /* of a key */
#define EXPAND_MAX_LEN (1u << 20) /* a=%(b)%(b), b=%(c)%(c), ... doubles with every line */
#define NEAREST_MAX_LEN 48u       /* longer words are compared to nothing */

struct config {
    char *name;
    char *value; /* NULL: none */
    struct config *parent;
    struct config **child;
    size_t child_count, child_room;
};

static struct config *node_create(struct config *parent, const char *name, size_t len)
{
    struct config *node = calloc(1, sizeof(*node));

    if (node == NULL)
        return NULL;
    node->parent = parent;
    node->name = strndup(name, len);
    if (node->name == NULL) {
        free(node);
        return NULL;
    }
    return node;
}

struct config *config_create(void)
{
    return node_create(NULL, "", 0);
}

void config_destroy(struct config *root)
{
    if (root == NULL)
        return;
    for (size_t i = 0; i < root->child_count; i++)
        config_destroy(root->child[i]);
    free(root->child);
    free(root->name);
    free(root->value);
    free(root);
}

static struct config *node_child(const struct config *node, const char *name, size_t len)
{
    for (size_t i = 0; i < node->child_count; i++) {
        struct config *c = node->child[i];

        if (strncmp(c->name, name, len) == 0 && c->name[len] == '\0')
            return c;
    }
    return NULL;
}

static struct config *node_add_child(struct config *node, const char *name, size_t len)
{
    struct config *c;

    if (node->child_count == node->child_room) {
        size_t room = node->child_room == 0 ? 8 : 2 * node->child_room;
        struct config **grown = realloc(node->child, room * sizeof(*grown));

        if (grown == NULL)
            return NULL;
        node->child = grown;
        node->child_room = room;
    }
    c = node_create(node, name, len);
    if (c != NULL)
        node->child[node->child_count++] = c;
    return c;
}

static int key_check(const char *key, struct error *err)
{
    const char *p = key;
    unsigned parts = 0;

    if (strlen(key) > KEY_MAX_LEN)
        return error_set(err, -EINVAL, "configuration key '%.32s...' is longer than %u characters",
                         key, KEY_MAX_LEN);
    for (;;) {
        size_t len = strcspn(p, ".");

        if (len == 0)
            return error_set(err, -EINVAL, "configuration key '%s' has an empty part", key);
        if (++parts > PARTS_MAX)
            return error_set(err, -EINVAL, "configuration key '%s' has more than %u parts", key,
                             PARTS_MAX);
        if (p[len] == '\0')
            return 0;
        p += len + 1;
    }
}

int config_set(struct config *node, const char *key, const char *value, struct error *err)
{
    char *copy;
    int rc = key_check(key, err);

    if (rc < 0)
        return rc;
    copy = strdup(value);
    if (copy == NULL)
        return error_set(err, -ENOMEM, "no memory for configuration key '%s'", key);
    for (const char *p = key;;) {
        size_t len = strcspn(p, ".");
        struct config *c = node_child(node, p, len);

        if (c == NULL)
            c = node_add_child(node, p, len);
        if (c == NULL) {
            free(copy);
            return error_set(err, -ENOMEM, "no memory for configuration key '%s'", key);
        }
        node = c;
        if (p[len] == '\0')
            break;
        p += len + 1;
    }
    free(node->value);
    node->value = copy;
    return 0;
}

const struct config *config_find(const struct config *node, const char *key)
{
    for (const char *p = key; node != NULL;) {
        size_t len = strcspn(p, ".");

        node = node_child(node, p, len);
        if (p[len] == '\0')
            break;
        p += len + 1;
    }
    return node;
}

const char *config_get(const struct config *node, const char *key)
{
    const struct config *found = config_find(node, key);

    return found == NULL ? NULL : found->value;
}

const struct config *config_child(const struct config *node, size_t n, const char **name)
{
    if (n >= node->child_count)
        return NULL;
    if (name != NULL)
        *name = node->child[n]->name;
    return node->child[n];
}

const char *config_value(const struct config *node)
{
    return node->value;
}

/* ---- numbers ---- */

/* Digits from *text on into *out; *text moves behind them. At least one digit. */
static int parse_digits(const char **text, uint64_t *out)
{
    const char *p = *text;
    unsigned base = 10;
    uint64_t v = 0;
    bool any = false, overflow = false;

    if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X')) {
        base = 16;
        p += 2;
    }
    for (;; p++) {
        unsigned digit;

        if (*p >= '0' && *p <= '9')
            digit = (unsigned)(*p - '0');
        else if (base == 16 && isxdigit((unsigned char)*p))
            digit = (unsigned)(tolower((unsigned char)*p) - 'a') + 10;
        else
            break;
        any = true;
        overflow |= __builtin_mul_overflow(v, base, &v);
        overflow |= __builtin_add_overflow(v, digit, &v);
    }
    *text = p;
    if (!any)
        return -EINVAL;
    *out = v;
    return overflow ? -ERANGE : 0;
}

int parse_u64(const char *text, uint64_t *out)
{
    uint64_t v = 0;
    int rc = parse_digits(&text, &v);

    if (rc == -EINVAL || *text != '\0')
        return -EINVAL;
    if (rc == 0)
        *out = v;
    return rc;
}

int parse_size(const char *text, uint64_t *out)
{
    static const char suffixes[] = "kmgt";
    uint64_t v = 0, scaled;
    unsigned shift = 0;
    int rc = parse_digits(&text, &v);

    if (rc == -EINVAL)
        return rc;
    if (*text != '\0') {
        const char *s = strchr(suffixes, tolower((unsigned char)*text));

        if (s == NULL || text[1] != '\0')
            return -EINVAL;
        shift = 10 * (unsigned)(s - suffixes + 1);
    }
    if (rc < 0 || __builtin_mul_overflow(v, 1ull << shift, &scaled))
        return -ERANGE;
    *out = scaled;
    return 0;
}

/* ---- typed reads ---- */

/* "pci.0.3.0." before a key read relative to that node, so that errors name it in full. */
static void node_prefix(const struct config *node, char *to, size_t room)
{
    size_t len;

    to[0] = '\0';
    if (node == NULL || node->parent == NULL)
        return;
    node_prefix(node->parent, to, room);
    len = strlen(to);
    snprintf(to + len, room - len, "%s.", node->name);
}

static int bad_value(const struct config *node, const char *key, const char *value,
                     const char *wanted, struct error *err)
{
    char prefix[128];

    node_prefix(node, prefix, sizeof(prefix));
    return error_set(err, -EINVAL, "%s%s: '%s' is not %s", prefix, key, value, wanted);
}

int config_bool(const struct config *node, const char *key, bool dflt, bool *out, struct error *err)
{
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "0", "1"};
    const char *value = config_get(node, key);

    if (value == NULL) {
        *out = dflt;
        return 0;
    }
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcasecmp(value, words[i]) == 0) {
            *out = (i & 1) != 0;
            return 0;
        }
    }
    return bad_value(node, key, value, "true or false", err);
}

static int read_number(const struct config *node, const char *key, uint64_t dflt, uint64_t *out,
                       int (*parse)(const char *, uint64_t *), const char *what, struct error *err)
{
    const char *value = config_get(node, key);

    if (value == NULL) {
        *out = dflt;
        return 0;
    }
    switch (parse(value, out)) {
    case 0:
        return 0;
    case -ERANGE:
        return bad_value(node, key, value, "below 2^64", err);
    default:
        return bad_value(node, key, value, what, err);
    }
}

int config_u64(const struct config *node, const char *key, uint64_t dflt, uint64_t *out,
               struct error *err)
{
    return read_number(node, key, dflt, out, parse_u64, "a number", err);
}

int config_size(const struct config *node, const char *key, uint64_t dflt, uint64_t *out,
                struct error *err)
{
    return read_number(node, key, dflt, out, parse_size,
                       "a size (a number, perhaps with k, m, g or t)", err);
}

/* ---- expansion ---- */

struct text {
    char *at;
    size_t len, room;
};

static int text_add(struct text *t, const char *from, size_t len, struct error *err)
{
    if (len > EXPAND_MAX_LEN || t->len + len > EXPAND_MAX_LEN)
        return error_set(err, -EINVAL, "a value expands to more than %u characters",
                         EXPAND_MAX_LEN);
    if (t->len + len + 1 > t->room) {
        size_t room = 2 * (t->len + len) + 64;
        char *grown = realloc(t->at, room);

        if (grown == NULL)
            return error_set(err, -ENOMEM, "no memory to expand a value");
        t->at = grown;
        t->room = room;
    }
    memcpy(t->at + t->len, from, len);
    t->len += len;
    t->at[t->len] = '\0';
    return 0;
}

/* The keys being expanded, innermost first: one that comes up again refers to itself. */
struct expanding {
    const struct config *node;
    const struct expanding *outer;
};

static int expand_into(const struct config *root, const char *text, const struct expanding *outer,
                       struct text *to, struct error *err);

/* `name` is the text between the parentheses. */
static int expand_key(const struct config *root, const char *name, const struct expanding *outer,
                      struct text *to, struct error *err)
{
    struct expanding here = {.node = config_find(root, name), .outer = outer};
    unsigned depth = 0;

    if (here.node == NULL || here.node->value == NULL)
        return error_set(err, -EINVAL, "%%(%s) names a configuration key that is not set", name);
    for (const struct expanding *e = outer; e != NULL; e = e->outer) {
        if (e->node == here.node)
            return error_set(err, -EINVAL, "configuration key '%s' refers to itself", name);
        if (++depth > PARTS_MAX)
            return error_set(err, -EINVAL, "%%(%s) is nested deeper than %u keys", name, PARTS_MAX);
    }
    return expand_into(root, here.node->value, &here, to, err);
}

static int expand_into(const struct config *root, const char *text, const struct expanding *outer,
                       struct text *to, struct error *err)
{
    for (;;) {
        const char *ref = strstr(text, "%(");
        const char *end;
        char name[KEY_MAX_LEN + 1];
        size_t len;
        int rc = text_add(to, text, ref == NULL ? strlen(text) : (size_t)(ref - text), err);

        if (rc < 0 || ref == NULL)
            return rc;
        end = strchr(ref, ')');
        if (end == NULL)
            return error_set(err, -EINVAL, "'%.64s' has no closing parenthesis", ref);
        len = (size_t)(end - ref) - 2;
        if (len >= sizeof(name))
            return error_set(err, -EINVAL, "'%.64s...' names no configuration key", ref);
        memcpy(name, ref + 2, len);
        name[len] = '\0';
        rc = expand_key(root, name, outer, to, err);
        if (rc < 0)
            return rc;
        text = end + 1;
    }
}

char *config_expand(const struct config *root, const char *text, struct error *err)
{
    struct text to = {0};

    if (expand_into(root, text, NULL, &to, err) < 0) {
        free(to.at);
        return NULL;
    }
    return to.at;
}

/* ---- dump ---- */

struct pair {
    char *key;
    const char *value;
};

static size_t count_values(const struct config *node)
{
    size_t n = node->value != NULL;

    for (size_t i = 0; i < node->child_count; i++)
        n += count_values(node->child[i]);
    return n;
}

static void collect(const struct config *node, const char *prefix, struct pair *pairs, size_t *n)
{
    for (size_t i = 0; i < node->child_count; i++) {
        const struct config *c = node->child[i];
        char *key = NULL;

        if (asprintf(&key, "%s%s%s", prefix, prefix[0] == '\0' ? "" : ".", c->name) < 0)
            return;
        collect(c, key, pairs, n);
        if (c->value != NULL) {
            pairs[*n].key = key;
            pairs[(*n)++].value = c->value;
        } else {
            free(key);
        }
    }
}

static int pair_compare(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;

    return strcmp(x->key, y->key);
}

void config_dump(const struct config *root, FILE *to)
{
    struct pair *pairs = calloc(count_values(root) + 1, sizeof(*pairs));
    size_t n = 0;

    if (pairs == NULL)
        return;
    collect(root, "", pairs, &n);
    qsort(pairs, n, sizeof(*pairs), pair_compare);
    for (size_t i = 0; i < n; i++) {
        fprintf(to, "%s=%s\n", pairs[i].key, pairs[i].value);
        free(pairs[i].key);
    }
    free(pairs);
}

/* ---- "did you mean" ---- */

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
    unsigned m = a < b ? a : b;

    return m < c ? m : c;
}

/* Insertions, deletions, replacements and swaps of neighbours, ignoring case. */
static unsigned edit_distance(const char *a, const char *b)
{
    unsigned row[3][NEAREST_MAX_LEN + 1];
    unsigned n = (unsigned)strlen(a), m = (unsigned)strlen(b);
    unsigned *before = row[0], *above = row[1], *now = row[2];

    for (unsigned j = 0; j <= m; j++)
        above[j] = before[j] = j;
    for (unsigned i = 1; i <= n; i++) {
        int ca = tolower((unsigned char)a[i - 1]);
        unsigned *spare;

        now[0] = i;
        for (unsigned j = 1; j <= m; j++) {
            int cb = tolower((unsigned char)b[j - 1]);

            now[j] = min3(above[j] + 1, now[j - 1] + 1, above[j - 1] + (ca != cb));
            if (i > 1 && j > 1 && ca == tolower((unsigned char)b[j - 2]) &&
                tolower((unsigned char)a[i - 2]) == cb && before[j - 2] + 1 < now[j])
                now[j] = before[j - 2] + 1;
        }
        spare = before;
        before = above;
        above = now;
        now = spare;
    }
    return above[m];
}

const char *nearest_name(const char *word, const char *const *names, size_t count)
{
    size_t len = strlen(word);
    unsigned best = len < 6 ? 2 : 3; /* further than that is another word */
    const char *found = NULL;

    if (len == 0 || len > NEAREST_MAX_LEN)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        unsigned d;

        if (strlen(names[i]) > NEAREST_MAX_LEN)
            continue;
        d = edit_distance(word, names[i]);
        /* a word of which nothing is left is no likeness */
        if (d <= best && d < len && (found == NULL || d < best)) {
            best = d;
            found = names[i];
        }
    }
    return found;
}
