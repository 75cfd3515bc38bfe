/*
 * Hostile tables of names: a file for --profile-symbols, and a kernel that carries its own. Nothing
 * is expected but an answer, and names that a terminal can show.
 */
#include "boot/symbols.h"
#include "file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void look(struct symbols *s)
{
    uint64_t addr, offset;

    for (unsigned i = 0; i < 256; i++) {
        const char *name = symbols_find(s, 0xffffffff80000000 + ((uint64_t)i << 16), &offset);

        for (; name != NULL && *name != '\0'; name++) {
            if (*name < ' ' || *name > '~')
                abort();
        }
    }
    (void)symbols_lookup(s, "start_kernel", &addr);
    symbols_move(s, 0x1000000);
    (void)symbols_find(s, symbols_count(s), &offset);
    symbols_destroy(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct hostile_file f = hostile_file(data, len);
    struct symbols *s = NULL;
    struct error err = {0};

    if (symbols_load_file(f.path, &s, &err) == 0)
        look(s);
    else if (err.text[0] == '\0')
        abort(); /* who is refused is told why */
    close(f.fd);
    if (symbols_from_kernel(data, len, 0xffffffff81000000, &s, &err) == 0)
        look(s);
    return 0;
}
