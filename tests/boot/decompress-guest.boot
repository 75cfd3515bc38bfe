# The kernel unpacks itself.
long boot
guest cloud
flags -A -m 1G -o boot.decompress=guest
cmdline quiet
expect 300 xhyve: Linux 
expect xhyve:/# 
send poweroff
expect reboot: Power down
status 1 60
never Kernel panic
