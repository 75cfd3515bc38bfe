#!/bin/sh
# make soak HOURS=n: everything that looks for faults at random, for n hours in turns, each with a new
# seed, which it prints: the instruction decoder, disks and their images, and the fuzz targets in
# tests/fuzz, whose corpora stay in build-fuzz/corpus.
set -eu
cd "$(dirname "$0")/.."
hours=${1:-}
case $hours in
'' | *[!0-9.]*)
    echo "usage: make soak HOURS=n (a fraction such as 0.1 will do)" >&2
    exit 2
    ;;
esac
. tools/count.sh
tools/build.sh build
seconds=$(awk "BEGIN { print int($hours * 3600) }")
end=$(($(date +%s) + seconds))

targets=
if [ -d tests/fuzz ]; then
    CC=clang tools/build.sh build-fuzz -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false
    targets=$(find build-fuzz/tests/fuzz -maxdepth 1 -type f -name 'fuzz_*' -perm -u+x | sort)
fi
[ -n "$targets" ] || echo "soak: there are no fuzz targets; only the random tests run"

disks() { # SEED
    BLOCK_SEED=$1 build/tests/unit/test_block_random && VIRTIO_SEED=$1 build/tests/unit/test_virtio_blk &&
        AHCI_SEED=$1 build/tests/unit/test_ahci_random && build/tests/unit/test_nvme_random "$1"
}

round=0
while [ "$(date +%s)" -lt "$end" ]; do
    round=$((round + 1))
    if [ -x build/tests/cpu/decode_zydis ]; then
        one "decoder, round $round" build/tests/cpu/decode_zydis --count 20000000 --seed "$(date +%s)"
    fi
    seed=$(date +%s)
    one "disks, seed $seed" disks "$seed"
    one "crashes amid writes to qcow2, seed $seed" tests/block/crash.sh build/tests/block/qcow2-crash \
        --count 100 --seed "$seed"
    for target in $targets; do
        mkdir -p "build-fuzz/corpus/$(basename "$target")"
        one "$(basename "$target"), round $round" "$target" -max_total_time=120 -timeout=20 \
            -artifact_prefix="build-fuzz/" "build-fuzz/corpus/$(basename "$target")"
    done
done
total
