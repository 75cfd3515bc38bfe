# pvpanic: panicked, crash kernel loaded
device pvpanic
inb 0x505 = 3
outb 0x505 1
expect event panic
outb 0x505 2
expect event crashloaded
outb 0x505 3                  # the worse of the two
expect event panic
expect none
outb 0x505 0
expect none
expect log guest 0
outb 0x505 4
expect none
expect log guest 1
inb 0x505 = 3
