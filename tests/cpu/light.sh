#!/bin/sh
# C functions that translated code calls with the guest's vector registers in the host's: they must
# not touch any, nor call what may.
# light.sh PROGRAM
set -u
names="fn_light both_known tlb_at"
text=$(objdump -d --no-show-raw-insn "$1" | awk -v names="$names" '
    BEGIN { split(names, list, " "); for (i in list) wanted["<" list[i] ">:"] = 1 }
    /^[0-9a-f]+ </ { on = $2 in wanted }
    on')
echo "$text" | grep -q '<fn_light>:' || {
    echo "FAIL: $1 has no function fn_light; name the new one in tests/cpu/light.sh"
    exit 1
}
bad=$(echo "$text" | grep -E '%[xyz]?mm[0-9]|%st|\<(f(ld|st|n?init|xsave)|emms)' || :)
calls=$(echo "$text" | grep -E '\<call' | grep -vE "<($(echo "$names" | tr ' ' '|'))>" || :)
[ -z "$bad$calls" ] || {
    echo "FAIL: these are not for functions that run with the guest's vector registers:"
    echo "$bad$calls"
    exit 1
}
echo "1 passed, 0 failed, 0 skipped"
