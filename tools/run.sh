#!/bin/sh
# make run: builds, fetches a guest, and boots it on this terminal. Says how long each step took.
#     tools/run.sh [cloud|generic]
# More flags for xhyve may stand in $XHYVE_FLAGS, more words for the kernel in $CMDLINE.
set -eu
cd "$(dirname "$0")/.."
guest=${1:-cloud}

now() {
    date +%s%N
}
step() { # WHAT SINCE
    echo "run: $1 in $(((($(now) - $2) / 1000000 + 50) / 1000)).$((((($(now) - $2) / 1000000 + 50) % 1000) / 100)) s"
}

t=$(now)
tools/build.sh build
step "built build/xhyve" "$t"
t=$(now)
tools/guest.sh "$guest"
step "fetched the guest" "$t"
dir=build/guest/$guest

echo "run: booting; Ctrl-A x ends the guest at once, Ctrl-A h shows the other keys"
t=$(now)
set +e
# shellcheck disable=SC2086
build/xhyve -A -u -m 1G -s 0:0,hostbridge -s 31,lpc -s 2,virtio-rnd -l com1,stdio ${XHYVE_FLAGS-} \
    -f "kexec,$dir/vmlinuz,$dir/initrd,console=ttyS0 quiet ${CMDLINE-}"
status=$?
set -e
case $status in
0) how="rebooted; 'make run' starts it again" ;;
1) how="powered off" ;;
2) how="halted" ;;
3) how="ended by a triple fault" ;;
*) how="ended with status $status" ;;
esac
step "the guest $how" "$t"
[ "$status" -le 2 ]
