# Debian's cloud kernel by the kvm engine: a session, then the power button.
guest cloud
flags -A -m 1G --engine kvm
cmdline quiet
include session.inc
include end-by-button.inc
