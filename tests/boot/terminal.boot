# The console on a terminal, left by Ctrl-A x; a second Ctrl-A is the guest's own.
long boot
guest cloud
flags -A -m 1G
cmdline quiet
terminal
expect 300 xhyve: Linux 
expect xhyve:/# 
send echo \x01\x01typed | cut -c 2- | tr a-z A-Z
expect TYPED
send \x01x\c
status 1 30
