#!/bin/sh
# make soak HOURS=n: everything that looks for faults at random, for n hours in turns, each with a new
# seed, which it prints: the instruction decoder, disks and their images, and the fuzz targets in
# tests/fuzz. Their corpora stay in build-fuzz/corpus, from where the next call goes on; an input that
# fails is left in build-fuzz/, and the output names it.
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

# Only the targets: all the rest with sanitizers would take longer than many a soak.
if [ ! -f build-fuzz/build.ninja ]; then
    CC=clang meson setup build-fuzz -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false
fi
ninja -C build-fuzz fuzz
targets=$(cd build-fuzz/tests/fuzz && find . -maxdepth 1 -type f -name 'fuzz_*' -perm -u+x | sed 's|./fuzz_||' | sort)
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1

# A turn of a target: short enough that each has one.
turn=$((seconds / 12))
[ "$turn" -le 120 ] || turn=120
[ "$turn" -ge 5 ] || turn=5

# The target's corpus anew: of what was there, and of the seeds in the tree, what adds something.
merge() { # NAME
    corpus=build-fuzz/corpus/fuzz_$1
    rm -rf "$corpus.new" && mkdir -p "$corpus" "$corpus.new" &&
        "build-fuzz/tests/fuzz/fuzz_$1" -merge=1 -timeout=60 -artifact_prefix="build-fuzz/$1-" \
            "$corpus.new" "$corpus" "tests/fuzz/corpus/$1" &&
        mv "$corpus" "$corpus.old" && mv "$corpus.new" "$corpus" && rm -rf "$corpus.old"
}

fuzz() { # NAME; images are the longest inputs
    "build-fuzz/tests/fuzz/fuzz_$1" -max_total_time="$turn" -timeout=60 -max_len=8192 \
        -artifact_prefix="build-fuzz/$1-" "build-fuzz/corpus/fuzz_$1"
}

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
        [ "$round" -gt 1 ] || one "corpus of $target" merge "$target"
        one "fuzzing $target, round $round" fuzz "$target"
    done
done
total
