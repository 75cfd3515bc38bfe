# A CD: mounted, ejected by the guest, another image put in its place, and the guest sees that one.
long disk
guest generic
prepare build/tests/boot/mkiso build/boot/disk-ahci-cd.iso FIRST number=1
prepare build/tests/boot/mkiso build/boot/disk-ahci-cd.iso2 SECOND number=2
flags -A -m 512M -s 4,ahci-cd,build/boot/disk-ahci-cd.iso
cmdline quiet
expect 300 xhyve: Linux 
expect xhyve:/# 
send mount -t iso9660 -o ro /dev/sr0 /mnt && sed s/number/first/ /mnt/data.txt
expect first=1
send cd /proc/sys/dev/cdrom; echo 0 >autoclose; echo 1 >autoeject; umount /mnt && echo ejected=$((40+2))=; cd /
expect ejected=42=
send mount -t iso9660 -o ro /dev/sr0 /mnt || echo empty=$((40+3))=
expect empty=43=
# The first mount closes the tray, and Linux refuses to read a disc that it has not looked at again.
host mv build/boot/disk-ahci-cd.iso2 build/boot/disk-ahci-cd.iso
send cd /proc/sys/dev/cdrom; echo 1 >autoclose; echo 0 >autoeject; cd /; mount -t iso9660 -o ro /dev/sr0 /mnt || mount -t iso9660 -o ro /dev/sr0 /mnt; sed s/number/second/ /mnt/data.txt
expect second=2
send umount /mnt; echo label=$(dd if=/dev/sr0 bs=2048 skip=16 count=1 2>/dev/null | dd bs=1 skip=40 count=6 2>/dev/null)=
expect label=SECOND=
send echo errors=$(dmesg | grep -c -i -e "Call Trace")=
expect errors=0=
send poweroff
expect reboot: Power down
status 1 60
host rm -f build/boot/disk-ahci-cd.iso
never Kernel panic
