#!/bin/sh
# Every bad line: status 4, nothing on standard output, one line on standard error that begins
# "xhyve: error: " and holds the words given. errors.sh PROGRAM
set -u
xhyve=$1
test -x "$xhyve" || {
    echo "$xhyve is no program"
    exit 1
}
. "$(dirname "$0")/checks.sh"

bad() { # WORDS ARGUMENT...
    words=$1
    shift
    refuses xhyve 4 "$words" "$xhyve" "$@"
}

bad "unknown flag '-Z'" -Z
bad "did you mean '--memory'?" --memmory 1G
bad "-m needs an argument" -m
bad "--acpi takes no argument" --acpi=yes
bad "a VM needs memory" -m 0
bad "'1P' is not a number" -m 1P
bad "'12Q' is not a number" -m 12Q
bad "is not a multiple of 4 KiB" -m 1048577
bad "more than 2^64" -m 99999999999999t
bad "not a number" -m -1
bad "not a number" -c 1x
bad "wanted 1 to 255" -c 0
bad "at most 32 vCPUs, not 40" -c 40
bad "more than one socket" -c 2,sockets=2,cores=1
bad "threads of a core" -c 2,sockets=1,cores=1,threads=2
bad "the engine 'kvm' with 2 vCPUs is not built yet" --engine kvm -c 2
bad "--engine soft has them" --engine soft,check -c 4
bad "do not fit the topology" -c cpus=3,sockets=2
bad "unknown option 'tread'; did you mean 'threads'?" -c 2,tread=2
bad "PCI slots go from 0 to 31" -s 32,hostbridge
bad "PCI functions go from 0 to 7" -s 1:8,hostbridge
bad "PCI buses go from 0 to 255" -s 256:1:0,hostbridge
bad "'3x' is not a slot" -s 3x,hostbridge
bad "'1:2:3:4' is not a slot" -s 1:2:3:4,hostbridge
bad "no device" -s 3
bad "unknown device 'zebra'" -s 3,zebra
bad "did you mean 'virtio-rnd'?" -s 3,virtio-rng
bad "'/x' is no port; wanted hd:PATH or cd:PATH" -s 3,ahci,/x
bad "ahci at 3: unknown option 'serial'" -s 3,ahci,hd:/x,serial=1
bad "port 32: ports go from 0 to 31" -s 3,ahci -o pci.0.3.0.port.32.type=hd
bad "type=floppy; wanted hd or cd" -s 3,ahci -o pci.0.3.0.port.0.type=floppy
bad "is taken twice, by uart and by lpc" -s 3,uart,null -s 0:3:0,lpc
bad "unknown option 'x'; it takes no options" -s 3,hostbridge,x
bad "unknown option 'x'; known: packed" -s 3,virtio-rnd,x
bad "virtio-blk at 3: queues: 'x'" -s 3,virtio-blk,ram=1m,queues=x
bad "uart at 3: unknown option" -s 3,uart,stdio,bakend=x
bad "both want stdio" -s 31,lpc -l com1,stdio -s 3,uart,stdio
bad "did you mean 'com1'?" -l con1,stdio
bad "add -s 31,lpc" -l com1,stdio
bad "com1 is given twice" -l com1 -l com1,stdio
bad "unknown kind 'kexek'; did you mean 'kexec'?" -f kexek,vmlinuz
bad "unknown kind 'elf'; known: kexec" -f elf,vmlinuz
bad "needs a kernel" -f kexec
bad "two kernels" -f kexec,a -f kexec,b
bad "only qemu's is" -s 31,lpc -l fwcfg
bad "'bhyve' is not built yet" -s 31,lpc -l fwcfg,bhyve
bad "-f fbsd is not built yet" -f fbsd,userboot.so,disk
bad "multiboot needs a kernel" -f multiboot
bad "cannot read the kernel /nonexistent" -f multiboot,/nonexistent
bad "needs a kernel: -f pvh,KERNEL" -f pvh
bad "boot.method=fbsd is not built yet" -o boot.method=fbsd -o boot.kernel=k
# These come far enough to choose an engine, and of one not taken auto may have to tell.
bad "has no PVH entry" --engine soft -f pvh,"$xhyve"
bad "no multiboot header" --engine soft -f multiboot,"$xhyve"
bad "is an ELF file; give the bzImage" --engine soft -f kexec,"$xhyve"
bad "use boot.modules" -f multiboot,k -o boot.initrd=i
bad "nothing to boot" -A
bad "is not a UUID" -U 1234
bad "the console at port 0x220" -b
bad "debug relay" -g 1234
bad "the gdb stub is not built yet" -G 127.0.0.1:1234
bad "is not a TCP port" -G 70000
bad "networking is not built yet" -M
bad "pinning vCPUs" -p 0:1
bad "is not KEY=VALUE" -o name
bad "has an empty part" -o a..b=1
bad "did you mean 'memory.size'?" -o memroy.size=1G
bad "acpi_tables: 'maybe' is not true or false" -o acpi_tables=maybe
bad "refers to itself" -o "name=%(uuid)" -o "uuid=%(name)"
bad "engine 'hvf' is not built yet" --engine hvf
bad "engine: unknown word 'sotf'; did you mean 'soft'?" --engine sotf
bad "engine=soft,interp translates none" --engine soft,interp --perf-map
bad "profile.symbols needs a profile" --profile-symbols /dev/null
bad "--profile needs FILE" --profile ""
bad "control is empty; wanted the path of a socket, or off" -o control=
bad "--control needs PATH" --control ""
bad "log.level: unknown word 'loud'" --log loud
bad "unexpected word 'b'" a b
bad "two names" --name a b
bad "run needs a kernel" run
bad "cannot read the kernel /nonexistent" -f kexec,/nonexistent
bad "is not a file" -f kexec,/
bad "cannot read configuration file /nonexistent" -k /nonexistent
bad "holds no blanks" "$(printf 'two\nlines')"

printf '# comment\n\n  cpus=1\r\nmemory.size\n' >"$dir/conf"
bad "conf:4: 'memory.size' is not KEY=VALUE" -k "$dir/conf"

# A pid file: never overwritten, never left behind.
: >"$dir/kernel"
echo 1 >"$dir/pid"
bad "the pid file $dir/pid exists" -F "$dir/pid" -f kexec,"$dir/kernel"
check "the pid file of another was touched" test "$(cat "$dir/pid")" = 1
rm "$dir/pid"
"$xhyve" -F "$dir/pid" -f kexec,"$dir/kernel" >/dev/null 2>&1 </dev/null
check "an empty kernel file must fail" test $? -eq 4
check "the pid file was left behind" test ! -e "$dir/pid"

"$xhyve" >/dev/null 2>"$dir/err"
check "without arguments: status 4" test $? -eq 4
check "without arguments: the usage" grep -q '^usage: xhyve' "$dir/err"
"$xhyve" -Y -u -k /dev/null -o config.dump=1 web >"$dir/out"
check "a dump has status 0" test $? -eq 0
check "a dump is the tree" test "$(tr '\n' ' ' <"$dir/out")" = \
    "cpus=1 memory.size=256M name=web rtc.use_localtime=false x86.mptable=false "
"$xhyve" -k "$dir/out" -o config.dump=1 | cmp -s - "$dir/out"
check "a dump reads back as itself" test $? -eq 0

# The line that everybody copies, with the devices that really exist.
"$xhyve" -A -m 1G -s 0:0,hostbridge -s 31,lpc -l com1,stdio -f \
    kexec,vmlinuz,initrd.gz,"earlyprintk=serial console=ttyS0" -o config.dump=1 vm >"$dir/out"
check "the canonical line has status 0" test $? -eq 0
check "the canonical line is its tree" cmp -s "$dir/out" - <<EOT
acpi_tables=true
boot.cmdline=earlyprintk=serial console=ttyS0
boot.initrd=initrd.gz
boot.kernel=vmlinuz
boot.method=kexec
cpus=1
lpc.com1.path=stdio
memory.size=1G
name=vm
pci.0.0.0.device=hostbridge
pci.0.31.0.device=lpc
EOT
# The line that run prints is one a shell reads back to the same tree.
"$xhyve" run -m 2G --name vm "a kernel" -- "it's quiet" -o 2>"$dir/err"
check "run of a kernel that is not there fails" test $? -eq 4
"$xhyve" run -o config.dump=1 --name vm "a kernel" -- "it's quiet" >"$dir/out" 2>"$dir/err"
line=$(cat "$dir/err")
eval "\"\$xhyve\" ${line#xhyve }" >"$dir/again" 2>/dev/null
check "the full line of run is the same machine" cmp "$dir/out" "$dir/again"

counted
