# A qcow2 image with a thread of its own: ext4 read, written, trimmed; the image is whole, the file
# system clean.
long disk
guest cloud
prepare tests/boot/mkdisk.sh build/boot/disk-qcow2.raw 128M
prepare rm -f build/boot/disk-qcow2.img
prepare build/xhyvectl image convert -O qcow2 build/boot/disk-qcow2.raw build/boot/disk-qcow2.img
flags -A -m 512M -s 4,virtio-blk,build/boot/disk-qcow2.img,iothread=1
cmdline quiet
expect 300 xhyve: Linux 
include disk.inc
host build/xhyvectl image check build/boot/disk-qcow2.img
host ! command -v qemu-img >/dev/null || qemu-img check -q build/boot/disk-qcow2.img
host rm build/boot/disk-qcow2.raw
host build/xhyvectl image convert -O raw build/boot/disk-qcow2.img build/boot/disk-qcow2.raw
host tests/boot/fsck.sh build/boot/disk-qcow2.raw
host rm build/boot/disk-qcow2.img
