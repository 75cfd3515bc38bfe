/*
 * start.S as a firmware of 64 KiB: its code is at the reset vector itself, 16 bytes below 4 GiB, where a
 * processor begins in real-address mode. Nothing can start earlier on a machine that has firmware.
 */
.intel_syntax noprefix

.text
.code16
.org 0xfff0
    mov dx, 0x3f8
    mov al, 0x15
    out dx, al
    xor ax, ax
    out 0xf4, al
1:  hlt
    jmp 1b
.org 0x10000
.section .note.GNU-stack, "", @progbits
