#!/bin/sh
# Runs bare-metal test images and says whether all their checks passed:
#     run.sh [--engine soft|soft,interp|kvm|qemu] [--set KEY=VALUE]... IMAGE...
# An image passes if its last line counts no failure and it ends with code 0 at port 0xF4. XHYVE names
# the program (build/xhyve of this tree if not set); "qemu" is the peer, to see whether a check or the
# CPU is wrong.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
xhyve=${XHYVE:-$here/../../../build/xhyve}
engine=soft
set=
while :; do
    case ${1-} in
    --engine) engine=$2 ;;
    --set) set="$set -o $2" ;;
    *) break ;;
    esac
    shift 2
done
[ $# -gt 0 ] || {
    echo "usage: run.sh [--engine soft|soft,interp|kvm|qemu] [--set KEY=VALUE]... IMAGE..." >&2
    exit 2
}
out=$(mktemp)
trap 'rm -f "$out" "$out.err"' EXIT
status=0

fail() {
    echo "run.sh: $*"
    status=1
}

for image; do
    rc=0
    case $engine in
    qemu)
        timeout 20 qemu-system-x86_64 -kernel "$image" -device isa-debug-exit,iobase=0xf4,iosize=4 \
            -device pc-testdev -serial stdio -display none -no-reboot -cpu max \
            >"$out" 2>"$out.err" </dev/null || rc=$?
        ;;
    *)
        timeout 20 "$xhyve" --engine "$engine" -m 64M -o cpu.model=host $set -l com1,stdio \
            -l pc-testdev -s 0:0,hostbridge -s 31,lpc -f multiboot,"$image" \
            >"$out" 2>"$out.err" </dev/null || rc=$?
        ;;
    esac
    cat "$out.err" "$out"
    twice=$(sed -n 's/^\(ok  \|FAIL\|skip\) \([^ ]*\) (.*/\2/p' "$out" | sort | uniq -d)
    [ -z "$twice" ] || fail "$image: more than one check is called $twice"
    tail -n 1 "$out" | grep -q '^[1-9][0-9]* checks, 0 failed, [0-9]* skipped' ||
        fail "$image: no count of checks without a failure at the end"
    [ "$rc" = 1 ] || fail "$image: ended with status $rc, not 1 (which is code 0 at port 0xF4)"
done
exit $status
