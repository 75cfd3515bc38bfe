# ACPI fixed hardware: PM1a event block 0x400, control 0x404, SMI command 0xB2 (ACPI specification)
device acpipm

inw 0x400 = 0
inw 0x402 = 0
inw 0x404 = 0
inb 0xb2 = 0

# the firmware's part: SCI_EN by the SMI port
outb 0xb2 0xa0
inw 0x404 = 1
inb 0xb2 = 0xa0
outb 0xb2 0xa1
inw 0x404 = 0
outb 0xb2 0x55                # no such command
inw 0x404 = 0
expect log guest 1
outb 0xb2 0xa0

# enable register: only the events there are; bytes work
outw 0x402 0xffff
inw 0x402 = 0x4721
outb 0x403 0
inw 0x402 = 0x0021
outb 0x402 0
outb 0x403 1
inw 0x402 = 0x0100
inb 0x403 = 1
inl 0x400 = 0x01000000
outl 0x400 0x0200ffff         # status and enable at once
inl 0x400 = 0x02000000
inw 0x400 = 0                 # writing ones does not set
expect irq 9 0

# control: SLP_EN and GBL_RLS read as zero
outw 0x404 0x0007
inw 0x404 = 3
outw 0x404 0x1c01
inw 0x404 = 0x1c01
expect none

# sleep: only type 5, when SLP_EN is set
outw 0x404 0x1401
expect none
outw 0x404 0x3401
expect event poweroff
inw 0x404 = 0x1401
outw 0x404 0x0c01
outb 0x405 0x34               # bytewise
expect event poweroff
outw 0x404 0x2401             # type 1: not there
expect none
expect log guest 1

reset
inw 0x402 = 0
inw 0x404 = 0
