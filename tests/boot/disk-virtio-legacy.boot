# The same with the legacy interface, and INTx.
long disk
guest cloud
prepare tests/boot/mkdisk.sh build/boot/disk-virtio-legacy.img 128M
flags -A -m 512M -s 4,virtio-blk,build/boot/disk-virtio-legacy.img,packed=off
cmdline quiet virtio_pci.force_legacy=1 pci=nomsi
expect 300 xhyve: Linux 
send echo packed=$(cut -c 35 /sys/block/vda/device/features)=
expect packed=0=
send echo legacy=$(cut -c 33 /sys/block/vda/device/features)=
expect legacy=0=
include disk.inc
host tests/boot/fsck.sh build/boot/disk-virtio-legacy.img
