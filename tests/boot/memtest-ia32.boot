# memtest86+ 6.10, 32 bits: a pass over 64 MiB without an error, then a reboot by its key.
long memtest
guest memtest-ia32
flags -A -m 64M
cmdline nopause nobigstatus
expect 60 Memtest86+ v6.10
expect 60 Testing: 
expect 60 [Address test, walking ones
mark testing
# tests 0 to 10, one of them waiting twice for bits to fade
expect 1500 [Bit fade test
mark fading
expect 900 Pass:  1        Errors: 0 
mark pass
send \x1b\c
status 0 60
