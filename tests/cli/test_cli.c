/* What command lines mean, with devices of our own so that no real one is needed. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "cli/cli.h"

static const struct dev_option uart_options[] = {
    {"backend", OPT_STRING, "BACKEND", "where its bytes go", true},
    {"speed", OPT_U64, "BAUD", "line speed", false},
    {"loud", OPT_BOOL, NULL, "make noise", false},
};
static const struct pci_ops hostbridge = {.name = "hostbridge", .summary = "host bridge"};
static const struct pci_ops lpc = {.name = "lpc", .summary = "LPC bridge"};
static const struct pci_ops rnd = {.name = "virtio-rnd", .summary = "random numbers"};
static const struct pci_ops uart = {
    .name = "uart",
    .summary = "serial port",
    .options = uart_options,
    .option_count = countof(uart_options),
};
static const struct pci_ops *const devices[] = {&hostbridge, &lpc, &rnd, &uart, NULL};
static const struct cli_tables tables = {.pci = devices};

#define WORDS(...)                                                                                 \
    (char *[])                                                                                     \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }

static int words_count(char **words)
{
    int n = 0;

    while (words[n] != NULL)
        n++;
    return n;
}

static char w_run[] = "run";

static char *dump(const struct config *cfg)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    config_dump(cfg, f);
    fclose(f);
    return text;
}

/* A line as a shell would split it, without quoting: words are separated by '|'. */
static char **split(char *copy)
{
    char **words = calloc(64, sizeof(*words));
    size_t n = 0;

    for (char *p = copy; p != NULL && n < 63;) {
        char *end = strchr(p, '|');

        if (end != NULL)
            *end++ = '\0';
        words[n++] = p;
        p = end;
    }
    return words;
}

static void means(const char *line, const char *tree)
{
    char *copy = strdup(line), *text;
    char **words = split(copy);
    struct error err = {0};
    struct cli cli;

    if (cli_parse(&cli, &tables, words_count(words), words, &err) < 0)
        fail_msg("%s: %s", line, err.text);
    text = dump(cli.cfg);
    assert_string_equal(text, tree);
    free(text);
    cli_fini(&cli);
    free(words);
    free(copy);
}

static void fails(const char *line, const char *sentence)
{
    char *copy = strdup(line);
    char **words = split(copy);
    struct error err = {0};
    struct cli cli;

    assert_true(cli_parse(&cli, &tables, words_count(words), words, &err) < 0);
    assert_string_equal(err.text, sentence);
    cli_fini(&cli);
    free(words);
    free(copy);
}

/* The line every user of xhyve has copied once. */
static void test_canonical(void **state)
{
    (void)state;
    means("-A|-m|1G|-s|0:0,hostbridge|-s|31,lpc|-l|com1,stdio|-f|"
          "kexec,vmlinuz,initrd.gz,earlyprintk=serial console=ttyS0|vm",
          "acpi_tables=true\n"
          "boot.cmdline=earlyprintk=serial console=ttyS0\n"
          "boot.initrd=initrd.gz\n"
          "boot.kernel=vmlinuz\n"
          "boot.method=kexec\n"
          "cpus=1\n"
          "lpc.com1.path=stdio\n"
          "memory.size=1G\n"
          "name=vm\n"
          "pci.0.0.0.device=hostbridge\n"
          "pci.0.31.0.device=lpc\n");
}

/* Who has named the VM wants to find it by that. */
static void test_named(void **state)
{
    static const struct {
        const char *words;
        bool named;
    } lines[] = {{"-m|1G", false},      {"-m|1G|web", true},   {"--name|web|-m|1G", true},
                 {"-o|name=web", true}, {"run|KERNEL", false}, {"run|--name|web|KERNEL", true}};

    (void)state;
    for (size_t i = 0; i < countof(lines); i++) {
        char *text = strdup(lines[i].words), *argv[8], *save = NULL;
        struct error err = {0};
        struct cli cli;
        int argc = 0;

        for (char *p = strtok_r(text, "|", &save); p != NULL; p = strtok_r(NULL, "|", &save))
            argv[argc++] = p;
        if (cli_parse(&cli, &tables, argc, argv, &err) != 0)
            fail_msg("%s: %s", lines[i].words, err.text);
        assert_int_equal(cli.named, lines[i].named);
        cli_fini(&cli);
        free(text);
    }
}

static void test_flags(void **state)
{
    (void)state;
    means("-CDeHPSuwWxY|-K|de|-F|pid|--log|debug|--trace|pci*|--trace=lapic|--stats|--perf-map|--"
          "engine|soft|--profile=-|--profile-symbols|map|--control|off|vm",
          "control=off\ncpus=1\ndestroy_on_poweroff=true\nengine=soft\njit.perfmap=true\n"
          "keyboard.layout=de\nlog.level=debug\n"
          "log.trace=pci*,lapic\nmemory.guest_in_core=true\nmemory.size=256M\nmemory.wired=true\n"
          "name=vm\npidfile=pid\nprofile=-\nprofile.symbols=map\n"
          "rtc.use_localtime=false\nstats=true\nvirtio_msix=false\n"
          "x86.mptable=false\nx86.strictio=true\nx86.strictmsr=false\nx86.vmexit_on_hlt=true\n"
          "x86.vmexit_on_pause=true\nx86.x2apic=true\n");
    /* -Y takes no argument: the word behind it is the name */
    means("-Y|web", "cpus=1\nmemory.size=256M\nname=web\nx86.mptable=false\n");
    means("-a|--|web", "cpus=1\nmemory.size=256M\nname=web\nx86.x2apic=false\n");
    means("-c|sockets=2,cores=3,threads=2|-G|w127.0.0.1:1234|--name=vm",
          "cores=3\ncpus=12\ngdb.address=127.0.0.1\ngdb.port=1234\ngdb.wait=true\n"
          "memory.size=256M\nname=vm\nsockets=2\nthreads=2\n");
}

static void test_memory(void **state)
{
    (void)state;
    means("-m512|vm", "cpus=1\nmemory.size=512M\nname=vm\n");
    means("--memory=2g|vm", "cpus=1\nmemory.size=2g\nname=vm\n");
    means("-m|1048576|vm", "cpus=1\nmemory.size=1048576\nname=vm\n");
    means("-o|memory.size=64|vm", "cpus=1\nmemory.size=64M\nname=vm\n");
    fails("-m|0", "memory size '0': a VM needs memory");
    fails("-m|0k", "memory size '0k': a VM needs memory");
    fails("-m|1P", "memory size '1P' is not a number, perhaps with one of the suffixes k m g t");
    fails("-m|5k", "memory size '5k' is not a multiple of 4 KiB");
    fails("-m|", "--memory needs SIZE, not an empty word");
    means("-o|x=64|-m|%(x)|vm", "cpus=1\nmemory.size=64M\nname=vm\n");
}

static void test_slots(void **state)
{
    (void)state;
    means("-s|3,uart,tcp=:80,speed=9600,loud|-s|4:7,virtio-rnd|-s|9:8:1,hostbridge|vm",
          "cpus=1\nmemory.size=256M\nname=vm\npci.0.3.0.backend=tcp=:80\npci.0.3.0.device="
          "uart\npci.0.3.0.loud=true\n"
          "pci.0.3.0.speed=9600\npci.0.4.7.device=virtio-rnd\n"
          "pci.9.8.1.device=hostbridge\n");
    fails("-s|3,uart|-s|0:3:0,hostbridge", "slot 0:3:0 is taken twice, by uart and by hostbridge");
    fails("-s|3,virtio-rng", "slot 0:3:0: unknown device 'virtio-rng'; did you mean 'virtio-rnd'?");
    fails("-s|3,uart,stdio,sped=1", "uart at 3: unknown option 'sped'; did you mean 'speed'?");
    fails("-s|3,uart,stdio,speed=9x", "uart at 3: speed: '9x' is not a number");
    fails("-s|3,lpc,stdio", "lpc at 3: unknown option 'stdio'; it takes no options");
    fails("-s|3,", "-s 3,: no device; wanted SLOT,DEVICE[,OPTIONS]");
    fails("-s|3,lpc,", "-s 3,lpc,: nothing after the last comma");
    fails("-s|+3,lpc", "-s: '+3' is not a slot; wanted SLOT, SLOT:FUNC or BUS:SLOT:FUNC");
    fails("-s|,lpc", "-s: '' is not a slot; wanted SLOT, SLOT:FUNC or BUS:SLOT:FUNC");
    fails("-s|3,lpc|-s|4,lpc", "a machine has one LPC bridge, not 2");
    /* the same through the tree */
    fails("-o|pci.0.3.0.device=zebra", "slot 0:3:0: unknown device 'zebra'; -s help lists them");
    fails("-o|pci.0.3.0.device=uart|-o|pci.0.3.0.sped=1",
          "uart at 0:3:0: unknown option 'sped'; did you mean 'speed'?");
    fails("-o|pci.0.3.0.speed=1", "PCI slot 0:3:0 has options but no device");
    fails("-o|pci.0.32.0.device=lpc", "configuration key pci.0:32: wanted pci.BUS.SLOT.FUNC");
    fails("-o|pci.0.03.0.device=lpc",
          "configuration key pci.0:03: wanted pci.BUS.SLOT.FUNC.OPTION");
}

static void test_lpc(void **state)
{
    (void)state;
    means("-s|31,lpc|-l|com1|-l|com2,tcp=127.0.0.1:5555|vm",
          "cpus=1\nlpc.com1.path=null\nlpc.com2.path=tcp=127.0.0.1:5555\nmemory.size=256M\n"
          "name=vm\npci.0.31.0.device=lpc\n");
    means("-s|31,lpc|-l|bootrom,a.fd,vars.fd|-l|pc-testdev|-l|fwcfg,qemu|vm",
          "cpus=1\nlpc.bootrom=a.fd\nlpc.bootvars=vars.fd\nlpc.fwcfg=qemu\nlpc.pc-testdev=true\n"
          "memory.size=256M\nname=vm\npci.0.31.0.device=lpc\n");
    means("-s|31,lpc|-l|fwcfg|vm",
          "cpus=1\nlpc.fwcfg=bhyve\nmemory.size=256M\nname=vm\npci.0.31.0.device=lpc\n");
    fails("-l|fwcfg,qemu", "fwcfg hangs on the LPC bridge: add -s 31,lpc");
    fails("-l|pc-testdev", "pc-testdev hangs on the LPC bridge: add -s 31,lpc");
    fails("-s|31,lpc|-l|com1,stdio|-l|com2,stdio", "com1 and com2 both want stdio");
    fails("-s|31,lpc|-l|com1,stdio|-s|3,uart,stdio", "uart at 0:3:0 and com1 both want stdio");
    fails("-l|com1,stdio,x", "-l com1: unknown option 'x'; known: path");
    fails("-l|com1,", "-l com1,: nothing after the last comma");
    fails("-l|bootrom", "-l bootrom needs a file: -l bootrom,FILE[,VARFILE]");
    fails("-l|pc-testdev,x", "-l pc-testdev takes no options");
}

static void test_firmware(void **state)
{
    (void)state;
    means("-f|kexec,k,,a,b=c,,|vm", "boot.cmdline=a,b=c,,\nboot.kernel=k\nboot.method=kexec\n"
                                    "cpus=1\nmemory.size=256M\nname=vm\n");
    means("-f|kexec,k|vm", "boot.kernel=k\nboot.method=kexec\ncpus=1\nmemory.size=256M\nname=vm\n");
    means("-f|kexec,k,i,|vm", "boot.cmdline=\nboot.initrd=i\nboot.kernel=k\nboot.method=kexec\n"
                              "cpus=1\nmemory.size=256M\nname=vm\n");
    fails("-f|kexec,,i", "-f kexec needs a kernel: -f kexec,KERNEL[,INITRD[,CMDLINE]]");
    means("-f|multiboot,k,m;a b:n,c,d|vm",
          "boot.cmdline=c,d\nboot.kernel=k\nboot.method=multiboot\nboot.modules=m;a b:n\n"
          "cpus=1\nmemory.size=256M\nname=vm\n");
    means("-f|multiboot,k,,c|vm", "boot.cmdline=c\nboot.kernel=k\nboot.method=multiboot\n"
                                  "cpus=1\nmemory.size=256M\nname=vm\n");
    means("-f|multiboot,k,m|vm", "boot.kernel=k\nboot.method=multiboot\nboot.modules=m\n"
                                 "cpus=1\nmemory.size=256M\nname=vm\n");
    fails("-f|multiboot", "-f multiboot needs a kernel: -f multiboot,KERNEL[,MODULE[;ARGS]"
                          "[:MODULE...][,CMDLINE]]");
    fails("-f|multiboot,k|-o|boot.initrd=i",
          "boot.initrd means nothing to boot.method=multiboot; use boot.modules");
    fails("-f|kexec,k|-o|boot.modules=m", "boot.modules needs boot.method=multiboot");
    means("-f|pvh,k,i,c,d|vm", "boot.cmdline=c,d\nboot.initrd=i\nboot.kernel=k\n"
                               "boot.method=pvh\ncpus=1\nmemory.size=256M\nname=vm\n");
    fails("-f|pvh,,i", "-f pvh needs a kernel: -f pvh,KERNEL[,INITRD[,CMDLINE]]");
    fails("-f|pvh,k|-o|boot.modules=m", "boot.modules needs boot.method=multiboot");
    fails("-f|pvh,k|-o|boot.decompress=host", "boot.decompress means nothing to boot.method=pvh");
}

static void test_variables(void **state)
{
    (void)state;
    means("-o|dir=/vm|-o|boot.kernel=%(dir)/%(name)/k|vm",
          "boot.kernel=/vm/vm/k\ncpus=1\nmemory.size=256M\nname=vm\n");
    fails("-o|dir=/vm|vm", "unknown configuration key 'dir', and no value refers to it");
    fails("-o|boot.kernel=%(dir)/k|vm",
          "boot.kernel: %(dir) names a configuration key that is not set");
}

static void run_is(const char *line, const char *full)
{
    char *copy = strdup(line);
    char **words = split(copy);
    struct error err = {0};
    struct cli cli;

    if (cli_parse(&cli, &tables, words_count(words), words, &err) < 0)
        fail_msg("%s: %s", line, err.text);
    assert_string_equal(cli.line, full);
    cli_fini(&cli);
    free(words);
    free(copy);
}

static void test_run(void **state)
{
    struct error err = {0};
    char k[] = "k", two[] = "l", three[] = "m";
    struct cli cli;

    (void)state;
    run_is("run|vmlinuz", "xhyve -A -m 1G -s 0:0,hostbridge -s 31,lpc -s 1,virtio-rnd "
                          "-l com1,stdio -f kexec,vmlinuz,,console=ttyS0");
    run_is("run|-m|2G|--engine=soft|vmlinuz|-s1,hostbridge|it's|--|quiet|-m",
           "xhyve -A -s 0:0,hostbridge -s 31,lpc -s 2,virtio-rnd -l com1,stdio -m 2G "
           "--engine=soft -s1,hostbridge "
           "-f 'kexec,vmlinuz,it'\\''s,console=ttyS0 quiet -m'");
    run_is("run|-l|com1,null|-s|31,uart,stdio|-s|30,lpc|-s|0,virtio-rnd|-o|acpi_tables=false|k|--|"
           "root=/dev/vda console=hvc0",
           "xhyve -m 1G -l com1,null -s 31,uart,stdio -s 30,lpc -s 0,virtio-rnd "
           "-o acpi_tables=false -f 'kexec,k,,root=/dev/vda console=hvc0'");
    run_is("run|-s|1,uart,stdio|k",
           "xhyve -A -m 1G -s 0:0,hostbridge -s 31,lpc -s 2,virtio-rnd -s 1,uart,stdio "
           "-f kexec,k,,console=ttyS0");
    run_is("run|a,b", "xhyve -A -m 1G -s 0:0,hostbridge -s 31,lpc -s 1,virtio-rnd -l com1,stdio "
                      "-o boot.method=kexec -o boot.kernel=a,b -o boot.cmdline=console=ttyS0");
    assert_int_equal(cli_parse(&cli, &tables, 4, WORDS(w_run, k, two, three), &err), -EINVAL);
    assert_string_equal(err.text, "unexpected word 'm': xhyve run KERNEL [INITRD] [-- CMDLINE]");
    cli_fini(&cli);
    fails("run|-m|1Q|k",
          "memory size '1Q' is not a number, perhaps with one of the suffixes k m g t");
    fails("run|-f|kexec,a|k", "two kernels to boot, 'a' and 'k'");
}

static void action_is(const char *line, enum cli_action action)
{
    char *copy = strdup(line);
    char **words = split(copy);
    struct error err = {0};
    struct cli cli;

    assert_int_equal(cli_parse(&cli, &tables, words_count(words), words, &err), 0);
    assert_int_equal(cli.action, action);
    cli_fini(&cli);
    free(words);
    free(copy);
}

static void test_actions(void **state)
{
    (void)state;
    action_is("-h", CLI_HELP);
    action_is("help", CLI_HELP);
    action_is("-v", CLI_VERSION);
    action_is("run|--help", CLI_HELP);
    action_is("run|-s|help", CLI_SLOT_HELP);
    action_is("-s|help", CLI_SLOT_HELP);
    action_is("-l|help", CLI_LPC_HELP);
    action_is("-o|config.dump=1", CLI_DUMP);
    action_is("-o|config.dump=0", CLI_RUN);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_canonical), cmocka_unit_test(test_flags),
        cmocka_unit_test(test_named),     cmocka_unit_test(test_memory),
        cmocka_unit_test(test_slots),     cmocka_unit_test(test_lpc),
        cmocka_unit_test(test_firmware),  cmocka_unit_test(test_variables),
        cmocka_unit_test(test_run),       cmocka_unit_test(test_actions),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
