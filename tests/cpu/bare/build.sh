#!/bin/sh
# Builds a test image with the host's gcc and binutils:
#     build.sh 32|64 OUTPUT SOURCE.c...
# The container is ELF32 in both cases, as Multiboot 1 has it.
set -eu
bits=$1
out=$2
shift 2
here=$(dirname "$0")
${BARE_CC:-gcc} -m"$bits" -std=gnu17 -O2 -ffreestanding -nostdlib -static -fno-pie -no-pie -fno-pic \
    -mgeneral-regs-only -mno-red-zone -fno-stack-protector -fcf-protection=none -fno-common \
    -fno-strict-aliasing -fwrapv -fno-delete-null-pointer-checks -fno-asynchronous-unwind-tables \
    -fno-unroll-loops -fno-toplevel-reorder -fno-ipa-cp-clone \
    -Wall -Wextra -Werror -Wshadow -Wundef -Wformat=2 -Wwrite-strings -Wcast-qual -Wpointer-arith \
    -Wvla -Wimplicit-fallthrough -Wstrict-prototypes -Wmissing-prototypes -Wconversion \
    -Wl,-T,"$here/bare.ld" -Wl,--build-id=none -Wl,-z,max-page-size=4096 -Wl,-z,noexecstack \
    -Wl,--no-warn-rwx-segments \
    "$here/start$bits.S" "$here/lib.c" "$here/mode$bits.c" "$@" -o "$out.elf"
objcopy -O elf32-i386 "$out.elf" "$out"
