# All of low memory.
long boot
guest cloud
flags -A -m 3G
cmdline quiet
expect 300 xhyve: Linux 
expect xhyve:/# 
send echo memory=$(($(grep MemTotal /proc/meminfo | tr -dc 0-9) > 2800000))=
expect memory=1=
send poweroff
expect reboot: Power down
status 1 60
never Kernel panic
