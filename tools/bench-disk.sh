#!/bin/bash
# Disks of the cloud guest, beside qemu without KVM: called by tools/bench.sh, which describes the
# variables. The same raw image, in the host's page cache, behind virtio-blk with default options and,
# for qemu, aio=io_uring; the guest reads and writes past its own cache (bench/disk.c):
#
#  read-4k-1, -32      random blocks of 4 KiB, one and 32 at a time
#  write-4k-1, -32     the same, without flushes
#  read-1m-4, write-   in a row, 1 MiB, four at a time
#
# Numbers are requests in a second, the guest's clock. DISK_SECONDS=2 is how long each takes.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=build/bench/guest
raw=build/bench.raw
image=build/bench/disk.img
peers=
for peer in ${BENCH_PEERS:-xhyve qemu}; do
    case $peer in xhyve | qemu) peers="$peers $peer" ;; esac
done
[ -n "$peers" ] || exit 0

cmdline="console=ttyS0 quiet rdinit=/bench-disk ${BENCH_CMDLINE-}"
run_xhyve() {
    # shellcheck disable=SC2086
    exec "$XHYVE" -A -u -m 1G -s 0:0,hostbridge -s 31,lpc -s "4,virtio-blk,$image,format=raw" -l com1,stdio \
        --jit-cache off $XHYVE_FLAGS -f "kexec,$dir/vmlinuz,$dir/initrd,$cmdline"
}
run_qemu() {
    exec qemu-system-x86_64 -M q35 -m 1G -accel tcg -cpu max -nodefaults -nographic -serial stdio \
        -no-reboot -drive "if=none,id=d,file=$image,format=raw,aio=io_uring" -device virtio-blk-pci,drive=d \
        -kernel $dir/vmlinux -initrd $dir/initrd -append "$cmdline"
}
if [ "${1-}" = --run ]; then
    "run_$2"
    exit
fi

rm -f $image
dd if=/dev/zero of=$image bs=1M count=512 status=none
failed=0
for ((run = 1; run <= RUNS; run++)); do
    for peer in $peers; do
        log=build/bench/disk-$peer.log
        build/bench/bench-watch -t "${BENCH_LIMIT:-300}" -l "$log" -- "$0" --run "$peer" \
            >build/bench/watched </dev/null || :
        # Raw: disk RUN PEER NAME REQUESTS_A_SECOND
        awk -v run="$run" -v peer="$peer" '$2 == "disk" && NF == 5 && $5 > 0 {
            printf "disk %d %s %s %.0f\n", run, peer, $3, $4 / $5 }' build/bench/watched >build/bench/rows
        if [ "$(wc -l <build/bench/rows)" -ne 6 ]; then
            echo "bench: the disk's loads did not end on $peer; see $log" >&2
            failed=1
        fi
        cat build/bench/rows >>$raw
        awk -v run="$run" -v peer="$peer" '$4 == "read-4k-32" {
            printf "bench: turn %d, %-6s %s %d in a second\n", run, peer, $4, $5 }' build/bench/rows
    done
done
rm -f $image

awk '
function median(list, n, v, i, j, t) { # of n numbers in a string
    n = split(list, v, " ")
    for (i = 2; i <= n; i++)
        for (j = i; j > 1 && v[j] + 0 < v[j - 1] + 0; j--) {
            t = v[j]; v[j] = v[j - 1]; v[j - 1] = t
        }
    return n == 0 ? 0 : n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
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
    printf "\n%-26s %9s %9s %10s %s\n", "A disk, requests a second", "xhyve", "qemu", "xhyve/qemu", "spread"
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
        printf "%-26s %9d %9d %10s %s\n", name[i], x, q, (q > 0 ? sprintf("%.2f", x / q) : "-"),
            (least == "" ? "" : sprintf("%.2f..%.2f", least, most))
    }
}' $raw >>build/bench.txt
exit $failed
