#!/bin/sh
# Removes what was built. What was fetched (build/guest, build/zig) stays: it costs a network.
set -eu
cd "$(dirname "$0")/.."
rm -rf build-*
[ ! -d build ] || find build -mindepth 1 -maxdepth 1 ! -name guest ! -name zig -exec rm -rf {} +
