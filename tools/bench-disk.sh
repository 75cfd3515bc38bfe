#!/bin/bash
# Disks of the cloud guest, beside qemu without KVM: called by tools/bench.sh, which describes the
# variables. fio (Debian's, with its libraries) runs in the guest and reads and writes raw images past
# the guest's cache; they lie in the host's, behind virtio-blk with default options and, for qemu,
# aio=io_uring:
#
#  read-4k-1, -32      random blocks of 4 KiB, one and 32 at a time
#  write-4k-1, -32     the same, without flushes
#  read-1m-4, write-   in a row, 1 MiB, four at a time
#
# There is an image for each size of request, written before in pieces of that size: on file systems
# with large folios the host's cost of a small write depends on that (docs/performance.md).
# Numbers are requests in a second by fio. DISK_SECONDS=2 is how long each takes. In the column host it
# runs on the host itself, through its cache, on the same images: what a guest could have at most if it
# cost nothing.
#
# Then what a request costs the device alone, without a guest: bench/request.c.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=build/bench/guest
raw=build/bench.raw
image=build/bench/disk
peers=
for peer in ${BENCH_PEERS:-xhyve qemu native}; do
    case $peer in xhyve | qemu) peers="$peers $peer" ;; native) peers="$peers host" ;; esac
done
[ -n "$peers" ] || exit 0

cmdline="console=ttyS0 quiet rdinit=/bench-disk ${BENCH_CMDLINE-}"
# Name, image, and fio's rw, bs and iodepth.
loads="read-4k-1 4k randread 4k 1
read-4k-32 4k randread 4k 32
write-4k-1 4k randwrite 4k 1
write-4k-32 4k randwrite 4k 32
read-1m-4 1m read 1m 4
write-1m-4 1m write 1m 4"
run_xhyve() {
    # shellcheck disable=SC2086
    exec "$XHYVE" --engine soft -A -u -m 1G -s 0:0,hostbridge -s 31,lpc -s "4,virtio-blk,$image-4k.img,format=raw" \
        -s "5,virtio-blk,$image-1m.img,format=raw" -l com1,stdio --jit-cache off $XHYVE_FLAGS \
        -f "kexec,$dir/vmlinuz,$dir/initrd-disk,$cmdline"
}
run_qemu() {
    exec qemu-system-x86_64 -M q35 -m 1G -accel tcg -cpu max -nodefaults -nographic -serial stdio \
        -no-reboot -drive "if=none,id=a,file=$image-4k.img,format=raw,aio=io_uring" \
        -drive "if=none,id=b,file=$image-1m.img,format=raw,aio=io_uring" \
        -device virtio-blk-pci,drive=a,addr=4 -device virtio-blk-pci,drive=b,addr=5 \
        -kernel $dir/vmlinux -initrd $dir/initrd-disk -append "$cmdline"
}
# Of a shell function, for guest and host: says "disk NAME REQUESTS", or what fio said.
load='load() { # FIO OPTION NAME FILE RW SIZE DEPTH
    "$1" --name=load "$2" "--filename=$4" "--rw=$5" "--bs=$6" "--iodepth=$7" --ioengine=libaio --thread \
        --norandommap --randrepeat=1 --time_based --runtime='${DISK_SECONDS:-2}' --output-format=terse \
        --terse-version=3 --allow_file_create=0 --invalidate=0 >"$out" 2>&1
    # Terse: the eighth field is the reads in a second, the forty-ninth the writes.
    awk -F";" -v name="$3" "NF > 100 { print \"disk\", name, \$8 + \$49; n++ } END { exit !n }" "$out" || cat "$out"
}'
run_host() {
    out=build/bench/disk-host.fio
    eval "$load"
    echo "$loads" | while read -r name file rw size depth; do
        load fio --direct=0 "$name" "$image-$file.img" "$rw" "$size" "$depth"
    done
}
if [ "${1-}" = --run ]; then
    "run_$2"
    exit
fi

# ---- the guest: an init, fio and what it is linked with ----

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
fio=$(command -v fio)
{
    echo "$fio"
    ldd "$fio" | grep -o '/[^ ]*'
} | while read -r file; do
    mkdir -p "$tree$(dirname "$file")"
    cp -L "$file" "$tree$file"
done
cat >"$tree/bench-disk" <<INIT
#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for list in order order.disk; do
    while read -r module; do
        [ -z "\$module" ] || insmod "/lib/modules/\$module.ko" 2>/dev/null
    done <"/lib/modules/\$list"
done
out=/tmp/fio
$load
echo # the firmware leaves a line begun
$(echo "$loads" | while read -r name file rest; do
    [ "$file" = 4k ] && disk=vda || disk=vdb
    echo "load $fio --direct=1 $name /dev/$disk $rest"
done)
poweroff -f
INIT
chmod 755 "$tree/bench-disk"
{
    cat build/guest/cloud/initrd
    (cd "$tree" && find . ! -name . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0)
} >"$dir/initrd-disk"

# ---- the runs ----

rm -f $image-4k.img $image-1m.img
dd if=/dev/zero of=$image-4k.img bs=4k count=131072 status=none
dd if=/dev/zero of=$image-1m.img bs=1M count=512 status=none
failed=0
for ((run = 1; run <= RUNS; run++)); do
    for peer in $peers; do
        log=build/bench/disk-$peer.log
        build/bench/bench-watch -t "${BENCH_LIMIT:-300}" -l "$log" -- "$0" --run "$peer" \
            >build/bench/watched </dev/null || :
        # Raw: disk RUN PEER NAME REQUESTS_A_SECOND
        awk -v run="$run" -v peer="$peer" '$2 == "disk" && NF == 4 && $4 > 0 {
            printf "disk %d %s %s %.0f\n", run, peer, $3, $4 }' build/bench/watched >build/bench/rows
        if [ "$(wc -l <build/bench/rows)" -ne "$(echo "$loads" | wc -l)" ]; then
            echo "bench: the disk's loads did not end on $peer; see $log" >&2
            failed=1
        fi
        cat build/bench/rows >>$raw
        awk -v run="$run" -v peer="$peer" '$4 == "read-4k-32" {
            printf "bench: turn %d, %-6s %s %d in a second\n", run, peer, $4, $5 }' build/bench/rows
    done
done
if [ -x build/bench/request ]; then
    truncate -s 64M $image-4k.img
    for ((run = 1; run <= RUNS; run++)); do
        build/bench/request $image-4k.img >>$raw
    done
fi
rm -f $image-4k.img $image-1m.img

awk "$(cat tools/median.awk)"'
$1 == "request" {
    cost[$2, $3] = cost[$2, $3] " " $4
    if (!($3 in load)) { load[$3] = 1; loads[++m] = $3 }
}
$1 == "disk" {
    values[$3, $4] = values[$3, $4] " " $5
    one[$2, $3, $4] = $5
    turns[$2] = 1
    if (!($4 in seen)) { seen[$4] = 1; name[++n] = $4 }
}
END {
    if (n == 0)
        exit
    printf "\n%-26s %9s %9s %9s %10s %s\n", "A disk, requests a second", "host", "xhyve", "qemu", "xhyve/qemu",
        "spread"
    for (i = 1; i <= n; i++) {
        x = median(values["xhyve", name[i]])
        q = median(values["qemu", name[i]])
        least = most = ""
        for (r in turns)
            if (one[r, "qemu", name[i]] > 0) {
                v = one[r, "xhyve", name[i]] / one[r, "qemu", name[i]]
                if (least == "" || v < least) least = v
                if (most == "" || v > most) most = v
            }
        printf "%-26s %9d %9d %9d %10s %s\n", name[i], median(values["host", name[i]]), x, q,
            (q > 0 ? sprintf("%.2f", x / q) : "-"),
            (least == "" ? "" : sprintf("%.2f..%.2f", least, most))
    }
    if (m > 0)
        printf "\n%-26s %9s %9s\n", "A request alone, ns", "memory", "file"
    for (i = 1; i <= m; i++)
        printf "%-26s %9d %9d\n", loads[i], median(cost["memory", loads[i]]), median(cost["file", loads[i]])
}' $raw >>build/bench.txt
exit $failed
