# A disk of 64 KiB: a legacy driver
image d 65536
pci 4 virtio-blk @d,ser=DISK-1,queues=1
assign
cfgrl 4 0 = 0x10011af4
cfgrl 4 8 = 0x01800000
cfgrl 4 0x2c = 0x00021af4
cfgww 4 4 7
outb 0x2012 0
outb 0x2012 3
inl 0x2000 = 0x6e44&0x7fff        # SEG_MAX BLK_SIZE FLUSH TOPOLOGY CONFIG_WCE DISCARD WRITE_ZEROES
outl 0x2004 0x200                 # FLUSH
outw 0x200e 0
inw 0x200c = 256
outl 0x2008 0x10                  # rings at 0x10000, 0x11000, 0x12000
inl 0x2014 = 128                  # sectors
inl 0x2018 = 0
inl 0x2020 = 254                  # segments of a request
inl 0x2028 = 512                  # bytes of a block
outb 0x2012 7
# header, data, status; write sector 2
pokeq 0x10000 0x20000
pokel 0x10008 16
pokel 0x1000c 0x00010001
pokeq 0x10010 0x21000
pokel 0x10018 512
pokel 0x1001c 0x00020001
pokeq 0x10020 0x22000
pokel 0x10028 1
pokel 0x1002c 2
pokel 0x20000 1
pokeq 0x20008 2
pokeq 0x21000 0x1122334455667788
pokeq 0x211f8 0x8877665544332211
pokeb 0x22000 0xff
pokew 0x11004 0
pokew 0x11002 1
outw 0x2010 0
peekw 0x12002 = 1
peekl 0x12004 = 0
peekl 0x12008 = 1
peekb 0x22000 = 0
expect irq 20 1
inb 0x2013 = 1
# read it, into another place: header and status as they were
pokeq 0x10010 0x23000
pokel 0x1001c 0x00020003
pokel 0x20000 0
pokeb 0x22000 0xff
pokew 0x11006 0
pokew 0x11002 2
outw 0x2010 0
peekw 0x12002 = 2
peekl 0x12010 = 513
peekb 0x22000 = 0
peekq 0x23000 = 0x1122334455667788
peekq 0x231f8 = 0x8877665544332211
# the last sector is 127
pokeq 0x20008 128
pokew 0x11008 0
pokew 0x11002 3
outw 0x2010 0
peekb 0x22000 = 1                 # IOERR
expect log guest 1
# the serial number, 20 bytes with what fills it
pokel 0x20000 8
pokew 0x1100a 0
pokew 0x11002 4
outw 0x2010 0
peekb 0x22000 = 0
peekq 0x23000 = 0x0000312d4b534944
# what there is not
pokel 0x20000 2
pokew 0x1100c 0
pokew 0x11002 5
outw 0x2010 0
peekb 0x22000 = 2                 # UNSUPP
# discard was not negotiated
pokel 0x20000 11
pokew 0x1100e 0
pokew 0x11002 6
outw 0x2010 0
peekb 0x22000 = 2
# flush: header and status alone
pokel 0x20000 4
pokel 0x1000c 0x00020001
pokeb 0x22000 0xff
pokew 0x11010 0
pokew 0x11002 7
outw 0x2010 0
peekb 0x22000 = 0
peekw 0x12002 = 7
# the rings do not move under a running queue
outl 0x2008 0x40
inl 0x2008 = 0x10
expect log guest 1
# a header that is too short
pokel 0x10008 15
pokew 0x11012 0
pokew 0x11002 8
outw 0x2010 0
inb 0x2012 = 0x47                 # DEVICE_NEEDS_RESET
peekw 0x12002 = 7
expect log guest 1
outb 0x2012 0
inl 0x2008 = 0
