#!/bin/bash
# The programs of bench/ on the host, in xhyve and in qemu: called by tools/bench.sh, which describes
# the variables. Each turn is one run of all programs on each side, so that a machine that gets
# slower, or a neighbour that comes, meets all three. A program says how long its rounds took, on
# the clock of where it runs; the host's clock sees when its line arrives, and a guest whose clock
# runs slow is found out.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=build/bench/guest
raw=build/bench.raw
peers=${BENCH_PEERS:-native xhyve qemu}

run_native() {
    while read -r name _; do
        build/bench/xbench "$name" "$SCALE" </dev/null 2>&1 || :
    done <build/bench/names
}

cmdline="console=ttyS0 quiet rdinit=/bench-programs ${BENCH_CMDLINE-}"
run_xhyve() {
    # shellcheck disable=SC2086
    exec "$XHYVE" --engine soft -A -u -m 1G -s 0:0,hostbridge -s 31,lpc -l com1,stdio --jit-cache off $XHYVE_FLAGS \
        -f "kexec,$dir/vmlinuz,$dir/initrd,$cmdline"
}
run_qemu() {
    exec qemu-system-x86_64 -M q35 -m 1G -accel tcg -cpu max -nodefaults -nographic -serial stdio \
        -no-reboot -kernel $dir/vmlinux -initrd $dir/initrd -append "$cmdline"
}

# bench-watch executes programs, not functions of this script
if [ "${1-}" = --run ]; then
    "run_$2"
    exit
fi

for ((run = 1; run <= RUNS; run++)); do
    for peer in $peers; do
        case $peer in native | xhyve | qemu) ;; *) continue ;; esac
        log=build/bench/programs-$peer.log
        build/bench/bench-watch -t "${BENCH_LIMIT:-3600}" -l "$log" -- "$0" --run "$peer" \
            >build/bench/watched </dev/null || echo "bench: $peer did not end; see $log" >&2
        # Raw: program RUN PEER NAME SUM SECONDS USER SYSTEM HOST_SECONDS, or RUN PEER NAME skipped
        awk -v run="$run" -v peer="$peer" '
            FNR == NR { known[$1] = 1; next }
            $2 in known && NF == 6 && length($3) == 16 {
                print "program", run, peer, $2, $3, $4, $5, $6, $1 - last
            }
            $2 in known && $3 == "skipped:" { print "program", run, peer, $2, "skipped" }
            $2 in known && $3 == "wrong:" { print "program", run, peer, $2, "wrong" }
            { last = $1 }' build/bench/names build/bench/watched >build/bench/rows
        cat build/bench/rows >>$raw
        awk -v run="$run" -v peer="$peer" 'NF == 9 { n++; s += $6 } END {
            printf "bench: turn %d, %-6s %3d programs, %7.2f s\n", run, peer, n, s }' build/bench/rows
    done
done

awk -v peers="$peers" -v scale="$SCALE" "$(cat tools/median.awk)"'
function number(x, format) { return x == "" ? "-" : sprintf(format, x) }
function enter(mean, x) { # into a geometric mean
    if (x != "") {
        sum[mean] += log(x)
        count[mean]++
    }
}
function mean_of(mean, format) {
    return count[mean] ? sprintf(format, exp(sum[mean] / count[mean])) : "-"
}
FNR == NR { order[++names] = $1; group[$1] = $2; next }
$1 != "program" { next }
$5 == "skipped" { skipped[$3, $4] = 1; next }
$5 == "wrong" { wrong[$4] = wrong[$4] " " $3; next }
{
    time[$2, $3, $4] = $6
    times[$3, $4] = times[$3, $4] " " $6
    if (!(($4) in known))
        known[$4] = $5
    else if (known[$4] != $5)
        wrong[$4] = wrong[$4] " " $3
    if ($6 > $9 * 1.05 + 0.02)
        slow[$3] = slow[$3] " " $4
    if ($2 > runs)
        runs = $2
}
END {
    printf "\nPrograms, seconds at scale %s\n", scale
    printf "%-9s %-8s %8s %8s %8s  %9s %-15s %9s\n", "", "", "native", "xhyve", "qemu", "qemu/",
        "(least..most)", "xhyve/"
    printf "%-9s %-8s %8s %8s %8s  %9s %-15s %9s\n", "", "", "", "", "", "xhyve", "", "native"
    for (i = 1; i <= names; i++) {
        name = order[i]
        n = median(times["native", name]); x = median(times["xhyve", name])
        q = median(times["qemu", name])
        ratio = x != "" && q != "" && x > 0 ? q / x : ""
        cost = x != "" && n != "" && n > 0 ? x / n : ""
        if (name in wrong) # it may have stopped early
            ratio = cost = q = ""
        least = most = ""
        for (r = 1; r <= runs && ratio != ""; r++)
            if (time[r, "xhyve", name] > 0 && (r, "qemu", name) in time) {
                one = time[r, "qemu", name] / time[r, "xhyve", name]
                if (least == "" || one < least) least = one
                if (most == "" || one > most) most = one
            }
        printf "%-9s %-8s %8s %8s %8s  %9s %-15s %9s%s\n", name, group[name], number(n, "%.3f"),
            number(x, "%.3f"), number(q, "%.3f"), number(ratio, "%.2f"),
            least == "" ? "" : sprintf("(%.2f..%.2f)", least, most), number(cost, "%.2f"),
            (name in wrong) ? "  WRONG on" wrong[name] : ""
        split(peers, peer, " ")
        for (k in peer)
            if (times[peer[k], name] == "")
                if ((peer[k], name) in skipped)
                    notes = notes sprintf("%s: not run on %s, whose CPU lacks it\n", name, peer[k])
                else if (peer[k] ~ /^(native|xhyve|qemu)$/) {
                    notes = notes sprintf("%s: MISSING on %s\n", name, peer[k])
                    bad = 1
                }
        if (name in wrong)
            bad = 1
        enter("ratio all", ratio)
        enter("ratio " group[name], ratio)
        if (group[name] != "system" && group[name] != "kernel") {
            enter("ratio user", ratio)
            enter("cost user", cost)
            if (q != "" && n > 0) enter("peer user", q / n)
        }
        enter("cost all", cost)
        enter("cost " group[name], cost)
        if (q != "" && n > 0) {
            enter("peer all", q / n)
            enter("peer " group[name], q / n)
        }
        if (ratio != "" && (worst == "" || ratio < lowest)) {
            worst = name
            lowest = ratio
        }
    }
    printf "\n%-38s %11s %13s %12s\n", "geometric means", "qemu/xhyve", "xhyve/native", "qemu/native"
    n = split("all user system kernel float calls strings plain", key, " ")
    title["all"] = "all programs"
    title["user"] = "user mode (all but system, kernel)"
    for (i = 1; i <= n; i++)
        if (count["ratio " key[i]] || count["cost " key[i]] || count["peer " key[i]])
            printf "%-38s %11s %13s %12s\n", key[i] in title ? title[key[i]] : key[i],
                mean_of("ratio " key[i], "%.2f"), mean_of("cost " key[i], "%.2f"),
                mean_of("peer " key[i], "%.2f")
    if (worst != "")
        printf "least qemu/xhyve: %.2f (%s)\n", lowest, worst
    for (p in slow)
        printf "the clock in %s runs ahead of the host, in:%s\n", p, slow[p]
    printf "%s", notes
    exit bad
}' build/bench/names $raw >>build/bench.txt
