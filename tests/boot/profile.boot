# A profile names the functions of a kernel that we have moved, by its own table.
long boot
guest cloud
flags -A -m 1G --profile -
cmdline quiet
include profile.inc
send poweroff
status 1 60
says samples percent
says kernel  chacha_permute (+
says user    page 0x
