/*
 * Reads `objdump -dw` output and checks that x86/decode.h gives every instruction the length
 * objdump gave it. Called by decode_objdump.sh.
 *
 *   objdump -dw FILE | decode_lengths
 *
 * The mode comes from objdump's "file format" line. Exits with 1 on any difference and prints the
 * first 20.
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "x86/decode.h"

#define MAX_PRINTED 20u

/* The bytes of a line "  addr:\t48 89 e5 \tmov ..."; 0 if it is another kind of line. */
static unsigned line_bytes(const char *line, uint8_t bytes[16], const char **text)
{
    const char *p = strstr(line, ":\t");
    unsigned n = 0;

    if (p == NULL || line[0] != ' ')
        return 0;
    for (p += 2; isxdigit((unsigned char)p[0]) && isxdigit((unsigned char)p[1]) && n < 16; p += 3) {
        char pair[3] = {p[0], p[1], 0};

        bytes[n++] = (uint8_t)strtoul(pair, NULL, 16);
    }
    while (*p == ' ' || *p == '\t')
        p++;
    *text = p;
    return n;
}

/* What objdump shows though it raises #UD: LOCK anywhere, segment registers that are none, MOV CS.
 */
static bool illegal(const uint8_t *bytes, const char *text)
{
    if (bytes[0] == 0x8f && (bytes[1] & 31) >= 8) /* XOP, which we leave out */
        return true;
    return strstr(text, "lock ") != NULL || strstr(text, "%?") != NULL ||
           (strncmp(text, "mov ", 4) == 0 && strstr(text, ",%cs") != NULL);
}

/* objdump gives prefixes that nothing follows a line of their own. */
static bool only_prefixes(const uint8_t *bytes, unsigned n, enum x86_mode mode)
{
    struct x86_insn insn;

    return x86_decode(bytes, n, mode, &insn) == X86_DECODE_MORE;
}

/* And it joins FWAIT to the x87 instruction that follows. */
static unsigned decoded_length(const uint8_t *bytes, unsigned n, enum x86_mode mode)
{
    struct x86_insn insn;
    unsigned skip = n > 1 && bytes[0] == 0x9b ? 1 : 0;
    int len = x86_decode(bytes + skip, n - skip, mode, &insn);

    return len > 0 ? (unsigned)len + skip : 0;
}

int main(void)
{
    enum x86_mode mode = X86_MODE_64;
    uint64_t count = 0, skipped = 0, differences = 0;
    char line[512];

    while (fgets(line, sizeof(line), stdin) != NULL) {
        uint8_t bytes[16];
        const char *text;
        unsigned n;

        if (strstr(line, "file format elf32-i386") != NULL)
            mode = X86_MODE_32;
        else if (strstr(line, "file format elf64-x86-64") != NULL)
            mode = X86_MODE_64;
        n = line_bytes(line, bytes, &text);
        if (n == 0)
            continue;
        if (strstr(text, "(bad)") != NULL || only_prefixes(bytes, n, mode)) {
            skipped++;
            continue;
        }
        count++;
        if (decoded_length(bytes, n, mode) == 0 && illegal(bytes, text))
            continue;
        if (decoded_length(bytes, n, mode) != n && ++differences <= MAX_PRINTED)
            printf("ours %u, objdump %u: %s", decoded_length(bytes, n, mode), n, line);
    }
    printf("%" PRIu64 " instructions, %" PRIu64 " passed over, %" PRIu64 " differences\n", count,
           skipped, differences);
    return differences != 0 || count == 0;
}
