/*
 * The firmware configuration device (fw_cfg): a word written to port 0x510 selects an item, each
 * byte read from 0x511 is its next one, zero past the end. No DMA, and items cannot be written.
 *
 * The items are made from the board when it is created and are no state: only what is selected and
 * how far it has been read is. Called by the bus with the device's lock held.
 */
#include "dev/fwcfg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "dev/chips.h"

enum fwcfg_key {
    KEY_SIGNATURE = 0x00,
    KEY_ID = 0x01,
    KEY_UUID = 0x02,
    KEY_RAM_SIZE = 0x03,
    KEY_CPUS = 0x05,
    KEY_MAX_CPUS = 0x0F,
    KEY_DIRECTORY = 0x19,
    KEY_FIRST_FILE = 0x20,
};

#define KEY_WRITE (1u << 14) /* asks to write the item; none can be, so it selects the same */
#define ID_PORTS 1u          /* the two ports; bit 1 would be DMA */
#define SMALL_ITEM 16u

/* One file of the directory, as the guest reads it: all numbers big-endian. */
struct directory_entry {
    uint8_t size[4];
    uint8_t select[2];
    uint8_t reserved[2];
    char name[FWCFG_NAME_SIZE];
};
static_assert(sizeof(struct directory_entry) == 64, "the directory is read by firmware");

struct file {
    uint8_t *data; /* owned */
    uint32_t len;
};

struct fwcfg {
    struct dev_env *env;
    uint16_t key;
    uint32_t offset;
    unsigned files;
    struct file file[FWCFG_FILES];
    struct {
        uint8_t count[4];
        struct directory_entry entry[FWCFG_FILES];
    } directory;
};

struct item {
    const uint8_t *data;
    uint32_t len;
};

/* The item of a key; small ones are made in `small`. Unknown ones are empty. */
static struct item fwcfg_item(const struct fwcfg *f, uint16_t key, uint8_t small[SMALL_ITEM])
{
    unsigned file = key - (unsigned)KEY_FIRST_FILE;

    switch (key) {
    case KEY_SIGNATURE:
        return (struct item){(const uint8_t *)"QEMU", 4};
    case KEY_ID:
        le32_store(small, ID_PORTS);
        return (struct item){small, 4};
    case KEY_UUID:
        return (struct item){f->env->uuid, sizeof(f->env->uuid)};
    case KEY_RAM_SIZE:
        le64_store(small, f->env->mem_low + f->env->mem_high);
        return (struct item){small, 8};
    case KEY_CPUS:
    case KEY_MAX_CPUS:
        le16_store(small, (uint16_t)f->env->cpus);
        return (struct item){small, 2};
    case KEY_DIRECTORY:
        return (struct item){f->directory.count,
                             (uint32_t)(4 + f->files * sizeof(struct directory_entry))};
    default:
        break;
    }
    if (key >= KEY_FIRST_FILE && file < f->files)
        return (struct item){f->file[file].data, f->file[file].len};
    return (struct item){small, 0};
}

/* The selector is write-only. A byte at a time, so that a word over both ports reads as two. */
static uint32_t fwcfg_in(void *dev, unsigned offset, unsigned size)
{
    struct fwcfg *f = dev;
    uint8_t small[SMALL_ITEM];
    uint32_t selector = offset == 0 ? 0xFF : 0;
    struct item item;
    uint8_t byte;

    if (offset + size < 2)
        return selector;
    item = fwcfg_item(f, f->key, small);
    byte = f->offset < item.len ? item.data[f->offset++] : 0;
    return offset == 0 ? selector | (uint32_t)byte << 8 : byte;
}

static void fwcfg_out(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    struct fwcfg *f = dev;

    if (offset != 0 || size != 2) {
        log_guest(f->env,
                  "write of %#x to port %#x (%u bytes): only a word at 0x510 means anything", value,
                  0x510 + offset, size);
        return;
    }
    f->key = (uint16_t)(value & ~KEY_WRITE);
    f->offset = 0;
}

int fwcfg_add_file(struct device *d, const char *name, const void *data, size_t len,
                   struct error *err)
{
    struct fwcfg *f = d->impl;
    struct directory_entry *e;
    uint8_t *copy;
    int rc = 0;

    if (name[0] == '\0' || strlen(name) >= FWCFG_NAME_SIZE)
        return error_set(err, -EINVAL, "a fw_cfg file's name has 1 to %u characters: '%s'",
                         FWCFG_NAME_SIZE - 1, name);
    if (len > UINT32_MAX)
        return error_set(err, -EINVAL, "the fw_cfg file '%s' is larger than 4 GiB", name);
    copy = malloc(len != 0 ? len : 1);
    if (copy == NULL)
        return error_set(err, -ENOMEM, "no memory for the fw_cfg file '%s'", name);
    memcpy(copy, data, len);
    pthread_mutex_lock(&f->env->lock);
    if (f->files == FWCFG_FILES)
        rc = error_set(err, -ENOSPC, "more than %u fw_cfg files", FWCFG_FILES);
    for (unsigned i = 0; i < f->files && rc == 0; i++) {
        if (strcmp(f->directory.entry[i].name, name) == 0)
            rc = error_set(err, -EINVAL, "two fw_cfg files are named '%s'", name);
    }
    if (rc == 0) {
        e = &f->directory.entry[f->files];
        be32_store(e->size, (uint32_t)len);
        be16_store(e->select, (uint16_t)(KEY_FIRST_FILE + f->files));
        memcpy(e->name, name, strlen(name) + 1);
        f->file[f->files] = (struct file){copy, (uint32_t)len};
        be32_store(f->directory.count, ++f->files);
    }
    pthread_mutex_unlock(&f->env->lock);
    if (rc != 0)
        free(copy);
    return rc;
}

static void fwcfg_reset(void *dev)
{
    struct fwcfg *f = dev;

    f->key = KEY_SIGNATURE;
    f->offset = 0;
}

static int fwcfg_create(struct dev_env *env, const struct options *opts, void **out,
                        struct error *err)
{
    struct fwcfg *f = calloc(1, sizeof(*f));

    (void)opts;
    if (f == NULL)
        return error_set(err, -ENOMEM, "no memory for fw_cfg");
    f->env = env;
    *out = f;
    return 0;
}

static void fwcfg_destroy(void *dev)
{
    struct fwcfg *f = dev;

    for (unsigned i = 0; i < f->files; i++)
        free(f->file[i].data);
    free(f);
}

static const struct port_range fwcfg_ports[] = {
    {.base = 0x510, .len = 2, .in = fwcfg_in, .out = fwcfg_out},
};

static const struct state_field fwcfg_state[] = {
    STATE_FIELD(1, struct fwcfg, key),
    STATE_FIELD(2, struct fwcfg, offset),
};

const struct dev_ops fwcfg_ops = {
    .name = "fwcfg",
    .summary = "firmware configuration by ports",
    .ports = fwcfg_ports,
    .port_count = countof(fwcfg_ports),
    .state = fwcfg_state,
    .state_count = countof(fwcfg_state),
    .create = fwcfg_create,
    .destroy = fwcfg_destroy,
    .reset = fwcfg_reset,
};
