#!/bin/sh
# Makes an ext4 image for the scenarios of disks, with a file to compare:
#     tests/boot/mkdisk.sh OUTPUT SIZE [root]
# root: with busybox and a /sbin/init, to boot from. Needs no rights.
set -eu
out=$1
busybox=build/guest/busybox
[ -x "$busybox/bin/busybox" ] && busybox=$busybox/bin/busybox || busybox=$busybox/usr/bin/busybox
tree=$out.tree
rm -rf "$tree" "$out"
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree/bin" "$tree/sbin" "$tree/etc" "$tree/dev" "$tree/proc" "$tree/sys" "$tree/tmp"
dd if=/dev/urandom of="$tree/data" bs=1M count=4 status=none
if [ "${3-}" = root ]; then
    cp "$busybox" "$tree/bin/busybox"
    for applet in $("$busybox" --list); do
        [ "$applet" = busybox ] || ln -s busybox "$tree/bin/$applet"
    done
    cat >"$tree/sbin/init" <<'INIT'
#!/bin/sh
export PATH=/bin PS1='disk:\w# '
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mount -o remount,rw /
echo "disk: up on $(sed -n 's|^\(/dev/[^ ]*\) / .*|\1|p' /proc/mounts)"
exec setsid cttyhack sh
INIT
    chmod 755 "$tree/sbin/init"
fi
PATH=$PATH:/sbin:/usr/sbin
mke2fs -q -F -t ext4 -E root_owner=0:0 -d "$tree" "$out" "$2" >/dev/null
cp "$tree/data" "$out.data"
