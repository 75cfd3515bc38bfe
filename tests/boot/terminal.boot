# The console on a terminal, left by Ctrl-A x; a second Ctrl-A is the guest's own.
long boot
guest cloud
flags -A -m 1G
cmdline quiet
terminal
expect 300 xhyve: Linux 
expect xhyve:/# 
send sh -c 'echo ready=$((1+1)); head -n 1 | tr "\\001a-z" "+A-Z"'
expect ready=2
send \x01\x01typed
expect +TYPED
send \x01x\c
status 1 30
