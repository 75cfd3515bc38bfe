/* What the runtime's files share; images include bare.h. */
#ifndef TESTS_CPU_BARE_LIB_H
#define TESTS_CPU_BARE_LIB_H

#include "bare.h"

extern struct cpu bare_cpu;
extern const uint8_t bare_stubs[]; /* 256 of 16 bytes */
void bare_enter(void);
void bare_main(void);
_Noreturn void bare_unexpected(void);

/* GDTR and TR from gdt and its descriptor S_TSS. */
void bare_load_gdt(void);
void bare_copy(void *to, const void *from, size_t len);
void *memcpy(void *restrict to, const void *restrict from, size_t len);
void *memset(void *to, int value, size_t len);

/* ---- of the mode ---- */

void bare_setup(void);

#endif
