# No I/O APIC: interrupts by the two 8259s.
long boot
guest cloud
flags -A -m 1G
cmdline quiet noapic
expect 300 xhyve: Linux 
expect xhyve:/# 
send echo pic=$(($(grep -c XT-PIC /proc/interrupts) > 0))=
expect pic=1=
send poweroff
expect reboot: Power down
status 1 60
never Kernel panic
