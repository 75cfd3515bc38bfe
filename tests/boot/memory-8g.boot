# Much memory; only what the guest touches costs the host.
long boot
guest cloud
flags -A -m 8G
cmdline quiet
expect 300 xhyve: Linux 
expect xhyve:/# 
send echo memory=$(($(grep MemTotal /proc/meminfo | tr -dc 0-9) > 7700000))=
expect memory=1=
send poweroff
expect reboot: Power down
status 1 60
never Kernel panic
