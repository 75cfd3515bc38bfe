/*
 * The software CPU's modes and faults: harness and main. `system [--interpret] [GROUP]` runs one
 * group, without translated code if so asked; every failed check is printed with its name.
 */
#include "system.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "host/clock.h"

static unsigned checks, failures;
static bool interpret;

void expect(const char *name, uint64_t got, uint64_t want)
{
    checks++;
    if (got == want)
        return;
    failures++;
    printf("FAIL %s: %#llx, expected %#llx\n", name, (unsigned long long)got,
           (unsigned long long)want);
}

unsigned expect_count(unsigned *failed)
{
    *failed = failures;
    return checks;
}

/* ---- memory ---- */

void m_write(struct machine *m, uint64_t gpa, const void *p, size_t len)
{
    if (gmem_write(m->env.mem, gpa, p, len) < 0)
        abort();
}

void m_put64(struct machine *m, uint64_t gpa, uint64_t v)
{
    m_write(m, gpa, &v, 8);
}

void m_put32(struct machine *m, uint64_t gpa, uint32_t v)
{
    m_write(m, gpa, &v, 4);
}

void m_put16(struct machine *m, uint64_t gpa, uint16_t v)
{
    m_write(m, gpa, &v, 2);
}

uint64_t m_get64(struct machine *m, uint64_t gpa)
{
    return gmem_read64(m->env.mem, gpa);
}

uint32_t m_get32(struct machine *m, uint64_t gpa)
{
    return gmem_read32(m->env.mem, gpa);
}

/* ---- tables ---- */

static bool users_page(uint64_t pa)
{
    return (pa >= A_USTACK - 0x1000 && pa < A_USTACK) ||
           (pa >= A_UCODE && pa < A_UCODE + 0x10000) || (pa >= A_UDATA && pa < A_UDATA + 0x2000);
}

static uint64_t page_flags(uint64_t pa)
{
    return PTE_P | PTE_W | (users_page(pa) ? PTE_U : 0);
}

static void make_paging(struct machine *m)
{
    uint64_t upper = PTE_P | PTE_W | PTE_U, i;

    m_put64(m, A_PML4, A_PDPT | upper);
    m_put64(m, A_PDPT, A_PD | upper);
    m_put64(m, A_PD, A_PT | upper);
    for (i = 1; i < 16; i++)
        m_put64(m, A_PD + 8 * i, i << 21 | upper | PTE_PS);
    for (i = 0; i < 512; i++)
        m_put64(m, A_PT + 8 * i, i << 12 | page_flags(i << 12));
    /* MMIO at its own address by a 2 MiB page */
    m_put64(m, A_PDPT + 8 * 3, A_PDPAE | upper);
    m_put64(m, A_PDPAE + 8 * ((A_MMIO >> 21) & 511), A_MMIO | PTE_P | PTE_W | PTE_PS);

    m_put32(m, A_PD32, A_PT32 | (uint32_t)upper);
    for (i = 1; i < 8; i++)
        m_put32(m, A_PD32 + 4 * i, (uint32_t)(i << 22 | upper | PTE_PS));
    for (i = 0; i < 1024; i++)
        m_put32(m, A_PT32 + 4 * i, (uint32_t)(i << 12 | page_flags(i << 12)));
    m_put64(m, A_PTRS, A_PD | PTE_P);
    for (i = 1; i < 4; i++)
        m_put64(m, A_PTRS + 8 * i, 0);
}

void m_desc(struct machine *m, unsigned sel, uint64_t desc)
{
    m_put64(m, A_GDT + (sel & 0xfff8u), desc);
}

static void make_descriptors(struct machine *m, bool lma)
{
    m_desc(m, 0, 0);
    m_desc(m, S_CODE64, 0x00af9b000000ffffull);
    m_desc(m, S_DATA, 0x00cf93000000ffffull);
    m_desc(m, S_CODE32, 0x00cf9b000000ffffull);
    m_desc(m, S_UCODE32, 0x00cffb000000ffffull);
    m_desc(m, S_UDATA, 0x00cff3000000ffffull);
    m_desc(m, S_UCODE64, 0x00affb000000ffffull);
    m_desc(m, S_CODE16, 0x00009b000000ffffull);
    m_desc(m, S_DATA16, 0x000093000000ffffull);
    m_desc(m, S_CONF64, 0x00af9f000000ffffull);
    m_desc(m, S_CONF32, 0x00cf9f000000ffffull);
    m_desc(m, S_ABSENT, 0x00cf13000000ffffull);
    m_desc(m, S_TSS, 0x00008b0000000fffull | (uint64_t)A_TSS << 16);
    m_desc(m, S_TSS + 8, 0);
    m_desc(m, S_GATE, 0);
    m_desc(m, S_GATE + 8, 0);
    m_desc(m, S_FREE, 0);
    m_desc(m, S_FREE + 8, 0);
    gmem_fill(m->env.mem, A_TSS, 0, 0x68);
    gmem_fill(m->env.mem, A_TSS + 0x68, 0xff, 0x1000 - 0x68);
    if (lma) {
        m_put64(m, A_TSS + 4, A_STACK);
        m_put64(m, A_TSS + 0x24, A_IST);
    } else {
        m_put32(m, A_TSS + 4, A_STACK);
        m_put32(m, A_TSS + 8, S_DATA);
    }
    m_put16(m, A_TSS + 0x66, 0x68);
}

static bool is_long(const struct machine *m)
{
    return (m->st.efer & X86_EFER_LMA) != 0;
}

static void put_gate(struct machine *m, unsigned vector, uint64_t to, uint16_t sel, unsigned type,
                     unsigned ist)
{
    uint64_t low = (to & 0xffff) | (uint64_t)sel << 16 | (uint64_t)ist << 32 |
                   (uint64_t)type << 40 | (to >> 16 & 0xffff) << 48;

    if (is_long(m)) {
        m_put64(m, A_IDT + 16 * vector, low);
        m_put64(m, A_IDT + 16 * vector + 8, to >> 32);
    } else {
        m_put64(m, A_IDT + 8 * vector, low);
    }
}

void m_gate(struct machine *m, unsigned vector, uint16_t sel, unsigned type_p_dpl, unsigned ist)
{
    put_gate(m, vector, A_HANDLERS + 16 * vector, sel, type_p_dpl, ist);
}

void m_gate_to(struct machine *m, unsigned vector, uint64_t to)
{
    put_gate(m, vector, to, is_long(m) ? S_CODE64 : S_CODE32, 0xee, 0);
}

static void make_idt(struct machine *m)
{
    for (unsigned v = 0; v < 256; v++)
        m_gate(m, v, is_long(m) ? S_CODE64 : S_CODE32, v == 3 || v == 4 || v == 0x80 ? 0xee : 0x8e,
               0);
}

void m_pte(struct machine *m, uint64_t va, uint64_t flags)
{
    if ((m->st.cr4 & X86_CR4_PAE) || is_long(m))
        m_put64(m, A_PT + 8 * (va >> 12), (va & ~0xfffull) | flags);
    else
        m_put32(m, A_PT32 + (uint32_t)(4 * (va >> 12)), (uint32_t)((va & ~0xfffull) | flags));
}

/* ---- states ---- */

static void flat(struct x86_segment *s, uint16_t sel, uint32_t attr)
{
    *s = (struct x86_segment){.selector = sel, .attr = attr, .limit = UINT32_MAX};
}

static void fresh(struct machine *m)
{
    struct x86_state *st = &m->st;

    x86_state_reset(st, true);
    gmem_fill(m->env.mem, 0, 0, 0x100000);
    gmem_fill(m->env.mem, A_HANDLERS, 0xf4, 0x1000);
    make_paging(m);
    st->gdtr = (struct x86_dtable){.base = A_GDT, .limit = 0x8f};
    st->ldtr = (struct x86_segment){.attr = X86_SEG_UNUSABLE};
    st->gpr[X86_RSP] = A_STACK;
    st->rip = A_CODE;
    st->cr0 = X86_CR0_ET | X86_CR0_NE | X86_CR0_MP;
    m->irq = -1;
    m->acks = 0;
    m->mmio_count = m->port_reads = 0;
    m->budget = 20000;
}

static void data_segments(struct x86_state *st, uint16_t sel, uint32_t attr)
{
    flat(&st->seg[X86_DS], sel, attr);
    flat(&st->seg[X86_ES], sel, attr);
    flat(&st->seg[X86_SS], sel, attr);
    flat(&st->seg[X86_FS], sel, attr);
    flat(&st->seg[X86_GS], sel, attr);
}

void m_long(struct machine *m)
{
    struct x86_state *st = &m->st;

    fresh(m);
    st->cr0 |= X86_CR0_PE | X86_CR0_PG | X86_CR0_WP;
    st->cr3 = A_PML4;
    st->cr4 = X86_CR4_PAE | X86_CR4_PGE | X86_CR4_OSFXSR | X86_CR4_OSXSAVE;
    st->efer = X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
    flat(&st->seg[X86_CS], S_CODE64, 0xa09b);
    data_segments(st, S_DATA, 0xc093);
    st->tr = (struct x86_segment){.selector = S_TSS, .attr = 0x8b, .limit = 0xfff, .base = A_TSS};
    st->idtr = (struct x86_dtable){.base = A_IDT, .limit = 0xfff};
    st->star = (uint64_t)0x20 << 48 | (uint64_t)S_CODE64 << 32;
    make_descriptors(m, true);
    make_idt(m);
}

void m_protected(struct machine *m)
{
    struct x86_state *st = &m->st;

    fresh(m);
    st->cr0 |= X86_CR0_PE | X86_CR0_WP;
    flat(&st->seg[X86_CS], S_CODE32, 0xc09b);
    data_segments(st, S_DATA, 0xc093);
    st->tr = (struct x86_segment){.selector = S_TSS, .attr = 0x8b, .limit = 0xfff, .base = A_TSS};
    st->idtr = (struct x86_dtable){.base = A_IDT, .limit = 0x7ff};
    make_descriptors(m, false);
    make_idt(m);
}

void m_real(struct machine *m)
{
    struct x86_state *st = &m->st;

    fresh(m);
    make_descriptors(m, false);
    make_idt(m);
    for (unsigned v = 0; v < 256; v++)
        m_put32(m, 4 * v, A_HANDLERS << 12 | 16 * v);
    for (unsigned i = 0; i < X86_SEG_COUNT; i++)
        st->seg[i] = (struct x86_segment){
            .selector = A_DATA >> 4, .attr = 0x93, .limit = 0xffff, .base = A_DATA};
    st->seg[X86_CS].selector = A_CODE >> 4;
    st->seg[X86_CS].base = A_CODE;
    st->seg[X86_SS].selector = (A_STACK - 0x1000) >> 4;
    st->seg[X86_SS].base = A_STACK - 0x1000;
    st->gpr[X86_RSP] = 0x1000;
    st->rip = 0;
    st->idtr = (struct x86_dtable){.base = 0, .limit = 0x3ff};
}

void m_user(struct machine *m)
{
    struct x86_state *st = &m->st;

    if (is_long(m))
        flat(&st->seg[X86_CS], S_UCODE64, 0xa0fb);
    else
        flat(&st->seg[X86_CS], S_UCODE32, 0xc0fb);
    data_segments(st, S_UDATA, 0xc0f3);
    st->gpr[X86_RSP] = A_USTACK;
    st->rip = A_UCODE;
}

void m_paging32(struct machine *m)
{
    m->st.cr3 = A_PD32;
    m->st.cr4 |= X86_CR4_PSE | X86_CR4_PGE;
    m->st.cr0 |= X86_CR0_PG;
}

void m_pae(struct machine *m)
{
    m->st.cr3 = A_PTRS;
    m->st.cr4 |= X86_CR4_PAE | X86_CR4_PGE;
    m->st.efer |= X86_EFER_NXE;
    m->st.cr0 |= X86_CR0_PG;
    m->st.pdptr[0] = A_PD | PTE_P;
}

void m_copy_tables(struct machine *m, uint64_t to)
{
    static const uint64_t from[4] = {A_PML4, A_PDPT, A_PD, A_PT};

    for (unsigned i = 0; i < 4; i++) {
        for (unsigned k = 0; k < 512; k++)
            m_put64(m, to + 0x1000 * i + 8 * k, m_get64(m, from[i] + 8 * k));
        if (i > 0)
            m_put64(m, to + 0x1000 * (i - 1), (to + 0x1000 * i) | PTE_P | PTE_W | PTE_U);
    }
}

/* ---- running ---- */

int m_resume(struct machine *m)
{
    uint64_t lin;

    memset(&m->exit, 0, sizeof(m->exit));
    engine_soft.run(m->vcpu, m->budget, &m->exit);
    engine_soft.get(m->vcpu, &m->st);
    if (m->exit.reason == VCPU_EXIT_SHUTDOWN)
        return SHUT_DOWN;
    if (m->exit.reason == VCPU_EXIT_FAIL)
        return FAILED;
    lin = (m->st.seg[X86_CS].attr & X86_SEG_L ? 0 : m->st.seg[X86_CS].base) + m->st.rip - 1;
    if (m->exit.reason != VCPU_EXIT_HLT || lin < A_HANDLERS || lin >= A_HANDLERS + 0x1000)
        return RAN_ON;
    return (int)(lin - A_HANDLERS) / 16;
}

int m_run(struct machine *m)
{
    struct error err = {0};

    if (engine_soft.set(m->vcpu, &m->st, &err) < 0)
        return FAILED;
    return m_resume(m);
}

/* ---- code without an end ---- */

struct kicker {
    struct machine *m;
    const char *name;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done;
};

/* Kicks after a while; whoever runs on long after is stuck, and with it this test. */
static void *kick_thread(void *p)
{
    struct kicker *k = p;
    struct timespec until;

    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    engine_soft.kick(k->m->vcpu);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    pthread_mutex_lock(&k->lock);
    while (!k->done) {
        if (pthread_cond_timedwait(&k->cond, &k->lock, &until) != 0 && !k->done) {
            printf("FAIL %s: still running ten seconds after kick()\n", k->name);
            fflush(stdout);
            _Exit(1);
        }
    }
    pthread_mutex_unlock(&k->lock);
    return NULL;
}

void expect_kick_ends(struct machine *m, const char *name)
{
    struct kicker k = {.m = m, .name = name};
    pthread_t thread;

    pthread_mutex_init(&k.lock, NULL);
    pthread_cond_init(&k.cond, NULL);
    if (pthread_create(&thread, NULL, kick_thread, &k) != 0)
        abort();
    m_run(m);
    pthread_mutex_lock(&k.lock);
    k.done = true;
    pthread_cond_signal(&k.cond);
    pthread_mutex_unlock(&k.lock);
    pthread_join(thread, NULL);
    pthread_cond_destroy(&k.cond);
    pthread_mutex_destroy(&k.lock);
    expect(name, m->exit.reason, VCPU_EXIT_INTERRUPTED);
}

enum vcpu_exit_reason m_run_other(struct machine *m, const struct x86_state *st)
{
    struct vcpu_exit exit = {.reason = VCPU_EXIT_FAIL};
    struct error err = {0};

    if (st != NULL && engine_soft.set(m->other, st, &err) < 0)
        return VCPU_EXIT_FAIL;
    engine_soft.run(m->other, m->budget, &exit);
    return exit.reason;
}

static unsigned slot_size(const struct machine *m)
{
    return is_long(m) ? 8 : m->st.cr0 & X86_CR0_PE ? 4 : 2;
}

static int last_vector(const struct machine *m)
{
    uint64_t lin = (m->st.seg[X86_CS].attr & X86_SEG_L ? 0 : m->st.seg[X86_CS].base) + m->st.rip;

    if (m->exit.reason == VCPU_EXIT_SHUTDOWN)
        return SHUT_DOWN;
    if (m->exit.reason == VCPU_EXIT_FAIL)
        return FAILED;
    if (m->exit.reason != VCPU_EXIT_HLT || lin <= A_HANDLERS || lin > A_HANDLERS + 0x1000)
        return RAN_ON;
    return (int)(lin - 1 - A_HANDLERS) / 16;
}

static bool has_error(const struct machine *m)
{
    int v = last_vector(m);

    return (m->st.cr0 & X86_CR0_PE) && (v == 8 || (v >= 10 && v <= 14) || v == 17);
}

static uint64_t stack_slot(struct machine *m, unsigned slot)
{
    unsigned n = slot_size(m);
    uint64_t v = 0, base = is_long(m) ? 0 : m->st.seg[X86_SS].base;

    gmem_read(m->env.mem, base + m->st.gpr[X86_RSP] + slot * n, &v, n);
    return v;
}

uint64_t m_frame(struct machine *m, unsigned slot)
{
    return stack_slot(m, slot + has_error(m));
}

uint32_t m_error(struct machine *m)
{
    return (uint32_t)stack_slot(m, 0);
}

void expect_event(struct machine *m, const char *name, int vector, int64_t error, uint64_t rip)
{
    int got = last_vector(m);
    int64_t code = has_error(m) ? (int64_t)m_error(m) : NO_ERROR;
    uint64_t at = got >= 0 ? m_frame(m, 0) : m->st.rip;

    checks++;
    if (got == vector && (vector < 0 || code == error) && (rip == ANY_RIP || rip == at))
        return;
    failures++;
    printf("FAIL %s: vector %d error %#llx rip %#llx, expected %d %#llx %#llx (cr2 %#llx) %s\n",
           name, got, (unsigned long long)code, (unsigned long long)at, vector,
           (unsigned long long)error, (unsigned long long)rip, (unsigned long long)m->st.cr2,
           m->exit.reason == VCPU_EXIT_FAIL ? m->exit.text : "");
}

void expect_pf(struct machine *m, const char *name, uint32_t error, uint64_t cr2)
{
    int got = last_vector(m);

    checks++;
    if (got == X86_EXC_PF && m_error(m) == error && m->st.cr2 == cr2)
        return;
    failures++;
    printf("FAIL %s: vector %d error %#x cr2 %#llx, expected #PF %#x %#llx\n", name, got,
           got >= 0 ? m_error(m) : 0, (unsigned long long)m->st.cr2, error,
           (unsigned long long)cr2);
}

/* ---- surroundings: a local APIC that holds one vector, MMIO and a port that remember ---- */

static bool apic_pending(void *ctx, unsigned cpu)
{
    struct machine *m = ctx;

    (void)cpu;
    return m->irq >= 0;
}

static int apic_ack(void *ctx, unsigned cpu)
{
    struct machine *m = ctx;
    int v = m->irq;

    (void)cpu;
    m->irq = -1;
    m->acks++;
    return v;
}

static int apic_msr_read(void *ctx, unsigned cpu, uint32_t msr, uint64_t *value)
{
    (void)ctx;
    (void)cpu;
    *value = 0;
    return msr == 0x1b ? 0 : -1;
}

static int apic_msr_write(void *ctx, unsigned cpu, uint32_t msr, uint64_t value)
{
    (void)ctx;
    (void)cpu;
    (void)msr;
    (void)value;
    return -1;
}

static uint8_t apic_get_cr8(void *ctx, unsigned cpu)
{
    (void)ctx;
    (void)cpu;
    return 0;
}

static void apic_set_cr8(void *ctx, unsigned cpu, uint8_t value)
{
    (void)ctx;
    (void)cpu;
    (void)value;
}

static const struct lapic_cpu_ops apic_ops = {
    .pending = apic_pending,
    .ack = apic_ack,
    .msr_read = apic_msr_read,
    .msr_write = apic_msr_write,
    .get_cr8 = apic_get_cr8,
    .set_cr8 = apic_set_cr8,
};

static uint64_t mmio_read(void *ctx, uint64_t offset, unsigned size)
{
    struct machine *m = ctx;

    m->mmio_addr = offset;
    m->mmio_size = size;
    m->mmio_count++;
    return 0x1122334455667788ull;
}

static void mmio_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct machine *m = ctx;

    m->mmio_addr = offset;
    m->mmio_size = size;
    m->mmio_value = value;
    m->mmio_count++;
}

/* Every byte read is the next number; a write to A_PORT posts that vector. */
static uint64_t port_read(void *ctx, uint64_t offset, unsigned size)
{
    struct machine *m = ctx;

    (void)offset;
    (void)size;
    return ++m->port_reads;
}

static void port_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct machine *m = ctx;

    (void)size;
    if (offset == 0) {
        m->irq = (int)value & 0xff;
        engine_soft.interrupt(m->vcpu);
    } else if (offset == 1) {
        engine_soft.nmi(m->vcpu);
    } else if (offset == 2) { /* as a disk's DMA would: over the first byte of A_TEST */
        uint8_t byte = (uint8_t)value;

        m_write(m, A_TEST, &byte, 1);
    }
}

static const struct bus_ops mmio_ops = {mmio_read, mmio_write};
static const struct bus_ops port_ops = {port_read, port_write};

static void count_ferr(void *ctx, unsigned cpu)
{
    struct machine *m = ctx;

    (void)cpu;
    m->ferr++;
}

struct machine *m_create(const struct x86_cpu_options *options)
{
    struct machine *m = calloc(1, sizeof(*m));
    struct bus_region mmio = {.base = A_MMIO, .len = 0x2000, .ops = &mmio_ops, .name = "mmio"};
    struct bus_region port = {.base = A_PORT, .len = 16, .ops = &port_ops, .name = "port"};
    struct error err = {0};

    if (m == NULL || x86_cpuid_create(&m->cpuid, "host", options, NSEC_PER_SEC, &err) < 0)
        return NULL;
    mmio.ctx = port.ctx = m;
    m->env.cpuid = &m->cpuid;
    m->env.cpus = 2;
    m->env.strict_io = true;
    m->env.strict_msr = true;
    m->env.interpret = interpret;
    m->env.ferr = count_ferr;
    m->env.ferr_ctx = m;
    m->env.log = log_create(2, LOG_ERROR);
    m->env.mem = gmem_create(RAM_SIZE, &err);
    m->env.bus = bus_create(m->env.log);
    m->env.irqs = irq_router_create(m->env.log);
    m->env.lapic = &apic_ops;
    m->env.lapic_ctx = m;
    if (m->env.mem == NULL || bus_map(m->env.bus, BUS_MMIO, &mmio, &err) < 0 ||
        bus_map(m->env.bus, BUS_PIO, &port, &err) < 0 ||
        engine_soft.vm_create(&m->env, &m->vm, &err) < 0 ||
        engine_soft.vcpu_create(m->vm, 0, &m->vcpu, &err) < 0 ||
        engine_soft.vcpu_create(m->vm, 1, &m->other, &err) < 0) {
        fprintf(stderr, "system: %s\n", err.text);
        return NULL;
    }
    return m;
}

void m_destroy(struct machine *m)
{
    engine_soft.vcpu_destroy(m->other);
    engine_soft.vcpu_destroy(m->vcpu);
    engine_soft.vm_destroy(m->vm);
    irq_router_destroy(m->env.irqs);
    bus_destroy(m->env.bus);
    gmem_destroy(m->env.mem);
    log_destroy(m->env.log);
    free(m);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(struct machine *m);
    } groups[] = {
        {"paging", test_paging},
        {"events", test_events},
        {"transfers", test_transfers},
        {"modes", test_modes},
        {"registers", test_registers},
        {"debug", test_debug},
        {"memory", test_memory},
        {"tasks", test_tasks},
        {"keys", test_keys},
        {"la57", test_la57},
        {"vme", test_vme},
        {"protection", test_protection},
        {"jit", test_jit},
        {"loops", test_loops},
        {"links", test_links},
    };
    unsigned failed, count;
    struct machine *m;

    if (argc > 1 && strcmp(argv[1], "--interpret") == 0) {
        interpret = true;
        argc--;
        argv++;
    }
    m = m_create(NULL);
    if (m == NULL)
        return 1;
    for (unsigned i = 0; i < countof(groups); i++) {
        if (argc < 2 || strcmp(argv[1], groups[i].name) == 0)
            groups[i].run(m);
    }
    m_destroy(m);
    count = expect_count(&failed);
    printf("%u checks, %u failed\n", count, failed);
    return failed != 0;
}
