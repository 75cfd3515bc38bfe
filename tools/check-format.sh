#!/bin/sh
# The layout of the sources is what clang-format makes of them (.clang-format): without arguments it
# checks, with --fix it rewrites. No clang-format is a failure, not a skip.
set -eu
cd "$(dirname "$0")/.."
command -v clang-format >/dev/null || {
    echo "check-format: clang-format is not installed" >&2
    exit 1
}
mode="--dry-run -Werror"
[ "${1-}" != --fix ] || mode=-i
# shellcheck disable=SC2086
find src tests include bench -name '*.[ch]' -print0 2>/dev/null | xargs -0 clang-format $mode
