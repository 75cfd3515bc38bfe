#!/bin/sh
# make soak HOURS=n: everything that looks for faults at random, for n hours in turns: the fuzz
# targets in tests/fuzz (none so far says so) and the instruction decoder with new random bytes.
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
    CC=clang tools/build.sh build-fuzz -Db_sanitize=address,undefined -Db_lundef=false
    targets=$(find build-fuzz/tests/fuzz -maxdepth 1 -type f -name 'fuzz_*' -perm -u+x | sort)
fi
[ -n "$targets" ] || echo "soak: there are no fuzz targets yet; only the random tests run"

round=0
while [ "$(date +%s)" -lt "$end" ]; do
    round=$((round + 1))
    if [ -x build/tests/cpu/decode_zydis ]; then
        one "decoder, round $round" build/tests/cpu/decode_zydis --count 20000000 --seed "$(date +%s)"
    fi
    for target in $targets; do
        mkdir -p "build-fuzz/corpus/$(basename "$target")"
        one "$(basename "$target"), round $round" "$target" -max_total_time=120 -timeout=20 \
            -artifact_prefix="build-fuzz/" "build-fuzz/corpus/$(basename "$target")"
    done
    if [ ! -x build/tests/cpu/decode_zydis ] && [ -z "$targets" ]; then
        echo "soak: nothing here can run; libzydis-dev brings the random test of the decoder"
        break
    fi
done
total
