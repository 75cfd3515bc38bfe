#include "boot/identify.h"

#include <stdlib.h>
#include <string.h>

#include "boot/elf.h"
#include "boot/layout.h"
#include "boot/multiboot.h"
#include "boot/pvh.h"

#define NOTE_GUEST_OS 6u

static enum kernel_kind identify(const uint8_t *data, uint64_t size, bool *linux_words)
{
    const uint8_t *os;
    uint64_t entry;
    uint32_t len;
    struct elf e;

    *linux_words = false;
    if (multiboot_is(data, size))
        return KERNEL_MULTIBOOT;
    if (elf_parse(data, size, &e, NULL) == 0 && pvh_entry(&e, &entry)) {
        os = elf_note(&e, "Xen", NOTE_GUEST_OS, &len);
        *linux_words = os != NULL && len >= 5 && memcmp(os, "linux", 5) == 0;
        return KERNEL_PVH;
    }
    *linux_words = true;
    return KERNEL_LINUX;
}

enum kernel_kind kernel_identify(const char *path, bool *linux_words)
{
    enum kernel_kind kind;
    uint64_t size;
    uint8_t *data;

    *linux_words = true;
    if (layout_read_kernel(path, &data, &size, NULL) != 0)
        return KERNEL_LINUX;
    kind = identify(data, size, linux_words);
    free(data);
    return kind;
}
