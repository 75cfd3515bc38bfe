#include "host/program.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef __linux__
#include <link.h>

struct id {
    uint8_t *to;
    size_t size, found;
};

/* The first object is the program. */
static int look(struct dl_phdr_info *info, size_t size, void *ctx)
{
    struct id *id = ctx;

    (void)size;
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
        const char *at = (const char *)info->dlpi_addr + ph->p_vaddr, *end = at + ph->p_memsz;
        ElfW(Nhdr) note;

        while (ph->p_type == PT_NOTE && end - at >= (ptrdiff_t)sizeof(note)) {
            const char *name = at + sizeof(note), *data;

            memcpy(&note, at, sizeof(note));
            data = name + ((note.n_namesz + 3) & ~3u);
            if (note.n_type == 3 && note.n_namesz == 4 && memcmp(name, "GNU", 4) == 0) {
                id->found = note.n_descsz < id->size ? note.n_descsz : id->size;
                memcpy(id->to, data, id->found);
                return 1;
            }
            at = data + ((note.n_descsz + 3) & ~3u);
        }
    }
    return 1;
}

size_t host_build_id(uint8_t *bytes, size_t size)
{
    struct id id = {.to = bytes, .size = size};

    dl_iterate_phdr(look, &id);
    return id.found;
}
#else
size_t host_build_id(uint8_t *bytes, size_t size)
{
    (void)bytes;
    (void)size;
    return 0;
}
#endif

int host_own_dir(const char *path, struct error *err)
{
    struct stat st;

    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return error_set(err, -errno, "cannot make the directory %s: %s", path, strerror(errno));
    if (stat(path, &st) < 0)
        return error_set(err, -errno, "cannot look at %s: %s", path, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return error_set(err, -ENOTDIR, "%s is not a directory", path);
    if (st.st_uid != geteuid() || (st.st_mode & 022) != 0)
        return error_set(err, -EPERM,
                         "others may write to %s: give a directory that is yours alone (chmod 700)",
                         path);
    return 0;
}

int host_cache_dir(const char *name, char *path, size_t size)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    struct error err;
    int n;

    if (cache != NULL && cache[0] == '/')
        n = snprintf(path, size, "%s", cache);
    else if (home != NULL && home[0] == '/')
        n = snprintf(path, size, "%s/.cache", home);
    else
        return -ENOENT;
    if (n < 0 || (size_t)n >= size)
        return -ENAMETOOLONG;
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return -errno;
    if ((size_t)snprintf(path + n, size - (size_t)n, "/%s", name) >= size - (size_t)n)
        return -ENAMETOOLONG;
    return host_own_dir(path, &err);
}
