#!/bin/sh
# Bad files and bad sizes: status 4, nothing on standard output, one line on standard error that
# begins "xhyve: error: " and holds the words given, and no waiting. edges.sh PROGRAM MKGUEST
# All with the software CPU: of an engine that was not taken auto may have to tell.
set -u
xhyve=$1
mkguest=$2
test -x "$xhyve" && test -x "$mkguest" || {
    echo "usage: edges.sh PROGRAM MKGUEST"
    exit 1
}
. "$(dirname "$0")/checks.sh"
trap 'chmod -R u+rw "$dir"; rm -rf "$dir"' EXIT

bad() { # WORDS ARGUMENT...
    words=$1
    shift
    refuses xhyve 4 "$words" timeout -s KILL 20 "$xhyve" --engine soft "$@"
}

k=$dir/kernel
"$mkguest" halt >"$k" || exit 1
boots="--engine soft -m 16M -f kexec,$k"
timeout -s KILL 20 "$xhyve" $boots
test $? -eq 2 || {
    echo "FAIL: the good guest does not halt"
    exit 1
}

# ---- kernels ----

: >"$dir/empty"
bad "is empty" -f "kexec,$dir/empty"
for size in 1 2 3 4 511 512 513 655 656 1023 1024; do
    head -c $size "$k" >"$dir/short"
    bad "kernel '$dir/short' is " -f "kexec,$dir/short"
done
head -c 4095 "$k" >"$dir/short"
timeout -s KILL 20 "$xhyve" --engine soft -m 16M -f "kexec,$dir/short" 2>"$dir/err" # within the last 16 bytes
check "a kernel that lacks its last bytes" test $? -eq 2
head -c 4000 "$k" >"$dir/short"
bad "is truncated" -f "kexec,$dir/short"
bad "is not a Linux bzImage" -f "kexec,$0"
bad "is an ELF file" -f "kexec,$xhyve"
head -c 1048576 /dev/urandom >"$dir/noise"
bad "is not a Linux bzImage" -f "kexec,$dir/noise"
head -c 1048576 /dev/zero >"$dir/zeros"
bad "is not a Linux bzImage" -f "kexec,$dir/zeros"
bad "is not a file" -f "kexec,$dir"
mkfifo "$dir/fifo"
bad "is not a file" -f "kexec,$dir/fifo"
bad "is not a file" -f "kexec,$k,$dir/fifo"
bad "is not a file" -f kexec,/dev/zero
bad "is not a file" -f "kexec,$k,/dev/null"
bad "cannot read the kernel $dir/none: No such file" -f "kexec,$dir/none"
bad "cannot read the kernel $k/x: Not a directory" -f "kexec,$k/x"
bad "cannot read the initrd $dir/none: No such file" -f "kexec,$k,$dir/none"
bad "is empty" -f "kexec,$k,$dir/empty"
ln -s loop "$dir/loop"
bad "cannot read the kernel $dir/loop" -f "kexec,$dir/loop"
if [ "$(id -u)" -eq 0 ]; then
    skip "unreadable files: root reads them"
else
    cp "$k" "$dir/secret"
    chmod 0 "$dir/secret"
    bad "cannot read the kernel $dir/secret: Permission denied" -f "kexec,$dir/secret"
    bad "cannot read the initrd $dir/secret: Permission denied" -f "kexec,$k,$dir/secret"
    bad "cannot read configuration file $dir/secret: Permission denied" -k "$dir/secret"
fi

# Payloads that unpack to more than there is, and say so or lie about it.
"$mkguest" bomb 16777216 >"$dir/bomb"
bad "its gzip payload is damaged" -m 64M -f "kexec,$dir/bomb"
"$mkguest" bomb 1600000000 >"$dir/bomb"
bad "would unpack to 1600000000 bytes" -m 64M -f "kexec,$dir/bomb"
"$mkguest" bomb 4294967295 >"$dir/bomb"
bad "would unpack to 4294967295 bytes" -m 1G -f "kexec,$dir/bomb"
"$mkguest" bomb 0 >"$dir/bomb"
bad "payload is damaged" -m 64M -f "kexec,$dir/bomb"

# ---- memory ----

truncate -s 100M "$dir/big"
bad "has 104857600 bytes, but only 16 MiB" -m 16M -f "kexec,$k,$dir/big"
truncate -s 5G "$dir/big" && bad "more than the 4294967295 allowed" -m 16M -f "kexec,$k,$dir/big"
truncate -s 600M "$dir/big" && bad "more than the 536870912 allowed" -m 16M -f "kexec,$dir/big"
rm -f "$dir/big"
for size in 0 0k 0x0; do
    bad "a VM needs memory" -m $size -f "kexec,$k"
done
for size in 1P 12Q 1kk 1.5G -1 +1 "1 G" 0x 0xg 1MiB " 1" ""; do
    bad "" -m "$size" -f "kexec,$k"
done
for size in 18446744073709551616 16777216t 0x10000000000000000 99999999999999999999g; do
    bad "more than 2^64" -m $size -f "kexec,$k"
done
for size in 16777215t 8388608t 131072t; do
    bad "cannot get" -m $size -f "kexec,$k"
done
for size in 4k 64k 1M 1028k; do
    bad "emory" -m $size -f "kexec,$k"
done
if [ -r /proc/meminfo ]; then
    more=$(awk '/^MemTotal|^SwapTotal/ { kib += $2 } END { printf "%d", kib / 1024 + 1024 }' \
        /proc/meminfo)
    bad "cannot get $more MiB of guest memory; try a smaller -m" -m "${more}M" -f "kexec,$k"
else
    skip "a size that is a little more than the host's: no /proc/meminfo"
fi

# Reserved huge pages, and wired memory under a limit that a root without CAP_IPC_LOCK has, too.
huge=$(awk '/^HugePages_Free/ { n = $2 } /^Hugepagesize/ { s = $2 } END { print n * s }' /proc/meminfo)
if [ "${huge:-0}" -lt 16384 ]; then
    bad "reserve more (sysctl vm.nr_hugepages=" $boots -o memory.hugepages=true
else
    timeout -s KILL 20 "$xhyve" $boots -o memory.hugepages=true
    check "huge pages" test $? -eq 2
fi
# The sanitizers' mlock does nothing and says it did.
sanitized=$(grep -qa -e __asan_init -e __tsan_init "$xhyve" && echo yes || echo no)
if [ $sanitized = yes ]; then
    skip "a limit on wired memory: sanitizers take mlock away"
elif ! command -v setpriv >/dev/null; then
    skip "a limit on wired memory: there is no setpriv"
else
    free=$xhyve xhyve=$dir/limited
    cap=-ipc_lock
    printf '#!/bin/sh\nulimit -l 64\nexec %s "%s" "$@"\n' \
        "$([ "$(id -u)" -ne 0 ] || echo setpriv --bounding-set=$cap --inh-caps=$cap)" "$free" >"$xhyve"
    chmod +x "$xhyve"
    bad "at most 64 KiB may be wired (RLIMIT_MEMLOCK)" $boots -S
    xhyve=$free
fi
if [ $sanitized = yes ]; then
    skip "wired memory: sanitizers take mlock away"
elif [ "$(id -u)" -eq 0 ] || [ "$(ulimit -l)" = unlimited ]; then
    "$mkguest" idle >"$dir/idle"
    "$xhyve" --engine soft -S -m 16M -f "kexec,$dir/idle" </dev/null >/dev/null 2>&1 &
    pid=$! wired=0 tries=0
    while [ "${wired:-0}" -lt 16384 ] && [ $tries -lt 200 ] && kill -0 $pid 2>/dev/null; do
        sleep 0.05
        wired=$(awk '/^VmLck/ { print $2 }' /proc/$pid/status) tries=$((tries + 1))
    done
    kill -KILL $pid
    wait $pid 2>/dev/null
    check "-S wires $wired KiB of 16384" test "${wired:-0}" -ge 16384
else
    skip "wired memory: this user may not"
fi

# ---- words of the line ----

bad "is taken twice" $boots -s 3,virtio-rnd -s 3:0,virtio-rnd
bad "did you mean 'virtio-rnd'?" $boots -s 3,virtio-rdn
bad "a disk needs an image" $boots -s 3,virtio-blk
bad "/nonexistent: there is no such file" $boots -s 3,virtio-scsi,/nonexistent
bad "at most 20 characters" $boots -s 3,virtio-blk,ram=1m,ser=123456789012345678901
bad "queues=65: must be 1 to 64" $boots -s 3,virtio-blk,ram=1m,queues=65
bad "queues=0: must be 1 to 62" $boots -s 3,virtio-scsi,ram=1m,queues=0
bad "did you mean 'backend'?" $boots -s 3,uart,stdio,backed=x
bad "is not a slot" $boots -s 3a,virtio-rnd
bad "is not a number" $boots -c 2x
bad "is not a number" $boots -c 0x
bad "at most 32 vCPUs, not 33" $boots -c 33
bad "wanted 1 to 255" $boots -c 256
bad "both want stdio" $boots -s 31,lpc -l com1,stdio -l com2,stdio
bad "both want stdio" $boots -s 3,uart,stdio -s 4,uart,stdio
bad "wanted pci.BUS.SLOT.FUNC.OPTION" $boots -o pci=1
bad "unknown configuration key 'lpc'" $boots -o lpc=1
many=
for slot in 1 2 3 4 5 6 7 8; do
    for func in 0 1 2 3 4 5 6 7; do
        many="$many -s $slot:$func,virtio-rnd"
    done
done
bad "more than 64 PCI devices" $boots -A $many -s 9,virtio-rnd
long=$(head -c 300 /dev/zero | tr '\0' x)
bad "takes at most 255" -m 16M -f "kexec,$k,,$long"
long=$(head -c 100000 /dev/zero | tr '\0' x)
bad "takes at most 255" -m 16M -f "kexec,$k,,$long"
bad "see xhyve --help" "--$long"
bad "unknown device" $boots -s "3,$long"
bad "unknown device" $boots -l "$long"
bad "is not a slot" $boots -s "$long,lpc"
bad "unknown option" $boots -s "3,uart,stdio,$long"
bad "unknown back end" $boots -s "3,uart,$long"
bad "1 to 64 characters" $boots "$long"
bad "is longer than 1024 characters" -o "$long=1"
bad "names no configuration key" -o "name=%($long)"
bad "no closing parenthesis" -o "name=%($long"
bad "is not a number" $boots -c "$long"
bad "is not a number" -m "$long"
bad "is not a UUID" -U "$long"
bad "File name too long" -f "kexec,$long"
bad "File name too long" -k "$long"
bad "File name too long" $boots -F "$long"
bad "unknown kind" -f "$long"
bad "unknown word" --log "$long" $boots
bad "trace pattern is longer" --trace "$long" $boots

# ---- configuration files ----

bad "cannot read configuration file $dir/none" -k "$dir/none"
bad "is no readable file" -k "$dir"
tr '\0' x <"$dir/noise" >"$dir/junk"
bad "$dir/junk:" -k "$dir/junk"
bad "not a text file" -k "$dir/zeros"
bad "not a text file" -k /dev/zero
tr '\0' x <"$dir/zeros" >"$dir/long"
echo x >>"$dir/long"
bad "$dir/long:1: a line of more than 1048576 characters" -k "$dir/long"
bad "long:1" -k "$dir/long" -o name=x
printf 'cpus=%%(a)\na=%%(b)\nb=%%(c)\nc=%%(a)\n' >"$dir/conf"
bad "refers to itself" -k "$dir/conf"
printf 'name=%%(name)\n' >"$dir/conf"
bad "refers to itself" -k "$dir/conf"
printf 'name=%%(none)\n' >"$dir/conf"
bad "not set" -k "$dir/conf"
{
    echo 'a0=xxxxxxxxxxxxxxxx'
    i=0
    while [ $i -lt 20 ]; do
        echo "a$((i + 1))=%(a$i)%(a$i)%(a$i)%(a$i)"
        i=$((i + 1))
    done
    echo 'name=%(a20)'
} >"$dir/conf"
bad "expands to more than" -k "$dir/conf"
{
    echo 'a0=x'
    i=0
    while [ $i -lt 40 ]; do
        echo "a$((i + 1))=%(a$i)"
        i=$((i + 1))
    done
    echo 'name=%(a40)'
} >"$dir/conf"
bad "nested deeper than" -k "$dir/conf"

# ---- consoles and pid files ----

lpc="$boots -s 31,lpc"
bad "cannot open '$dir/none/x' for output: No such file" $lpc -l "com1,file=$dir/none/x"
bad "Is a directory" $lpc -l "com1,file=$dir"
bad "nothing reads it" $lpc -l "com1,file=$dir/fifo"
bad "file=PATH" $lpc -l com1,file=
bad "com1: " $lpc -l com1,/dev/none
bad "com1: " $lpc -l "com1,$k"
bad "com1: " $lpc -l "com1,$dir"
bad "unknown back end 'stdout'" $lpc -l com1,stdout
bad "takes no argument but 'output'" $lpc -l com1,stdio=x
bad "com1: " $lpc -l com1,tcp=
bad "com1: " $lpc -l com1,tcp=70000
bad "com1: " $lpc -l com1,tcp=1.2.3.4.5:1
bad "com1: " $lpc -l "com1,unix=$dir/none/x"
bad "com1: " $lpc -l "com1,unix=$long"
bad "com1: " $lpc -l "com1,autopty=$dir/none/x"
echo 1 >"$dir/pid"
bad "the pid file $dir/pid exists" $boots -F "$dir/pid"
bad "cannot create the pid file $dir/none/pid" $boots -F "$dir/none/pid"
bad "exists" $boots -F "$dir"
check "the file of another is left alone" test "$(cat "$dir/pid")" = 1
bad "cannot open" $lpc -F "$dir/new" -l "com1,file=$dir/none/x"
check "a pid file does not stay" test ! -e "$dir/new"

counted
