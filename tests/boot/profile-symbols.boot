# The same by the names in a file, of a VM that is ended at once.
long boot
guest cloud
flags -m 1G --profile - --profile-symbols build/guest/cloud/vmlinuz
cmdline quiet
include profile.inc
signal TERM
status 1 60
says samples percent
says kernel  chacha_permute (+
says user    page 0x
