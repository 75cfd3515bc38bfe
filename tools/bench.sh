#!/bin/bash
# make bench: xhyve beside qemu without KVM (-accel tcg) and the host, in turns, RUNS times (3).
#     make bench                      all parts
#     make bench PART=programs        static programs: the host, xhyve, qemu (tools/bench-programs.sh)
#     make bench PART=boot            a boot: xhyve, qemu's machines (tools/bench-boot.sh)
#     make bench PART=disk            a disk: xhyve, qemu (tools/bench-disk.sh)
#     make bench PART=kvm             starts, exits and memory, with KVM and without (tools/bench-kvm.sh)
# The tables are left in build/bench.txt and the measurements in build/bench.raw. In the environment
# or behind make bench:
#     RUNS=5                          more turns
#     SCALE=0.05                      of the programs' rounds
#     BENCH_ONLY="fib awk"            these programs
#     BENCH_PEERS="native xhyve"      these sides; native xhyve qemu, and for the boot xhyve q35
#                                     pvh microvm (qemu stands for the last three)
#     BENCH_CMDLINE="mitigations=off" more words for all guests' kernels
#     BENCH_ENGINES="soft kvm"        of PART=kvm: these
#     BENCH_BED=1                     of PART=kvm: where there is no KVM, in an emulation of it
#     XHYVE=FILE XHYVE_FLAGS="..."    another xhyve, and more flags for it
# The status is 1 if a guest did not get through or a program's checksum is wrong.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUNS=${RUNS:-3} SCALE=${SCALE:-1} XHYVE=${XHYVE:-build/xhyve} XHYVE_FLAGS=${XHYVE_FLAGS-}
case ${PART:-all} in
programs | boot | disk | kvm) parts=$PART ;;
all) parts="programs boot disk kvm" ;;
*)
    echo "bench: PART is programs, boot, disk or kvm" >&2
    exit 2
    ;;
esac

tools/build.sh build
[ -x build/bench/xbench ] || {
    echo "bench: build/ has no bench/xbench: it needs a C library to link statically" >&2
    exit 1
}
tools/guest.sh cloud
dir=build/bench/guest
mkdir -p "$dir"

# A second archive behind the first: the kernel unpacks both. The programs, and an init for each
# part; the boot's says when it starts and goes on to the real one.
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
cp build/bench/xbench "$tree/xbench"
cat >"$tree/bench-programs" <<'INIT'
#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
mount -t sysfs sys /sys
read -r scale </bench-scale
grep . /sys/devices/system/cpu/vulnerabilities/* # for the log: these cost system calls time
echo # the firmware leaves a line begun
while read -r name; do
    /xbench "$name" "$scale" </dev/null 2>&1
done </bench-names
poweroff -f
INIT
cat >"$tree/bench-boot" <<'INIT'
#!/bin/sh
echo bench-init
exec /init
INIT
chmod 755 "$tree/bench-programs" "$tree/bench-boot"
build/bench/xbench names | while read -r name group; do
    case " ${BENCH_ONLY:-$name} " in *" $name "*) echo "$name $group" ;; esac
done >build/bench/names
[ -s build/bench/names ] || {
    echo "bench: BENCH_ONLY names none of: $(build/bench/xbench names | cut -d' ' -f1 | tr '\n' ' ')" >&2
    exit 2
}
cut -d' ' -f1 build/bench/names >"$tree/bench-names"
echo "$SCALE" >"$tree/bench-scale"
{
    cat build/guest/cloud/initrd
    (cd "$tree" && find . ! -name . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0)
} >"$dir/initrd"
ln -sf ../../guest/cloud/vmlinuz "$dir/vmlinuz"
# qemu boots this one faster: it need not be unpacked in the guest
[ "$dir/vmlinux" -nt build/guest/cloud/vmlinuz ] ||
    build/tests/cpu/unpack build/guest/cloud/vmlinuz "$dir/vmlinux"

: >build/bench.raw
status=0
{
    echo "xhyve $("$XHYVE" --version | sed -n '1s/^xhyve *//p') ($(git describe --always --dirty 2>/dev/null || echo '?'))," \
        "$(qemu-system-x86_64 --version | sed -n '1s/ emulator version\( [^ ]*\).*/\1/p')," \
        "$(nproc) CPUs: $(sed -n 's/^model name.*: //p' /proc/cpuinfo | sed -n 1p); medians of $RUNS"
} >build/bench.txt
for part in $parts; do
    "tools/bench-$part.sh" || status=1
done
echo
cat build/bench.txt
exit $status
