/*
 * What the board puts into the firmware configuration device beyond its own items: files, named in
 * its directory. Called while no vCPU runs.
 */
#ifndef DEV_FWCFG_H
#define DEV_FWCFG_H

#include "bus/device.h"

#define FWCFG_FILES 32u
#define FWCFG_NAME_SIZE 56u /* with the zero at its end */

/*
 * Adds a file to a device made of fwcfg_ops; data is copied. -EINVAL for a name that is empty, too
 * long or taken, -ENOSPC when there are FWCFG_FILES. env->lock must not be held.
 */
int fwcfg_add_file(struct device *d, const char *name, const void *data, size_t len,
                   struct error *err);

#endif
