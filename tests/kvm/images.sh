#!/bin/sh
# Runs bare-metal images by the kvm engine and prints a line for each check that fails, "IMAGE CHECK",
# and "IMAGE ends-early" where an image does not come to its own end. For busybox's shell, in a folder
# with xhyve and the images. IRQCHIP is kvm.irqchip, XHYVE_OPTIONS are further words for xhyve, such as
# "-o kvm.leave=false" on a KVM that emulates (emulates.known).
for image; do
    # shellcheck disable=SC2086
    timeout 60 ./xhyve --engine kvm -m 64M -o cpu.model=host -o "kvm.irqchip=${IRQCHIP:-split}" ${XHYVE_OPTIONS-} \
        -l com1,stdio -l pc-testdev -s 0:0,hostbridge -s 31,lpc -f "multiboot,$image" >out 2>err </dev/null
    rc=$?
    tr -d '\r' <out | sed -n "s/^FAIL \([^ ]*\) .*/$image \1/p"
    case $rc in
    1 | 3) ;; # its own codes: without and with failures
    *)
        echo "$image ends-early"
        sed "s/^/# $image: /" err
        ;;
    esac
    echo "= $image $(tr -d '\r' <out | tail -n 1)"
done
