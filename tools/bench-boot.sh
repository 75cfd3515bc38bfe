#!/bin/bash
# A boot of the cloud guest: called by tools/bench.sh, which describes the variables. Each turn has
# two boots on each side: a quiet one to a prompt, some work and power off, and one that prints from
# the kernel's first line on (earlyprintk), for when that comes. Times are the host's, from exec:
#
#  first line     "Linux version" on the console, in the second kind of boot; all else is the first
#  /init          the first program of the guest says so
#  prompt         of the shell
#  end            the process is gone after poweroff was typed at the prompt: the work is not counted
#  sha256         of 16 MiB in the guest, its own time
#  cpu            the process's CPU time up to the prompt, all threads: what idling and helpers cost
#  own memory     proportional set size at the prompt, without the guest's memory
#  peak           VmHWM at the prompt: own and what the guest has touched
#  MIPS           guest instructions a second over the whole second kind of boot, by --stats (qemu does
#                 not count)
#
# xhyve boots as for the first time (--jit-cache off), and again with the translations of earlier boots;
# as users run it, and with --stats in the second kind of boot only: counting makes it slower.
#
# qemu comes in three shapes: a q35 that boots the bzImage as xhyve is given it; a q35 and a microvm
# that boot the ELF in it by PVH, so that the guest need not unpack it. xhyve unpacks it on the host.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=build/bench/guest
raw=build/bench.raw
peers=
for peer in ${BENCH_PEERS:-xhyve qemu}; do
    case $peer in
    qemu) peers="$peers q35 pvh microvm" ;;
    xhyve) peers="$peers xhyve again" ;;
    again | q35 | pvh | microvm) peers="$peers $peer" ;;
    esac
done
[ -n "$peers" ] || exit 0

qemu="qemu-system-x86_64 -m 1G -accel tcg -cpu max -nodefaults -nographic -serial stdio -no-reboot"
run_vm() { # PEER CMDLINE
    local cache=off
    [ "$1" = xhyve ] || cache=build/bench/jit-cache
    [ "${2#*earlyprintk}" = "$2" ] || [ "$1" != xhyve ] || cache="off --stats"
    # shellcheck disable=SC2086
    case $1 in
    xhyve | again)
        exec "$XHYVE" --engine soft -A -u -m 1G -s 0:0,hostbridge -s 31,lpc -s 2,virtio-rnd -l com1,stdio \
            --jit-cache $cache $XHYVE_FLAGS -f "kexec,$dir/vmlinuz,$dir/initrd,$2"
        ;;
    q35)
        exec $qemu -M q35 -device virtio-rng-pci -kernel $dir/vmlinuz -initrd $dir/initrd -append "$2"
        ;;
    pvh)
        exec $qemu -M q35 -device virtio-rng-pci -kernel $dir/vmlinux -initrd $dir/initrd -append "$2"
        ;;
    microvm) # no PCI, and so no random numbers
        exec $qemu -M microvm -kernel $dir/vmlinux -initrd $dir/initrd -append "$2"
        ;;
    esac
}
if [ "${1-}" = --run ]; then
    run_vm "$2" "$3"
fi

# microvm's only clock to measure the TSC by is the i8254, which fails under TCG every few boots, and
# the kernel then waits for ever: that boot is tried again.
watch() { # PEER KIND CMDLINE -w...: into build/bench/watched
    local log=build/bench/boot-$1-$2.log vm=$1 words=$3 limit=600 tries=1
    shift 3
    [ "$vm" != microvm ] || limit=30 tries=5
    while ! build/bench/bench-watch -t "${BENCH_LIMIT:-$limit}" -m 1024 -l "$log" "$@" \
        -- "$0" --run "$vm" "console=ttyS0 $words rdinit=/bench-boot ${BENCH_CMDLINE-}" >build/bench/watched; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        echo "bench: $vm is booted again"
    done
}

failed=0
# shellcheck disable=SC2016
work='echo sum=$(dd if=/dev/zero bs=64k count=256 2>/dev/null | sha256sum | cut -c 1-8)='
for ((run = 1; run <= RUNS; run++)); do
    for peer in $peers; do
        first=- mips=-
        if watch "$peer" verbose "earlyprintk=ttyS0,115200" -w "first=Linux version" \
            -w "prompt=xhyve:/# " -s poweroff; then
            first=$(awk '$2 == "@first" { print $1 }' build/bench/watched)
        fi
        watch "$peer" quiet quiet -w init=bench-init -w "prompt=xhyve:/# " -s "$work" \
            -w hash=sum=080acf35= -w "again=xhyve:/# " -s poweroff || :
        # vcpu 0: SECONDS s, N instructions, ...
        [ "$peer" != xhyve ] ||
            mips=$(awk '{ for (i = 4; i <= NF; i++) if ($i ~ /^instructions/ && $(i - 3) > 0) {
                printf "%.1f", $(i - 1) / $(i - 3) / 1e6; exit } }' build/bench/boot-xhyve-verbose.log.stderr)
        # Raw: boot RUN PEER FIRST INIT PROMPT END SHA CPU OWN_MIB PEAK_MIB MIPS
        if ! awk -v run="$run" -v peer="$peer" -v first="${first:--}" -v mips="${mips:--}" '
            $2 == "@init" { init = $1 }
            $2 == "@prompt" { prompt = $1; cpu = $4; own = $6 < 0 ? "-" : $6 / 1024; peak = $8 / 1024 }
            $2 == "@hash" { hash = $1 - prompt }
            $2 == "@again" { again = $1 }
            $2 == "@exit" && again {
                print "boot", run, peer, first, init, prompt, prompt + $1 - again, hash, cpu, own,
                    peak, mips
                whole = 1
            }
            END { exit !whole }' build/bench/watched >build/bench/rows; then
            echo "bench: the guest did not get through on $peer; see build/bench/boot-$peer-quiet.log" >&2
            failed=1
            continue
        fi
        cat build/bench/rows >>$raw
        awk '{ printf "bench: turn %d, %-8s prompt %.2f s, sha256 %.2f s\n", $2, $3, $6, $8 }' \
            build/bench/rows
    done
done

awk -v peers="$peers" "$(cat tools/median.awk)"'
function ours(peer) {
    return peer == "xhyve" || peer == "again"
}
$1 == "boot" {
    for (i = 4; i <= NF; i++)
        if ($i != "-")
            values[$3, i] = values[$3, i] " " $i
    turns[$2] = 1
    prompt[$2, $3] = $6
}
END {
    n = split(peers, peer, " ")
    for (k = 1; k <= n; k++)
        if (!ours(peer[k]) && (m = median(values[peer[k], 6])) != "" && (best == "" || m < fastest)) {
            best = peer[k]
            fastest = m
        }
    printf "\n%-24s", "A boot"
    for (k = 1; k <= n; k++)
        printf " %9s", ours(peer[k]) ? "xhyve" : "qemu"
    printf " %9s\n%-24s", "best qemu/", ""
    for (k = 1; k <= n; k++)
        printf " %9s", peer[k] == "xhyve" ? "" : peer[k]
    printf " %9s\n", "xhyve"
    split("first line, s|/init, s|prompt, s|end, s|sha256 of 16 MiB, s|CPU to the prompt, s|" \
        "own memory, MiB|peak memory, MiB|guest MIPS", title, "|")
    for (i = 4; i <= 12; i++) {
        printf "%-24s", title[i - 3]
        low = ""
        for (k = 1; k <= n; k++) {
            m = median(values[peer[k], i])
            printf " %9s", m == "" ? "-" : sprintf(i < 10 ? "%.2f" : "%.0f", m)
            if (!ours(peer[k]) && m != "" && (low == "" || m < low))
                low = m
        }
        x = median(values["xhyve", i])
        printf " %9s\n", low == "" || x == "" || x <= 0 || i == 12 ? "-" : sprintf("%.2f", low / x)
    }
    for (r in turns)
        if (best != "" && ((r, best) in prompt) && ((r, "xhyve") in prompt)) {
            one = prompt[r, best] / prompt[r, "xhyve"]
            if (least == "" || one < least) least = one
            if (most == "" || one > most) most = one
        }
    m = median(values["again", 5])
    x = median(values["xhyve", 5])
    if (m > 0 && x != "")
        printf "the first boot to /init takes %.2f times as long as the second\n", x / m
    if (least != "")
        printf "the fastest qemu to the prompt is %s; its time over ours: %.2f..%.2f\n", best, least, most
}' $raw >>build/bench.txt
exit $failed
