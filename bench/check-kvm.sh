#!/bin/sh
# tools/bench-kvm.sh: the guests do what it waits for, its tables say what was measured.
#     check-kvm.sh FOLDER XHYVE XHYVE-FAKE
# FOLDER is where bench/ was built; the last is xhyve on the fake KVM (tests/kvm/fake.h).
set -eu
bench=$(dirname "$0")/../tools/bench-kvm.sh
BENCH_BIN=$(realpath "$1") xhyve=$(realpath "$2") fake=$(realpath "$3")
BENCH_OUT=$(mktemp -d)
trap 'rm -rf "$BENCH_OUT"' EXIT
export BENCH_BIN BENCH_OUT RUNS=2 STARTS=1 BENCH_MEMORY=no BENCH_PEERS=xhyve
unset BENCH_BED XHYVE_FLAGS
status=0

fail() {
    echo "check-kvm: $*"
    status=1
}

run() { # WANTED-STATUS ENGINES XHYVE
    rm -f "$BENCH_OUT/bench.raw" "$BENCH_OUT/bench.txt"
    rc=0
    BENCH_ENGINES=$2 XHYVE=$3 "$bench" >"$BENCH_OUT/said" 2>&1 || rc=$?
    [ "$rc" = "$1" ] || {
        cat "$BENCH_OUT/said"
        fail "$3 with $2: status $rc, not $1"
    }
    cat "$BENCH_OUT/bench.txt"
}

# Rows of measurements, each with a number: two turns of eight accesses and of two starts.
rows() { # ENGINE
    awk -v engine="$1" 'NF == 6 && $1 == "kvm" && $3 == engine && $6 > 0 { n[$2, $5]++; all++ }
        $5 ~ /^memory/ { all-- }
        END { split("cpuid out-post out-scratch in-scratch mmio-read mmio-write notify request", name, " ")
            for (t = 1; t <= 2; t++) {
                for (i = 1; i <= 8; i++) bad += n[t, name[i]] != 1
                bad += n[t, "start"] != 2
            }
            exit bad || all != 20 }' "$BENCH_OUT/bench.raw" || {
        cat "$BENCH_OUT/bench.raw"
        fail "the rows of $1 are not all there"
    }
}

run 0 soft "$xhyve"
rows soft
run 0 kvm "$fake"
rows kvm
# One that refuses, as xhyve does where there is no KVM.
printf '#!/bin/sh\necho "xhyve: error: no KVM: load its module" >&2\nexit 4\n' >"$BENCH_OUT/refuses"
chmod +x "$BENCH_OUT/refuses"
run 0 kvm "$BENCH_OUT/refuses"
grep -q '^KVM: skipped: no KVM: load its module$' "$BENCH_OUT/bench.txt" || fail "no line that KVM was skipped, and why"
if [ ! -e /dev/kvm ]; then
    run 0 kvm "$xhyve"
    grep -q '^KVM: skipped: ..*' "$BENCH_OUT/bench.txt" || fail "no line that KVM was skipped, and why"
fi
# What breaks is no skip.
run 1 kvm false
run 1 soft false

{
    for turn in 1 2; do
        for value in 8 1 9; do # each turn's median is 8 times $turn
            echo "kvm $turn kvm xhyve start $((value * turn))"
            echo "kvm $turn kvm flash start $((value * turn * 6))"
            echo "kvm $turn kvm pvh start $((value * turn * turn * 4))"
        done
    done
    echo "kvm 1 kvm process start 1.25"
    echo "kvm 1 kvm xhyve notify 1000"
    echo "kvm 1 kvm q35 notify 500"
    echo "kvm 1 kvm xhyve memory 5.5"
    echo "kvm 1 kvm q35 memory 55"
    echo "kvm 1 soft q35 notify 7"
} >"$BENCH_OUT/bench.raw"
cat >"$BENCH_OUT/want" <<'WANT'

Start, ms                    xhyve      qemu      qemu      qemu best qemu/ spread
qemu by TCG                            flash       pvh       q35      xhyve
soft                             -         -         -         -          -

An access, ns                xhyve      qemu qemu/xhyve spread
notify                           -         7          -

Start, ms                    xhyve      qemu      qemu      qemu best qemu/ spread
with KVM                               flash       pvh       q35      xhyve
kvm                            8.5      51.0      34.0         -       4.00 4.00..8.00
  a process that prints a byte takes 1.2 ms; the best qemu is pvh
  goal: 10 ms at most and a ratio of 4 at least: reached

An exit, ns, with KVM        xhyve      qemu qemu/xhyve spread
notify                        1000       500       0.50 0.50..0.50

Own memory with KVM, MiB     xhyve      qemu qemu/xhyve spread
at the prompt                  5.5      55.0      10.00 10.00..10.00
at the first instruction         -         -          -
  goal: 5 MiB at most: not reached
WANT
"$bench" --table | diff "$BENCH_OUT/want" - || fail "the table is not what the rows say"
echo "kvm-on An Emulated CPU" >>"$BENCH_OUT/bench.raw"
"$bench" --table >"$BENCH_OUT/said"
if ! grep -q 'emulation.*"An Emulated CPU"' "$BENCH_OUT/said" || grep -q "ratio.*reached" "$BENCH_OUT/said"; then
    cat "$BENCH_OUT/said"
    fail "figures of an emulation that do not say so, or a goal reached by them"
fi
exit $status
