/* Locks between processes, and who has one. */
#include "host/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

int hfile_lock(int fd, bool write)
{
#ifdef F_OFD_SETLK
    /* Not F_SETLK: its locks go when anything in the process closes the same file. */
    struct flock lock = {.l_type = write ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET};
    int rc = fcntl(fd, F_OFD_SETLK, &lock);
#else
    int rc = flock(fd, (write ? LOCK_EX : LOCK_SH) | LOCK_NB);
#endif

    if (rc == 0)
        return 0;
    if (errno == EACCES || errno == EAGAIN || errno == EWOULDBLOCK)
        return -EAGAIN;
    return -errno;
}

#ifdef __linux__
/* The kernel lists a lock with the descriptor that holds it, and there alone. */
static bool has_lock(const char *pid, const char *fd)
{
    char path[300], line[256];
    bool found = false;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%.20s/fdinfo/%.20s", pid, fd);
    f = fopen(path, "re");
    if (f == NULL)
        return false;
    while (!found && fgets(line, sizeof(line), f) != NULL)
        found = strncmp(line, "lock:", 5) == 0;
    fclose(f);
    return found;
}

static bool process_has(const char *pid, const struct stat *want)
{
    char path[300];
    bool found = false;
    struct dirent *e;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%.20s/fd", pid);
    dir = opendir(path);
    if (dir == NULL)
        return false;
    while (!found && (e = readdir(dir)) != NULL) {
        struct stat st;

        if (e->d_name[0] != '.' && fstatat(dirfd(dir), e->d_name, &st, 0) == 0 &&
            st.st_dev == want->st_dev && st.st_ino == want->st_ino)
            found = has_lock(pid, e->d_name);
    }
    closedir(dir);
    return found;
}

int hfile_lock_holder(int fd)
{
    struct dirent *e;
    struct stat st;
    int pid = 0;
    DIR *proc;

    if (fstat(fd, &st) < 0)
        return 0;
    proc = opendir("/proc");
    if (proc == NULL)
        return 0;
    while (pid == 0 && (e = readdir(proc)) != NULL) {
        if (e->d_name[0] >= '1' && e->d_name[0] <= '9' && process_has(e->d_name, &st))
            pid = atoi(e->d_name);
    }
    closedir(proc);
    return pid;
}
#else
int hfile_lock_holder(int fd)
{
    (void)fd;
    return 0;
}
#endif
