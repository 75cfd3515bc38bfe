# Debian's real-time kernel: a session, what it is, and the power button.
long boot
guest rt
flags -A -m 1G
cmdline quiet
include session.inc
send echo rt=$(uname -v | grep -c PREEMPT_RT)$(cat /sys/kernel/realtime)=
expect rt=11=
send echo machine=$(uname -m)=
expect machine=x86_64=
# interrupt handlers are threads there
send echo threads=$(($(ps | grep -c "\[irq/") > 1))=
expect threads=1=
include end-by-button.inc
