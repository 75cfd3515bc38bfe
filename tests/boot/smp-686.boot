# Debian's 32-bit kernel on two vCPUs: a session, and the power button.
long smp
guest 686
flags -A -c 2 -m 1G
cmdline quiet
include shell.inc
send echo cpus=$(nproc)= machine=$(uname -m)=
expect cpus=2= machine=i686=
include end-by-button.inc
