# The PC test device: latches, exit status, interrupt lines, memory behind MMIO
device i8259
device ioapic
device pc-testdev

# ---- latches: two groups of four bytes, by byte, word and dword ----
inl 0xe0 = 0
inl 0xe8 = 0
outl 0xe0 0x44332211
inb 0xe0 = 0x11
inb 0xe1 = 0x22
inb 0xe2 = 0x33
inb 0xe3 = 0x44
inw 0xe1 = 0x3322
outw 0xe2 0xbeef
inl 0xe0 = 0xbeef2211
outb 0xe0 0x99
inl 0xe0 = 0xbeef2299
inl 0xe8 = 0                  # the other group is its own
outb 0xe8 0x01
outb 0xea 0x03
outb 0xeb 0x04
inl 0xe8 = 0x04030001
outw 0xe8 0xaabb
inw 0xe8 = 0xaabb
inl 0xe0 = 0xbeef2299
# a byte at 0xe9 is text, and reading it says that somebody prints it
inb 0xe9 = 0xe9
outb 0xe9 0x41
inb 0xe9 = 0xe9
inl 0xe8 = 0x040341bb
outb 0xf1 0x41

# ---- exit: code * 2 + 1, eight bits of it, however wide the write ----
expect none
outb 0xf4 0
expect event exit 1
outb 0xf4 0x2a
expect event exit 85
outw 0xf4 0x100
expect event exit 1
outl 0xf4 0xffffffff
expect event exit 255
outb 0xf5 3
expect event exit 7
expect none

# ---- flushing takes an address, of four bytes ----
outl 0xe4 0x1234
outl 0xe4 0xfee00000          # not memory: nothing to flush
expect log guest 0
outb 0xe4 0
expect log guest 1
pokel 0x1234 0x12345678
outl 0xe4 0x1234
peekl 0x1234 = 0x12345678     # contents are kept

# ---- lines: a level, held until the next write ----
expect irq 5 0
outb 0x2005 1
expect irq 5 1
outb 0x2005 0x80              # any other number is high too
expect irq 5 1
expect edges 5 1
outb 0x2005 0
expect irq 5 0
outl 0x2000 0x100             # one line, not four; 16 and 32 bits are looked at whole
expect irq 0 1
expect irq 1 0
outw 0x2000 0
expect irq 0 0
outb 0x2017 1
expect irq 23 1
outb 0x2017 0
expect irq 23 0
outb 0x2018 1                 # not ours
inb 0x2005 = 0xff             # write-only

# IOAPIC pins: edge-triggered, vector 0x40 + pin
writel 0xfec00000 0x20
writel 0xfec00010 0x48        # pin 8
writel 0xfec00000 0x3e
writel 0xfec00010 0x57        # pin 23
writel 0xfec00000 0x14
writel 0xfec00010 0x42        # pin 2
expect none
outb 0x2008 1
expect msg vector=0x48 level=0
outb 0x2008 1                 # no edge
expect none
outb 0x2008 0
outb 0x2017 1
expect msg vector=0x57
# pin 2 is where ISA interrupt 0 comes in as well: together they are one line
outb 0x2002 1
expect msg vector=0x42
outb 0x2000 1
expect none
outb 0x2002 0
outb 0x2002 1
expect none
outb 0x2002 0
outb 0x2000 0
outb 0x2000 1
expect msg vector=0x42
outb 0x2000 0
expect none
# and a level one, which comes again after its EOI would
writel 0xfec00000 0x22
writel 0xfec00010 0x8049
outb 0x2009 1
expect msg vector=0x49 level=1
outb 0x2009 0
expect none

# ---- 64 KiB of memory: all sizes, anywhere ----
readq 0xff000000 = 0
writeq 0xff000000 0x8877665544332211
readb 0xff000003 = 0x44
readw 0xff000001 = 0x3322
readl 0xff000003 = 0x77665544
readq 0xff000001 = 0x88776655443322
writeb 0xff00ffff 0xab
readb 0xff00ffff = 0xab
writew 0xff000ffe 0xcdef
readl 0xff000ffc = 0xcdef0000
writel 0xff000fff 0x12345678  # over a page's edge
readl 0xff000fff = 0x12345678
readb 0xff010000 = 0xff       # behind it
readw 0xff00ffff = 0xffab

# ---- reset: all of it ----
outb 0x2005 1
reset
expect irq 5 0
inl 0xe0 = 0
inl 0xe8 = 0
readq 0xff000000 = 0
expect none
