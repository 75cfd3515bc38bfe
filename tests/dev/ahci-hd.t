# A SATA disk behind AHCI 1.3.1: registers, commands as FISes, interrupts, resets.
# Command list at 0x10000, received FISes at 0x11000, command tables from 0x12000, data at 0x20000.
image disk 1048576 count
pci 3 ahci-hd @disk,ser=SN1
assign
cfgrl 3 0 = 0x28218086
cfgrl 3 8 = 0x01060100
cfgrl 3 0x24 = 0xc0000000
cfgww 3 4 7
readl 0xc0000000 = 0xc1349f00   # 64 bits, NCQ, CLO, 6 Gb/s, 32 slots
readl 0xc0000000 = 0&0x1f         # one port
readl 0xc0000004 = 0x80000000
readl 0xc000000c = 1
readl 0xc0000010 = 0x00010301
readl 0xc0000128 = 0x133          # PxSSTS: there, active
readl 0xc0000124 = 0x101          # PxSIG: a disk
readl 0xc0000120 = 0x150          # PxTFD: ready, diagnostics passed
readl 0xc0000118 = 6
readl 0xc0000110 = 0x40           # PxIS.PCS, by PxSERR.DIAG.X
writel 0xc0000130 0xffffffff
readl 0xc0000110 = 0

# start: the signature's FIS comes as soon as there is a place for it
writeq 0xc0000100 0x10000
writeq 0xc0000108 0x11000
peekl 0x11040 = 0
writel 0xc0000118 0x10
readl 0xc0000118 = 0x4016         # FR
peekq 0x11040 = 0x0000000101500034
peekl 0x1104c = 1
writel 0xc0000118 0x11
readl 0xc0000118 = 0xc017         # CR
writel 0xc0000114 0xffffffff
readl 0xc0000114 = 0xfdc000ff
writel 0xc0000004 2               # GHC.IE

# IDENTIFY DEVICE, PIO, two pieces of data
pokel 0x10000 0x00020005
pokeq 0x10008 0x12000
pokeq 0x12000 0x00ec8027
pokeq 0x12080 0x20000
pokel 0x1208c 255
pokeq 0x12090 0x20100
pokel 0x1209c 255
writel 0xc0000138 1
readl 0xc0000138 = 0
readl 0xc0000120 = 0x50
readl 0xc0000110 = 2              # PxIS.PSS
peekl 0x10004 = 512               # PRDBC
peekl 0x11020 = 0x0058605f        # PIO setup: device to host, interrupt
peekl 0x1102c = 0x50000000        # status after the data
peekw 0x11030 = 512
peekw 0x20014 = 0x534e            # "SN"
peekw 0x20016 = 0x3120            # "1 "
peekl 0x20078 = 2048              # sectors
peekw 0x2006a = 0x0007
peekw 0x20096 = 31                # queue
peekw 0x20098 = 0x100&0x100       # NCQ
peekw 0x2008a = 0x4020            # word 69: what was trimmed reads as zeros
peekw 0x20152 = 1
peekw 0x201b2 = 1                 # does not rotate
peekq 0x200c8 = 2048
readl 0xc0000008 = 1
expect irq 19 1
writel 0xc0000110 2
readl 0xc0000110 = 0
expect irq 19 1                   # IS.IPS is still set
writel 0xc0000008 1
expect irq 19 0

# READ DMA EXT: 2 sectors from 4
pokel 0x10000 0x00010005
pokeq 0x12000 0x4000000400258027
pokeq 0x12008 0x0000000200000000
pokel 0x1208c 1023
writel 0xc0000138 1
readl 0xc0000138 = 0
readl 0xc0000110 = 1              # DHRS
peekl 0x10004 = 1024
peekl 0x11040 = 0x00504034
peekq 0x20000 = 2048
peekq 0x203f8 = 3064
writel 0xc0000110 1
writel 0xc0000008 1
# WRITE DMA (28 bits): sector 8
pokeq 0x20000 0x1122334455667788
pokel 0x10000 0x00010045
pokeq 0x12000 0x4000000800ca8027
pokeq 0x12008 0x0000000100000000
pokel 0x1208c 511
writel 0xc0000138 1
readl 0xc0000120 = 0x50
imageq disk 4096 = 0x1122334455667788
imageq disk 4104 = 2056
writel 0xc0000110 1
writel 0xc0000008 1

# two queued commands: WRITE FPDMA of sector 16 in slot 1, READ FPDMA of sector 17 in slot 5
pokel 0x10020 0x00010045
pokeq 0x10028 0x12100
pokeq 0x12100 0x4000001001618027
pokeq 0x12108 0x0000000800000000
pokeq 0x12180 0x20000
pokel 0x1218c 511
pokel 0x100a0 0x00010005
pokeq 0x100a8 0x12500
pokeq 0x12500 0x4000001101608027
pokeq 0x12508 0x0000002800000000
pokeq 0x12580 0x20200
pokel 0x1258c 511
writel 0xc0000134 0x22
writel 0xc0000138 0x22
readl 0xc0000138 = 0
readl 0xc0000134 = 0
readl 0xc0000110 = 8              # SDBS
peekq 0x11058 = 0x00000020005040a1
imageq disk 8192 = 0x1122334455667788
peekq 0x20200 = 8704
writel 0xc0000110 8
writel 0xc0000008 1
expect irq 19 0

# TRIM of sectors 32 and 33
pokeq 0x20000 0x0001000000000020
pokeq 0x20008 0x0001000000000021
pokeq 0x20010 0
writel 0xc0000110 0xffffffff
pokel 0x10000 0x00010045
pokeq 0x12000 0x4000000001068027
pokeq 0x12008 0x0000000100000000
pokel 0x1208c 511
imageq disk 0x4008 = 0x4008
writel 0xc0000138 1
readl 0xc0000120 = 0x50
imageq disk 0x4008 = 0
imageq disk 0x43f8 = 0
imageq disk 0x4400 = 0x4400

# beyond the end: IDNF, and the port stands until it is started again
writel 0xc0000110 0xffffffff
pokeq 0x12000 0x400007ff00258027
pokeq 0x12008 0x0000000200000000
pokel 0x1208c 1023
writel 0xc0000138 1
readl 0xc0000138 = 1
readl 0xc0000120 = 0x1051
readl 0xc0000110 = 0x40000001     # TFES
peekq 0x11040 = 0x4000080010514034
writel 0xc0000138 2
readl 0xc0000138 = 3
writel 0xc0000118 0x10
readl 0xc0000118 = 0x4016
readl 0xc0000138 = 0
writel 0xc0000118 0x11
writel 0xc0000110 0xffffffff
# a queued one beyond the end: its bit stays in PxSACT, and the log says which it was
pokeq 0x12100 0x400007ff02608027
writel 0xc0000134 2
writel 0xc0000138 2
readl 0xc0000138 = 0
readl 0xc0000134 = 2
readl 0xc0000120 = 0x1051
readl 0xc0000110 = 0x40000008
writel 0xc0000118 0x10
readl 0xc0000134 = 0
writel 0xc0000118 0x11
writel 0xc0000110 0xffffffff
pokeq 0x12000 0x4000000400258027  # refused until the log was read
writel 0xc0000138 1
readl 0xc0000120 = 0x451
writel 0xc0000118 0x10
writel 0xc0000118 0x11
writel 0xc0000110 0xffffffff
pokeq 0x12000 0x40000010002f8027  # READ LOG EXT 0x10
pokeq 0x12008 0x0000000100000000
pokel 0x1208c 511
writel 0xc0000138 1
readl 0xc0000120 = 0x50
peekl 0x20000 = 0x10510001        # tag, status, error
peekw 0x20004 = 0x0800
pokeq 0x12000 0x4000000400258027
writel 0xc0000138 1
readl 0xc0000120 = 0x50
peekq 0x20000 = 2048

# an unknown command, and one whose table is too short
writel 0xc0000110 0xffffffff
pokeq 0x12000 0x4000000000ff8027
writel 0xc0000138 1
readl 0xc0000120 = 0x451
writel 0xc0000118 0x10
writel 0xc0000118 0x11
expect log guest 0
pokeq 0x12000 0x4000000400258027
pokel 0x1208c 509
writel 0xc0000110 0xffffffff
writel 0xc0000138 1
readl 0xc0000110 = 0x01000000     # OFS
readl 0xc0000138 = 1
expect log guest 1
writel 0xc0000118 0x10
writel 0xc0000118 0x18            # CLO
readl 0xc0000118 = 0x4016
readl 0xc0000120 = 0x50&0xff
writel 0xc0000118 0x11
# data, table, command list and FISes where there is no RAM: HBFS
pokel 0x1208c 511
pokeq 0x12080 0xfee00000
writel 0xc0000110 0xffffffff
writel 0xc0000138 1
readl 0xc0000110 = 0x20000000
readl 0xc0000130 = 0x800
writel 0xc0000118 0x10
writel 0xc0000118 0x18
writel 0xc0000118 0x11
writel 0xc0000110 0xffffffff
pokeq 0x12080 0x20000
pokeq 0x10008 0xfffffffffff00000
writel 0xc0000138 1
readl 0xc0000110 = 0x20000000
pokeq 0x10008 0x12000
writel 0xc0000118 0x10
writel 0xc0000118 0x11
writel 0xc0000110 0xffffffff
pokeq 0x12000 0x34                # no register FIS
writel 0xc0000138 1
readl 0xc0000110 = 0x08000000     # IFS
writel 0xc0000118 0x10
writel 0xc0000118 0x11
expect log guest 3
pokeq 0x12000 0x4000000400258027

# COMRESET
writel 0xc0000118 0x10
writel 0xc000012c 1
readl 0xc0000128 = 0
readl 0xc0000120 = 0x7f
readl 0xc0000124 = 0xffffffff
writel 0xc000012c 0
readl 0xc0000128 = 0x133
readl 0xc0000120 = 0x150
readl 0xc0000124 = 0x101
readl 0xc0000130 = 0x04000000&0x04000000
writel 0xc0000130 0xffffffff
writel 0xc0000110 0xffffffff
# software reset by two control FISes
writel 0xc0000118 0x11
pokel 0x10000 0x00000505
pokeq 0x12000 0x27
pokeq 0x12008 0x0400000000000000
writel 0xc0000138 1
readl 0xc0000138 = 0
pokeq 0x12008 0
pokeq 0x11040 0
writel 0xc0000138 1
readl 0xc0000138 = 0
peekq 0x11040 = 0x0000000101500034

# MSI: one message for a bit that is newly set
writel 0xc0000110 0xffffffff
writel 0xc0000008 1
cfgrb 3 0x34 = 0x40
cfgwl 3 0x44 0xfee01000
cfgww 3 0x4c 0x61
cfgww 3 0x42 1
pokel 0x10000 0x00010005
pokeq 0x12000 0x4000000400258027
pokeq 0x12008 0x0000000100000000
expect none
writel 0xc0000138 1
expect msg vector=0x61 dest=1
writel 0xc0000138 1               # the port's bit is set already
expect none
writel 0xc0000008 1               # cleared while there is still something
expect msg vector=0x61
writel 0xc0000110 1
writel 0xc0000008 1
expect none
expect irq 19 0

# reset of the adapter: the lists stay where they are
writel 0xc0000004 3
readl 0xc0000004 = 0x80000000
readl 0xc0000118 = 6
readl 0xc0000114 = 0
readl 0xc0000100 = 0x10000
readl 0xc0000108 = 0x11000
readl 0xc0000120 = 0x150
expect log guest 0
reset
readl 0xc0000100 = 0
