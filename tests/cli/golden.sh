#!/bin/sh
# --help as it stands in tests/golden/help.txt, and a manual page that names every flag.
# golden.sh PROGRAM SOURCE_ROOT [--update]; "ninja -C build update-help" rewrites the file.
set -eu
golden=$2/tests/golden/help.txt
page=$2/man/xhyve.8
if [ "${3-}" = --update ]; then
    "$1" --help >"$golden"
    exit 0
fi
"$1" --help | diff -u "$golden" - || {
    echo "--help differs from tests/golden/help.txt; if that is meant: ninja -C build update-help"
    exit 1
}
status=0
for flag in $("$1" --help | sed -n 's/^  \(-[a-zA-Z],\|   \) --\([a-z0-9-]*\).*/\2/p'); do
    grep -q -- "Fl -$flag\$\|Fl -$flag " "$page" || {
        echo "man/xhyve.8 does not mention --$flag"
        status=1
    }
done
if command -v mandoc >/dev/null; then
    mandoc -Tlint -Wstyle "$page" || status=1
else
    echo "FAIL: mandoc is not installed, man/xhyve.8 is not checked"
    status=1
fi
exit $status
