# Random numbers from the host: legacy driver, then modern
pci 4 virtio-rnd
assign
cfgrl 4 0 = 0x10051af4
cfgrl 4 0x2c = 0x00041af4
cfgrl 4 0x10 = 0x2001             # legacy registers
cfgrl 4 0x14 = 0xc0004000         # MSI-X
cfgrl 4 0x20 = 0xc0000004         # modern structures: 64-bit, but small, so below 4 GiB
cfgrl 4 0x24 = 0
cfgww 4 4 7
outb 0x2012 0
outb 0x2012 3
inl 0x2000 = 0x38000000&0x38000000
outl 0x2004 0
outw 0x200e 0
inw 0x200c = 64
outl 0x2008 0x10                  # rings at 0x10000, 0x10400, 0x11000
inl 0x2008 = 0x10
outb 0x2012 7
pokeq 0x10000 0x20000
pokel 0x10008 16
pokel 0x1000c 2                   # writable
pokew 0x10404 0
pokew 0x10402 1
expect irq 20 0
outw 0x2010 0
peekw 0x11002 = 1
peekl 0x11004 = 0
peekl 0x11008 = 16
peekq 0x20010 = 0
expect irq 20 1                   # slot 4 pin A
inb 0x2013 = 1
expect irq 20 0
inb 0x2013 = 0
pokew 0x10406 99                  # no such descriptor
pokew 0x10402 2
outw 0x2010 0
expect log guest 1
inb 0x2012 = 0x47                 # DEVICE_NEEDS_RESET
expect irq 20 1
outb 0x2012 0
expect irq 20 0
inl 0x2008 = 0

# modern: features, queue of 4, MSI-X vector 1
cfgrb 4 0x34 = 0x40
cfgrl 4 0x40 = 0x00014c11         # MSI-X, two vectors
cfgww 4 0x42 0x8000
writeq 0xc0004010 0xfee01000
writeq 0xc0004018 0x61
writeb 0xc0000014 3
writel 0xc0000000 1
readl 0xc0000004 = 1&1           # VERSION_1
writel 0xc0000008 1
writel 0xc000000c 1
writeb 0xc0000014 0xb
readb 0xc0000014 = 0xb
writew 0xc0000010 0
writew 0xc0000016 0
writew 0xc0000018 4
writew 0xc000001a 1
readw 0xc000001a = 1
writeq 0xc0000020 0x30000
writeq 0xc0000028 0x31000
writeq 0xc0000030 0x32000
writew 0xc000001c 1
readw 0xc000001c = 1
writeb 0xc0000014 0xf
pokeq 0x30010 0x20000
pokel 0x30018 8
pokel 0x3001c 2
pokew 0x31004 1
pokew 0x31002 1
writew 0xc0003000 0
peekw 0x32002 = 1
peekl 0x32004 = 1
peekl 0x32008 = 8
expect msg vector=0x61 dest=1
expect irq 20 0
writel 0xc000401c 1               # masked: the next one pends
pokew 0x31006 1
pokew 0x31002 2
writew 0xc0003000 0
peekw 0x32002 = 2
expect none
readq 0xc0004800 = 2
writel 0xc000401c 0
expect msg vector=0x61
readq 0xc0004800 = 0
reset
readb 0xc0000014 = 0
