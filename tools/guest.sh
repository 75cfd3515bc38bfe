#!/bin/sh
# Fetches a guest: packages of Debian, downloaded and unpacked under build/guest, never installed,
# and an initramfs made of a kernel's modules and busybox-static.
#     tools/guest.sh NAME
# leaves build/guest/NAME/vmlinuz and, for kernels, build/guest/NAME/initrd. NAME is
#     cloud, generic, rt          Debian's amd64 kernels
#     686                         its 32-bit kernel with PAE, and a 32-bit userland
#     cloud-i386                  the cloud kernel with a 32-bit userland
#     cloud-btrfs                 the cloud kernel with btrfs
#     memtest-x64, memtest-ia32   memtest86+, which boots as Linux does
#     xen                         the hypervisor, in place of a kernel
# The second call needs no network.
set -eu
cd "$(dirname "$0")/.."
top=$PWD
name=${1:-cloud}
store=build/guest
dir=$store/$name

usage() {
    echo "usage: tools/guest.sh NAME, which is one of" >&2
    sed -n '6,11s/^# //p' tools/guest.sh >&2
    exit 2
}

say() {
    echo "guest: $*"
}

# ---- apt ----

arch=amd64
# As root apt would warn that its sandbox user cannot write here; the signatures are checked anyway.
sandbox="-o APT::Sandbox::User=root"
apt_options=$sandbox

need_apt() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || {
        say "the guest's packages come by apt-get and dpkg-deb, which are not here" >&2
        exit 1
    }
}

# The system's package lists as they are; failing that, lists of our own, which need no root.
own_lists() {
    say "updating the package lists"
    if [ "$arch" = amd64 ]; then
        mkdir -p "$store/apt/lists/partial" "$store/apt/cache/archives/partial"
        apt_options="$sandbox -o Dir::State::Lists=$top/$store/apt/lists"
        apt_options="$apt_options -o Dir::Cache=$top/$store/apt/cache"
    fi
    # A mirror may lack one list of several; what is missing in the end, the download says.
    # shellcheck disable=SC2086
    apt-get $apt_options update || say "some lists could not be fetched"
}

# Where the system gets its Debian packages from, as lines of a sources.list.
debian_sources() {
    release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -f $keys ] && keys="[signed-by=$keys] " || keys=
    # shellcheck disable=SC2016,SC2086
    apt-get $apt_options indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Identifier: Packages' |
        sed -n "s|^[^ ]* ${release}[^ ]* main\$|deb $keys&|p" | sort -u
}

# From here on packages of this architecture, with an apt of their own: the system's knows nothing
# of it, before and after.
foreign() { # ARCHITECTURE
    apt=$top/$store/apt-$1
    mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial" "$apt/none"
    : >>"$apt/status"
    if [ ! -s "$apt/sources.list" ]; then
        debian_sources >"$apt/sources.list"
        if [ ! -s "$apt/sources.list" ]; then
            own_lists
            debian_sources >"$apt/sources.list"
        fi
        [ -s "$apt/sources.list" ] || {
            say "this system's apt has no Debian sources to get $1 packages from" >&2
            exit 1
        }
    fi
    arch=$1
    apt_options="$sandbox -o Dir::State=$apt/state -o Dir::State::status=$apt/status"
    apt_options="$apt_options -o Dir::Cache=$apt/cache -o Dir::Etc::sourcelist=$apt/sources.list"
    apt_options="$apt_options -o Dir::Etc::sourceparts=$apt/none"
    apt_options="$apt_options -o APT::Architecture=$1 -o APT::Architectures=$1"
}

# The kernel package behind a name such as linux-image-amd64 or xen-system-amd64.
resolve() {
    # shellcheck disable=SC2086
    apt-cache $apt_options depends --important "$1" 2>/dev/null |
        sed -n 's/^ *|*Depends: \(\(linux-image\|xen-hypervisor\)-[0-9][^ ]*\)$/\1/p' | sed -n 1p
}

# get PACKAGE: the .deb into $store
get() {
    say "fetching $1"
    # shellcheck disable=SC2086
    (cd "$store" && apt-get $apt_options -q=1 download "$1" </dev/null)
}

fetch() { # PACKAGE DESTINATION
    if ! get "$1"; then
        # An older version that the archive no longer has, or no lists yet: look again.
        own_lists
        get "$1"
    fi
    deb=$(ls -t "$store"/"$1"_*_"$arch".deb | sed -n 1p)
    rm -rf "$2" "$2.new"
    dpkg-deb -x "$deb" "$2.new"
    mv "$2.new" "$2"
    say "unpacked $(basename "$deb"), $(du -k "$deb" | cut -f1) KiB"
}

# ---- the parts ----

get_busybox() { # DESTINATION
    [ -x "$1/bin/busybox" ] || [ -x "$1/usr/bin/busybox" ] || {
        need_apt
        fetch busybox-static "$1"
    }
}

get_kernel() { # META DESTINATION FILE: its package into DESTINATION/root, FILE as DESTINATION/vmlinuz
    [ -d "$2/root/boot" ] || {
        need_apt
        kernel=$(resolve "$1")
        if [ -z "$kernel" ]; then
            own_lists
            kernel=$(resolve "$1")
        fi
        [ -n "$kernel" ] || {
            say "apt knows no kernel package behind $1; are this system's sources Debian's?" >&2
            exit 1
        }
        mkdir -p "$2"
        fetch "$kernel" "$2/root"
    }
    link vmlinuz "$2" "root/boot/$3"
}

link() { # NAME FOLDER PATTERN, which is of a file, from the folder
    # shellcheck disable=SC2086
    ln -sf "$(cd "$2" && echo $3)" "$2/$1"
    [ -s "$2/$1" ] || {
        say "$2 holds no $3; remove $2 and run this again" >&2
        exit 1
    }
}

make_initrd() { # BUSYBOX KERNEL_ROOT
    [ -f "$dir/initrd" ] && [ ! tools/initramfs.sh -nt "$dir/initrd" ] ||
        tools/initramfs.sh "$1" "$2" "$dir/initrd" "$store/busybox"
}

# ---- the guests ----

mkdir -p "$store"
case $name in
cloud | generic | rt)
    case $name in
    cloud) meta=linux-image-cloud-amd64 ;;
    generic) meta=linux-image-amd64 ;;
    rt) meta=linux-image-rt-amd64 ;;
    esac
    get_busybox "$store/busybox"
    get_kernel "$meta" "$dir" "vmlinuz-*"
    make_initrd "$store/busybox" "$dir/root"
    ;;
cloud-btrfs)
    get_busybox "$store/busybox"
    get_kernel linux-image-cloud-amd64 "$store/cloud" "vmlinuz-*"
    mkdir -p "$dir"
    link vmlinuz "$dir" ../cloud/vmlinuz
    MORE=btrfs make_initrd "$store/busybox" "$store/cloud/root"
    ;;
cloud-i386)
    get_busybox "$store/busybox"
    get_kernel linux-image-cloud-amd64 "$store/cloud" "vmlinuz-*"
    foreign i386
    get_busybox "$store/busybox-i386"
    mkdir -p "$dir"
    link vmlinuz "$dir" ../cloud/vmlinuz
    make_initrd "$store/busybox-i386" "$store/cloud/root"
    ;;
686)
    get_busybox "$store/busybox"
    foreign i386
    get_busybox "$store/busybox-i386"
    get_kernel linux-image-686-pae "$dir" "vmlinuz-*"
    make_initrd "$store/busybox-i386" "$dir/root"
    ;;
memtest-x64 | memtest-ia32)
    [ -d "$store/memtest/boot" ] || {
        need_apt
        fetch memtest86+ "$store/memtest"
    }
    mkdir -p "$dir"
    link vmlinuz "$dir" "../memtest/boot/memtest86+${name#memtest-}.bin"
    ;;
xen) get_kernel xen-system-amd64 "$dir" "xen-*.gz" ;;
*) usage ;;
esac
