#!/bin/sh
# Fetches a guest: Debian's kernel package and busybox-static, downloaded and unpacked under
# build/guest, never installed, and an initramfs made of them.
#     tools/guest.sh cloud|generic|xen
# leaves build/guest/NAME/vmlinuz and build/guest/NAME/initrd; of xen, the
# hypervisor in place of the kernel, and no initrd. The second call needs no network.
set -eu
cd "$(dirname "$0")/.."
top=$PWD
name=${1:-cloud}
case $name in
cloud) meta=linux-image-cloud-amd64 ;;
generic) meta=linux-image-amd64 ;;
xen) meta=xen-system-amd64 ;;
*)
    echo "usage: tools/guest.sh cloud|generic|xen" >&2
    exit 2
    ;;
esac
store=build/guest
dir=$store/$name
mkdir -p "$store"

# As root apt would warn that its sandbox user cannot write here; the signatures are checked anyway.
apt_options="-o APT::Sandbox::User=root"

say() {
    echo "guest: $*"
}

# The system's package lists as they are; failing that, lists of our own, which need no root.
own_lists() {
    say "updating the package lists"
    mkdir -p "$store/apt/lists/partial" "$store/apt/cache/archives/partial"
    apt_options="$apt_options -o Dir::State::Lists=$top/$store/apt/lists"
    apt_options="$apt_options -o Dir::Cache=$top/$store/apt/cache"
    # shellcheck disable=SC2086
    apt-get $apt_options update
}

# The kernel package behind a name such as linux-image-amd64 or xen-system-amd64.
resolve() {
    # shellcheck disable=SC2086
    apt-cache $apt_options depends --important "$1" 2>/dev/null |
        sed -n 's/^ *|*Depends: \(linux-image-[0-9][^ ]*\)$/\1/p; s/^ *|*Depends: \(xen-hypervisor-[0-9][^ ]*\)$/\1/p' | sed -n 1p
}

# get PACKAGE: the .deb into $store
get() {
    say "fetching $1"
    # shellcheck disable=SC2086
    (cd "$store" && apt-get $apt_options -q=1 download "$1" </dev/null)
}

fetch() { # PACKAGE DESTINATION
    if ! get "$1"; then
        # An older version that the archive no longer has: look again.
        own_lists
        get "$1"
    fi
    deb=$(ls -t "$store"/"$1"_*.deb | sed -n 1p)
    rm -rf "$2" "$2.new"
    dpkg-deb -x "$deb" "$2.new"
    mv "$2.new" "$2"
    say "unpacked $(basename "$deb"), $(du -k "$deb" | cut -f1) KiB"
}

need_apt() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || {
        say "the guest's packages come by apt-get and dpkg-deb, which are not here" >&2
        exit 1
    }
}

[ "$name" = xen ] || [ -x "$store/busybox/bin/busybox" ] || [ -x "$store/busybox/usr/bin/busybox" ] || {
    need_apt
    fetch busybox-static "$store/busybox"
}
[ -d "$dir/root/boot" ] || {
    need_apt
    kernel=$(resolve "$meta")
    if [ -z "$kernel" ]; then
        own_lists
        kernel=$(resolve "$meta")
    fi
    [ -n "$kernel" ] || {
        say "apt knows no kernel package behind $meta; are this system's sources Debian's?" >&2
        exit 1
    }
    mkdir -p "$dir"
    fetch "$kernel" "$dir/root"
}

case $name in
xen) ln -sf "$(cd "$dir" && echo root/boot/xen-*.gz)" "$dir/vmlinuz" ;;
*) ln -sf "$(cd "$dir" && echo root/boot/vmlinuz-*)" "$dir/vmlinuz" ;;
esac
[ -s "$dir/vmlinuz" ] || {
    say "$dir/root/boot holds no kernel; remove $dir and run this again" >&2
    exit 1
}
[ "$name" != xen ] || exit 0
if [ ! -f "$dir/initrd" ] || [ tools/initramfs.sh -nt "$dir/initrd" ]; then
    tools/initramfs.sh "$store/busybox" "$dir/root" "$dir/initrd"
fi
