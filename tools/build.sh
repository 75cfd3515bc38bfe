#!/bin/sh
# Builds into a folder, which it configures first where needed:
#     [SETUP_ONLY=yes] tools/build.sh [DIR [MESON-OPTION...]]
# DIR is build by default; the compiler is $CC. Later calls only compile what has changed.
set -eu
cd "$(dirname "$0")/.."
dir=${1:-build}
[ $# -eq 0 ] || shift

if [ ! -f "$dir/build.ninja" ] || [ build/.deps-changed -nt "$dir/build.ninja" ]; then
    # From nothing: a setup may have failed half way, and one that worked remembers what was missing
    # before packages came.
    rm -rf "$dir/meson-private"
    meson setup "$dir" "$@"
elif [ -n "$(find tests -name '*.t' -newer "$dir/build.ninja" -o \
    -name 'test_*.c' -newer "$dir/build.ninja" -o -name '*.boot' -newer "$dir/build.ninja")" ] ||
    [ -n "$(find tests -type d -newer "$dir/build.ninja")" ]; then
    # Meson lists the test scripts when it configures.
    meson setup --reconfigure "$dir" "$@" >/dev/null
fi
[ -n "${SETUP_ONLY-}" ] || ninja -C "$dir"
