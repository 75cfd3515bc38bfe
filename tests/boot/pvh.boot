# Debian's cloud kernel by its PVH entry, out of its bzImage.
long boot
guest cloud
boot pvh
cmdline quiet
expect 300 xhyve: Linux 
expect xhyve:/# 
send echo acpi=$(dmesg | grep -c "ACPI: Interpreter enabled")=
expect acpi=1=
send poweroff
expect reboot: Power down
status 1 60
never Kernel panic
