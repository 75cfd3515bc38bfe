# ACPI tables that the guest is told not to read.
long boot
guest generic
flags -A -m 1G
cmdline acpi=off
expect 300 xhyve: Linux 
expect xhyve:/# 
send reboot
status 0 60
never Kernel panic
