# virtio-scsi: what Linux finds out about the disk, then ext4 read, written, trimmed, and clean on the host.
long disk
guest cloud
prepare tests/boot/mkdisk.sh build/boot/disk-virtio-scsi.img 128M
flags -A -m 512M -s 4,virtio-scsi,build/boot/disk-virtio-scsi.img,ser=SCSI-DISK-1
cmdline quiet
expect 300 xhyve: Linux 
send cat /sys/block/sda/device/vendor /sys/block/sda/device/model; dmesg | grep "sd 0:0:0:0"
expect XHYVE
expect DISK
expect Write cache: enabled
send echo thin=$(cat /sys/block/sda/device/scsi_disk/*/provisioning_mode) turns=$(cat /sys/block/sda/queue/rotational)=
expect thin=unmap turns=0=
send echo serial=$(tail -c 11 /sys/block/sda/device/vpd_pg80)=
expect serial=SCSI-DISK-1=
include disk.inc
host tests/boot/fsck.sh build/boot/disk-virtio-scsi.img
