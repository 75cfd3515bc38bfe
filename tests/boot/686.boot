# Debian's 32-bit kernel with PAE and a 32-bit userland: a session, and the power button.
# Its virtio device works: it maps nothing above 4 GiB, and small BARs lie below.
long boot
guest 686
flags -A -m 1G
cmdline quiet
include shell.inc
send echo machine=$(uname -m)=
expect machine=i686=
send echo pae=$(grep -c " pae " /proc/cpuinfo)=
expect pae=1=
send echo random=$(head -c 8 /dev/hwrng | wc -c)=
expect random=8=
mark session
include end-by-button.inc
