#!/bin/sh
# make check-long PART=...: the tests of one part that are too long for make check.
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

count() {
    if "$@"; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        echo "FAIL $*"
    fi
}

# Every ELF file of the machine's programs and libraries, fifty at a time, or as many as six minutes
# hold: machines have few or many. Names of its own: count.sh's functions have `rc`.
every_elf() {
    elf_rc=0
    elf_end=$(($(date +%s) + 360))
    find /usr/bin /usr/lib -type f \( -perm /111 -o -name '*.so*' \) 2>/dev/null |
        while [ "$(date +%s)" -lt $elf_end ] && read -r file; do
            if [ "$(head -c 4 "$file" 2>/dev/null | tail -c 3)" = ELF ]; then
                printf '%s\0' "$file"
            fi
        done | xargs -0 -n 50 sh -c '[ "$(date +%s)" -lt "$0" ] || exit 255
            build/tests/cpu/decode_zydis "$@"' $elf_end >build/decode-all.log 2>&1 || elf_rc=$?
    echo "$(grep -c " cases, " build/decode-all.log) times fifty files of this machine decoded"
    [ $elf_rc -ne 124 ] || echo "no more after six minutes"
    [ $elf_rc -eq 0 ] || [ $elf_rc -eq 124 ] || {
        grep -v " 0 differences" build/decode-all.log | head -n 40
        return 1
    }
}

# The decoder against Zydis and objdump: random bytes, whole programs, the guests' kernels.
decoder() {
    passed=0 failed=0 skipped=0
    count build/tests/cpu/decode_zydis --count 50000000
    count every_elf
    for guest in cloud generic; do
        if tools/guest.sh $guest >/dev/null && build/tests/cpu/unpack build/guest/$guest/vmlinuz \
            build/guest/$guest/vmlinux; then
            count build/tests/cpu/decode_zydis build/guest/$guest/vmlinux
        else
            skipped=$((skipped + 1))
            echo "skipped: the $guest kernel could not be had"
        fi
    done
    for file in /bin/bash /lib/x86_64-linux-gnu/libc.so.6 /lib/x86_64-linux-gnu/libm.so.6; do
        [ ! -f "$file" ] || count tests/cpu/decode_objdump.sh build/tests/cpu/decode_lengths "$file"
    done
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
}

# The CPU against the host's own: ten million random cases, or as many as nine minutes hold.
oracle() {
    passed=0 failed=0 skipped=0
    count build/tests/cpu/oracle --seed "${SEED:-2}" --count 10000000 --minutes 9 --jobs "$(nproc)" \
        --tests build/meson-info/intro-tests.json --source tests
    count build/tests/cpu/system
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
}

# Sequences of writes to qcow2 images, each cut short at many points: half of them on each of two cores.
crashes() {
    half=$(($1 / 2))
    crash="tests/block/crash.sh build/tests/block/qcow2-crash --count $half"
    crash_rc=0
    $crash --seed $((${SEED:-1000} + half)) &
    $crash --seed "${SEED:-1000}" || crash_rc=1
    wait $! || crash_rc=1
    return $crash_rc
}

# Crashes under two kinds of guests side by side: each load is one vCPU's.
guest_crashes() { # KIND KIND
    crash="tests/block/guest_crash.sh --keep build --count ${GUEST_CRASHES:-50} --seconds 15 --seed ${SEED:-1}"
    first_rc=0 second_rc=0
    $crash "$1" &
    $crash "$2" || second_rc=$?
    wait $! || first_rc=$?
    case $first_rc in
    0 | 77) [ $second_rc -eq 0 ] && return $first_rc || return $second_rc ;;
    *) return $first_rc ;;
    esac
}

# Waits for the run that was started beside the others, and says what it said.
memtest() {
    waited=0
    while [ ! -f build/memtest.rc ]; do
        sleep 5
        waited=$((waited + 5))
        [ $((waited % 60)) -ne 0 ] || echo "memtest86+: waiting, $waited s"
    done
    cat build/memtest.txt
    return "$(cat build/memtest.rc)"
}

case $what in
cpu)
    part "instructions" oracle
    if [ -x build/tests/cpu/decode_zydis ]; then
        part "decoder" decoder
    else
        echo "check-long: the decoder's tests need libzydis-dev"
    fi
    ;;
boot)
    # memtest86+ takes a core for a quarter of an hour, beside the boots
    rm -f build/memtest.rc
    (
        rc=0
        tools/boot-test.sh --long memtest >build/memtest.txt 2>&1 || rc=$?
        echo $rc >build/memtest.rc
    ) &
    part "boot, briefly" tools/boot-test.sh --quick
    part "boot" tools/boot-test.sh --long boot
    part "memtest86+" memtest
    ;;
disk)
    one "crashes amid writes to qcow2 images" crashes "${CRASHES:-10000}"
    one "calls that fail under qcow2 images" tests/block/crash.sh build/tests/block/qcow2-crash \
        --count 500 --faults --seed "${SEED:-1000}"
    tools/guest.sh cloud >/dev/null && tools/guest.sh cloud-btrfs >/dev/null || : # not by two at once
    for kinds in "ext4 ext4-through" "ext4-threads ext4-scsi" "ext4-ahci ext4-nvme" "ext4-qcow2 btrfs"; do
        # shellcheck disable=SC2086
        one "crashes under a guest: $kinds" guest_crashes $kinds
    done
    part "disks of real guests" tools/boot-test.sh --long disk
    ;;
kvm)
    tools/guest.sh cloud >/dev/null
    mkdir -p build/boot
    one "a session of the cloud kernel on the fake KVM" build/tests/boot/boot-console \
        -x build/tests/kvm/xhyve-fake -l build/boot/kvm.log tests/boot/kvm.boot
    one "a disk with doorbells on the fake KVM" build/tests/boot/boot-console \
        -x build/tests/kvm/xhyve-fake -l build/boot/kvm-disk.log tests/boot/kvm-disk.boot
    one "engines change places under a load" tests/kvm/changes.sh build/tests/kvm/xhyve-fake
    part "a real KVM" tools/check-kvm.sh
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
