#!/bin/sh
# make mutants: are the tests any good? Each file in tests/mutants/ is a patch that puts one small
# fault into a copy of the tree, and names the test that must turn red:
#     tools/mutants.sh              all
#     tools/mutants.sh NAME...      these: tests/mutants/NAME.patch
#     tools/mutants.sh --check      only whether every patch applies and its test exists
# A patch begins with lines "Fault: what is wrong" and "Test: name of a meson test [name...]"; the diff
# follows. Works in build/mutants/ and changes nothing else.
set -eu
cd "$(dirname "$0")/.."
top=$PWD
work=$PWD/build/mutants
start=$(date +%s)

# What stands above the diff: $fault, $tests; and the first file that it changes: $file.
header() {
    fault='' tests='' file=''
    while IFS= read -r line; do
        case $line in
        "Fault: "*) fault=${line#Fault: } ;;
        "Test: "*) tests=${line#Test: } ;;
        "+++ b/"*)
            file=${line#+++ b/}
            break
            ;;
        esac
    done <"$1"
}

elapsed() {
    echo "$(($(date +%s) - start)) s"
}

# Every patch says what it is, changes something, and fits the tree as it stands.
check() {
    bad=0 good=0
    names=" $(meson test -C build --list 2>/dev/null | sed 's|.*/ ||' | tr '\n' ' ')"
    for patch in tests/mutants/*.patch; do
        header "$patch"
        why=
        [ -n "$fault" ] || why="has no line 'Fault:'"
        [ -n "$tests" ] || why="has no line 'Test:'"
        for test in $tests; do
            case $names in
            *" $test "*) ;;
            *) why="names the test $test, which is not there" ;;
            esac
        done
        patch --dry-run -p1 -s -f <"$patch" >/dev/null 2>&1 || why="does not apply to the tree"
        if [ -z "$why" ]; then
            good=$((good + 1))
        else
            bad=$((bad + 1))
            echo "FAIL $patch $why"
        fi
    done
    echo "$good passed, $bad failed, 0 skipped"
    [ "$bad" -eq 0 ]
}

# Makes the copy equal to the tree. What differs gets the time of now, also what a run left with a
# fault when it was interrupted: ninja goes by times alone.
copy_tree() {
    mkdir -p "$work/tree"
    git ls-files >"$work/files.new"
    while IFS= read -r path; do
        [ -f "$path" ] || continue # deleted, and git has not been told
        cmp -s "$path" "$work/tree/$path" || cp --parents --preserve=mode "$path" "$work/tree"
    done <"$work/files.new"
    if [ -f "$work/files" ]; then
        LC_ALL=C comm -23 "$work/files" "$work/files.new" | while IFS= read -r path; do
            rm -f "$work/tree/$path"
        done
    fi
}

prepare() {
    copy_tree
    mkdir -p "$work/tree/build" "$top/build/guest" # guests that were fetched serve the copy, too
    ln -sfn "$top/build/guest" "$work/tree/build/guest"
    # as little optimisation as the tests can bear: most of the time goes into compiling
    if [ ! -f "$work/build/build.ninja" ]; then
        set -- env CFLAGS="-O1 -g0" meson setup
    elif ! cmp -s "$work/files" "$work/files.new"; then
        set -- meson setup --reconfigure # it lists the tests when it configures
    else
        return 0
    fi
    "$@" "$work/build" "$work/tree" >"$work/setup.txt" 2>&1 || {
        cat "$work/setup.txt"
        exit 1
    }
    mv "$work/files.new" "$work/files"
}

# Builds what these tests need, and runs them: 0 green, 125 does not compile, else red.
try() {
    timeout "$limit" meson test -C "$work/build" "$@" >"$work/test.txt" 2>&1 9>&-
}

run() {
    caught=0 survived=0 n=0
    total=$#
    mkdir -p "$work"
    exec 9>"$work/lock"
    flock -n 9 || {
        echo "mutants: another run works in build/mutants" >&2
        exit 1
    }
    prepare
    # by file: then the next fault's file is often the one that has to be compiled anyway
    list=$(for patch; do header "$patch" && echo "$file $patch"; done | sort)
    all=$(for patch; do header "$patch" && echo "$tests"; done | tr ' ' '\n' | sort -u)
    echo "mutants: $(echo "$all" | wc -l) tests without a fault"
    limit=1200 # all of them, and nothing is built yet
    # shellcheck disable=SC2086
    try $all || {
        grep -E "FAIL|TIMEOUT|ERROR|error" "$work/test.txt" || cat "$work/test.txt"
        echo "mutants: these tests fail without any fault; mend them first"
        echo "0 passed, 1 failed, 0 skipped"
        exit 1
    }
    limit=300
    for patch in $(echo "$list" | sed 's/.* //'); do
        n=$((n + 1))
        name=$(basename "$patch" .patch)
        header "$patch"
        why=
        if ! patch -d "$work/tree" -p1 -s -f --no-backup-if-mismatch <"$top/$patch" >"$work/patch.txt"; then
            why="does not apply"
        else
            rc=0
            # shellcheck disable=SC2086
            try $tests || rc=$?
            patch -d "$work/tree" -p1 -R -s -f --no-backup-if-mismatch <"$top/$patch" >"$work/patch.txt"
            case $rc in
            0) why="$tests stays green ($fault)" ;;
            125) why="does not compile: $(grep -m 1 error: "$work/test.txt" || :)" ;;
            esac
        fi
        if [ -z "$why" ]; then
            echo "[$n/$total] $name: $tests is red ($(elapsed))"
            caught=$((caught + 1))
        else
            echo "FAIL $name: $why"
            survived=$((survived + 1))
        fi
    done
    echo "mutants: $total faults in $(elapsed)"
    echo "$caught passed, $survived failed, 0 skipped"
    [ "$survived" -eq 0 ]
}

case ${1-} in
--check)
    check
    ;;
"")
    tools/build.sh build >/dev/null
    check
    run tests/mutants/*.patch
    ;;
*)
    list=
    for name; do
        [ -f "tests/mutants/$name.patch" ] || {
            echo "mutants: there is no tests/mutants/$name.patch" >&2
            exit 2
        }
        list="$list tests/mutants/$name.patch"
    done
    # shellcheck disable=SC2086
    run $list
    ;;
esac
