#include "boot/tables.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/endian.h"

/*
 * SMBIOS: a 32-bit and a 64-bit entry point and one run of structures, each followed by its
 * strings. Offsets are those within a structure.
 */
#define ROOM (BOARD_ACPI_TABLE - BOARD_SMBIOS_TABLE)
#define ENTRY32_SIZE 31u
#define ENTRY64_AT 0x20u
#define ENTRY64_SIZE 24u
#define STRUCTS_AT 0x40u
#define NO_HANDLE 0xFFFEu
#define KIB_UNKNOWN 0xFFFFFFFFu

struct smbios {
    const struct board *b;
    uint8_t data[ROOM];
    size_t len;
    uint16_t handle; /* of the next structure */
    unsigned count;
    size_t largest;
    bool full;
};

/* One structure in the making: its formatted part and strings, put out by end(). */
struct item {
    uint8_t fixed[64];
    size_t size;
    char strings[2048];
    size_t strings_len;
    uint8_t strings_count;
    bool full;
};

static struct item begin(uint8_t type, size_t size)
{
    struct item it = {.size = size};

    it.fixed[0] = type;
    it.fixed[1] = (uint8_t)size;
    return it;
}

/* Stores text's number at offset; an empty text has number 0. */
static void string(struct item *it, unsigned offset, const char *text)
{
    size_t n = strlen(text);

    if (n == 0)
        return;
    if (it->strings_len + n + 1 > sizeof(it->strings)) {
        it->full = true;
        return;
    }
    memcpy(it->strings + it->strings_len, text, n);
    it->strings_len += n + 1; /* the array is zeroed */
    it->fixed[offset] = ++it->strings_count;
}

/* The user's value of key, or ours. */
static void setting(const struct smbios *s, struct item *it, unsigned offset, const char *key,
                    const char *dflt)
{
    const char *v = s->b->config != NULL ? config_get(s->b->config, key) : NULL;

    string(it, offset, v != NULL ? v : dflt);
}

/* Writes the item; returns its handle. */
static uint16_t end(struct smbios *s, struct item *it)
{
    size_t tail = it->strings_len == 0 ? 2 : it->strings_len + 1;
    size_t size = it->size + tail;

    if (it->full || size > sizeof(s->data) - s->len) {
        s->full = true;
        return 0;
    }
    le16_store(it->fixed + 2, s->handle);
    memcpy(s->data + s->len, it->fixed, it->size);
    memcpy(s->data + s->len + it->size, it->strings, it->strings_len);
    s->len += size; /* already zero: ends the strings */
    s->count++;
    if (size > s->largest)
        s->largest = size;
    return s->handle++;
}

static void add_bios(struct smbios *s)
{
    struct item it = begin(0, 26);

    setting(s, &it, 4, "bios.vendor", "xhyve");
    setting(s, &it, 5, "bios.version", "1.0");
    le16_store(it.fixed + 6, 0xF000); /* segment */
    setting(s, &it, 8, "bios.release_date", "01/01/2025");
    le64_store(it.fixed + 10, 1u << 7); /* PCI is supported */
    it.fixed[18] = 1;                   /* ACPI is supported */
    it.fixed[19] = 0x14;                /* virtual machine; content distribution enabled */
    it.fixed[20] = 1;                   /* BIOS release 1.0 */
    it.fixed[22] = it.fixed[23] = 0xFF; /* no embedded controller */
    end(s, &it);
}

/* A UUID's first three fields are little-endian here. */
static void store_uuid(uint8_t *to, const uint8_t uuid[16])
{
    le32_store(to, be32_load(uuid));
    le16_store(to + 4, be16_load(uuid + 4));
    le16_store(to + 6, be16_load(uuid + 6));
    memcpy(to + 8, uuid + 8, 8);
}

static void add_system(struct smbios *s)
{
    struct item it = begin(1, 27);

    setting(s, &it, 4, "system.manufacturer", "xhyve");
    setting(s, &it, 5, "system.product_name", "BHYVE");
    setting(s, &it, 6, "system.version", "1.0");
    setting(s, &it, 7, "system.serial_number", "None");
    store_uuid(it.fixed + 8, s->b->uuid);
    it.fixed[24] = 6; /* woken by the power switch */
    setting(s, &it, 25, "system.sku", "None");
    setting(s, &it, 26, "system.family_name", "Virtual Machine");
    end(s, &it);
}

/* Only if the user describes a board. */
static void add_board(struct smbios *s, uint16_t chassis)
{
    struct item it = begin(2, 15);

    if (s->b->config == NULL || config_find(s->b->config, "board") == NULL)
        return;
    setting(s, &it, 4, "board.manufacturer", "xhyve");
    setting(s, &it, 5, "board.product_name", "BHYVE");
    setting(s, &it, 6, "board.version", "1.0");
    setting(s, &it, 7, "board.serial_number", "None");
    setting(s, &it, 8, "board.asset_tag", "None");
    it.fixed[9] = 1; /* hosts the system */
    setting(s, &it, 10, "board.location", "None");
    le16_store(it.fixed + 11, chassis);
    it.fixed[13] = 0x0A; /* motherboard */
    end(s, &it);
}

static uint16_t add_chassis(struct smbios *s)
{
    struct item it = begin(3, 22);

    setting(s, &it, 4, "chassis.manufacturer", "xhyve");
    it.fixed[5] = 2; /* kind: unknown */
    setting(s, &it, 6, "chassis.version", "1.0");
    setting(s, &it, 7, "chassis.serial_number", "None");
    setting(s, &it, 8, "chassis.asset_tag", "None");
    it.fixed[9] = it.fixed[10] = it.fixed[11] = it.fixed[12] = 3; /* states: safe, no security */
    setting(s, &it, 21, "chassis.sku", "None");
    return end(s, &it);
}

/* One package with every vCPU as a core. */
static void add_cpu(struct smbios *s)
{
    struct item it = begin(4, 48);
    uint16_t mhz = (uint16_t)min_u64(s->b->tsc_hz / 1000000, UINT16_MAX);
    uint8_t cores = s->b->cpus < 0xFF ? (uint8_t)s->b->cpus : 0xFF; /* FFh: see the 16-bit ones */

    string(&it, 4, "CPU #0");
    it.fixed[5] = 3; /* central processor */
    it.fixed[6] = 2; /* family unknown */
    string(&it, 7, "xhyve");
    string(&it, 16, "Virtual CPU");
    le16_store(it.fixed + 20, mhz);
    le16_store(it.fixed + 22, mhz);
    it.fixed[24] = 0x41;               /* populated, enabled */
    it.fixed[25] = 2;                  /* socket unknown */
    le16_store(it.fixed + 26, 0xFFFF); /* no cache described */
    le16_store(it.fixed + 28, 0xFFFF);
    le16_store(it.fixed + 30, 0xFFFF);
    it.fixed[35] = it.fixed[36] = it.fixed[37] = cores;
    le16_store(it.fixed + 38, 0x04); /* 64-bit */
    le16_store(it.fixed + 40, 2);
    le16_store(it.fixed + 42, (uint16_t)s->b->cpus);
    le16_store(it.fixed + 44, (uint16_t)s->b->cpus);
    le16_store(it.fixed + 46, (uint16_t)s->b->cpus);
    end(s, &it);
}

static uint16_t add_memory_array(struct smbios *s, uint64_t bytes)
{
    struct item it = begin(16, 23);

    it.fixed[4] = 3; /* on the board */
    it.fixed[5] = 3; /* system memory */
    it.fixed[6] = 3; /* no error correction */
    if (bytes / KIB < 0x80000000u) {
        le32_store(it.fixed + 7, (uint32_t)(bytes / KIB));
    } else {
        le32_store(it.fixed + 7, 0x80000000u);
        le64_store(it.fixed + 15, bytes);
    }
    le16_store(it.fixed + 11, NO_HANDLE);
    le16_store(it.fixed + 13, 1); /* devices */
    return end(s, &it);
}

static void add_memory_device(struct smbios *s, uint16_t array, uint64_t bytes)
{
    struct item it = begin(17, 40);

    le16_store(it.fixed + 4, array);
    le16_store(it.fixed + 6, NO_HANDLE);
    le16_store(it.fixed + 8, 64); /* widths */
    le16_store(it.fixed + 10, 64);
    if (bytes / MIB < 0x7FFF) {
        le16_store(it.fixed + 12, (uint16_t)(bytes / MIB));
    } else {
        le16_store(it.fixed + 12, 0x7FFF);
        le32_store(it.fixed + 28, (uint32_t)(bytes / MIB));
    }
    it.fixed[14] = 9; /* DIMM */
    string(&it, 16, "DIMM 0");
    string(&it, 17, "Bank 0");
    it.fixed[18] = 7;               /* RAM */
    le16_store(it.fixed + 19, 0x4); /* details unknown */
    string(&it, 23, "xhyve");
    end(s, &it);
}

static void add_mapped(struct smbios *s, uint16_t array, uint64_t base, uint64_t size)
{
    struct item it = begin(19, 31);
    uint64_t last = (base + size) / KIB - 1;

    if (size == 0)
        return;
    if (last < KIB_UNKNOWN) {
        le32_store(it.fixed + 4, (uint32_t)(base / KIB));
        le32_store(it.fixed + 8, (uint32_t)last);
    } else {
        le32_store(it.fixed + 4, KIB_UNKNOWN);
        le32_store(it.fixed + 8, KIB_UNKNOWN);
        le64_store(it.fixed + 15, base);
        le64_store(it.fixed + 23, base + size - 1);
    }
    le16_store(it.fixed + 12, array);
    it.fixed[14] = 1; /* partition width */
    end(s, &it);
}

static void add_plain(struct smbios *s, uint8_t type, size_t size)
{
    struct item it = begin(type, size);

    end(s, &it);
}

static uint8_t checksum(const uint8_t *p, size_t len)
{
    uint8_t sum = 0;

    while (len-- > 0)
        sum = (uint8_t)(sum + *p++);
    return (uint8_t)-sum;
}

static void write_entry_points(struct smbios *s)
{
    uint32_t at = (uint32_t)(BOARD_SMBIOS_TABLE + STRUCTS_AT);
    uint32_t len = (uint32_t)(s->len - STRUCTS_AT);
    uint8_t *p = s->data;

    memcpy(p, "_SM_", 4);
    p[5] = ENTRY32_SIZE;
    p[6] = 2; /* version 2.8 */
    p[7] = 8;
    le16_store(p + 8, (uint16_t)s->largest);
    memcpy(p + 16, "_DMI_", 5);
    le16_store(p + 22, (uint16_t)len);
    le32_store(p + 24, at);
    le16_store(p + 28, (uint16_t)s->count);
    p[30] = 0x28;
    p[21] = checksum(p + 16, ENTRY32_SIZE - 16);
    p[4] = checksum(p, ENTRY32_SIZE);

    p = s->data + ENTRY64_AT;
    memcpy(p, "_SM3_", 5);
    p[6] = ENTRY64_SIZE;
    p[7] = 3; /* version 3.0 */
    p[10] = 1;
    le32_store(p + 12, len);
    le64_store(p + 16, at);
    p[5] = checksum(p, ENTRY64_SIZE);
}

int smbios_write(const struct board *b, struct error *err)
{
    struct smbios *s = calloc(1, sizeof(*s));
    uint64_t bytes = gmem_size(b->mem);
    uint16_t array, chassis;
    int rc;

    if (s == NULL)
        return error_set(err, -ENOMEM, "no memory for the SMBIOS tables");
    s->b = b;
    s->len = STRUCTS_AT;
    add_bios(s);
    add_system(s);
    chassis = add_chassis(s);
    add_board(s, chassis);
    add_cpu(s);
    array = add_memory_array(s, bytes);
    add_memory_device(s, array, bytes);
    add_mapped(s, array, 0, gmem_lowmem(b->mem));
    add_mapped(s, array, GMEM_HIGH_BASE, gmem_highmem(b->mem));
    add_plain(s, 32, 11); /* no errors detected at boot */
    add_plain(s, 127, 4); /* end */
    write_entry_points(s);
    if (s->full)
        rc = error_set(err, -ENOSPC, "the SMBIOS strings do not fit; shorten them");
    else
        rc = gmem_write(b->mem, BOARD_SMBIOS_TABLE, s->data, s->len);
    if (rc == -EFAULT)
        error_set(err, rc, "the VM has less than 1 MiB of memory, too little for SMBIOS tables");
    free(s);
    return rc;
}
