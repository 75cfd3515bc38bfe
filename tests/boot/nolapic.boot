# No local APIC either: the 8254 ticks.
long boot
guest cloud
flags -A -m 1G
cmdline quiet nolapic
expect 300 xhyve: Linux 
expect xhyve:/# 
send echo pic=$(($(grep -c XT-PIC /proc/interrupts) > 0))=
expect pic=1=
send poweroff
expect reboot: Power down
status 1 60
never Kernel panic
