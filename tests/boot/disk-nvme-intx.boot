# NVMe in Debian's generic kernel, without MSI and MSI-X: one interrupt wire for all queues.
long disk
guest generic
prepare tests/boot/mkdisk.sh build/boot/disk-nvme-intx.img 600M
flags -A -m 512M -s 4,nvme,build/boot/disk-nvme-intx.img,sectsz=4096
cmdline quiet pci=nomsi
expect 300 xhyve: Linux 
send echo wires=$(grep -c "IO-APIC.*nvme0q0, nvme0q1" /proc/interrupts)=
expect wires=1=
send echo block=$(cat /sys/block/nvme0n1/queue/logical_block_size)=
expect block=4096=
include disk.inc
host tests/boot/fsck.sh build/boot/disk-nvme-intx.img
