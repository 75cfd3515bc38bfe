# The local APIC in x2APIC mode.
long boot
guest cloud
flags -A -x -m 1G
cmdline quiet
expect 300 xhyve: Linux 
expect xhyve:/# 
send echo x2apic=$(($(dmesg | grep -c x2apic) > 0))=
expect x2apic=1=
send echo flag=$(grep -c -w x2apic /proc/cpuinfo)=
expect flag=1=
send poweroff
expect reboot: Power down
status 1 60
never Kernel panic
