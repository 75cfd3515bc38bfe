#!/bin/sh
# What can be seen of the translator: --trace jit, --perf-map.
# see.sh PROGRAM MKGUEST
set -u
xhyve=$(realpath "$1")
mkguest=$2
test -x "$xhyve" && test -x "$mkguest" || {
    echo "usage: see.sh PROGRAM MKGUEST"
    exit 1
}
. "$(dirname "$0")/checks.sh"
maps=
trap 'rm -rf "$dir" $maps' EXIT
"$mkguest" long >"$dir/long" || exit 1

# run GUEST FLAG...: sets $status and $pid.
run() {
    guest=$1
    shift
    timeout -s KILL 60 sh -c 'echo $$ >"$0"; exec "$@"' "$dir/pid" "$xhyve" --engine soft -m 16M -s 31,lpc \
        -l com1,stdio -f "kexec,$dir/$guest" "$@" </dev/null >"$dir/out" 2>"$dir/err"
    status=$?
    pid=$(cat "$dir/pid")
}

# ---- the listing ----

run long --trace jit
check "a traced guest ends as ever" test $status -eq 0
check "and says the same" test "$(tr '\n' ' ' <"$dir/out")" = "long done "
check "a block's head" says '^xhyve: jit: block 1000c7, physical 1000c7, key 0x[0-9a-f]+ \(kernel.*\): '
check "the guest's instruction beside the host's" \
    says '^xhyve: jit:   1000c7  add eax, ecx +\| [0-9a-f]+  add eax, ecx$'
check "a branch leads to the guest's address" says '^xhyve: jit:   1000d2  jnz 0x1000c7 +\|'
check "a call of a stub by its name" says '\| [0-9a-f]+  call 0x[0-9a-f]+  ; slow$'
check "cold code apart" says '^xhyve: jit:   \(cold\) +\| [0-9a-f]+  '
# hot code is shown from where the head says on, each instruction behind the one before
check "the listing begins where the head says" awk '
    / block / { match($0, /hot at [0-9a-f]+/); at = substr($0, RSTART + 7, RLENGTH - 7); next }
    at != "" { n++; if ($0 !~ "[|] " at "  ") bad = 1; at = "" }
    END { exit n == 0 || bad }' "$dir/err"
run long --trace jit --engine soft,interp
check "the interpreter translates nothing" test ! -s "$dir/err"
run long --trace event
check "nobody asked" test ! -s "$dir/err"

# ---- the map ----

# In the order of addresses: hexadecimal numbers of a size, and no two lines for one address.
well_formed() { # MAP
    ! grep -qvE '^[0-9a-f]+ [0-9a-f]+ [a-z0-9_]+$' "$1" || return 1
    end=0
    sort "$1" >"$dir/sorted"
    while read -r start size name; do
        [ $((0x$start)) -ge $end ] && [ $((0x$size)) -gt 0 ] || {
            echo "$name at $start overlaps what is before it"
            return 1
        }
        end=$((0x$start + 0x$size))
    done <"$dir/sorted"
    [ $end -gt 0 ]
}
private() { # FILE
    case $(ls -ld "$1") in -rw-------*) ;; *) ls -ld "$1" && return 1 ;; esac
}

run long --perf-map
map=/tmp/perf-$pid.map
maps="$maps $map"
check "a guest with a map ends as ever" test $status -eq 0
check "without a word" test ! -s "$dir/err"
check "the map's lines" well_formed "$map"
check "nobody else reads it" private "$map"
check "stubs" grep -q ' jit_enter$' "$map"
check "a block" grep -q ' guest_1000c7_k$' "$map"
check "its cold code" grep -q ' guest_1000c7_k_cold$' "$map"
run long
check "no map without the flag" test ! -e "/tmp/perf-$pid.map"

# What stands there already: our own is replaced, a link is not followed, another's is left alone.
before() { # COMMAND in which MAP is the map's name; then a run
    timeout -s KILL 60 sh -c "MAP=/tmp/perf-\$\$.map; echo \$\$ >'$dir/pid'; $1"'; exec "$@"' sh "$xhyve" \
        --engine soft -m 16M -f "kexec,$dir/long" --perf-map </dev/null >"$dir/out" 2>"$dir/err"
    status=$?
    map=/tmp/perf-$(cat "$dir/pid").map
    maps="$maps $map"
}
before 'echo old >$MAP'
check "an old map of ours" test $status -eq 0
check "is replaced" well_formed "$map"
echo precious >"$dir/precious"
before "ln -s '$dir/precious' \$MAP"
check "a link in the map's place" test $status -eq 0
check "is not followed" test "$(cat "$dir/precious")" = precious
check "but replaced" private "$map"
before 'mkdir $MAP'
check "a folder in its place" test $status -eq 4
check "one sentence" says '^xhyve: error: cannot create the map /tmp/perf-[0-9]+\.map: '
rmdir "$map"
if [ "$(id -u)" -eq 0 ]; then
    before 'echo theirs >$MAP; chown 1 $MAP'
    check "the map of another user" test $status -eq 4
    check "another sentence" says 'exists and belongs to another user; remove it$'
    check "is left alone" test "$(cat "$map")" = theirs
else
    skip "the map of another user: needs root"
fi

counted
