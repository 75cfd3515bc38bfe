# Debian's cloud kernel with a 32-bit userland: a session, and the power button.
long boot
guest cloud-i386
flags -A -m 1G
cmdline quiet
include session.inc
send echo machine=$(uname -m)=
expect machine=x86_64=
# the shell is an ELF file of 32 bits, and calls the kernel as one
send echo class=$(head -c 5 /proc/self/exe | tail -c 1 | hexdump -e '1/1 "%d"')=
expect class=1=
include end-by-button.inc
