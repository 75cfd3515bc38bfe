# The generic kernel on three vCPUs, whose tables are the MP ones: a session, and a reboot.
long smp
guest generic
flags -c 3 -m 1G
cmdline 
expect 300 xhyve: Linux 
expect xhyve:/# 
send echo cpus=$(nproc)= mp=$(dmesg | grep -c "Intel MultiProcessor Specification")=
expect cpus=3= mp=1=
send reboot
status 0 60
never Kernel panic
