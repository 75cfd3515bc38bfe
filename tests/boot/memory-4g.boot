# Memory on both sides of the hole below 4 GiB.
long boot
guest cloud
flags -A -m 4G
cmdline quiet
expect 300 xhyve: Linux 
expect xhyve:/# 
send echo memory=$(($(grep MemTotal /proc/meminfo | tr -dc 0-9) > 3800000))=
expect memory=1=
send echo high=$(grep -c "^100000000-.*System RAM" /proc/iomem)=
expect high=1=
send poweroff
expect reboot: Power down
status 1 60
never Kernel panic
