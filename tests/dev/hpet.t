# IA-PC HPET 1.0a: 10 MHz, eight timers
device hpet

# Capabilities: period in femtoseconds, Intel, legacy route, 64 bits, 8 timers, revision 1
readq 0xfed00000 = 0x05f5e1008086a701
readl 0xfed00000 = 0x8086a701
readl 0xfed00004 = 0x05f5e100
writeq 0xfed00000 0                    # read-only
readl 0xfed00004 = 0x05f5e100
# Timers: periodic, 64 bits, messages, IOAPIC pins 20-23
readq 0xfed00100 = 0x00f0000000008030
readq 0xfed001e0 = 0x00f0000000008030
readq 0xfed00108 = 0xffffffffffffffff
readq 0xfed00200 = 0                   # there is no ninth

# The counter stands still until enabled
clock +1s
readq 0xfed000f0 = 0
writeq 0xfed000f0 0xfffffff0
readq 0xfed000f0 = 0xfffffff0
writel 0xfed00010 1
clock +1us
readq 0xfed000f0 = 0xfffffffa
clock +1us
readq 0xfed000f0 = 0x100000004         # carries into the upper half
readl 0xfed000f4 = 1
clock +99ns
readq 0xfed000f0 = 0x100000004
clock +1ns
readq 0xfed000f0 = 0x100000005
writel 0xfed00010 0
clock +1s
readq 0xfed000f0 = 0x100000005
expect log guest 0

# One-shot, edge, pin 20
writeq 0xfed000f0 0
writeq 0xfed00108 1000
writel 0xfed00100 0x2804               # route 20, enabled
readl 0xfed00100 = 0xa834
writel 0xfed00010 1
clock +99us
expect edges 20 0
clock +1us
expect edges 20 1
expect irq 20 0
readq 0xfed00020 = 0                   # no status in edge mode
clock +10s
expect edges 20 0
# A pin that cannot be had reads back otherwise
writel 0xfed00100 0x0a04               # route 5
readl 0xfed00100 = 0x8034

# Level, pin 21: the status bit holds the line
writel 0xfed00010 0
writeq 0xfed000f0 0
writeq 0xfed00128 50
writel 0xfed00120 0x2a06
writel 0xfed00010 1
clock +5us
expect irq 21 1
readq 0xfed00020 = 2
writel 0xfed00020 1                    # another's bit
expect irq 21 1
writel 0xfed00020 2
expect irq 21 0
readq 0xfed00020 = 0
expect edges 21 1
# Not enabled: the status alone
writel 0xfed00120 0x2a02
readq 0xfed000f0 = 50
writeq 0xfed00128 100
clock +5us
readq 0xfed00020 = 2
expect irq 21 0
writel 0xfed00120 0x2a06               # enabled now: what waits is seen
expect irq 21 1
writel 0xfed00120 0x2c06               # and follows the route
expect irq 21 0
expect irq 22 1
writel 0xfed00120 0x2c04               # edge mode has no status
expect irq 22 0
readq 0xfed00020 = 0
expect edges 22 1
expect edges 21 1

# Periodic: one write sets accumulator and period, as the spec's example does
writel 0xfed00010 0
writeq 0xfed000f0 0
writel 0xfed00140 0x2e4c               # timer 2, pin 23, periodic, value set
readl 0xfed00140 = 0xae7c
writeq 0xfed00148 10000                # 1 ms
readl 0xfed00140 = 0xae3c              # cleared itself
writel 0xfed00010 1
clock +1ms
expect edges 23 1
readq 0xfed00148 = 20000               # the accumulator
clock +9ms
expect edges 23 9
clock +999999ns
expect edges 23 0
clock +1ns
expect edges 23 1
# The period alone, then both apart (as Linux does)
writeq 0xfed00148 5000
clock +1ms
expect edges 23 1
clock +500us
expect edges 23 1
clock +5ms
expect edges 23 10
writel 0xfed00140 0x2e4c
writeq 0xfed00148 200000
writeq 0xfed00148 1000
readq 0xfed00148 = 200000
clock +1ms                             # 17.5 ms: not yet
expect edges 23 0
readq 0xfed000f0 = 185000
clock +1500us                          # 20 ms
expect edges 23 1
clock +1ms
expect edges 23 10
# Too short for any host: run together, not lost, not a storm
writel 0xfed00140 0x2e4c
writeq 0xfed00148 220000
writeq 0xfed00148 1
clock +1ms                             # 22 ms
expect edges 23 1
clock +1ms
expect edges 23 100
writel 0xfed00140 0

# 32-bit mode: wraps after 429.5 s
writel 0xfed00010 0
writeq 0xfed000f0 0xffffff00
writel 0xfed00160 0x2904               # timer 3, pin 20, 32 bits
writeq 0xfed00168 0x500000010          # the upper half is not there
readq 0xfed00168 = 0x10
writel 0xfed00010 1
clock +27199ns
expect edges 20 0
clock +1ns                             # 0x110 ticks: past the 32-bit wrap
expect edges 20 1
readq 0xfed000f0 = 0x100000010
clock +429496729ms                  # 0.6 ms short of the thousandth
expect edges 20 999
clock +600us
expect edges 20 1                      # every 2^32 ticks
writel 0xfed00160 0

# 64 bits: no match at the lower half's
writel 0xfed00010 0
writeq 0xfed000f0 0
writel 0xfed00160 0x2804
writel 0xfed00168 0x10
writel 0xfed0016c 0x1
writel 0xfed00010 1
clock +400s
expect edges 20 0
clock +30s
expect edges 20 1
writel 0xfed00160 0

# Messages
writel 0xfed00010 0
writeq 0xfed000f0 0
writeq 0xfed00190 0xfee0300000000041   # timer 4: vector 0x41 to APIC 3
readl 0xfed00194 = 0xfee03000
writeq 0xfed00188 10
writel 0xfed00180 0x6804
writel 0xfed00010 1
expect none
clock +1us
expect msi 0xfee03000 0x41
expect none
expect edges 20 0                      # not the pin too
writel 0xfed00180 0x6800               # disabled
writeq 0xfed00188 20
clock +1us
expect none

# A level that waits when messages are chosen leaves the pin
writel 0xfed00180 0x2a06
writeq 0xfed00188 30
clock +1us
expect irq 21 1
writel 0xfed00180 0x6a06
expect irq 21 0
expect none
writel 0xfed00180 0
expect edges 21 1

# Legacy replacement: timer 0 is IRQ 0, timer 1 is IRQ 8
writel 0xfed00010 0
writeq 0xfed000f0 0
writel 0xfed00100 0x2804
writel 0xfed00120 0x2a06
writeq 0xfed00108 10
writeq 0xfed00128 20
expect edges 8 0
writel 0xfed00010 3
readl 0xfed00010 = 3
clock +1us
expect edges 0 1
expect edges 20 0
expect irq 8 0
clock +1us
expect irq 8 1
expect irq 21 0
writel 0xfed00010 1                    # off: the level moves to the pin
expect irq 8 0
expect irq 21 1
writel 0xfed00020 0xff
expect irq 21 0

# Setting the counter while it runs works, and is a mistake
expect log guest 0
writeq 0xfed000f0 0x1000
readq 0xfed000f0 = 0x1000
expect log guest 1
# Neither are narrow writes allowed
writeb 0xfed00010 0
readl 0xfed00010 = 1
expect log guest 1
readb 0xfed00011 = 0
readw 0xfed00004 = 0xe100

# A periodic comparator moves on with its interrupt off, but only from a match
writel 0xfed00010 0
writeq 0xfed000f0 1000
writel 0xfed00140 0x0048               # timer 2: periodic, value set, no interrupt
writeq 0xfed00148 900                  # behind the counter: not before it comes round again
writeq 0xfed00148 100
writel 0xfed00010 1
clock +1ms
readq 0xfed00148 = 900
writel 0xfed00140 0x0048
writeq 0xfed00148 11050                # ahead: at 11050, 11150, ... 21050
writeq 0xfed00148 100
clock +1ms
readq 0xfed000f0 = 21000
readq 0xfed00148 = 21050

# The accumulator in two halves, each announced; the period in two halves
writel 0xfed00140 0x0048
writel 0xfed00148 0x5
readl 0xfed00140 = 0x8038
writel 0xfed00140 0x0048
writel 0xfed0014c 0x1
readq 0xfed00148 = 0x100000005
readl 0xfed00140 = 0x8038

# Periodic in 32 bits: over the wrap, the upper half of the counter does not count
writel 0xfed00010 0
writeq 0xfed000f0 0x7fffffff0
writel 0xfed00140 0x2f4c               # pin 23
writeq 0xfed00148 0xfffffffa
writeq 0xfed00148 200
writel 0xfed00010 1
clock +1us
expect edges 23 1
readq 0xfed00148 = 0xc2
clock +20us
expect edges 23 1
readq 0xfed00148 = 0x18a
writel 0xfed00140 0

# All eight at one tick, each its own status; 1 and 5 share a pin
expect edges 20 *
expect edges 21 *
expect edges 22 *
expect edges 23 *
writel 0xfed00010 0
writeq 0xfed000f0 0
writel 0xfed00100 0x2806
writel 0xfed00120 0x2a06
writel 0xfed00140 0x2c06
writel 0xfed00160 0x2e06
writel 0xfed00180 0x2806
writel 0xfed001a0 0x2a06
writel 0xfed001c0 0x2c06
writel 0xfed001e0 0x0002               # no pin, no interrupt: the status alone
writeq 0xfed00108 30
writeq 0xfed00128 30
writeq 0xfed00148 30
writeq 0xfed00168 30
writeq 0xfed00188 30
writeq 0xfed001a8 30
writeq 0xfed001c8 30
writeq 0xfed001e8 30
writel 0xfed00010 1
clock +2999ns
readq 0xfed00020 = 0
clock +1ns
readq 0xfed00020 = 0xff
expect edges 20 1
expect edges 21 1
expect edges 22 1
expect edges 23 1
writel 0xfed00020 0x02
expect irq 21 1                        # timer 5 still holds it
writel 0xfed00020 0x20
expect irq 21 0
readq 0xfed00020 = 0xdd
writel 0xfed00010 0                    # halted: what is pending stays until it is cleared
expect irq 20 1
writel 0xfed00020 0xff
expect irq 20 0
expect irq 22 0
expect irq 23 0

# Messages win over legacy replacement; the 8254's line is cut off all the same
writeq 0xfed000f0 0
writeq 0xfed00110 0xfee0100000000051
writel 0xfed00100 0x400c
writeq 0xfed00108 200
writel 0xfed00010 3
irq 0 1
expect irq 0 0
clock +20us
expect msi 0xfee01000 0x51
expect edges 0 0
writel 0xfed00010 1
expect irq 0 1
irq 0 0
expect edges 0 1
writel 0xfed00100 0
expect none
expect log guest 0

reset
readl 0xfed00010 = 0
readq 0xfed000f0 = 0
readq 0xfed00100 = 0x00f0000000008030
readq 0xfed00188 = 0xffffffffffffffff
clock +1s
readq 0xfed000f0 = 0
