#!/bin/sh
# Runs crash.c with its arguments on images that qemu-img makes, or without them if there is none:
#     crash.sh PROGRAM [ARGUMENT...]
# The long run: crash.sh build/tests/block/qcow2-crash --count 10000
set -eu
program=$(realpath "$1")
shift
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
if ! command -v qemu-img >/dev/null; then
    echo "qemu-img is missing: only images of our own, and no second opinion"
    "$program" "$@"
    exit
fi
cd "$dir"
"$program" --raw small.raw 400
"$program" --raw large.raw 9000
make() { # NAME SOURCE OPTIONS [convert's arguments]
    name=$1 source=$2 options=$3
    shift 3
    qemu-img convert -q -f raw -O qcow2 -o "$options" "$@" "$source.raw" "$name.qcow2"
}
for bits in 1 2 4 8 16 32 64; do
    make "refcount$bits" small "cluster_size=512,refcount_bits=$bits"
done
for bits in 16 32 64; do # refcount tables of one cluster, which become full
    for n in 1 2 3; do
        qemu-img create -q -f qcow2 -o "cluster_size=512,refcount_bits=$bits" "grow$bits-$n.qcow2" 12M
    done
done
make v2 large compat=0.10,cluster_size=4096
make v3 large cluster_size=65536
make huge large cluster_size=2M
make lazy small cluster_size=1024,lazy_refcounts=on
make zlib large cluster_size=4096 -c
make zlib-v2 small cluster_size=512,compat=0.10 -c
make zlib64 large cluster_size=65536 -c
make zstd large cluster_size=4096,compression_type=zstd -c
make preallocated small cluster_size=4096,preallocation=metadata
for kind in zlib v2 refcount8; do # with internal snapshots, one of them of what is written since
    cp "$kind.qcow2" "snap-$kind.qcow2"
    qemu-img snapshot -c one "snap-$kind.qcow2"
    qemu-io -c "write -P 0 0 16k" -c "discard 32k 32k" "snap-$kind.qcow2" >/dev/null
    qemu-img snapshot -c two "snap-$kind.qcow2"
done
for options in cluster_size=512 cluster_size=4096 cluster_size=4096,compat=0.10; do
    qemu-img create -q -f qcow2 -o "$options" -b small.raw -F raw "over-$options.qcow2"
    qemu-img create -q -f qcow2 -o "$options" -b zstd.qcow2 -F qcow2 "above-$options.qcow2"
done
"$program" --images "$dir" --qemu 40 "$@"
