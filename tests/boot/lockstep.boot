# Translator and interpreter in lock-step: a boot, a session, and never a difference.
long boot
guest cloud
flags -A -m 1G --engine soft,check
cmdline quiet
include session.inc
include end-by-button.inc
