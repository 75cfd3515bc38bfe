# A halt ends with status 2.
long boot
guest cloud
flags -A -m 1G
cmdline quiet
expect 300 xhyve: Linux 
expect xhyve:/# 
send halt
expect reboot: System halted
status 2 60
never Kernel panic
