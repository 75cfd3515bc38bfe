/* xhyvectl image: create, info, check, convert, resize, map. */
#include "cli/xhyvectl.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/config.h"
#include "block/image.h"
#include "host/clock.h"

#define PROGRESS_AFTER NSEC_PER_SEC          /* quicker work says nothing */
#define PROGRESS_TERMINAL (NSEC_PER_SEC / 5) /* between two updates */
#define PROGRESS_LINES (5 * NSEC_PER_SEC)
#define ARGS_MAX 2

struct arguments {
    const struct block_format *format, *to_format;
    struct block_create create;
    bool fix, shrink, follow;
    const char *arg[ARGS_MAX];
    int count;
};

struct command {
    const char *name;
    const char *usage;
    const char *text;
    const char *flags; /* letters: f O o b F, x --fix, s --shrink, k --backing */
    int least, most;
    int (*run)(struct arguments *a, struct error *err);
};

/* ---- progress ---- */

struct progress {
    uint64_t start, last;
    bool terminal, shown;
};

/* Ctrl-C ends a copy, which then removes what it has made. */
static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
    (void)sig;
    interrupted = 1;
}

static void progress_begin(struct progress *p)
{
    *p = (struct progress){.start = host_clock_ns(), .terminal = isatty(STDERR_FILENO) != 0};
}

static void progress_show(struct progress *p, uint64_t done, uint64_t total)
{
    uint64_t now = host_clock_ns(), wait = p->terminal ? PROGRESS_TERMINAL : PROGRESS_LINES;
    double seconds = (double)(now - p->start) / NSEC_PER_SEC;
    unsigned percent = total == 0 ? 100 : (unsigned)((double)done * 100 / (double)total);

    if (now - p->start < PROGRESS_AFTER || (p->shown && now - p->last < wait))
        return;
    p->last = now;
    p->shown = true;
    fprintf(stderr, p->terminal ? "\r%3u%%  %.1f s " : "%u%% after %.1f s\n", percent, seconds);
}

static void progress_end(struct progress *p)
{
    double seconds = (double)(host_clock_ns() - p->start) / NSEC_PER_SEC;

    if (p->shown)
        fprintf(stderr, p->terminal ? "\rdone in %.1f s \n" : "done in %.1f s\n", seconds);
}

static void progress_check(void *ctx, uint64_t done, uint64_t total)
{
    progress_show(ctx, done, total);
}

static bool progress_step(void *ctx, uint64_t done, uint64_t total)
{
    progress_show(ctx, done, total);
    return interrupted != 0;
}

/* ---- arguments ---- */

static int find_format(const char *name, const struct block_format **out, struct error *err)
{
    char known[128] = "";
    size_t used = 0;

    *out = block_format_find(name);
    if (*out != NULL)
        return 0;
    for (unsigned i = 0; block_formats[i] != NULL && used < sizeof(known); i++)
        used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s", i > 0 ? ", " : "",
                                 block_formats[i]->name);
    return error_set(err, -EINVAL, "unknown format '%s'; there are: %s", name, known);
}

static int read_switch(const char *key, const char *value, bool *out, struct error *err)
{
    if (strcmp(value, "on") == 0 || strcmp(value, "off") == 0) {
        *out = value[1] == 'n';
        return 0;
    }
    return error_set(err, -EINVAL, "%s=%s: wanted on or off", key, value);
}

static int option(struct block_create *o, const char *key, const char *value, struct error *err)
{
    static const char *const keys[] = {"cluster_size", "compression_type", "lazy_refcounts",
                                       "version"};
    const char *near = nearest_name(key, keys, countof(keys));
    uint64_t number = 0;

    if (strcmp(key, "cluster_size") == 0) {
        if (parse_size(value, &number) < 0 || number == 0 || number > UINT32_MAX)
            return error_set(err, -EINVAL, "cluster_size=%s is not a size", value);
        o->cluster = (unsigned)number;
        return 0;
    }
    if (strcmp(key, "compression_type") == 0) {
        if (strcmp(value, "zlib") != 0 && strcmp(value, "zstd") != 0)
            return error_set(err, -EINVAL, "compression_type=%s: there are zlib and zstd", value);
        o->zstd = strcmp(value, "zstd") == 0;
        return 0;
    }
    if (strcmp(key, "lazy_refcounts") == 0)
        return read_switch(key, value, &o->lazy_refcounts, err);
    if (strcmp(key, "version") == 0) {
        if (parse_u64(value, &number) < 0 || (number != 2 && number != 3))
            return error_set(err, -EINVAL, "version=%s: there are 2 and 3", value);
        o->version = (unsigned)number;
        return 0;
    }
    return error_set(err, -EINVAL, "unknown option '%s'%s%s%s", key,
                     near != NULL ? "; did you mean '" : "", near != NULL ? near : "",
                     near != NULL ? "'?" : "; --help lists them");
}

/* KEY=VALUE[,KEY=VALUE...]; text is changed. */
static int options(struct block_create *o, char *text, struct error *err)
{
    char *rest = NULL;
    int rc = 0;

    for (char *one = strtok_r(text, ",", &rest); one != NULL && rc == 0;
         one = strtok_r(NULL, ",", &rest)) {
        char *value = strchr(one, '=');

        if (value == NULL)
            return error_set(err, -EINVAL, "-o %s: wanted KEY=VALUE", one);
        *value++ = '\0';
        rc = option(o, one, value, err);
    }
    return rc;
}

static int flag_with_value(struct arguments *a, char letter, char *value, struct error *err)
{
    switch (letter) {
    case 'f':
        return find_format(value, &a->format, err);
    case 'O':
        return find_format(value, &a->to_format, err);
    case 'o':
        return options(&a->create, value, err);
    case 'b':
        a->create.backing = value;
        return 0;
    default: /* F */
        a->create.backing_format = value;
        return 0;
    }
}

/* The letter that stands for a flag in struct command; 0: none. */
static char flag_letter(const char *text)
{
    if (strcmp(text, "--fix") == 0)
        return 'x';
    if (strcmp(text, "--shrink") == 0)
        return 's';
    if (strcmp(text, "--backing") == 0)
        return 'k';
    return text[1] != '\0' && text[2] == '\0' && strchr("fOobF", text[1]) != NULL ? text[1] : '\0';
}

static int parse(const struct command *c, int argc, char **argv, struct arguments *a,
                 struct error *err)
{
    bool flags = true;

    for (int i = 0; i < argc; i++) {
        char letter;
        int rc = 0;

        if (flags && strcmp(argv[i], "--") == 0) {
            flags = false;
            continue;
        }
        if (!flags || argv[i][0] != '-' || argv[i][1] == '\0') {
            if (a->count == c->most)
                return error_set(err, -EINVAL, "'%s' is too much: xhyvectl image %s %s", argv[i],
                                 c->name, c->usage);
            a->arg[a->count++] = argv[i];
            continue;
        }
        letter = flag_letter(argv[i]);
        if (letter == '\0' || strchr(c->flags, letter) == NULL)
            return error_set(err, -EINVAL, "unknown flag '%s': xhyvectl image %s %s", argv[i],
                             c->name, c->usage);
        a->fix |= letter == 'x';
        a->shrink |= letter == 's';
        a->follow |= letter == 'k';
        if (strchr("xsk", letter) != NULL)
            continue;
        if (i + 1 == argc)
            return error_set(err, -EINVAL, "%s needs an argument", argv[i]);
        rc = flag_with_value(a, letter, argv[++i], err);
        if (rc < 0)
            return rc;
    }
    if (a->count < c->least)
        return error_set(err, -EINVAL, "something is missing: xhyvectl image %s %s", c->name,
                         c->usage);
    return 0;
}

static int read_size(const char *text, uint64_t *out, struct error *err)
{
    int rc = parse_size(text, out);

    if (rc == -ERANGE)
        return error_set(err, rc, "the size '%s' is more than 2^64", text);
    if (rc < 0)
        return error_set(err, rc, "'%s' is not a size: a number with k, m, g or t behind it", text);
    return 0;
}

static const char *size_text(uint64_t size, char *to, size_t room)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double n = (double)size;
    unsigned u = 0;

    for (; n >= 1024 && u + 1 < countof(units); u++)
        n /= 1024;
    snprintf(to, room, u == 0 || n == (double)(uint64_t)n ? "%.0f %s" : "%.2f %s", n, units[u]);
    return to;
}

/* ---- commands ---- */

/* A backing file is looked at: its size is the disk's if none is given, and its format is kept. */
static int create_over(struct arguments *a, struct image_info *base, struct error *err)
{
    const struct block_format *format = NULL;
    const char *slash = strrchr(a->arg[0], '/'), *name = a->create.backing;
    char path[4096];
    int n, rc = 0;

    if (a->create.backing_format != NULL)
        rc = find_format(a->create.backing_format, &format, err);
    if (rc < 0)
        return rc;
    n = snprintf(path, sizeof(path), "%.*s%s",
                 slash != NULL && name[0] != '/' ? (int)(slash - a->arg[0]) + 1 : 0, a->arg[0],
                 name);
    if (n < 0 || (size_t)n >= sizeof(path))
        return error_set(err, -ENAMETOOLONG, "the name of the backing file is too long");
    rc = image_info(path, format, base, err);
    if (rc < 0) {
        error_prefix(err, "backing file");
        return rc;
    }
    a->create.backing_format = base->format->name;
    if (a->count == 1)
        a->create.size = base->block.size;
    return 0;
}

static int run_create(struct arguments *a, struct error *err)
{
    struct image_info base;
    int rc = 0;

    if (a->create.backing == NULL && a->create.backing_format != NULL)
        return error_set(err, -EINVAL, "-F is the format of a backing file, which -b names");
    if (a->count == 1 && a->create.backing == NULL)
        return error_set(err, -EINVAL, "%s needs a size, such as 10g", a->arg[0]);
    if (a->count == 2)
        rc = read_size(a->arg[1], &a->create.size, err);
    if (rc == 0 && a->create.backing != NULL)
        rc = create_over(a, &base, err);
    return rc < 0 ? rc : image_create(a->arg[0], a->format, &a->create, err);
}

static int run_info(struct arguments *a, struct error *err)
{
    struct image_info i;
    char text[64];
    int rc = image_info(a->arg[0], a->format, &i, err);

    if (rc < 0)
        return rc;
    printf("image: %s\n", a->arg[0]);
    printf("format: %s%s%s%s\n", i.format->name, i.detail[0] != '\0' ? " (" : "", i.detail,
           i.detail[0] != '\0' ? ")" : "");
    printf("disk: %s (%" PRIu64 " bytes)\n", size_text(i.block.size, text, sizeof(text)),
           i.block.size);
    printf("file: %s (%" PRIu64 " bytes)\n", size_text(i.file_size, text, sizeof(text)),
           i.file_size);
    if (i.block.cluster > 1)
        printf("cluster: %s\n", size_text(i.block.cluster, text, sizeof(text)));
    if (i.backing[0] != '\0')
        printf("backing file: %s\n", i.backing);
    return 0;
}

static void say(void *ctx, const char *text)
{
    (void)ctx;
    printf("%s\n", text);
}

static int run_check(struct arguments *a, struct error *err)
{
    struct progress p;
    struct block_check c = {.say = say, .progress = progress_check, .ctx = &p};
    uint64_t left;
    int rc;

    progress_begin(&p);
    rc = image_check(a->arg[0], a->format, a->fix, &c, err);
    progress_end(&p);
    if (rc < 0)
        return rc;
    printf("%" PRIu64 " clusters in use, %" PRIu64 " errors, %" PRIu64 " leaks", c.clusters,
           c.errors, c.leaks);
    printf(a->fix ? ", %" PRIu64 " of them mended\n" : "\n", c.fixed);
    left = c.errors + c.leaks - c.fixed;
    if (left == 0)
        return 0;
    return c.errors > 0 ? CTL_ERRORS : CTL_LEAKS;
}

static int run_convert(struct arguments *a, struct error *err)
{
    struct sigaction on = {.sa_handler = on_interrupt};
    struct progress p;
    struct image_progress progress = {.step = progress_step, .ctx = &p};
    int rc;

    sigaction(SIGINT, &on, NULL);
    sigaction(SIGTERM, &on, NULL);
    progress_begin(&p);
    rc = image_convert(a->arg[0], a->format, a->arg[1], a->to_format, &a->create, a->follow,
                       &progress, err);
    progress_end(&p);
    return rc;
}

static int run_resize(struct arguments *a, struct error *err)
{
    const char *text = a->arg[1];
    struct image_info i;
    uint64_t size = 0;
    int rc = read_size(text[0] == '+' ? text + 1 : text, &size, err);

    if (rc == 0 && text[0] == '+') {
        rc = image_info(a->arg[0], a->format, &i, err);
        if (rc == 0 && __builtin_add_overflow(size, i.block.size, &size))
            rc = error_set(err, -ERANGE, "the size '%s' is more than 2^64", text);
    }
    return rc < 0 ? rc : image_resize(a->arg[0], a->format, size, a->shrink, err);
}

static void print_extent(void *ctx, uint64_t offset, uint64_t len, enum block_extent kind,
                         uint64_t in_file)
{
    static const char *const kinds[] = {"data", "zeros", "compressed", "unallocated"};

    (void)ctx;
    printf("%14" PRIu64 " %14" PRIu64 "  %s", offset, len, kinds[kind]);
    if (kind == BLOCK_DATA && (in_file != 0 || offset == 0))
        printf(" at %" PRIu64, in_file);
    printf("\n");
}

static int run_map(struct arguments *a, struct error *err)
{
    return image_map(a->arg[0], a->format, a->follow, print_extent, NULL, err);
}

static const struct command commands[] = {
    {"create", "[-f FORMAT] [-o KEY=VALUE[,...]] [-b BACKING [-F FORMAT]] IMAGE [SIZE]",
     "a new image; without -f the name's end tells the format", "fobF", 1, 2, run_create},
    {"info", "[-f FORMAT] IMAGE", "what an image is", "f", 1, 1, run_info},
    {"check", "[-f FORMAT] [--fix] IMAGE", "whether its tables are whole; --fix mends them", "fx",
     1, 1, run_check},
    {"convert", "[-f FORMAT] [-O FORMAT] [-o KEY=VALUE[,...]] [--backing] FROM TO",
     "a copy in another format; --backing takes in what backing files hold", "fOok", 2, 2,
     run_convert},
    {"resize", "[-f FORMAT] [--shrink] IMAGE [+]SIZE", "another size; + is how much more", "fs", 2,
     2, run_resize},
    {"map", "[-f FORMAT] [--backing] IMAGE", "what lies where in an image", "fk", 1, 1, run_map},
};

void ctl_image_help(FILE *to)
{
    fputs("\nOn disk images that no VM has open:\n", to);
    for (size_t i = 0; i < countof(commands); i++)
        fprintf(to, "  xhyvectl image %s %s\n        %s\n", commands[i].name, commands[i].usage,
                commands[i].text);
    fputs("\nFormats:\n", to);
    for (unsigned i = 0; block_formats[i] != NULL; i++)
        fprintf(to, "  %-8s %s\n", block_formats[i]->name, block_formats[i]->summary);
    fputs(
        "\nOptions of new qcow2 images (-o):\n"
        "  cluster_size=SIZE            512 to 2m, a power of two (64k)\n"
        "  compression_type=zlib|zstd   what compressed clusters would be read as (zlib)\n"
        "  lazy_refcounts=on|off        others may leave counts for later (off)\n"
        "  version=2|3                  (3)\n"
        "\nSizes take k, m, g and t. Exit status: 0 done, 1 error; check: 2 errors in the image,\n"
        "3 leaks alone. The manual page xhyvectl(8) says more.\n",
        to);
}

int ctl_image(int argc, char **argv)
{
    const char *names[countof(commands)];
    struct arguments a = {0};
    struct error err = {0};
    const char *near;
    int rc;

    for (size_t i = 0; argc > 0 && i < countof(commands); i++) {
        if (strcmp(argv[0], commands[i].name) != 0)
            continue;
        rc = parse(&commands[i], argc - 1, argv + 1, &a, &err);
        if (rc == 0)
            rc = commands[i].run(&a, &err);
        if (fflush(stdout) != 0 && rc >= 0)
            rc = error_set(&err, -errno, "cannot write the output: %s", strerror(errno));
        return rc < 0 ? ctl_fail(&err) : rc;
    }
    for (size_t i = 0; i < countof(commands); i++)
        names[i] = commands[i].name;
    near = argc > 0 ? nearest_name(argv[0], names, countof(names)) : NULL;
    if (near != NULL)
        error_set(&err, -EINVAL, "unknown command 'image %s'; did you mean '%s'?", argv[0], near);
    else
        error_set(&err, -EINVAL, "image needs one of create, info, check, convert, resize, map");
    return ctl_fail(&err);
}
