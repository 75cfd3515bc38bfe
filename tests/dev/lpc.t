# The ISA bridge routes PIRQs to the PIC; the IOAPIC sees them on GSI 16-23 in any case
device i8259
outb 0x20 0x11
outb 0x21 0x20
outb 0x21 4
outb 0x21 1
outb 0xa0 0x11
outb 0xa1 0x28
outb 0xa1 2
outb 0xa1 1
outb 0x21 0
outb 0xa1 0
outb 0x4d0 0xa0                   # level: IRQ 5 and 7,
outb 0x4d1 0x8c                   # 10, 11, 15
pci 2 uart
pci 31 lpc
assign
cfgrl 31 0 = 0x70008086
cfgrl 31 8 = 0x06010000
cfgrl 31 0x60 = 0x0f050b0a
cfgrl 31 0x68 = 0x0f050b0a
cfgrb 2 0x3c = 5                  # slot 2 pin A: PIRQ C, IRQ 5, GSI 18
outb 0x2004 8
expect pic 0
outb 0x2001 2
expect irq 18 1
expect pic 1
ack = 0x25
inb 0x2002 = 2
outb 0x20 0x20
expect pic 0
outb 0x2001 0
outb 0x2001 2                     # again; now it moves while it is high
expect pic 1
cfgwb 31 0x62 0x8b                # not routed
expect pic 0
expect irq 18 1
cfgwb 31 0x62 0x05
expect pic 1
cfgwb 31 0x62 0x08                # the RTC's: refused
expect log guest 1
expect pic 0
cfgwb 31 0x62 0x77                # reserved bits do not stick
cfgrb 31 0x62 = 0x07
ack = 0x27
cfgwb 31 0x62 0x80
outb 0x20 0x20
expect pic 0
cfgwb 31 0x62 0x0b                # the second PIC
ack = 0x2b
reset
cfgrl 31 0x60 = 0x0f050b0a
expect irq 18 0
expect pic 0
