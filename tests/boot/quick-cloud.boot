# Debian's cloud kernel: a session, then the power button.
quick
guest cloud
cmdline quiet
include session.inc
include end-by-button.inc
