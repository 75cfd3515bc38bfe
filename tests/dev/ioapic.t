# I/O APIC: 24 pins, version 0x20 (Intel 82093AA and later hubs' EOI register)
device ioapic

# identification
readl 0xfec00000 = 0
readl 0xfec00010 = 0          # id
writel 0xfec00000 1
readl 0xfec00010 = 0x00170020 # 24 entries, version 0x20
writel 0xfec00010 0x12345678  # read-only
readl 0xfec00010 = 0x00170020
writel 0xfec00000 0
writel 0xfec00010 0xff000000  # four bits of id
readl 0xfec00010 = 0x0f000000
writel 0xfec00000 2           # arbitration: a copy
readl 0xfec00010 = 0x0f000000
writel 0xfec00000 0
writel 0xfec00010 0
writeb 0xfec00000 0x10        # a byte selects too
readb 0xfec00000 = 0x10
readl 0xfec00000 = 0x10
readl 0xfec00010 = 0x00010000 # every pin begins masked
readb 0xfec00012 = 1
readl 0xfec00020 = 0xffffffff # nothing there
writel 0xfec00000 0x3f
readl 0xfec00010 = 0
writel 0xfec00000 0x40        # past the last pin
readl 0xfec00010 = 0
expect log guest 0
writel 0xfec00010 1
expect log guest 1
writew 0xfec00010 1           # the window is 32 bits wide
expect log guest 1

# read-only bits of an entry: delivery status and remote IRR; upper half has only the destination
writel 0xfec00000 0x18
writel 0xfec00010 0xffffffff
readl 0xfec00010 = 0x0001afff
writel 0xfec00000 0x19
writel 0xfec00010 0xffffffff
readl 0xfec00010 = 0xff000000

# pin 4, edge, vector 0x34 to APIC 2
writel 0xfec00000 0x19
writel 0xfec00010 0
writel 0xfec00000 0x18
writel 0xfec00010 0x10034
irq 4 1                       # masked: this edge is lost
expect none
writel 0xfec00010 0x34
expect none
irq 4 0
writel 0xfec00000 0x19
writel 0xfec00010 0x02000000
expect none
irq 4 1
expect msg vector=0x34 dest=2 delivery=0 logical=0 level=0 assert=1
irq 4 1                       # no new edge
expect none
irq 4 0
expect none
irq 4 1                       # edges need no EOI
expect msg vector=0x34
irq 4 0

# pin 16, level, logical destination 3, lowest priority
writel 0xfec00000 0x31
writel 0xfec00010 0x03000000
writel 0xfec00000 0x30
writel 0xfec00010 0xa951      # low active: kept, and ignored
readl 0xfec00010 = 0xa951
expect none
irq 16 1
expect msg vector=0x51 dest=3 delivery=1 logical=1 level=1
readl 0xfec00010 = 0xe951     # remote IRR
irq 16 0
irq 16 1                      # waits for the EOI
expect none
writel 0xfec00040 0x50        # another vector's
readl 0xfec00010 = 0xe951
expect none
writel 0xfec00040 0x51        # still high: again
expect msg vector=0x51 level=1
readl 0xfec00010 = 0xe951
irq 16 0
writel 0xfec00040 0x51
expect none
readl 0xfec00010 = 0xa951
irq 16 1
expect msg vector=0x51

# while masked the line waits, unmasking sends
writel 0xfec00010 0x1a951
writel 0xfec00040 0x51
readl 0xfec00010 = 0x1a951
expect none
writel 0xfec00010 0xa951
expect msg vector=0x51
readl 0xfec00010 = 0xe951
writel 0xfec00010 0xa951      # a write does not clear remote IRR ...
readl 0xfec00010 = 0xe951
expect none
writel 0xfec00010 0x12951     # ... but edge triggering does, and back again it sends
readl 0xfec00010 = 0x12951
writel 0xfec00010 0xa951
expect msg vector=0x51
irq 16 0
writel 0xfec00040 0x51

# one vector on two pins: one EOI for both
writel 0xfec00000 0x32
writel 0xfec00010 0x8051
irq 16 1
irq 17 1
expect msg dest=3
expect msg dest=0
irq 16 0
writel 0xfec00040 0x51
expect msg dest=0
irq 17 0
writel 0xfec00040 0x51
expect none

# NMI, INIT and SMI are edges whatever the trigger bit says
writel 0xfec00010 0x8400
irq 17 1
expect msg delivery=4 level=0
readl 0xfec00010 = 0x8400
irq 17 0
writel 0xfec00010 0x8500
irq 17 1
expect msg delivery=5 level=0 assert=1
irq 17 0
writel 0xfec00010 0x0200
irq 17 1
expect msg delivery=2
irq 17 0
writel 0xfec00010 0x0351      # reserved
irq 17 1
expect none
expect log guest 1
irq 17 0

# every index: 0-2 and 24 pairs, and nothing beyond
writel 0xfec00000 0x3e
readl 0xfec00010 = 0x00010000
writel 0xfec00010 0x00010077  # the last pin
writel 0xfec00000 0x3f
writel 0xfec00010 0x12345678
readl 0xfec00010 = 0x12000000
writel 0xfec00000 0x3e
readl 0xfec00010 = 0x00010077
irq 23 1
expect none
irq 23 0
writel 0xfec00010 0x00000077
irq 23 1
expect msg vector=0x77 dest=0x12
irq 23 0
writel 0xfec00000 0x03
readl 0xfec00010 = 0
writel 0xfec00010 1
expect log guest 1
writel 0xfec00000 0xff
readl 0xfec00010 = 0
writel 0xfec00010 1
expect log guest 1
writel 0xfec00000 0xfffffe32  # eight bits of index
readl 0xfec00000 = 0x32
readw 0xfec00000 = 0x32
readq 0xfec00000 = 0x32
writeb 0xfec00011 1           # nothing inside the window ...
writel 0xfec00014 1           # ... and nothing beside it
expect log guest 2
readl 0xfec00040 = 0          # the EOI register is for writing

# reserved bits of an entry read as zero: the upper half's, and 17-31
writel 0xfec00010 0xfffeafff
readl 0xfec00010 = 0x0000afff
writel 0xfec00010 0x10000
writel 0xfec00000 0x33
writel 0xfec00010 0x00ffffff
readl 0xfec00010 = 0
writel 0xfec00010 0
writel 0xfec00000 0x32

# an edge pin: the wire's level does not matter, not after an unmask and not after an EOI
irq 17 1
expect none
writel 0xfec00010 0x54
expect none
writel 0xfec00040 0x54
expect none
writel 0xfec00010 0x8054      # but as a level it does
expect msg vector=0x54 level=1
irq 17 0
readl 0xfec00010 = 0xc054     # remote IRR waits for the EOI, not for the wire
writel 0xfec00010 0x18054
readl 0xfec00010 = 0x1c054
writel 0xfec00040 0x54
readl 0xfec00010 = 0x18054
# a level that comes and goes while masked has no effect
irq 17 1
irq 17 0
writel 0xfec00010 0x8054
expect none
irq 17 1
expect msg vector=0x54
writel 0xfec00010 0x8055      # another vector meanwhile: the old one's EOI is not for it
writel 0xfec00040 0x54
readl 0xfec00010 = 0xc055
expect none
writel 0xfec00040 0x55
expect msg vector=0x55
# a mode that knows no levels clears remote IRR as edge triggering does
writel 0xfec00010 0x18400
readl 0xfec00010 = 0x18400
irq 17 0
writel 0xfec00010 0x10000
expect none

# the ISA timer's line is pin 2
writel 0xfec00000 0x14
writel 0xfec00010 0x30
irq 0 1
expect msg vector=0x30
irq 0 0

# reset masks all and keeps the wires
writel 0xfec00000 0x30
irq 16 1
expect msg vector=0x51
reset
readl 0xfec00000 = 0
writel 0xfec00000 0x30
readl 0xfec00010 = 0x10000
writel 0xfec00010 0x8052
expect msg vector=0x52 level=1

# remote IRR is the chip's, not the guest's
writel 0xfec00000 0x36
writel 0xfec00010 0x1c060
readl 0xfec00010 = 0x18060
