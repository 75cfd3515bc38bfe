/* Where control sockets lie, whose they are, and a client's view of servers that are no VMs. */
#include "ctl_fixture.h"

#include <sys/wait.h>

struct place {
    char dir[64], socket[96], lock[112];
};

static int setup(void **state)
{
    struct place *p = calloc(1, sizeof(*p));

    assert_non_null(p);
    snprintf(p->dir, sizeof(p->dir), "/tmp/test-ctl-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    snprintf(p->socket, sizeof(p->socket), "%s/a.sock", p->dir);
    snprintf(p->lock, sizeof(p->lock), "%s.lock", p->socket);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    int rc;

    unlink(p->socket);
    unlink(p->lock);
    rc = rmdir(p->dir); /* nothing else is left */
    free(p);
    return rc;
}

/* A socket that lies there, as a process that was killed leaves it. */
static void leave_socket(const char *path)
{
    struct sockaddr_un sun;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    address(&sun, path);
    assert_int_equal(bind(fd, (const struct sockaddr *)&sun, sizeof(sun)), 0);
    close(fd);
}

static void expect_open(const struct place *p, int rc, const char *sentence)
{
    struct error err = {0};
    struct ctl_socket s;
    int got = ctl_socket_open(p->socket, &s, &err);

    if (got != rc || (rc < 0 && strstr(err.text, sentence) == NULL))
        fail_msg("%d '%s', not %d '%s'", got, err.text, rc, sentence);
    ctl_socket_close(&s);
}

/* ---- the file ---- */

static void socket_and_lock_come_and_go(void **state)
{
    const struct place *p = *state;
    struct ctl_socket s;
    struct stat st;

    assert_int_equal(ctl_socket_open(p->socket, &s, NULL), 0);
    assert_int_equal(lstat(p->socket, &st), 0);
    assert_true(S_ISSOCK(st.st_mode));
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(lstat(p->lock, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    ctl_socket_close(&s);
    assert_int_equal(lstat(p->socket, &st), -1);
    assert_int_equal(lstat(p->lock, &st), -1);
}

static void a_live_one_is_not_taken(void **state)
{
    const struct place *p = *state;
    struct ctl_socket s;
    char words[64];

    snprintf(words, sizeof(words), "in use by the VM of process %ld", (long)getpid());
    assert_int_equal(ctl_socket_open(p->socket, &s, NULL), 0);
    expect_open(p, -EBUSY, words);
    expect_open(p, -EBUSY, words); /* the first try has left all as it was */
    close(dial(p->socket));
    ctl_socket_close(&s);
    expect_open(p, 0, "");
}

static void a_dead_one_is_taken_over(void **state)
{
    const struct place *p = *state;
    struct stat st;
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        struct ctl_socket s;

        _exit(ctl_socket_open(p->socket, &s, NULL) == 0 ? 0 : 1); /* closes nothing */
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(lstat(p->socket, &st), 0);
    expect_open(p, 0, "");
}

static void what_is_not_ours_stays(void **state)
{
    const struct place *p = *state;
    struct stat st;

    leave_socket(p->socket); /* no lock beside it: another program's */
    expect_open(p, -EEXIST, "no VM has left it");
    assert_int_equal(lstat(p->socket, &st), 0);
    unlink(p->socket);
    put_file(p->socket, "x", 1);
    put_file(p->lock, "", 0);
    expect_open(p, -EEXIST, "no VM has left it");
    assert_int_equal(lstat(p->socket, &st), 0);
}

static void locks_are_looked_at(void **state)
{
    const struct place *p = *state;
    struct stat st;

    assert_int_equal(symlink("/dev/null", p->lock), 0);
    expect_open(p, -ELOOP, "cannot make the lock file");
    unlink(p->lock);
    assert_int_equal(mkdir(p->lock, 0700), 0);
    expect_open(p, -EISDIR, "cannot make the lock file");
    assert_int_equal(rmdir(p->lock), 0);
    assert_int_equal(mkfifo(p->lock, 0600), 0);
    expect_open(p, -EPERM, "is not a file of your own");
    assert_int_equal(lstat(p->lock, &st), 0);
    unlink(p->lock);
    if (geteuid() != 0)
        return;
    put_file(p->lock, "", 0);
    assert_int_equal(chown(p->lock, 65534, 65534), 0);
    expect_open(p, -EPERM, "is not a file of your own");
}

/* The file at this path is removed, and another one made, before the next lock is taken. */
static const char *remove_before_lock;

int __real_hfile_lock(int fd, bool write);
int __wrap_hfile_lock(int fd, bool write);

int __wrap_hfile_lock(int fd, bool write)
{
    if (remove_before_lock != NULL) {
        assert_int_equal(unlink(remove_before_lock), 0);
        put_file(remove_before_lock, "", 0);
        remove_before_lock = NULL;
    }
    return __real_hfile_lock(fd, write);
}

/* The lock's file was removed by its last owner while another one had it open already. */
static void a_lock_that_was_removed_is_none(void **state)
{
    const struct place *p = *state;
    struct ctl_socket s;

    remove_before_lock = p->lock;
    assert_int_equal(ctl_socket_open(p->socket, &s, NULL), 0);
    assert_null(remove_before_lock);
    expect_open(p, -EBUSY, "is in use by");
    ctl_socket_close(&s);
}

static void of_many_at_once_one_is_inside(void **state)
{
    const struct place *p = *state;
    int status;

    for (unsigned i = 0; i < 4; i++) {
        if (fork() != 0)
            continue;
        for (unsigned n = 0; n < 300; n++) {
            struct ctl_socket s;
            char inside[112];
            int fd;

            if (ctl_socket_open(p->socket, &s, NULL) != 0)
                continue;
            snprintf(inside, sizeof(inside), "%s/inside", p->dir);
            fd = open(inside, O_CREAT | O_EXCL | O_WRONLY, 0600);
            if (fd < 0)
                _exit(1);
            close(fd);
            unlink(inside);
            ctl_socket_close(&s);
        }
        _exit(0);
    }
    for (unsigned i = 0; i < 4; i++) {
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
    expect_open(p, 0, "");
}

static void paths_that_cannot_be(void **state)
{
    char path[200];
    struct ctl_socket s;
    struct error err = {0};

    (void)state;
    memset(path, 'x', sizeof(path));
    path[0] = '/';
    path[sizeof(path) - 1] = '\0';
    assert_int_equal(ctl_socket_open(path, &s, &err), -ENAMETOOLONG);
    assert_int_equal(ctl_socket_open("", &s, &err), -ENAMETOOLONG);
    assert_int_equal(ctl_socket_open("/nonsense/a.sock", &s, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nonsense/a.sock.lock"));
}

/* ---- the directory ---- */

static void expect_dir(bool make, int rc, const char *sentence)
{
    struct error err = {0};
    char path[256];
    int got = ctl_place_dir(make, path, sizeof(path), &err);

    if (got != rc || (rc < 0 && strstr(err.text, sentence) == NULL))
        fail_msg("%d '%s', not %d '%s'", got, err.text, rc, sentence);
}

static void the_directory_is_ours_alone(void **state)
{
    const struct place *p = *state;
    char dir[96], path[256], want[256];
    struct stat st;

    snprintf(dir, sizeof(dir), "%s/xhyve", p->dir);
    assert_int_equal(setenv("XDG_RUNTIME_DIR", p->dir, 1), 0);
    expect_dir(false, -ENOENT, "cannot look at");
    expect_dir(true, 0, "");
    assert_int_equal(lstat(dir, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(ctl_place_socket("a", false, path, sizeof(path), NULL), 0);
    snprintf(want, sizeof(want), "%s/a.sock", dir);
    assert_string_equal(path, want);
    assert_int_equal(ctl_place_socket("a", false, path, strlen(want), NULL), -ENAMETOOLONG);
    assert_int_equal(chmod(dir, 0710), 0);
    expect_dir(true, -EPERM, "open to others: chmod 700");
    assert_int_equal(chmod(dir, 0701), 0);
    expect_dir(false, -EPERM, "open to others: chmod 700");
    if (geteuid() == 0) {
        assert_int_equal(chmod(dir, 0700), 0);
        assert_int_equal(chown(dir, 65534, 65534), 0);
        expect_dir(true, -EPERM, "belongs to user 65534");
        expect_dir(false, -EPERM, "belongs to user 65534");
    }
    assert_int_equal(rmdir(dir), 0);
    assert_int_equal(symlink("/tmp", dir), 0);
    expect_dir(true, -EPERM, "is a link");
    assert_int_equal(unlink(dir), 0);
    put_file(dir, "", 0);
    expect_dir(true, -ENOTDIR, "is not a directory");
    assert_int_equal(unlink(dir), 0);
}

/* A runtime directory of somebody else, as root's shell may have it, is not used. */
static void the_runtime_directory_is_the_users(void **state)
{
    const struct place *p = *state;
    char path[256] = "", fallback[64];
    struct stat st;

    snprintf(fallback, sizeof(fallback), "/tmp/xhyve-%lu", (unsigned long)geteuid());
    if (geteuid() == 0)
        snprintf(fallback, sizeof(fallback), "%s/xhyve",
                 stat("/run", &st) == 0 ? "/run" : "/var/run");
    assert_int_equal(setenv("XDG_RUNTIME_DIR", "run", 1), 0);
    (void)ctl_place_dir(false, path, sizeof(path), NULL);
    assert_string_equal(path, fallback);
    assert_int_equal(setenv("XDG_RUNTIME_DIR", "/nonsense", 1), 0);
    (void)ctl_place_dir(false, path, sizeof(path), NULL);
    assert_string_equal(path, fallback);
    if (geteuid() == 0) {
        assert_int_equal(setenv("XDG_RUNTIME_DIR", p->dir, 1), 0);
        assert_int_equal(chown(p->dir, 65534, 65534), 0);
        (void)ctl_place_dir(false, path, sizeof(path), NULL);
        assert_string_equal(path, fallback);
        assert_int_equal(chown(p->dir, 0, 0), 0);
    }
    unsetenv("XDG_RUNTIME_DIR");
}

/* ---- servers that are no VMs ---- */

struct server {
    const char *says;
    size_t repeat; /* so often */
    int fd;        /* listens */
};

static void *serve(void *arg)
{
    const struct server *s = arg;
    int fd = accept(s->fd, NULL, NULL);

    for (size_t i = 0; i < s->repeat && say(fd, s->says, strlen(s->says)); i++)
        continue;
    if (s->repeat > 0)
        shutdown(fd, SHUT_WR);
    while (read(fd, (char[64]){0}, 64) > 0)
        continue;
    close(fd);
    return NULL;
}

static void expect_server(const struct place *p, const char *says, size_t repeat, int rc,
                          const char *sentence)
{
    static const char *const words[] = {"status"};
    struct server s = {.says = says, .repeat = repeat};
    struct ctl_client *c = NULL;
    struct error err = {0};
    struct ctl_socket sock;
    pthread_t thread;
    int got;

    assert_int_equal(ctl_socket_open(p->socket, &sock, NULL), 0);
    assert_int_equal(fd_setup(sock.fd, false), 0);
    s.fd = sock.fd;
    assert_int_equal(pthread_create(&thread, NULL, serve, &s), 0);
    got = ctl_client_open(p->socket, repeat > 0 ? PATIENCE_MS : 50, &c, &err);
    if (got == 0)
        got = ctl_client_ask(c, words, 1, NULL, NULL, &err);
    if (got != rc || (rc < 0 && strstr(err.text, sentence) == NULL))
        fail_msg("%d '%s', not %d '%s'", got, err.text, rc, sentence);
    ctl_client_close(c);
    assert_int_equal(pthread_join(thread, NULL), 0);
    ctl_socket_close(&sock);
}

static void a_client_believes_nothing(void **state)
{
    const struct place *p = *state;

    expect_server(p, "", 0, -ETIMEDOUT, "has not answered for 1 seconds");
    expect_server(p, "xhyve 1 a", 1, -ECONNRESET, "ended before it answered");
    expect_server(p, "xhyve 2 a\n", 1, -EPROTO, "speaks version 2");
    expect_server(p, "SSH-2.0 hello\n", 1, -EPROTO, "is not the control socket");
    expect_server(p, "\n", 1, -EPROTO, "is not the control socket");
    expect_server(p, "error go away\n", 1, -EACCES, "go away");
    expect_server(p, "x", 100000, -EPROTO, "cannot be read");
    expect_server(p, "xhyve 1 a\n", 1, -ECONNRESET, "ended before it answered");
    expect_server(p, "xhyve 1 a\nerror no\n", 1, -EREMOTE, "no");
    expect_server(p, "xhyve 1 a\nnew%0 line\n\n\x01\na b c d e f g h i j\nok\n", 1, 0, "");
    expect_server(p, "xhyve 1 a\nok\nok\nok\n", 1, 0, "");
}

static void nobody_listens(void **state)
{
    const struct place *p = *state;
    struct ctl_client *c;
    struct error err = {0};

    assert_int_equal(ctl_client_open(p->socket, 50, &c, &err), -ENOENT);
    assert_null(c);
    leave_socket(p->socket);
    assert_int_equal(ctl_client_open(p->socket, 50, &c, &err), -ECONNREFUSED);
    assert_non_null(strstr(err.text, "its VM is gone"));
    assert_int_equal(ctl_client_open("", 50, &c, &err), -ENAMETOOLONG);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(socket_and_lock_come_and_go),   TEST(a_live_one_is_not_taken),
        TEST(a_dead_one_is_taken_over),      TEST(what_is_not_ours_stays),
        TEST(locks_are_looked_at),           TEST(a_lock_that_was_removed_is_none),
        TEST(of_many_at_once_one_is_inside), TEST(paths_that_cannot_be),
        TEST(the_directory_is_ours_alone),   TEST(the_runtime_directory_is_the_users),
        TEST(a_client_believes_nothing),     TEST(nobody_listens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
