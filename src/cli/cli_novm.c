/* Stands in for cli_vm.c in a tree without a VM. */
#include "cli/cli.h"

#include <errno.h>

int cli_run_vm(const struct config *cfg, bool named, struct error *err)
{
    (void)cfg;
    (void)named;
    return error_set(err, -ENOSYS, "running a VM is not built yet");
}
