#!/bin/sh
# Plays the scenarios of tests/boot, one at a time, and ends with a line of counts:
#     tools/boot-test.sh [--qemu] [-v] --quick | --long PART | SCENARIO...
# A SCENARIO is a file or the name of one in tests/boot. --qemu plays them on qemu instead.
# What the guest and the VM said is left in build/boot/NAME.log and NAME.log.stderr.
set -eu
cd "$(dirname "$0")/.."
driver_flags=
files=
while [ $# -gt 0 ]; do
    case $1 in
    --qemu) driver_flags="$driver_flags -q" ;;
    -v) driver_flags="$driver_flags -v" ;;
    --quick) files="$files $(grep -l '^quick$' tests/boot/*.boot)" ;;
    --long)
        files="$files $(grep -l "^long $2\$" tests/boot/*.boot || :)"
        shift
        ;;
    *) [ -f "$1" ] && files="$files $1" || files="$files tests/boot/${1%.boot}.boot" ;;
    esac
    shift
done
[ -n "$(echo $files)" ] || {
    echo "usage: tools/boot-test.sh [--qemu] [-v] --quick | --long PART | SCENARIO..." >&2
    exit 2
}
[ -x build/tests/boot/boot-console ] || tools/build.sh
mkdir -p build/boot build/cache
export XDG_CACHE_HOME="$PWD/build/cache" # translations are kept from one scenario to the next

passed=0 failed=0 skipped=0 absent=" "
for file in $files; do
    name=$(basename "$file" .boot)
    guest=$(sed -n 's/^guest //p' "$file")
    guest=${guest:-cloud}
    # A guest that cannot be fetched is no fault of the tree, but CI must not pass by it.
    case $absent in *" $guest "*) got=false ;; *) got=true ;; esac
    if $got && ! tools/guest.sh "$guest" >"build/boot/guest-$guest.log" 2>&1; then
        got=false
        absent="$absent$guest "
        sed 's/^/  /' "build/boot/guest-$guest.log"
    fi
    if ! $got && [ -z "${CI-}" ]; then
        echo "SKIP boot/$name: the $guest guest cannot be fetched"
        skipped=$((skipped + 1))
        continue
    fi
    echo "boot/$name: $(sed -n '1s/^# //p' "$file")"
    # shellcheck disable=SC2086
    if $got && build/tests/boot/boot-console $driver_flags -l "build/boot/$name.log" "$file"; then
        passed=$((passed + 1))
    else
        echo "FAIL boot/$name"
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
