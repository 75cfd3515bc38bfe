# The same of a kernel that has unpacked and moved itself.
long boot
guest cloud
flags -A -m 1G -o boot.decompress=guest --profile -
cmdline quiet
include profile.inc
send reboot
status 0 60
says samples percent
says kernel  chacha_permute (+
says user    page 0x
