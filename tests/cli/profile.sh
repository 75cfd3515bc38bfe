#!/bin/sh
# --profile with tiny guests, which have no table of names: samples, endings, errors.
# profile.sh PROGRAM MKGUEST
set -u
xhyve=$(realpath "$1")
mkguest=$2
test -x "$xhyve" && test -x "$mkguest" || {
    echo "usage: profile.sh PROGRAM MKGUEST"
    exit 1
}
. "$(dirname "$0")/checks.sh"
pid=
trap 'test -z "$pid" || kill -KILL $pid 2>/dev/null; rm -rf "$dir"' EXIT
for guest in long idle spin off halt triple; do
    "$mkguest" $guest >"$dir/$guest" || exit 1
done

run() { # GUEST FLAG...: sets $status
    guest=$1
    shift
    timeout -s KILL 60 "$xhyve" --engine soft -m 16M -s 31,lpc -l com1,stdio -f "kexec,$dir/$guest" "$@" \
        </dev/null >"$dir/out" 2>"$dir/err"
    status=$?
}

run long --profile "$dir/profile"
check "a guest with a profile ends as ever" test $status -eq 0
check "the page of its loop" grep -qE '^ +[0-9]+ +[0-9.]+  kernel  page 0x100000 \(0x1000c7: ' "$dir/profile"
check "there are no names, and it says so" says '^xhyve: warn: the profile names no functions .*--profile-symbols$'
printf '0000000000100000 T start\n00000000001000c7 T countdown\n00000000001000d4 T behind\n' >"$dir/map"
run long --profile - --profile-symbols "$dir/map"
check "names from a file" says '^ +[0-9]+ +[0-9.]+  kernel  countdown \(\+0: '
check "and nothing to warn of" test "$(grep -c xhyve "$dir/err")" -eq 0
run long --profile "$dir/profile" --engine soft,interp
check "of the interpreter too" grep -q ' kernel  page 0x100000 ' "$dir/profile"
for end in off:1 halt:2 triple:3; do
    rm "$dir/profile"
    run "${end%:*}" --profile "$dir/profile"
    check "a profile at the end of ${end%:*}" grep -q '^[0-9]* samples: ' "$dir/profile"
    check "and its status" test $status -eq "${end#*:}"
done

ended_by_signal() { # GUEST SECONDS
    : >"$dir/out"
    "$xhyve" --engine soft -m 16M -s 31,lpc -l com1,stdio -f "kexec,$dir/$1" --profile "$dir/profile" \
        </dev/null >"$dir/out" 2>"$dir/err" &
    pid=$!
    until grep -q "$1" "$dir/out" || ! kill -0 $pid; do sleep 0.05; done
    sleep "$2"
    kill -TERM $pid
    wait $pid
    status=$?
    pid=
}
ended_by_signal spin 0.1
check "SIGTERM ends it" test $status -eq 1
check "and there is a profile" grep -q ' kernel  page 0x100000 ' "$dir/profile"
# It wakes a hundred times a second and sleeps again: what wakes it is not where it was.
ended_by_signal idle 0.5
samples=$(sed -n 's/ samples: .*//p' "$dir/profile")
check "who sleeps is not asked: ${samples:-no} samples" test "${samples:-1000}" -lt 20

refused() { # WORDS FLAG...: before the guest starts
    words=$1
    shift
    run long "$@"
    check "status 4 with $*" test $status -eq 4
    check "nothing runs with $*" test ! -s "$dir/out"
    check "one line with $*" test "$(wc -l <"$dir/err")" -eq 1
    check "its words with $*" says "^xhyve: error: .*$words"
}
refused 'cannot write the profile /nonexistent/file: ' --profile /nonexistent/file
refused "cannot open symbol file '/nonexistent'" --profile "$dir/profile" --profile-symbols /nonexistent
echo 'no table' >"$dir/text"
refused 'is no ELF file, kernel or System.map' --profile "$dir/profile" --profile-symbols "$dir/text"
if [ -c /dev/full ]; then
    run long --profile /dev/full
    check "a full disk" says '^xhyve: error: cannot write the profile /dev/full: '
    check "keeps the guest's status" test $status -eq 0
fi

counted
