/*
 * 64-bit images: from the multiboot loader's 32-bit mode to 64-bit mode; the way into a fragment and
 * back out of it. Offsets into struct cpu (bare.h) are 8 times the member's number.
 */
.intel_syntax noprefix

.section .multiboot, "a"
.balign 4
.long 0x1badb002, 3, -(0x1badb002 + 3)

.section .text.start, "ax"
.code32
.globl bare_start
bare_start:
    cli
    cld
    mov esp, offset main_stack_top
    /* PML4, one pointer table, four directories of 2 MiB pages: 4 GiB one to one */
    mov dword ptr [pml4], offset pdpt + 7
    mov eax, offset pd + 7
    xor ecx, ecx
1:  mov [pdpt + ecx * 8], eax
    add eax, 4096
    inc ecx
    cmp ecx, 4
    jne 1b
    xor ecx, ecx
    mov eax, 0x83
2:  mov [pd + ecx * 8], eax
    add eax, 0x200000
    inc ecx
    cmp ecx, 2048
    jne 2b
    or dword ptr [pd + 4 * 8], 4 /* 8 MiB: for CPL 3 */
    mov eax, offset pml4
    mov cr3, eax
    mov eax, 0x20 /* PAE */
    mov cr4, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100 /* LME */
    wrmsr
    mov eax, 0x80010021 /* PG, WP, NE, PE */
    mov cr0, eax
    lgdt [start_gdtr]
    .byte 0xea
    .long start_long
    .word 8
.code64
start_long:
    mov eax, 0x10
    mov ss, eax
    mov eax, 0x23
    mov ds, eax
    mov es, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    mov esp, offset main_stack_top
    call bare_main
1:  cli
    hlt
    jmp 1b

.balign 8
start_gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0, 0x00cff3000000ffff
start_gdtr:
    .word . - start_gdt - 1
    .long start_gdt

.text
/* void bare_enter(void): runs what bare_cpu says; the event that ends it returns from here. */
.globl bare_enter
bare_enter:
    pushfq
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [bare_saved], rsp
    push qword ptr [bare_cpu + 8 * 19] /* SS */
    push qword ptr [bare_cpu + 8 * 4]
    push qword ptr [bare_cpu + 8 * 17]
    push qword ptr [bare_cpu + 8 * 18]
    push qword ptr [bare_cpu + 8 * 16]
    mov eax, [bare_cpu + 8 * 20]
    mov es, eax
    mov eax, [bare_cpu + 8 * 21]
    mov ds, eax
    mov rax, [bare_cpu]
    mov rcx, [bare_cpu + 8 * 1]
    mov rdx, [bare_cpu + 8 * 2]
    mov rbx, [bare_cpu + 8 * 3]
    mov rbp, [bare_cpu + 8 * 5]
    mov rsi, [bare_cpu + 8 * 6]
    mov rdi, [bare_cpu + 8 * 7]
    mov r8, [bare_cpu + 8 * 8]
    mov r9, [bare_cpu + 8 * 9]
    mov r10, [bare_cpu + 8 * 10]
    mov r11, [bare_cpu + 8 * 11]
    mov r12, [bare_cpu + 8 * 12]
    mov r13, [bare_cpu + 8 * 13]
    mov r14, [bare_cpu + 8 * 14]
    mov r15, [bare_cpu + 8 * 15]
.globl bare_iret
bare_iret:
    iretq

/* The processor aligns RSP before it pushes: five words, or six with an error code. */
trap:
    cld
    mov [bare_cpu], rax
    mov [bare_cpu + 8 * 1], rcx
    mov [bare_cpu + 8 * 2], rdx
    mov [bare_cpu + 8 * 3], rbx
    mov [bare_cpu + 8 * 5], rbp
    mov [bare_cpu + 8 * 6], rsi
    mov [bare_cpu + 8 * 7], rdi
    mov [bare_cpu + 8 * 8], r8
    mov [bare_cpu + 8 * 9], r9
    mov [bare_cpu + 8 * 10], r10
    mov [bare_cpu + 8 * 11], r11
    mov [bare_cpu + 8 * 12], r12
    mov [bare_cpu + 8 * 13], r13
    mov [bare_cpu + 8 * 14], r14
    mov [bare_cpu + 8 * 15], r15
    pop qword ptr [bare_cpu + 8 * 26] /* vector */
    mov [bare_cpu + 8 * 25], rsp
    xor eax, eax
    mov [bare_cpu + 8 * 27], rax
    mov [bare_cpu + 8 * 28], rax
    test esp, 8
    jnz 1f
    inc eax
    mov [bare_cpu + 8 * 28], rax
    pop qword ptr [bare_cpu + 8 * 27]
1:  pop qword ptr [bare_cpu + 8 * 16]
    pop qword ptr [bare_cpu + 8 * 18]
    pop qword ptr [bare_cpu + 8 * 17]
    pop qword ptr [bare_cpu + 8 * 4]
    pop qword ptr [bare_cpu + 8 * 19]
    mov rax, cr2
    mov [bare_cpu + 8 * 24], rax
    mov eax, es
    mov [bare_cpu + 8 * 20], rax
    mov eax, ds
    mov [bare_cpu + 8 * 21], rax
    mov eax, fs
    mov [bare_cpu + 8 * 22], rax
    mov eax, gs
    mov [bare_cpu + 8 * 23], rax
    mov eax, 0x23
    mov ds, eax
    mov es, eax
    mov rcx, [bare_saved]
    test rcx, rcx
    jz unexpected
    mov eax, 0x10
    mov ss, eax
    mov rsp, rcx
    mov qword ptr [bare_saved], 0
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    popfq
    ret
unexpected:
    mov esp, offset trap_stack_top
    call bare_unexpected

.balign 16
.globl bare_stubs
bare_stubs:
.set vector, 0
.rept 256
    .byte 0x68 /* push, always with four bytes */
    .long vector
    .byte 0xe9
    .long trap - . - 4
    .balign 16
    .set vector, vector + 1
.endr

.bss
.balign 4096
.globl pml4, pdpt, pd
pml4: .skip 4096
pdpt: .skip 4096
pd: .skip 4 * 4096
.skip 16384
main_stack_top:
.globl fragment_stack_top, trap_stack_top, ist_stack_top
.skip 8192
fragment_stack_top:
.skip 4096
trap_stack_top:
.skip 4096
ist_stack_top:
.globl bare_saved
bare_saved: .skip 8

.section .user.bss, "aw", @nobits
.globl user_stack_top
.balign 4096
.skip 8192
user_stack_top:
.globl user_page
user_page: .skip 8192
.section .note.GNU-stack, "", @progbits
