/*
 * The soft engine against the host CPU.
 *
 *   oracle [--seed N] [--count N] [--jobs N] [--only CLASS] [--case SEED [--slot N]] [--max N]
 *          [--bits N] [--interpret] [--minutes N] [--tests FILE --source FOLDER]
 *
 * --minutes: no new cases after that long, however many were asked for; faults are dear on some
 * hosts. Every case has a seed of its own; a mismatch prints the command that runs just that one.
 * Two cases of three are single instructions or a few, the third is a program.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "oracle.h"

#define BATCH 256u
#define JOBS_MAX 64u

struct options {
    uint64_t seed, count, one;
    unsigned slot, max, jobs, bits, minutes;
    time_t start;
    bool have_one, interpret;
    const char *tests, *source;
    enum oracle_class only;
};

/* What a job counts; in memory shared with the parent. */
struct totals {
    uint64_t ran, unspecified, endless, disturbed, skipped, ran16, ran32, programs, instructions;
    uint64_t vectors[32];
    uint64_t class_count[OC_COUNT], offered[ORACLE_OFFERED_MAX];
    unsigned bad;
};

struct job {
    const struct options *o;
    struct totals *t;
    struct oracle_host *host;
    struct oracle_soft *soft;
    struct oracle_case *cases;
    bool feature[X86_FEAT_HIDDEN + 1];
};

static int parse(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {
        {"seed", required_argument, NULL, 's'},
        {"count", required_argument, NULL, 'n'},
        {"only", required_argument, NULL, 'o'},
        {"case", required_argument, NULL, 'c'},
        {"max", required_argument, NULL, 'm'},
        {"jobs", required_argument, NULL, 'j'},
        {"slot", required_argument, NULL, 'l'},
        {"bits", required_argument, NULL, 'w'},
        {"tests", required_argument, NULL, 't'},
        {"interpret", no_argument, NULL, 'i'},
        {"source", required_argument, NULL, 'r'},
        {"minutes", required_argument, NULL, 'u'},
        {NULL, 0, NULL, 0},
    };
    int opt;
    unsigned i;

    while ((opt = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (opt) {
        case 's':
            o->seed = strtoull(optarg, NULL, 0);
            break;
        case 'n':
            o->count = strtoull(optarg, NULL, 0);
            break;
        case 'm':
            o->max = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 't':
            o->tests = optarg;
            break;
        case 'r':
            o->source = optarg;
            break;
        case 'j':
            o->jobs = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 'i':
            o->interpret = true;
            break;
        case 'l':
            o->slot = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 'w':
            o->bits = (unsigned)max_u64(o->bits, strtoul(optarg, NULL, 0));
            break;
        case 'u':
            o->minutes = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 'c':
            o->one = strtoull(optarg, NULL, 0);
            o->have_one = true;
            o->count = 1;
            break;
        case 'o':
            for (i = 0; i < OC_COUNT; i++)
                if (strcmp(optarg, oracle_class_name[i]) == 0)
                    break;
            if (i == OC_COUNT) {
                fprintf(stderr, "oracle: no class '%s'\n", optarg);
                return -1;
            }
            o->only = (enum oracle_class)i;
            break;
        default:
            return -1;
        }
    }
    if (o->jobs == 0 || o->jobs > JOBS_MAX || o->have_one)
        o->jobs = 1;
    return 0;
}

/* ---- one mismatch ---- */

static enum oracle_verdict run_one(struct job *j, const struct oracle_case *c, bool print)
{
    static struct oracle_result mine; /* large for a stack */
    struct oracle_result *host = oracle_host_run(j->host, c, 1);

    if (host->vector >= ORACLE_SYSCALL)
        return ORACLE_UNSPECIFIED;
    oracle_soft_load(j->soft, c, 1);
    oracle_soft_run(j->soft, c, &mine);
    return oracle_compare(j->soft, c, host, &mine, print);
}

static void fill_from(struct oracle_case *c, unsigned k)
{
    unsigned at = (unsigned)(c->addr - ORACLE_PROG);

    memset(c->prog + at + c->off[k], 0xcc, c->len - (unsigned)c->off[k]);
    c->len = (unsigned)c->off[k];
}

/*
 * The shortest beginning of a program that still differs; then every instruction of it that is not
 * needed for that becomes a NOP.
 */
static void shrink(struct job *j, struct oracle_case *c)
{
    static struct oracle_case part;
    unsigned k, at = (unsigned)(c->addr - ORACLE_PROG);

    for (k = 1; k < c->count && c->off[k] < c->len; k++) {
        part = *c;
        fill_from(&part, k);
        if (run_one(j, &part, false) != ORACLE_DIFFERENT)
            continue;
        *c = part;
        break;
    }
    for (k = 0; k < c->count; k++) {
        if (c->keep[k] || c->off[k] >= c->len)
            continue;
        part = *c;
        memset(part.prog + at + part.off[k], 0x90, part.insn[k].len);
        if (run_one(j, &part, false) == ORACLE_DIFFERENT)
            *c = part;
    }
}

static void show_again(const struct options *o, const struct oracle_case *c)
{
    printf("  again: oracle --case %#llx", (unsigned long long)c->seed);
    if (!c->program)
        printf(" --slot %u", c->slot_number);
    if (o->only != OC_COUNT)
        printf(" --only %s", oracle_class_name[o->only]);
    if (o->bits > 16)
        printf(" --bits %u", o->bits);
    printf("\n\n");
}

static void show_program(struct job *j, struct oracle_case *c)
{
    shrink(j, c);
    run_one(j, c, true);
    oracle_show_case(c);
    oracle_show_input(c);
    show_again(j->o, c);
}

/* ---- batches ---- */

static void count_case(struct totals *t, const struct oracle_case *c,
                       const struct oracle_result *host)
{
    unsigned k;

    t->ran++;
    t->ran16 += c->small;
    t->ran32 += c->compat && !c->small;
    t->programs += c->program;
    t->vectors[host->vector & 31]++;
    t->instructions += c->count;
    for (k = 0; k < c->count; k++) {
        t->class_count[oracle_classify(&c->insn[k])]++;
        if (!c->program && (k == 0 || host->vector == X86_EXC_BP)) /* it has been executed */
            oracle_offered_count(t->offered, &c->insn[k]);
    }
    t->class_count[OC_PROGRAM] += c->program;
}

/*
 * Some hypervisors lose NT when the host's kernel interrupts a program. Does the host, asked again,
 * say what we have found? Our own result is the first one.
 */
static bool same_again(struct job *j, const struct oracle_case *c, struct oracle_result *mine)
{
    struct oracle_result *host = oracle_host_run(j->host, c, 1);

    return host->vector < ORACLE_SYSCALL &&
           oracle_compare(j->soft, c, host, mine, false) == ORACLE_SAME;
}

/* True if the case differs. */
static bool run_case(struct job *j, const struct oracle_case *c, struct oracle_result *host)
{
    static struct oracle_result mine, first, copy; /* large for a stack */
    struct totals *t = j->t;
    enum oracle_verdict verdict;

    oracle_soft_run(j->soft, c, &mine);
    if (host->vector == ORACLE_TIMEOUT && mine.vector == ORACLE_TIMEOUT) {
        t->endless++; /* both run on: a change has made another program of it */
        return false;
    }
    if (host->vector == ORACLE_SYSCALL) {
        t->unspecified++;
        return false;
    }
    if (host->vector == ORACLE_FAILED) { /* the child died */
        printf("no result from the host:\n");
        oracle_show_case(c);
        show_again(j->o, c);
        t->skipped++;
        return false;
    }
    first = *host; /* comparing changes them, and the next result may lie where this one does */
    copy = mine;
    verdict = oracle_compare(j->soft, c, host, &copy, false);
    copy = mine;
    if (verdict == ORACLE_DIFFERENT && same_again(j, c, &copy)) {
        t->disturbed++;
        verdict = ORACLE_SAME;
    }
    switch (verdict) {
    case ORACLE_UNSPECIFIED:
        t->unspecified++;
        return false;
    case ORACLE_SAME:
        count_case(t, c, host);
        return false;
    case ORACLE_DIFFERENT:
        break;
    }
    oracle_compare(j->soft, c, &first, &mine, true);
    t->bad++;
    return true;
}

static void run_batch(struct job *j, unsigned n)
{
    struct oracle_result *results = oracle_host_run(j->host, j->cases, n);
    unsigned i, k, bad[BATCH], bads = 0;

    oracle_soft_load(j->soft, j->cases, n);
    for (i = 0; i < n && j->t->bad < j->o->max; i++) {
        if (!run_case(j, &j->cases[i], &results[i]))
            continue;
        if (j->cases[i].program) {
            bad[bads++] = i; /* shrinking needs the children */
        } else {
            oracle_show_case(&j->cases[i]);
            oracle_show_input(&j->cases[i]);
            show_again(j->o, &j->cases[i]);
        }
    }
    for (k = 0; k < bads; k++)
        show_program(j, &j->cases[bad[k]]);
    fflush(stdout);
}

static bool time_is_up(const struct options *o)
{
    return o->minutes != 0 && time(NULL) - o->start >= 60 * (time_t)o->minutes;
}

/* Every jobs-th case from the first-th on. */
static int run_job(const struct options *o, struct totals *t, unsigned first)
{
    struct job j = {.o = o, .t = t};
    uint64_t i = first, slot = 0;
    bool any_rsp;

    oracle_features(j.feature);
    j.host = oracle_host_open(BATCH);
    any_rsp = oracle_host_any_rsp(j.host);
    j.soft = oracle_soft_open(j.feature, o->interpret);
    j.cases = calloc(BATCH, sizeof(*j.cases));
    if (j.soft == NULL || j.cases == NULL)
        return 2;
    while (i < o->count && t->bad < o->max && !time_is_up(o)) {
        unsigned n = 0;

        for (; n < BATCH && i < o->count; i += o->jobs) {
            uint64_t seed = o->have_one ? o->one : o->seed * 0x100000000ull + i;

            oracle_generate(&j.cases[n], seed, o->have_one ? o->slot : (unsigned)slot, o->only,
                            o->bits, j.feature);
            if (!any_rsp)
                j.cases[n].in.gpr[X86_RSP] &= 0x7fffffffffff;
            if (!j.cases[n].program && !oracle_meaningful(&j.cases[n]))
                continue;
            slot++;
            n++;
        }
        run_batch(&j, n);
    }
    oracle_soft_close(j.soft);
    free(j.cases);
    return 0;
}

/* Every ten seconds how far they are; what the jobs count is in shared memory. */
static void say_progress(const struct options *o, const struct totals *t, unsigned seconds)
{
    static unsigned said;
    uint64_t ran = 0;

    if (seconds < said + 10)
        return;
    said = seconds;
    for (unsigned i = 0; i < o->jobs; i++)
        ran += t[i].ran;
    fprintf(stderr, "oracle: %llu of %llu cases ran, %u s\n", (unsigned long long)ran,
            (unsigned long long)o->count, seconds);
}

static int run_jobs(const struct options *o, struct totals *t)
{
    unsigned i;
    int failed = 0;

    for (i = 0; i < o->jobs; i++) {
        fflush(NULL);
        if (fork() == 0)
            exit(run_job(o, &t[i], i));
    }
    for (i = 0; i < o->jobs;) {
        int status = 0;
        pid_t pid = waitpid(-1, &status, WNOHANG);

        if (pid == 0) {
            usleep(20000);
            say_progress(o, t, (unsigned)(time(NULL) - o->start));
            continue;
        }
        if (pid < 0 || status != 0)
            failed = 1;
        i++;
    }
    return failed;
}

static void add_up(struct totals *t, const struct totals *u)
{
    unsigned i;

    t->ran += u->ran;
    t->unspecified += u->unspecified;
    t->endless += u->endless;
    t->disturbed += u->disturbed;
    t->skipped += u->skipped;
    t->ran16 += u->ran16;
    t->ran32 += u->ran32;
    t->programs += u->programs;
    t->instructions += u->instructions;
    t->bad += u->bad;
    for (i = 0; i < countof(t->vectors); i++)
        t->vectors[i] += u->vectors[i];
    for (i = 0; i < countof(t->class_count); i++)
        t->class_count[i] += u->class_count[i];
    for (i = 0; i < countof(t->offered); i++)
        t->offered[i] += u->offered[i];
}

static void print_totals(const struct totals *t)
{
    unsigned i;

    printf("%llu ran (%llu of 16 bits, %llu of 32, %llu programs; %llu instructions), %llu "
           "unspecified, %llu endless, %llu disturbed, %llu skipped, %u differ\n",
           (unsigned long long)t->ran, (unsigned long long)t->ran16, (unsigned long long)t->ran32,
           (unsigned long long)t->programs, (unsigned long long)t->instructions,
           (unsigned long long)t->unspecified, (unsigned long long)t->endless,
           (unsigned long long)t->disturbed, (unsigned long long)t->skipped, t->bad);
    for (i = 0; i < countof(t->vectors); i++)
        if (t->vectors[i] != 0)
            printf("  vector %u: %llu\n", i, (unsigned long long)t->vectors[i]);
}

int main(int argc, char **argv)
{
    struct options o = {.seed = 1,
                        .count = 100000,
                        .only = OC_COUNT,
                        .max = 20,
                        .jobs = 1,
                        .bits = oracle_host_bits(),
                        .start = time(NULL)};
    struct totals *t = mmap(NULL, (JOBS_MAX + 1) * sizeof(*t), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    bool feature[X86_FEAT_HIDDEN + 1];
    unsigned i;
    int failed;

    if (t == MAP_FAILED || parse(argc, argv, &o) < 0)
        return 2;
    printf("seed %llu, %llu cases\n", (unsigned long long)o.seed, (unsigned long long)o.count);
    if (o.bits > 16)
        printf("no code of fewer than %u bits: not asked for, or this host executes none\n",
               o.bits);
    failed = run_jobs(&o, t + 1);
    for (i = 1; i <= o.jobs; i++)
        add_up(t, t + i);
    print_totals(t);
    if (o.tests != NULL && o.source != NULL) {
        oracle_features(feature);
        t->bad += oracle_offered_check(t->offered, feature, o.tests, o.source);
    }
    return failed != 0 || t->bad != 0 || t->skipped != 0;
}
