# Debian's Xen hypervisor, a multiboot kernel, as far as it comes without a guest of its own.
long boot
guest xen
boot multiboot
flags -A -m 512M
cmdline console=com1 com1=115200
expect 60 (XEN) Xen version
expect (XEN) Bootloader: xhyve
expect (XEN) Command line: console=com1 com1=115200
expect dom0 kernel not specified
expect Reboot in five seconds
status 0 60
