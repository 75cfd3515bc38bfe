#!/bin/sh
# The kvm engine on a real KVM, and ends with a line of counts. The KVM is one inside qemu's emulation of SVM
# (tools/kvm-bed.sh), and this machine's too, if it has one that emulates.
set -eu
cd "$(dirname "$0")/.."
. tools/count.sh
out=build/check-kvm
mkdir -p $out

# Images that end by themselves and whose failures are the machine's: all but those that qemu's
# translator dies of (a "tcg fatal error"), and what KVM has no word for.
images="apic_ipi-64 apic_timer-64 hpet-64 ioapic-64 levels32-32 la57-64 mmio-64 pic-64 smoke-64 smoke-32"

bring() {
    for file; do
        echo "--file"
        echo "$file"
    done
}

# $out/initrd: the cloud kernel's, with standard input as its /end.
with_end() {
    tools/guest.sh cloud >/dev/null
    rm -rf $out/tree
    mkdir -p $out/tree
    cat >$out/tree/end
    chmod +x $out/tree/end
    (
        cat build/guest/cloud/initrd
        cd $out/tree
        find . ! -name . | cpio --quiet -o -H newc -R 0:0
    ) >$out/initrd
}

# One that says something and powers off.
end_initrd() {
    with_end <<'END'
#!/bin/sh
/bin/busybox dmesg | /bin/busybox grep kvm-clock
/bin/busybox echo a shell on KVM
/bin/busybox poweroff -f
END
}

boots() {
    end_initrd
    # shellcheck disable=SC2046
    tools/kvm-bed.sh --memory 1536 --timeout 300 \
        $(bring build/xhyve build/guest/cloud/vmlinuz $out/initrd) -- \
        "for chip in split user; do
            xhyve --log info --stats -A -u -m 512M -s 0:0,hostbridge -s 31,lpc -s 2,virtio-rnd \
                -o kvm.irqchip=\$chip -l com1,stdio \
                -f 'kexec,vmlinuz,initrd,console=ttyS0 quiet rdinit=/end' </dev/null >o 2>e
            rc=\$?
            cat o e
            grep -q 'kvm-clock: using sched offset' o && grep -q 'a shell on KVM' o &&
                grep -q 'engine: kvm' e && [ \$rc = 1 ] || exit 1
        done"
}

bare() {
    # shellcheck disable=SC2046
    tools/kvm-bed.sh --timeout 400 $(bring build/xhyve tests/kvm/images.sh) \
        $(for i in $images; do bring build/tests/cpu/bare/"$i"; done) -- "IRQCHIP=user sh images.sh $images" |
        tee $out/bare.txt
    grep -v '^=' $out/bare.txt && return 1
    [ "$(grep -c '^= .* 0 failed' $out/bare.txt)" = "$(echo "$images" | wc -w)" ]
}

# The same with the kernel's local APIC, and where Linux 6.1's is not the manual's: no errors in ESR, TPR
# has no low half and so has PPR, one that is addressed with others is not found by a flat bit alone, an
# interrupt that came masked comes later, no ExtINT message, no level at LINT0, no page over RAM.
# A busy host can make a clock's check fail, so a difference is looked at twice.
split_images="apic-64 apic_ipi-64 apic_timer-64 hpet-64 ioapic-64 mmio-64 pic-64 smoke-64"
split_once() {
    # shellcheck disable=SC2046
    tools/kvm-bed.sh --timeout 400 $(bring build/xhyve tests/kvm/images.sh) \
        $(for i in $split_images; do bring build/tests/cpu/bare/"$i"; done) -- "sh images.sh $split_images" |
        tr -d '\r' >$out/split.txt
    grep '^=' $out/split.txt
    grep -v '^=' $out/split.txt | LC_ALL=C sort | diff tests/kvm/split.known -
}

split() {
    split_once || split_once
}

# What this KVM answers otherwise, by the beginnings of the lines. The emulation of SVM knows no #BP
# intercept, takes the guest's DR7 without acting on it, scales no TSC, and its walker writes page tables; a kernel keeps some of CPUID's bits
# up to date.
known='^breakpoint: |^watchpoint: a|^watchpoint: it |^dirty-log: pages: |^cpuid: entries: |^others: set its rate: '
# The engine without a guest around it. The first breakpoint is the one that the emulation passes by.
engine() {
    # shellcheck disable=SC2046
    tools/kvm-bed.sh --timeout 200 $(bring build/tests/kvm/test_kvm_engine) -- test_kvm_engine real nobreaks
}

# A disk's notifications as ioeventfds and as exits: the same bytes, and a thousand MMIO exits less. And its
# interrupts as irqfds, too.
bells() {
    with_end <<'END'
#!/bin/sh
export PATH=/bin
mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t devtmpfs dev /dev
for module in $(cat /lib/modules/order /lib/modules/order.disk); do
    insmod /lib/modules/$module.ko
done 2>/dev/null
dd if=/dev/urandom of=/dev/vda bs=64k count=64 conv=fsync 2>/dev/null
dd if=/dev/vda bs=4k count=1024 iflag=direct 2>/dev/null | md5sum
poweroff -f
END
    # shellcheck disable=SC2046
    tools/kvm-bed.sh --memory 1536 --timeout 300 \
        $(bring build/xhyve build/guest/cloud/vmlinuz $out/initrd) -- \
        "for way in on off irqfd; do
            bell=\$way irqfd=false
            [ \$way = irqfd ] && bell=on irqfd=true
            dd if=/dev/zero of=disk bs=1M count=16 2>/dev/null
            xhyve --stats -A -u -m 512M --engine kvm -s 0:0,hostbridge -s 31,lpc -l com1,stdio \
                -s 4,virtio-blk,disk,iothread=1,ioeventfd=\$bell -o kvm.irqfd=\$irqfd \
                -f 'kexec,vmlinuz,initrd,console=ttyS0 quiet rdinit=/end' </dev/null >o 2>e
            sum=\$(dd if=disk bs=1M count=4 2>/dev/null | md5sum)
            grep -q \"^\$sum\" o || cat o e
            grep -q \"^\$sum\" o && echo same bytes on the disk, \$way
            echo \$way: \$(grep exits: e)
        done" | tr -d '\r' | tee $out/bells.txt
    [ "$(grep -c '^same bytes' $out/bells.txt)" = 3 ] &&
        awk '{ for (i = 2; i <= NF; i++) {
                if ($i == "MMIO,") exits[$1] = $(i - 1)
                else if ($i ~ /^doorbells/) rung[$1] = $(i - 1)
                else if ($i == "messages") sent[$1] = $(i - 1)
            } }
            END { exit !(rung["on:"] > 500 && rung["off:"] == 0 && exits["on:"] + 500 < exits["off:"] &&
                sent["on:"] == 0 && sent["irqfd:"] > 500) }' $out/bells.txt
}

# The host's own KVM, if it is one that emulates: what images make of it, for those that always make the same.
emulating() {
    known_list=tests/kvm/emulates.known
    own=$(sed -n 's/^# whole: //p; s/^\([a-z][a-z0-9_]*-[0-9]*\) .*/\1/p' $known_list | uniq)
    mkdir -p $out/own
    for file in build/xhyve $(for i in $own; do echo build/tests/cpu/bare/"$i"; done); do
        ln -sf "$(realpath "$file")" $out/own/
    done
    images=$(realpath tests/kvm/images.sh)
    # shellcheck disable=SC2086
    (cd $out/own && IRQCHIP=user XHYVE_OPTIONS='-o kvm.leave=false' sh "$images" $own) >$out/own.txt
    grep '^=' $out/own.txt
    grep -v '^[=#]' $out/own.txt | LC_ALL=C sort >$out/own.failures
    grep -v '^#' $known_list | diff - $out/own.failures
}

conform() {
    steps=$(sed -n 's/^\([a-z0-9-]*\): .*/\1/p' tests/kvm/conform.expected | uniq | tr '\n' ' ')
    # shellcheck disable=SC2046
    tools/kvm-bed.sh --timeout 300 $(bring build/tests/kvm/kvm-conform) -- \
        "for s in $steps; do timeout 60 kvm-conform --only \$s real; done" | tr -d '\r' |
        grep -v -E "$known" >$out/conform.txt
    grep -v -E "^#|^\$|$known" tests/kvm/conform.expected >$out/conform.want
    diff $out/conform.want $out/conform.txt && echo "$(wc -l <$out/conform.txt) answers as expected"
}

# rescued LOG OPTION...: the cloud kernel on the fake whose emulator knows no store, to its end.
rescued() {
    log=$1
    shift
    ended=0
    XHYVE_FAKE_FAILS=mmio timeout 300 build/tests/kvm/xhyve-fake --engine kvm --jit-cache off --stats -A -u \
        -m 512M -s 0:0,hostbridge -s 31,lpc -s 2,virtio-rnd -l com1,stdio "$@" \
        -f "kexec,build/guest/cloud/vmlinuz,$out/initrd,console=ttyS0 nox2apic rdinit=/end" \
        </dev/null >"$log.out" 2>"$log.err" || ended=$?
    grep -E 'visits|messages' "$log.err"
    visits=$(sed -n 's/.* instructions for it in \([0-9]*\) visits.*/\1/p' "$log.err")
    grep -q 'a shell on KVM' "$log.out" && [ $ended = 1 ]
}

# Each store to a device is a rescue, and an xAPIC's EOI is one.
rescues() {
    end_initrd
    rescued $out/rescues -o kvm.irqchip=user && [ "${visits:-0}" -ge 500 ]
}

# The kernel's local APIC comes and goes with each, and interrupts are irqfds between.
irqfds() {
    rescued $out/irqfds -o kvm.irqfd=true && [ "${visits:-0}" -ge 20 ] &&
        [ "$(sed -n 's/.*; \([0-9]*\) messages by irqfd.*/\1/p' $out/irqfds.err)" -ge 50 ]
}

one "Debian's cloud kernel to a shell through a rescue for each store to a device" rescues
one "the same with the kernel's local APIC and irqfds" irqfds
if build/xhyve --engine auto -u -m 64M -l pc-testdev -s 0:0,hostbridge -s 31,lpc \
    -f multiboot,build/tests/cpu/bare/smoke-64 2>&1 </dev/null | grep -q 'this KVM emulates'; then
    one "bare-metal images on the host's KVM, which emulates" emulating
    one "the engine alone on it" build/tests/kvm/test_kvm_engine real nowatches
fi
if ! command -v qemu-system-x86_64 >/dev/null; then
    echo "check-kvm: qemu-system-x86_64 is not installed, which would emulate a machine with KVM"
    skipped=$((skipped + 1))
    total
    exit 0
fi
one "Debian's cloud kernel to a shell, chosen by auto" boots
one "bare-metal images" bare
one "bare-metal images with the kernel's local APIC" split
one "the engine's log of written pages, steps, sleep" engine
one "a disk's doorbells in the kernel" bells
one "what the fake KVM answers, a real one answers, too" conform
total
