#!/bin/sh
# make check-long PART=...: the tests of one part that are too long for make check. An hour at most.
set -eu
cd "$(dirname "$0")/.."
. tools/count.sh
what=${1-}

nothing() {
    echo "check-long: $what: nothing here yet"
    echo "0 passed, 0 failed, 0 skipped"
}

case $what in
cpu | boot | disk | net | smp | kvm) ;;
*)
    echo "usage: make check-long PART=cpu|boot|disk|net|smp|kvm" >&2
    exit 2
    ;;
esac
tools/build.sh build

# The decoder against Zydis and objdump over whole programs, and over many random bytes.
decoder() {
    passed=0 failed=0
    count() {
        if "$@"; then passed=$((passed + 1)); else
            failed=$((failed + 1))
            echo "FAIL $*"
        fi
    }
    count build/tests/cpu/decode_zydis --count 100000000
    for file in /usr/bin/git /bin/bash /usr/bin/gcc /usr/bin/ninja /lib/x86_64-linux-gnu/libc.so.6 \
        /lib/x86_64-linux-gnu/libm.so.6 build/xhyve; do
        [ ! -f "$file" ] || count build/tests/cpu/decode_zydis "$file"
    done
    for file in /bin/bash /lib/x86_64-linux-gnu/libc.so.6 /lib/x86_64-linux-gnu/libm.so.6; do
        [ ! -f "$file" ] || count tests/cpu/decode_objdump.sh build/tests/cpu/decode_lengths "$file"
    done
    echo "$passed passed, $failed failed, 0 skipped"
    [ "$failed" -eq 0 ]
}

case $what in
cpu)
    if [ -x build/tests/cpu/decode_zydis ]; then
        part "decoder" decoder
    else
        echo "check-long: the decoder's tests need libzydis-dev"
    fi
    ;;
boot)
    part "boot, briefly" tools/boot-test.sh --quick
    part "boot" tools/boot-test.sh --long boot
    ;;
*)
    if grep -q "^long $what\$" tests/boot/*.boot; then
        part "$what" tools/boot-test.sh --long "$what"
    else
        nothing
        exit 0
    fi
    ;;
esac
total
