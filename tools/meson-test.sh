#!/bin/sh
# Runs tests that meson knows and says how many, in the form of all our test commands:
#     [REBUILD=yes] tools/meson-test.sh DIR [ARGUMENTS OF meson test...]
# REBUILD=yes first builds what these tests need, and no more.
# Prints each failure with its output, each skip with its reason, and "N passed, N failed, N skipped".
set -eu
cd "$(dirname "$0")/.."
dir=$1
shift
log=$dir/meson-logs/testlog.json
rm -f "$log"
rc=0
[ "${REBUILD-}" = yes ] || set -- --no-rebuild "$@"
meson test -C "$dir" --print-errorlogs "$@" >"$dir/test-output.txt" 2>&1 || rc=$?
[ -s "$log" ] || {
    cat "$dir/test-output.txt"
    if grep -q 'No suitable tests' "$dir/test-output.txt"; then
        echo "0 passed, 0 failed, 0 skipped"
        exit 0
    fi
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
}
# meson itself runs on python3, so it is there
python3 - "$log" "$rc" <<'PYTHON'
import json, sys
passed = failed = skipped = 0
for line in open(sys.argv[1], errors="replace"):
    test = json.loads(line)
    said = ((test.get("stdout") or "") + (test.get("stderr") or "")).strip()
    if test["result"] in ("OK", "EXPECTEDFAIL"):
        passed += 1
    elif test["result"] == "SKIP":
        skipped += 1
        print("SKIP %s: %s" % (test["name"], said.splitlines()[-1] if said else "no reason given"))
    else:
        failed += 1
        print("FAIL %s: %s, %.1f s" % (test["name"], test["result"], test["duration"]))
        lines = said.splitlines()
        told = [l for l in lines if not l.startswith("ok ")] # what passed explains nothing
        print("\n".join("  " + l for l in (told or lines)[-40:]))
if int(sys.argv[2]) != 0 and failed == 0:
    failed = 1
    print("FAIL meson test ended with status " + sys.argv[2])
print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
sys.exit(failed != 0)
PYTHON
