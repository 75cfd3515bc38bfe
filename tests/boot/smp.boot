# Four vCPUs: a session, one that is taken away and comes back, the power button.
quick
guest cloud
flags -A -c 4 -m 1G
cmdline quiet
include session.inc
send echo cpus=$(nproc)=
expect cpus=4=
send for i in 0 1; do echo 0 >/sys/devices/system/cpu/cpu2/online; echo online=$(cat /sys/devices/system/cpu/online)=; echo 1 >/sys/devices/system/cpu/cpu2/online; done
expect online=0-1,3=
expect online=0-1,3=
send echo online=$(cat /sys/devices/system/cpu/online)= unstable=$(dmesg | grep -ci unstable)=
expect online=0-3= unstable=0=
include end-by-button.inc
