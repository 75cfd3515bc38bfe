#!/bin/sh
# Makes the guest's initramfs:
#     [MORE="MODULE..."] tools/initramfs.sh BUSYBOX_ROOT KERNEL_ROOT OUTPUT [OWN_BUSYBOX_ROOT]
# from two unpacked packages: busybox, the modules the machine's devices need, and an /init that ends
# in a shell on the console, or, with root=/dev/NAME on the kernel's command line, in /sbin/init of that
# disk (ext4). It is not compressed: the guest would have to unpack it. The guest's
# busybox may be of another architecture; the last one runs here and says what applets there are.
set -eu
busybox=$1
kernel=$2
out=$3
own=${4:-$busybox}
[ -x "$busybox/bin/busybox" ] && busybox=$busybox/bin/busybox || busybox=$busybox/usr/bin/busybox
[ -x "$own/bin/busybox" ] && own=$own/bin/busybox || own=$own/usr/bin/busybox

tree=$out.tree
rm -rf "$tree"
trap 'rm -rf "$tree" "$out.new"' EXIT
mkdir -p "$tree/bin" "$tree/dev" "$tree/proc" "$tree/sys" "$tree/tmp" "$tree/root" "$tree/mnt" \
    "$tree/var/run" "$tree/var/log" "$tree/etc/acpi/PWRF" "$tree/lib/modules"
cp "$busybox" "$tree/bin/busybox"
for applet in $("$own" --list); do
    case $applet in
    busybox) ;;
    *) ln -s busybox "$tree/bin/$applet" ;;
    esac
done

# ---- modules: by name and in order, each after what it depends on ----
modules="virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio-rng
    button evdev pvpanic pvpanic-mmio"
# Loaded where there is a controller of disks: not every guest should wait for them.
disk_modules="virtio_blk sd_mod virtio_scsi ext4 crc32c_generic ahci sr_mod isofs nvme
    ${MORE-}"
order=" "

# A module's name has '_' where its file may have '-'.
find_module() {
    find "$kernel" -name "$(echo "$1" | sed 's/[-_]/[-_]/g').ko*" | sed -n 1p
}

add_module() { # NAME; one that is built in has no file and is passed over
    case $order in *" $1 "*) return ;; esac
    add_file=$(find_module "$1")
    [ -n "$add_file" ] || return 0
    case $add_file in
    *.ko) cp "$add_file" "$tree/lib/modules/$1.ko" ;;
    *.ko.xz) xz -dc "$add_file" >"$tree/lib/modules/$1.ko" ;;
    *.ko.zst) zstd -qdc "$add_file" >"$tree/lib/modules/$1.ko" ;;
    *)
        echo "initramfs: $add_file: unknown compression" >&2
        exit 1
        ;;
    esac
    # The package has no modules.dep (its installation would make it): the module itself says.
    for dependency in $(tr '\0' '\n' <"$tree/lib/modules/$1.ko" |
        sed -n 's/^depends=//p' | sed -n 1p | tr ',-' ' _'); do
        add_module "$dependency"
    done
    order="$order$1 "
}

for module in $modules; do
    add_module "$(echo "$module" | tr - _)"
done
printf '%s\n' $order >"$tree/lib/modules/order"
first=$order
for module in $disk_modules; do
    add_module "$module"
done
printf '%s\n' ${order#"$first"} >"$tree/lib/modules/order.disk"

# ---- /init and what ends the guest ----
cat >"$tree/init" <<'INIT'
#!/bin/sh
export PATH=/bin ENV=/etc/shrc HOME=/root TERM="${TERM:-vt100}" PS1='xhyve:\w# '
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
hostname xhyve
# Parameters come from the kernel's command line, as MODULE.NAME=VALUE.
load() {
    while read -r module; do
        [ -n "$module" ] || continue
        # shellcheck disable=SC2046
        insmod "/lib/modules/$module.ko" \
            $(tr ' ' '\n' </proc/cmdline | sed -n "s/^$module\.//p") 2>/tmp/insmod ||
            echo "init: $module: $(cat /tmp/insmod)" >/dev/kmsg
    done <"/lib/modules/$1"
}
load order
# PCI class 01: mass storage
! grep -q ^0x01 /sys/bus/pci/devices/*/class 2>/dev/null || load order.disk
root=$(sed -n 's|.*\<root=\(/dev/[^ ]*\).*|\1|p' /proc/cmdline)
if [ -n "$root" ]; then
    for wait in 1 2 3 4 5 6 7 8 9 10; do
        [ -b "$root" ] && break
        sleep 1
    done
    if mount -t ext4 "$root" /mnt; then
        umount /sys /proc
        exec switch_root /mnt /sbin/init
    fi
    echo "init: $root cannot be mounted" >/dev/kmsg
fi
# the power button; it reads /dev/input, which ACPI tables bring about
[ ! -e /dev/input ] || acpid
read -r up idle </proc/uptime
echo
echo "xhyve: Linux $(uname -r), up after $up s. 'poweroff', 'reboot' and 'halt' end it."
cd /
exec init
INIT
# init starts each shell with its signals as they should be, in a session of its own; cttyhack finds
# the console's real terminal, so that Ctrl-C and job control work.
echo '::respawn:cttyhack /bin/sh' >"$tree/etc/inittab"
# There is nothing to shut down in order, and init would take two seconds for it.
for word in poweroff reboot halt; do
    echo "alias $word='busybox $word -f'"
done >"$tree/etc/shrc"
printf '#!/bin/sh\nexec busybox poweroff -f\n' >"$tree/etc/acpi/PWRF/00000080"
chmod 755 "$tree/init" "$tree/etc/acpi/PWRF/00000080"

(cd "$tree" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$out.new"
mv "$out.new" "$out"
echo "initramfs: $out, $(($(wc -c <"$out") / 1024)) KiB, modules:$order"
