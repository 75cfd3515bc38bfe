# The clock source hpet.
long boot
guest cloud
flags -A -m 1G
cmdline quiet clocksource=hpet
expect 300 xhyve: Linux 
expect xhyve:/# 
send cat /sys/devices/system/clocksource/clocksource0/current_clocksource
expect \x0ahpet
clock 5
send sleep 2; echo slept=$((1+1))=
expect slept=2=
clock 5
send poweroff
expect reboot: Power down
status 1 60
never Kernel panic
