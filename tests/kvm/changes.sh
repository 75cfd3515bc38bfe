#!/bin/sh
# Engines change places all the time under a Linux that boots and then adds up checksums:
#     changes.sh PROGRAM [SECONDS BETWEEN]
# PROGRAM is xhyve, or xhyve-fake. At least 20 changes, and no sum may differ.
set -eu
cd "$(dirname "$0")/../.."
xhyve=$1 pause=${2-0.3}
tools/guest.sh cloud >/dev/null
out=build/changes
rm -rf $out
mkdir -p $out/tree
cat >$out/tree/sums <<'END'
#!/bin/sh
mount -t proc proc /proc
mount -t devtmpfs dev /dev 2>/dev/null
export PATH=/bin
wrong=0 n=0
dd if=/dev/urandom of=/data bs=1M count=4 2>/dev/null
want=$(sha256sum </data) md5=$(md5sum </data)
while [ $n -lt 40 ]; do
    [ "$(sha256sum </data)" = "$want" ] || wrong=$((wrong + 1))
    [ "$(gzip -1 </data | gunzip | md5sum)" = "$md5" ] || wrong=$((wrong + 1))
    n=$((n + 1))
done
echo sums=$n wrong=$wrong
poweroff -f
END
chmod +x $out/tree/sums
(
    cat build/guest/cloud/initrd
    cd $out/tree
    find . ! -name . | cpio --quiet -o -H newc -R 0:0
) >$out/initrd
"$xhyve" --engine kvm -o cpu.model=portable --stats -A -u -m 512M -s 0:0,hostbridge -s 31,lpc \
    -s 2,virtio-rnd -l com1,stdio --jit-cache off \
    -f "kexec,build/guest/cloud/vmlinuz,$out/initrd,console=ttyS0 rdinit=/sums" \
    >$out/console 2>$out/said </dev/null &
vm=$!
trap 'kill -9 $vm 2>/dev/null || :' EXIT
while kill -0 $vm 2>/dev/null && [ ! -s $out/console ]; do
    sleep 0.05 # a signal before the program is ready for it would end it
done
n=0
while kill -USR2 $vm 2>/dev/null && [ $n -lt 2000 ]; do
    sleep "$pause"
    n=$((n + 1))
    [ $((n % 50)) -ne 0 ] || echo "changes: $n signals"
done
rc=0
wait $vm || rc=$?
tail -n 3 $out/console
cat $out/said
changed=$(sed -n 's/.*changed its engine \([0-9]*\) times.*/\1/p' $out/said)
[ $rc = 1 ] && tr -d '\r' <$out/console | grep -q '^sums=40 wrong=0$' && [ "${changed:-0}" -ge 20 ] ||
    {
        echo "changes: status $rc, ${changed:-0} changes; $out/console holds the guest's words"
        exit 1
    }
