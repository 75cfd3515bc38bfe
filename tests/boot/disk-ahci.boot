# A SATA disk behind AHCI: ext4 read, written, trimmed, and clean on the host.
long disk
guest generic
prepare tests/boot/mkdisk.sh build/boot/disk-ahci.img 128M
flags -A -m 512M -s 4,ahci-hd,build/boot/disk-ahci.img,ser=TEST-7
cmdline quiet
expect 300 xhyve: Linux 
send echo queue=$(cat /sys/block/sda/device/queue_depth)= lines=$(grep -c 'PCI-MSI.*ahci' /proc/interrupts)=
expect queue=32= lines=1=
send echo serial=$(dd if=/sys/block/sda/device/vpd_pg80 bs=1 skip=4 2>/dev/null | tr -d ' ')=
expect serial=TEST-7=
include disk.inc
host tests/boot/fsck.sh build/boot/disk-ahci.img
