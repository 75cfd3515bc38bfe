# NVMe: ext4 read, written, trimmed, and clean on the host.
long disk
guest cloud
prepare tests/boot/mkdisk.sh build/boot/disk-nvme.img 128M
flags -A -m 512M -s 4,nvme,build/boot/disk-nvme.img,maxq=4
cmdline quiet
expect 300 xhyve: Linux 
send echo model=$(cat /sys/class/nvme/nvme0/model)=
expect model=xhyve-NVMe
include disk.inc
# discard has made it sparse: 32 MiB of the guest's files are gone, 12 are left
host [ $(du -k build/boot/disk-nvme.img | cut -f1) -lt 32768 ]
host tests/boot/fsck.sh build/boot/disk-nvme.img
