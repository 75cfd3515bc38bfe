# Every message of the kernel on the console.
long boot
guest cloud
flags -A -m 1G
cmdline ignore_loglevel
expect 300 xhyve: Linux 
expect xhyve:/# 
send echo lines=$(($(dmesg | wc -l) > 200))=
expect lines=1=
send poweroff
expect reboot: Power down
status 1 60
never Kernel panic
