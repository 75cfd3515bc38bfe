# 8254: three counters at 1.193182 MHz; a tick is 838.1 ns. Port 0x61.
device i8254
expect irq 0 0
inb 0x43 = 0xff               # the control word cannot be read

# Mode 0, interrupt on terminal count: OUT rises N + 1 ticks after the count is written
outb 0x43 0x30
expect irq 0 0
outb 0x40 0xe8
outb 0x40 0x03                # 1000
outb 0x43 0xe2                # read back: status of channel 0
inb 0x40 = 0x70               # OUT low, not yet loaded, low/high, mode 0

clock +839ns                  # tick 1
outb 0x43 0xe2
inb 0x40 = 0x30               # loaded
inb 0x40 = 0xe8
inb 0x40 = 0x03
clock +83809ns                # tick 101
outb 0x43 0x00                # latch: 900
expect edges 0 0
clock +83810ns                # tick 201
outb 0x43 0x00                # a second latch does not replace the first
inb 0x40 = 0x84
inb 0x40 = 0x03
inb 0x40 = 0x20               # live again: 800
inb 0x40 = 0x03
clock +670475ns               # just before tick 1001
expect irq 0 0
clock +1ns                    # tick 1001
expect irq 0 1
expect edges 0 1
outb 0x43 0xe2
inb 0x40 = 0xb0               # OUT high
clock +8381ns                 # tick 1011
inb 0x40 = 0xf6               # counts on below zero
inb 0x40 = 0xff
expect irq 0 1
outb 0x40 0x05                # the first byte pulls OUT low and stops the count
expect irq 0 0
clock +8381ns                 # tick 1021
outb 0x40 0x00
clock +5027ns                 # just before tick 1027
expect irq 0 0
clock +1ns                    # tick 1027
expect irq 0 1                # 1021 + 1 + 5
expect edges 0 1

# Mode 2, rate generator: an edge each N ticks
outb 0x43 0x34
expect irq 0 1                # OUT is high from the control word on
outb 0x40 0x9c
outb 0x40 0x2e                # 11932: 100 Hz
outb 0x43 0xe2
inb 0x40 = 0xf4
clock +838ns                  # tick 1028
outb 0x43 0xe2
inb 0x40 = 0xb4
inb 0x40 = 0x9c
inb 0x40 = 0x2e
expect edges 0 0
clock +9999312ns              # just before tick 12959
outb 0x43 0xe2
inb 0x40 = 0xb4
clock +1ns                    # the last tick: the count is 1 and OUT is low
outb 0x43 0xc2
inb 0x40 = 0x34
inb 0x40 = 0x01
inb 0x40 = 0x00
expect edges 0 0
clock +838ns                  # tick 12960
expect edges 0 1
outb 0x43 0xe2
inb 0x40 = 0xb4
inb 0x40 = 0x9c
inb 0x40 = 0x2e
clock +100001509ns            # tick 132280
expect edges 0 10
clock +83809ns                # tick 132380
outb 0x40 0x64
outb 0x40 0x00                # 100: from the end of this period
expect edges 0 0
outb 0x43 0xe2
inb 0x40 = 0xf4               # not yet loaded
inb 0x40 = 0x38
inb 0x40 = 0x2e               # 11832 of the old
clock +9916341ns              # just before tick 144212
expect edges 0 0
clock +1ns                    # tick 144212
expect edges 0 1
outb 0x43 0xe2
inb 0x40 = 0xb4
inb 0x40 = 0x64
inb 0x40 = 0x00
clock +838095ns               # tick 145212
expect edges 0 10
outb 0x40 0x02                # too fast for any host: run together, not a storm
outb 0x40 0x00
clock +83809ns                # tick 145312
expect edges 0 1
clock +10000151ns             # tick 157244
expect edges 0 1000&0xf00     # 10 ms at one in 10 us

# Mode 3, square wave: half of the ticks high, half low, counting down by two
outb 0x43 0x36
outb 0x40 0x64
outb 0x40 0x00
clock +838ns                  # tick 157245
expect edges 0 *
outb 0x43 0xc2
inb 0x40 = 0xb6
inb 0x40 = 100
inb 0x40 = 0
clock +838ns                  # tick 157246
inb 0x40 = 98
inb 0x40 = 0
clock +40229ns                # tick 157294
inb 0x40 = 2
inb 0x40 = 0
expect irq 0 1
clock +838ns                  # tick 157295
expect irq 0 0
inb 0x40 = 100
inb 0x40 = 0
clock +41904ns                # just before tick 157345
expect irq 0 0
expect edges 0 0
clock +1ns                    # tick 157345
expect irq 0 1
expect edges 0 1
clock +754285ns               # tick 158245
expect edges 0 9
clock +8381ns                 # tick 158255
outb 0x40 0x0b                # 11, from the end of this half
outb 0x40 0x00
clock +32686ns                # tick 158294
expect irq 0 1
inb 0x40 = 2
inb 0x40 = 0
clock +838ns                  # tick 158295
expect irq 0 0                # the low half, of 5 ticks
inb 0x40 = 10                 # odd: loaded one lower
inb 0x40 = 0
clock +3352ns                 # tick 158299
inb 0x40 = 2
inb 0x40 = 0
expect edges 0 0
outb 0x43 0xe2
inb 0x40 = 0x36
clock +838ns                  # tick 158300
outb 0x43 0xe2
inb 0x40 = 0xb6               # the high half, of 6
inb 0x40 = 10
inb 0x40 = 0
clock +4191ns                 # tick 158305
inb 0x40 = 0
inb 0x40 = 0
outb 0x43 0xe2
inb 0x40 = 0xb6
clock +838ns                  # tick 158306
outb 0x43 0xe2
inb 0x40 = 0x36

# An odd count from the start: the high half is the longer one
outb 0x43 0x36
outb 0x40 0x0b
outb 0x40 0x00
clock +5029ns                 # tick 158312
outb 0x43 0xe2
inb 0x40 = 0xb6
inb 0x40 = 0
inb 0x40 = 0
clock +838ns                  # tick 158313
outb 0x43 0xe2
inb 0x40 = 0x36
inb 0x40 = 10
inb 0x40 = 0

# Mode 4, software-triggered strobe: low for one tick, once
outb 0x43 0x38
expect edges 0 *
outb 0x40 0x0a
outb 0x40 0x00
clock +8381ns                 # tick 158323
outb 0x43 0xe2
inb 0x40 = 0xb8
expect edges 0 0
clock +838ns                  # tick 158324
outb 0x43 0xe2
inb 0x40 = 0x38
expect edges 0 0
clock +838ns                  # tick 158325
outb 0x43 0xe2
inb 0x40 = 0xb8
expect edges 0 1              # when the strobe ends
clock +83800292ns             # tick 258314
expect edges 0 0
outb 0x40 0x14
outb 0x40 0x00                # a new count triggers again
clock +18438ns                # tick 258336
expect edges 0 1

# Low byte only, high byte only, BCD
outb 0x43 0x14                # channel 0, low byte, mode 2
outb 0x40 0x40
clock +838ns                  # tick 258337
inb 0x40 = 0x40
inb 0x40 = 0x40
outb 0x43 0x00
inb 0x40 = 0x40               # latched: one byte only
clock +838ns                  # tick 258338
inb 0x40 = 0x3f
outb 0x43 0x24                # high byte
outb 0x40 0x12
clock +838ns                  # tick 258339
inb 0x40 = 0x12
outb 0x43 0xe2
inb 0x40 = 0xa4
clock +838ns                  # tick 258340
inb 0x40 = 0x11               # 0x1200 - 1
outb 0x43 0x35                # BCD, mode 2
outb 0x40 0x00
outb 0x40 0x10                # 1000
clock +838ns                  # tick 258341
inb 0x40 = 0x00
inb 0x40 = 0x10
clock +839ns                  # tick 258342
inb 0x40 = 0x99
inb 0x40 = 0x09
expect edges 0 *
clock +4189637ns              # tick 263341
expect edges 0 5
outb 0x43 0x31                # BCD, mode 0: 0 is 10000
outb 0x40 0x00
outb 0x40 0x00
clock +1676ns                 # tick 263343
inb 0x40 = 0x99
inb 0x40 = 0x99
clock +8380112ns              # just before tick 273342
expect irq 0 0
clock +1ns                    # tick 273342
expect irq 0 1
expect edges 0 1
inb 0x40 = 0
inb 0x40 = 0
clock +838ns                  # tick 273343
inb 0x40 = 0x99
inb 0x40 = 0x99               # and below zero
outb 0x43 0x3e                # mode 7 is 3; binary 0 is 65536
outb 0x40 0x00
outb 0x40 0x00
clock +838ns                  # tick 273344
outb 0x43 0xc2
inb 0x40 = 0xbe               # status shows the control word as it was written
inb 0x40 = 0
inb 0x40 = 0
expect edges 0 *
clock +838ns                  # tick 273345
inb 0x40 = 0xfe
inb 0x40 = 0xff
clock +54924563ns             # just before tick 338880
expect edges 0 0
clock +1ns                    # tick 338880
expect edges 0 1              # 18.2 Hz
outb 0x43 0x30
expect irq 0 0

# Channel 2: gate and OUT at port 0x61. Mode 0 waits for its gate
outb 0x61 0x00
inb 0x61 = 0x00&0x2f
outb 0x43 0xb0
outb 0x42 0x64
outb 0x42 0x00                # 100
clock +41904ns                # tick 338930
outb 0x43 0x80
inb 0x42 = 100                # loaded, not counting
inb 0x42 = 0
inb 0x61 = 0x00&0x20
outb 0x61 0x01
clock +33524ns                # tick 338970
inb 0x42 = 60
inb 0x42 = 0
outb 0x61 0x00                # paused
clock +92191ns                # tick 339080
inb 0x42 = 60
inb 0x42 = 0
outb 0x61 0x01
clock +50284ns                # just before tick 339140
inb 0x61 = 0x01&0x2f
clock +1ns                    # tick 339140
inb 0x61 = 0x21&0x2f
outb 0x61 0x0e                # speaker and the two check enables are kept
inb 0x61 = 0x2e&0xef
outb 0x61 0xf0                # the rest is read-only
inb 0x61 = 0x20&0xef

# Mode 1, one-shot: each rise of the gate begins N ticks low
outb 0x43 0xb2
outb 0x61 0x01                # no count: nothing to begin
clock +10us
inb 0x61 = 0x20&0x20
outb 0x61 0x00
outb 0x42 0x32
outb 0x42 0x00                # 50
inb 0x61 = 0x20&0x20
clock +73810ns                # tick 339240
inb 0x61 = 0x20&0x20          # no trigger yet
outb 0x43 0xe8
inb 0x42 = 0xf2               # nor loaded
outb 0x61 0x01
inb 0x61 = 0x20&0x20
clock +838ns                  # tick 339241
inb 0x61 = 0x00&0x20
outb 0x61 0x00                # the gate's fall changes nothing
clock +25143ns                # tick 339271
inb 0x42 = 20
inb 0x42 = 0
outb 0x61 0x01                # again: from the start
clock +838ns                  # tick 339272
inb 0x42 = 50
inb 0x42 = 0
inb 0x61 = 0x00&0x20
clock +41904ns                # just before tick 339322
inb 0x61 = 0x00&0x20
clock +1ns                    # tick 339322
inb 0x61 = 0x20&0x20

# Mode 2 on channel 2: gate low holds OUT high, its rise starts anew
outb 0x43 0xb4
outb 0x42 0x0a
outb 0x42 0x00
clock +8380ns                 # tick 339332
inb 0x61 = 0x00&0x20
outb 0x61 0x00
inb 0x61 = 0x20&0x20
clock +13410ns                # tick 339348
inb 0x42 = 1
inb 0x42 = 0
outb 0x61 0x01
clock +838ns                  # tick 339349
inb 0x42 = 10
inb 0x42 = 0
clock +7543ns                 # tick 339358
inb 0x61 = 0x00&0x20
clock +838ns                  # tick 339359
inb 0x61 = 0x20&0x20

# Mode 5, hardware-triggered strobe
outb 0x61 0x00
outb 0x43 0xba
outb 0x42 0x05
outb 0x42 0x00
clock +20114ns                # tick 339383
inb 0x61 = 0x20&0x20
outb 0x61 0x01
clock +4191ns                 # tick 339388
inb 0x61 = 0x20&0x20
clock +838ns                  # tick 339389
inb 0x61 = 0x00&0x20
clock +838ns                  # tick 339390
inb 0x61 = 0x20&0x20

# Read-back of several channels at once; channel 1 and its refresh
outb 0x43 0x54
outb 0x41 0x12                # 18, mode 2
clock +2514ns                 # tick 339393
outb 0x43 0xce                # count and status of all
inb 0x41 = 0x94
inb 0x41 = 16
inb 0x42 = 0xba
inb 0x40 = 0x70
clock +42742ns                # just before tick 339444
inb 0x61 = 0x10&0x10          # toggles each 15 us
clock +1ns                    # tick 339444
inb 0x61 = 0x00&0x10
clock +15086ns                # tick 339462
inb 0x61 = 0x10&0x10
inw 0x42 = 0xff00&0xff00      # a word is two ports
expect edges 0 0
expect log guest 0

# The gate falls while a new count waits for the end of the period: it waits for the trigger then
outb 0x61 0x01
outb 0x43 0xb4
outb 0x42 0x0a
outb 0x42 0x00
clock +8us
outb 0x42 0x14                # 20, for the next period
outb 0x42 0x00
outb 0x61 0x00
clock +100us
outb 0x43 0xe8
inb 0x42 = 0xf4               # still not loaded, OUT high
outb 0x61 0x01
outb 0x43 0xd8                # and the old count is seen until the pulse that loads
inb 0x42 = 2
inb 0x42 = 0
clock +839ns
outb 0x43 0xc8
inb 0x42 = 0xb4
inb 0x42 = 20
inb 0x42 = 0

# Mode 0: half a count stops the counter where it is
outb 0x43 0xb0
outb 0x42 0x64
outb 0x42 0x00
clock +30us
outb 0x42 0x32
inb 0x42 = 65
inb 0x42 = 0
clock +30us
inb 0x42 = 65
inb 0x42 = 0
outb 0x42 0x00

# A control word forgets half a count, half a read and a latched count
outb 0x43 0xb0
outb 0x42 0x11
outb 0x43 0xb0
outb 0x42 0x22
outb 0x42 0x33
clock +839ns
inb 0x42 = 0x22
outb 0x43 0x80                # latched: the high byte is next all the same
inb 0x42 = 0x33
inb 0x42 = 0x22
outb 0x43 0x80
outb 0x43 0xe8                # and a status over it: read first
outb 0x43 0xe8
inb 0x42 = 0x30
inb 0x42 = 0x33
inb 0x42 = 0x22
expect edges 0 0
expect log guest 0

reset
expect irq 0 0
inb 0x61 = 0
clock +1s
expect edges 0 0
