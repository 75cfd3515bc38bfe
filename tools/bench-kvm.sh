#!/bin/sh
# KVM, and the software CPU in the same loads, beside qemu: called by tools/bench.sh, which describes
# the variables. In each turn
#
#  start      from exec to the first instructions of a guest, which put a byte on COM1 (bench/bare/start.S),
#             STARTS times (10), sides by turns: xhyve by its loader; qemu's microvm with a firmware of
#             nothing but these instructions (flash) and by PVH (pvh), its q35 by PVH (q35); and a
#             process that does no more than print the byte
#  exits      what an access costs that leaves the guest (bench/bare/exits.c), by the guest's HPET: xhyve, q35
#  memory     the process's proportional set without the guest's memory, at these first instructions and at
#             the prompt of Debian's cloud kernel: xhyve, q35; with KVM only
#
# with --engine kvm beside -accel kvm, and with --engine soft beside -accel tcg. Where /dev/kvm cannot be
# used the first is left out, which a line says; so is the prompt on a KVM that emulates, since such a one
# runs no guest's programs. BENCH_BED=1 takes the KVM of tools/kvm-bed.sh for it: its processor is emulated,
# so that shows that all of this runs, not how fast.
#
# This is for busybox's shell and awk too, which are what there is in the bed.
set -eu
export LC_ALL=C
cd "$(dirname "$0")/.."
bin=${BENCH_BIN:-build/bench} guest=${BENCH_GUEST:-build/guest/cloud} out=${BENCH_OUT:-build}
raw=$out/bench.raw
mkdir -p "$out/bench"
mark=$(printf '\025') # what the guest of `start` says; any five bits, as COM1 begins with such bytes

# ---- one VM, or what stands for one ----

# Started by bench-watch itself: a shell in between would take more than some of what is measured.
launch() { # PROGRAM ARGUMENT...: what it says when goes into $log.watched
    case $load in
    start) set -- -m 1024 -w "first=$mark" -- "$@" ;;
    exits) set -- -- "$@" ;;
    memory) set -- -m 512 -w "prompt=xhyve:/# " -s poweroff -- "$@" ;;
    esac
    "$bin/bench-watch" -t "${BENCH_LIMIT:-300}" -l "$log" "$@" </dev/null >"$log.watched" || :
}

xhyve() { # OPTION...
    [ "$engine" = kvm ] && stay="-o kvm.leave=false" || stay=
    # shellcheck disable=SC2086
    launch "$XHYVE" --engine "$engine" $stay -A -u -s 0:0,hostbridge -s 31,lpc -l com1,stdio -l pc-testdev \
        --jit-cache off ${XHYVE_FLAGS-} "$@"
}

qemu() { # OPTION...
    # That feature's MSR is one that a KVM without hardware does not know, and qemu ends.
    [ "$engine" = kvm ] && accel="-accel kvm -cpu host,arch-capabilities=off" || accel="-accel tcg -cpu max"
    # shellcheck disable=SC2086
    launch qemu-system-x86_64 ${QEMU_FLAGS-} $accel -nodefaults -no-user-config -nographic -serial stdio -no-reboot \
        -device isa-debug-exit,iobase=0xf4,iosize=4 "$@"
}

watch() { # ENGINE LOAD PEER
    engine=$1 load=$2
    log=$out/bench/kvm-$1-$2-$3.log
    words="console=ttyS0 quiet ${BENCH_CMDLINE-}"
    case $2-$3 in
    start-xhyve) xhyve -m 1G -f "pvh,$bin/start" ;;
    start-flash) qemu -M microvm -m 1G -bios "$bin/flash" ;;
    start-pvh) qemu -M microvm -m 1G -kernel "$bin/start" ;;
    start-q35) qemu -M q35 -m 1G -kernel "$bin/start" ;;
    start-process) launch printf '\025' ;;
    exits-xhyve) xhyve -m 256M -s 2,virtio-rnd -f "multiboot,$bin/exits" ;;
    exits-q35) qemu -M q35 -m 256M -device virtio-rng-pci -kernel "$bin/exits" ;;
    memory-xhyve)
        xhyve -m 512M -s 2,virtio-rnd -f "kexec,$guest/vmlinuz,$guest/initrd,$words"
        ;;
    memory-q35)
        qemu -M q35 -m 512M -device virtio-rng-pci -kernel "$guest/vmlinuz" -initrd "$guest/initrd" \
            -append "$words"
        ;;
    esac
}

# ---- measuring: rows "kvm TURN ENGINE PEER ROW VALUE" on standard output, what happens on the other ----

failed=0

missing() { # ENGINE PEER WHAT
    echo "bench: with $1 there is no $3 on $2; its log $log and standard error end with" >&2
    tail -n 5 "$log" "$log.stderr" >&2
    failed=1
}

start() { # TURN ENGINE PEER
    watch "$2" start "$3"
    awk -v head="kvm $1 $2 $3" '
        $2 == "@first" {
            printf "%s start %.3f\n", head, $1 * 1000
            if ($6 >= 0 && head ~ / kvm /)
                printf "%s memory-first %.2f\n", head, $6 / 1024
            found = 1
        }
        END { exit !found }' "$log.watched" || missing "$2" "$3" "first instruction"
}

exits() { # TURN ENGINE PEER
    watch "$2" exits "$3"
    # TIME exit NAME COUNT NANOSECONDS CYCLES; the firmware may have left a line begun
    awk -v head="kvm $1 $2 $3" '$2 == "exit" && NF == 6 && $4 > 0 { row[n++] = head " " $3 " " $5 / $4 }
        / checks, 0 failed, 0 skipped$/ { good = 1 }
        END { for (i = 0; i < n; i++) print row[i]; exit !good || n != 8 }' "$log.watched" ||
        missing "$2" "$3" "whole set of exits, all checks passed,"
}

memory() { # TURN ENGINE PEER
    watch "$2" memory "$3"
    awk -v head="kvm $1 $2 $3 memory" '
        $2 == "@prompt" && $6 >= 0 { printf "%s %.2f\n", head, $6 / 1024; found = 1 }
        END { exit !found }' "$log.watched" || missing "$2" "$3" "own memory at a prompt"
}

measure() { # ENGINE
    prompt=no # whether a guest comes to one, and it is asked for
    [ "$1-${BENCH_MEMORY-}" = kvm- ] && ! emulates && prompt=yes
    for turn in $(seq "$RUNS"); do
        for n in $(seq "${STARTS:-10}"); do
            for peer in $start_peers process; do
                start "$turn" "$1" "$peer"
            done
        done
        echo "bench: turn $turn, $1: $n starts on each side" >&2
        for peer in $peers; do
            exits "$turn" "$1" "$peer"
            echo "bench: turn $turn, $1: exits on $peer" >&2
        done
        [ $prompt = yes ] || continue
        for peer in $peers; do
            memory "$turn" "$1" "$peer"
            echo "bench: turn $turn, $1: memory on $peer" >&2
        done
    done
}

# ---- KVM in the bed ----

bed() {
    rm -rf build/bench/bed
    mkdir -p build/bench/bed/tools
    set -- "$XHYVE" build/bench/bench-watch build/bench/start build/bench/flash build/bench/exits \
        "$guest/vmlinuz" "$guest/initrd" "$(command -v qemu-system-x86_64)"
    # qemu's firmware, from where it says that it looks
    for file in bios-256k.bin bios-microvm.bin kvmvapic.bin linuxboot_dma.bin pvh.bin multiboot_dma.bin; do
        for folder in $(qemu-system-x86_64 -L help); do
            [ ! -e "$folder/$file" ] || set -- "$@" "$folder/$file"
        done
    done
    for file; do
        ln -sf "$(realpath "$file")" "build/bench/bed/$(basename "$file")"
    done
    ln -s "$(realpath tools/bench-kvm.sh)" build/bench/bed/tools/bench-kvm.sh
    tools/kvm-bed.sh --memory 2048 --timeout 3600 --file build/bench/bed -- \
        "cd bed; export PATH=/root/bed:\$PATH QEMU_FLAGS='-L .';" \
        "sed -n 's/^model name.*: /kvm-on /p' /proc/cpuinfo; qemu-system-x86_64 --version;" \
        "XHYVE=./$(basename "$XHYVE") XHYVE_FLAGS='${XHYVE_FLAGS-}' RUNS=$RUNS STARTS=${STARTS:-3}" \
        "BENCH_PEERS='$sides' BENCH_CMDLINE='${BENCH_CMDLINE-}' BENCH_BIN=. BENCH_GUEST=. BENCH_OUT=." \
        "sh tools/bench-kvm.sh --measure kvm" >"$out/bench/kvm-bed.log" || failed=1
    tr -d '\r' <"$out/bench/kvm-bed.log" | awk '/^kvm / { next } { print }'
    tr -d '\r' <"$out/bench/kvm-bed.log" | grep '^kvm' >>"$raw" || failed=1
}

# Whether KVM can be used, by xhyve, which says why not, and what would change it.
usable() {
    watch kvm start xhyve
    grep -q '@first' "$log.watched"
}

# Whether the trial of auto says that this KVM emulates.
emulates() {
    watch auto start xhyve
    grep -q 'this KVM emulates' "$log.stderr"
}

# ---- the table ----

table() {
    awk "$(cat tools/median.awk)"'
function cell(v, form) {
    return sprintf(" %9s", v == "" ? "-" : sprintf(form, v))
}
function ratio(engine, peer, row, x, q, r, one, least, most) { # peer over xhyve, of all and of turns
    x = median(all[engine, "xhyve", row])
    q = median(all[engine, peer, row])
    if (x == "" || q == "" || x <= 0)
        return sprintf(" %10s", "-")
    for (r in turns)
        if ((r, engine, "xhyve", row) in turn && (r, engine, peer, row) in turn) {
            one = median(turn[r, engine, peer, row]) / median(turn[r, engine, "xhyve", row])
            if (least == "" || one < least) least = one
            if (most == "" || one > most) most = one
        }
    return sprintf(" %10.2f %.2f..%.2f", q / x, least, most)
}
function starts(engine, p, k, n, m, best, x, q) {
    n = split("xhyve flash pvh q35", p, " ")
    printf "%-24s", engine
    for (k = 1; k <= n; k++) {
        m = median(all[engine, p[k], "start"])
        printf "%s", cell(m, "%.1f")
        if (k > 1 && m != "" && (best == "" || m + 0 < median(all[engine, best, "start"]) + 0))
            best = p[k]
    }
    x = median(all[engine, "xhyve", "start"])
    print (best == "" ? sprintf(" %10s", "-") : ratio(engine, best, "start"))
    m = median(all[engine, "process", "start"])
    if (m != "")
        printf "  a process that prints a byte takes %.1f ms%s\n", m, (best == "" ? "" : "; the best qemu is " best)
    if (engine != "kvm" || x == "")
        return
    q = best == "" ? 0 : median(all[engine, best, "start"])
    printf "  goal: 10 ms at most and a ratio of 4 at least: %s\n",
        (on != "" ? "only a real KVM can show it" : x <= 10 && q >= 4 * x ? "reached" : "not reached")
}
$1 == "kvm-on" && !on { sub(/^kvm-on /, ""); on = $0 }
$1 == "kvm" {
    all[$3, $4, $5] = all[$3, $4, $5] " " $6
    turn[$2, $3, $4, $5] = turn[$2, $3, $4, $5] " " $6
    turns[$2] = 1
    engines[$3] = 1
    if ($5 != "start" && $5 !~ /^memory/ && !($5 in seen)) { seen[$5] = 1; row[++rows] = $5 }
}
END {
    for (k = split("kvm soft", e, " "); k > 0; k--) {
        engine = e[k]
        if (!(engine in engines))
            continue
        if (engine == "kvm" && on != "")
            printf "\nKVM in an emulation (tools/kvm-bed.sh), whose processor is \"%s\":\n" \
                "what follows shows that this runs, and not how fast KVM is.\n", on
        printf "\n%-24s %9s %9s %9s %9s %10s %s\n%-24s %9s %9s %9s %9s %10s\n",
            "Start, ms", "xhyve", "qemu", "qemu", "qemu", "best qemu/", "spread",
            engine == "kvm" ? "with KVM" : "qemu by TCG", "", "flash", "pvh", "q35", "xhyve"
        starts(engine)
        printf "\n%-24s %9s %9s %10s %s\n", engine == "kvm" ? "An exit, ns, with KVM" : "An access, ns",
            "xhyve", "qemu", "qemu/xhyve", "spread"
        for (i = 1; i <= rows; i++)
            printf "%-24s%s%s%s\n", row[i], cell(median(all[engine, "xhyve", row[i]]), "%.0f"),
                cell(median(all[engine, "q35", row[i]]), "%.0f"), ratio(engine, "q35", row[i])
        if (engine != "kvm")
            continue
        printf "\n%-24s %9s %9s %10s %s\n", "Own memory with KVM, MiB", "xhyve", "qemu", "qemu/xhyve", "spread"
        most = ""
        for (i = split("memory-first memory", m, " "); i > 0; i--) {
            x = median(all[engine, "xhyve", m[i]])
            if (x != "" && (most == "" || x > most + 0))
                most = x
            printf "%-24s%s%s%s\n", m[i] == "memory" ? "at the prompt" : "at the first instruction", cell(x, "%.1f"),
                cell(median(all[engine, "q35", m[i]]), "%.1f"), ratio(engine, "q35", m[i])
        }
        if (most != "")
            printf "  goal: 5 MiB at most: %s\n", (most <= 5 ? "reached" : "not reached")
    }
}' "$raw"
}

# ---- what is asked for ----

start_peers='' peers='' sides=''
for side in ${BENCH_PEERS:-xhyve qemu}; do
    case $side in
    xhyve) start_peers="$start_peers xhyve" peers="$peers xhyve" ;;
    qemu) start_peers="$start_peers flash pvh q35" peers="$peers q35" ;;
    *) continue ;;
    esac
    sides="$sides $side"
done
case ${1-} in
--measure) # ENGINE: the rows on standard output, as the bed wants it
    measure "$2"
    exit $failed
    ;;
--table) # of what is in bench.raw
    table
    exit
    ;;
esac
[ -n "$peers" ] || exit 0
[ -e "$bin/exits" ] || {
    echo "bench: $bin has no guests start, flash and exits: they need gcc and objcopy" >&2
    exit 1
}
: >>"$raw"
why=''
for asked in ${BENCH_ENGINES:-soft kvm}; do
    case $asked in
    soft) measure soft >>"$raw" ;;
    kvm)
        if usable; then
            measure kvm >>"$raw"
        elif [ -n "${BENCH_BED-}" ]; then
            bed
        else
            why=$(sed -n 's/.*error: //p' "$log.stderr" | sed -n 1p)
            if [ -n "$why" ]; then
                why="KVM: skipped: $why"
            else # it did not refuse, it broke
                missing kvm xhyve "first instruction"
            fi
        fi
        ;;
    *)
        echo "bench: BENCH_ENGINES holds soft and kvm, not '$asked'" >&2
        exit 2
        ;;
    esac
done
{
    table
    [ -z "$why" ] || printf '\n%s\n%s\n' "$why" \
        "BENCH_BED=1 make bench PART=kvm runs it in an emulation, which shows that it runs, not how fast."
} >>"$out/bench.txt"
[ -z "$why" ] || echo "bench: $why"
exit $failed
