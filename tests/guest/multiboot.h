/*
 * A multiboot kernel made in memory, an ELF file of TINY_SIZE bytes: looks at the registers and the
 * information it starts with, as the Multiboot Specification promises them, and says on COM1 what
 * it was given: command line, loader, then each module's string and content, a line each, "map" if
 * the memory map can be walked; then a reset. What is wrong it reports as "BAD" and a letter, and
 * halts.
 */
#ifndef TESTS_GUEST_MULTIBOOT_H
#define TESTS_GUEST_MULTIBOOT_H

#include "tiny.h"

static inline void tiny_put32(uint8_t *p, uint32_t v)
{
    tiny_put16(p, v & 0xFFFF);
    tiny_put16(p + 2, v >> 16);
}

/* An ELF32 header and one segment: all from TINY_CODE on, to TINY_BASE, and 4 KiB of zeros. */
static inline void tiny_elf32(uint8_t *image)
{
    static const uint8_t ident[7] = {0x7F, 'E', 'L', 'F', 1, 1, 1};

    memset(image, 0, TINY_SIZE);
    memcpy(image, ident, sizeof(ident));
    tiny_put16(image + 16, 2); /* executable, for the 386 */
    tiny_put16(image + 18, 3);
    tiny_put32(image + 20, 1);
    tiny_put32(image + 24, TINY_BASE);
    tiny_put32(image + 28, 52);
    tiny_put16(image + 40, 52);
    tiny_put16(image + 42, 32);
    tiny_put16(image + 44, 1);
    tiny_put32(image + 52, 1);
    tiny_put32(image + 56, TINY_CODE);
    tiny_put32(image + 60, TINY_BASE);
    tiny_put32(image + 64, TINY_BASE);
    tiny_put32(image + 68, TINY_SIZE - TINY_CODE);
    tiny_put32(image + 72, TINY_SIZE - TINY_CODE + 4096);
    tiny_put32(image + 76, 7);
    tiny_put32(image + 80, 4096);
}

/* After a comparison: unless it was equal, "BAD" and the letter, and a halt. */
static inline void tiny_expect(struct tiny *t, char letter)
{
    uint8_t *over;

    CODE(t, 0x74, 0); /* je over */
    over = t->image + t->at - 1;
    tiny_print(t, "BAD");
    tiny_outb(t, 0x3F8, (uint8_t)letter);
    tiny_halt(t);
    *over = (uint8_t)(t->image + t->at - (over + 1));
}

static inline void tiny_call(struct tiny *t, uint32_t addr)
{
    CODE(t, 0xE8);
    tiny_u32(t, addr - (tiny_here(t) + 4));
}

/* mov reg32, [base + offset], encoded as modrm with an 8-bit offset */
static inline void tiny_mov_load(struct tiny *t, uint8_t modrm, uint8_t offset)
{
    CODE(t, 0x8B, modrm, offset);
}

struct multiboot_subs {
    uint32_t string, range; /* print from ebx: to a zero, to ecx */
};

static inline struct multiboot_subs multiboot_subs(struct tiny *t)
{
    struct multiboot_subs s;

    CODE(t, 0xEB, 15 + 15);
    s.string = tiny_here(t);
    CODE(t, 0x8A, 0x03, 0x84, 0xC0, 0x74, 0x08); /* mov al, [ebx]; test al, al; jz ret */
    CODE(t, 0x66, 0xBA, 0xF8, 0x03, 0xEE, 0x43, 0xEB, 0xF2, 0xC3); /* out; inc ebx; jmp; ret */
    s.range = tiny_here(t);
    CODE(t, 0x39, 0xCB, 0x73, 0x0A, 0x8A, 0x03); /* cmp ebx, ecx; jae ret; mov al, [ebx] */
    CODE(t, 0x66, 0xBA, 0xF8, 0x03, 0xEE, 0x43, 0xEB, 0xF2, 0xC3);
    return s;
}

/* esi: the information. EAX, CR0, EFLAGS, and the GDT, which must hold what the segments say (ours
 * does; the specification does not ask for it). */
static inline void multiboot_registers(struct tiny *t)
{
    uint32_t next;

    CODE(t, 0x89, 0xDE, 0x89, 0xC5); /* mov esi, ebx; mov ebp, eax */
    tiny_outb(t, 0x3FB, 3);          /* bytes of 8 bits */
    CODE(t, 0x81, 0xFD);             /* cmp ebp, magic */
    tiny_u32(t, 0x2BADB002);
    tiny_expect(t, 'A');
    CODE(t, 0x0F, 0x20, 0xC0, 0x25); /* mov eax, cr0; and eax, PG|PE */
    tiny_u32(t, 0x80000001);
    CODE(t, 0x83, 0xF8, 0x01);
    tiny_expect(t, 'C');
    CODE(t, 0xBC);
    tiny_u32(t, TINY_STACK);
    CODE(t, 0x9C, 0x58, 0xA9); /* pushf; pop eax; test eax, VM|IF */
    tiny_u32(t, 0x20200);
    tiny_expect(t, 'F');
    CODE(t, 0x8C, 0xC8, 0x50, 0x68); /* mov eax, cs; push eax; push next; retf */
    next = tiny_here(t) + 5;
    tiny_u32(t, next);
    CODE(t, 0xCB);
    CODE(t, 0x8C, 0xD8, 0x8E, 0xD8, 0x8C, 0xC0, 0x8E, 0xC0); /* ds, es */
    CODE(t, 0x8C, 0xD0, 0x8E, 0xD0, 0x8C, 0xE0, 0x8E, 0xE0); /* ss, fs */
    CODE(t, 0x8C, 0xE8, 0x8E, 0xE8);                         /* gs */
}

static inline void multiboot_modules(struct tiny *t, struct multiboot_subs s)
{
    uint8_t *start, *back;

    tiny_mov_load(t, 0x7E, 24); /* mov edi, [esi + mods_addr] */
    tiny_mov_load(t, 0x6E, 20); /* mov ebp, [esi + mods_count] */
    start = t->image + t->at;
    CODE(t, 0x85, 0xED, 0x74, 0); /* test ebp, ebp; jz end */
    back = t->image + t->at - 1;
    tiny_mov_load(t, 0x5F, 8); /* mov ebx, [edi + string] */
    tiny_call(t, s.string);
    tiny_print(t, ": ");
    tiny_mov_load(t, 0x5F, 0);
    tiny_mov_load(t, 0x4F, 4); /* ebx, ecx: start and end */
    CODE(t, 0xF7, 0xC3);       /* test ebx, 0xfff */
    tiny_u32(t, 0xFFF);
    tiny_expect(t, 'P');
    tiny_call(t, s.range);
    tiny_print(t, "\n");
    CODE(t, 0x83, 0xC7, 16, 0x4D); /* add edi, 16; dec ebp */
    CODE(t, 0xEB, 0);
    t->image[t->at - 1] = (uint8_t)(start - (t->image + t->at));
    *back = (uint8_t)(t->image + t->at - (back + 1));
}

/* The entries' sizes must lead exactly to the end, and the first is memory from 0. */
static inline void multiboot_map(struct tiny *t)
{
    uint8_t *start;

    tiny_mov_load(t, 0x7E, 48); /* mov edi, [esi + mmap_addr] */
    tiny_mov_load(t, 0x4E, 44); /* mov ecx, [esi + mmap_length] */
    CODE(t, 0x01, 0xF9);        /* add ecx, edi */
    CODE(t, 0x83, 0x7F, 20, 1); /* cmp dword [edi + type], 1 */
    tiny_expect(t, 'T');
    CODE(t, 0x83, 0x7F, 4, 0); /* cmp dword [edi + base], 0 */
    tiny_expect(t, 'B');
    start = t->image + t->at;
    tiny_mov_load(t, 0x47, 0);    /* mov eax, [edi + size] */
    CODE(t, 0x8D, 0x7C, 0x07, 4); /* lea edi, [edi + eax + 4] */
    CODE(t, 0x39, 0xCF, 0x72, 0); /* cmp edi, ecx; jb start */
    t->image[t->at - 1] = (uint8_t)(start - (t->image + t->at));
    CODE(t, 0x39, 0xCF);
    tiny_expect(t, 'M');
    tiny_print(t, "map\n");
}

static inline void multiboot_guest(uint8_t image[TINY_SIZE])
{
    struct tiny t = {image, TINY_CODE};
    struct multiboot_subs s;

    tiny_elf32(image);
    tiny_put32(image + 96, 0x1BADB002);
    tiny_put32(image + 100, 3); /* aligned modules, memory */
    tiny_put32(image + 104, 0 - (0x1BADB002u + 3));
    multiboot_registers(&t);
    s = multiboot_subs(&t);
    tiny_mov_load(&t, 0x46, 0); /* mov eax, [esi + flags] */
    CODE(&t, 0x25);
    tiny_u32(&t, 0x24D);
    CODE(&t, 0x3D);
    tiny_u32(&t, 0x24D);
    tiny_expect(&t, 'I');
    tiny_mov_load(&t, 0x5E, 16);
    tiny_call(&t, s.string);
    tiny_print(&t, "\n");
    tiny_mov_load(&t, 0x5E, 64);
    tiny_call(&t, s.string);
    tiny_print(&t, "\n");
    multiboot_modules(&t, s);
    multiboot_map(&t);
    tiny_reset(&t);
}

#endif
