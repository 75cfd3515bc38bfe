/*
 * What this host's KVM can do, in text: its capabilities, the CPUID leaves it lets a guest see, and
 * whether a processor runs in real and in long mode and how fast. Without /dev/kvm, status 77; with
 * something that does not work, 1.
 *
 *   kvm_probe
 *   tools/kvm-bed.sh --file build/tests/guest/kvm_probe -- kvm_probe
 *
 * The guest's memory, 1 MiB from address 0; the next 2 MiB are mapped and nothing is there:
 *   0x1000 code, stack below   0x2000 PML4   0x3000 PDPT   0x4000 PD   0x5000 IDT   0x6000 GDT
 *   0x10000..0xFFFFF to write to
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { RAM_SIZE = 0x100000, CODE = 0x1000, PML4 = 0x2000, PDPT = 0x3000, PD = 0x4000 };
enum { IDT = 0x5000, GDT = 0x6000, VECTOR = 0x20 };
enum { DATA = 0x10000, NOTHING = 0x200000, CPUID_MAX = 256, PATIENCE = 120 };

enum mode { REAL, LONG };

struct vm {
    int vm, vcpu;
    uint8_t *ram;
    struct kvm_run *run;
    size_t run_size;
    unsigned long interrupts; /* to be delivered yet, one by one */
};

/* How a run ended: the reason of the last exit, and how many exits of each kind came before. */
struct outcome {
    uint32_t reason;
    unsigned long out, mmio;
    uint8_t byte; /* the last one written to a port */
    double seconds;
};

struct cap {
    int number;
    const char *name;
};

#define CAP(x)                                                                                     \
    {                                                                                              \
        KVM_CAP_##x, #x                                                                            \
    }
static const struct cap caps[] = {
    CAP(NR_VCPUS),
    CAP(MAX_VCPUS),
    CAP(NR_MEMSLOTS),
    CAP(IRQCHIP),
    CAP(SPLIT_IRQCHIP),
    CAP(IRQ_ROUTING),
    CAP(SIGNAL_MSI),
    CAP(IRQFD),
    CAP(IRQFD_RESAMPLE),
    CAP(IOEVENTFD),
    CAP(X2APIC_API),
    CAP(TSC_DEADLINE_TIMER),
    CAP(PIT2),
    CAP(MP_STATE),
    CAP(VCPU_EVENTS),
    CAP(DEBUGREGS),
    CAP(XSAVE),
    CAP(XSAVE2),
    CAP(XCRS),
    CAP(SREGS2),
    CAP(SYNC_REGS),
    CAP(IMMEDIATE_EXIT),
    CAP(EXIT_ON_EMULATION_FAILURE),
    CAP(EXIT_HYPERCALL),
    CAP(X86_USER_SPACE_MSR),
    CAP(X86_MSR_FILTER),
    CAP(X86_DISABLE_EXITS),
    CAP(X86_SMM),
    CAP(SET_GUEST_DEBUG),
    CAP(GUEST_DEBUG_HW_BPS),
    CAP(GET_TSC_KHZ),
    CAP(TSC_CONTROL),
    CAP(VCPU_ATTRIBUTES),
    CAP(ADJUST_CLOCK),
    CAP(READONLY_MEM),
    CAP(COALESCED_MMIO),
    CAP(COALESCED_PIO),
    CAP(MULTI_ADDRESS_SPACE),
    CAP(SET_IDENTITY_MAP_ADDR),
    CAP(MANUAL_DIRTY_LOG_PROTECT2),
    CAP(DIRTY_LOG_RING),
    CAP(BINARY_STATS_FD),
};

static bool failed;

static bool check(bool ok, const char *what)
{
    if (!ok) {
        printf("FAIL %s: %s\n", what, strerror(errno));
        failed = true;
    }
    return ok;
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- what KVM says ---- */

static void list_caps(int kvm)
{
    printf("\ncapabilities, as KVM_CHECK_EXTENSION answers (0 is no)\n");
    for (size_t i = 0; i < sizeof(caps) / sizeof(caps[0]); i++)
        printf("  %-28s %4d  %d\n", caps[i].name, caps[i].number,
               ioctl(kvm, KVM_CHECK_EXTENSION, caps[i].number));
}

static void list_msrs(int kvm)
{
    struct kvm_msr_list saved = {0}, features = {0};

    /* With no room both fail with E2BIG and say how many there are. */
    (void)ioctl(kvm, KVM_GET_MSR_INDEX_LIST, &saved);
    (void)ioctl(kvm, KVM_GET_MSR_FEATURE_INDEX_LIST, &features);
    printf("\nMSRs: %u to save and load, %u that describe features\n", saved.nmsrs, features.nmsrs);
}

static struct kvm_cpuid2 *supported_cpuid(int kvm)
{
    struct kvm_cpuid2 *list = calloc(1, sizeof(*list) + CPUID_MAX * sizeof(list->entries[0]));

    if (!list)
        return NULL;
    list->nent = CPUID_MAX;
    if (check(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, list) == 0, "KVM_GET_SUPPORTED_CPUID"))
        return list;
    free(list);
    return NULL;
}

static void list_cpuid(const struct kvm_cpuid2 *list)
{
    printf("\nCPUID that KVM_GET_SUPPORTED_CPUID gives, leaves of zeros left out\n");
    printf("  leaf     subleaf  eax      ebx      ecx      edx\n");
    for (uint32_t i = 0; i < list->nent; i++) {
        const struct kvm_cpuid_entry2 *e = &list->entries[i];

        if (e->eax | e->ebx | e->ecx | e->edx)
            printf("  %08x %7x  %08x %08x %08x %08x\n", e->function, e->index, e->eax, e->ebx,
                   e->ecx, e->edx);
    }
}

/* ---- what runs ---- */

static void vm_close(struct vm *v)
{
    if (v->run)
        munmap(v->run, v->run_size);
    if (v->ram)
        munmap(v->ram, RAM_SIZE);
    if (v->vcpu >= 0)
        close(v->vcpu);
    if (v->vm >= 0)
        close(v->vm);
}

static void *map(size_t size, int flags, int fd)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);

    return p == MAP_FAILED ? NULL : p;
}

static bool vm_open(struct vm *v, int kvm, struct kvm_cpuid2 *cpuid)
{
    int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);

    *v = (struct vm){.vm = -1, .vcpu = -1};
    v->vm = ioctl(kvm, KVM_CREATE_VM, 0);
    if (!check(v->vm >= 0, "KVM_CREATE_VM"))
        return false;
    v->ram = map(RAM_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    struct kvm_userspace_memory_region slot = {.memory_size = RAM_SIZE,
                                               .userspace_addr = (uintptr_t)v->ram};
    if (!check(v->ram && ioctl(v->vm, KVM_SET_USER_MEMORY_REGION, &slot) == 0,
               "KVM_SET_USER_MEMORY_REGION"))
        return false;
    v->vcpu = ioctl(v->vm, KVM_CREATE_VCPU, 0);
    if (!check(v->vcpu >= 0 && size > 0, "KVM_CREATE_VCPU"))
        return false;
    v->run_size = (size_t)size;
    v->run = map(v->run_size, MAP_SHARED, v->vcpu);
    return check(v->run, "mapping struct kvm_run") &&
           check(ioctl(v->vcpu, KVM_SET_CPUID2, cpuid) == 0, "KVM_SET_CPUID2");
}

static void segments(struct kvm_sregs *s, enum mode mode)
{
    struct kvm_segment data = {.limit = 0xFFFFFFFF, .selector = 0x10, .type = 3, .present = 1};

    data.s = data.db = data.g = 1;
    if (mode == REAL) {
        s->cs.base = 0;
        s->cs.selector = 0;
        return;
    }
    s->ds = s->es = s->fs = s->gs = s->ss = data;
    s->cs = data;
    s->cs.selector = 8;
    s->cs.type = 11;
    s->cs.db = 0;
    s->cs.l = 1;
}

static void put64(struct vm *v, uint32_t gpa, uint64_t value)
{
    memcpy(v->ram + gpa, &value, sizeof(value)); /* KVM is little-endian where this is built */
}

static bool enter(struct vm *v, enum mode mode, const uint8_t *code, size_t len)
{
    struct kvm_regs regs = {.rip = CODE, .rflags = 2, .rdi = DATA, .rax = 'K'};
    struct kvm_sregs s;

    memcpy(v->ram + CODE, code, len);
    if (!check(ioctl(v->vcpu, KVM_GET_SREGS, &s) == 0, "KVM_GET_SREGS"))
        return false;
    segments(&s, mode);
    if (mode == LONG) {
        put64(v, PML4, PDPT | 3);
        put64(v, PDPT, PD | 3);
        put64(v, PD, 0x83); /* 2 MiB each, present and writable */
        put64(v, PD + 8, NOTHING | 0x83);
        put64(v, GDT + 8, 0x00AF9B000000FFFF);  /* 64-bit code */
        put64(v, GDT + 16, 0x00CF93000000FFFF); /* data */
        s.gdt = (struct kvm_dtable){.base = GDT, .limit = 23};
        s.idt = (struct kvm_dtable){.base = IDT, .limit = 0xFFF};
        s.cr3 = PML4;
        s.cr4 = 0x20;       /* PAE */
        s.cr0 = 0x80000033; /* PG, NE, ET, MP, PE */
        s.efer = 0x500;     /* LMA, LME */
    }
    return check(ioctl(v->vcpu, KVM_SET_SREGS, &s) == 0, "KVM_SET_SREGS") &&
           check(ioctl(v->vcpu, KVM_SET_REGS, &regs) == 0, "KVM_SET_REGS");
}

/* An interrupt from outside, which KVM takes only when the guest can. */
static bool interrupt(struct vm *v)
{
    struct kvm_interrupt irq = {.irq = VECTOR};

    v->interrupts--;
    return check(ioctl(v->vcpu, KVM_INTERRUPT, &irq) == 0, "KVM_INTERRUPT");
}

/* Runs until something other than a port or memory access or an interrupt is asked for. */
static bool run(struct vm *v, struct outcome *o)
{
    double start = now();

    *o = (struct outcome){0};
    for (;;) {
        v->run->request_interrupt_window = v->interrupts != 0;
        if (!check(ioctl(v->vcpu, KVM_RUN, 0) == 0, "KVM_RUN"))
            return false;
        o->reason = v->run->exit_reason;
        if (o->reason == KVM_EXIT_IO) {
            o->out++;
            o->byte = ((uint8_t *)v->run)[v->run->io.data_offset];
        } else if (o->reason == KVM_EXIT_MMIO) {
            o->mmio++;
        } else if (o->reason == KVM_EXIT_IRQ_WINDOW_OPEN && v->interrupts != 0) {
            if (!interrupt(v))
                return false;
        } else {
            break;
        }
    }
    o->seconds = now() - start;
    return true;
}

/* A run of code that ends in HLT with RCX zero, after so many exits. */
static bool program(struct vm *v, const char *what, enum mode mode, const uint8_t *code, size_t len,
                    unsigned long exits, struct outcome *o)
{
    struct kvm_regs regs;

    if (!enter(v, mode, code, len) || !run(v, o) ||
        !check(ioctl(v->vcpu, KVM_GET_REGS, &regs) == 0, "KVM_GET_REGS"))
        return false;
    if (o->reason != KVM_EXIT_HLT || o->out + o->mmio != exits || regs.rcx != 0) {
        printf("  FAIL %s: exit reason %u, %lu exits of %lu, rip 0x%llx, rcx 0x%llx\n", what,
               o->reason, o->out + o->mmio, exits, regs.rip, regs.rcx);
        failed = true;
        return false;
    }
    printf("  ok   %-44s %8.3f s", what, o->seconds);
    return true;
}

#define PROGRAM(v, what, mode, code, exits, o) program(v, what, mode, code, sizeof(code), exits, o)

static void per_exit(const struct outcome *o)
{
    printf(", %.2f us each\n", o->seconds * 1e6 / (double)(o->out + o->mmio));
}

static void per_instruction(const struct outcome *o)
{
    printf(", %.0f million a second\n", 100.0 / o->seconds);
}

/* 100,000 is 0x186A0; 50 million, of two instructions each, 0x2FAF080. */
static void run_real(struct vm *v)
{
    static const uint8_t out[] = {0xBA, 0xF8, 0x03, 0xEE, 0xF4}; /* mov dx,3F8h; out dx,al; hlt */
    /* mov ecx,100000; 1: out 80h,al; dec ecx; jnz 1b; hlt */
    static const uint8_t exits[] = {0x66, 0xB9, 0xA0, 0x86, 0x01, 0x00, 0xE6,
                                    0x80, 0x66, 0x49, 0x75, 0xFA, 0xF4};
    /* mov ecx,50000000; 1: dec ecx; jnz 1b; hlt */
    static const uint8_t loop[] = {0x66, 0xB9, 0x80, 0xF0, 0xFA, 0x02,
                                   0x66, 0x49, 0x75, 0xFC, 0xF4};
    struct outcome o;

    if (PROGRAM(v, "real mode: out, hlt", REAL, out, 1, &o)) {
        printf("\n");
        if (o.byte != 'K') {
            printf("  FAIL the byte written was 0x%02x\n", o.byte);
            failed = true;
        }
    }
    if (PROGRAM(v, "real mode: 100,000 port exits", REAL, exits, 100000, &o))
        per_exit(&o);
    if (PROGRAM(v, "real mode: 100 M instructions", REAL, loop, 0, &o))
        per_instruction(&o);
}

/* Without an interrupt controller in the kernel: KVM says when the guest can take one. */
static void run_interrupts(struct vm *v)
{
    /* mov esp,1000h; mov ecx,1000; sti; 1: test ecx,ecx; jnz 1b; cli; hlt; dec ecx; iretq */
    static const uint8_t code[] = {0xBC, 0x00, 0x10, 0x00, 0x00, 0xB9, 0xE8, 0x03, 0x00, 0x00, 0xFB,
                                   0x85, 0xC9, 0x75, 0xFC, 0xFA, 0xF4, 0xFF, 0xC9, 0x48, 0xCF};
    const uint64_t handler = CODE + sizeof(code) - 4;
    struct outcome o;

    put64(v, IDT + VECTOR * 16, handler | 8 << 16 | (uint64_t)0x8E00 << 32);
    v->interrupts = 1000;
    if (PROGRAM(v, "long mode: 1,000 interrupts by KVM_INTERRUPT", LONG, code, 0, &o))
        printf(", %.2f us each\n", o.seconds * 1000);
    v->interrupts = 0;
}

static void run_long(struct vm *v)
{
    /* mov ecx,100000; 1: out 80h,al; dec ecx; jnz 1b; hlt */
    static const uint8_t exits[] = {0xB9, 0xA0, 0x86, 0x01, 0x00, 0xE6,
                                    0x80, 0xFF, 0xC9, 0x75, 0xFA, 0xF4};
    /* mov ecx,100000; 1: mov [200000h],al; dec ecx; jnz 1b; hlt */
    static const uint8_t mmio[] = {0xB9, 0xA0, 0x86, 0x01, 0x00, 0x88, 0x04, 0x25, 0x00,
                                   0x00, 0x20, 0x00, 0xFF, 0xC9, 0x75, 0xF5, 0xF4};
    /* mov ecx,50000000; 1: dec ecx; jnz 1b; hlt */
    static const uint8_t loop[] = {0xB9, 0x80, 0xF0, 0xFA, 0x02, 0xFF, 0xC9, 0x75, 0xFC, 0xF4};
    /* mov ecx,1E000h; rep stosq; hlt: RDI is DATA, to the end of memory */
    static const uint8_t fill[] = {0xB9, 0x00, 0xE0, 0x01, 0x00, 0xF3, 0x48, 0xAB, 0xF4};
    /* mov ecx,100000; 1: push rcx; xor eax,eax; cpuid; pop rcx; dec ecx; jnz 1b; hlt */
    static const uint8_t cpuid[] = {0xBC, 0x00, 0x10, 0x00, 0x00, 0xB9, 0xA0,
                                    0x86, 0x01, 0x00, 0x51, 0x31, 0xC0, 0x0F,
                                    0xA2, 0x59, 0xFF, 0xC9, 0x75, 0xF6, 0xF4};
    struct outcome o;

    if (PROGRAM(v, "long mode: 100,000 port exits", LONG, exits, 100000, &o))
        per_exit(&o);
    if (PROGRAM(v, "long mode: 100,000 writes where nothing is", LONG, mmio, 100000, &o))
        per_exit(&o);
    if (PROGRAM(v, "long mode: 100,000 CPUID, answered in KVM", LONG, cpuid, 0, &o))
        printf(", %.2f us each\n", o.seconds * 10);
    run_interrupts(v);
    if (PROGRAM(v, "long mode: 960 KiB written", LONG, fill, 0, &o)) {
        uint64_t last;

        memcpy(&last, v->ram + RAM_SIZE - 8, sizeof(last));
        printf("\n");
        if (last != 'K') {
            printf("  FAIL they did not arrive\n");
            failed = true;
        }
    }
    if (PROGRAM(v, "long mode: 100 M instructions", LONG, loop, 0, &o))
        per_instruction(&o);
}

/* Each mode in a VM of its own: what one leaves behind is none of the other's business. */
static void run_all(int kvm, struct kvm_cpuid2 *cpuid)
{
    static void (*const runs[])(struct vm *) = {run_real, run_long};

    printf("\na virtual machine with one processor\n");
    for (size_t i = 0; i < sizeof(runs) / sizeof(runs[0]); i++) {
        struct vm v;

        if (vm_open(&v, kvm, cpuid))
            runs[i](&v);
        vm_close(&v);
    }
}

int main(void)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), version;
    struct kvm_cpuid2 *cpuid;

    if (kvm < 0) {
        printf("/dev/kvm: %s\n", strerror(errno));
        return 77;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    alarm(PATIENCE); /* a processor that never leaves is a finding too */
    version = ioctl(kvm, KVM_GET_API_VERSION, 0);
    printf("/dev/kvm, API version %d\n", version);
    if (version != KVM_API_VERSION) {
        printf("FAIL: it should be %d\n", KVM_API_VERSION);
        return 1;
    }
    list_caps(kvm);
    list_msrs(kvm);
    cpuid = supported_cpuid(kvm);
    if (cpuid) {
        list_cpuid(cpuid);
        run_all(kvm, cpuid);
    }
    free(cpuid);
    close(kvm);
    printf("\n%s\n", failed ? "something does not work, see FAIL" : "all works");
    return failed;
}
