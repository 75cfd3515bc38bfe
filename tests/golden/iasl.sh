#!/bin/sh
# iasl must take every ACPI table apart, and its own reading of the DSDT must compile again.
# usage: iasl.sh TABLES-PROGRAM
set -u
command -v iasl >/dev/null || { echo "skipped: iasl (acpica-tools) is not installed"; exit 77; }
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
"$1" --aml "$dir" || { echo "cannot write the tables"; exit 1; }
cd "$dir" || exit 1
bad=0
for table in *.dat; do
    if ! iasl -d "$table" >"$table.log" 2>&1 || grep -Eiq 'error|warning|invalid' "$table.log"; then
        echo "iasl -d $table:"
        cat "$table.log"
        bad=1
    fi
done
for dsl in *.DSDT.dsl; do
    if ! iasl -tc "$dsl" >"$dsl.log" 2>&1 || ! grep -q ' 0 Errors, 0 Warnings' "$dsl.log"; then
        echo "iasl -tc $dsl:"
        cat "$dsl.log"
        bad=1
    fi
done
exit $bad
