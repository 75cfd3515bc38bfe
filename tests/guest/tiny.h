/*
 * Guests of a few hundred bytes, made in memory: a bzImage (boot protocol 2.06, so the loader
 * leaves it packed and enters it at 1 MiB in 32-bit protected mode, flat segments, interrupts off)
 * whose code says its name on COM1 and then does the one thing that a test is about.
 *
 *   uint8_t image[TINY_SIZE];
 *   if (tiny_guest("halt", image)) ...
 *
 * Everything is static: a test includes this file and needs no other.
 */
#ifndef TESTS_GUEST_TINY_H
#define TESTS_GUEST_TINY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { TINY_SIZE = 4096, TINY_CODE = 1024, TINY_BASE = 0x100000 };

struct tiny {
    uint8_t *image;
    size_t at; /* next byte of code, from the image's start */
};

/* What the guest's code refers to below 1 MiB; free once the loader is done. */
enum { TINY_IDT = 0x7000, TINY_IDTR = 0x6FF0, TINY_STACK = 0x6F00 };

static inline void tiny_bytes(struct tiny *t, const uint8_t *bytes, size_t len)
{
    if (len > TINY_SIZE - t->at)
        return; /* the image ends in zeros: the guest faults, and the test with it */
    memcpy(t->image + t->at, bytes, len);
    t->at += len;
}

#define CODE(t, ...)                                                                               \
    tiny_bytes(t, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static inline void tiny_u32(struct tiny *t, uint32_t v)
{
    CODE(t, (uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24));
}

static inline uint32_t tiny_here(const struct tiny *t)
{
    return (uint32_t)(TINY_BASE + t->at - TINY_CODE);
}

/* mov dword [addr], value */
static inline void tiny_store(struct tiny *t, uint32_t addr, uint32_t value)
{
    CODE(t, 0xC7, 0x05);
    tiny_u32(t, addr);
    tiny_u32(t, value);
}

/* mov dx, port; mov al, value; out dx, al */
static inline void tiny_outb(struct tiny *t, uint16_t port, uint8_t value)
{
    CODE(t, 0x66, 0xBA, (uint8_t)port, (uint8_t)(port >> 8), 0xB0, value, 0xEE);
}

/* mov dx, port; in al, dx */
static inline void tiny_inb(struct tiny *t, uint16_t port)
{
    CODE(t, 0x66, 0xBA, (uint8_t)port, (uint8_t)(port >> 8), 0xEC);
}

static inline void tiny_outw(struct tiny *t, uint16_t port, uint16_t value)
{
    CODE(t, 0x66, 0xBA, (uint8_t)port, (uint8_t)(port >> 8), 0x66, 0xB8, (uint8_t)value,
         (uint8_t)(value >> 8), 0x66, 0xEF);
}

static inline void tiny_print(struct tiny *t, const char *text)
{
    for (; *text != '\0'; text++)
        tiny_outb(t, 0x3F8, (uint8_t)*text);
}

static inline void tiny_stop(struct tiny *t) /* jmp . */
{
    CODE(t, 0xEB, 0xFE);
}

static inline void tiny_reset(struct tiny *t)
{
    tiny_outb(t, 0xCF9, 0x06);
    tiny_stop(t);
}

static inline void tiny_poweroff(struct tiny *t) /* SLP_EN with the type of S5 */
{
    tiny_outw(t, 0x404, 5u << 10 | 1u << 13);
    tiny_stop(t);
}

/* An interrupt gate for code at addr. */
static inline void tiny_gate(struct tiny *t, unsigned vector, uint32_t addr)
{
    tiny_store(t, TINY_IDT + 8 * vector, 0x10u << 16 | (addr & 0xFFFF));
    tiny_store(t, TINY_IDT + 8 * vector + 4, (addr & 0xFFFF0000) | 0x8E00);
}

static inline void tiny_lidt(struct tiny *t)
{
    tiny_store(t, TINY_IDTR, 0x7FF | (TINY_IDT & 0xFFFF) << 16);
    tiny_store(t, TINY_IDTR + 4, 0);
    CODE(t, 0x0F, 0x01, 0x1D);
    tiny_u32(t, TINY_IDTR);
    CODE(t, 0xBC); /* mov esp */
    tiny_u32(t, TINY_STACK);
}

/* ---- the guests ---- */

static inline void tiny_halt(struct tiny *t)
{
    CODE(t, 0xFA, 0xF4); /* cli; hlt */
    tiny_stop(t);
}

static inline void tiny_triple(struct tiny *t) /* ud2, and there is no IDT */
{
    CODE(t, 0x0F, 0x0B);
}

static inline void tiny_panic(struct tiny *t)
{
    tiny_outb(t, 0x505, 1);
    tiny_stop(t);
}

/* A system management interrupt to itself: a mode that is not built. */
static inline void tiny_smi(struct tiny *t)
{
    tiny_store(t, 0xFEE00300, 0x40200);
    tiny_stop(t);
}

/* Nothing answers at this port: all ones, and a reset; anything else spins. */
static inline void tiny_port(struct tiny *t)
{
    tiny_inb(t, 0x5678);
    CODE(t, 0x3C, 0xFF, 0x74, 0x02); /* cmp al, 0xff; je +2 */
    tiny_stop(t);
    tiny_reset(t);
}

/* Reads an MSR that does not exist: a reset if it is zero, a power-off out of #GP. */
static inline void tiny_msr(struct tiny *t)
{
    uint8_t *over;
    uint32_t handler;

    CODE(t, 0xEB, 0); /* jmp over the handler */
    over = t->image + t->at - 1;
    handler = tiny_here(t);
    tiny_print(t, "GP\n");
    tiny_poweroff(t);
    *over = (uint8_t)(t->image + t->at - (over + 1));
    tiny_gate(t, 13, handler);
    tiny_lidt(t);
    CODE(t, 0xB9, 0x45, 0x23, 0x01, 0x00, 0x0F, 0x32); /* mov ecx, 0x12345; rdmsr */
    CODE(t, 0x09, 0xD0, 0x74, 0x02);                   /* or eax, edx; jz +2 */
    tiny_stop(t);
    tiny_reset(t);
}

/* Sleeps in HLT, woken by the PIT at 100 Hz. */
static inline void tiny_idle(struct tiny *t)
{
    uint32_t handler;

    CODE(t, 0xEB, 0x07); /* jmp over the handler */
    handler = tiny_here(t);
    CODE(t, 0x50, 0xB0, 0x20, 0xE6, 0x20, 0x58, 0xCF); /* EOI; iret */
    tiny_gate(t, 0x20, handler);
    tiny_lidt(t);
    tiny_store(t, 0xFEE000F0, 0x1FF); /* APIC on */
    tiny_store(t, 0xFEE00350, 0x700); /* LINT0 takes the PIC's interrupts */
    tiny_outb(t, 0x20, 0x11);
    tiny_outb(t, 0x21, 0x20);
    tiny_outb(t, 0x21, 0x04);
    tiny_outb(t, 0x21, 0x01);
    tiny_outb(t, 0x21, 0xFE);
    tiny_outb(t, 0x43, 0x34);
    tiny_outb(t, 0x40, 0x9C);
    tiny_outb(t, 0x40, 0x2E);
    CODE(t, 0xFB, 0x90, 0x90, 0xF4, 0xEB, 0xFD); /* sti; nop; nop; hlt; jmp to hlt */
}

/* The idle guest, but for proving that it wakes: ten times, then a reset. */
static inline void tiny_ticks(struct tiny *t)
{
    tiny_idle(t);
    t->at -= 6;
    CODE(t, 0xB9, 10, 0, 0, 0, 0xFB, 0x90, 0x90); /* mov ecx, 10; sti; nop; nop */
    CODE(t, 0xF4, 0xE2, 0xFD);                    /* hlt; loop to hlt */
    tiny_reset(t);
}

/* Halts by STI and HLT with an interrupt that waits already: HLT must end by it at once. */
static inline void tiny_late(struct tiny *t)
{
    uint8_t *start, *back;

    tiny_idle(t);
    t->at -= 6;
    start = t->image + t->at;
    tiny_outb(t, 0x20, 0x0A); /* the PIC's requests */
    tiny_inb(t, 0x20);
    CODE(t, 0xA8, 0x01, 0x74, 0); /* test al, 1; jz start */
    back = t->image + t->at - 1;
    *back = (uint8_t)(start - (back + 1));
    CODE(t, 0xFB, 0xF4); /* sti; hlt */
    tiny_reset(t);
}

/* jne -> spin: the value in EAX must be this one. */
static inline void tiny_expect_eax(struct tiny *t, uint32_t value)
{
    CODE(t, 0x3D); /* cmp eax, value */
    tiny_u32(t, value);
    CODE(t, 0x74, 0x02); /* je +2 */
    tiny_stop(t);
}

/* mov eax, [addr] */
static inline void tiny_load(struct tiny *t, uint32_t addr)
{
    CODE(t, 0xA1);
    tiny_u32(t, addr);
}

/*
 * Moves its local APIC to 0xFE000000, finds it there and nowhere else, and halts until its timer
 * interrupts; out of the handler a power-off.
 */
static inline void tiny_apic(struct tiny *t)
{
    uint8_t *over;
    uint32_t handler;

    CODE(t, 0xEB, 0); /* jmp over the handler */
    over = t->image + t->at - 1;
    handler = tiny_here(t);
    tiny_print(t, "tick\n");
    tiny_poweroff(t);
    *over = (uint8_t)(t->image + t->at - (over + 1));
    tiny_gate(t, 0x40, handler);
    tiny_lidt(t);
    CODE(t, 0xB9, 0x1B, 0, 0, 0, 0xB8); /* mov ecx, IA32_APIC_BASE; mov eax */
    tiny_u32(t, 0xFE000900);
    CODE(t, 0x31, 0xD2, 0x0F, 0x30); /* xor edx, edx; wrmsr */
    tiny_load(t, 0xFE000030);
    tiny_expect_eax(t, 0x01050014);
    tiny_load(t, 0xFEE00030);
    tiny_expect_eax(t, 0xFFFFFFFF);
    CODE(t, 0x0F, 0x32); /* rdmsr */
    tiny_expect_eax(t, 0xFE000900);
    tiny_store(t, 0xFE0000F0, 0x1FF);
    tiny_store(t, 0xFE000320, 0x40);
    tiny_store(t, 0xFE000380, 10000);
    CODE(t, 0xFB, 0xF4); /* sti; hlt */
    tiny_stop(t);
}

/* Sends back what comes in, a 'q' too, and ends by a reset after it. */
static inline void tiny_echo(struct tiny *t)
{
    uint8_t *start = t->image + t->at, *back;

    tiny_inb(t, 0x3FD);
    CODE(t, 0xA8, 0x01, 0x74, 0); /* test al, 1; jz start */
    back = t->image + t->at - 1;
    *back = (uint8_t)(start - (back + 1));
    tiny_inb(t, 0x3F8);
    CODE(t, 0xEE, 0x3C, 'q', 0x75, 0); /* out dx, al; cmp al, 'q'; jne start */
    back = t->image + t->at - 1;
    *back = (uint8_t)(start - (back + 1));
    tiny_reset(t);
}

/* A thousand times PAUSE. */
static inline void tiny_pause(struct tiny *t)
{
    CODE(t, 0xB9, 0xE8, 0x03, 0, 0, 0xF3, 0x90, 0xE2, 0xFC); /* pause; loop to it */
    tiny_reset(t);
}

/* 3 MiB of output, more than any buffer on its way holds, then a reset. */
static inline void tiny_flood(struct tiny *t)
{
    CODE(t, 0xB9);
    tiny_u32(t, 3u << 20);
    CODE(t, 0x66, 0xBA, 0xF8, 0x03, 0xB0, 'x', 0xEE, 0xE2, 0xFD); /* out dx, al; loop to it */
    tiny_reset(t);
}

/* Says each time that the power button was pressed, and does nothing about it. */
static inline void tiny_button(struct tiny *t)
{
    uint8_t *start = t->image + t->at, *back;

    tiny_inb(t, 0x401);
    CODE(t, 0xA8, 0x01, 0x74, 0); /* test al, 1; jz start */
    back = t->image + t->at - 1;
    *back = (uint8_t)(start - (back + 1));
    tiny_outb(t, 0x401, 1);
    tiny_print(t, "pressed\n");
    CODE(t, 0xEB, 0);
    back = t->image + t->at - 1;
    *back = (uint8_t)(start - (back + 1));
}

/* Counts down in a loop for some time, says so and halts: work for two VMs at once. */
static inline void tiny_work(struct tiny *t)
{
    CODE(t, 0xB9);
    tiny_u32(t, 20000000);
    CODE(t, 0xE2, 0xFE); /* loop . */
    tiny_print(t, "done\n");
    tiny_reset(t);
}

/* The test device's exit port; a reset if nobody is there. */
static inline void tiny_exit(struct tiny *t)
{
    tiny_outb(t, 0xF4, 0x2A);
    tiny_reset(t);
}

static inline void tiny_say(struct tiny *t, uint16_t port, const char *text)
{
    for (; *text != '\0'; text++)
        tiny_outb(t, port, (uint8_t)*text);
}

/* mov REGISTER, value; the register's number is in the opcode */
static inline void tiny_mov(struct tiny *t, uint8_t opcode, uint32_t value)
{
    CODE(t, opcode);
    tiny_u32(t, value);
}

enum { TINY_ECX = 0xB9, TINY_EDX = 0xBA, TINY_ESI = 0xBE, TINY_EDI = 0xBF };

/*
 * Counts down in 64-bit mode, which the translator takes: additions and a store, in one loop that
 * jumps back. The first 2 MiB are mapped to themselves.
 */
static inline void tiny_long(struct tiny *t)
{
    enum { PML4 = 0x8000, PDPT = 0x9000, PD = 0xA000, GDT = 0x6E00, GDTR = 0x6DF0 };
    uint8_t *start, *back;

    tiny_store(t, PML4, PDPT | 3);
    tiny_store(t, PML4 + 4, 0);
    tiny_store(t, PDPT, PD | 3);
    tiny_store(t, PDPT + 4, 0);
    tiny_store(t, PD, 0x83);
    tiny_store(t, PD + 4, 0);
    tiny_store(t, GDT + 8, 0xFFFF);
    tiny_store(t, GDT + 12, 0xAF9B00);
    tiny_store(t, GDTR, 15 | (GDT & 0xFFFF) << 16);
    tiny_store(t, GDTR + 4, 0);
    CODE(t, 0x0F, 0x01, 0x15); /* lgdt */
    tiny_u32(t, GDTR);
    CODE(t, 0xB8, 0x20, 0, 0, 0, 0x0F, 0x22, 0xE0); /* CR4.PAE */
    CODE(t, 0xB8);
    tiny_u32(t, PML4);
    CODE(t, 0x0F, 0x22, 0xD8, 0xB9); /* mov cr3, eax; mov ecx, IA32_EFER */
    tiny_u32(t, 0xC0000080);
    CODE(t, 0xB8, 0, 1, 0, 0, 0x31, 0xD2, 0x0F, 0x30); /* LME: xor edx, edx; wrmsr */
    CODE(t, 0xB8, 0x31, 0, 0, 0x80, 0x0F, 0x22, 0xC0); /* CR0.PG */
    CODE(t, 0xEA);
    tiny_u32(t, tiny_here(t) + 6);
    CODE(t, 0x08, 0x00);
    tiny_mov(t, TINY_ECX, 20000000);
    start = t->image + t->at;
    CODE(t, 0x01, 0xC8, 0x89, 0x04, 0x25); /* add eax, ecx; mov [0x5000], eax */
    tiny_u32(t, 0x5000);
    CODE(t, 0xFF, 0xC9, 0x75, 0); /* dec ecx; jnz start */
    back = t->image + t->at - 1;
    *back = (uint8_t)(start - (back + 1));
    tiny_print(t, "done\n");
    tiny_reset(t);
}

/* Compares count bytes at ESI and EDI, which it sets; unequal jumps to fail. */
static inline void tiny_same(struct tiny *t, uint32_t a, uint32_t b, uint32_t count, uint32_t fail)
{
    tiny_mov(t, TINY_ESI, a);
    tiny_mov(t, TINY_EDI, b);
    tiny_mov(t, TINY_ECX, count);
    CODE(t, 0x39, 0xC0, 0xF3, 0xA6, 0x0F, 0x85); /* cmp eax, eax; repe cmpsb; jne */
    tiny_u32(t, fail - (tiny_here(t) + 4));
}

/* The test device: text at both ports, string I/O on a latch, string moves on its memory. */
static inline void tiny_testdev(struct tiny *t)
{
    enum { WINDOW = 0xFF000FF1u, OTHER = 0xFF008003u, BUFFER = 0x5000 };
    uint8_t *over;
    uint32_t fail;

    CODE(t, 0xFC, 0xEB, 0); /* cld; jmp over what ends it badly */
    over = t->image + t->at - 1;
    fail = tiny_here(t);
    tiny_outb(t, 0xF4, 1);
    tiny_stop(t);
    *over = (uint8_t)(t->image + t->at - (over + 1));
    tiny_say(t, 0xE9, "text ");
    tiny_say(t, 0xF1, "more\n");
    tiny_inb(t, 0xE9);
    CODE(t, 0x3C, 0xE9, 0x0F, 0x85); /* cmp al, 0xE9; jne */
    tiny_u32(t, fail - (tiny_here(t) + 4));
    tiny_mov(t, TINY_ESI, TINY_BASE);
    tiny_mov(t, TINY_EDI, BUFFER);
    tiny_mov(t, TINY_ECX, 7);
    tiny_mov(t, TINY_EDX, 0xE0);
    CODE(t, 0xF3, 0x6E); /* rep outsb: the last byte stays */
    tiny_mov(t, TINY_ECX, 64);
    CODE(t, 0xF3, 0x6C); /* rep insb: as often as one likes */
    tiny_same(t, BUFFER, BUFFER + 1, 63, fail);
    tiny_same(t, TINY_BASE + 6, BUFFER + 63, 1, fail);
    tiny_mov(t, TINY_ESI, TINY_BASE);
    tiny_mov(t, TINY_EDI, WINDOW);
    tiny_mov(t, TINY_ECX, 64);
    CODE(t, 0xF3, 0xA5); /* rep movsd from memory, over a page's edge */
    tiny_same(t, TINY_BASE, WINDOW, 256, fail);
    tiny_mov(t, TINY_ESI, WINDOW + 2);
    tiny_mov(t, TINY_EDI, OTHER);
    tiny_mov(t, TINY_ECX, 33);
    CODE(t, 0xF3, 0x66, 0xA5); /* rep movsw within */
    tiny_same(t, TINY_BASE + 2, OTHER, 66, fail);
    tiny_exit(t);
}

static const struct {
    const char *name;
    void (*make)(struct tiny *t);
} tiny_guests[] = {
    {"halt", tiny_halt},       {"triple", tiny_triple}, {"reset", tiny_reset},
    {"off", tiny_poweroff},    {"panic", tiny_panic},   {"smi", tiny_smi},
    {"port", tiny_port},       {"msr", tiny_msr},       {"idle", tiny_idle},
    {"ticks", tiny_ticks},     {"late", tiny_late},     {"echo", tiny_echo},
    {"flood", tiny_flood},     {"button", tiny_button}, {"work", tiny_work},
    {"pause", tiny_pause},     {"spin", tiny_stop},     {"exit", tiny_exit},
    {"testdev", tiny_testdev}, {"apic", tiny_apic},     {"long", tiny_long},
};

static inline void tiny_put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

/* The setup header of an image that is TINY_SIZE long. */
static inline void tiny_header(uint8_t *image, unsigned version)
{
    memset(image, 0, TINY_SIZE);
    image[0x1F1] = TINY_CODE / 512 - 1;
    tiny_put16(image + 0x1F4, (TINY_SIZE - TINY_CODE) / 16);
    tiny_put16(image + 0x1FE, 0xAA55);
    image[0x201] = 0x66; /* the header ends at 0x268 */
    memcpy(image + 0x202, "HdrS", 4);
    tiny_put16(image + 0x206, version);
    image[0x211] = 1;               /* loaded high */
    memset(image + 0x22C, 0xFF, 4); /* an initrd may be anywhere */
    image[0x22F] = 0x7F;
    tiny_put16(image + 0x238, 255); /* characters of the command line */
}

static inline bool tiny_guest(const char *name, uint8_t image[TINY_SIZE])
{
    for (size_t i = 0; i < sizeof(tiny_guests) / sizeof(tiny_guests[0]); i++) {
        struct tiny t = {image, TINY_CODE};

        if (strcmp(tiny_guests[i].name, name) != 0)
            continue;
        tiny_header(image, 0x0206);
        tiny_outb(&t, 0x3FB, 3); /* bytes of 8 bits */
        tiny_print(&t, name);
        tiny_print(&t, "\n");
        tiny_guests[i].make(&t);
        return true;
    }
    return false;
}

#endif
