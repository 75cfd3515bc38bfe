# The root file system is on a SATA disk.
long disk
guest generic
prepare tests/boot/mkdisk.sh build/boot/disk-ahci-root.img 64M root
flags -A -m 512M -s 4,ahci-hd,build/boot/disk-ahci-root.img
cmdline quiet root=/dev/sda
expect 300 disk: up on /dev/sda
expect disk:/# 
send sha256sum data >/sum; sync; echo root=$((40+2))=
expect root=42=
send mount -o remount,ro / && poweroff -f
expect reboot: Power down
status 1 60
host PATH=$PATH:/sbin:/usr/sbin; e2fsck -fn build/boot/disk-ahci-root.img && [ "$(debugfs -R 'cat /sum' build/boot/disk-ahci-root.img 2>/dev/null | cut -c 1-64)" = "$(sha256sum <build/boot/disk-ahci-root.img.data | cut -c 1-64)" ]
host rm -f build/boot/disk-ahci-root.img build/boot/disk-ahci-root.img.data
never Kernel panic
