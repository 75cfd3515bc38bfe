# virtio-blk with packed rings: ext4 read, written, trimmed, and clean on the host.
long disk
guest cloud
prepare tests/boot/mkdisk.sh build/boot/disk-virtio.img 128M
flags -A -m 512M -s 4,virtio-blk,build/boot/disk-virtio.img
cmdline quiet
expect 300 xhyve: Linux 
send echo packed=$(cut -c 35 /sys/block/vda/device/features)=
expect packed=1=
include disk.inc
host tests/boot/fsck.sh build/boot/disk-virtio.img
