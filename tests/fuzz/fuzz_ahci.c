/*
 * The AHCI adapter under a driver that does anything: a disk, a CD drive, or both at its ports. See
 * rig.h.
 */
#include "rig.h"
#include "storage/storage.h"

#define BAR 5u
#define PORTS 2u
#define LIST(p) (0x10000ull + 0x2000ull * (p))
#define FISES(p) (0x11000ull + 0x2000ull * (p))
#define TABLES 0x100000ull /* 4 KiB apart, 32 for each port */
#define TABLE(p, slot) (TABLES + 0x20000ull * (p) + 0x1000ull * (slot))
#define DATA 0x400000ull

enum { CLB = 0, FB = 8, IS = 0x10, IE = 0x14, CMD = 0x18, TFD = 0x20, SCTL = 0x2C };
enum { SERR = 0x30, SACT = 0x34, CI = 0x38 };

struct ahci_driver {
    unsigned ports;
    bool cd[PORTS];
    uint32_t built[PORTS], queued[PORTS]; /* slots that the next kick issues */
};

static const uint64_t places[] = {
    LIST(0),
    LIST(0) + 32,
    LIST(1),
    LIST(1) + 32,
    FISES(0),
    TABLE(0, 0),
    TABLE(0, 0) + 2,
    TABLE(0, 0) + 0x40,
    TABLE(0, 0) + 0x80,
    TABLE(0, 1),
    TABLE(0, 1) + 0x40,
    TABLE(0, 1) + 0x80,
    TABLE(1, 0),
    TABLE(1, 0) + 0x40,
    TABLE(1, 0) + 0x80,
    TABLE(0, 2),
    DATA,
    DATA + 0x40000,
    TABLE(0, 3),
    TABLE(0, 0) + 0x8C,
};

static const uint16_t regs[] = {
    0x00,  0x04,  0x08,  0x0C,  0x10,  0x100, 0x104, 0x108, 0x10C, 0x110, 0x114,
    0x118, 0x11C, 0x120, 0x124, 0x128, 0x12C, 0x130, 0x134, 0x138, 0x13C, 0x180,
    0x188, 0x190, 0x194, 0x198, 0x1A0, 0x1AC, 0x1B0, 0x1B4, 0x1B8, 0x118,
};

static struct ahci_driver *driver(struct rig *r)
{
    return r->driver;
}

static uint32_t px(struct rig *r, unsigned port, unsigned reg)
{
    return (uint32_t)bar_in(r, BAR, 0x100 + 0x80 * port + reg, 4);
}

static void pxw(struct rig *r, unsigned port, unsigned reg, uint32_t v)
{
    bar_out(r, BAR, 0x100 + 0x80 * port + reg, 4, v);
}

static void port_start(struct rig *r, unsigned port)
{
    pxw(r, port, CMD, 0x10);
    pxw(r, port, CMD, 0x18);
    bar_out(r, BAR, 0x100 + 0x80 * port + CLB, 8, LIST(port));
    bar_out(r, BAR, 0x100 + 0x80 * port + FB, 8, FISES(port));
    pxw(r, port, CMD, 0x10);
    pxw(r, port, SERR, 0xFFFFFFFF);
    pxw(r, port, IS, 0xFFFFFFFF);
    pxw(r, port, IE, 0xFFFFFFFF);
    pxw(r, port, CMD, 0x11);
    driver(r)->built[port] = driver(r)->queued[port] = 0;
}

static void ahci_begin(struct rig *r)
{
    uint8_t b = take8(&r->g);
    unsigned msi = find_cap(&r->m, SLOT, 5, 0);

    cfgw(&r->m, SLOT, 0, msi + 4, 4, 0xFEE00000);
    cfgw(&r->m, SLOT, 0, msi + 2, 2, (b & 1) != 0);
    if ((b & 2) != 0)
        bar_out(r, BAR, 4, 4, 1);
    bar_out(r, BAR, 8, 4, 0xFFFFFFFF);
    bar_out(r, BAR, 4, 4, 2);
    for (unsigned p = 0; p < driver(r)->ports; p++)
        port_start(r, p);
}

/* ---- commands ---- */

/* The opcodes of a disk that do more than fail, and those of a drive. */
static const uint8_t disk_ops[] = {0x60, 0x61, 0x25, 0x35, 0xC8, 0xCA, 0x20, 0x30, 0x24, 0x34, 0x29,
                                   0x39, 0xC4, 0xC5, 0xC6, 0xEA, 0xE7, 0xEC, 0x06, 0x47, 0x2F, 0xEF,
                                   0x40, 0x42, 0x70, 0x10, 0x27, 0xF8, 0xE0, 0xE5, 0x3D, 0xB0};
static const uint8_t packet_ops[] = {0x00, 0x03, 0x12, 0x1B, 0x1E, 0x25, 0x28, 0x2B,
                                     0x42, 0x43, 0x44, 0x46, 0x4A, 0x51, 0x52, 0x55,
                                     0x5A, 0xA8, 0xAD, 0xBB, 0xBD, 0xBE, 0xB9, 0x1A};

/* The command FIS. lba, count and feature: where a command of its kind has them. */
static void put_fis(struct rig *r, uint64_t table, unsigned slot, uint8_t op)
{
    bool ncq = op == 0x60 || op == 0x61;
    uint64_t lba = take_number(&r->g);
    uint16_t count = (uint16_t)take_number(&r->g);
    uint16_t feature = ncq ? count : op == 0x06 ? 1 : take8(&r->g);
    uint8_t fis[20] = {0x27, 0x80, op, (uint8_t)feature};

    for (unsigned i = 0; i < 3; i++) {
        fis[4 + i] = (uint8_t)(lba >> 8 * i);
        fis[8 + i] = (uint8_t)(lba >> (24 + 8 * i));
    }
    fis[7] = 0x40;
    fis[11] = (uint8_t)(feature >> 8);
    if (ncq)
        count = (uint16_t)(slot << 3);
    fis[12] = (uint8_t)count;
    fis[13] = (uint8_t)(count >> 8);
    guest_bytes(r->m.mem, table, fis, sizeof(fis));
}

static void put_packet(struct rig *r, uint64_t table)
{
    uint8_t b = take8(&r->g), given = take8(&r->g);
    uint8_t cdb[16] = {b < 0xE0 ? packet_ops[b % countof(packet_ops)] : take8(&r->g)};

    cdb[cdb[0] == 0x1B || cdb[0] == 0x12 || cdb[0] == 3 ? 4
        : cdb[0] < 0xA0                                 ? 8
                                                        : 9] = (uint8_t)(given >> 4);
    for (unsigned i = 1; i <= (given & 15u) && i < 12; i++)
        cdb[i] = take8(&r->g);
    guest_bytes(r->m.mem, table + 0x40, cdb, sizeof(cdb));
}

/* len bytes in n pieces that lie apart, which are even. */
static void put_prdt(struct rig *r, uint64_t table, uint64_t data, uint32_t len, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        uint32_t part = i + 1 < n ? len / n & ~1u : len;

        poke(r, table + 0x80 + 16 * i, data, 8);
        poke(r, table + 0x8C + 16 * i, part - 1, 4);
        data += part + 2 * i;
        len -= part;
    }
}

/* First byte: port, whether a packet, slot; second: opcode; then as the kind of command needs. */
static void ahci_request(struct rig *r)
{
    struct ahci_driver *d = driver(r);
    uint8_t b = take8(&r->g), o = take8(&r->g);
    unsigned port = (b & 1) % d->ports, slot = b >> 3;
    bool packet = d->cd[port] != ((b & 2) != 0);
    uint8_t op = packet ? 0xA0 : o < 0xE0 ? disk_ops[o & 31] : take8(&r->g);
    uint64_t table = TABLE(port, slot), head = LIST(port) + 32ull * slot;
    uint64_t data = DATA + 0x10000ull * (b & 31u);
    uint8_t shape = take8(&r->g);
    unsigned n = shape & 3;
    uint32_t len = (shape & 0xF0) != 0 ? 512u * (shape >> 4) : 2048;
    bool write = (shape & 4) != 0;

    put_fis(r, table, slot, op);
    if (packet)
        put_packet(r, table);
    if (shape >> 4 == 15)
        data = place(r);
    put_prdt(r, table, data, len, n);
    poke(r, head, 5u | (packet ? 0x20u : 0) | (write ? 0x40u : 0) | n << 16, 8);
    poke(r, head + 8, table, 8);
    if (op == 0x06) /* a range to trim: sectors 16, where 48 */
        poke(r, data, take_number(&r->g) | (uint64_t)take8(&r->g) << 48, 8);
    d->built[port] |= 1u << slot;
    if (op == 0x60 || op == 0x61)
        d->queued[port] |= 1u << slot;
    if ((shape & 8) == 0) {
        pxw(r, port, SACT, d->queued[port]);
        pxw(r, port, CI, d->built[port]);
        d->built[port] = d->queued[port] = 0;
    }
}

/* Below 128: what was built is issued. Else the port is started again, in one way or another. */
static void ahci_kick(struct rig *r)
{
    struct ahci_driver *d = driver(r);
    uint8_t b = take8(&r->g);
    unsigned port = (b & 1) % d->ports;

    if (b < 0x80) {
        pxw(r, port, SACT, d->queued[port]);
        pxw(r, port, CI, d->built[port]);
        d->built[port] = d->queued[port] = 0;
    } else if (b < 0xC0) {
        port_start(r, port);
    } else if (b < 0xE0) { /* COMRESET */
        pxw(r, port, CMD, 0x10);
        pxw(r, port, SCTL, 0x301);
        pxw(r, port, SCTL, 0x300);
        port_start(r, port);
    } else { /* the software's reset: two FISes, with SRST and without */
        for (unsigned i = 0; i < 2; i++) {
            poke(r, TABLE(port, 0), 0x27, 8);
            poke(r, TABLE(port, 0) + 8, 0, 8);
            poke(r, TABLE(port, 0) + 15, i == 0 ? 4 : 0, 1);
            poke(r, LIST(port), i == 0 ? 0x505 : 5, 8);
            poke(r, LIST(port) + 8, TABLE(port, 0), 8);
            pxw(r, port, CI, 1);
        }
    }
}

/* IDENTIFY, by each port. */
static void ahci_works(struct rig *r)
{
    bar_out(r, BAR, 4, 4, 2);
    for (unsigned p = 0; p < driver(r)->ports; p++) {
        uint8_t fis[20] = {0x27, 0x80, driver(r)->cd[p] ? 0xA1 : 0xEC, [7] = 0x40};

        port_start(r, p);
        guest_bytes(r->m.mem, TABLE(p, 0), fis, sizeof(fis));
        put_prdt(r, TABLE(p, 0), DATA, 512, 1);
        poke(r, LIST(p), 5u | 1u << 16, 8);
        poke(r, LIST(p) + 8, TABLE(p, 0), 8);
        poke(r, DATA, 0, 2);
        pxw(r, p, CI, 1);
        check(px(r, p, CI) == 0);
        check(px(r, p, TFD) == 0x50);
        check(guest_get(r->m.mem, DATA, 2) == (driver(r)->cd[p] ? 0x85C0 : 0x0040));
    }
}

static const struct target targets[] = {
#define TARGET(ops_, options_)                                                                     \
    {                                                                                              \
        .ops = (ops_), .options = (options_), .main_bar = BAR, .regs = regs,                       \
        .reg_count = countof(regs), .places = places, .place_count = countof(places),              \
        .begin = ahci_begin, .request = ahci_request, .kick = ahci_kick, .works = ahci_works       \
    }
    TARGET(&ahci_hd_ops, "x"),
    TARGET(&ahci_cd_ops, "x"),
    TARGET(&ahci_ops, "hd:x,cd:x"),
#undef TARGET
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct program g = {data, data + len};
    uint8_t how = take8(&g);
    unsigned which = (how & 3) % countof(targets);
    struct ahci_driver d = {.ports = which == 2 ? 2 : 1, .cd = {which == 1, which == 2}};

    disks_like(which == 0 && (how & 12) == 12, (how & 8) != 0, (how & 48) == 48, (how & 64) == 0);
    rig_run(&targets[which], &g, &d);
    return 0;
}
