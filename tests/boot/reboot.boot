# A reboot ends with status 0.
long boot
guest cloud
flags -A -m 1G
cmdline quiet
expect 300 xhyve: Linux 
expect xhyve:/# 
send reboot
expect reboot: Restarting system
status 0 60
never Kernel panic
