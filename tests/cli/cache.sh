#!/bin/sh
# Translations kept for the next run: --jit-cache.
# cache.sh PROGRAM MKGUEST
set -u
xhyve=$(realpath "$1")
mkguest=$2
test -x "$xhyve" && test -x "$mkguest" || {
    echo "usage: cache.sh PROGRAM MKGUEST"
    exit 1
}
. "$(dirname "$0")/checks.sh"
"$mkguest" long >"$dir/long" || exit 1
# the same, but that it says Done: mov al, 'd' is another instruction
LC_ALL=C sed 's/\xb0d/\xb0D/g' "$dir/long" >"$dir/other"
cmp -s "$dir/long" "$dir/other" && exit 1
export XDG_CACHE_HOME="$dir/home"
mkdir "$dir/home"

run() { # GUEST FLAG...: sets $status.
    guest=$1
    shift
    timeout -s KILL 60 "$xhyve" --engine soft -m 16M -s 31,lpc -l com1,stdio -f "kexec,$dir/$guest" --log debug \
        "$@" </dev/null >"$dir/out" 2>"$dir/err"
    status=$?
}
ends() { # WORD: as the guest does, with this as its last word
    test "$(tr '\n' ' ' <"$dir/out")" = "long $1 " && test $status -eq 0 && return
    tail -n 4 "$dir/out" "$dir/err"
    return 1
}
only_file() { # DIRECTORY: sets $file
    test "$(find "$1" -type f | wc -l)" -eq 1 && file=$(find "$1" -type f)
}
private() { # FILE
    case $(ls -ld "$1") in -rw-------*) ;; *) ls -ld "$1" && return 1 ;; esac
}
used='[1-9][0-9]* translations of an earlier run were used, 0 made'
none='0 translations of an earlier run were used, [1-9][0-9]* made'
damaged='are of no use; they will be written anew'

# ---- first and second run ----

c=$dir/cache
run long --jit-cache "$c"
check "a first run" ends done
check "translates all" says "$none"
check "and keeps it" says '[1-9][0-9]* translated blocks kept in '
check "in one file" only_file "$c"
check "which nobody else reads" private "$file"
check "in a directory of ours" test "$(stat -c %a "$c")" = 700
cp "$file" "$dir/good"
run long --jit-cache "$c"
check "a second run" ends done
check "translates nothing" says "$used"
check "and leaves the file" cmp "$file" "$dir/good"
run long --jit-cache off
check "a run without" ends done
check "keeps nothing" test "$(grep -c translations "$dir/err")" -eq 0
run long
check "a tiny guest is not worth it, unasked" test -z "$(find "$dir/home" -type f)"
check "though the place is there" test "$(stat -c %a "$dir/home/xhyve")" = 700

# ---- other code at the same place ----

run other --jit-cache "$c"
check "another guest" ends Done
check "is translated where it differs" says '[1-9][0-9]* translations of an earlier run were used, [1-9][0-9]* made'
run long --jit-cache "$c"
check "the first one again" ends done
check "is still known" says "$used"
run other --jit-cache "$c"
check "the other one again" ends Done
check "is known too" says "$used"
run long --jit-cache "$c" -o cpu.model=portable
check "another processor" ends done
check "has a file of its own" test "$(find "$c" -type f | wc -l)" -ge 1
run long --jit-cache "$c" --stats
check "with counters" ends done
run long --jit-cache "$c" --engine soft,check
check "in lock-step" ends done

# ---- damage ----

rm -rf "$c"
run long --jit-cache "$c"
only_file "$c"
cp "$file" "$dir/good"
size=$(stat -c %s "$file")
spoil() { # OFFSET: the file with another byte there
    cp "$dir/good" "$file"
    byte=$(od -An -tu1 -j "$1" -N 1 "$file")
    # shellcheck disable=SC2059
    printf "\\$(printf %o $((byte ^ 0x55)))" | dd of="$file" bs=1 seek="$1" conv=notrunc 2>/dev/null
}
# the head, records all over, the index
for at in 0 9 17 25 33 48 56 64 100 $((size / 16)) $((size / 8)) $((size / 4)) $((size / 3)) \
    $((size - 9)) $((size - 8192)); do
    spoil $at
    run long --jit-cache "$c"
    check "a byte changed at $at" ends done
    check "is noticed" says "$damaged|, [1-9] made"
    run long --jit-cache "$c"
    check "and made good" says "$used"
done
for cut in 0 1 47 60 200 $((size / 2)) $((size - 1)); do
    head -c "$cut" "$dir/good" >"$file"
    run long --jit-cache "$c"
    check "cut at $cut" ends done
    check "and refused" says "$damaged"
    run long --jit-cache "$c"
    check "and made anew" says "$used"
done
for change in 'chmod 644' 'chmod 606'; do
    cp "$dir/good" "$file"
    $change "$file"
    run long --jit-cache "$c"
    check "$change" ends done
    check "is refused" says "$damaged"
    check "and replaced by one that is private" private "$file"
done
mv "$file" "$dir/elsewhere"
ln -s "$dir/elsewhere" "$file"
run long --jit-cache "$c"
check "a link" ends done
check "is not followed" says "$none"
check "but replaced" test ! -L "$file"
if [ "$(id -u)" -eq 0 ]; then
    chown 1 "$file"
    run long --jit-cache "$c"
    check "the file of another user" ends done
    check "is refused" says "$damaged"
else
    skip "the file of another user: needs root"
fi

# ---- files of other builds ----

for n in 1 2 3 4 5 6; do
    touch -d "2020-01-0$n" "$c/code-old$n"
done
touch "$c/precious"
rm -f "$file"
run long --jit-cache "$c"
check "with old files" ends done
check "a few are left" test "$(find "$c" -name 'code-*' | wc -l)" -eq 4
check "the newest" test -e "$c/code-old6" -a ! -e "$c/code-old3"
check "nothing else is touched" test -e "$c/precious"

# ---- several at once ----

rm -rf "$c"
mkdir -m 700 "$c"
for n in 1 2 3; do
    timeout -s KILL 60 "$xhyve" --engine soft -m 16M -s 31,lpc -l com1,stdio -f "kexec,$dir/long" --jit-cache "$c" \
        </dev/null >"$dir/out$n" 2>"$dir/err$n" &
done
wait
for n in 1 2 3; do
    check "at once: $n" test "$(tr '\n' ' ' <"$dir/out$n")" = "long done "
    check "without a word: $n" test ! -s "$dir/err$n"
done
check "one file is left" only_file "$c"
run long --jit-cache "$c"
check "that is whole" says "$used"

# ---- places that will not do ----

run long --jit-cache "$dir/not/there"
check "no such place" test $status -eq 4
check "is one sentence" says '^xhyve: error: cannot make the directory .*/not/there: '
run long --jit-cache "$dir/long"
check "a file" test $status -eq 4
check "is no directory" says '^xhyve: error: .*/long is not a directory$'
mkdir -m 777 "$dir/open"
chmod 777 "$dir/open"
run long --jit-cache "$dir/open"
check "a directory of all" test $status -eq 4
check "is refused" says 'others may write to .*/open: give a directory that is yours alone'
HOME=/nonexistent XDG_CACHE_HOME='' run long
check "a user without a home" ends done
check "gets no word of it" test "$(grep -c 'kept\|cache' "$dir/err")" -eq 0

counted
