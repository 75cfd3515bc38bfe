#!/bin/sh
# Tests of the build with hostile constants, which give bugs a chance (a two-entry TLB, blocks of a
# few instructions, a code cache that is full again and again, queues of two entries): units, the
# software CPU, the bare-metal images, and one boot of the cloud kernel.
set -eu
cd "$(dirname "$0")/.."
. tools/count.sh
dir=build-hostile

one "build with hostile constants" tools/build.sh $dir -Dhostile=true
part "units" tools/meson-test.sh $dir --suite unit
part "the software CPU" tools/meson-test.sh $dir --suite cpu --no-suite bare --timeout-multiplier 3
part "bare-metal images" tools/meson-test.sh $dir --suite bare --suite bare-interp \
    --timeout-multiplier 3
# of the devices, virtio-rnd.t sets up a longer queue than there is here
echo "SKIP tests of devices: they want queues of more than two entries" >>"$notes"
skipped=$((skipped + 1))

boot() {
    if [ ! -e build/guest/cloud/vmlinuz ]; then
        echo "there is no build/guest/cloud (tools/guest.sh cloud)"
        return 77
    fi
    mkdir -p $dir/cache
    XDG_CACHE_HOME="$PWD/$dir/cache" $dir/tests/boot/boot-console -t 6 -x $dir/xhyve \
        -l $dir/quick-cloud.log tests/boot/quick-cloud.boot
}
one "boot of the cloud kernel" boot
total
