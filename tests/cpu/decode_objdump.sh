#!/bin/sh
# Compares the decoder's instruction lengths with objdump's over the executable sections of ELF
# files: decode_objdump.sh DECODE_LENGTHS FILE...
# Skips (77) where there is no objdump.
tool=$1
shift
command -v objdump >/dev/null || { echo "no objdump"; exit 77; }
status=0
for file; do
    LC_ALL=C objdump -dw "$file" | "$tool" || { echo "in $file"; status=1; }
done
exit $status
