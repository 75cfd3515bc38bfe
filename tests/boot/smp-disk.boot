# Four vCPUs and a disk with a queue for each: ext4 read, written, trimmed, clean.
long smp
guest cloud
prepare tests/boot/mkdisk.sh build/boot/smp-disk.img 128M
flags -A -c 4 -m 512M -s 4,virtio-blk,build/boot/smp-disk.img,iothread=1
cmdline quiet
expect 300 xhyve: Linux 
include disk.inc
host tests/boot/fsck.sh build/boot/smp-disk.img
