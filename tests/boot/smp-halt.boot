# A halt of four vCPUs, of which three are stopped by the first, ends with status 2.
long smp
guest cloud
flags -A -c 4 -m 1G
cmdline quiet
expect 300 xhyve: Linux 
expect xhyve:/# 
send halt
expect reboot: System halted
status 2 60
never Kernel panic
