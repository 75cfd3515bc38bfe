# A disk of 64 KiB: a modern driver with a packed ring of five places and MSI-X
image d 65536
pci 4 virtio-blk @d,queues=2
assign
cfgww 4 4 7
cfgww 4 0x42 0x8000
writeq 0xc0004010 0xfee01000
writeq 0xc0004018 0x61
writeb 0xc0000014 3
writel 0xc0000000 1
readl 0xc0000004 = 0x105&0x107    # VERSION_1, RING_PACKED, RING_RESET
writel 0xc0000008 1
writel 0xc000000c 0x105
writel 0xc0000008 0
writel 0xc000000c 0x7200          # FLUSH MQ DISCARD WRITE_ZEROES
writeb 0xc0000014 0xb
readb 0xc0000014 = 0xb
readw 0xc0000012 = 2              # queues
readl 0xc0002024 = 4194304        # sectors of a discard, ranges
readl 0xc0002028 = 64
readb 0xc0002020 = 1              # written back
writew 0xc0000016 0
writew 0xc0000018 5
readw 0xc0000018 = 5
writew 0xc000001a 1
writeq 0xc0000020 0x30000
writeq 0xc0000028 0x31000
writeq 0xc0000030 0x32000
writew 0xc000001c 1
writew 0xc0000016 1
writew 0xc000001c 1               # no addresses, but address 0 is RAM
writeb 0xc0000014 0xf
# write sector 3: three places; the first one's flags last
pokel 0x20000 1
pokeq 0x20008 3
pokeq 0x21000 0xa5a5a5a5a5a5a5a5
pokeq 0x30010 0x21000
pokel 0x30018 512
pokel 0x3001c 0x00810000          # AVAIL NEXT
pokeq 0x30020 0x22000
pokel 0x30028 1
pokel 0x3002c 0x00820007          # AVAIL WRITE, id 7
pokeq 0x30000 0x20000
pokel 0x30008 16
pokel 0x3000c 0x00810000
writew 0xc0003000 0
peekl 0x30008 = 1                 # used: length 1, id 7, AVAIL USED WRITE
peekl 0x3000c = 0x80820007
expect msg vector=0x61 dest=1
# read it: two places left in this round, one in the next (whose AVAIL is clear and USED set)
pokel 0x20000 0
pokeb 0x22000 0xff
pokel 0x31000 0x00010000          # no interrupt, please
pokeq 0x30040 0x23000
pokel 0x30048 512
pokel 0x3004c 0x00830000
pokeq 0x30000 0x22000
pokel 0x30008 1
pokel 0x3000c 0x80020009
pokeq 0x30030 0x20000
pokel 0x30038 16
pokel 0x3003c 0x00810000
writew 0xc0003000 0
peekl 0x30038 = 513
peekl 0x3003c = 0x80820009
peekb 0x22000 = 0
peekq 0x23000 = 0xa5a5a5a5a5a5a5a5
expect none
# zeros into sector 3, with a range: three places, the second round's counters
pokel 0x31000 0
pokel 0x20000 13
pokeq 0x21000 3
pokeq 0x21008 0x100000001         # one sector, may be unmapped
pokeq 0x30020 0x21000
pokel 0x30028 16
pokel 0x3002c 0x80010000
pokeq 0x30030 0x22000
pokel 0x30038 1
pokel 0x3003c 0x8002000a
pokeq 0x30010 0x20000
pokel 0x30018 16
pokel 0x3001c 0x80010000
writew 0xc0003000 0
peekl 0x30018 = 1
peekl 0x3001c = 0x0002000a        # used in the second round: both are clear
expect msg vector=0x61
peekb 0x22000 = 0
# the queue alone is reset, and set up anew
writew 0xc0000016 0
writew 0xc000003a 1
readw 0xc000003a = 0
readw 0xc000001c = 0
readw 0xc0000018 = 256
readw 0xc000001a = 0xffff
writew 0xc0003000 0
expect none
writew 0xc000001a 1
writew 0xc0000018 5
writeq 0xc0000020 0x30000
writeq 0xc0000028 0x31000
writeq 0xc0000030 0x32000
writew 0xc000001c 1
# and reads from place 0 again: sector 3 is zeros
pokel 0x20000 0
pokeq 0x30010 0x23000
pokel 0x30018 512
pokel 0x3001c 0x00830000
pokeq 0x30020 0x22000
pokel 0x30028 1
pokel 0x3002c 0x00820007
pokeq 0x30000 0x20000
pokel 0x30008 16
pokel 0x3000c 0x00810000
writew 0xc0003000 0
peekl 0x3000c = 0x80820007
peekq 0x23000 = 0
expect msg vector=0x61
# a request that is longer than the ring has room
pokel 0x3003c 0x00810000
pokel 0x3004c 0x00810000
pokel 0x3000c 0x80010000
pokel 0x3001c 0x80010000
pokel 0x3002c 0x80010000
writew 0xc0003000 0
readb 0xc0000014 = 0x4f
expect log guest 1
writeb 0xc0000014 0
readb 0xc0000014 = 0
