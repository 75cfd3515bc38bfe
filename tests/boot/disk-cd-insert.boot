# A CD changed by xhyvectl while the guest runs: refused while it is mounted, done, forced, taken out; a disk grows.
long disk
guest generic
prepare build/tests/boot/mkiso build/boot/cd-insert-1.iso FIRST number=1
prepare build/tests/boot/mkiso 'build/boot/cd insert 2.iso' SECOND number=2
prepare rm -f build/boot/cd-insert.img && truncate -s 16M build/boot/cd-insert.img
flags -A -m 512M -s 4,ahci-cd,build/boot/cd-insert-1.iso -s 5,virtio-blk,build/boot/cd-insert.img --control build/boot/cd-insert.sock
cmdline quiet
expect 300 xhyve: Linux 
expect xhyve:/# 
send mount -t iso9660 -o ro /dev/sr0 /mnt && sed s/number/first/ /mnt/data.txt
expect first=1
# A mounted disc is locked.
host ! build/xhyvectl --socket=build/boot/cd-insert.sock insert 4 'build/boot/cd insert 2.iso' 2>build/boot/cd-insert.said && grep -q 'the guest has locked the drive' build/boot/cd-insert.said
send sed s/number/still/ /mnt/data.txt; umount /mnt && echo free=$((40+2))=
expect still=1
expect free=42=
host build/xhyvectl --socket=build/boot/cd-insert.sock insert 4 'build/boot/cd insert 2.iso'
# Linux refuses to read a disc that it has not looked at again.
send mount -t iso9660 -o ro /dev/sr0 /mnt || mount -t iso9660 -o ro /dev/sr0 /mnt; sed s/number/second/ /mnt/data.txt
expect second=2
# By force, under the mounted file system.
host build/xhyvectl --socket=build/boot/cd-insert.sock insert 0:4:0.0 build/boot/cd-insert-1.iso --force
send umount /mnt; mount -t iso9660 -o ro /dev/sr0 /mnt || mount -t iso9660 -o ro /dev/sr0 /mnt; sed s/number/third/ /mnt/data.txt
expect third=1
send umount /mnt && echo free=$((40+3))=
expect free=43=
host build/xhyvectl --socket=build/boot/cd-insert.sock eject 4
send mount -t iso9660 -o ro /dev/sr0 /mnt || mount -t iso9660 -o ro /dev/sr0 /mnt || echo empty=$((40+4))=
expect empty=44=
host truncate -s 24M build/boot/cd-insert.img && build/xhyvectl --socket=build/boot/cd-insert.sock refresh
send sleep 1; echo size=$(cat /sys/block/vda/size)=
expect size=49152=
send echo errors=$(dmesg | grep -c -i -e "Call Trace")=
expect errors=0=
send poweroff
expect reboot: Power down
status 1 60
host test ! -e build/boot/cd-insert.sock && rm -f build/boot/cd-insert* 'build/boot/cd insert 2.iso'
never Kernel panic
