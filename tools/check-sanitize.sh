#!/bin/sh
# The tests of units, devices, tables, the command line and the bare-metal images, built with clang's sanitizers:
#     tools/check-sanitize.sh address,undefined|thread
set -eu
cd "$(dirname "$0")/.."
kind=$1
dir=build-$(echo "$kind" | cut -c1)san # asan or tsan
log=$dir/build-output.txt
mkdir -p "$dir"

fail() {
    echo "FAIL $*"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
}
command -v clang >/dev/null || fail "clang is not installed"
# Little optimisation: compiling takes longer than the tests.
SETUP_ONLY=yes CC=clang tools/build.sh "$dir" -Db_sanitize="$kind" -Db_lundef=false -Dbuildtype=debugoptimized \
    -Doptimization=1 >"$log" 2>&1 || {
    tail -n 40 "$log"
    fail "the build with -fsanitize=$kind; all of it is in $log"
}
# A report is a failure, also where the program would go on.
export ASAN_OPTIONS=detect_leaks=1:halt_on_error=1:abort_on_error=0
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
REBUILD=yes tools/meson-test.sh "$dir" --timeout-multiplier 5 --suite unit --suite dev --suite golden --suite cli \
    --suite bare
