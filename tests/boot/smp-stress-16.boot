# Threads against each other on 16 vCPUs: tests/guest/smp_stress.c.
long smp
guest cloud
prepare cp build/tests/guest/smp_stress build/boot/smp-stress-16.img && truncate -s 2M build/boot/smp-stress-16.img
flags -A -c 16 -m 1G -s 4,virtio-blk,build/boot/smp-stress-16.img
cmdline quiet
include shell.inc
send cat /dev/vda >/tmp/smp_stress; chmod +x /tmp/smp_stress; /tmp/smp_stress 3
expect 300 all is well
include end-by-button.inc
never FAIL
