#!/bin/sh
# The file system that a scenario left in an image is clean, and its files are what the guest says:
#     tests/boot/fsck.sh IMAGE
# Beside IMAGE lies IMAGE.data, which the guest had copied. Removes the image if all is well.
set -eu
image=$1
PATH=$PATH:/sbin:/usr/sbin
e2fsck -fn "$image" >"$image.fsck" 2>&1 || {
    cat "$image.fsck"
    exit 1
}
for file in new copy sums; do
    debugfs -R "dump /$file $image.$file" "$image" 2>/dev/null
done
cmp "$image.data" "$image.copy"
# "HASH  NAME" by the guest of its own random file
[ "$(sed -n 's/ *new$//p' "$image.sums")" = "$(sha256sum <"$image.new" | sed 's/ .*//')" ]
rm -f "$image" "$image.data" "$image.copy" "$image.new" "$image.sums" "$image.fsck"
