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

field() {
    sed -n "s/^$1: //p; /^---/q" "$2" | head -n 1
}

elapsed() {
    echo "$(($(date +%s) - start)) s"
}

# Every patch says what it is, changes something, and fits the tree as it stands.
check() {
    bad=0 good=0
    names=$(meson test -C build --list 2>/dev/null | sed 's|.*/ ||')
    for patch in tests/mutants/*.patch; do
        why=
        [ -n "$(field Fault "$patch")" ] || why="has no line 'Fault:'"
        [ -n "$(field Test "$patch")" ] || why="has no line 'Test:'"
        for test in $(field Test "$patch"); do
            echo "$names" | grep -qx -e "$test" || why="names the test $test, which is not there"
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

prepare() {
    rm -rf "$work/tree"
    mkdir -p "$work/tree"
    git ls-files -z | xargs -0 tar -cf - | tar -xf - -C "$work/tree"
    # as little optimisation as the tests can bear: most of the time goes into compiling
    if [ ! -f "$work/build/build.ninja" ]; then
        CFLAGS=-O1 meson setup "$work/build" "$work/tree" >"$work/setup.txt" 2>&1 || {
            cat "$work/setup.txt"
            exit 1
        }
    fi
    echo "mutants: building the tree without a fault"
    ninja -C "$work/build" >"$work/build.txt" 2>&1 || {
        tail -n 30 "$work/build.txt"
        exit 1
    }
}

# True if the tests pass.
green() {
    timeout 300 meson test -C "$work/build" "$@" >"$work/test.txt" 2>&1
}

run() {
    caught=0 survived=0 n=0
    total=$#
    prepare
    tests=$(for patch; do field Test "$patch"; done | tr ' ' '\n' | sort -u)
    echo "mutants: $(echo "$tests" | wc -l) tests without a fault"
    # shellcheck disable=SC2086
    green $tests || {
        grep -E "FAIL|TIMEOUT|ERROR" "$work/test.txt"
        echo "mutants: these tests fail without any fault; mend them first"
        echo "0 passed, 1 failed, 0 skipped"
        exit 1
    }
    for patch; do
        n=$((n + 1))
        name=$(basename "$patch" .patch)
        test=$(field Test "$patch")
        patch -d "$work/tree" -p1 -s -f <"$top/$patch" >"$work/patch.txt" || {
            echo "FAIL $name: does not apply"
            survived=$((survived + 1))
            continue
        }
        # shellcheck disable=SC2086
        if ! ninja -C "$work/build" >"$work/build.txt" 2>&1; then
            echo "FAIL $name: does not compile:"
            grep -m 3 error "$work/build.txt" || :
            survived=$((survived + 1))
        elif green $test; then
            echo "FAIL $name: $test stays green ($(field Fault "$patch"))"
            survived=$((survived + 1))
        else
            echo "[$n/$total] $name: $test is red ($(elapsed))"
            caught=$((caught + 1))
        fi
        patch -d "$work/tree" -p1 -R -s -f <"$top/$patch" >"$work/patch.txt"
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
    set -- "$@"
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
