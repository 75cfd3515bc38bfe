/*
 * Host-side errors: a negative errno and one sentence a person can act on. Filled where the error
 * happens, printed once at the edge (cli/). Any thread; the struct belongs to the caller.
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

struct error {
    int code; /* negative errno, 0 = none */
    char text[512];
};

/* Stores code and sentence in err (may be NULL) and returns code. The sentence has no full stop. */
int error_set(struct error *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "context: " before the sentence already in err, if there is an err. */
void error_prefix(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
