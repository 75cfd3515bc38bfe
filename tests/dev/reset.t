# Reset control register 0xCF9: resets when bit 2 rises while bit 1 is set
device reset
inb 0xcf9 = 0
outb 0xcf9 2
expect none
inb 0xcf9 = 2
outb 0xcf9 6
expect event reset
inb 0xcf9 = 6
outb 0xcf9 6                  # no edge
expect none
outb 0xcf9 0
outb 0xcf9 0xe                # with a power cycle
expect event reset
inb 0xcf9 = 0xe
outb 0xcf9 0
outb 0xcf9 0xff
expect event reset
inb 0xcf9 = 0xe
outb 0xcf9 0
expect log guest 0
outb 0xcf9 4                  # the processor alone: needs firmware
expect none
expect log guest 1
reset
inb 0xcf9 = 0
