/*
 * Writes the firmware tables of a few fixed boards and compares them with the files beside this
 * one.
 *
 *     tables DIR           compare with DIR/NAME.txt
 *     tables --update DIR  rewrite those
 *     tables --aml DIR     write every ACPI table to DIR/NAME.SIGNATURE.dat, for iasl
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/endian.h"
#include "boot/tables.h"

#define MAX_ACPI 16u

/* "xhyve -A -m 1G -s 0,hostbridge -s 2,virtio-net -s 4,virtio-blk -s 31,lpc -l com1,stdio" */
static void canonical_board(struct board *b, struct config *c)
{
    (void)c;
    b->cpus = 2;
    b->acpi = b->mptable = b->has_lpc = b->com[0] = b->ps2 = b->hpet = b->pvpanic = true;
    b->lpc_slot = 31;
    b->pci64_base = 32 * GIB;
    b->pci[b->pci_count++] = (struct board_pci){.slot = 0, .name = "hostbridge"};
    b->pci[b->pci_count++] =
        (struct board_pci){.slot = 2, .pin = 1, .pirq = 2, .name = "virtio-net"};
    b->pci[b->pci_count++] =
        (struct board_pci){.slot = 4, .pin = 1, .pirq = 4, .name = "virtio-blk"};
    b->pci[b->pci_count++] = (struct board_pci){.slot = 31, .name = "lpc"};
}

/* The least that can be asked for. */
static void bare_board(struct board *b, struct config *c)
{
    (void)b;
    (void)c;
}

/* Two root buses, more CPUs than xAPIC ids, a display, the user's own SMBIOS strings. */
static void large_board(struct board *b, struct config *c)
{
    static const char *const keys[][2] = {
        {"bios.vendor", "Example BIOS"},      {"system.serial_number", "12345"},
        {"board.product_name", "Example"},    {"board.location", "Rack 7"},
        {"chassis.asset_tag", "inventory 9"},
    };

    for (unsigned i = 0; i < countof(keys); i++)
        config_set(c, keys[i][0], keys[i][1], NULL);
    b->cpus = 260;
    b->x2apic = b->has_lpc = b->hpet = b->com[0] = b->com[1] = b->com[2] = b->com[3] = true;
    b->lpc_bus = 7;
    b->lpc_slot = 3;
    b->pci64_base = 64 * GIB;
    b->pci[b->pci_count++] = (struct board_pci){.slot = 0, .name = "hostbridge"};
    b->pci[b->pci_count++] = (struct board_pci){.slot = 1, .pin = 1, .pirq = 1, .name = "fbuf"};
    b->pci[b->pci_count++] =
        (struct board_pci){.bus = 7, .slot = 2, .pin = 2, .pirq = 3, .name = "ahci-hd"};
    b->pci[b->pci_count++] =
        (struct board_pci){.bus = 7, .slot = 2, .func = 1, .pin = 2, .pirq = 3, .name = "ahci-cd"};
    b->pci[b->pci_count++] = (struct board_pci){.bus = 7, .slot = 3, .name = "lpc"};
}

static const struct golden {
    const char *name;
    uint64_t ram;
    void (*describe)(struct board *b, struct config *c);
} boards[] = {
    {"canonical", GIB, canonical_board},
    {"bare", 64 * MIB, bare_board},
    {"large", 5 * GIB, large_board},
};

static void dump(FILE *f, const char *what, struct gmem *m, uint64_t gpa, uint64_t len)
{
    fprintf(f, "\n# %s at %#llx, %llu bytes\n", what, (unsigned long long)gpa,
            (unsigned long long)len);
    for (uint64_t i = 0; i < len; i++) {
        uint8_t byte = 0xFF;

        gmem_read(m, gpa + i, &byte, 1);
        fprintf(f, "%02x%c", byte, i % 32 == 31 || i == len - 1 ? '\n' : ' ');
    }
}

struct acpi_list {
    uint64_t at[MAX_ACPI];
    unsigned n;
};

/* What a guest would find from the root pointer: XSDT, its tables, FACS, DSDT; and the RSDT. */
static struct acpi_list acpi_tables(struct gmem *m, uint64_t rsdp)
{
    struct acpi_list l = {{gmem_read32(m, rsdp + 16), gmem_read64(m, rsdp + 24)}, 2};
    uint64_t xsdt = l.at[1], end = xsdt + gmem_read32(m, xsdt + 4);

    for (uint64_t p = xsdt + 36; p < end && l.n < MAX_ACPI - 2; p += 8) {
        uint64_t t = gmem_read64(m, p);

        l.at[l.n++] = t;
        if (gmem_read32(m, t) == 0x50434146) { /* "FACP" */
            l.at[l.n++] = gmem_read32(m, t + 36);
            l.at[l.n++] = gmem_read32(m, t + 40);
        }
    }
    return l;
}

static void signature(struct gmem *m, uint64_t gpa, char out[5])
{
    le32_store(out, gmem_read32(m, gpa));
    out[4] = '\0';
}

static void write_text(const struct board *b, FILE *f)
{
    struct e820_entry map[E820_MAX];
    unsigned n = e820_build(b, map);
    struct error err = {0};
    uint64_t rsdp = 0;
    char sig[5];

    fprintf(f, "# e820\n");
    for (unsigned i = 0; i < n; i++)
        fprintf(f, "%#llx-%#llx %u\n", (unsigned long long)map[i].base,
                (unsigned long long)(map[i].base + map[i].size - 1), map[i].type);
    if (acpi_write(b, &rsdp, &err) != 0) {
        fprintf(f, "\n# ACPI\n%s\n", err.text);
    } else {
        struct acpi_list l = acpi_tables(b->mem, rsdp);

        dump(f, "RSDP", b->mem, rsdp, 36);
        for (unsigned i = 0; i < l.n; i++) {
            signature(b->mem, l.at[i], sig);
            dump(f, sig, b->mem, l.at[i], gmem_read32(b->mem, l.at[i] + 4));
        }
    }
    if (smbios_write(b, &err) != 0)
        fprintf(f, "\n# SMBIOS\n%s\n", err.text);
    else
        dump(f, "SMBIOS", b->mem, BOARD_SMBIOS_TABLE,
             0x40u + gmem_read16(b->mem, BOARD_SMBIOS_TABLE + 22));
    if (mptable_write(b, &err) != 0)
        fprintf(f, "\n# MP table\n%s\n", err.text);
    else
        dump(f, "MP table", b->mem, BOARD_MP_TABLE, 16u + gmem_read16(b->mem, BOARD_MP_TABLE + 20));
}

static int write_aml(const struct board *b, const char *name, const char *dir)
{
    struct acpi_list l;
    uint64_t rsdp = 0;
    char sig[5];

    if (acpi_write(b, &rsdp, NULL) != 0)
        return 1;
    l = acpi_tables(b->mem, rsdp);
    for (unsigned i = 0; i < l.n; i++) {
        uint32_t len = gmem_read32(b->mem, l.at[i] + 4);
        const void *p = gmem_ptr_ro(b->mem, l.at[i], len);
        char path[512];
        FILE *f;

        signature(b->mem, l.at[i], sig);
        snprintf(path, sizeof(path), "%s/%s.%s.dat", dir, name, sig);
        f = fopen(path, "wb");
        if (f == NULL || p == NULL || fwrite(p, 1, len, f) != len)
            return 1;
        fclose(f);
    }
    return 0;
}

/* 0 if text is what the file at path holds. */
static int compare(const char *path, const char *text, size_t len)
{
    FILE *f = fopen(path, "rb");
    size_t line = 1;

    if (f == NULL) {
        fprintf(stderr, "%s: missing; run ninja golden-update\n", path);
        return 1;
    }
    for (size_t i = 0; i <= len; i++) {
        int c = fgetc(f), want = i < len ? (unsigned char)text[i] : EOF;

        if (c != want) {
            fprintf(stderr, "%s:%zu: differs; if that is right, run ninja golden-update\n", path,
                    line);
            fclose(f);
            return 1;
        }
        line += c == '\n';
    }
    fclose(f);
    return 0;
}

static int check_text(const struct board *b, const char *name, const char *dir, bool update)
{
    char path[512], *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    int rc = 1;

    if (f == NULL)
        return 1;
    write_text(b, f);
    fclose(f);
    snprintf(path, sizeof(path), "%s/%s.txt", dir, name);
    if (!update) {
        rc = compare(path, text, len);
    } else if ((f = fopen(path, "wb")) != NULL) {
        rc = fwrite(text, 1, len, f) != len;
        rc |= fclose(f) != 0;
    }
    free(text);
    return rc;
}

static int run_board(const struct golden *g, const char *mode, const char *dir)
{
    struct board *b = calloc(1, sizeof(*b));
    struct config *c = config_create();
    struct error err = {0};
    int rc = 1;

    if (b == NULL || c == NULL)
        return 1;
    b->mem = gmem_create(g->ram, &err);
    b->config = c;
    b->cpus = 1;
    b->phys_bits = 39;
    b->tsc_hz = 2000000000;
    b->name = g->name;
    for (unsigned i = 0; i < 16; i++)
        b->uuid[i] = (uint8_t)(0x10 * i + i);
    g->describe(b, c);
    if (b->mem == NULL)
        fprintf(stderr, "%s: %s\n", g->name, err.text);
    else if (strcmp(mode, "--aml") == 0)
        rc = write_aml(b, g->name, dir);
    else
        rc = check_text(b, g->name, dir, strcmp(mode, "--update") == 0);
    gmem_destroy(b->mem);
    config_destroy(c);
    free(b);
    return rc;
}

int main(int argc, char **argv)
{
    const char *mode = argc == 3 ? argv[1] : "";
    int rc = 0;

    if (argc != 2 && argc != 3) {
        fprintf(stderr, "usage: tables [--update | --aml] DIR\n");
        return 2;
    }
    for (unsigned i = 0; i < countof(boards); i++)
        rc |= run_board(&boards[i], mode, argv[argc - 1]);
    return rc;
}
