/* Conformance: answers beside those that one expects, and those that may stand in their place. */
#include "conform.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct lines {
    char *text[1024];
    unsigned count;
};

/* What is compared. `may` is empty where nothing may differ. */
struct trio {
    struct lines want, may, is;
    unsigned listed, wrong;
};

/* Those that belong to the step (NULL: all), without comments. */
static void read_lines(FILE *f, const char *only, struct lines *out)
{
    size_t n = only != NULL ? strlen(only) : 0;
    char line[512];

    while (out->count < countof(out->text) && fgets(line, sizeof(line), f) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] == '#' || line[0] == '\0')
            continue;
        if (only != NULL && (strncmp(line, only, n) != 0 || line[n] != ':'))
            continue;
        out->text[out->count] = strdup(line);
        if (out->text[out->count] == NULL)
            return;
        out->count++;
    }
}

/* path NULL: there are none. */
static int read_file(const char *path, const char *only, struct lines *out)
{
    FILE *f;

    if (path == NULL)
        return 0;
    f = fopen(path, "r");
    if (f == NULL) {
        fprintf(stderr, "conform: %s: %s\n", path, strerror(errno));
        return -errno;
    }
    read_lines(f, only, out);
    fclose(f);
    return 0;
}

static void free_lines(struct lines *l)
{
    for (unsigned i = 0; i < l->count; i++)
        free(l->text[i]);
}

static bool has_line(const struct lines *l, const char *line)
{
    for (unsigned i = 0; i < l->count; i++) {
        if (strcmp(l->text[i], line) == 0)
            return true;
    }
    return false;
}

/* "STEP: WHAT" is the same: answers hold no colon. */
static bool same_question(const char *a, const char *b)
{
    const char *end = strrchr(a, ':');

    return end != NULL && strncmp(a, b, (size_t)(end - a) + 1) == 0 &&
           strrchr(b, ':') == b + (end - a);
}

/* Where the question of `line` is, from `at` on; the count if nowhere. */
static unsigned find_question(const struct lines *l, unsigned at, const char *line)
{
    while (at < l->count && !same_question(l->text[at], line))
        at++;
    return at;
}

/* "STEP: does not end", or that it dies: the step is cut off there. */
static bool is_cut(const char *line)
{
    return strchr(line, ':') == strrchr(line, ':');
}

/* The step of `line` is cut off, and may be: what it has not come to is no fault. */
static bool may_be_missing(const struct trio *t, const char *line)
{
    size_t step = strcspn(line, ":") + 1;

    for (unsigned i = 0; i < t->is.count; i++) {
        const char *is = t->is.text[i];

        if (is_cut(is) && strncmp(is, line, step) == 0)
            return has_line(&t->may, is);
    }
    return false;
}

static void answered(struct trio *t, const char *want, const char *is)
{
    unsigned i = find_question(&t->may, 0, is);

    if (strcmp(want, is) == 0)
        return;
    if (has_line(&t->may, is)) {
        t->listed++;
        return;
    }
    printf("expected  %s\n", want);
    for (; i < t->may.count; i = find_question(&t->may, i + 1, is))
        printf("or        %s\n", t->may.text[i]);
    printf("answered  %s\n", is);
    t->wrong++;
}

static void not_expected(struct trio *t, const char *is)
{
    if (is_cut(is) && has_line(&t->may, is)) {
        t->listed++;
        return;
    }
    printf("not expected  %s\n", is);
    t->wrong++;
}

static void not_answered(struct trio *t, const char *want)
{
    if (may_be_missing(t, want))
        return;
    printf("not answered  %s\n", want);
    t->wrong++;
}

static void compare(struct trio *t)
{
    const struct lines *want = &t->want, *is = &t->is;
    unsigned i = 0, k = 0;

    while (i < want->count || k < is->count) {
        if (i < want->count && k < is->count && same_question(want->text[i], is->text[k]))
            answered(t, want->text[i++], is->text[k++]);
        else if (i == want->count ||
                 (k < is->count && find_question(want, i, is->text[k]) == want->count))
            not_expected(t, is->text[k++]);
        else
            not_answered(t, want->text[i++]);
    }
}

/* A list that has outlived its answers, or that lists what is expected anyway, hides faults. */
static void check_list(struct trio *t)
{
    for (unsigned i = 0; i < t->may.count; i++) {
        const char *line = t->may.text[i];

        if (!has_line(&t->want, line) &&
            (is_cut(line) || find_question(&t->want, 0, line) < t->want.count))
            continue;
        printf("listed in vain  %s\n", line);
        t->wrong++;
    }
}

int conform_compare(FILE *got, const char *only, const char *expected, const char *may)
{
    struct trio t = {.listed = 0};
    int rc = 2;

    if (read_file(expected, only, &t.want) == 0 && read_file(may, only, &t.may) == 0) {
        read_lines(got, NULL, &t.is);
        check_list(&t);
        compare(&t);
        printf("%u answers, %u not as expected", t.is.count, t.wrong);
        if (may != NULL)
            printf(", %u otherwise as %s lists", t.listed, may);
        putchar('\n');
        rc = t.wrong != 0 || t.is.count == 0;
    }
    free_lines(&t.want);
    free_lines(&t.may);
    free_lines(&t.is);
    return rc;
}
