#include "ctl/wire.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

static bool plain(unsigned char c)
{
    return c > ' ' && c < 0x7F && c != '%';
}

size_t ctl_word_put(char *to, size_t room, size_t at, const char *text)
{
    static const char digits[] = "0123456789ABCDEF";

    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        size_t need = plain(c) ? 1 : 3;

        if (at >= room || room - at <= need)
            return room;
        if (plain(c)) {
            to[at++] = (char)c;
            continue;
        }
        to[at++] = '%';
        to[at++] = digits[c >> 4];
        to[at++] = digits[c & 15];
    }
    if (at >= room)
        return room;
    to[at] = '\0';
    return at;
}

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

/* A word of len bytes at `from` to `to`, which may be the same place, and a 0 behind it. */
static int decode(char *to, const char *from, size_t len, struct error *err)
{
    size_t at = 0;

    for (size_t i = 0; i < len; i++) {
        int high, low;

        if (plain((unsigned char)from[i])) {
            to[at++] = from[i];
            continue;
        }
        if (from[i] != '%')
            return error_set(err, -EINVAL, "byte %#x in the request: write it as %%%02X",
                             (unsigned char)from[i], (unsigned char)from[i]);
        high = len - i > 2 ? digit(from[i + 1]) : -1;
        low = len - i > 2 ? digit(from[i + 2]) : -1;
        if (high < 0 || low < 0)
            return error_set(err, -EINVAL, "a %% in the request without two hexadecimal digits");
        if (high == 0 && low == 0)
            return error_set(err, -EINVAL, "%%00 in the request: no word holds a zero byte");
        to[at++] = (char)(high << 4 | low);
        i += 2;
    }
    to[at] = '\0';
    return 0;
}

int ctl_words(char *line, size_t len, char *words[CTL_WORDS_MAX], struct error *err)
{
    size_t i = 0;
    int count = 0;

    while (i < len) {
        size_t start, word;
        int rc;

        if (line[i] == ' ') {
            i++;
            continue;
        }
        if (count == (int)CTL_WORDS_MAX)
            return error_set(err, -EINVAL, "more than %u words in the request", CTL_WORDS_MAX);
        start = i;
        while (i < len && line[i] != ' ')
            i++;
        word = i - start;
        /* decoded it is no longer, so its 0 stands at most where the blank or the newline was */
        rc = decode(line + start, line + start, word, err);
        if (rc < 0)
            return rc;
        words[count++] = line + start;
        if (i < len)
            i++;
    }
    if (count == 0)
        return error_set(err, -EINVAL, "an empty request; help lists what there is");
    return count;
}
