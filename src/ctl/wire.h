/*
 * The words of the control socket's lines. A word is printable ASCII without blanks; every other
 * byte, and '%', is written as %XX with two hexadecimal digits. So any file name is one word, and a
 * line is a line. Pure functions; docs/control.md is the protocol.
 */
#ifndef CTL_WIRE_H
#define CTL_WIRE_H

#include <stddef.h>

#include "base/error.h"

#define CTL_VERSION 1u
#define CTL_LINE_MAX 4096u /* bytes of a request, its newline counted */
#define CTL_ANSWER_MAX                                                                             \
    20480u               /* bytes of an answer: a path of 4096 bytes fits, however it is written */
#define CTL_WORDS_MAX 8u /* of a request */

/* Appends `text` as one word at to + at, of room bytes in all, and a 0. The new end, or room if it
 * does not fit. */
size_t ctl_word_put(char *to, size_t room, size_t at, const char *text);

/*
 * Cuts the line (len bytes, without its newline; changed) into words, decoded in place. How many,
 * or -EINVAL and a sentence: no word, too many, a byte that must be written as %XX, a wrong %XX, a
 * 0.
 */
int ctl_words(char *line, size_t len, char *words[CTL_WORDS_MAX], struct error *err);

#endif
