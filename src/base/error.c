#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GAP " ... "

/*
 * A sentence that is too long has a long word of the user's in its middle: what it begins with and
 * the reason at its end are kept.
 */
static void fit(struct error *err, const char *text)
{
    size_t len = strlen(text), room = sizeof(err->text) - 1, half = (room - strlen(GAP)) / 2;

    if (len <= room) {
        memcpy(err->text, text, len + 1);
        return;
    }
    memcpy(err->text, text, half);
    memcpy(err->text + half, GAP, strlen(GAP));
    strcpy(err->text + half + strlen(GAP), text + len - half);
}

int error_set(struct error *err, int code, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    int n;

    if (err == NULL)
        return code;
    err->code = code;
    va_start(ap, fmt);
    n = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (n >= 0) {
        fit(err, text);
        free(text);
        return code;
    }
    va_start(ap, fmt); /* no memory: as much as there is room for */
    vsnprintf(err->text, sizeof(err->text), fmt, ap);
    va_end(ap);
    return code;
}

void error_prefix(struct error *err, const char *fmt, ...)
{
    char prefix[sizeof(err->text)], both[2 * sizeof(err->text) + 2];
    va_list ap;

    if (err == NULL)
        return;
    va_start(ap, fmt);
    vsnprintf(prefix, sizeof(prefix), fmt, ap);
    va_end(ap);
    snprintf(both, sizeof(both), "%s: %s", prefix, err->text);
    fit(err, both);
}
