# A panic is reported and ends with status 4.
long boot
guest cloud
flags -A -m 1G
cmdline quiet
expect 300 xhyve: Linux 
expect xhyve:/# 
send echo c >/proc/sysrq-trigger
expect Kernel panic
status 4 60
