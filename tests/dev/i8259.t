# Two 8259A, cascaded on the master's input 2, and the ELCR
device i8259

# Power-on: no vectors yet, so nothing gets through
irq 4 1
expect pic 0
inb 0x20 = 0x10                # but the request is seen
irq 4 0

# Initialise: master at 0x20, slave at 0x28
outb 0x20 0x11
outb 0x21 0x20
outb 0x21 0x04
outb 0x21 0x01
outb 0xa0 0x11
outb 0xa1 0x28
outb 0xa1 0x02
outb 0xa1 0x01
inb 0x20 = 0                   # ICW1 cleared the latched edge
inb 0x21 = 0                   # and the mask
inb 0xa1 = 0
expect pic 0

# An edge: request, INTA, service, EOI
irq 3 1
expect pic 1
inb 0x20 = 0x08                # IRR
ack = 0x23
expect pic 0
inb 0x20 = 0
outb 0x20 0x0b                 # read ISR from now on
inb 0x20 = 0x08
inb 0x20 = 0x08
outb 0x20 0x0a                 # IRR
inb 0x20 = 0
outb 0x20 0x20                 # EOI
outb 0x20 0x0b
inb 0x20 = 0
expect pic 0                   # the line is still high: no new edge
irq 3 0
irq 3 1
expect pic 1
irq 3 0                        # a pulse stays latched
expect pic 1
ack = 0x23
outb 0x20 0x20

# Fully nested: 0 is highest
irq 5 1
irq 1 1
ack = 0x21
expect pic 0                   # 5 waits for 1
irq 0 1
expect pic 1                   # 0 does not
ack = 0x20
inb 0x20 = 0x03
outb 0x20 0x20                 # non-specific EOI: ends 0
inb 0x20 = 0x02
expect pic 0
outb 0x20 0x61                 # specific EOI of 1
expect pic 1
ack = 0x25
outb 0x20 0x60                 # specific EOI of another
inb 0x20 = 0x20
outb 0x20 0x65
inb 0x20 = 0
irq 0 0
irq 1 0
irq 5 0

# Mask
outb 0x21 0x08
inb 0x21 = 0x08
irq 3 1
expect pic 0
outb 0x20 0x0a
inb 0x20 = 0x08                # IRR does not show the mask
outb 0x21 0
expect pic 1
# Masked between INT and INTA: spurious 7, with no service bit
outb 0x21 0x08
expect pic 0
ack = 0x27
outb 0x20 0x0b
inb 0x20 = 0
outb 0x21 0
ack = 0x23
outb 0x20 0x20
irq 3 0

# Cascade
irq 12 1
expect pic 1
outb 0x20 0x0a
inb 0x20 = 0x04
inb 0xa0 = 0x10
ack = 0x2c
outb 0x20 0x0b
outb 0xa0 0x0b
inb 0x20 = 0x04
inb 0xa0 = 0x10
irq 3 1
expect pic 0                   # 12 ranks as 2
irq 1 1
expect pic 1
ack = 0x21
outb 0x20 0x61
irq 9 1
expect pic 0                   # above 12, but the master serves 2 already
outb 0xa0 0x20
expect pic 0
outb 0x20 0x20
expect pic 1
ack = 0x29
outb 0xa0 0x20
outb 0x20 0x20
ack = 0x23
outb 0x20 0x20
expect pic 0
irq 12 0
irq 9 0
irq 1 0
irq 3 0

# Two of the slave's one after the other, in automatic EOI of the slave's service
irq 10 1
irq 14 1
ack = 0x2a
outb 0x20 0x62
expect pic 0                   # 10 still in service in the slave
outb 0xa0 0x62
expect pic 1
ack = 0x2e
outb 0xa0 0x66
outb 0x20 0x62
irq 10 0
irq 14 0

# ELCR: not 0, 1, 2, 8, 13
outb 0x4d0 0xff
inb 0x4d0 = 0xf8
outb 0x4d1 0xff
inb 0x4d1 = 0xde
expect log guest 2
outw 0x4d0 0x0a20              # levels 5, 9, 11
inw 0x4d0 = 0x0a20
expect log guest 0

# Level: the request follows the line
irq 5 1
ack = 0x25
expect pic 0
outb 0x20 0x20
expect pic 1                   # still high, so again
irq 5 0
expect pic 0
ack = 0x27                     # gone: spurious
inb 0x20 = 0
# On the slave: spurious 15, and the master does serve 2
irq 11 1
irq 11 0
expect pic 1                   # the cascade is an edge the master has latched
ack = 0x2f
inb 0xa0 = 0
inb 0x20 = 0x04
outb 0x20 0x20
expect pic 0
# Wired-or is the router's; a level input that turns to edge begins without a request
irq 9 1
expect pic 1
outb 0x4d1 0
inb 0x4d1 = 0
outb 0xa0 0x0a
inb 0xa0 = 0
ack = 0x2f
outb 0x20 0x20
outb 0x4d0 0
irq 9 0

# Rotation on non-specific EOI: what was served becomes the lowest
irq 4 1
ack = 0x24
outb 0x20 0xa0
inb 0x20 = 0
irq 4 0
irq 4 1
irq 5 1
ack = 0x25                     # 5 is the highest now
outb 0x20 0x20
irq 7 1
ack = 0x27
outb 0x20 0x20
ack = 0x24
outb 0x20 0x20
irq 4 0
irq 5 0
irq 7 0
# Set priority: 7 lowest again
outb 0x20 0xc7
irq 4 1
irq 3 1
ack = 0x23
# Rotation on specific EOI
outb 0x20 0xe3                 # ends 3 and makes it the lowest
inb 0x20 = 0
irq 3 0
irq 3 1
ack = 0x24
expect pic 0
outb 0x20 0x20
ack = 0x23
outb 0x20 0xe7                 # 7 was not served; the lowest all the same
outb 0x20 0x63
inb 0x20 = 0
irq 3 0
irq 4 0
outb 0x20 0x40                 # no operation
inb 0x20 = 0

# Special mask: a masked level in service holds nobody back
irq 2 1                        # nothing is wired there
expect pic 0
irq 2 0
irq 4 1
ack = 0x24
irq 6 1
expect pic 0
outb 0x21 0x10
expect pic 0
outb 0x20 0x68
expect pic 1
ack = 0x26
outb 0x20 0x20                 # non-specific: does not reach the masked 4
outb 0x20 0x0b
inb 0x20 = 0x10
irq 0 1
ack = 0x20
outb 0x20 0x20
outb 0x20 0x48                 # back to normal
outb 0x21 0
irq 6 0
irq 6 1
expect pic 0
outb 0x20 0x20
ack = 0x26
outb 0x20 0x20
irq 0 0
irq 4 0
irq 6 0

# Poll: the read is the INTA
outb 0x20 0x0c
inb 0x20 = 0                   # nothing
irq 6 1
outb 0x20 0x0c
inb 0x20 = 0x86
expect pic 0
inb 0x20 = 0x40                # reads ISR again
outb 0x20 0x20
irq 6 0
irq 13 1
outb 0x20 0x0c
inb 0x21 = 0x82                # either port
outb 0xa0 0x0c
inb 0xa0 = 0x85
inb 0x21 = 0
outb 0xa0 0x20
outb 0x20 0x20
irq 13 0
expect pic 0

# Automatic EOI, with rotation
outb 0x20 0x11
outb 0x21 0x40
outb 0x21 0x04
outb 0x21 0x03
irq 3 1
irq 4 1
ack = 0x43
outb 0x20 0x0b
inb 0x20 = 0
expect pic 1
ack = 0x44
irq 3 0
irq 4 0
outb 0x20 0x80                 # rotate in automatic EOI
irq 3 1
ack = 0x43
irq 3 0
irq 3 1
irq 4 1
ack = 0x44                     # 3 went to the end
ack = 0x43
outb 0x20 0x00
irq 3 0
irq 4 0

# Special fully nested: the slave's higher request passes its lower one
outb 0x20 0x11
outb 0x21 0x20
outb 0x21 0x04
outb 0x21 0x11
irq 12 1
ack = 0x2c
irq 14 1
expect pic 0                   # lower
irq 10 1
expect pic 1                   # higher
ack = 0x2a
irq 3 1
expect pic 0                   # below 2 still waits
irq 3 0
outb 0xa0 0x62
outb 0x20 0x62
outb 0xa0 0x64
outb 0x20 0x62
expect pic 1
ack = 0x2e                     # before 3, whose latch remains
outb 0xa0 0x66
outb 0x20 0x62
ack = 0x23
outb 0x20 0x63
irq 12 0
irq 14 0
irq 10 0

# Automatic EOI in the slave: its next request is a new edge for the master
outb 0xa0 0x11
outb 0xa1 0x28
outb 0xa1 0x02
outb 0xa1 0x03
irq 10 1
irq 14 1
ack = 0x2a
outb 0x20 0x62
expect pic 1
ack = 0x2e
outb 0x20 0x62
expect pic 0
irq 10 0
irq 14 0

# ICW1 while a line is high: it must fall and rise again, unless it is level
outb 0x4d0 0x20
irq 4 1
irq 5 1
outb 0x20 0x11
expect pic 0                   # not before it is complete
outb 0x21 0x50
outb 0x21 0x04
expect pic 0
outb 0x21 0x01
outb 0x20 0x0a
inb 0x20 = 0x20
ack = 0x55
outb 0x20 0x20
irq 5 0
irq 4 0
expect pic 0

# Mistakes: single, wrong wiring, MCS-80 mode; then without ICW4
expect log guest 0
outb 0x20 0x1a                 # LTIM, SNGL, no ICW4
outb 0x21 0x37                 # the low bits do not count
expect log guest 3
irq 1 1
ack = 0x31
outb 0x20 0x0b
inb 0x20 = 0x02                # without ICW4: no automatic EOI
irq 1 0
expect pic 0                   # an edge all the same
outb 0x20 0x20
irq 1 1
irq 1 0
expect pic 1
ack = 0x31
outb 0x20 0x20
outb 0x20 0x11
outb 0x21 0x30
outb 0x21 0x08
outb 0x21 0x00
expect log guest 2
outb 0x4d0 0
# OCWs in the middle of an initialisation: OCW3 works, and the sequence goes on
outb 0x20 0x11
outb 0x20 0x0b
outb 0x21 0x20
outb 0x20 0x0a
outb 0x21 0x04
irq 5 1
expect pic 0                   # not before ICW4
inb 0x20 = 0x20
outb 0x21 0x01
expect pic 1
ack = 0x25
# A new ICW1 in the middle begins anew
outb 0x20 0x11
outb 0x21 0x60
outb 0x20 0x11
outb 0x21 0x70
outb 0x21 0x04
outb 0x21 0x01
inb 0x20 = 0                   # ISR is clear, and the high line is no new edge
expect pic 0
irq 5 0
irq 5 1
ack = 0x75
# Poll outranks reading ISR in one OCW3; specific EOI by number while others are in service
outb 0x20 0x0f
inb 0x20 = 0
irq 0 1
outb 0x20 0x0e
inb 0x20 = 0x80
outb 0x20 0x0b
inb 0x20 = 0x21
outb 0x20 0x65
inb 0x20 = 0x01
outb 0x20 0x20
inb 0x20 = 0
irq 0 0
irq 5 0

# Every place in the rotation: with input N the lowest, N + 1 is the highest
irq 0 1
irq 1 1
irq 3 1
irq 4 1
irq 5 1
irq 6 1
irq 7 1
outb 0x20 0xc3
ack = 0x74
outb 0x20 0x20
ack = 0x75
outb 0x20 0x20
ack = 0x76
outb 0x20 0x20
ack = 0x77
outb 0x20 0x20
ack = 0x70
outb 0x20 0x20
ack = 0x71
outb 0x20 0x20
ack = 0x73
outb 0x20 0x20
expect pic 0
outb 0x20 0xc7
irq 0 0
irq 1 0
irq 3 0
irq 4 0
irq 5 0
irq 6 0
irq 7 0

# Spurious interrupts of a level input masked meanwhile: no service bit, in either chip
outb 0xa0 0x11
outb 0xa1 0x78
outb 0xa1 0x02
outb 0xa1 0x01
outb 0x4d1 0x04
irq 10 1
expect pic 1
outb 0xa1 0x04
expect pic 1
ack = 0x7f
outb 0xa0 0x0b
inb 0xa0 = 0
outb 0x20 0x0b
inb 0x20 = 0x04
outb 0x20 0x62
outb 0xa1 0
ack = 0x7a
inb 0xa0 = 0x04
outb 0xa0 0x62
outb 0x20 0x62
irq 10 0
ack = 0x7f                     # high again between the EOIs, gone by now
outb 0x20 0x62
outb 0x4d1 0
expect pic 0
expect log guest 0

# Reset: cold again, the lines as they are
irq 7 1
expect pic 1
reset
expect pic 0
inb 0x4d0 = 0
inb 0x21 = 0
expect irq 7 1

# ICW1 clears the mask
irq 7 0
outb 0x21 0xff
inb 0x21 = 0xff
outb 0x20 0x11
inb 0x21 = 0
