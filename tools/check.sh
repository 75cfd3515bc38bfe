#!/bin/sh
# make check: all tests that fit in ten minutes on two cores.
set -eu
cd "$(dirname "$0")/.."
. tools/count.sh

one "build with ${CC:-gcc}" tools/build.sh build
one "layers" tools/check-includes.sh
one "globals and exits" tools/check-globals.sh
one "layout" tools/check-format.sh
one "documents" tools/check-docs.sh
part "mutants fit the tree" tools/mutants.sh --check
part "tests" tools/meson-test.sh build --no-suite long
part "tests under the address and undefined sanitizers" tools/check-sanitize.sh address,undefined
one "macOS compiles" tools/check-macos.sh
part "boot" tools/boot-test.sh --quick
total
