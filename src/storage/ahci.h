/*
 * An AHCI 1.3.1 host bus adapter: what ahci.c (the device), ahci_options.c (its ports' options),
 * ahci_regs.c (registers, resets, interrupts) and ahci_port.c (command lists, FISes) share.
 *
 * All of it is guarded by env->lock. A port's commands are under way in the block layer from
 * ahci_port_run until port_done; whatever stops a port waits for them (block_drain), so that no
 * memory of the guest's changes after it was told that the port stands.
 */
#ifndef STORAGE_AHCI_H
#define STORAGE_AHCI_H

#include "pci/pci.h"
#include "storage/ata.h"

#define AHCI_PORTS 32u
#define AHCI_SLOTS 32u
#define AHCI_BAR 5u
#define AHCI_BAR_SIZE 0x2000u
#define AHCI_PORT_BASE 0x100u
#define AHCI_PORT_SIZE 0x80u

/* Generic host control. */
#define GHC_CAP 0x00u
#define GHC_GHC 0x04u
#define GHC_IS 0x08u
#define GHC_PI 0x0Cu
#define GHC_VS 0x10u

#define CAP_S64A 0x80000000u
#define CAP_SNCQ 0x40000000u
#define CAP_SCLO 0x01000000u
#define CAP_SAM 0x00040000u /* AHCI only, there are no task file ports */
#define CAP_PMD 0x00008000u
#define CAP_ISS_SHIFT 20
#define CAP_NCS_SHIFT 8

#define GHC_AE 0x80000000u
#define GHC_IE 0x00000002u
#define GHC_HR 0x00000001u

/* Ports. */
#define PX_CLB 0x00u
#define PX_CLBU 0x04u
#define PX_FB 0x08u
#define PX_FBU 0x0Cu
#define PX_IS 0x10u
#define PX_IE 0x14u
#define PX_CMD 0x18u
#define PX_TFD 0x20u
#define PX_SIG 0x24u
#define PX_SSTS 0x28u
#define PX_SCTL 0x2Cu
#define PX_SERR 0x30u
#define PX_SACT 0x34u
#define PX_CI 0x38u

#define IS_DHRS 0x00000001u
#define IS_PSS 0x00000002u
#define IS_SDBS 0x00000008u
#define IS_UFS 0x00000010u  /* reflects SERR.DIAG.F */
#define IS_PCS 0x00000040u  /* reflects SERR.DIAG.X */
#define IS_PRCS 0x00400000u /* reflects SERR.DIAG.N */
#define IS_OFS 0x01000000u
#define IS_IFS 0x08000000u
#define IS_HBFS 0x20000000u
#define IS_TFES 0x40000000u
#define IE_MASK 0xFDC000FFu

#define CMD_ST 0x00000001u
#define CMD_SUD 0x00000002u
#define CMD_POD 0x00000004u
#define CMD_CLO 0x00000008u
#define CMD_FRE 0x00000010u
#define CMD_CCS_SHIFT 8
#define CMD_FR 0x00004000u
#define CMD_CR 0x00008000u
#define CMD_ATAPI 0x01000000u
#define CMD_DLAE 0x02000000u

#define SERR_E 0x00000800u      /* internal error */
#define SERR_P 0x00000400u      /* protocol */
#define SERR_DIAG_N 0x00010000u /* PhyRdy changed */
#define SERR_DIAG_H 0x00400000u /* handshake: the device has refused a FIS */
#define SERR_DIAG_F 0x02000000u
#define SERR_DIAG_X 0x04000000u

#define TFD_NONE 0x7Fu /* before the device has said anything */

/* In the area of received FISes. */
#define FIS_AREA 256u
#define FIS_DMA_SETUP 0x00u
#define FIS_PIO_SETUP 0x20u
#define FIS_D2H 0x40u
#define FIS_SDB 0x58u

struct ahci;
struct ahci_port;

struct ahci_slot {
    struct ata_command c;
    struct ahci_port *port;
    uint64_t header, table; /* addresses in guest memory */
    uint32_t prdtl;
    uint64_t *gpa; /* of each iov, for gmem_written */
    struct iovec *iov;
    unsigned room;
};

struct ahci_port {
    struct ahci *hba;
    unsigned index;
    struct ata_device *dev; /* NULL: nothing is plugged in */

    uint64_t clb, fb;
    uint32_t is, ie, cmd, tfd, sig, ssts, sctl, serr, sact, ci;
    bool halted;     /* after an error, until ST is cleared */
    bool fis_waits;  /* the first D2H FIS after a reset came while FRE was clear */
    bool soft_reset; /* a FIS with SRST was seen */
    uint8_t last;    /* slot that was issued last */
    int8_t current;  /* slot of the command that is not queued, -1: none */

    uint32_t busy; /* slots whose command is under way; none while saved */
    bool dropping; /* what ends now is nobody's */
    bool running;  /* inside ahci_port_run */
    struct ahci_slot slot[AHCI_SLOTS];
};

struct ahci {
    struct dev_env *env;
    struct pci_func *f;
    unsigned ports;
    uint32_t ghc, is;
    struct ahci_port *port; /* `ports` of them */
    struct timer *kick;     /* due at once: ports with something to issue (ahci_port_kick) */
};

/* ---- ahci.c: the options of one disk or drive ---- */
extern const struct dev_option ahci_port_options[];
extern const size_t ahci_port_option_count;

/* ---- ahci_options.c ---- */
#define AHCI_KEY_PORT "port"
int ahci_options_parse(struct config *node, const char *text, const char *what, struct error *err);
int ahci_options_check(const struct config *node, const char *what, struct error *err);

/* ---- ahci_regs.c ---- */
uint64_t ahci_bar_read(void *dev, unsigned bar, uint64_t offset, unsigned size);
void ahci_bar_write(void *dev, unsigned bar, uint64_t offset, unsigned size, uint64_t value);
void ahci_reset(struct ahci *a, bool power_on);
/* After PxIS, PxIE, PxSERR, IS or GHC.IE has changed. */
void ahci_interrupt(struct ahci *a);
/* The wire as IS says, no message: after a snapshot was loaded. */
void ahci_restore_line(struct ahci *a);

/* ---- ahci_port.c ---- */
extern const struct ata_host ahci_host;
/*
 * Issues what is in PxCI, as far as the device takes it. Never inside a request's `done`, where the
 * block layer cannot be waited for, as resets and trays do: what is to go on there is kicked.
 */
void ahci_port_run(struct ahci_port *p);
void ahci_kicked(void *ctx);
/* Waits for what is under way. drop: its ends are not told to the guest. */
void ahci_port_drain(struct ahci_port *p, bool drop);
/* The device's answer to a reset, as registers and FIS. */
void ahci_port_signature(struct ahci_port *p);
void ahci_port_post_waiting(struct ahci_port *p);
/* An error that stops the port: PxIS and PxSERR bits. */
void ahci_port_fatal(struct ahci_port *p, uint32_t is, uint32_t serr);

#endif
