#!/bin/sh
# xhyvectl image: every command, every error's sentence, and qemu-img's opinion of what was made.
# image.sh PROGRAM SOURCE_ROOT [--update]; --update rewrites tests/golden/help-xhyvectl.txt.
set -u
ctl=$(realpath "$1")
golden=$2/tests/golden/help-xhyvectl.txt
if [ "${3-}" = --update ]; then
    "$ctl" --help >"$golden"
    exit 0
fi
. "$(dirname "$0")/checks.sh"

check() { # DESCRIPTION COMMAND...
    what=$1
    shift
    if "$@" >"$dir/check" 2>&1 </dev/null; then
        ok
    else
        echo "FAIL: $what: $*"
        cat "$dir/check"
        failed=$((failed + 1))
    fi
}

bad() { # WORDS ARGUMENT...
    words=$1
    shift
    refuses xhyvectl 1 "$words" "$ctl" "$@"
}

# status N ARGUMENT...
status() {
    want=$1
    shift
    "$ctl" "$@" >"$dir/out" 2>"$dir/err" </dev/null
    got=$?
    if [ $got -ne "$want" ]; then
        echo "FAIL: xhyvectl $*: status $got, wanted $want"
        cat "$dir/out" "$dir/err"
        failed=$((failed + 1))
    else
        ok
    fi
}

says() { grep -qF -- "$1" "$dir/out"; }

"$ctl" --help | diff -u "$golden" - || {
    echo "FAIL: --help differs from the golden file; if that is meant: image.sh PROGRAM ROOT --update"
    failed=$((failed + 1))
}
cd "$dir" || exit 1

bad "nothing to do"
bad "unknown command 'disk'" disk
bad "image needs one of" image
bad "did you mean 'convert'?" image konvert
bad "something is missing" image info
bad "'b' is too much" image info a b
bad "unknown flag '-O'" image info -O raw a
bad "unknown flag '--fix'" image info --fix a
bad "-f needs an argument" image info -f
bad "unknown format 'vmdk'; there are: qcow2, raw" image info -f vmdk a
bad "a.qcow2 needs a size" image create a.qcow2
bad "'10x' is not a size" image create a.qcow2 10x
bad "more than 2^64" image create a.qcow2 99999999999t
bad "not a multiple of 512" image create a.qcow2 1000
bad "did you mean 'cluster_size'?" image create -o cluster_sice=4k a.qcow2 1m
bad "wanted KEY=VALUE" image create -o cluster_size a.qcow2 1m
bad "a cluster of 3000 bytes is not possible" image create -o cluster_size=3000 a.qcow2 1m
bad "a cluster of 4194304 bytes is not possible" image create -o cluster_size=4m a.qcow2 1m
bad "needs clusters larger than 512 bytes" image create -o cluster_size=512 a.qcow2 1t
bad "zstd needs version 3" image create -o version=2,compression_type=zstd a.qcow2 1m
bad "there are 2 and 3" image create -o version=4 a.qcow2 1m
bad "wanted on or off" image create -o lazy_refcounts=maybe a.qcow2 1m
bad "which -b names" image create -F raw a.qcow2 1m
bad "none.img" image create -b none.img a.qcow2
bad "none.img" image info none.img
truncate -s 1m base.img
bad "a raw image has no backing file" image create -b base.img -F raw a.raw 1m
check "nothing is left of what failed" test ! -e a.qcow2 -a ! -e a.raw

for options in "" "-o cluster_size=512" "-o cluster_size=2m" "-o version=2" \
    "-o compression_type=zstd,lazy_refcounts=on"; do
    rm -f a.qcow2
    # shellcheck disable=SC2086
    status 0 image create $options a.qcow2 100m
    status 0 image check a.qcow2
    status 0 image info a.qcow2
    check "the size is told" grep -q '^disk: 100 MiB (104857600 bytes)$' out
    cp a.qcow2 "made$(echo "$options" | tr -c 'a-z0-9\n' -).qcow2"
done
bad "a.qcow2" image create a.qcow2 1m
status 0 image resize a.qcow2 +100m
bad "--shrink" image resize a.qcow2 50m
status 0 image resize --shrink a.qcow2 50m
status 0 image create a.raw 5m
bad "nothing to check" image check a.raw
head -c 1000000 "$ctl" | dd of=a.raw conv=notrunc bs=1M 2>/dev/null
status 0 image convert a.raw b.qcow2
status 0 image convert b.qcow2 c.raw
check "a copy is the same" cmp a.raw c.raw
bad "c.raw" image convert b.qcow2 c.raw
status 0 image create -b b.qcow2 over.qcow2
status 0 image info over.qcow2
check "the backing file is told" says "backing file: b.qcow2"
check "the size is the backing file's" says "disk: 5 MiB"
bad "followed only if asked for" image convert over.qcow2 d.raw
status 0 image convert --backing over.qcow2 d.raw
check "through a backing file" cmp a.raw d.raw
status 0 image map b.qcow2
check "data is in the map" says "data at"
status 0 image map --backing over.qcow2
# a leak: one cluster counts that nobody uses (refcount block: third cluster, 16 bits an entry)
printf '\0\1' | dd of=b.qcow2 bs=1 seek=$((131072 + 2 * 900)) conv=notrunc 2>/dev/null
status 3 image check b.qcow2
status 0 image check --fix b.qcow2
status 0 image check b.qcow2
# errors: the first cluster of data counts as free
block=$(od -An -j48 -N8 -t u1 b.qcow2 | awk '{ print ($6 * 256 + $7) * 256 + $8 }')
block=$(od -An -j"$block" -N8 -t u1 b.qcow2 | awk '{ print ($6 * 256 + $7) * 256 + $8 }')
printf '\0\0' | dd of=b.qcow2 bs=1 seek=$((block + 2 * 5)) conv=notrunc 2>/dev/null
status 2 image check b.qcow2
status 0 image check --fix b.qcow2
status 0 image check b.qcow2
: >empty.img
bad "empty.img" image info empty.img
printf 'QFI\373\0\0\0\11' | dd of=bad.qcow2 bs=512 conv=sync 2>/dev/null
bad "qcow2 version 9" image info bad.qcow2
bad "qcow2 version 9" image check bad.qcow2

if command -v qemu-img >/dev/null; then
    for image in made*.qcow2 a.qcow2 b.qcow2 over.qcow2; do
        check "qemu-img check of $image" qemu-img check "$image"
    done
    check "the same to qemu-img" qemu-img compare a.raw b.qcow2
    check "the same through a backing file" qemu-img compare a.raw over.qcow2
    for options in compat=0.10 cluster_size=512 cluster_size=2M refcount_bits=1 refcount_bits=64 \
        lazy_refcounts=on preallocation=metadata; do
        for compress in "" -c; do
            rm -f q.qcow2 q.raw
            [ "$options$compress" != preallocation=metadata-c ] || continue
            # shellcheck disable=SC2086
            qemu-img convert $compress -O qcow2 -o "$options" a.raw q.qcow2
            status 0 image check q.qcow2
            status 0 image convert q.qcow2 q.raw
            check "qemu-img's $options $compress" cmp a.raw q.raw
        done
    done
    rm -f q.qcow2 q.raw
    qemu-img convert -c -O qcow2 -o compression_type=zstd a.raw q.qcow2
    status 0 image convert q.qcow2 q.raw
    check "qemu-img's zstd" cmp a.raw q.raw
    status 0 image info q.qcow2
    check "zstd is told" says "version 3, zstd"
    qemu-img create -q -f qcow2 -o extended_l2=on q2.qcow2 10M
    bad "extended L2 entries" image info q2.qcow2
    qemu-img create -q -f qcow2 -o data_file=q.data q3.qcow2 10M
    bad "external data file" image info q3.qcow2
else
    skip "qemu-img is missing"
fi

counted
