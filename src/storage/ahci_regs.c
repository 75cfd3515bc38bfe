/* The host adapter's registers, its resets and interrupts. AHCI 1.3.1, memory registers. */
#include <string.h>

#include "base/bits.h"
#include "storage/ahci.h"

#define VERSION 0x00010301u
#define SSTS_ACTIVE 0x100u
#define SSTS_OFFLINE 0x004u
#define SCTL_DET 0xFu
#define SPEED_MAX 3u /* 6 Gb/s */

/* ---- interrupts ---- */

/* Three bits of PxIS only show what PxSERR holds, and go when that is cleared. */
static uint32_t port_is(const struct ahci_port *p)
{
    uint32_t is = p->is;

    is |= (p->serr & SERR_DIAG_F) != 0 ? IS_UFS : 0;
    is |= (p->serr & SERR_DIAG_X) != 0 ? IS_PCS : 0;
    is |= (p->serr & SERR_DIAG_N) != 0 ? IS_PRCS : 0;
    return is;
}

static void signal_line(struct ahci *a, bool message)
{
    bool level = (a->ghc & GHC_IE) != 0 && a->is != 0;

    pci_intx(a->f, level);
    if (level && message && pci_msi_enabled(a->f))
        pci_msi_send(a->f, 0);
}

/*
 * A port's bit in IS is set while the port has something to tell, also when the guest has just
 * cleared it. A message goes out whenever a bit is newly set.
 */
static void collect(struct ahci *a, bool message)
{
    uint32_t before = a->is;

    for (unsigned i = 0; i < a->ports; i++)
        if ((port_is(&a->port[i]) & a->port[i].ie) != 0)
            a->is |= 1u << i;
    signal_line(a, message || (a->is & ~before) != 0);
}

void ahci_interrupt(struct ahci *a)
{
    collect(a, false);
}

void ahci_restore_line(struct ahci *a)
{
    pci_intx(a->f, (a->ghc & GHC_IE) != 0 && a->is != 0);
}

/* ---- resets ---- */

/* The link is down: commands are lost. */
static void port_down(struct ahci_port *p, uint32_t ssts)
{
    ahci_port_drain(p, true);
    p->ssts = ssts;
    p->tfd = TFD_NONE;
    p->sig = 0xFFFFFFFF;
    p->ci = p->sact = 0;
    p->fis_waits = p->soft_reset = false;
}

/* COMRESET is over: the device has found its way back and says what it is. */
static void port_up(struct ahci_port *p, bool power_on)
{
    uint32_t limit = p->sctl >> 4 & 0xF;

    if (p->dev == NULL)
        return;
    p->ssts = SSTS_ACTIVE | (limit != 0 && limit < SPEED_MAX ? limit : SPEED_MAX) << 4 | 3;
    p->serr |= SERR_DIAG_X;
    p->dev->ops->reset(p->dev, power_on);
    ahci_port_signature(p);
}

static void port_reset(struct ahci_port *p, bool power_on)
{
    port_down(p, 0);
    p->is = p->ie = p->sctl = p->serr = 0;
    p->cmd = CMD_SUD | CMD_POD;
    p->halted = false;
    p->last = AHCI_SLOTS - 1;
    if (power_on)
        p->clb = p->fb = 0; /* GHC.HR leaves them */
    port_up(p, power_on);
}

void ahci_reset(struct ahci *a, bool power_on)
{
    for (unsigned i = 0; i < a->ports; i++)
        port_reset(&a->port[i], power_on);
    a->ghc = GHC_AE;
    a->is = 0;
    ahci_interrupt(a);
}

/* ---- ports ---- */

static void port_start(struct ahci_port *p)
{
    p->cmd = (p->cmd & ~(0x1Fu << CMD_CCS_SHIFT)) | CMD_ST | CMD_CR;
    p->last = AHCI_SLOTS - 1; /* the first to be issued is slot 0 */
    p->halted = false;        /* by a FIS that came while the port stood */
}

static void port_stop(struct ahci_port *p)
{
    ahci_port_drain(p, true);
    p->cmd &= ~(CMD_ST | CMD_CR | 0x1Fu << CMD_CCS_SHIFT);
    p->ci = p->sact = 0;
    p->halted = false;
}

static void write_cmd(struct ahci_port *p, uint32_t value)
{
    uint32_t plain = CMD_ATAPI | CMD_DLAE;

    p->cmd = (p->cmd & ~plain) | (value & plain);
    if ((p->cmd & CMD_ST) != 0 && (value & CMD_ST) == 0)
        port_stop(p);
    if ((value & CMD_CLO) != 0) {
        if ((p->cmd & CMD_ST) == 0)
            p->tfd &= ~(uint32_t)(ATA_BSY | ATA_DRQ);
        else
            log_guest(p->hba->env, "port %u: PxCMD.CLO while the port runs", p->index);
    }
    if ((value & CMD_FRE) != 0) {
        p->cmd |= CMD_FRE | CMD_FR;
        ahci_port_post_waiting(p);
    } else if ((value & CMD_ST) != 0) {
        if ((p->cmd & CMD_FRE) != 0)
            log_guest(p->hba->env, "port %u: PxCMD.FRE is cleared while the port runs", p->index);
    } else {
        p->cmd &= ~(CMD_FRE | CMD_FR);
    }
    if ((value & CMD_ST) != 0 && (p->cmd & CMD_ST) == 0)
        port_start(p);
    ahci_port_run(p);
}

static void write_sctl(struct ahci_port *p, uint32_t value)
{
    uint32_t before = p->sctl & SCTL_DET, det = value & SCTL_DET;

    p->sctl = value & 0xFFF;
    if (det == before)
        return;
    if (det == 1)
        port_down(p, 0);
    else if (det == 4)
        port_down(p, SSTS_OFFLINE);
    else if (det == 0)
        port_up(p, false);
    else
        log_guest(p->hba->env, "port %u: PxSCTL.DET has no value %u", p->index, det);
}

/* Bits can only be set, by the guest, and only while the port is started. */
static void write_ci(struct ahci_port *p, uint32_t value)
{
    if ((p->cmd & CMD_ST) == 0)
        return;
    if ((value & p->busy & ~p->ci) != 0)
        log_guest(p->hba->env, "port %u: slots %#x are issued while they are under way", p->index,
                  value & p->busy & ~p->ci);
    p->ci |= value & ~p->busy;
    ahci_port_run(p);
}

static uint32_t port_read(struct ahci_port *p, unsigned reg)
{
    switch (reg) {
    case PX_CLB:
        return (uint32_t)p->clb;
    case PX_CLBU:
        return (uint32_t)(p->clb >> 32);
    case PX_FB:
        return (uint32_t)p->fb;
    case PX_FBU:
        return (uint32_t)(p->fb >> 32);
    case PX_IS:
        return port_is(p);
    case PX_IE:
        return p->ie;
    case PX_CMD:
        return p->cmd;
    case PX_TFD:
        return p->tfd;
    case PX_SIG:
        return p->sig;
    case PX_SSTS:
        return p->ssts;
    case PX_SCTL:
        return p->sctl;
    case PX_SERR:
        return p->serr;
    case PX_SACT:
        return p->sact;
    case PX_CI:
        return p->ci;
    default:
        return 0; /* no notifications, no switching, no sleep */
    }
}

static uint64_t low_half(uint64_t old, uint32_t v)
{
    return (old & 0xFFFFFFFF00000000) | v;
}

static uint64_t high_half(uint64_t old, uint32_t v)
{
    return (old & 0xFFFFFFFF) | (uint64_t)v << 32;
}

static void port_write(struct ahci_port *p, unsigned reg, uint32_t v)
{
    switch (reg) {
    case PX_CLB:
        p->clb = low_half(p->clb, v & 0xFFFFFC00);
        break;
    case PX_CLBU:
        p->clb = high_half(p->clb, v);
        break;
    case PX_FB:
        p->fb = low_half(p->fb, v & 0xFFFFFF00);
        break;
    case PX_FBU:
        p->fb = high_half(p->fb, v);
        break;
    case PX_IS:
        p->is &= ~v;
        break;
    case PX_IE:
        p->ie = v & IE_MASK;
        break;
    case PX_CMD:
        write_cmd(p, v);
        break;
    case PX_SCTL:
        write_sctl(p, v);
        break;
    case PX_SERR:
        p->serr &= ~v;
        break;
    case PX_SACT:
        if ((p->cmd & CMD_ST) != 0)
            p->sact |= v;
        break;
    case PX_CI:
        write_ci(p, v);
        break;
    default:
        break; /* read-only, or not there */
    }
    ahci_interrupt(p->hba);
}

/* ---- the adapter ---- */

static uint32_t capabilities(const struct ahci *a)
{
    return CAP_S64A | CAP_SNCQ | CAP_SCLO | CAP_SAM | CAP_PMD | SPEED_MAX << CAP_ISS_SHIFT |
           (AHCI_SLOTS - 1) << CAP_NCS_SHIFT | (a->ports - 1);
}

static uint32_t reg_read(struct ahci *a, unsigned reg)
{
    unsigned port = (reg - AHCI_PORT_BASE) / AHCI_PORT_SIZE;

    if (reg >= AHCI_PORT_BASE)
        return port < a->ports ? port_read(&a->port[port], reg % AHCI_PORT_SIZE) : 0;
    switch (reg) {
    case GHC_CAP:
        return capabilities(a);
    case GHC_GHC:
        return a->ghc;
    case GHC_IS:
        return a->is;
    case GHC_PI:
        return (uint32_t)((1ull << a->ports) - 1);
    case GHC_VS:
        return VERSION;
    default:
        return 0;
    }
}

static void reg_write(struct ahci *a, unsigned reg, uint32_t v)
{
    unsigned port = (reg - AHCI_PORT_BASE) / AHCI_PORT_SIZE;

    if (reg >= AHCI_PORT_BASE) {
        if (port < a->ports)
            port_write(&a->port[port], reg % AHCI_PORT_SIZE, v);
        return;
    }
    if (reg == GHC_GHC) {
        bool enabled = (a->ghc & GHC_IE) == 0 && (v & GHC_IE) != 0;

        if ((v & GHC_HR) != 0) {
            ahci_reset(a, false);
            return;
        }
        a->ghc = GHC_AE | (v & GHC_IE);
        collect(a, enabled);
    } else if (reg == GHC_IS) {
        /* What is left, or comes back, is told again: messages have no level. */
        a->is &= ~v;
        collect(a, true);
    }
}

/* Registers in which a zero changes nothing: the bytes that are not written count as zero. */
static bool writes_ones(unsigned reg)
{
    if (reg < AHCI_PORT_BASE)
        return reg == GHC_IS;
    reg %= AHCI_PORT_SIZE;
    return reg == PX_IS || reg == PX_SERR || reg == PX_SACT || reg == PX_CI;
}

uint64_t ahci_bar_read(void *dev, unsigned bar, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    (void)bar;
    for (unsigned done = 0; done < size;) {
        unsigned at = (unsigned)offset + done, skip = at & 3, n = 4 - skip;

        if (n > size - done)
            n = size - done;
        value |= (uint64_t)extract32(reg_read(dev, at & ~3u), 8 * skip, 8 * n) << 8 * done;
        done += n;
    }
    return value;
}

void ahci_bar_write(void *dev, unsigned bar, uint64_t offset, unsigned size, uint64_t value)
{
    (void)bar;
    for (unsigned done = 0; done < size;) {
        unsigned at = (unsigned)offset + done, skip = at & 3, n = 4 - skip, reg = at & ~3u;
        uint32_t mask, v;

        if (n > size - done)
            n = size - done;
        mask = (uint32_t)(bytes_mask(n) << 8 * skip);
        v = (uint32_t)(value >> 8 * done) << 8 * skip & mask;
        if (n < 4 && !writes_ones(reg))
            v |= reg_read(dev, reg) & ~mask;
        reg_write(dev, reg, v);
        done += n;
    }
}
