#!/bin/sh
# Crashes under a guest's file system: a guest writes a disk whose file is recorded (xhyve_record.c,
# guest_load.c), and of what the disk may hold when the power fails (guest_crash.c) each image must
# come back without a fault, with everything that the guest was told is stable:
#     tests/block/guest_crash.sh [--build DIR] [--keep DIR] [--count N] [--seconds N] [--seed N] KIND...
# N crash images for each KIND, after a load of so many seconds. KIND is
#     ext4            on a raw disk, virtio-blk
#     ext4-through    whose cache the guest has switched off
#     ext4-threads    without io_uring
#     ext4-scsi, ext4-ahci, ext4-nvme
#     ext4-qcow2      on a qcow2 image
#     btrfs           on a raw disk
# ext4's journal is replayed by e2fsck, btrfs's log by a guest's kernel.
# The same seed is not the same load: time is real in the guest. So what a failure needs to be made
# again (the disk before, the trace) is moved to DIR/guest-crash-KIND, --keep DIR, and the command is
# printed. Ends with 77, and says why, if something is not there.
set -eu
cd "$(dirname "$0")/../.."
PATH=$PATH:/sbin:/usr/sbin
build=build keep= count=20 seconds=10 seed=1

die() {
    echo "guest_crash: $*" >&2
    exit 2
}

while [ $# -gt 0 ] && [ "$1" != --one ]; do
    case $1 in
    --build) build=$2 ;;
    --keep) keep=$(realpath "$2") ;;
    --count) count=$2 ;;
    --seconds) seconds=$2 ;;
    --seed) seed=$2 ;;
    -*) die "unknown argument $1" ;;
    *) break ;;
    esac
    shift 2
done
build=$(realpath "$build")

need() {
    command -v "$1" >/dev/null || {
        echo "$1 is not installed ($2)"
        exit 77
    }
}

# ---- guests ----

guest() { # NAME: with the load, as $work/initrd
    tools/guest.sh "$1" >"$work/guest.txt" 2>&1 || {
        [ -z "${CI-}" ] || die "the $1 guest cannot be fetched"
        echo "the $1 guest cannot be fetched"
        exit 77
    }
    kernel=$(realpath "build/guest/$1/vmlinuz")
    rm -rf "$work/tree"
    mkdir -p "$work/tree/etc"
    cp "$build/tests/block/guest-load" "$work/tree/load"
    printf '::sysinit:/load\n::once:/bin/busybox poweroff -f\n' >"$work/tree/etc/inittab"
    (cd "$work/tree" && find . | cpio --quiet -o -H newc -R 0:0) >"$work/load.cpio"
    cat "build/guest/$1/initrd" "$work/load.cpio" >"$work/initrd"
}

# The program on that guest until it powers off; its words are in $work/console.
run() { # PROGRAM LOAD FLAGS...
    program=$1 load=$2
    shift 2
    rc=0
    timeout 400 "$program" --engine soft -A -m 512M "$@" -s 31,lpc -l com1,stdio \
        -f "kexec,$kernel,$work/initrd,console=ttyS0 quiet load=$load" \
        </dev/null >"$work/console" 2>&1 || rc=$?
    if [ $rc -ne 1 ] || ! grep -q '^load: written\|^load: checked' "$work/console"; then
        cat "$work/console"
        die "the guest did not come to its end (status $rc)"
    fi
}

# ---- what is left of the disk ----

# One image of ext4, called by guest-crash: guest_crash.sh --one BUILD DIR QCOW2 NUMBER
one() {
    image=$2/crash-$4.img log=$2/log said=0
    if [ "$3" = 1 ]; then
        qemu-img check -f qcow2 "$image" >"$log" 2>&1 || said=$?
        if [ $said -ne 0 ] && [ $said -ne 3 ]; then # 3: nothing but clusters that nobody uses
            cat "$log"
            echo "image $4: qemu-img check says $said"
            return 1
        fi
        "$1/xhyvectl" image check "$image" >"$log" 2>&1 || [ $? -eq 3 ] || {
            cat "$log"
            echo "image $4: xhyvectl image check"
            return 1
        }
        qemu-img convert -f qcow2 -O raw "$image" "$2/raw"
        image=$2/raw
    fi
    rm -rf "$2/tree"
    mkdir "$2/tree"
    said=0
    e2fsck -p "$image" >"$log" 2>&1 || said=$?
    if [ $said -gt 1 ] || ! e2fsck -fn "$image" >>"$log" 2>&1; then
        cat "$log"
        echo "image $4: e2fsck -p says $said"
        return 1
    fi
    debugfs -R "rdump / $2/tree" "$image" >"$log" 2>&1
    "$1/tests/block/guest-crash" --check "$2/promises" "$4" "$2/tree"
}

# COUNT images of btrfs, each mounted by a guest, then looked at.
btrfs_images() { # COUNT
    i=0 wrong=0 flags=
    while [ $i -lt "$1" ]; do
        flags="$flags -s $((5 + i)),virtio-blk,$out/crash-$i.img"
        i=$((i + 1))
    done
    truncate -s $((64 * 1024 * $1)) "$out/promises"
    # shellcheck disable=SC2086
    run "$build/xhyve" "check,btrfs,$1" -s "4,virtio-blk,$out/promises" $flags
    i=0
    while [ $i -lt "$1" ]; do
        said=0
        btrfs check --readonly "$out/crash-$i.img" >"$work/log" 2>&1 || said=$?
        if ! grep -q "^image $i: kept" "$work/console" || [ $said -ne 0 ]; then
            wrong=$((wrong + 1))
            grep "^image $i: " "$work/console" || :
            [ $said -eq 0 ] || cat "$work/log"
        fi
        i=$((i + 1))
    done
    [ $wrong -eq 0 ]
}

# ---- a kind ----

format() { # KIND: $work/fs.img
    case $1 in
    btrfs)
        need mkfs.btrfs btrfs-progs
        truncate -s 192M "$work/fs.img"
        mkfs.btrfs -q -f "$work/fs.img" >"$work/log" 2>&1
        ;;
    *)
        need mke2fs e2fsprogs
        mke2fs -q -F -t ext4 "$work/fs.img" 64M >/dev/null
        ;;
    esac
    case $1 in
    *qcow2)
        need qemu-img qemu-utils
        mv "$work/fs.img" "$work/fs.raw"
        "$build/xhyvectl" image convert -O qcow2 "$work/fs.raw" "$work/fs.img" >/dev/null
        rm "$work/fs.raw"
        ;;
    esac
    cp --sparse=always "$work/fs.img" "$work/fs.before"
    truncate -s 1M "$work/say.img"
}

record() { # KIND
    disk=virtio-blk,$work/fs.img name=vda say=vdb guest=cloud fs=${1%%-*}
    through=
    case $1 in
    *through) through=" through" ;;
    *threads) disk=$disk,aio=threads ;;
    *scsi) disk=virtio-scsi,$work/fs.img name=sda say=vda ;;
    *ahci) disk=ahci-hd,$work/fs.img name=sda say=vda guest=generic ;;
    *nvme) disk=nvme,$work/fs.img name=nvme0n1 say=vda guest=generic ;;
    btrfs) guest=cloud-btrfs ;;
    esac
    guest $guest
    XHYVE_RECORD=$work/trace run "$build/tests/block/xhyve-record" \
        "write,$fs,$name,$say,$seconds,$seed$through" -s "4,$disk" -s "5,virtio-blk,$work/say.img"
    # as it powers off its kernel takes the disk from the file system, which complains
    if sed '/^load: written/q' "$work/console" | grep 'error\|Call Trace'; then
        die "the guest saw that while it wrote"
    fi
    grep '^load: worker' "$work/console" | tr -d '\r'
}

crashes() { # KIND SEED COUNT
    crash_kind=$1
    set -- "--seed" "$2" "--count" "$3"
    case $crash_kind in
    # its superblock has 4 KiB, and it counts on all of them being written or none
    btrfs) set -- "$@" --unit 4096 ;;
    *qcow2) set -- "$@" --then "$0 --one $build $out 1" ;;
    *) set -- "$@" --then "$0 --one $build $out 0" ;;
    esac
    crash_rc=0
    "$build/tests/block/guest-crash" --trace "$work/trace" --image "$work/fs.before" --out "$out" "$@" ||
        crash_rc=1
    [ "$crash_kind" != btrfs ] || btrfs_images "$4" || crash_rc=1
    if [ $crash_rc -ne 0 ] && [ -n "$keep" ]; then
        kept=$keep/guest-crash-$crash_kind
        rm -rf "$kept"
        mkdir "$kept"
        cp --sparse=always "$work/trace" "$work/fs.before" "$kept"
        echo "once more: $build/tests/block/guest-crash --trace $kept/trace --image $kept/fs.before --out $kept" \
            "$1 $2 $3 $4 $([ "$crash_kind" != btrfs ] || echo --unit 4096)"
    fi
    return $crash_rc
}

kind() {
    echo "$1: a load of $seconds s, seed $seed"
    rm -rf "$work"/* "$out"/*
    format "$1" || die "$1: the disk cannot be made"
    record "$1"
    bad=0 done=0
    while [ $done -lt "$count" ]; do
        n=$((count - done))
        [ $n -le 20 ] || n=20
        crashes "$1" $((seed * 1000 + done)) $n || bad=1
        [ $bad -eq 0 ] || break
        done=$((done + n))
    done
    [ $bad -eq 0 ] || echo "$1: FAILED"
    return $bad
}

if [ "${1-}" = --one ]; then
    shift
    one "$@"
    exit
fi
[ $# -gt 0 ] || die "no KIND; the head of tests/block/guest_crash.sh lists them"
need cpio cpio
export XDG_CACHE_HOME="$PWD/build/cache"
mkdir -p build/cache
# the guest's disk where writes and flushes take their time; the images, which are written by the
# dozen, and which e2fsck flushes, in memory if that can be
work=$(mktemp -d "$build/guest-crash.XXXXXX")
[ -w /dev/shm ] && out=/dev/shm || out=${TMPDIR:-/tmp}
out=$(mktemp -d "$out/guest-crash.XXXXXX")
trap 'rm -rf "$work" "$out"' EXIT
trap 'exit 130' INT TERM
failed=0
for each; do
    kind "$each" || failed=1
done
exit $failed
