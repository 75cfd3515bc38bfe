/*
 * Runs in a guest, from its init, and does what load= on the kernel's command line says:
 *
 *     load=write,FS,DISK,SAY,SECONDS,SEED
 *         on /dev/DISK, a file system made on the host: WORKERS processes that keep promises
 *         (promise.h) and one that only makes noise. What they promise goes to /dev/SAY. With the
 *         word "through" behind it DISK is told to write through its cache, and gets no flush
 *     load=check,FS,COUNT
 *         /dev/vdb and on are file systems after a crash. Each is mounted, so that the kernel mends
 *         it, compared with its promises, of which /dev/vda is full, and unmounted
 *
 * Ends with a power-off, with the disk still mounted after a write.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "promise.h"

#define FORGET_DEVICE _IOW(0x94, 5, struct forget) /* of /dev/btrfs-control */

struct forget {
    int64_t fd;
    char name[4088];
};

static void __attribute__((format(printf, 1, 2), noreturn)) die(const char *fmt, ...)
{
    va_list ap;

    printf("load: FAILED: ");
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf(": %s\n", strerror(errno));
    fflush(stdout);
    _exit(1);
}

/* ---- a worker ---- */

struct worker {
    unsigned number;
    const char *say_disk;
    uint64_t rng;
    int fd_say, folder, data, log;
    struct say *say; /* in memory that O_DIRECT takes */
    uint32_t version[OBJECTS], stable[OBJECTS];
    uint32_t said;
    unsigned long steps;
};

static uint64_t next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static unsigned below(struct worker *w, unsigned n)
{
    return (unsigned)(next(&w->rng) % n);
}

/* One write past the cache: when it is back, the disk has been asked. */
static void say_write(struct worker *w, bool stable)
{
    off_t at = (off_t)((w->said++ % 512) * WORKERS + w->number) * 512;

    w->say->magic = SAY_MAGIC;
    w->say->worker = w->number;
    w->say->stable = stable;
    if (pwrite(w->fd_say, w->say, sizeof(*w->say), at) != sizeof(*w->say))
        die("%s cannot be written", w->say_disk);
}

static void say(struct worker *w, bool stable, unsigned object, unsigned count, uint32_t version)
{
    w->say->count = 1;
    w->say->item[0] = (struct say_item){.object = object, .count = count, .version = version};
    say_write(w, stable);
    for (unsigned i = object; i < object + count; i++) {
        w->version[i] = version;
        if (stable)
            w->stable[i] = version;
    }
}

/* All that was begun. */
static void say_all_stable(struct worker *w)
{
    w->say->count = 0;
    for (unsigned i = 0; i < OBJECTS; i++) {
        if (w->stable[i] == w->version[i])
            continue;
        w->say->item[w->say->count++] =
            (struct say_item){.object = i, .count = 1, .version = w->version[i]};
        w->stable[i] = w->version[i];
        if (w->say->count == SAY_MOST) {
            say_write(w, true);
            w->say->count = 0;
        }
    }
    if (w->say->count > 0)
        say_write(w, true);
}

static void put(int fd, const void *from, size_t len, off_t at, const char *what)
{
    if (pwrite(fd, from, len, at) != (ssize_t)len)
        die("%s cannot be written", what);
}

static void stable(int fd, bool data_only, const char *what)
{
    if ((data_only ? fdatasync(fd) : fsync(fd)) < 0)
        die("%s: fsync", what);
}

static int make(struct worker *w, const char *name)
{
    int fd = openat(w->folder, name, O_RDWR | O_CREAT | O_TRUNC, 0644);

    if (fd < 0)
        die("%s cannot be made", name);
    return fd;
}

static void step_log(struct worker *w)
{
    uint8_t record[LOG_RECORD];
    uint32_t from = w->version[OBJECT_LOG], n = 1 + below(w, 4);

    if (from > 20000)
        return;
    say(w, false, OBJECT_LOG, 1, from + n);
    for (uint32_t i = from + 1; i <= from + n; i++) {
        promise_content(w->number, OBJECT_LOG, i, record, sizeof(record));
        put(w->log, record, sizeof(record), (off_t)(i - 1) * LOG_RECORD, "log");
    }
    if (below(w, 5) == 0)
        return;
    stable(w->log, below(w, 2) == 0, "log");
    say(w, true, OBJECT_LOG, 1, from + n);
}

static void step_sectors(struct worker *w)
{
    static uint8_t buf[SECTORS * PROMISE_SECTOR];
    unsigned first = below(w, SECTORS), count = 1 + below(w, 16);
    uint32_t version = 0;

    if (first + count > SECTORS)
        count = SECTORS - first;
    for (unsigned i = first; i < first + count; i++) {
        if (w->version[OBJECT_SECTOR + i] > version)
            version = w->version[OBJECT_SECTOR + i];
    }
    version++;
    say(w, false, OBJECT_SECTOR + first, count, version);
    for (unsigned i = 0; i < count; i++)
        promise_content(w->number, OBJECT_SECTOR + first + i, version, buf + i * PROMISE_SECTOR,
                        PROMISE_SECTOR);
    put(w->data, buf, count * PROMISE_SECTOR, first * PROMISE_SECTOR, "data");
    if (below(w, 4) == 0)
        return;
    stable(w->data, below(w, 2) == 0, "data");
    say(w, true, OBJECT_SECTOR + first, count, version);
}

static void put_content(struct worker *w, int fd, unsigned object, uint32_t version)
{
    static uint8_t buf[CONTENT_MOST];
    size_t len = promise_length(w->number, object, version);

    promise_content(w->number, object, version, buf, len);
    put(fd, buf, len, 0, "a file");
}

/* Replaced as editors and databases do. */
static void step_conf(struct worker *w)
{
    uint32_t version = w->version[OBJECT_CONF] + 1;
    int fd;

    say(w, false, OBJECT_CONF, 1, version);
    fd = make(w, "conf.new");
    put_content(w, fd, OBJECT_CONF, version);
    stable(fd, false, "conf.new");
    close(fd);
    if (renameat(w->folder, "conf.new", w->folder, "conf") < 0)
        die("conf.new cannot be renamed");
    stable(w->folder, false, "a folder");
    say(w, true, OBJECT_CONF, 1, version);
}

static void step_file(struct worker *w)
{
    unsigned which = below(w, FILES), object = OBJECT_FILE + which;
    uint32_t version = w->version[object] + 1;
    bool lazy = below(w, 4) == 0;
    char name[8];
    int fd;

    snprintf(name, sizeof(name), "f%02u", which);
    say(w, false, object, 1, version);
    if (version % 2 == 0) {
        if (unlinkat(w->folder, name, 0) < 0)
            die("%s cannot be removed", name);
    } else {
        fd = make(w, name);
        put_content(w, fd, object, version);
        if (!lazy)
            stable(fd, below(w, 3) == 0, name);
        close(fd);
    }
    if (lazy)
        return;
    stable(w->folder, false, "a folder");
    say(w, true, object, 1, version);
}

static void set_up(struct worker *w)
{
    char path[32];

    w->say = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    w->fd_say = open(w->say_disk, O_RDWR | O_DIRECT);
    if (w->say == MAP_FAILED || w->fd_say < 0)
        die("%s cannot be opened", w->say_disk);
    snprintf(path, sizeof(path), "/mnt/w%u", w->number);
    if (mkdir(path, 0755) < 0)
        die("%s cannot be made", path);
    w->folder = open(path, O_RDONLY | O_DIRECTORY);
    w->data = make(w, "data");
    w->log = make(w, "log");
    for (unsigned i = 0; i < SECTORS; i++) {
        uint8_t buf[PROMISE_SECTOR];

        promise_content(w->number, OBJECT_SECTOR + i, 0, buf, sizeof(buf));
        put(w->data, buf, sizeof(buf), i * PROMISE_SECTOR, "data");
    }
    sync();
    say(w, true, OBJECT_READY, 1, 1);
}

static void work(unsigned number, const char *say_disk, uint64_t seed, time_t until)
{
    struct worker w = {.number = number, .say_disk = say_disk, .rng = seed * 1000 + number};

    set_up(&w);
    for (; time(NULL) < until; w.steps++) {
        unsigned what = below(&w, 100);

        if (what < 30)
            step_log(&w);
        else if (what < 58)
            step_sectors(&w);
        else if (what < 72)
            step_conf(&w);
        else if (what < 97)
            step_file(&w);
        else {
            sync();
            say_all_stable(&w);
        }
    }
    printf("load: worker %u: %lu steps, %" PRIu32 " records in its log\n", number, w.steps,
           w.stable[OBJECT_LOG]);
}

/* ---- noise ---- */

/* Errors are part of it: no space, no such file. */
static void noise_step(struct worker *w, uint8_t *buf, size_t room)
{
    char a[32], b[32];
    int fd;

    snprintf(a, sizeof(a), "/mnt/noise/%u", below(w, 10));
    snprintf(b, sizeof(b), "/mnt/noise/%u", below(w, 10));
    fd = open(a, O_RDWR | O_CREAT, 0644);
    switch (below(w, 10)) {
    case 0:
    case 1:
    case 2:
    case 3:
        memset(buf, (int)below(w, 256), room);
        (void)!pwrite(fd, buf, 1 + below(w, (unsigned)room), below(w, 1 << 20));
        break;
    case 4:
        (void)!ftruncate(fd, below(w, 1 << 20));
        break;
    case 5:
        (void)!rename(a, b);
        break;
    case 6:
        unlink(b);
        (void)!link(a, b);
        break;
    case 7:
        (void)!fallocate(fd, FALLOC_FL_KEEP_SIZE | (below(w, 2) ? FALLOC_FL_PUNCH_HOLE : 0),
                         below(w, 1 << 20), 1 + below(w, 1 << 17));
        break;
    case 8:
        unlink(a);
        break;
    case 9:
        fsync(fd);
        break;
    }
    close(fd);
}

static void trim(void)
{
    struct fstrim_range range = {.len = UINT64_MAX};
    int fd = open("/mnt", O_RDONLY | O_DIRECTORY);

    ioctl(fd, FITRIM, &range); /* not every disk can */
    close(fd);
}

static void __attribute__((noreturn)) make_noise(uint64_t seed)
{
    struct worker w = {.rng = ~seed};
    size_t room = 256 * 1024;
    uint8_t *buf = malloc(room);
    const struct timespec nap = {.tv_nsec = 5000000};

    if (buf == NULL)
        die("no memory");
    mkdir("/mnt/noise", 0755);
    for (unsigned n = 1;; n++) {
        noise_step(&w, buf, room);
        if (n % 64 == 0)
            sync();
        if (n % 400 == 0)
            trim();
        nanosleep(&nap, NULL);
    }
}

static void write_load(const char *fs, const char *disk, const char *say_disk, unsigned seconds,
                       uint64_t seed)
{
    time_t until;
    pid_t noise;
    int status;

    for (unsigned i = 0; i < 60 && access(disk, F_OK) < 0;
         i++) /* some controllers take their time */
        sleep(1);
    if (mount(disk, "/mnt", fs, 0, NULL) < 0)
        die("%s cannot be mounted as %s", disk, fs);
    until = time(NULL) + (time_t)seconds;
    fflush(stdout);
    noise = fork();
    if (noise == 0)
        make_noise(seed);
    for (unsigned i = 0; i < WORKERS; i++) {
        if (fork() == 0) {
            work(i, say_disk, seed, until);
            exit(0);
        }
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        if (wait(&status) < 0 || status != 0)
            die("a worker ended with %d", status);
    }
    kill(noise, SIGKILL);
    printf("load: written\n");
}

/* ---- check ---- */

/* A btrfs is known by its number, which all of these share. */
static void forget_devices(void)
{
    static struct forget forget;
    int fd = open("/dev/btrfs-control", O_RDWR);

    if (fd < 0)
        return;
    ioctl(fd, FORGET_DEVICE, &forget);
    close(fd);
}

static void check_image(unsigned number, const char *fs)
{
    static struct promises p;
    char device[16], name[24];
    unsigned breaches;
    int fd = open("/dev/vda", O_RDONLY);

    snprintf(device, sizeof(device), "/dev/vd%c", (char)('b' + number));
    snprintf(name, sizeof(name), "image %u", number);
    if (fd < 0 || pread(fd, &p, sizeof(p), (off_t)number * 65536) != sizeof(p))
        die("the promises cannot be read");
    close(fd);
    forget_devices();
    if (mount(device, "/mnt", fs, 0, NULL) < 0) {
        printf("%s: cannot be mounted: %s\n", name, strerror(errno));
        return;
    }
    breaches = promise_check(&p, "/mnt", name);
    if (umount("/mnt") < 0)
        printf("%s: cannot be unmounted: %s\n", name, strerror(errno));
    else
        printf("%s: %s\n", name, breaches == 0 ? "kept" : "broken");
}

static void write_through(const char *name)
{
    static const char how[] = "write through";
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/sys/block/%s/cache_type", name);
    fd = open(path, O_WRONLY);
    if (fd < 0 || write(fd, how, sizeof(how) - 1) != sizeof(how) - 1)
        die("%s cannot be written", path);
    close(fd);
}

/* What load= says. */
static void obey(const char *line)
{
    char fs[16], disk[32] = "/dev/", say_disk[32] = "/dev/";
    const char *at = strstr(line, "load=");
    uint64_t seed;
    unsigned n;

    if (at != NULL && sscanf(at, "load=write,%15[^,],%15[^,],%15[^,],%u,%" SCNu64, fs, disk + 5,
                             say_disk + 5, &n, &seed) == 5) {
        if (strstr(at, " through") != NULL)
            write_through(disk + 5);
        write_load(fs, disk, say_disk, n, seed);
    } else if (at != NULL && sscanf(at, "load=check,%15[^,],%u", fs, &n) == 2) {
        for (unsigned i = 0; i < n; i++)
            check_image(i, fs);
        printf("load: checked\n");
    } else {
        errno = EINVAL;
        die("no load=");
    }
}

int main(void)
{
    char line[2048] = "";
    int fd = open("/proc/cmdline", O_RDONLY);

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (fd < 0 || read(fd, line, sizeof(line) - 1) <= 0)
        die("/proc/cmdline");
    obey(line);
    fflush(stdout);
    reboot(RB_POWER_OFF);
    return 0;
}
