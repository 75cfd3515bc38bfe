#!/bin/sh
# Installs the Debian packages that a command needs and that are missing:
#     tools/deps.sh GROUP...        GROUP: build, run, check, bench or fresh
#     tools/deps.sh --list GROUP... only lists them, with the reason for each
# With nothing missing it needs neither the network nor root. Guests' packages (kernels, busybox) are
# not here: tools/guest.sh unpacks those and installs nothing.
set -eu
cd "$(dirname "$0")/.."

# group, package, why it is needed
table() {
    cat <<'TABLE'
build gcc           the C compiler
build libc6-dev     the C library's headers
build meson         configures the build
build ninja-build   runs the build
build pkg-config    finds the libraries below
build zlib1g-dev    kernels compressed with gzip
build libzstd-dev   kernels compressed with zstd
build liblzma-dev   kernels compressed with xz or lzma
build liblz4-dev    kernels compressed with lz4
build libbz2-dev    kernels compressed with bzip2
build liburing-dev  many disk requests at once
run   cpio          packs the guest's initramfs
check cpio          packs the guest's initramfs
check e2fsprogs     makes and checks the file systems of the disk tests
check btrfs-progs   the same, of another kind
check clang         the second compiler, and the one with the better sanitizers
check libclang-rt-14-dev the sanitizers' run-time for clang
check clang-format  checks the layout of the sources
check libcmocka-dev the unit tests
check libzydis-dev  a second instruction decoder to compare ours with
check binutils      objdump, a third one
check acpica-tools  iasl, which reads our ACPI tables
check patch         puts the faults of tests/mutants into a copy of the tree
check mandoc        checks the manual pages
check qemu-utils    qemu-img, a second program that reads our disk images
bench qemu-system-x86 the program that ours is compared with
bench fio runs in the guest, to load its disks
fresh debootstrap   makes a new Debian to build in
TABLE
}

list_only=false
if [ "${1-}" = --list ]; then
    list_only=true
    shift
fi
[ $# -gt 0 ] || {
    echo "usage: tools/deps.sh [--list] build|run|check|bench|fresh..." >&2
    exit 2
}
for group; do
    table | grep -q "^$group " || {
        echo "tools/deps.sh: there is no group '$group'" >&2
        exit 2
    }
done

wanted=$(for group; do table | sed -n "s/^$group  *//p"; done | sort -u -k1,1)
if $list_only; then
    echo "$wanted"
    exit 0
fi

command -v dpkg-query >/dev/null || {
    # Not a Debian: the user knows better than we what things are called here.
    echo "deps: this is no Debian system, so nothing is installed; needed are (Debian's names):" \
        $(echo "$wanted" | cut -d' ' -f1) >&2
    exit 0
}

installed=" $(dpkg-query -W -f='${db:Status-Status} ${Package}\n' 2>/dev/null |
    sed -n 's/^installed //p' | tr '\n' ' ') "
missing=
while read -r package why; do
    case $installed in
    *" $package "*) ;;
    *)
        echo "deps: $package is missing: $why"
        missing="$missing $package"
        ;;
    esac
done <<LIST
$wanted
LIST
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    as_root=sudo
else
    echo "deps: this needs root, and neither root nor sudo is at hand. Have this run once:" >&2
    echo "    apt-get update && apt-get install -y --no-install-recommends$missing" >&2
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
install() {
    # shellcheck disable=SC2086 -- a list of words
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        -o Dpkg::Use-Pty=0 $missing </dev/null
}

# The package lists may be absent (a container) or old; an update is tried only then.
# shellcheck disable=SC2086
if ! apt-get install -s --no-install-recommends $missing >/dev/null 2>&1 || ! install; then
    echo "deps: updating the package lists"
    $as_root apt-get update </dev/null
    install
fi
mkdir -p build
: >build/.deps-changed # the next build looks for libraries again
