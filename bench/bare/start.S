/*
 * The guest of "process start to first instruction" in tools/bench-kvm.sh: its first instructions put
 * a byte on COM1, the next end the VM by its test device. Entered by PVH, in 32-bit protected mode, by
 * xhyve and by qemu. flash.S is the same for a machine that starts at the reset vector.
 */
.intel_syntax noprefix

.section .note.pvh, "a", @note
.balign 4
.long 4, 4, 18 /* sizes of name and value; XEN_ELFNOTE_PHYS32_ENTRY */
.asciz "Xen"
.long start

.text
.code32
.globl start
start:
    mov dx, 0x3f8
    mov al, 0x15
    out dx, al
    xor eax, eax
    out 0xf4, al
1:  cli
    hlt
    jmp 1b
.section .note.GNU-stack, "", @progbits
