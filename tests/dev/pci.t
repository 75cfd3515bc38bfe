# Configuration space, BARs, INTx (PCI 3.0), with a serial card
pci 0 hostbridge
pci 3 uart
pci 3.1 uart
assign
outl 0xcf8 0x80001800
inl 0xcf8 = 0x80001800
inl 0xcfc = 0x2000131f
inw 0xcfe = 0x2000
outb 0xcf9 0                      # the reset register's, not ours
inl 0xcf8 = 0x80001800
outl 0xcf8 0x00001800             # not enabled
inl 0xcfc = 0xffffffff
cfgrl 0 0 = 0x12751275
cfgrl 1 0 = 0xffffffff            # no device
cfgrb 3 0x0e = 0x80               # several functions
cfgrb 3.1 0x0e = 0x80
readl 0xe0018000 = 0x2000131f     # ECAM
readb 0xe0019000 = 0x1f
readl 0xe0020000 = 0xffffffff

# the capability of a PCI Express root port
cfgrb 0 0x34 = 0x40
cfgrl 0 0x40 = 0x00420010
cfgrw 0 6 = 0x0010

# BARs: assigned, sized, moved, switched off
cfgrl 3 0x10 = 0x2001
cfgrl 3.1 0x10 = 0x2009
cfgrw 3 4 = 1
cfgwl 3 0x10 0xffffffff
cfgrl 3 0x10 = 0xfffffff9
inb 0x2007 = 0xff
cfgwl 3 0x10 0x3000
outb 0x3007 0x5a
inb 0x3007 = 0x5a
cfgww 3 4 0
inb 0x3007 = 0xff
cfgww 3 4 1
inb 0x3007 = 0x5a
cfgwl 3 0x10 0x2008               # where the other one is
expect log guest 1
outb 0x200f 0x11
cfgwl 3.1 0x10 0x4000             # leaves it
inb 0x4007 = 0x11
inb 0x200f = 0x5a
cfgwl 3 0x10 0xfff8
inb 0xffff = 0x5a
cfgwl 3 0x10 0x0cf8               # over the configuration ports: they stay
cfgrl 3 0x10 = 0x0cf9
cfgwl 3 0x10 0x2000

# INTx: slot 3 pin A is PIRQ D, GSI 19; its function 1, pin B, PIRQ E, GSI 20
cfgrb 3 0x3d = 1
cfgrb 3.1 0x3d = 2
cfgrb 3 0x3c = 0xff               # no LPC bridge, no ISA interrupt
outb 0x2004 8
outb 0x2001 2                     # transmitter empty
expect irq 19 1
expect irq 20 0
cfgrw 3 6 = 8
cfgww 3 4 0x401                   # interrupt disable
expect irq 19 0
cfgrw 3 6 = 8
cfgww 3 4 1
expect irq 19 1
inb 0x2002 = 2
expect irq 19 0
cfgrw 3 6 = 0

# as firmware left it
cfgwb 3 0x3c 5
reset
cfgrl 3.1 0x10 = 0x2009
cfgrb 3 0x3c = 0xff
inb 0x2007 = 0
