#include "cli/xhyvectl.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "cli/version.h"

/* File names may hold anything; the sentence stays one line and moves no cursor. */
int ctl_fail(const struct error *err)
{
    char text[sizeof(err->text)];

    snprintf(text, sizeof(text), "%s", err->text);
    for (char *p = text; *p != '\0'; p++) {
        if (iscntrl((unsigned char)*p))
            *p = '?';
    }
    fprintf(stderr, "xhyvectl: error: %s\n", text);
    return CTL_ERROR;
}

int main(int argc, char **argv)
{
    struct error err = {0};

    if (argc < 2) {
        error_set(&err, -EINVAL, "nothing to do; xhyvectl --help lists what there is");
        return ctl_fail(&err);
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        ctl_vm_help(stdout);
        ctl_image_help(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("xhyvectl " XHYVE_VERSION);
        return 0;
    }
    if (strcmp(argv[1], "image") == 0)
        return ctl_image(argc - 2, argv + 2);
    if (strcmp(argv[1], "list") == 0 && argc == 2)
        return ctl_list();
    if (strcmp(argv[1], "list") == 0) {
        error_set(&err, -EINVAL, "unexpected word '%s' after list", argv[2]);
        return ctl_fail(&err);
    }
    if (strcmp(argv[1], "vm") == 0 || argv[1][0] == '-')
        return ctl_vm(argc - 1, argv + 1);
    error_set(&err, -EINVAL,
              "unknown command '%s'; there are image, list, vm NAME COMMAND, and --help", argv[1]);
    return ctl_fail(&err);
}
