/* Files that images lie in: on the host and in memory, their ends, holes, locks, copies. */
#include "block_fixture.h"

#include <errno.h>
#include <sys/wait.h>

#include "block/format.h"

static char path[64];

static int setup(void **state)
{
    int fd;

    (void)state;
    strcpy(path, "/tmp/bfile-XXXXXX");
    fd = mkstemp(path);
    return fd >= 0 && close(fd) == 0 ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

static struct bfile *host(struct bfile_flags flags, uint64_t size)
{
    struct error err = {0};
    struct bfile *f = NULL;

    assert_int_equal(truncate(path, (off_t)size), 0);
    if (bfile_open(path, &flags, &f, &err) < 0)
        fail_msg("%s", err.text);
    return f;
}

static struct bfile *memory(uint64_t size)
{
    struct bfile *f = NULL;

    assert_int_equal(bfile_memory("memory", size, &f, NULL), 0);
    return f;
}

/* Every kind keeps the same promises. */
static void promises(struct bfile *f)
{
    uint8_t *a = malloc(300000), *b = malloc(300000);
    uint64_t size, len;
    bool data;

    for (unsigned i = 0; i < 300000; i++)
        a[i] = (uint8_t)(i * 11 + i / 251);
    assert_int_equal(bfile_write(f, 1000, a, 200001), 0); /* at any offset, longer than the file */
    assert_int_equal(bfile_size(f, &size), 0);
    assert_true(size >= 201001 && size < 201001 + 4096);
    memset(b, 0xff, 300000);
    assert_int_equal(bfile_read(f, 1000, b, 200001), 0);
    assert_memory_equal(a, b, 200001);
    assert_int_equal(bfile_read(f, 0, b, 1000), 0);
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(b[i], 0);
    memset(b, 0xff, 300000);
    assert_int_equal(bfile_truncate(f, 201001), 0);
    assert_int_equal(bfile_read(f, 200000, b, 3000), -ENXIO); /* half of it lies behind the end */
    assert_memory_equal(b, a + 199000, 1001);
    for (unsigned i = 1001; i < 3000; i++)
        assert_int_equal(b[i], 0);
    assert_int_equal(bfile_read(f, 1ull << 40, b, 10), -ENXIO);
    assert_int_equal(bfile_read(f, 201000, b, 1), 0);

    assert_int_equal(bfile_zero(f, 65536 + 7, 70000, true), 0);
    assert_int_equal(bfile_zero(f, 5000, 5, false), 0);
    assert_int_equal(bfile_zero(f, 201000, 5000, false), 0);
    assert_int_equal(bfile_zero(f, 1 << 30, 5000, true), 0);
    assert_int_equal(bfile_size(f, &size), 0);
    assert_int_equal(size, 201001);
    assert_int_equal(bfile_read(f, 0, b, 201001), 0);
    memset(a + 64536 + 7, 0, 70000);
    memset(a + 4000, 0, 5);
    a[200000] = 0;
    assert_memory_equal(b + 1000, a, 200001);
    assert_int_equal(bfile_flush(f), 0);

    /* Smaller and larger again: what was cut off does not come back. */
    assert_int_equal(bfile_truncate(f, 150000), 0);
    assert_int_equal(bfile_truncate(f, 300000), 0);
    assert_int_equal(bfile_read(f, 149000, b, 100000), 0);
    assert_memory_equal(b, a + 148000, 1000);
    for (unsigned i = 1000; i < 100000; i++)
        assert_int_equal(b[i], 0);
    /* Extents reach the end, and what is said to be zero is. */
    for (uint64_t at = 0; at < 300000; at += len) {
        assert_int_equal(f->ops->extent(f, at, &data, &len), 0);
        assert_true(len > 0 && at + len <= 300000);
        assert_int_equal(bfile_read(f, at, b, (size_t)len), 0);
        for (uint64_t i = 0; !data && i < len; i++)
            assert_int_equal(b[i], 0);
    }
    assert_int_equal(f->ops->extent(f, 300000, &data, &len), 0);
    assert_int_equal(len, 0);
    free(a);
    free(b);
    bfile_close(f);
}

static void test_promises(void **state)
{
    (void)state;
    promises(memory(0));
    promises(host((struct bfile_flags){.lock = true}, 0));
    promises(host((struct bfile_flags){.sync = true}, 0));
    promises(host((struct bfile_flags){.direct = true}, 4096));
}

static void test_read_only(void **state)
{
    struct bfile *f = host((struct bfile_flags){.read_only = true, .lock = true}, 4096);
    char c = 1;

    (void)state;
    assert_true(f->read_only);
    assert_int_equal(bfile_write(f, 0, &c, 1), -EBADF);
    assert_int_equal(bfile_zero(f, 0, 512, false), -EBADF);
    assert_int_equal(bfile_truncate(f, 0), -EBADF);
    assert_int_equal(f->ops->discard(f, 0, 512), -EBADF);
    assert_int_equal(bfile_read(f, 0, &c, 1), 0);
    assert_int_equal(c, 0);
    bfile_close(f);
}

static void test_hole(void **state)
{
    struct bfile *f = host((struct bfile_flags){0}, MIB);
    uint8_t *p = malloc(MIB);
    struct stat st;
    blkcnt_t full;
    uint64_t len;
    bool data;

    (void)state;
    memset(p, 0x55, MIB);
    assert_int_equal(bfile_write(f, 0, p, MIB), 0);
    assert_int_equal(bfile_flush(f), 0);
    assert_int_equal(fstat(f->fd, &st), 0);
    full = st.st_blocks;
    assert_int_equal(bfile_zero(f, 256 * KIB, 512 * KIB, true), 0);
    assert_int_equal(bfile_flush(f), 0);
    assert_int_equal(fstat(f->fd, &st), 0);
    if (st.st_blocks >= full) {
        print_message("skipped: this file system makes no holes\n");
    } else {
        assert_int_equal(f->ops->extent(f, 0, &data, &len), 0);
        assert_true(data);
        assert_int_equal(len, 256 * KIB);
        assert_int_equal(f->ops->extent(f, 256 * KIB, &data, &len), 0);
        assert_false(data);
        assert_int_equal(len, 512 * KIB);
        assert_int_equal(f->ops->discard(f, 0, 4096), 0);
    }
    free(p);
    bfile_close(f);
}

/* ---- locks ---- */

/* Opens the file in another process, which keeps it until `done` is closed; its pid. */
static pid_t other_process(bool read_only, int *done)
{
    int ready[2], end[2];
    pid_t pid;
    char c;

    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(end), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        const struct bfile_flags flags = {.read_only = read_only, .lock = true};
        struct bfile *f;
        int rc = bfile_open(path, &flags, &f, NULL);

        close(end[1]);
        if (write(ready[1], rc == 0 ? "y" : "n", 1) != 1 || read(end[0], &c, 1) != 0)
            _exit(1);
        _exit(0);
    }
    close(ready[1]);
    close(end[0]);
    assert_int_equal(read(ready[0], &c, 1), 1);
    assert_int_equal(c, 'y');
    close(ready[0]);
    *done = end[1];
    return pid;
}

static void test_locks(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        bool theirs = (i & 1) != 0, ours = (i & 2) != 0; /* read-only */
        const struct bfile_flags flags = {.read_only = ours, .lock = true};
        struct error err = {0};
        struct bfile *f = NULL;
        char number[16];
        int done, status;
        pid_t pid = other_process(theirs, &done);
        int rc = bfile_open(path, &flags, &f, &err);

        if (theirs && ours) {
            assert_int_equal(rc, 0);
        } else {
            assert_int_equal(rc, -EBUSY);
            snprintf(number, sizeof(number), " %d;", (int)pid);
            assert_non_null(strstr(err.text, path));
#ifdef __linux__
            assert_non_null(strstr(err.text, number));
#endif
        }
        bfile_close(f);
        close(done);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_int_equal(bfile_open(path, &flags, &f, &err), 0); /* it went with the process */
        bfile_close(f);
    }
}

/* Closing one descriptor of the file does not lose the lock of another in the same process. */
static void test_lock_stays(void **state)
{
    const struct bfile_flags flags = {.lock = true};
    struct bfile *f = host(flags, 512), *second = NULL;
    struct error err = {0};

    (void)state;
    close(open(path, O_RDWR));
    assert_int_equal(bfile_open(path, &flags, &second, &err), -EBUSY);
    bfile_close(f);
    assert_int_equal(bfile_open(path, &flags, &second, &err), 0);
    bfile_close(second);
}

static void test_sentences(void **state)
{
    static const struct {
        const char *path;
        struct bfile_flags flags;
        int code;
        const char *text;
    } cases[] = {
        {"/nowhere/x", {0}, -ENOENT, "/nowhere/x: there is no such file; check the path"},
        {"/tmp", {0}, -EISDIR, "/tmp: is a directory; a disk is a file or a block device"},
        {"/tmp", {.read_only = true}, -EISDIR, "/tmp: is a directory; "},
        {"/dev/null", {0}, -ENODEV, "/dev/null: is neither a regular file nor a block device"},
        {"/nowhere/x", {.create = true}, -ENOENT, "/nowhere/x: its directory is not there"},
        {"/dev/null", {.create = true}, -EEXIST, "/dev/null: there is a file of this name already"},
    };

    (void)state;
    for (unsigned i = 0; i < countof(cases); i++) {
        struct error err = {0};
        struct bfile *f = NULL;

        assert_int_equal(bfile_open(cases[i].path, &cases[i].flags, &f, &err), cases[i].code);
        assert_non_null(strstr(err.text, cases[i].text));
    }
}

/* ---- a device ---- */

/* Makes `path` a device with such sectors; false: that cannot be had here. */
static bool loop_device(unsigned sector, char *dev, size_t size)
{
    char command[200];
    bool ok;
    FILE *p;

    assert_int_equal(truncate(path, 8 << 20), 0);
    snprintf(command, sizeof(command), "losetup --find --show -b %u %s 2>/dev/null", sector, path);
    p = popen(command, "r");
    ok = p != NULL && fgets(dev, (int)size, p) != NULL && strncmp(dev, "/dev/", 5) == 0;
    if (p != NULL)
        pclose(p);
    if (ok)
        dev[strcspn(dev, "\n")] = '\0';
    else
        print_message("skipped: no loop device can be had (losetup as root)\n");
    return ok;
}

static void device(unsigned sector)
{
    char command[200], dev[64] = "";
    struct bfile_flags flags = {.lock = true};
    struct error err = {0};
    struct bfile *f = NULL, *second = NULL;
    uint64_t size = 0;
    int rc;

    if (!loop_device(sector, dev, sizeof(dev)))
        return;
    assert_int_equal(bfile_open(dev, &flags, &f, &err), 0);
    assert_int_equal(bfile_open(dev, &flags, &second, &err), -EBUSY);
    assert_int_equal(bfile_size(f, &size), 0);
    assert_int_equal(size, 8 << 20);
    assert_int_equal(f->sector, sector);
    assert_int_equal(bfile_truncate(f, 4096), -ENOTSUP);
    assert_int_equal(bfile_write(f, 4096, dev, sizeof(dev)), 0);
    assert_int_equal(bfile_write(f, 8 << 20, dev, sizeof(dev)), -ENOSPC);
    assert_int_equal(bfile_zero(f, 4096, 512, false), 0);
    assert_int_equal(bfile_read(f, 4096, command, 1), 0);
    assert_int_equal(command[0], 0);
    assert_int_equal(bfile_zero(f, 0, 1 << 20, true), 0);
    rc = f->ops->discard(f, 1 << 20, 1 << 20);
    assert_true(rc == 0 || rc == -EOPNOTSUPP);
    assert_int_equal(bfile_flush(f), 0);
    bfile_close(f);
    flags.direct = true;
    assert_int_equal(bfile_open(dev, &flags, &f, &err), 0);
    assert_int_equal(f->fd_align, sector);
    assert_int_equal(bfile_write(f, 1000, dev, sizeof(dev)), 0);
    assert_int_equal(bfile_write(f, 1000 + sizeof(dev), "x", 1), 0);
    assert_int_equal(bfile_zero(f, 1002, 1, false), 0);
    dev[2] = '\0';
    assert_int_equal(bfile_read(f, 1000, command, sizeof(dev) + 1), 0);
    assert_memory_equal(command, dev, sizeof(dev));
    assert_int_equal(command[sizeof(dev)], 'x');
    bfile_close(f);
    dev[2] = 'e';
    snprintf(command, sizeof(command), "losetup -d %s", dev);
    assert_int_equal(system(command), 0);
}

static void test_device(void **state)
{
    (void)state;
    device(512);
    device(4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_promises, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_only, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hole, setup, teardown),
        cmocka_unit_test_setup_teardown(test_locks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lock_stays, setup, teardown),
        cmocka_unit_test(test_sentences),
        cmocka_unit_test_setup_teardown(test_device, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
