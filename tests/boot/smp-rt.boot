# Debian's real-time kernel on four vCPUs: a session, and the power button.
long smp
guest rt
flags -A -c 4 -m 1G
cmdline quiet
include shell.inc
send echo cpus=$(nproc)= rt=$(cat /sys/kernel/realtime)=
expect cpus=4= rt=1=
include end-by-button.inc
