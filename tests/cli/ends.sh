#!/bin/sh
# How a VM ends, with guests of a few hundred bytes: the exit status of each, what is said about
# it, signals, the console over pipes and files. ends.sh PROGRAM MKGUEST
set -u
xhyve=$(realpath "$1")
mkguest=$2
test -x "$xhyve" && test -x "$mkguest" || {
    echo "usage: ends.sh PROGRAM MKGUEST"
    exit 1
}
case $xhyve in
/*) ;;
*) xhyve=$PWD/$xhyve ;; # some tests run it in another folder
esac
without_kvm=$(realpath "$(dirname "$0")")/without_kvm.sh
. "$(dirname "$0")/checks.sh"
pid=
trap 'test -z "$pid" || kill -KILL $pid 2>/dev/null; rm -rf "$dir"' EXIT

for guest in $("$mkguest"); do
    "$mkguest" "$guest" >"$dir/$guest" || exit 1
done

# All with the software CPU, but for what begins with "auto": that one takes a KVM where there is one.
machine="--engine soft -m 16M -s 31,lpc -l com1,stdio"

# ends STATUS GUEST OUTPUT ERROR FLAG...: OUTPUT is all of the console with spaces for newlines,
# ERROR a part of what standard error says ("": it says nothing).
ends() {
    want=$1 guest=$2 output=$3 error=$4
    shift 4
    timeout -s KILL 60 "$xhyve" $machine -f "kexec,$dir/$guest" "$@" \
        </dev/null >"$dir/out" 2>"$dir/err"
    status=$?
    what="$guest${*:+ with $*}"
    if [ $status -ne "$want" ]; then
        not_ok "$what: status $status, not $want"
        cat "$dir/out" "$dir/err"
    elif [ "$(tr '\n' ' ' <"$dir/out")" != "$output" ]; then
        not_ok "$what: the console shows '$(cat "$dir/out")'"
    elif [ -z "$error" ] && [ -s "$dir/err" ]; then
        not_ok "$what: says on standard error: $(cat "$dir/err")"
    elif ! grep -qF -- "$error" "$dir/err" && [ -n "$error" ]; then
        not_ok "$what: wanted '$error', got: $(cat "$dir/err")"
    else
        ok
    fi
}

ends 0 reset "reset " ""
ends 1 off "off " ""
ends 2 halt "halt " ""
ends 2 halt "halt " "" -A
ends 2 halt "halt " "" -H
ends 2 halt "halt " "halted with interrupts off" --log info
ends 2 halt "halt " "" -c 3
ends 3 triple "triple " "triple fault at RIP 0x1000" -c 2
ends 3 triple "triple " "triple fault at RIP 0x1000"
ends 4 panic "panic " "the guest kernel has panicked"
ends 4 smi "smi " "system management interrupt to vCPU 0"
ends 0 port "port " ""
ends 4 port "port " "read from port 0x5678 (1 bytes) at RIP 0x1000" -e
ends 1 msr "msr GP " ""
ends 0 msr "msr " "" -w
ends 1 apic "apic tick " ""
ends 0 ticks "ticks " ""
ends 0 ticks "ticks " "" -H
ends 0 late "late " ""
ends 0 pause "pause " ""
ends 0 pause "pause " "" -P
ends 0 work "work done " ""
ends 0 reset "reset " "0x3f8" --trace '*'
ends 0 ticks "ticks " "0x3f8" --trace '*' --log debug
ends 0 reset "reset " "engine: soft" --log debug
ends 0 reset "reset " "vcpu 0: " --stats

# The test device chooses the status, 0x2A * 2 + 1; without it nothing hears the guest.
ends 85 exit "exit " "" -l pc-testdev
ends 0 exit "exit " ""
# Its text and the console's share standard output; only the order within each is certain.
timeout -s KILL 60 "$xhyve" $machine -l pc-testdev -f "kexec,$dir/testdev" </dev/null \
    >"$dir/out" 2>"$dir/err"
check "the test device's ports and memory: status $?, not 85" test $? -eq 85
check "its text is on standard output" test "$(tr -d '\n' <"$dir/out" | fold -w1 | sort | tr -d '\n')" \
    = "$(printf 'testdevtext more' | fold -w1 | sort | tr -d '\n')"
timeout -s KILL 60 "$xhyve" --engine soft -m 16M -s 31,lpc -l pc-testdev -f "kexec,$dir/testdev" </dev/null \
    >"$dir/out" 2>"$dir/err"
check "text without a serial port" test "$(cat "$dir/out")" = "text more"
# A multiboot kernel says what it was told.
"$mkguest" multiboot >"$dir/kernel"
printf 'first' >"$dir/one"
printf 'second' >"$dir/two"
(cd "$dir" && timeout -s KILL 60 "$xhyve" $machine \
    -f "multiboot,kernel,one;a b:two,some words, and commas" </dev/null >out 2>err)
check "multiboot: a reset" test $? -eq 0
check "multiboot: what the guest was told" cmp -s "$dir/out" - <<EOT
kernel some words, and commas
xhyve
one a b: first
two: second
map
EOT
(cd "$dir" && timeout -s KILL 60 "$xhyve" run --engine soft -m 16M -o acpi_tables=false \
    kernel 'one;a b' two -- some 'words, and' commas </dev/null >out2 2>err)
check "run knows a multiboot kernel, and its words are modules" cmp -s "$dir/out" "$dir/out2"
check "its line" grep -qF -- "-f 'multiboot,kernel,one;a b:two,some words, and commas'" "$dir/err"
(cd "$dir" && "$xhyve" run --engine soft -m 16M kernel a:b </dev/null >out2 2>err)
check "a module with a colon is refused" grep -qF "'a:b' has a colon in its name" "$dir/err"

# The same without a console, and with one that nobody reads.
for console in "" "-l com1" "-l com1,null" "-l com1,file=$dir/flooded" "-l com1,autopty"; do
    timeout -s KILL 60 "$xhyve" --engine soft -m 16M -s 31,lpc $console -f "kexec,$dir/flood" \
        </dev/null >"$dir/out" 2>&1
    check "flood with '$console'" test $? -eq 0
done
check "everything is in the file" test "$(wc -c <"$dir/flooded")" -eq $((3 * 1048576 + 6))

# ---- standard input and output of all kinds ----

printf 'over a pipe q' | timeout -s KILL 60 "$xhyve" $machine -f "kexec,$dir/echo" >"$dir/out"
check "a pipe is the guest's input" test $? -eq 0
check "all of the pipe came" test "$(cat "$dir/out")" = "echo
over a pipe q"
printf 'from a file q' >"$dir/in"
timeout -s KILL 60 "$xhyve" $machine -f "kexec,$dir/echo" <"$dir/in" >"$dir/out"
check "all of the file came" test "$(cat "$dir/out")" = "echo
from a file q"
head -c 100000 /dev/zero | tr '\0' y >"$dir/in"
printf q >>"$dir/in"
timeout -s KILL 60 "$xhyve" $machine -f "kexec,$dir/echo" <"$dir/in" >"$dir/out"
check "no byte of a long input is lost" test "$(wc -c <"$dir/out")" -eq 100006

ends_with() { # WHAT STATUS, of the command before
    test $status -eq "$2" && ok || not_ok "$1: status $status, not $2"
}
run() {
    timeout -s KILL 60 "$xhyve" $machine "$@"
}
run -f "kexec,$dir/work" <&- >"$dir/out" 2>"$dir/err"
status=$?
ends_with "standard input closed" 0
check "its output is whole" test "$(tr '\n' ' ' <"$dir/out")" = "work done "
run -f "kexec,$dir/work" </dev/null >&- 2>"$dir/err"
status=$?
ends_with "standard output closed" 0
run -f "kexec,$dir/work" </dev/null >"$dir/out" 2>&-
status=$?
ends_with "standard error closed" 0
check "its output is not mixed" test "$(tr '\n' ' ' <"$dir/out")" = "work done "
run -f "kexec,$dir/triple" </dev/null >"$dir/out" 2>&-
status=$?
ends_with "standard error closed, triple fault" 3
check "no log in its output" test "$(cat "$dir/out")" = triple
run -f "kexec,$dir/work" <&- >&- 2>&-
status=$?
ends_with "all three closed" 0
if [ -d /proc/self/fd ]; then
    "$xhyve" $machine -F "$dir/pid" -f "kexec,$dir/idle" <&- >&- 2>&- &
    pid=$!
    while [ ! -s "$dir/pid" ] && kill -0 $pid 2>/dev/null; do :; done
    check "closed descriptors stay empty: $(ls -l /proc/$pid/fd)" \
        test "$(readlink /proc/$pid/fd/0 /proc/$pid/fd/1 /proc/$pid/fd/2 | sort -u)" = /dev/null
    kill -KILL $pid
    wait $pid 2>/dev/null
    pid=
    rm -f "$dir/pid"
fi
if [ -c /dev/full ]; then
    run -f "kexec,$dir/work" </dev/null >/dev/full 2>"$dir/err"
    status=$?
    ends_with "a full device as output" 0
    check "it says so" grep -q "com1: output goes nowhere" "$dir/err"
    run -f "kexec,$dir/work" -o config.dump=1 >/dev/full 2>"$dir/err"
    status=$?
    ends_with "a dump to a full device" 4
    run -f "kexec,$dir/flood" </dev/full >/dev/full 2>/dev/full
    status=$?
    ends_with "all three full" 0
fi
run -f "kexec,$dir/work" <"$dir" >"$dir/out" 2>"$dir/err"
status=$?
ends_with "a directory as input" 0
run -f "kexec,$dir/flood" </dev/null 2>"$dir/err" | :
run -f "kexec,$dir/flood" </dev/null 2>"$dir/err" | (sleep 2; cat >/dev/null)
check "a reader that sleeps stalls nothing" test $? -eq 0

# A log that nobody reads: the guest goes on, and so does the end.
mkfifo "$dir/log"
sleep 60 <>"$dir/log" &
sleeper=$!
head -c 20000 "$dir/in" >"$dir/in2"
printf q >>"$dir/in2"
timeout -s KILL 30 "$xhyve" $machine --trace '*' -f "kexec,$dir/echo" <"$dir/in2" >"$dir/out" \
    2>"$dir/log"
status=$?
ends_with "a log that nobody reads" 0
check "and all of the output" test "$(wc -c <"$dir/out")" -eq 20006
kill $sleeper
wait $sleeper 2>/dev/null

# ---- signals ----

# start GUEST FLAG...: in the background, until the guest has said its name.
start() {
    guest=$1
    shift
    rm -f "$dir/out"
    mkfifo "$dir/keys" 2>/dev/null
    "$xhyve" $machine -F "$dir/pid" -f "kexec,$dir/$guest" "$@" \
        </dev/null >"$dir/out" 2>"$dir/err" &
    pid=$!
    wait_for "$guest"
}
wait_for() { # WORDS in the output
    tries=0
    until grep -q "$1" "$dir/out" 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] && kill -0 $pid 2>/dev/null || return 1
        sleep 0.1
    done
}
finish() { # STATUS WHAT
    (sleep 30; kill -KILL $pid) 2>/dev/null &
    watchdog=$!
    wait $pid
    status=$?
    pid=
    kill $watchdog 2>/dev/null
    ends_with "$2" "$1"
}

start spin
check "the pid file holds the pid" test "$(cat "$dir/pid")" = $pid
kill -TERM $pid
finish 1 "SIGTERM without ACPI"
check "the pid file is gone after SIGTERM" test ! -e "$dir/pid"

start button -A
kill -TERM $pid
check "SIGTERM presses the power button" wait_for pressed
check "and the VM runs on" kill -0 $pid
kill -TERM $pid
finish 1 "a second SIGTERM with ACPI"
check "the pid file is gone after two signals" test ! -e "$dir/pid"

start spin
kill -INT $pid
# the shell starts background processes with SIGINT ignored, and that is kept
sleep 0.3
check "an ignored SIGINT stays ignored" kill -0 $pid
kill -TERM $pid
finish 1 "SIGTERM after that"

start idle
kill -TERM $pid
finish 1 "SIGTERM to an idle guest"

for i in 1 2 3 4 5 6 7 8 9 10; do
    "$xhyve" $machine -F "$dir/pid" -f "kexec,$dir/spin" </dev/null >"$dir/out" 2>"$dir/err" &
    pid=$!
    while [ ! -s "$dir/pid" ] && kill -0 $pid 2>/dev/null; do :; done
    kill -TERM $pid
    finish 1 "an early SIGTERM"
    check "an early SIGTERM leaves no pid file" test ! -e "$dir/pid"
done

# ---- the engine that nobody asked for ----

# auto COMMAND...: before the program's line. Sets $status.
auto() {
    timeout -s KILL 60 "$@" "$xhyve" -m 16M -s 31,lpc -l com1,stdio -f "kexec,$dir/reset" --log info \
        </dev/null >"$dir/out" 2>"$dir/err"
    status=$?
}
takes() { # ENGINE, an extended regular expression: that one, and the guest ends as ever
    [ $status -eq 0 ] && [ "$(cat "$dir/out")" = reset ] &&
        [ "$(grep -cE '^xhyve: info: engine: (soft|kvm) \(' "$dir/err")" -eq 1 ] &&
        grep -qE "^xhyve: info: engine: ($1) \\(" "$dir/err" && return
    cat "$dir/out" "$dir/err"
    return 1
}
auto env
check "one engine is taken" takes 'soft|kvm'
check "and of KVM it is said why not, once, or nothing" test \
    "$(grep -c 'engine: kvm (' "$dir/err")$(grep -c 'engine: not kvm: ' "$dir/err")" = \
    "$(grep -q 'engine: kvm (' "$dir/err" && echo 10 || echo 01)"

if "$without_kvm" true 2>/dev/null; then
    auto "$without_kvm"
    check "without /dev/kvm it is the software CPU" takes soft
    check "and no warning" test "$(grep -c 'not kvm: there is no /dev/kvm' "$dir/err")$(grep -c warn: "$dir/err")" = 10
    auto "$without_kvm" --fake
    check "with one that is none too" takes soft
    check "and one warning" test "$(grep -c '^xhyve: warn: engine: not kvm: ' "$dir/err")$(grep -c warn: "$dir/err")" = 11
else
    skip "no /dev/kvm, or one that is none: this user gets no namespace to hide it in"
fi

# ---- an idle guest costs nothing ----

if [ -r /proc/self/stat ]; then
    ticks() {
        sed 's/.*) //' "/proc/$pid/stat" | cut -d' ' -f12,13 | tr ' ' '+'
    }
    start idle
    sleep 1
    before=$(($(ticks)))
    sleep 5
    spent=$(($(ticks) - before))
    hz=$(getconf CLK_TCK)
    percent=$((100 * spent / (5 * hz)))
    [ $percent -lt 1 ] || echo "warning: an idle guest takes $percent % of a core"
    check "an idle guest takes $percent % of a core" test $percent -lt 5
    kill -TERM $pid
    finish 1 "the end of the idle guest"
else
    skip "CPU time of an idle guest: no /proc"
fi

counted
