/* The small guest of the conformance script. */
#include "conform.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "host/memory.h"

void say(struct conform *c, const char *what, const char *fmt, ...)
{
    va_list ap;

    fprintf(c->out, "%s: %s: ", c->step, what);
    va_start(ap, fmt);
    vfprintf(c->out, fmt, ap);
    va_end(ap);
    fputc('\n', c->out);
}

const char *result_name(int rc)
{
    static const struct {
        int rc;
        const char *name;
    } names[] = {
        {0, "0"},
        {1, "1"},
        {-EBADF, "-EBADF"},
        {-EINVAL, "-EINVAL"},
        {-ENOTTY, "-ENOTTY"},
        {-EEXIST, "-EEXIST"},
        {-ENOENT, "-ENOENT"},
        {-EINTR, "-EINTR"},
        {-EAGAIN, "-EAGAIN"},
        {-E2BIG, "-E2BIG"},
        {-EFAULT, "-EFAULT"},
        {-ENXIO, "-ENXIO"},
        {-EBUSY, "-EBUSY"},
        {-ENOMEM, "-ENOMEM"},
        {-ENOSPC, "-ENOSPC"},
    };

    for (unsigned i = 0; i < countof(names); i++) {
        if (names[i].rc == rc)
            return names[i].name;
    }
    return rc < 0 ? "another error" : "another number";
}

void say_result(struct conform *c, const char *what, int rc)
{
    say(c, what, "%s", result_name(rc));
}

int call_n(struct conform *c, int fd, unsigned long request, uintptr_t arg)
{
    return c->sys->ioctl(c->sys->ctx, fd, request, arg);
}

int call(struct conform *c, int fd, unsigned long request, const void *arg)
{
    return call_n(c, fd, request, (uintptr_t)arg);
}

/* ---- the guest ---- */

void box_cpuid(struct conform *c, int cpu)
{
    struct kvm_cpuid2 *list = calloc(1, sizeof(*list) + 256 * sizeof(list->entries[0]));

    if (list == NULL)
        return;
    list->nent = 256;
    if (call(c, c->kvm, KVM_GET_SUPPORTED_CPUID, list) < 0 ||
        call(c, cpu, KVM_SET_CPUID2, list) < 0)
        say(c, "CPUID", "cannot be set");
    free(list);
}

static int split_irqchip(struct conform *c, int vm)
{
    struct kvm_enable_cap cap = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {24}};

    return call(c, vm, KVM_ENABLE_CAP, &cap);
}

bool box_open(struct conform *c, struct box *b, bool split)
{
    struct kvm_userspace_memory_region r = {.memory_size = BOX_RAM};

    memset(b, 0, sizeof(*b));
    b->c = c;
    b->ram = host_memory_alloc(BOX_RAM, NULL);
    b->vm = call_n(c, c->kvm, KVM_CREATE_VM, 0);
    r.userspace_addr = (uintptr_t)b->ram;
    if (b->ram == NULL || b->vm < 0 || (split && split_irqchip(c, b->vm) < 0) ||
        call_n(c, b->vm, KVM_SET_TSS_ADDR, 0xfffbd000) < 0 ||
        call(c, b->vm, KVM_SET_USER_MEMORY_REGION, &r) < 0)
        goto fail;
    b->cpu = call_n(c, b->vm, KVM_CREATE_VCPU, 0);
    b->run_size = (size_t)call_n(c, c->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    b->run = b->cpu < 0 ? NULL : c->sys->mmap(c->sys->ctx, b->cpu, b->run_size);
    if (b->run == NULL)
        goto fail;
    box_cpuid(c, b->cpu);
    return true;
fail:
    say(c, "VM", "cannot be made");
    box_close(b);
    return false;
}

void box_close(struct box *b)
{
    const struct kvm_sys *sys = b->c->sys;

    if (b->run != NULL)
        sys->munmap(sys->ctx, b->run, b->run_size);
    if (b->cpu > 0)
        sys->close(sys->ctx, b->cpu);
    if (b->vm > 0)
        sys->close(sys->ctx, b->vm);
    host_memory_free(b->ram, BOX_RAM);
}

void box_code(struct box *b, uint32_t at, const void *code, size_t len)
{
    memcpy(b->ram + at, code, len);
}

static void real_segment(struct kvm_segment *s)
{
    s->base = 0;
    s->selector = 0;
}

void box_start(struct box *b, const void *code, size_t len)
{
    struct kvm_regs r = {.rip = BOX_CODE, .rsp = 0x7000, .rflags = 2};
    struct kvm_sregs s;

    box_code(b, BOX_CODE, code, len);
    call(b->c, b->cpu, KVM_GET_SREGS, &s);
    real_segment(&s.cs);
    real_segment(&s.ds);
    real_segment(&s.es);
    real_segment(&s.ss);
    if (call(b->c, b->cpu, KVM_SET_SREGS, &s) < 0 || call(b->c, b->cpu, KVM_SET_REGS, &r) < 0)
        say(b->c, "registers", "cannot be set");
}

void box_handler(struct box *b, uint8_t vector, uint32_t at, const void *code, size_t len)
{
    uint16_t entry[2] = {(uint16_t)at, 0};

    memcpy(b->ram + 4u * vector, entry, sizeof(entry));
    box_code(b, at, code, len);
}

/* ---- answers ---- */

static uint64_t bytes(const void *p, unsigned size)
{
    uint64_t v = 0;

    memcpy(&v, p, size > 8 ? 8 : size);
    return v;
}

static void say_exit(struct box *b, const char *what)
{
    const struct kvm_run *r = b->run;
    const char *data = (const char *)r;

    switch (r->exit_reason) {
    case KVM_EXIT_IO:
        if (r->io.direction == KVM_EXIT_IO_OUT)
            say(b->c, what, "io out port %#x size %u count %u data %#llx", r->io.port, r->io.size,
                r->io.count, (unsigned long long)bytes(data + r->io.data_offset, r->io.size));
        else
            say(b->c, what, "io in port %#x size %u count %u", r->io.port, r->io.size, r->io.count);
        break;
    case KVM_EXIT_MMIO:
        if (r->mmio.is_write)
            say(b->c, what, "mmio write %#llx size %u data %#llx",
                (unsigned long long)r->mmio.phys_addr, r->mmio.len,
                (unsigned long long)bytes(r->mmio.data, r->mmio.len));
        else
            say(b->c, what, "mmio read %#llx size %u", (unsigned long long)r->mmio.phys_addr,
                r->mmio.len);
        break;
    case KVM_EXIT_HLT:
        say(b->c, what, "hlt at %#llx", (unsigned long long)box_rip(b));
        break;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        say(b->c, what, "irq window at %#llx", (unsigned long long)box_rip(b));
        break;
    case KVM_EXIT_DEBUG:
        say(b->c, what, "debug exception %u pc %#llx dr6 %#llx", r->debug.arch.exception,
            (unsigned long long)r->debug.arch.pc, (unsigned long long)r->debug.arch.dr6 & 0x400f);
        break;
    case KVM_EXIT_X86_RDMSR:
        say(b->c, what, "rdmsr %#x reason %u", r->msr.index, r->msr.reason);
        break;
    case KVM_EXIT_X86_WRMSR:
        say(b->c, what, "wrmsr %#x reason %u data %#llx", r->msr.index, r->msr.reason,
            (unsigned long long)r->msr.data);
        break;
    case KVM_EXIT_IOAPIC_EOI:
        say(b->c, what, "ioapic eoi %#x", r->eoi.vector);
        break;
    case KVM_EXIT_SHUTDOWN:
        say(b->c, what, "shutdown");
        break;
    case KVM_EXIT_FAIL_ENTRY:
        say(b->c, what, "fail entry");
        break;
    default:
        say(b->c, what, "exit %u", r->exit_reason);
        break;
    }
}

int box_run(struct box *b, const char *what)
{
    int rc = call_n(b->c, b->cpu, KVM_RUN, 0);

    if (rc < 0)
        say_result(b->c, what, rc);
    else
        say_exit(b, what);
    return rc;
}

uint64_t box_rip(struct box *b)
{
    struct kvm_regs r = {0};

    call(b->c, b->cpu, KVM_GET_REGS, &r);
    return r.rip;
}

void box_set_rip(struct box *b, uint64_t rip)
{
    struct kvm_regs r = {0};

    call(b->c, b->cpu, KVM_GET_REGS, &r);
    r.rip = rip;
    call(b->c, b->cpu, KVM_SET_REGS, &r);
}

void say_regs(struct box *b, const char *what)
{
    struct kvm_regs r = {0};

    call(b->c, b->cpu, KVM_GET_REGS, &r);
    say(b->c, what, "rax %#llx rdx %#llx", (unsigned long long)r.rax, (unsigned long long)r.rdx);
}

void say_rip(struct box *b, const char *what)
{
    say(b->c, what, "rip %#llx", (unsigned long long)box_rip(b));
}

void say_ready(struct box *b, const char *what)
{
    say(b->c, what, "if %u ready %u", b->run->if_flag, b->run->ready_for_interrupt_injection);
}

void box_data(struct box *b, uint64_t value)
{
    if (b->run->exit_reason == KVM_EXIT_IO)
        memcpy((char *)b->run + b->run->io.data_offset, &value, b->run->io.size);
    else if (b->run->exit_reason == KVM_EXIT_MMIO)
        memcpy(b->run->mmio.data, &value, sizeof(value));
}

/* ---- flat modes ---- */

#define TABLES                                                                                     \
    0x10000u /* PML4, PDPT, two page directories' worth of 1 GiB is too new: 2 MiB pages */

static void make_tables(struct box *b)
{
    uint64_t *pml4 = (void *)(b->ram + TABLES), *pdpt = pml4 + 512, *low = pdpt + 512,
             *high = low + 512;

    pml4[0] = (TABLES + 0x1000) | 3;
    pdpt[0] = (TABLES + 0x2000) | 3;
    pdpt[3] = (TABLES + 0x3000) | 3;
    for (uint64_t i = 0; i < 512; i++) {
        low[i] = i << 21 | 0x83;
        high[i] = 3 * GIB | i << 21 | 0x83;
    }
}

void flat_sregs(struct box *b, struct kvm_sregs *s, bool wide)
{
    struct kvm_segment data = {
        .limit = UINT32_MAX, .selector = 0x10, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};

    call(b->c, b->cpu, KVM_GET_SREGS, s);
    s->ds = s->es = s->ss = s->fs = s->gs = data;
    s->cs = data;
    s->cs.selector = 8;
    s->cs.type = 11;
    s->cs.l = wide;
    s->cs.db = !wide;
    s->tr = (struct kvm_segment){.limit = 0x67, .selector = 0x18, .type = 11, .present = 1};
    s->gdt = (struct kvm_dtable){.base = 0x3000, .limit = 0x1f};
    s->idt = (struct kvm_dtable){.base = 0x4000, .limit = 0xfff};
    s->cr0 = X86_CR0_PE | X86_CR0_ET | X86_CR0_NE | (wide ? X86_CR0_PG | X86_CR0_WP : 0);
    s->cr3 = wide ? TABLES : 0;
    s->cr4 = wide ? X86_CR4_PAE : 0;
    s->efer = wide ? X86_EFER_LME | X86_EFER_LMA : 0;
}

void flat_start(struct box *b, bool wide, const void *code, size_t len)
{
    const uint64_t gdt[4] = {0, wide ? 0x00af9b000000ffffull : 0x00cf9b000000ffffull,
                             0x00cf93000000ffffull, 0x00008b0000000067ull};
    struct kvm_regs r = {.rip = BOX_CODE, .rsp = 0x7000, .rflags = 2};
    struct kvm_sregs s;

    make_tables(b);
    box_code(b, 0x3000, gdt, sizeof(gdt));
    box_code(b, BOX_CODE, code, len);
    flat_sregs(b, &s, wide);
    if (call(b->c, b->cpu, KVM_SET_SREGS, &s) < 0 || call(b->c, b->cpu, KVM_SET_REGS, &r) < 0)
        say(b->c, "registers", "cannot be set");
}
