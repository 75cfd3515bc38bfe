# The PC's x87 error logic. FERR# itself comes from a processor: the system tests drive it.
device fpuerr
inb 0xf0 = 0xff               # write-only
expect irq 13 0
outb 0xf0 0
expect event ignne
expect irq 13 0
reset
expect none
