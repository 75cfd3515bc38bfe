/*
 * Runs a fuzz target on files, and on all files of folders, without libFuzzer: what fuzzing once
 * found stays found.
 *
 *     replay_TARGET FILE|FOLDER...
 */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "program.h"

__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return 0;
}

static int complain(const char *path)
{
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    return -1;
}

/* 1, or -1. The bytes lie in an allocation of their exact size, so that a sanitizer sees its end.
 */
static int run_file(const char *path)
{
    struct stat st;
    FILE *f = fopen(path, "rb");
    uint8_t *data;
    size_t len;

    if (f == NULL || fstat(fileno(f), &st) != 0)
        return complain(path);
    data = malloc(st.st_size > 0 ? (size_t)st.st_size : 1);
    len = data != NULL ? fread(data, 1, (size_t)st.st_size, f) : 0;
    if (data == NULL || len != (size_t)st.st_size)
        return complain(path);
    fclose(f);
    if (getenv("FUZZ_VERBOSE") != NULL)
        fprintf(stderr, "%s\n", path);
    LLVMFuzzerTestOneInput(data, len);
    free(data);
    return 1;
}

/* How many files, or -1. */
static int run_path(const char *path)
{
    char name[4096];
    struct dirent *e;
    struct stat st;
    int count = 0;
    DIR *d;

    if (stat(path, &st) != 0)
        return complain(path);
    if (!S_ISDIR(st.st_mode))
        return run_file(path);
    d = opendir(path);
    if (d == NULL)
        return complain(path);
    while (count >= 0 && (e = readdir(d)) != NULL) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(name, sizeof(name), "%s/%s", path, e->d_name);
        count = run_file(name) < 0 ? -1 : count + 1;
    }
    closedir(d);
    return count;
}

int main(int argc, char **argv)
{
    int total = 0;

    if (LLVMFuzzerInitialize(&argc, &argv) != 0)
        return 1;
    for (int i = 1; i < argc; i++) {
        int n = run_path(argv[i]);

        if (n < 0)
            return 1;
        total += n;
    }
    printf("%d inputs\n", total);
    if (total == 0)
        fprintf(stderr, "usage: %s FILE|FOLDER... (with a file at least)\n", argv[0]);
    return total == 0;
}
