# Debian's generic kernel, every message shown: a session, then the power button.
quick
guest generic
flags -A -m 512M
include session.inc
include end-by-button.inc
