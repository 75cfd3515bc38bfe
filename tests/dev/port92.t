# System control port A: A20 gate and fast reset
device port92
inb 0x92 = 2                  # A20 open from the start
outb 0x92 2
expect none
outb 0x92 0
expect event a20 0
inb 0x92 = 0
outb 0x92 0xfe                # other bits are not there
expect event a20 1
inb 0x92 = 2
outb 0x92 3
expect event reset
inb 0x92 = 3
outb 0x92 3                   # only the edge
expect none
outb 0x92 2
outb 0x92 3
expect event reset
reset
inb 0x92 = 2
