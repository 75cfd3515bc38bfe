# The kvm engine and a disk whose notifications are ioeventfds: ext4 read, written, trimmed, clean.
guest cloud
prepare tests/boot/mkdisk.sh build/boot/kvm-disk.img 128M
flags -A -m 512M --engine kvm -s 4,virtio-blk,build/boot/kvm-disk.img,iothread=1
cmdline quiet
expect 300 xhyve: Linux 
include disk.inc
host tests/boot/fsck.sh build/boot/kvm-disk.img
