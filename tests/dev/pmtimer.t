# 3.579545 MHz, 32 bits, read-only (ACPI, Power Management Timer)
device pmtimer
inl 0x408 = 0
clock +1s
inl 0x408 = 3579545
inw 0x408 = 0x9e99
inb 0x409 = 0x9e              # second byte of 0x369e99
inb 0x40b = 0
outl 0x408 0                  # dropped
inl 0x408 = 3579545
clock +1ms
inl 0x408 = 3583124
clock +1198999ms              # 1200 s: wrapped once
inl 0x408 = 486704
expect log guest 1
reset
inl 0x408 = 0
clock +280ns                  # the first count comes after 279.4 ns
inl 0x408 = 1
