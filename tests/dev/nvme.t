# An NVMe 1.4 controller: registers, enable, admin commands, queues, PRPs, errors, INTx, MSI-X,
# shutdown. Admin queues of eight entries at 0x10000 and 0x11000, I/O queues of four at 0x12000
# (completions) and 0x13000, data from 0x20000. In the image each 8 bytes hold their own offset.
image disk 1048576 count
pci 5 nvme @disk,maxq=2,qsz=16,ser=SN1
assign
cfgrl 5 0 = 0x0a0afb5d
cfgrl 5 8 = 0x01080200
cfgrl 5 0x10 = 0xc0000004         # 64 bits
cfgrl 5 0x20 = 0xc0004000         # MSI-X
cfgww 5 4 7
readq 0xc0000000 = 0x000000202801000f  # CAP: NVM commands, 20 s, contiguous queues, 16 entries
readl 0xc0000008 = 0x00010400
readl 0xc000001c = 0

# cannot be enabled: no admin queues, then pages of 8 KiB
writel 0xc0000014 1
readl 0xc000001c = 2              # CFS
writel 0xc0000014 0
readl 0xc000001c = 0
writel 0xc0000024 0x00070007
writeq 0xc0000028 0x10000
writeq 0xc0000030 0x11000
writel 0xc0000014 0x81
readl 0xc000001c = 2
writel 0xc0000014 0
expect log guest 2
writel 0xc0000014 0x00460001
readl 0xc000001c = 1              # RDY

# Identify, controller
pokeq 0x10000 0x00010006          # cid 1
pokeq 0x10018 0x20000
pokeq 0x10028 1
expect irq 21 0
writel 0xc0001000 1
expect irq 21 1                   # slot 5 pin A
peekw 0x20000 = 0xfb5d
peekl 0x20004 = 0x20314e53        # "SN1 "
peekl 0x20050 = 0x00010400
peekq 0x11000 = 0
peekl 0x11008 = 1                 # SQHD 1, queue 0
peekl 0x1100c = 0x00010001        # cid 1, phase 1, success
writel 0xc000000c 1               # masked
expect irq 21 0
writel 0xc0000010 1
expect irq 21 1
writel 0xc0001004 1
expect irq 21 0

# Identify, namespace 1: 2048 blocks of 512 bytes; namespace 2 does not exist
pokeq 0x10040 0x0000000100020006
pokeq 0x10058 0x20000
pokeq 0x10080 0x0000000200030006
pokeq 0x10098 0x20000
writel 0xc0001000 3
peekq 0x20000 = 2048
peekl 0x20080 = 0x00090000
peekl 0x1101c = 0x00010002
peekl 0x1102c = 0xc0170003        # Invalid Namespace or Format, do not retry, in the error log
writel 0xc0001004 3

# I/O queues: of no queue, too long, then right
pokeq 0x100c0 0x00040001
pokeq 0x100d8 0x13000
pokeq 0x100e8 0x0001000100030001
pokeq 0x10100 0x00050005
pokeq 0x10118 0x12000
pokeq 0x10128 0x0000000300100001
writel 0xc0001000 5
peekl 0x1103c = 0xc2010004        # Completion Queue Invalid
peekl 0x1104c = 0xc2050005        # Invalid Queue Size
writel 0xc0001004 5
pokeq 0x10140 0x00060005          # completion queue 1, four entries, interrupts
pokeq 0x10158 0x12000
pokeq 0x10168 0x0000000300030001
pokeq 0x10180 0x00070001          # submission queue 1
pokeq 0x10198 0x13000
pokeq 0x101a8 0x0001000100030001
writel 0xc0001000 7
peekl 0x1105c = 0x00010006
peekl 0x1106c = 0x00010007
writel 0xc0001004 7
expect irq 21 0

# Read three blocks from block 2, from the middle of a page on over its end
pokeq 0x13000 0x0000000100110002
pokeq 0x13018 0x20c00
pokeq 0x13020 0x22000
pokeq 0x13028 2
pokeq 0x13030 2
writel 0xc0001008 1
peekq 0x20c00 = 0x400
peekq 0x20ff8 = 0x7f8
peekq 0x22000 = 0x800
peekq 0x221f8 = 0x9f8
peekq 0x22200 = 0
peekq 0x12008 = 0x0001001100010001
expect irq 21 1
writel 0xc000100c 1
expect irq 21 0

# Write nine pages by a list that goes on in another page, FUA
pokeq 0x30ff0 0x41000
pokeq 0x30ff8 0x31000
pokeq 0x31000 0x43000
pokeq 0x31008 0x42000
pokeq 0x31010 0x44000
pokeq 0x31018 0x45000
pokeq 0x31020 0x46000
pokeq 0x31028 0x47000
pokeq 0x31030 0x48000
pokeq 0x40000 0x1111
pokeq 0x41000 0x2222
pokeq 0x43000 0x3333
pokeq 0x42000 0x4444
pokeq 0x48ff8 0x9999
pokeq 0x13040 0x0000000100120001
pokeq 0x13058 0x40000
pokeq 0x13060 0x30ff0
pokeq 0x13068 1024
pokeq 0x13070 0x40000047          # 72 blocks
writel 0xc0001008 2
peekq 0x12018 = 0x0001001200010002
imageq disk 0x80000 = 0x1111
imageq disk 0x81000 = 0x2222
imageq disk 0x82000 = 0x3333
imageq disk 0x83000 = 0x4444
imageq disk 0x88ff8 = 0x9999
imageq disk 0x89000 = 0x89000
writel 0xc000100c 2

# Errors: behind the end, a list at half an entry, no RAM; the queue wraps, its phase turns
pokeq 0x13080 0x0000000100130002
pokeq 0x13098 0x20000
pokeq 0x130a8 2047
pokeq 0x130b0 1
pokeq 0x130c0 0x0000000100140002
pokeq 0x130d8 0x20000
pokeq 0x130e0 0x30004
pokeq 0x130e8 0
pokeq 0x130f0 31
writel 0xc0001008 0               # two more: the ring is at its end
peekl 0x1202c = 0xc1010013        # LBA Out of Range
peekl 0x1203c = 0xc0270014        # PRP Offset Invalid
writel 0xc000100c 0
pokeq 0x13000 0x0000000100150002
pokeq 0x13018 0x8000000
pokeq 0x13028 0
pokeq 0x13030 0
writel 0xc0001008 1
peekl 0x1200c = 0xc0080015        # Data Transfer Error, phase 0
expect log guest 3
writel 0xc000100c 1

# Write Zeroes with deallocation, Dataset Management, Flush
pokeq 0x13040 0x0000000100160008
pokeq 0x13068 1024
pokeq 0x13070 0x02000007
pokeq 0x20000 0x0000000800000000
pokeq 0x20008 1032
pokeq 0x13080 0x0000000100170009
pokeq 0x13098 0x20000
pokeq 0x130a8 0x0000000400000000
pokeq 0x130b0 0
pokeq 0x130c0 0x0000000100180000
writel 0xc0001008 0
peekl 0x1201c = 0x00000016
peekl 0x1202c = 0x00000017
peekl 0x1203c = 0x00000018
imageq disk 0x80000 = 0
imageq disk 0x81000 = 0
imageq disk 0x82000 = 0x3333
writel 0xc000100c 0

# Three more than the completion queue takes: the rest waits for the head's doorbell
pokeq 0x13000 0x0000000100210000
pokeq 0x13040 0x0000000100220000
pokeq 0x13080 0x0000000100230000
writel 0xc0001008 3
pokeq 0x130c0 0x0000000100240000
writel 0xc0001008 0
peekl 0x1200c = 0x00010021
peekl 0x1201c = 0x00010022
peekl 0x1202c = 0x00010023
peekl 0x1203c = 0x00000018
writel 0xc000100c 3
peekl 0x1203c = 0x00010024
writel 0xc000100c 0

# A doorbell that cannot be is an event, once until the error log has been read
pokeq 0x101c0 0x0008000c
writel 0xc0001000 0
peekl 0x1107c = 0                 # it waits
writel 0xc0001008 4
peekl 0x11070 = 0x00010100
peekl 0x1107c = 0x00010008
expect log guest 1
writel 0xc0001004 0
pokeq 0x10000 0x0009000c
writel 0xc0001000 1
writel 0xc0001010 0               # no such queue
expect log guest 1
peekl 0x1100c = 0x00010001        # silent
pokeq 0x10040 0xffffffff000a0002
pokeq 0x10058 0x20000
pokeq 0x10068 0x000f0001
writel 0xc0001000 2
peekl 0x1100c = 0x0000000a        # the page, then the event
peekl 0x11010 = 0x00010000
peekl 0x1101c = 0x00000009
peekw 0x20008 = 2                 # newest first: about queue 2
peekw 0x2000a = 0xffff
writel 0xc0001004 2

# MSI-X instead: queue 1 is made again, with vector 1
cfgww 5 0x42 0x8000
writeq 0xc0004010 0xfee01000
writeq 0xc0004018 0x61
writel 0xc000401c 0
pokeq 0x10080 0x000b0000          # delete the submission queue, then the other
pokeq 0x100a8 1
pokeq 0x100c0 0x000c0004
pokeq 0x100e8 1
pokeq 0x10100 0x000d0005
pokeq 0x10118 0x12000
pokeq 0x10128 0x0001000300030001
pokeq 0x10140 0x000e0001
pokeq 0x10158 0x13000
pokeq 0x10168 0x0001000100030001
writel 0xc0001000 6
peekl 0x1102c = 0x0000000b
peekl 0x1103c = 0x0000000c
peekl 0x1104c = 0x0000000d
peekl 0x1105c = 0x0000000e
expect none                       # vector 0 of the admin queue is masked
readq 0xc0004800 = 1              # and pends
writel 0xc0001004 6
pokeq 0x12008 0
pokeq 0x12018 0
pokeq 0x13000 0x0000000100310000
writel 0xc0001008 1
peekl 0x1200c = 0x00010031
expect msg vector=0x61 dest=1
expect irq 21 0
writel 0xc000100c 1

clock +1h                         # the limit of log lines, and nothing else

# Shutdown, then no command is begun; a reset ends all
writel 0xc0000014 0x00464001
readl 0xc000001c = 9              # SHST: complete
pokeq 0x13040 0x0000000100320000
writel 0xc0001008 2
peekl 0x1201c = 0
expect none
writel 0xc0000014 0x00460000
readl 0xc000001c = 0
readl 0xc0000024 = 0x00070007     # the admin queues' registers stay
writel 0xc0001000 1               # not ready
expect log guest 1
writel 0xc0000014 0x00460001
readl 0xc000001c = 1
reset
readl 0xc000001c = *
cfgww 5 4 7
readl 0xc0000014 = 0
readl 0xc0000024 = 0
readq 0xc0000028 = 0
