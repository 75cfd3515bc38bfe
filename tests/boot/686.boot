# Debian's 32-bit kernel with PAE and a 32-bit userland: a session, and the power button.
# It maps no device memory above 4 GiB, where a virtio device's registers are, so none is used.
long boot
guest 686
flags -A -m 1G
cmdline quiet
include shell.inc
send echo machine=$(uname -m)=
expect machine=i686=
send echo pae=$(grep -c " pae " /proc/cpuinfo)=
expect pae=1=
mark session
include end-by-button.inc
