# A guest whose root file system is a virtio-scsi disk.
long disk
guest cloud
prepare tests/boot/mkdisk.sh build/boot/disk-virtio-scsi-root.img 64M root
flags -A -m 512M -s 4,virtio-scsi,build/boot/disk-virtio-scsi-root.img,ser=ROOT-DISK-1
cmdline quiet root=/dev/sda
expect 300 disk: up on /dev/sda
expect disk:/# 
send dd if=/dev/urandom of=/new bs=64k count=64 2>/dev/null; cp /data /copy; sha256sum new copy >sums; echo written=$((40+2))=
expect written=42=
send mount -o remount,ro / && echo clean=$((40+3))=
expect clean=43=
send poweroff -f
expect reboot: Power down
status 1 60
never Kernel panic
host tests/boot/fsck.sh build/boot/disk-virtio-scsi-root.img
