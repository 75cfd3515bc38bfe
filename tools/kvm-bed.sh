#!/bin/sh
# Runs a command beside a real /dev/kvm, on a machine that has none: qemu emulates an AMD processor
# with SVM and nested paging, Debian's generic kernel runs in there and loads kvm-amd.
#     tools/kvm-bed.sh [OPTION]... -- COMMAND...
#       --cpus N            processors, 1 unless told; each may take a core of the host
#       --memory M          in MiB, 1024 unless told; what --file brings lies in it too
#       --timeout S         seconds, boot included, 300 unless told
#       --file HOST[:GUEST] a file or folder to bring along, with the shared libraries of the programs
#                           in it; without GUEST it is /root/NAME
#       --append WORDS      for the kernel's command line; kvm.X=Y and kvm_amd.X=Y go to the modules
# COMMAND, a line for busybox's shell, runs as root in /root with /root in $PATH. What it prints comes
# out here as it comes, its standard error among it; its status is ours. The rest of ours: 2 usage, 77
# no qemu or no guest, 124 time is over, 125 the guest ended before the command did. What the kernel
# said, warnings alone, is left in build/kvm-bed/kernel.log. Needs neither network (the second time)
# nor root.
set -eu
from=$PWD
cd "$(dirname "$0")/.."
store=build/kvm-bed

usage() {
    sed -n '/^#     tools/,/^# COMMAND/{/^# COMMAND/d; s/^# //; s/^    tools/usage: tools/; p; }' \
        tools/kvm-bed.sh >&2
    exit 2
}

say() {
    echo "kvm-bed: $*" >&2
}

tenths() { # SINCE, in ms: seconds with a decimal
    tenths_n=$((($(date +%s%N) / 1000000 - $1 + 50) / 100))
    echo "$((tenths_n / 10)).$((tenths_n % 10))"
}

number() { # OPTION VALUE
    case $2 in
    '' | 0* | *[!0-9]*)
        say "$1 takes a number, not '$2'"
        exit 2
        ;;
    esac
}

# ---- arguments ----

cpus=1 memory=1024 limit=300 append=
run=$store/run.$$
watcher='' qemu=''
cleanup() {
    [ -z "$watcher" ] || kill "$watcher" 2>/dev/null || :
    [ -z "$qemu" ] || kill "$qemu" 2>/dev/null || :
    rm -rf "$run"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir -p "$run/tree"
: >"$run/files"
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    [ $# -ge 2 ] || usage
    case $1 in
    --cpus) number "$1" "$2" && cpus=$2 ;;
    --memory) number "$1" "$2" && memory=$2 ;;
    --timeout) number "$1" "$2" && limit=$2 ;;
    --append) append="$append $2" ;;
    --file) echo "$2" >>"$run/files" ;;
    *) usage ;;
    esac
    shift 2
done
[ $# -ge 2 ] || usage
shift

command -v qemu-system-x86_64 >/dev/null || {
    say "this needs qemu-system-x86_64, of Debian's package qemu-system-x86"
    exit 77
}

# ---- the kernel, its modules, busybox and /init: made once ----

if ! tools/guest.sh generic >"$run/guest.log" 2>&1; then
    sed 's/^/  /' "$run/guest.log" >&2
    say "the generic kernel cannot be fetched"
    # no fault of the tree, but continuous integration must not pass by it
    [ -z "${CI-}" ] && exit 77 || exit 1
fi
guest=build/guest/generic

# The kernel unpacked, which saves qemu's processor doing it, if there is a build to do that.
kernel=$guest/vmlinuz
if [ -x build/tests/cpu/unpack ]; then
    [ "$store/vmlinux" -nt "$guest/vmlinuz" ] || {
        build/tests/cpu/unpack "$guest/vmlinuz" "$run/vmlinux"
        mv "$run/vmlinux" "$store/vmlinux"
    }
    kernel=$store/vmlinux
fi

pack() { # FOLDER: as cpio
    (cd "$1" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0)
}

make_base() {
    base=$run/base
    busybox=build/guest/busybox/bin/busybox
    [ -x "$busybox" ] || busybox=build/guest/busybox/usr/bin/busybox
    for dir in bin dev proc sys tmp root bed; do
        mkdir -p "$base/$dir"
    done
    cp "$busybox" "$base/bin/busybox"
    for applet in $("$busybox" --list); do
        [ "$applet" = busybox ] || ln -s busybox "$base/bin/$applet"
    done
    for module in irqbypass kvm ccp kvm_amd; do # each after what it depends on
        file=$(find "$guest/root/" -name "$(echo $module | tr _ -).ko*" | sed -n 1p)
        case $file in
        *.ko) cp "$file" "$base/bed/$module.ko" ;;
        *.ko.xz) xz -dc "$file" >"$base/bed/$module.ko" ;;
        *.ko.zst) zstd -qdc "$file" >"$base/bed/$module.ko" ;;
        *)
            say "the generic kernel has no module $module"
            exit 1
            ;;
        esac
    done
    # ttyS0 is the kernel's, ttyS1 the command's. A byte to port 0xE9 is a byte in a file here: the
    # first says that the command starts, the second its status. A byte to port 0x501 ends qemu.
    cat >"$base/init" <<'INIT'
#!/bin/sh
export PATH=/bin:/root HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
port() { # NUMBER BYTE
    printf "$2" | dd of=/dev/port bs=1 seek="$1" 2>/dev/null
}
stty -F /dev/ttyS1 raw -echo
exec </dev/null >/dev/ttyS1 2>&1
read -r words </proc/cmdline
for module in irqbypass kvm ccp kvm_amd; do
    options=
    for word in $words; do
        case $word in $module.*) options="$options ${word#*.}" ;; esac
    done
    insmod /bed/$module.ko $options
done
cd /root
port 233 u
sh /bed/command
status=$?
stty -F /dev/ttyS1 raw -echo # which waits until all is sent
port 233 "\\$(printf %03o $status)"
port 1281 '\001'
INIT
    chmod 755 "$base/init"
    pack "$base" >"$run/base.cpio"
    mv "$run/base.cpio" "$store/base.cpio"
    rm -rf "$base"
}
[ "$store/base.cpio" -nt tools/kvm-bed.sh ] && [ "$store/base.cpio" -nt "$guest/vmlinuz" ] ||
    make_base

# ---- what this run brings along ----

is_elf() {
    [ "$(head -c 4 "$1" | tail -c 3 | tr -d '\0')" = ELF ]
}

# The libraries of a program, each where the program looks for it.
add_libraries() { # PROGRAM
    ldd "$1" 2>/dev/null | sed -n 's/^[^/]*\(\/[^ ]*\) (0x.*/\1/p' | while read -r library; do
        [ -e "$run/tree$library" ] || {
            mkdir -p "$run/tree$(dirname "$library")"
            cp -L "$library" "$run/tree$library"
        }
    done
}

add_file() { # HOST[:GUEST]
    host=${1%%:*} to=
    case $1 in *:*) to=${1#*:} ;; esac
    case $host in /*) ;; *) host=$from/$host ;; esac
    [ -e "$host" ] || {
        say "there is no $host"
        exit 2
    }
    [ -n "$to" ] || to=/root/$(basename "$host")
    mkdir -p "$run/tree/$(dirname "$to")"
    cp -RL "$host" "$run/tree/$to"
    find "$run/tree/$to" -type f >"$run/found"
    while read -r found; do
        ! is_elf "$found" || add_libraries "$found"
    done <"$run/found"
}

while read -r file; do
    add_file "$file"
done <"$run/files"
mkdir -p "$run/tree/bed"
echo "$*" >"$run/tree/bed/command"
{
    cat "$store/base.cpio"
    pack "$run/tree"
} >"$run/initrd"
rm -rf "$run/tree"

# ---- the run ----

start=$(($(date +%s%N) / 1000000))
: >"$run/status"
# What qemu writes to it makes non-blocking, which must not happen to the caller's terminal.
mkfifo "$run/out"
cat "$run/out" &
output=$!
# No network and no disk. Several processors in one thread come to a standstill where two wait for
# each other in the guest's guest.
[ "$cpus" -eq 1 ] && thread=single || thread=multi
quick="mitigations=off nokaslr tsc=reliable cryptomgr.notests"
qemu-system-x86_64 -M pc -accel tcg,thread=$thread -cpu max,la57=off -smp "$cpus" -m "$memory" \
    -nodefaults -no-user-config -display none -no-reboot \
    -serial "file:$run/kernel.log" -chardev stdio,id=out,signal=off -serial chardev:out \
    -debugcon "file:$run/status" -device isa-debug-exit,iobase=0x501,iosize=1 \
    -kernel "$kernel" -initrd "$run/initrd" \
    -append "console=ttyS0 quiet panic=-1 $quick$append" \
    </dev/null >"$run/out" 2>"$run/qemu.log" &
qemu=$!

watch() {
    up=false seconds=0
    while sleep 1 >/dev/null 2>&1; do
        seconds=$((seconds + 1))
        if [ "$seconds" -ge "$limit" ]; then
            : >"$run/late"
            kill "$qemu"
            sleep 3 >/dev/null 2>&1
            kill -9 "$qemu" 2>/dev/null || :
            return
        fi
        if [ -s "$run/status" ]; then
            $up || say "up after $seconds s"
            up=true
            [ $((seconds % 10)) -ne 0 ] || say "running, $seconds s"
        else
            say "booting, $seconds s"
        fi
    done
}
watch &
watcher=$!

rc=0
wait "$qemu" || rc=$?
qemu=''
wait "$output" || :
kill "$watcher" 2>/dev/null || :
watcher=''
cp "$run/kernel.log" "$store/kernel.log" 2>/dev/null || :
if [ -e "$run/late" ]; then
    say "not done after $limit s and ended; --timeout allows more"
    exit 124
fi
status=$(od -A n -t u1 "$run/status" | sed -n 's/^ *[0-9][0-9]*  *\([0-9][0-9]*\) *$/\1/p')
if [ -z "$status" ]; then
    cat "$run/qemu.log" >&2
    tail -n 30 "$store/kernel.log" >&2
    say "the guest ended after $(tenths "$start") s, before the command did (qemu: $rc)"
    exit 125
fi
say "status $status after $(tenths "$start") s"
exit "$status"
