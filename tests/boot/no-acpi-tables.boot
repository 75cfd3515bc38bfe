# No ACPI: the generic kernel reads the MP table.
long boot
guest generic
flags -m 1G
cmdline 
expect 300 xhyve: Linux 
expect xhyve:/# 
send echo mp=$(dmesg | grep -c "Intel MultiProcessor Specification")=
expect mp=1=
send echo apic=$(($(grep -c IO-APIC /proc/interrupts) > 0))=
expect apic=1=
send reboot
status 0 60
never Kernel panic
