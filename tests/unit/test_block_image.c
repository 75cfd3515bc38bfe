/* What a disk's options mean, what is wrong with them, and images that come, go and change. */
#include "block_fixture.h"

#include <errno.h>

#include "block/internal.h"

#ifdef __linux__
#include <sys/mount.h>
#endif

struct sentence {
    const char *options, *text;
    int code;
};

static void refuse(struct disk *d, bool removable, const struct sentence *s)
{
    struct error err = {0};
    int rc = disk_open(d, s->options, removable, &err);

    if (rc == 0)
        fail_msg("'%s' was taken", s->options);
    if (rc != s->code || strstr(err.text, s->text) == NULL)
        fail_msg("'%s': %d: %s", s->options, rc, err.text);
}

static void test_sentences(void **state)
{
    static const struct sentence words[] = {
        {"format=vmdk", "format=vmdk is not known; there are: ", -EINVAL},
        {"aio=posix", "aio=posix is not known; there are io_uring and threads", -EINVAL},
        {"on_error=stop", "on_error=stop is not known; there are report and pause", -EINVAL},
        {"sectorsize=1024", "sectorsize=1024: a sector has 512 or 4096 bytes", -EINVAL},
        {"sectorsize=4096/512", "sectorsize=4096/512: ", -EINVAL},
        {"sectorsize=512/", "sectorsize=512/: ", -EINVAL},
        {"sectorsize=00000000000000000512", "sectorsize=", -EINVAL},
        {"iothread=1", "iothread= is not built yet", -ENOTSUP},
    };
    static const struct sentence none[] = {
        {"", "a disk needs an image: its path, or ram=SIZE", -EINVAL},
        {"ram=0", "ram=0 is no disk", -EINVAL},
        {"ram=1000", "ram: its size, 1000 bytes, is not a multiple of 512", -EINVAL},
        {"ram=64k,sectorsize=4096,path=/tmp/x", "/tmp/x: a disk is an image or in memory", -EINVAL},
        {"ram=1536,sectorsize=4096", "1536 bytes, is not a multiple of the sector, 4096", -EINVAL},
        {"path=/nowhere/disk.img", "/nowhere/disk.img: there is no such file", -ENOENT},
        {"path=/tmp", "/tmp: is a directory", -EISDIR},
    };
    struct disk *d = disk_create(false);

    (void)state;
    for (unsigned i = 0; i < countof(none); i++)
        refuse(d, false, &none[i]);
    refuse(d, true, &none[5]); /* removable: may be left out, but not be missing */
    disk_file(d, 65536);
    for (unsigned i = 0; i < countof(words); i++)
        refuse(d, false, &words[i]);
    assert_int_equal(truncate(d->path, 0), 0);
    refuse(d, false, &(struct sentence){"", ": is empty; a disk needs a size", -EINVAL});
    assert_int_equal(truncate(d->path, 513), 0);
    refuse(d, false, &(struct sentence){"ro", "513 bytes, is not a multiple of 512", -EINVAL});
    disk_destroy(d);
}

static void test_locked(void **state)
{
    struct disk *a = disk_create(false), *b = disk_create(false);
    struct error err = {0};

    (void)state;
    disk_file(a, 65536);
    disk_open_ok(a, "");
    strcpy(b->path, a->path);
    refuse(b, false, &(struct sentence){"", "is in use by process ", -EBUSY});
    refuse(b, false, &(struct sentence){"ro", "nobody else can read it", -EBUSY});
    disk_close(a);
    disk_open_ok(a, "ro");
    assert_int_equal(disk_open(b, "ro", false, &err), 0);
    b->path[0] = '\0';
    disk_destroy(b);
    disk_destroy(a);
}

static void test_unreadable(void **state)
{
    struct disk *d = disk_create(false);
    uid_t uid = geteuid();

    (void)state;
    disk_file(d, 65536);
    assert_int_equal(chmod(d->path, 0444), 0);
    if (uid == 0)
        assert_int_equal(seteuid(65534), 0); /* root may read everything */
    refuse(d, false, &(struct sentence){"", "no permission to read and write it; ro ", -EACCES});
    disk_open_ok(d, "ro");
    disk_close(d);
    if (uid == 0)
        assert_int_equal(seteuid(0), 0);
    assert_int_equal(chmod(d->path, 0), 0);
    if (uid == 0)
        assert_int_equal(seteuid(65534), 0);
    refuse(d, false, &(struct sentence){"ro", "no permission to read it", -EACCES});
    assert_int_equal(seteuid(uid), 0);
    disk_destroy(d);
}

static void geometry(const char *options, struct block_geometry *g)
{
    struct disk *d = disk_create(false);

    disk_file(d, 65536);
    disk_open_ok(d, options);
    block_geometry(d->b, g);
    disk_destroy(d);
}

static void test_geometry(void **state)
{
    struct block_geometry g;

    (void)state;
    geometry("", &g);
    assert_int_equal(g.sector, 512);
    assert_true(g.discard);
    geometry("nodelete", &g);
    assert_false(g.discard);
    geometry("ro", &g);
    assert_true(g.read_only);
    assert_false(g.discard);
    geometry("sectorsize=4096", &g);
    assert_int_equal(g.sector, 4096);
    assert_int_equal(g.physical, 4096);
    geometry("sectorsize=512/4096", &g);
    assert_int_equal(g.sector, 512);
    assert_int_equal(g.physical, 4096);
    geometry("sectorsize=512", &g);
    assert_int_equal(g.physical, 512);
}

/* The same path gives the same serial number, in every run; another path another one. */
static void test_serial(void **state)
{
    struct disk *d = disk_create(false);
    struct block_geometry g, again;

    (void)state;
    disk_open_ok(d, "ram=64k"); /* by the device's name */
    block_geometry(d->b, &g);
    assert_string_equal(g.serial, "BHYVE-334A-CA3E-FAFB");
    disk_close(d);
    disk_file(d, 65536);
    disk_open_ok(d, "");
    block_geometry(d->b, &g);
    disk_close(d);
    disk_open_ok(d, "ro");
    block_geometry(d->b, &again);
    assert_string_equal(g.serial, again.serial);
    assert_string_not_equal(g.serial, "BHYVE-334A-CA3E-FAFB");
    disk_destroy(d);
}

/* Sectors of 4096 bytes are asked for whole; what is read-only is not written. */
static void test_judged(void **state)
{
    static uint8_t p[8192];
    struct disk *d = disk_create(false);

    (void)state;
    disk_file(d, 65536);
    disk_open_ok(d, "sectorsize=4096");
    assert_int_equal(disk_do(d, BLOCK_READ, 512, p, 4096), -EINVAL);
    assert_int_equal(disk_do(d, BLOCK_READ, 4096, p, 512), -EINVAL);
    assert_int_equal(disk_do(d, BLOCK_READ, 4096, p, 4096), 0);
    assert_int_equal(disk_do(d, BLOCK_WRITE, 61440, p, 8192), -EINVAL);
    assert_int_equal(disk_do(d, BLOCK_ZERO, UINT64_MAX - 4095, NULL, 8192), -EINVAL);
    assert_int_equal(disk_do(d, BLOCK_WRITE, 65536, p, 0), 0);
    disk_close(d);
    disk_open_ok(d, "ro");
    assert_int_equal(disk_do(d, BLOCK_WRITE, 0, p, 512), -EROFS);
    assert_int_equal(disk_do(d, BLOCK_ZERO, 0, NULL, 512), -EROFS);
    assert_int_equal(disk_do(d, BLOCK_DISCARD, 0, NULL, 512), -EROFS);
    assert_int_equal(disk_do(d, BLOCK_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(disk_do(d, BLOCK_READ, 0, p, 512), 0);
    disk_destroy(d);
}

/* nodelete: a discard that comes all the same changes nothing. */
static void test_nodelete(void **state)
{
    static uint8_t p[4096];
    struct disk *d = disk_create(false);

    (void)state;
    memset(p, 3, sizeof(p));
    disk_file(d, 65536);
    disk_open_ok(d, "nodelete");
    assert_int_equal(disk_do(d, BLOCK_WRITE, 0, p, 4096), 0);
    assert_int_equal(disk_do(d, BLOCK_DISCARD, 0, NULL, 4096), 0);
    assert_int_equal(disk_do(d, BLOCK_READ, 0, p, 4096), 0);
    assert_int_equal(p[0], 3);
    disk_destroy(d);
}

static void until_changed(struct disk *d, unsigned count)
{
    for (;;) {
        unsigned seen;

        pthread_mutex_lock(&d->env.lock);
        seen = d->changed;
        pthread_mutex_unlock(&d->env.lock);
        if (seen >= count)
            break;
        usleep(1000);
    }
    assert_int_equal(d->changed, count);
}

static void test_refresh(void **state)
{
    static uint8_t p[512];

    (void)state;
    for (unsigned loop = 0; loop < 2; loop++) {
        struct disk *d = disk_create(loop != 0);
        struct block_geometry g;

        disk_file(d, 65536);
        disk_open_ok(d, "");
        pthread_mutex_lock(&d->env.lock);
        block_refresh(d->b);
        pthread_mutex_unlock(&d->env.lock);
        assert_int_equal(disk_do(d, BLOCK_READ, 65536, p, 512), -EINVAL);
        assert_int_equal(d->changed, 0);
        assert_int_equal(truncate(d->path, 131072), 0);
        pthread_mutex_lock(&d->env.lock);
        block_refresh(d->b);
        block_geometry(d->b, &g);
        pthread_mutex_unlock(&d->env.lock);
        assert_int_equal(g.size, 131072);
        until_changed(d, 1);
        assert_int_equal(disk_do(d, BLOCK_READ, 65536, p, 512), 0);
        /* Shorter, and nobody has told us: an error, and not other bytes. */
        assert_int_equal(truncate(d->path, 65536), 0);
        assert_int_equal(disk_do(d, BLOCK_READ, 131072 - 512, p, 512), -EIO);
        assert_non_null(strstr(d->log[0], "the file has become shorter"));
        disk_destroy(d);
    }
}

/* What the loop was told before is not forgotten when somebody else waits for the disk's jobs. */
static void test_told(void **state)
{
    static uint8_t p[512];
    struct disk *d = disk_create(true);
    struct call bad, read;
    struct error err = {0};

    (void)state;
    disk_file(d, 65536);
    for (unsigned i = 0; i < 300; i++) {
        assert_int_equal(disk_open(d, "", true, &err), 0);
        call_init(&bad, d, BLOCK_READ, 1, p, 512);
        call_init(&read, d, BLOCK_READ, 512, p, 512);
        pthread_mutex_lock(&d->env.lock);
        block_submit(d->b, &bad.r);
        block_submit(d->b, &read.r);
        if (i % 3 == 0)
            block_refresh(d->b);
        else if (i % 3 == 1)
            assert_int_equal(block_insert(d->b, NULL, &err), 0);
        else
            block_drain(d->b);
        assert_int_equal(bad.rc, i % 3 == 2 ? -EINVAL : 1);
        pthread_mutex_unlock(&d->env.lock);
        assert_int_equal(call_wait(&bad), -EINVAL);
        assert_int_equal(call_wait(&read), 0);
        until_changed(d, (i + 2) / 3);
        disk_close(d);
    }
    disk_destroy(d);
}

static int insert(struct disk *d, const char *path, struct error *err)
{
    int rc;

    pthread_mutex_lock(&d->env.lock);
    rc = block_insert(d->b, path, err);
    pthread_mutex_unlock(&d->env.lock);
    return rc;
}

static void test_insert(void **state)
{
    static uint8_t p[512];

    (void)state;
    for (unsigned loop = 0; loop < 2; loop++) {
        struct disk *d = disk_create(loop != 0);
        struct error err = {0};
        struct block_geometry g;

        assert_int_equal(disk_open(d, "", true, &err), 0); /* an empty drive */
        block_geometry(d->b, &g);
        assert_true(g.removable && g.read_only);
        assert_int_equal(g.size, 0);
        assert_int_equal(disk_do(d, BLOCK_READ, 0, p, 512), -EINVAL);
        assert_int_equal(disk_do(d, BLOCK_FLUSH, 0, NULL, 0), 0);
        disk_file(d, 65536);
        assert_int_equal(insert(d, d->path, &err), 0);
        until_changed(d, 1);
        block_geometry(d->b, &g);
        assert_int_equal(g.size, 65536);
        assert_int_equal(disk_do(d, BLOCK_READ, 512, p, 512), 0);
        assert_int_equal(disk_do(d, BLOCK_WRITE, 512, p, 512), -EROFS);
        assert_int_equal(insert(d, "/nowhere/cd.iso", &err), -ENOENT);
        assert_int_equal(disk_do(d, BLOCK_READ, 512, p, 512), 0); /* the old one stays */
        assert_int_equal(insert(d, d->path, &err), 0);            /* the same again */
        until_changed(d, 2);
        assert_int_equal(insert(d, NULL, &err), 0);
        until_changed(d, 3);
        assert_int_equal(disk_do(d, BLOCK_READ, 0, p, 512), -EINVAL);
        disk_close(d);
        disk_open_ok(d, "");
        assert_int_equal(insert(d, NULL, &err), -EINVAL); /* not removable */
        disk_destroy(d);
    }
}

/* One of more parts than a system call takes, in pieces down to a byte, none, and odd ones. */
static void test_pieces(void **state)
{
    (void)state;
    for (unsigned way = 0; way < 4; way++) {
        struct disk *d = disk_create(way > 0);
        uint8_t *p = malloc(9 * MIB), *q = malloc(9 * MIB);
        struct iovec *iov = calloc(20000, sizeof(*iov));
        unsigned n = 0;
        size_t at = 0;
        struct call c;

        disk_file(d, 16 * MIB);
        disk_open_ok(d, way == 3 ? "nocache,sectorsize=4096" : way == 1 ? "aio=threads" : "");
        for (size_t i = 0; i < 9 * MIB; i++)
            p[i] = (uint8_t)(i * 31 + (i >> 12));
        while (at < 9 * MIB) {
            size_t len = n < 9000 ? n % 3 : 4099;

            if (len > 9 * MIB - at)
                len = 9 * MIB - at;
            iov[n++] = (struct iovec){.iov_base = p + at, .iov_len = len};
            at += len;
        }
        call_init(&c, d, BLOCK_WRITE, 4096, NULL, 9 * MIB);
        c.r.iov = iov;
        c.r.iov_count = n;
        call_submit(&c);
        assert_int_equal(call_wait(&c), 0);
        assert_int_equal(disk_do(d, BLOCK_READ, 4096, q, 9 * MIB), 0);
        assert_memory_equal(p, q, 9 * MIB);
        memset(p, 0, 9 * MIB);
        call_init(&c, d, BLOCK_READ, 4096, NULL, 9 * MIB);
        c.r.iov = iov;
        c.r.iov_count = n;
        call_submit(&c);
        assert_int_equal(call_wait(&c), 0);
        assert_memory_equal(p, q, 9 * MIB);
        disk_destroy(d);
        free(iov);
        free(p);
        free(q);
    }
}

#ifdef __linux__
/* A file system that is full: the guest's write waits until there is room. */
static void full(const char *options)
{
    struct disk *d = disk_create(true);
    uint8_t *p = malloc(MIB), *q = malloc(MIB);
    char dir[] = "/tmp/full-XXXXXX", ballast[64];
    struct call c;
    int fd;

    assert_non_null(mkdtemp(dir));
    if (mount("tmpfs", dir, "tmpfs", 0, "size=2m") < 0) {
        print_message("skipped: no file system can be mounted here\n");
        rmdir(dir);
        disk_destroy(d);
        free(p);
        free(q);
        return;
    }
    snprintf(ballast, sizeof(ballast), "%s/ballast", dir);
    fd = open(ballast, O_RDWR | O_CREAT, 0600);
    assert_int_equal(posix_fallocate(fd, 0, MIB + 512 * KIB), 0);
    snprintf(d->path, sizeof(d->path), "%s/disk", dir);
    close(open(d->path, O_RDWR | O_CREAT, 0600));
    assert_int_equal(truncate(d->path, 4 * MIB), 0);
    disk_open_ok(d, options);
    memset(p, 7, MIB);
    call_init(&c, d, BLOCK_WRITE, MIB, p, MIB);
    call_submit(&c);
    for (bool waits = false; !waits;) {
        pthread_mutex_lock(&d->env.lock);
        waits = d->b->troubled == 1;
        pthread_mutex_unlock(&d->env.lock);
        usleep(1000);
    }
    assert_int_equal(disk_do(d, BLOCK_READ, 0, q, 512), 0); /* others go on */
    assert_non_null(strstr(d->log[0], "No space left on device; the guest's requests wait"));
    close(fd);
    unlink(ballast);
    assert_int_equal(call_wait(&c), 0);
    assert_int_equal(disk_do(d, BLOCK_READ, MIB, q, MIB), 0);
    assert_memory_equal(p, q, MIB);
    disk_close(d);
    unlink(d->path);
    d->path[0] = '\0';
    assert_int_equal(umount(dir), 0);
    rmdir(dir);
    disk_destroy(d);
    free(p);
    free(q);
}

static void test_full(void **state)
{
    (void)state;
    full("on_error=pause,aio=threads");
    full("on_error=pause");
}
#else
static void test_full(void **state)
{
    (void)state;
    print_message("skipped: Linux mounts a small file system for this\n");
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sentences),  cmocka_unit_test(test_locked),
        cmocka_unit_test(test_unreadable), cmocka_unit_test(test_geometry),
        cmocka_unit_test(test_serial),     cmocka_unit_test(test_judged),
        cmocka_unit_test(test_nodelete),   cmocka_unit_test(test_refresh),
        cmocka_unit_test(test_told),       cmocka_unit_test(test_insert),
        cmocka_unit_test(test_pieces),     cmocka_unit_test(test_full),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
