#!/bin/bash
# make bench: the same guest on xhyve and on qemu without KVM (-accel tcg), each RUNS times (3) in
# turns, and the medians side by side. The table is also left in build/bench.txt.
#
#  prompt     from exec to the shell's prompt
#  hash       sha256 of 16 MiB in the guest after that (its own time, not from the start)
#  cpu        the program's CPU time up to the prompt, all threads: what idling and helpers cost
#  MIPS       guest instructions a second over the whole run, by --stats (qemu does not count)
#  own memory what the program has resident after the hash beside the guest's memory, read from
#             /proc/PID/smaps (the largest mapping is the guest's)
#  peak       VmHWM then: own and what the guest has touched
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${RUNS:-3}
out=build/bench.txt

tools/build.sh build
tools/guest.sh cloud
mkdir -p build/boot
rows=$(mktemp)
trap 'rm -f "$rows"' EXIT

measure() { # PROGRAM FLAGS: a line "program prompt hash cpu own peak mips"
    local log=build/boot/bench-$1.log said stderr
    # shellcheck disable=SC2086
    if ! said=$(build/tests/boot/boot-console ${2-} -l "$log" tests/boot/bench.scenario); then
        echo "$said"
        echo "bench: the guest did not get through on $1" >&2
        return 1
    fi
    stderr=$(cat "$log.stderr")
    awk -v program="$1" -v stats="$stderr" '
        $2 == "prompt" { prompt = $3; cpu = $5 }
        $2 == "hashed" { hash = $3 - prompt; peak = $10 / 1024; own = $13 / 1024 }
        END {
            mips = "-"
            # vcpu 0: SECONDS s, N instructions, ...
            n = split(stats, word, /[ ,\n]+/)
            for (i = 2; i <= n; i++)
                if (word[i] ~ /^instructions/ && word[i - 3] > 0) {
                    mips = word[i - 1] / word[i - 3] / 1e6
                    break
                }
            print program, prompt, hash, cpu, own, peak, mips
        }' <<<"$said" >>"$rows"
    echo "bench: $(tail -n 1 "$rows" | awk '{ printf "%-5s prompt %.2f s, hash %.2f s, cpu %.2f s, own memory %.0f MiB", $1, $2, $3, $4, $5 }')"
}

for ((run = 1; run <= runs; run++)); do
    measure xhyve
    measure qemu -q
done

median() { # PROGRAM COLUMN
    awk -v p="$1" -v c="$2" '$1 == p { print $c }' "$rows" | sort -g |
        awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}
{
    echo "xhyve $(git describe --always --dirty 2>/dev/null || echo '?') and $(qemu-system-x86_64 --version | sed -n '1s/ (.*//p')," \
        "$(nproc) CPUs: $(sed -n 's/^model name.*: //p' /proc/cpuinfo | sed -n 1p); median of $runs"
    printf '%-22s %10s %10s %8s\n' "" xhyve qemu ratio
    row() { # TITLE COLUMN FORMAT
        local a b
        a=$(median xhyve "$2") b=$(median qemu "$2")
        awk -v t="$1" -v a="$a" -v b="$b" -v f="$3" 'BEGIN {
            printf "%-22s %10s %10s %8s\n", t, a == "-" ? a : sprintf(f, a), b == "-" ? b : sprintf(f, b),
                a == "-" || b == "-" || b == 0 ? "-" : sprintf("%.2f", a / b) }'
    }
    row "prompt, s" 2 %.2f
    row "hash 16 MiB, s" 3 %.2f
    row "cpu to prompt, s" 4 %.2f
    row "own memory, MiB" 5 %.0f
    row "peak memory, MiB" 6 %.0f
    row "guest MIPS" 7 %.1f
} | tee "$out"
