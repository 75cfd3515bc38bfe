# virtio-blk by the modules of Debian's generic kernel.
long disk
guest generic
prepare tests/boot/mkdisk.sh build/boot/disk-virtio-generic.img 128M
flags -A -m 512M -s 4,virtio-blk,build/boot/disk-virtio-generic.img
cmdline quiet
expect 300 xhyve: Linux 
include disk.inc
host tests/boot/fsck.sh build/boot/disk-virtio-generic.img
