/*
 * Hostile kernels through the loaders: the first byte says which one and whether a module or an
 * initrd goes with it (the second half of the rest), the others are the file. Nothing is expected
 * but an answer: no crash, no hang, no memory without bound, no byte outside guest memory.
 */
#include "boot/identify.h"
#include "boot/linux.h"
#include "boot/multiboot.h"
#include "boot/pvh.h"
#include "file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define RAM (64ull << 20)
#define TWO_FILES 0x80u

static void load(const struct board *b, uint8_t how, const char *kernel, const char *second)
{
    static const char cmdline[] = "console=ttyS0 root=/dev/vda";
    const struct linux_params l = {.kernel = kernel,
                                   .initrd = second,
                                   .cmdline = cmdline,
                                   .decompress =
                                       how & 1 ? LINUX_DECOMPRESS_GUEST : LINUX_DECOMPRESS_HOST,
                                   .rsdp = BOARD_ACPI_TABLE};
    const struct multiboot_params m = {.kernel = kernel, .modules = second, .cmdline = cmdline};
    const struct pvh_params p = {
        .kernel = kernel, .initrd = second, .cmdline = cmdline, .rsdp = BOARD_ACPI_TABLE};
    struct x86_state *state = aligned_alloc(_Alignof(struct x86_state), sizeof(*state));
    struct linux_info info;
    struct error err = {0};
    int rc = 0;

    if (state == NULL)
        abort();
    x86_state_reset(state, true);
    switch (how % 4) {
    case 0:
    case 1:
        rc = linux_load(b, &l, state, &info, &err);
        break;
    case 2:
        rc = multiboot_load(b, &m, state, NULL, &err);
        break;
    case 3:
        rc = pvh_load(b, &p, state, NULL, &err);
        break;
    }
    if (rc != 0 && err.text[0] == '\0')
        abort(); /* who is refused is told why */
    free(state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct board b;
    uint8_t how = len > 0 ? data[0] : 0;
    size_t body = len > 0 ? len - 1 : 0, first = how & TWO_FILES ? body / 2 : body;
    struct hostile_file kernel, second;
    struct error err = {0};
    bool linux_words;

    if (b.mem == NULL) {
        b.mem = gmem_create(RAM, &err);
        b.log = log_create(2, LOG_ERROR);
        b.cpus = 1;
        b.phys_bits = 40;
    }
    if (b.mem == NULL)
        abort();
    kernel = hostile_file(data + (len > 0), first);
    second = hostile_file(data + (len > 0) + first, body - first);
    (void)kernel_identify(kernel.path, &linux_words);
    load(&b, how, kernel.path, how & TWO_FILES ? second.path : NULL);
    close(kernel.fd);
    close(second.fd);
    return 0;
}
