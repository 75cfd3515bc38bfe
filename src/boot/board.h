/*
 * A plain description of the machine for loaders and tables: what boot/ knows of it. Filled by the
 * VM from its configuration; no device is reachable from here. Addresses are guest-physical.
 */
#ifndef BOOT_BOARD_H
#define BOOT_BOARD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/config.h"
#include "base/log.h"
#include "mem/gmem.h"

#define BOARD_PCI_MAX 256u

#define BOARD_ECAM_BASE 0xE0000000ull
#define BOARD_ECAM_SIZE 0x10000000ull
#define BOARD_PCI32_BASE 0xC0000000ull
#define BOARD_PCI32_END 0xE0000000ull
#define BOARD_PCI64_SIZE (32ull << 30)
#define BOARD_PCI_IO_BASE 0x2000u
#define BOARD_PCI_IO_BASE_TESTDEV 0x3000u /* pc-testdev's interrupt lines are at 0x2000 */
#define BOARD_IOAPIC_BASE 0xFEC00000ull
#define BOARD_LAPIC_BASE 0xFEE00000ull
#define BOARD_HPET_BASE 0xFED00000ull
#define BOARD_SCI_IRQ 9u
#define BOARD_PM1A_EVT 0x400u
#define BOARD_PM1A_CNT 0x404u
#define BOARD_PM_TMR 0x408u
#define BOARD_SMI_CMD 0xB2u
#define BOARD_ACPI_ENABLE 0xA0u
#define BOARD_ACPI_DISABLE 0xA1u
#define BOARD_RESET_PORT 0xCF9u
#define BOARD_PVPANIC_PORT 0x505u
#define BOARD_MP_TABLE 0xF0000ull
#define BOARD_SMBIOS_TABLE 0xF1000ull
#define BOARD_ACPI_TABLE 0xF2400ull

/* One PCI function. Interrupt pin p (1-4) of a slot goes to PIRQ and so to GSI 16 + pirq. */
struct board_pci {
    uint8_t bus, slot, func;
    uint8_t pin;  /* 0 none, 1 INTA ... 4 INTD */
    uint8_t pirq; /* 0-7: PIRQA-PIRQH */
    const char *name;
};

struct board {
    struct gmem *mem;
    struct log *log;
    const struct config *config; /* SMBIOS strings: bios.* system.* board.* chassis.* */
    unsigned cpus;               /* APIC ids 0..cpus-1 */
    unsigned phys_bits;
    bool acpi, mptable, x2apic;
    bool has_lpc; /* ISA bridge present, at .lpc_slot */
    uint8_t lpc_bus, lpc_slot, lpc_func;
    bool com[4]; /* COM1-COM4 exist: 3F8/4, 2F8/3, 3E8/4, 2E8/3 */
    bool ps2;    /* i8042 */
    bool hpet, pvpanic;
    bool pc_testdev;
    uint64_t pci64_base; /* BOARD_PCI64_SIZE bytes; 0: none */
    uint8_t uuid[16];
    const char *name; /* of the VM */
    uint64_t tsc_hz;
    struct board_pci pci[BOARD_PCI_MAX];
    unsigned pci_count;
};

/* Where the I/O ports of PCI devices begin. */
static inline uint16_t board_pci_io_base(const struct board *b)
{
    return b->pc_testdev ? BOARD_PCI_IO_BASE_TESTDEV : BOARD_PCI_IO_BASE;
}

/* The highest bus with a function, 0 without any; there are no bridges that could make more. */
static inline uint8_t board_last_bus(const struct board *b)
{
    uint8_t last = 0;

    for (unsigned i = 0; i < b->pci_count; i++) {
        if (b->pci[i].bus > last)
            last = b->pci[i].bus;
    }
    return last;
}

#endif
