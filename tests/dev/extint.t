# The PIC's output at the I/O APIC's pin 0, as an ExtINT message (virtual wire by the I/O APIC)
device i8259
device ioapic

outb 0x20 0x11                # initialise the first PIC: vectors from 0x30
outb 0x21 0x30
outb 0x21 0x04
outb 0x21 0x01
outb 0x21 0xef                # only IRQ 4

writel 0xfec00000 0x10
writel 0xfec00010 0x0700      # pin 0: ExtINT, unmasked
writel 0xfec00000 0x18
writel 0xfec00010 0x10034     # pin 4 stays masked
expect none
irq 4 1
expect pic 1
expect msg delivery=7 dest=0 level=0
ack = 0x34
expect pic 0
irq 4 0
outb 0x20 0x20
irq 4 1                       # the next rising output is the next message
expect msg delivery=7
ack = 0x34
outb 0x20 0x20
irq 4 0

# level at both: the PIC masked, the same line through pin 4
outb 0x21 0xff
writel 0xfec00000 0x18
writel 0xfec00010 0x8034
irq 4 1
expect msg vector=0x34 delivery=0 level=1
expect pic 0
irq 4 0
writel 0xfec00040 0x34
expect none

# automatic EOI: INT falls with each INTA, so the request that is left is a new edge, in a poll too
outb 0x20 0x11
outb 0x21 0x30
outb 0x21 0x04
outb 0x21 0x03
writel 0xfec00000 0x18
writel 0xfec00010 0x10034
irq 4 1
expect msg delivery=7
irq 3 1
irq 5 1
expect none
ack = 0x33
expect msg delivery=7
ack = 0x34
expect msg delivery=7
outb 0x20 0x0c
inb 0x20 = 0x85
expect none
expect pic 0
irq 3 0
irq 4 0
irq 5 0
