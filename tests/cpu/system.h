/*
 * Tests of the software CPU's modes and faults: a machine with known tables, code fragments written
 * beside the check that runs them, and expectations with names. Single-threaded
 * but for a thread that kicks.
 *
 * A fragment is assembled in place by CODE(name, bits, "...") and copied into guest RAM by LOAD.
 * Every vector's handler is a HLT whose address tells the vector, so what a fragment raised and the
 * frame it pushed can be read afterwards; fragments that end well end with INT 0x80.
 */
#ifndef TESTS_CPU_SYSTEM_H
#define TESTS_CPU_SYSTEM_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/bits.h"
#include "bus/bus.h"
#include "bus/irq.h"
#include "engine/engine.h"
#include "mem/gmem.h"
#include "x86/state.h"

extern const struct engine_ops engine_soft;

#define STR_(x) #x
#define STR(x) STR_(x)

#define CODE(name, bits, text)                                                                     \
    __asm__(".pushsection .rodata\n.code" #bits "\n" #name ":\n" text "\n" #name                   \
            "_end:\n.code64\n.popsection\n");                                                      \
    extern const uint8_t name[], name##_end[]
#define LOAD(m, gpa, name) m_write(m, gpa, name, (size_t)(name##_end - (name)))
#define DONE "int $0x80\n"

/* guest-physical addresses, mapped one to one where a mode has paging */
#define A_PML4 0x1000
#define A_PDPT 0x2000
#define A_PD 0x3000
#define A_PT 0x4000
#define A_PD32 0x5000
#define A_PT32 0x6000
#define A_PDPAE 0x7000 /* the fourth GiB's directory, for MMIO */
#define A_HANDLERS 0x8000
#define A_GDT 0x9000
#define A_LDT 0x9800
#define A_TSS 0xa000
#define A_IDT 0xb000
#define A_STACK 0xd000  /* top */
#define A_IST 0xe000    /* top */
#define A_USTACK 0xf000 /* top */
#define A_CODE 0x10000
#define A_UCODE 0x20000
#define A_DATA 0x30000  /* a supervisor's page, another after it */
#define A_UDATA 0x32000 /* a user's page, another after it */
#define A_TEST 0x40000  /* the page whose entry tests change; another after it */
#define A_PTRS 0x60000  /* PAE's four pointers */
#define A_BIG 0x400000  /* inside large pages: 2 MiB (PAE, long) and 4 MiB (32-bit) */
#define A_MMIO 0xd0000000
#define A_PORT 0x500
#define A_STOP 0x600 /* a port that nothing claims: an exit, after which one can go on */
#define RAM_SIZE 0x2000000

#define S_CODE64 0x08
#define S_DATA 0x10
#define S_CODE32 0x18
#define S_UCODE32 0x23
#define S_UDATA 0x2b
#define S_UCODE64 0x33
#define S_CODE16 0x38
#define S_TSS 0x40
#define S_DATA16 0x50
#define S_CONF64 0x58
#define S_CONF32 0x60
#define S_ABSENT 0x68
#define S_GATE 0x70 /* with its upper half */
#define S_FREE 0x80 /* with an upper half */

#define PTE_P 1ull
#define PTE_W 2ull
#define PTE_U 4ull
#define PTE_A 0x20ull
#define PTE_D 0x40ull
#define PTE_PS 0x80ull
#define PTE_G 0x100ull
#define PTE_NX (1ull << 63)

#define NO_ERROR (-1)
#define ANY_RIP UINT64_MAX

enum { RAN_ON = -1, SHUT_DOWN = -2, FAILED = -3 };

struct machine {
    struct x86_cpuid cpuid;
    struct engine_env env;
    struct x86_state st;
    struct vcpu_exit exit;
    void *vm, *vcpu, *other; /* a second processor, in the state it was given */
    uint64_t budget;
    int irq; /* vector that waits in the local APIC; -1: none */
    unsigned acks;
    uint64_t mmio_addr; /* the last access's */
    unsigned mmio_size, mmio_count;
    uint64_t mmio_value;
    unsigned port_reads;
    unsigned ferr; /* how often FERR# was driven */
};

/* ---- harness ---- */

/* NULL on an error, which is printed. options may be NULL. */
struct machine *m_create(const struct x86_cpu_options *options);
void m_destroy(struct machine *m);
/* Fresh tables and state: 64-bit CPL 0, flat 32-bit CPL 0 without paging, real mode. */
void m_long(struct machine *m);
void m_protected(struct machine *m);
void m_real(struct machine *m);
/* From m_long or m_protected: the state is that of CPL 3 at A_UCODE. */
void m_user(struct machine *m);
/* From m_protected: 32-bit or PAE paging, on or about to be. */
void m_paging32(struct machine *m);
void m_pae(struct machine *m);

void m_write(struct machine *m, uint64_t gpa, const void *p, size_t len);
void m_put64(struct machine *m, uint64_t gpa, uint64_t v);
/* Of m_long's four tables a second set, from that address on. */
void m_copy_tables(struct machine *m, uint64_t to);
void m_put32(struct machine *m, uint64_t gpa, uint32_t v);
void m_put16(struct machine *m, uint64_t gpa, uint16_t v);
uint64_t m_get64(struct machine *m, uint64_t gpa);
uint32_t m_get32(struct machine *m, uint64_t gpa);
/* Flags of the 4 KiB entry of a low address, under the paging in force. */
void m_pte(struct machine *m, uint64_t va, uint64_t flags);
void m_desc(struct machine *m, unsigned sel, uint64_t desc);
/* An IDT gate to the usual handler of that vector: type as in the descriptor, DPL, IST. */
void m_gate(struct machine *m, unsigned vector, uint16_t sel, unsigned type_p_dpl, unsigned ist);
void m_gate_to(struct machine *m, unsigned vector, uint64_t to);

/* Sets m->st, runs to an exit, gets the state. Returns the vector or one of the enum above. */
int m_run(struct machine *m);
/* The second processor from this state (NULL: goes on) to its exit. */
enum vcpu_exit_reason m_run_other(struct machine *m, const struct x86_state *st);
/* Goes on without setting the state. */
int m_resume(struct machine *m);

/* The frame on the handler's stack. slot 0 is RIP. */
uint64_t m_frame(struct machine *m, unsigned slot);
uint32_t m_error(struct machine *m);

/* ---- expectations: each is one check with a name ---- */

void expect(const char *name, uint64_t got, uint64_t want);
/* vector, error code (NO_ERROR: none), saved RIP (or ANY_RIP) of the last run */
void expect_event(struct machine *m, const char *name, int vector, int64_t error, uint64_t rip);
void expect_pf(struct machine *m, const char *name, uint32_t error, uint64_t cr2);
/* Code without an end, ready in m: a kick from another thread ends it. Else so does the program. */
void expect_kick_ends(struct machine *m, const char *name);
unsigned expect_count(unsigned *failed);

/* ---- groups ---- */

void test_paging(struct machine *m);
void test_events(struct machine *m);
void test_transfers(struct machine *m);
void test_modes(struct machine *m);
void test_debug(struct machine *m);
void test_registers(struct machine *m);
void test_memory(struct machine *m);
void test_tasks(struct machine *m);
void test_keys(struct machine *m);
void test_la57(struct machine *m);
void test_vme(struct machine *m);
void test_protection(struct machine *m);
void test_jit(struct machine *m);
void test_loops(struct machine *m);
void test_links(struct machine *m);

#endif
