/*
 * 32-bit images: start, the way into a fragment and back out of it, and the same for real-address
 * mode. Offsets into struct cpu (bare.h) are 4 times the member's number.
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
    mov eax, 0x21 /* NE, PE */
    mov cr0, eax
    xor eax, eax
    mov cr4, eax
    lgdt [start_gdtr]
    ljmp 8, offset 1f
1:  mov eax, 0x10
    mov ss, eax
    mov ds, eax
    mov es, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    call bare_main
2:  cli
    hlt
    jmp 2b

.balign 8
start_gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
start_gdtr:
    .word . - start_gdt - 1
    .long start_gdt

.text
/* void bare_enter(void): runs what bare_cpu says; the event that ends it returns from here. */
.globl bare_enter
bare_enter:
    pushfd
    pushad
    mov [bare_saved], esp
    test dword ptr [bare_cpu + 4 * 17], 0x20000
    jz 1f
    push dword ptr [bare_cpu + 4 * 23] /* GS */
    push dword ptr [bare_cpu + 4 * 22]
    push dword ptr [bare_cpu + 4 * 21]
    push dword ptr [bare_cpu + 4 * 20]
    jmp 2f
1:  test dword ptr [bare_cpu + 4 * 18], 3
    jz 3f
2:  push dword ptr [bare_cpu + 4 * 19] /* SS */
    push dword ptr [bare_cpu + 4 * 4]
    push dword ptr [bare_cpu + 4 * 17]
    push dword ptr [bare_cpu + 4 * 18]
    push dword ptr [bare_cpu + 4 * 16]
    jmp 4f
    /* IRET to the same level loads no stack: the frame goes onto the fragment's */
3:  mov eax, [bare_cpu + 4 * 19]
    mov ecx, [bare_cpu + 4 * 4]
    mov ss, eax
    mov esp, ecx
    push dword ptr [bare_cpu + 4 * 17]
    push dword ptr [bare_cpu + 4 * 18]
    push dword ptr [bare_cpu + 4 * 16]
4:  mov ecx, [bare_cpu + 4 * 1]
    mov edx, [bare_cpu + 4 * 2]
    mov ebx, [bare_cpu + 4 * 3]
    mov ebp, [bare_cpu + 4 * 5]
    mov esi, [bare_cpu + 4 * 6]
    mov edi, [bare_cpu + 4 * 7]
    test dword ptr [bare_cpu + 4 * 17], 0x20000
    jnz 5f
    mov eax, [bare_cpu + 4 * 20]
    mov es, eax
    mov eax, [bare_cpu + 4 * 22]
    mov fs, eax
    mov eax, [bare_cpu + 4 * 23]
    mov gs, eax
    push dword ptr [bare_cpu]
    mov eax, [bare_cpu + 4 * 21]
    mov ds, eax
    pop eax
    jmp bare_iret
5:  mov eax, [bare_cpu]
.globl bare_iret
bare_iret:
    iretd

trap:
    cld
    push ds
    push eax
    mov eax, ss:[esp + 8] /* vector */
    push eax
    mov eax, 0x10
    mov ds, eax
    pop dword ptr [bare_cpu + 4 * 26]
    pop dword ptr [bare_cpu]
    pop eax
    movzx eax, ax
    mov [bare_cpu + 4 * 21], eax
    pop eax
    mov [bare_cpu + 4 * 1], ecx
    mov [bare_cpu + 4 * 2], edx
    mov [bare_cpu + 4 * 3], ebx
    mov [bare_cpu + 4 * 5], ebp
    mov [bare_cpu + 4 * 6], esi
    mov [bare_cpu + 4 * 7], edi
    mov [bare_cpu + 4 * 25], esp
    mov eax, es
    mov [bare_cpu + 4 * 20], eax
    mov eax, fs
    mov [bare_cpu + 4 * 22], eax
    mov eax, gs
    mov [bare_cpu + 4 * 23], eax
    xor eax, eax
    mov [bare_cpu + 4 * 27], eax
    mov [bare_cpu + 4 * 28], eax
    cmp [bare_no_error_code], eax
    jne 1f
    mov ecx, [bare_cpu + 4 * 26]
    cmp ecx, 32
    jae 1f
    mov edx, 0x227d00 /* 8, 10 to 14, 17, 21 */
    bt edx, ecx
    jnc 1f
    inc eax
    mov [bare_cpu + 4 * 28], eax
    pop dword ptr [bare_cpu + 4 * 27]
1:  pop dword ptr [bare_cpu + 4 * 16]
    pop dword ptr [bare_cpu + 4 * 18]
    pop dword ptr [bare_cpu + 4 * 17]
    mov eax, ss
    mov [bare_cpu + 4 * 4], esp
    mov [bare_cpu + 4 * 19], eax
    test dword ptr [bare_cpu + 4 * 17], 0x20000
    jnz 2f
    test dword ptr [bare_cpu + 4 * 18], 3
    jz 3f
2:  pop dword ptr [bare_cpu + 4 * 4]
    pop dword ptr [bare_cpu + 4 * 19]
    test dword ptr [bare_cpu + 4 * 17], 0x20000
    jz 3f
    pop dword ptr [bare_cpu + 4 * 20]
    pop dword ptr [bare_cpu + 4 * 21]
    pop dword ptr [bare_cpu + 4 * 22]
    pop dword ptr [bare_cpu + 4 * 23]
3:  mov eax, cr2
    mov [bare_cpu + 4 * 24], eax
    mov eax, 0x10
    mov es, eax
    mov ss, eax
    mov ecx, [bare_saved]
    test ecx, ecx
    jz unexpected
    mov esp, ecx
    mov dword ptr [bare_saved], 0
    popad
    popfd
    ret
unexpected:
    mov esp, offset main_stack_top
    call bare_unexpected

.balign 16
.globl bare_stubs
bare_stubs:
.set vector, 0
.rept 256
    .byte 0x68
    .long vector
    .byte 0xe9
    .long trap - . - 4
    .balign 16
    .set vector, vector + 1
.endr

/*
 * void bare_real_enter(void): as bare_enter, in real-address mode. What follows low_start is copied
 * to LOW_CODE + 0x8000 and runs there, with CS = LOW_CODE / 16. The registers pass through low_cpu,
 * which has the layout of struct cpu.
 */
.globl bare_real_enter
bare_real_enter:
    pushfd
    pushad
    mov [bare_saved], esp
    lidt [low_idtr]
    ljmp 0x40, 0x8000
real_back:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, [bare_saved]
    mov dword ptr [bare_saved], 0
    popad
    popfd
    ret
.balign 4
low_idtr:
    .word 0x3ff
    .long 0

.section .rodata.low, "a"
.globl low_start, low_end
low_start:
.code16
    mov ax, 0x48 /* S_DATA16 */
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    mov eax, cr0
    and al, 0xfe
    mov cr0, eax
    .byte 0xea /* far jump */
    .word low_real - low_start + 0x8000, 0x2000
low_real:
    mov ax, cs
    mov ds, ax
    .set cpu, low_cpu - low_start + 0x8000
    lss esp, [cpu + 4 * 29]
    push word ptr [cpu + 4 * 17]
    push word ptr [cpu + 4 * 18]
    push word ptr [cpu + 4 * 16]
    mov ecx, [cpu + 4 * 1]
    mov edx, [cpu + 4 * 2]
    mov ebx, [cpu + 4 * 3]
    mov ebp, [cpu + 4 * 5]
    mov esi, [cpu + 4 * 6]
    mov edi, [cpu + 4 * 7]
    mov es, [cpu + 4 * 20]
    mov fs, [cpu + 4 * 22]
    mov gs, [cpu + 4 * 23]
    mov eax, [cpu]
    mov ds, [cpu + 4 * 21]
    iret
low_trap:
    cld
    mov cs:[cpu], eax
    pop word ptr cs:[cpu + 4 * 26]
    pop word ptr cs:[cpu + 4 * 16]
    pop word ptr cs:[cpu + 4 * 18]
    pop word ptr cs:[cpu + 4 * 17]
    mov word ptr cs:[cpu + 4 * 21], ds
    mov ax, cs
    mov ds, ax
    mov [cpu + 4 * 1], ecx
    mov [cpu + 4 * 2], edx
    mov [cpu + 4 * 3], ebx
    mov [cpu + 4 * 4], esp
    mov [cpu + 4 * 5], ebp
    mov [cpu + 4 * 6], esi
    mov [cpu + 4 * 7], edi
    mov word ptr [cpu + 4 * 19], ss
    mov word ptr [cpu + 4 * 20], es
    mov word ptr [cpu + 4 * 22], fs
    mov word ptr [cpu + 4 * 23], gs
    data32 lgdt [low_gdtr - low_start + 0x8000]
    data32 lidt [low_idtr_back - low_start + 0x8000]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xea
    .long real_back
    .word 8
.balign 8
.globl low_stubs
low_stubs:
.set vector, 0
.rept 256
    .byte 0x68
    .word vector
    .byte 0xe9
    .word low_trap - . - 2
    .balign 8
    .set vector, vector + 1
.endr
.balign 4
.globl low_cpu, low_gdtr, low_idtr_back
low_cpu:
    .skip 4 * 31
low_gdtr:
    .word 0
    .long 0
low_idtr_back:
    .word 0
    .long 0
low_end:
.code32

.bss
.balign 4096
.skip 16384
main_stack_top:
.globl fragment_stack_top, trap_stack_top, ist_stack_top
.skip 8192
fragment_stack_top:
.skip 4096
trap_stack_top:
.skip 4096
ist_stack_top:
.globl bare_saved, bare_no_error_code
bare_saved: .skip 4
bare_no_error_code: .skip 4

.section .user.bss, "aw", @nobits
.globl user_stack_top
.balign 4096
.skip 8192
user_stack_top:
.globl user_page
user_page: .skip 8192
.section .note.GNU-stack, "", @progbits
