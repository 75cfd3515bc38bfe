# The same by INTx, without a write cache, at the second port.
long disk
guest generic
prepare tests/boot/mkdisk.sh build/boot/disk-ahci-intx.img 128M
flags -A -m 512M -s 4,ahci,cd:,hd:build/boot/disk-ahci-intx.img
cmdline quiet pci=nomsi
expect 300 xhyve: Linux 
expect xhyve:/# 
send echo lines=$(grep -c 'IO-APIC.*ahci' /proc/interrupts)=
expect lines=1=
send cd /sys/class/scsi_disk/[0-9]*; echo 'write through' >cache_type; echo cache=$(tr ' ' - <cache_type)=; cd /
expect cache=write-through=
include disk.inc
host tests/boot/fsck.sh build/boot/disk-ahci-intx.img
