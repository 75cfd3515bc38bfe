/*
 * Lines of a hostile client of the control socket, cut into words. What is taken must come back
 * when it is written again and read again. For libFuzzer, and as replay_ctl for files.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "fuzz_ctl: %s\n", what);
        abort();
    }
}

/* Of exactly the line's size, so that the sanitizer sees a byte beside it. */
static void one_line(const uint8_t *data, size_t len)
{
    char *line = malloc(len + 1), *words[CTL_WORDS_MAX], *again[CTL_WORDS_MAX];
    char *copy = malloc(3 * len + CTL_WORDS_MAX + 1);
    struct error err = {0};
    size_t at = 0;
    int count;

    check(line != NULL && copy != NULL, "no memory");
    memcpy(line, data, len);
    line[len] = '\n';
    count = ctl_words(line, len, words, &err);
    check(count > 0 || (count < 0 && err.text[0] != '\0'), "neither words nor a sentence");
    for (int i = 0; i < count; i++) {
        check(words[i] >= line && words[i] <= line + len, "a word outside the line");
        check(words[i][0] != '\0', "an empty word");
        at = ctl_word_put(copy, 3 * len + CTL_WORDS_MAX + 1, at, words[i]);
        check(at < 3 * len + CTL_WORDS_MAX, "a word that grows too much");
        copy[at++] = ' ';
    }
    if (count > 0) {
        check(ctl_words(copy, at - 1, again, NULL) == count, "another number of words");
        for (int i = 0; i < count; i++)
            check(strcmp(words[i], again[i]) == 0, "another word");
    }
    free(line);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    while (len > 0) {
        const uint8_t *end = memchr(data, '\n', len);
        size_t line = end != NULL ? (size_t)(end - data) : len;

        one_line(data, line);
        data += line + (end != NULL);
        len -= line + (end != NULL);
    }
    return 0;
}
