#!/bin/sh
# The guests of tools/bench-kvm.sh do what it waits for, on the software CPU:
#     check.sh XHYVE START EXITS
set -eu
xhyve=$1 start=$2 exits=$3
out=$(mktemp)
trap 'rm -f "$out"' EXIT

run() { # OPTION...: ends with status 1, which is code 0 at port 0xF4
    rc=0
    timeout 100 "$xhyve" --engine soft --jit-cache off -A -m 64M -s 0:0,hostbridge -s 31,lpc -l com1,stdio \
        -l pc-testdev "$@" >"$out" </dev/null || rc=$?
    [ $rc = 1 ] || {
        cat "$out"
        echo "check: $*: status $rc, not 1"
        exit 1
    }
}

run -f "pvh,$start"
[ "$(cat "$out")" = "$(printf '\025')" ] || {
    od -c "$out"
    echo "check: the first instructions do not put their byte on COM1"
    exit 1
}
run -s 2,virtio-rnd -f "multiboot,$exits"
tr -d '\r' <"$out"
tr -d '\r' <"$out" | awk '$1 == "exit" && NF == 5 && $3 > 0 && $4 >= 10000000 && $5 > 0 { names = names " " $2 }
    $0 == "7 checks, 0 failed, 0 skipped" { good = 1 }
    END { exit !good || names != " cpuid out-post out-scratch in-scratch mmio-read mmio-write notify request" }' || {
    echo "check: the exits are not all there, or a check has failed"
    exit 1
}
