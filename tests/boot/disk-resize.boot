# Disks of three kinds become larger while the guest runs.
long disk
guest generic
prepare rm -f build/boot/resize-1.img build/boot/resize-2.img build/boot/resize-3.img
prepare truncate -s 16M build/boot/resize-1.img build/boot/resize-2.img build/boot/resize-3.img
flags -A -m 512M -s 4,virtio-blk,build/boot/resize-1.img -s 5,nvme,build/boot/resize-2.img -s 6,virtio-scsi,build/boot/resize-3.img
cmdline quiet
expect 300 xhyve:/# 
send cd /sys/block; echo sizes=$(cat vda/size nvme0n1/size sda/size)=
expect sizes=32768 32768 32768=
host truncate -s 24M build/boot/resize-1.img build/boot/resize-2.img build/boot/resize-3.img
signal USR1
send sleep 1; echo 1 >sda/device/rescan; sleep 1; echo sizes=$(cat vda/size nvme0n1/size sda/size)=
expect sizes=49152 49152 49152=
send dd if=/dev/zero of=/dev/vda bs=1M seek=16 count=8 2>/dev/null && dd if=/dev/zero of=/dev/nvme0n1 bs=1M seek=16 count=8 2>/dev/null && echo written=$((40+2))=
expect written=42=
send poweroff
expect reboot: Power down
status 1 60
host rm build/boot/resize-1.img build/boot/resize-2.img build/boot/resize-3.img
