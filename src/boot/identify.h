/*
 * What kind of kernel a file is, by its content: for commands that are given a file and no kind.
 * The thread that builds the VM.
 */
#ifndef BOOT_IDENTIFY_H
#define BOOT_IDENTIFY_H

#include <stdbool.h>

enum kernel_kind {
    KERNEL_LINUX, /* a bzImage, or nothing that we know: that loader's sentence says what is wrong
                   */
    KERNEL_MULTIBOOT, /* version 1 */
    KERNEL_PVH,
};

/*
 * Reads the file, unpacked if it is packed whole. One that is both multiboot and PVH (Xen's own) is
 * multiboot: such a kernel wants modules, which only that gives it. *linux_words: a PVH kernel that
 * says it is Linux, or a bzImage, so that Linux's words on the command line mean something to it.
 */
enum kernel_kind kernel_identify(const char *path, bool *linux_words);

#endif
