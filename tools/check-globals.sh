#!/bin/sh
# No file outside cli/ ends the process, and none outside host/term.c has a variable that can change
# and outlives a call: two VMs live in one process. Read from the compiled objects, so it is exact.
#     tools/check-globals.sh [LIBRARY]      build/libxhyve-core.a by default
set -eu
cd "$(dirname "$0")/.."
library=${1:-build/libxhyve-core.a}
[ -f "$library" ] || {
    echo "check-globals: $library is not built; run make first" >&2
    exit 1
}
status=0

# "src_dev_hpet.c.o:     file format ..." and then a symbol a line: value flags section size name.
# Constant tables that hold addresses are in .data.rel.ro, which the loader makes read-only.
found=$(objdump -t "$library" | awk '
    / file format / { file = $1; sub(/\.o:$/, "", file); sub(/.*\//, "", file); next }
    / O (\.data|\.bss|\.tdata|\.tbss|\*COM\*)[^\t]*\t/ && !/ O \.data\.rel\.ro/ {
        if (file != "src_host_term.c")
            print "  " file ": " $NF
    }')
if [ -n "$found" ]; then
    echo "variables that can change and outlive a call:"
    echo "$found"
    status=1
fi
found=$(nm -A -u "$library" | sed 's/^.*:\([^:]*\)\.o: */\1 /' |
    awk '$3 ~ /^(_?exit|_Exit|quick_exit|abort|err|errx|verr|verrx)(@|$)/ { print "  " $1 ": " $3 }')
if [ -n "$found" ]; then
    echo "calls that end the process, outside cli/:"
    echo "$found"
    status=1
fi
exit $status
