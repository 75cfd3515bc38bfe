#!/bin/sh
# xhyvectl and VMs that run: every command, every error, names and sockets.
# commands.sh XHYVE XHYVECTL MKGUEST XHYVE_FAKE
set -u
xhyve=$(realpath "$1") ctl=$(realpath "$2") mkguest=$(realpath "$3") fake=$(realpath "$4")
without_kvm=$(realpath "$(dirname "$0")")/../cli/without_kvm.sh
export TMPDIR=/tmp # a socket has a short name
. "$(dirname "$0")/../cli/checks.sh"
XDG_RUNTIME_DIR=$dir/run
export XDG_RUNTIME_DIR
mkdir -m 700 "$dir/run"
sockets=$dir/run/xhyve
pids=
trap 'for p in $pids; do kill -KILL $p 2>/dev/null; done; rm -rf "$dir"' EXIT
cd "$dir" || exit 1
for guest in idle button halt; do
    "$mkguest" $guest >$guest || exit 1
done
truncate -s 64K disc
truncate -s 64K "disc of a
strange name %20"
mkdir sub
truncate -s 64K sub/disc sub/hd
hidden= # what "$xhyve" is started by
machine="--engine soft -m 16M -s 31,lpc -l com1,stdio"

# wait_for COMMAND...: until it works, for a minute at most.
wait_for() {
    tries=0
    until "$@" 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -lt 600 ] || return 1
        sleep 0.1
    done
}

# start TAG GUEST WORD...: in the background, until the guest has said its name. Console and log are
# TAG.out and TAG.err, the process is $vm.
start() {
    tag=$1 guest=$2
    shift 2
    : >"$tag.out"
    $hidden "$xhyve" $machine -f "kexec,$guest" "$@" </dev/null >"$tag.out" 2>"$tag.err" &
    vm=$!
    pids="$pids $vm"
    wait_for grep -q "$guest" "$tag.out" || not_ok "$tag does not start: $(cat "$tag.err")"
}

# ended PID STATUS WHAT: in a minute at most. The sleep goes with its shell, or it would keep our output.
ended() {
    (
        trap 'kill $sleep; exit' TERM
        sleep 60 &
        sleep=$!
        wait $sleep
        kill -KILL "$1"
    ) >/dev/null 2>&1 &
    watchdog=$!
    wait "$1"
    status=$?
    kill $watchdog 2>/dev/null
    [ $status -eq "$2" ] && ok || not_ok "$3: status $status, not $2"
}

# does ARGUMENT...: status 0 and nothing on standard error; what it says is in out.
does() {
    timeout -s KILL 60 "$ctl" "$@" >out 2>err </dev/null
    status=$?
    if [ $status -ne 0 ] || [ -s err ]; then
        not_ok "xhyvectl $*: status $status, $(cat err)"
    else
        ok
    fi
}

# fails WORDS ARGUMENT...: status 1, nothing on standard output, one sentence that holds WORDS.
fails() {
    words=$1
    shift
    timeout -s KILL 60 "$ctl" "$@" >out 2>err </dev/null
    status=$?
    if [ $status -ne 1 ] || [ -s out ] || [ "$(wc -l <err)" -ne 1 ] ||
        ! grep -q '^xhyvectl: error: ' err || ! grep -qF -- "$words" err; then
        not_ok "xhyvectl $*: status $status, wanted '$words', got: $(cat out err)"
    else
        ok
    fi
}

has_open() { # PID FILE: the process has it open; of a name of several lines the first one
    ls -l "/proc/$1/fd" | grep -q -- "-> $2\$"
}
has_not_open() {
    ! has_open "$@"
}

# ---- nobody there ----

does list
check "an empty list" test "$(wc -l <out)" -eq 1
fails "no VM named 'one' runs here; those that run: none" vm one status
fails "no VM named 'one' runs here" --vm=one --destroy

# ---- one VM ----

start one idle -A -s 3,ahci-cd -s 4,ahci,hd:sub/hd,cd: -s 5,virtio-rnd one
one=$vm
does list
check "it is listed: $(cat out)" grep -q "^one  *running  *soft  *1  *16M  *[0-9:]*  *$one\$" out
does vm one status
for line in "name: one" "state: running" "engine: soft" "engine_changes: 0" "cpus: 1" "memory: 16M" \
    "pid: $one" "power_button: yes" "kernel: idle" "device: 0:3:0 ahci-cd" "device: 0:4:0 ahci"; do
    check "status says $line" grep -qxF "$line" out
done
check "the socket is its user's alone" test "$(stat -c %a "$sockets" "$sockets/one.sock" | tr '\n' ' ')" \
    = "700 600 "
fails "no VM named 'two' runs here; those that run: one" vm two status

does vm one insert 3 disc
check "the disc is in" has_open $one "$dir/disc"
does --vm=one insert 0:3:0 "disc of a
strange name %20"
check "another disc is in" has_open $one "$dir/disc of a"
check "and the first one out" has_not_open $one "$dir/disc"
does vm one eject 3
check "the disc is out" has_not_open $one "$dir/disc of a"
(cd sub && "$ctl" --vm one insert 3:0.0 disc >/dev/null 2>&1 </dev/null)
check "a path from where the command is given" has_open $one "$dir/sub/disc"
does vm one insert 4.1 "$dir/disc" --force
check "the second port" has_open $one "$dir/disc"
does vm one eject --force 4.1
check "out of the second port" has_not_open $one "$dir/disc"
does vm one -- eject 3

fails "nothing: there is no such file" vm one insert 3 nothing
fails "$dir/sub: is a directory" vm one insert 3 sub
fails "is neither a regular file nor a block device" vm one insert 3 /dev/null
fails "the name of the file is empty" vm one insert 3 ""
fails "PCI slot 0:9:0 is empty" vm one insert 9 disc
fails "virtio-rnd has no such drive: PCI slot 0:5:0 has no drive" vm one eject 5
fails "there is no CD drive at port 0" vm one eject 4
fails "there is no CD drive at port 7" vm one eject 4.7
fails "'drive' is no place of a drive" vm one eject drive
fails "start it with -o cpu.model=portable" vm one engine
long=$(head -c 3000 /dev/zero | tr '\0' x)
fails "path is longer than" vm one insert 3 "$long"
fails "a request has at most 4096 bytes" vm one insert 3 "$long$long"

# ---- what is not understood ----

fails "which VM?" --destroy
fails "nothing to do" vm one
fails "vm needs the name of a VM" vm
fails "vm needs the name of a VM" vm --destroy
fails "--vm needs the name of a VM" --vm
fails "--socket needs the path of a socket" --socket=
fails "two VMs, 'one' and 'two'" --vm=one --vm=two status
fails "two commands, status and reset" --vm=one status --force-reset
fails "unexpected word 'refresh'" --vm=one status refresh
fails "did you mean 'powerdown'?" vm one powerdwn
fails "unknown command 'dance'" vm one dance
fails "unknown command 'dance'" dance
fails "it is insert WHERE FILE" vm one insert 3
fails "unexpected word 'now'" vm one poweroff now
fails "unexpected word 'now'" list now
fails "--force means nothing to status" vm one status --force
fails "'a/b' is no name of a VM" vm a/b status
fails "xhyve --stats prints them" --vm=one --get-stats
fails "a VM is made by starting xhyve" --vm=one --create
fails "not built yet" --vm=one --inject-nmi
fails "snapshots are not built yet" --vm=one --suspend=file
fails "cannot be read" --vm=one --get-all
fails "cannot be read" --vm=one --cpu=0
fails "cannot be set" --vm=one --set-rip=0
fails "unknown flag '--wobble'" --vm=one --wobble
fails "nothing listens on" --socket="$sockets/one.sock.lock" status
fails "cannot connect to $dir/none.sock: No such file" --socket="$dir/none.sock" status
check "all that has changed nothing" kill -0 $one

# ---- one name, one VM ----

timeout -s KILL 60 "$xhyve" $machine -f kexec,idle one </dev/null >out 2>err
check "a second VM of the name does not start" test $? -eq 4
check "and says why: $(cat err)" grep -q "a VM named 'one' runs already (.* process $one)" err
does vm one refresh
start other idle -o control=off one
fails "no VM named 'other' runs" vm other status
check "with control=off it starts" kill -0 $vm
kill -TERM $vm
ended $vm 1 "the end of the one without a socket"
kill -KILL $one
wait $one 2>/dev/null
check "a VM that was killed leaves its socket" test -S "$sockets/one.sock"
does list
check "which is not listed" test "$(wc -l <out)" -eq 1
fails "no VM named 'one' runs here; those that run: none" vm one status
start one idle one
does vm one status
check "its place is taken over" grep -qxF "pid: $vm" out
fails "no power button, since it was started without -A" vm one powerdown
does vm one poweroff
check "its socket and lock are gone" test -z "$(ls -A "$sockets")"
ended $vm 1 "poweroff"

# ---- ends ----

for words in "poweroff 1" "--force-poweroff 1" "--destroy 1" "reset 0" "--force-reset 0"; do
    start end idle -A --name end
    does --vm=end ${words% *}
    ended $vm ${words#* } "${words% *}"
done
start button button -A --log info button
does vm button powerdown
check "the button is pressed" wait_for grep -q pressed button.out
does vm button powerdown
pressed_twice() { [ "$(grep -c pressed button.out)" -ge 2 ]; }
check "and pressed again" wait_for pressed_twice
kill -TERM $vm
check "SIGTERM after that is the first one" wait_for grep -q "a second signal ends the VM" button.err
does vm button status
kill -TERM $vm
ended $vm 1 "the second SIGTERM"

# ---- sockets elsewhere, or nowhere ----

start free idle
does list
check "a VM without a name has no socket" test "$(wc -l <out)" -eq 1
kill -TERM $vm
ended $vm 1 "the end of one without a name"
start free idle --control "$dir/free.sock"
does --socket="$dir/free.sock" status
check "its name is made of its process" grep -qxF "name: xhyve-$vm" out
does --socket "$dir/free.sock" poweroff
ended $vm 1 "poweroff by the path"
for path in /nonsense/x.sock "$dir/disc" "$dir/$long" ""; do
    timeout -s KILL 60 "$xhyve" $machine -f kexec,idle -o "control=$path" </dev/null >out 2>err
    check "control=$path is an error" test $? -eq 4
    check "one sentence: $(cat err)" grep -q "^xhyve: error: control" err
done
chmod 755 "$sockets"
start open idle open
check "a directory that is open to others: a warning" grep -q "no control socket.*open to others: chmod 700" open.err
check "one line" test "$(wc -l <open.err)" -eq 1
fails "open to others: chmod 700" vm open status
fails "open to others: chmod 700" list
kill -TERM $vm
ended $vm 1 "the end of the VM without one"
chmod 700 "$sockets"

# ---- who may ----

start mine idle mine
if [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null; then
    chmod 755 "$dir" "$dir/run" "$sockets"
    cp "$ctl" "$dir/xhyvectl"
    XDG_RUNTIME_DIR=/nonsense setpriv --reuid=65534 --clear-groups "$dir/xhyvectl" \
        --socket="$sockets/mine.sock" status >out 2>err </dev/null
    check "another user is refused" test $? -eq 1
    check "with a sentence: $(cat err)" grep -q "no permission for .*: ask as the user" err
    chmod 700 "$dir" "$dir/run" "$sockets"
else
    skip "other users: not root, or no setpriv"
fi

# ---- who does not answer ----

kill -STOP $vm
does list
check "one that hangs is silent: $(cat out)" grep -q "^mine  *silent" out
fails "has not answered for 10 seconds" vm mine status
kill -CONT $vm
does vm mine poweroff
ended $vm 1 "poweroff after the pause"

# ---- engines ----

real=$xhyve
xhyve=$fake
start fake idle -o cpu.model=portable fake
does vm fake engine
check "kvm now: $(cat out)" test "$(cat out)" = kvm
does vm fake engine
check "soft again" test "$(cat out)" = soft
does vm fake status
check "two changes" grep -qxF "engine_changes: 2" out
does vm fake poweroff
ended $vm 1 "poweroff"
xhyve=$real
# A change that fails, since there is no /dev/kvm, or it is hidden.
if [ -e /dev/kvm ]; then
    hidden=$without_kvm
fi
if ! $hidden true 2>/dev/null; then
    skip "a change that fails: there is a /dev/kvm, and it cannot be hidden from a process"
else
    start lone idle -o cpu.model=portable lone
    fails "the engine has not changed, soft goes on; the VM's log says why" vm lone engine
    check "the log says why: $(cat lone.err)" grep -q "engine: no change, soft goes on: there is no /dev/kvm" lone.err
    does vm lone poweroff
    ended $vm 1 "poweroff"
fi
hidden=

# ---- a KVM that would do, and more than one vCPU ----

XHYVE_FAKE_FAILS=mmio timeout -s KILL 60 "$fake" --engine auto -c 2 -m 16M -s 31,lpc -l com1,stdio -f kexec,halt \
    </dev/null >out 2>err
check "two vCPUs run on the software CPU" test $? -eq 2
check "which is said: $(cat err)" grep -q 'not kvm: more than one vCPU .*-c 1 would run by kvm' err

counted
