# The same with Debian's 32-bit kernel: its boot has 6.9 G instructions.
long boot
guest 686
flags -A -m 1G --engine soft,check
cmdline quiet
include shell.inc
send echo machine=$(uname -m)=
expect machine=i686=
include end-by-button.inc
