/*
 * A port at work: headers of the command list are copied and judged, the command FIS goes to the
 * device, its answers come back as FISes in guest memory. AHCI 1.3.1, command list and port states.
 *
 * Whatever the guest gets wrong stops its port, with the error bit that a host adapter has for it,
 * until the guest restarts it.
 */
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "mem/gmem.h"
#include "storage/ahci.h"

#define HEADER_SIZE 32u
#define HDR_CFL 0x1Fu
#define HDR_ATAPI 0x20u
#define CFIS_MAX 64u
#define CFIS_DWORDS 5u /* a register FIS */
#define ACMD_OFFSET 0x40u
#define PRDT_OFFSET 0x80u
#define PRD_SIZE 16u
#define PRD_BATCH 64u

#define FIS_TYPE_H2D 0x27u
#define FIS_TYPE_D2H 0x34u
#define FIS_TYPE_SDB 0xA1u
#define FIS_TYPE_DMA_SETUP 0x41u
#define FIS_TYPE_PIO_SETUP 0x5Fu
#define FIS_COMMAND 0x80u /* H2D: the command register was written, not the control register */
#define FIS_I 0x40u
#define FIS_D 0x20u
#define CONTROL_SRST 0x04u

void ahci_port_fatal(struct ahci_port *p, uint32_t is, uint32_t serr)
{
    p->is |= is;
    p->serr |= serr;
    p->halted = true;
    ahci_interrupt(p->hba);
}

/* ---- FISes to the guest ---- */

static bool post(struct ahci_port *p, unsigned offset, const uint8_t *fis, size_t len)
{
    if ((p->cmd & CMD_FR) == 0)
        return true; /* nobody receives */
    if (gmem_write(p->hba->env->mem, p->fb + offset, fis, len) == 0)
        return true;
    log_guest(p->hba->env, "port %u: the FIS area at %#llx is not in memory", p->index,
              (unsigned long long)p->fb);
    ahci_port_fatal(p, IS_HBFS, SERR_E);
    return false;
}

static void put_regs(uint8_t *fis, const struct ata_regs *r)
{
    fis[2] = r->status;
    fis[3] = r->error;
    fis[7] = r->device;
    for (unsigned i = 0; i < 3; i++) {
        fis[4 + i] = (uint8_t)(r->lba >> 8 * i);
        fis[8 + i] = (uint8_t)(r->lba >> (24 + 8 * i));
    }
    le16_store(fis + 12, r->count);
}

static void post_d2h(struct ahci_port *p, const struct ata_regs *r, bool interrupt)
{
    uint8_t fis[20] = {FIS_TYPE_D2H, interrupt ? FIS_I : 0};

    put_regs(fis, r);
    if (post(p, FIS_D2H, fis, sizeof(fis)) && interrupt)
        p->is |= IS_DHRS;
}

static void post_pio_setup(struct ahci_port *p, const struct ata_command *c)
{
    bool in = c->protocol == ATA_PIO_IN;
    uint8_t fis[20] = {FIS_TYPE_PIO_SETUP, in ? FIS_D | FIS_I : 0};

    put_regs(fis, &c->out);
    fis[2] = ATA_READY | ATA_DRQ;
    fis[15] = c->out.status; /* after the data */
    le16_store(fis + 16, (uint16_t)min_u64(c->len, 0xFFFE));
    if (post(p, FIS_PIO_SETUP, fis, sizeof(fis)) && in)
        p->is |= IS_PSS;
}

static void post_dma_setup(struct ahci_port *p, const struct ata_command *c)
{
    uint8_t fis[28] = {FIS_TYPE_DMA_SETUP, c->protocol == ATA_DMA_IN ? FIS_D : 0};

    le32_store(fis + 4, c->tag);
    le32_store(fis + 20, (uint32_t)c->len);
    post(p, FIS_DMA_SETUP, fis, sizeof(fis));
}

/* Set device bits: queued commands end by it. An error keeps its bit in PxSACT. */
static void post_sdb(struct ahci_port *p, const struct ata_command *c)
{
    uint8_t fis[8] = {FIS_TYPE_SDB, FIS_I, c->out.status & 0x77, c->out.error};
    bool failed = (c->out.status & ATA_ERR) != 0;

    if (!failed)
        le32_store(fis + 4, 1u << c->tag);
    if (!post(p, FIS_SDB, fis, sizeof(fis)))
        return;
    if (!failed)
        p->sact &= ~(1u << c->tag);
    p->tfd = (p->tfd & (ATA_BSY | ATA_DRQ)) | (c->out.status & 0x77u) | (uint32_t)c->out.error << 8;
    p->is |= IS_SDBS;
}

void ahci_port_signature(struct ahci_port *p)
{
    const uint8_t *s = p->dev->ops->signature;
    struct ata_regs r;

    ata_signature(p->dev, &r);
    p->sig = be32_load(s);
    p->tfd = r.status | (uint32_t)r.error << 8;
    p->fis_waits = true;
    ahci_port_post_waiting(p);
}

void ahci_port_post_waiting(struct ahci_port *p)
{
    struct ata_regs r;

    if (!p->fis_waits || p->dev == NULL || (p->cmd & CMD_FR) == 0)
        return;
    p->fis_waits = false;
    ata_signature(p->dev, &r);
    post_d2h(p, &r, false);
}

/* ---- memory of a command ---- */

static void slot_free(struct ahci_slot *s)
{
    struct gmem *mem = s->port->hba->env->mem;

    if (s->c.protocol == ATA_PIO_IN || s->c.protocol == ATA_DMA_IN)
        for (unsigned i = 0; i < s->c.iov_count; i++)
            gmem_written(mem, s->gpa[i], s->iov[i].iov_len);
    free(s->gpa);
    free(s->iov);
    s->gpa = NULL;
    s->iov = NULL;
    s->c.iov = NULL;
    s->c.iov_count = s->room = 0;
    s->port->busy &= ~(1u << s->c.tag);
    if (s->port->current == (int)s->c.tag)
        s->port->current = -1;
}

/* Pieces that follow each other become one. At most 65535 pieces, as long as a table may be. */
static bool piece_add(struct ahci_slot *s, uint64_t gpa, uint8_t *hva, size_t len)
{
    unsigned n = s->c.iov_count;

    if (n != 0 && s->gpa[n - 1] + s->iov[n - 1].iov_len == gpa &&
        (uint8_t *)s->iov[n - 1].iov_base + s->iov[n - 1].iov_len == hva) {
        s->iov[n - 1].iov_len += len;
        return true;
    }
    if (n == s->room) {
        unsigned room = s->room != 0 ? 4 * s->room : 16;
        struct iovec *iov = realloc(s->iov, room * sizeof(*iov));
        uint64_t *gpas;

        if (iov == NULL)
            return false;
        s->iov = iov;
        gpas = realloc(s->gpa, room * sizeof(*gpas));
        if (gpas == NULL)
            return false;
        s->gpa = gpas;
        s->room = room;
    }
    s->iov[n] = (struct iovec){hva, len};
    s->gpa[n] = gpa;
    s->c.iov_count = n + 1;
    return true;
}

enum mapped { MAPPED, MAP_SHORT, MAP_NO_RAM, MAP_NO_MEMORY };

/* One entry of the table: at most *left bytes of it. */
static enum mapped map_entry(struct ahci_slot *s, const uint8_t *prd, uint64_t *left)
{
    uint64_t gpa = le64_load(prd) & ~1ull;
    size_t len = (le32_load(prd + 12) & 0x3FFFFF) + 1;
    uint8_t *hva;

    len = (size_t)min_u64((len + 1) & ~1ull, *left); /* an even number of bytes, always */
    hva = gmem_ptr(s->port->hba->env->mem, gpa, len);
    if (hva == NULL) {
        log_guest(s->port->hba->env, "port %u: data of slot %u at %#llx (%zu bytes) is not in RAM",
                  s->port->index, s->c.tag, (unsigned long long)gpa, len);
        return MAP_NO_RAM;
    }
    *left -= len;
    return piece_add(s, gpa, hva, len) ? MAPPED : MAP_NO_MEMORY;
}

static enum mapped map_table(struct ahci_slot *s, uint64_t left)
{
    struct gmem *mem = s->port->hba->env->mem;
    uint8_t batch[PRD_BATCH * PRD_SIZE];

    for (uint32_t i = 0; i < s->prdtl && left != 0; i += PRD_BATCH) {
        uint32_t n = s->prdtl - i < PRD_BATCH ? s->prdtl - i : PRD_BATCH;

        /* Less than a batch may lie before the end of RAM: the entries that count are in it. */
        while (n > 1 && gmem_ptr_ro(mem, s->table + PRDT_OFFSET + (uint64_t)i * PRD_SIZE,
                                    n * PRD_SIZE) == NULL)
            n--;
        if (gmem_read(mem, s->table + PRDT_OFFSET + (uint64_t)i * PRD_SIZE, batch, n * PRD_SIZE) !=
            0) {
            log_guest(s->port->hba->env, "port %u: the table of slot %u is not in memory",
                      s->port->index, s->c.tag);
            return MAP_NO_RAM;
        }
        for (uint32_t k = 0; k < n && left != 0; k++) {
            enum mapped m = map_entry(s, batch + k * PRD_SIZE, &left);

            if (m != MAPPED)
                return m;
        }
        if (n < PRD_BATCH && left != 0 && i + n < s->prdtl)
            return MAP_NO_RAM;
    }
    return left == 0 ? MAPPED : MAP_SHORT;
}

static bool port_map(struct ata_command *c, uint64_t len)
{
    struct ahci_slot *s = container_of(c, struct ahci_slot, c);
    struct ahci_port *p = s->port;
    enum mapped m = map_table(s, len);

    if (m == MAPPED) {
        c->iov = s->iov;
        return true;
    }
    c->protocol = ATA_NO_DATA; /* nothing was written */
    slot_free(s);
    if (m == MAP_SHORT) {
        log_guest(p->hba->env, "port %u: the table of slot %u has room for less than %llu bytes",
                  p->index, c->tag, (unsigned long long)len);
        ahci_port_fatal(p, IS_OFS, 0);
    } else {
        if (m == MAP_NO_MEMORY)
            log_error(p->hba->env->log, "%s: no memory for a command", p->hba->env->name);
        ahci_port_fatal(p, IS_HBFS, SERR_E);
    }
    return false;
}

/* ---- the end of a command ---- */

static void port_done(struct ata_command *c)
{
    struct ahci_slot *s = container_of(c, struct ahci_slot, c);
    struct ahci_port *p = s->port;
    bool failed = (c->out.status & ATA_ERR) != 0;
    uint8_t moved[4];

    slot_free(s);
    if (p->dropping || p->halted) {
        if (!c->queued) /* the device is free again, whoever hears of it */
            p->tfd = c->out.status | (uint32_t)c->out.error << 8;
        return;
    }
    if (c->queued) {
        if (!failed)
            post_dma_setup(p, c);
        post_sdb(p, c);
    } else {
        le32_store(moved, (uint32_t)c->len);
        p->tfd = c->out.status | (uint32_t)c->out.error << 8;
        if (gmem_write(p->hba->env->mem, s->header + 4, moved, sizeof(moved)) != 0)
            ahci_port_fatal(p, IS_HBFS, SERR_E);
        if (c->len != 0 && (c->protocol == ATA_PIO_IN || c->protocol == ATA_PIO_OUT))
            post_pio_setup(p, c);
        /* A read by PIO has said all in the setup FIS; packets end with registers, too. */
        if (failed || c->protocol != ATA_PIO_IN || c->in.command == ATA_PACKET)
            post_d2h(p, &c->out, true);
        if (!failed && !p->halted)
            p->ci &= ~(1u << c->tag);
    }
    if (failed) {
        p->is |= IS_TFES;
        p->halted = true;
    }
    ahci_interrupt(p->hba);
    if (p->ci != 0 && !p->running)
        timer_set(p->hba->kick, clock_now(p->hba->env));
}

const struct ata_host ahci_host = {.map = port_map, .done = port_done};

/* ---- the beginning of a command ---- */

static void get_regs(const uint8_t *fis, struct ata_regs *r)
{
    memset(r, 0, sizeof(*r));
    r->command = fis[2];
    r->feature = (uint16_t)(fis[3] | fis[11] << 8);
    r->device = fis[7];
    for (unsigned i = 0; i < 3; i++)
        r->lba |= (uint64_t)fis[4 + i] << 8 * i | (uint64_t)fis[8 + i] << (24 + 8 * i);
    r->count = le16_load(fis + 12);
}

/* The control register: SRST set, and cleared again, resets the device. */
static void control(struct ahci_port *p, unsigned slot, const uint8_t *fis)
{
    p->ci &= ~(1u << slot);
    if ((fis[15] & CONTROL_SRST) != 0) {
        p->soft_reset = true;
        return;
    }
    if (!p->soft_reset)
        return;
    p->soft_reset = false;
    if (p->busy != 0)
        ahci_port_drain(p, true);
    p->dev->ops->reset(p->dev, false);
    ahci_port_signature(p);
}

/* Header, table and FIS, each copied once. False: the port has been stopped. */
static bool fetch(struct ahci_port *p, struct ahci_slot *s, uint8_t cfis[CFIS_MAX])
{
    struct gmem *mem = p->hba->env->mem;
    uint8_t header[HEADER_SIZE];
    unsigned slot = s->c.tag;
    const char *what = "the command list";

    s->header = p->clb + slot * HEADER_SIZE;
    if (gmem_read(mem, s->header, header, sizeof(header)) != 0)
        goto no_memory;
    s->prdtl = le16_load(header + 2);
    s->table = le64_load(header + 8) & ~(uint64_t)(PRDT_OFFSET - 1);
    what = "the command table";
    if (gmem_read(mem, s->table, cfis, CFIS_MAX) != 0)
        goto no_memory;
    if ((header[0] & HDR_CFL) < CFIS_DWORDS || (header[0] & HDR_CFL) > CFIS_MAX / 4 ||
        cfis[0] != FIS_TYPE_H2D) {
        log_guest(p->hba->env, "port %u: slot %u holds no register FIS (type %#x, %u dwords)",
                  p->index, slot, cfis[0], header[0] & HDR_CFL);
        ahci_port_fatal(p, IS_IFS, SERR_P | SERR_DIAG_H);
        return false;
    }
    memset(s->c.packet, 0, sizeof(s->c.packet));
    if ((header[0] & HDR_ATAPI) != 0 &&
        gmem_read(mem, s->table + ACMD_OFFSET, s->c.packet, sizeof(s->c.packet)) != 0)
        goto no_memory;
    if (cfis[2] == ATA_PACKET && (cfis[1] & FIS_COMMAND) != 0 && (header[0] & HDR_ATAPI) == 0) {
        log_guest(p->hba->env, "port %u: slot %u has a PACKET command without a packet", p->index,
                  slot);
        ahci_port_fatal(p, IS_IFS, SERR_P);
        return false;
    }
    return true;
no_memory:
    log_guest(p->hba->env, "port %u: %s of slot %u is not in memory", p->index, what, slot);
    ahci_port_fatal(p, IS_HBFS, SERR_E);
    return false;
}

static void issue(struct ahci_port *p, unsigned slot)
{
    struct ahci_slot *s = &p->slot[slot];
    uint8_t cfis[CFIS_MAX];

    p->last = (uint8_t)slot;
    p->cmd = (p->cmd & ~(0x1Fu << CMD_CCS_SHIFT)) | slot << CMD_CCS_SHIFT;
    if (!pci_bus_master(p->hba->f)) {
        log_guest(p->hba->env, "port %u: a command while bus mastering is off", p->index);
        ahci_port_fatal(p, IS_HBFS, SERR_E);
        return;
    }
    if (!fetch(p, s, cfis))
        return;
    if ((cfis[1] & FIS_COMMAND) == 0) {
        control(p, slot, cfis);
        return;
    }
    s->c.dev = p->dev;
    s->c.aborted = false;
    s->c.protocol = ATA_NO_DATA;
    s->c.len = 0;
    get_regs(cfis, &s->c.in);
    s->c.queued = p->dev->ops->queued(s->c.in.command);
    p->busy |= 1u << slot;
    if (s->c.queued) { /* the device has it, and can take the next */
        p->ci &= ~(1u << slot);
    } else {
        p->current = (int8_t)slot;
        p->tfd = (p->tfd & ~(uint32_t)(ATA_DRQ | ATA_ERR)) | ATA_BSY;
    }
    p->dev->ops->execute(p->dev, &s->c);
}

static bool may_issue(const struct ahci_port *p)
{
    return p->dev != NULL && (p->cmd & CMD_CR) != 0 && !p->halted && !p->dropping &&
           (p->ssts & 0xF) == 3 && (p->tfd & (ATA_BSY | ATA_DRQ)) == 0;
}

/* Slots take turns. A device that has ended a command at once is asked again here, not deeper. */
void ahci_port_run(struct ahci_port *p)
{
    if (p->running || !may_issue(p) || p->ci == 0)
        return;
    p->running = true;
    while (may_issue(p) && p->ci != 0) {
        block_plug(p->dev->block);
        while (may_issue(p) && p->ci != 0) {
            unsigned first = (p->last + 1u) % AHCI_SLOTS;
            uint32_t turned = first == 0 ? p->ci : p->ci >> first | p->ci << (AHCI_SLOTS - first);

            issue(p, (first + (unsigned)__builtin_ctz(turned)) % AHCI_SLOTS);
        }
        block_unplug(p->dev->block); /* one that ends here may be what the others waited for */
    }
    p->running = false;
}

void ahci_kicked(void *ctx)
{
    struct ahci *a = ctx;

    for (unsigned i = 0; i < a->ports; i++)
        ahci_port_run(&a->port[i]);
}

void ahci_port_drain(struct ahci_port *p, bool drop)
{
    if (p->dev == NULL)
        return;
    p->dropping = drop;
    for (unsigned i = 0; drop && i < AHCI_SLOTS; i++)
        if ((p->busy >> i & 1) != 0)
            p->slot[i].c.aborted = true;
    block_drain(p->dev->block);
    p->dropping = false;
}
