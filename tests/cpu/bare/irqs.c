/* Interrupt handlers, waiting, and the interrupt controllers' registers (64-bit images). */
#include "irqs.h"

irq_function *irq_handler[256];
volatile unsigned irq_count[256];
volatile unsigned irq_total;
volatile unsigned irq_depth, irq_depth_max;
volatile uint8_t irq_order[32];

/* ---- handlers ---- */

extern const uint8_t irq_stubs[];
void irq_entry(unsigned vector, const struct irq_frame *frame);

/* Each stub has 16 bytes. The frame is aligned, so five words, the vector and nine more are 120. */
__asm__(".intel_syntax noprefix\n"
        ".text\n"
        ".balign 16\n"
        "irq_stubs:\n"
        ".set irq_vector, 0\n"
        ".rept 256\n"
        ".byte 0x68\n"
        ".long irq_vector\n"
        ".byte 0xe9\n"
        ".long irq_common - . - 4\n"
        ".balign 16\n"
        ".set irq_vector, irq_vector + 1\n"
        ".endr\n"
        "irq_common:\n"
        "cld\n"
        "push rax\n push rcx\n push rdx\n push rsi\n push rdi\n"
        "push r8\n push r9\n push r10\n push r11\n"
        "mov rdi, [rsp + 72]\n"
        "lea rsi, [rsp + 80]\n"
        "sub rsp, 8\n"
        "call irq_entry\n"
        "add rsp, 8\n"
        "pop r11\n pop r10\n pop r9\n pop r8\n"
        "pop rdi\n pop rsi\n pop rdx\n pop rcx\n pop rax\n"
        "add rsp, 8\n"
        "iretq\n"
        ".att_syntax prefix\n");

__attribute__((used)) void irq_entry(unsigned vector, const struct irq_frame *frame)
{
    if (irq_total < sizeof(irq_order))
        irq_order[irq_total] = (uint8_t)vector;
    irq_total++;
    irq_count[vector]++;
    irq_depth++;
    if (irq_depth > irq_depth_max)
        irq_depth_max = irq_depth;
    if (irq_total > 100000)
        give_up("a storm of interrupts");
    if (irq_handler[vector] != NULL)
        irq_handler[vector](vector, frame);
    irq_depth--;
}

void irq_on_handler(unsigned vector)
{
    idt_gate(vector, S_CODE, (word)irq_stubs + 16 * vector, GATE_INT, 0);
}

void irq_on_fragment(unsigned vector)
{
    idt_usual(vector, GATE_INT, 1);
}

void irqs_start(void)
{
    for (unsigned vector = 0x20; vector < 256; vector++) {
        irq_handler[vector] = apic_done;
        if (vector != V_DONE)
            irq_on_handler(vector);
    }
    irq_handler[APIC_SPURIOUS] = NULL;
    irqs_forget();
}

void irqs_forget(void)
{
    irq_total = irq_depth = irq_depth_max = 0;
    for (unsigned i = 0; i < 256; i++)
        irq_count[i] = 0;
}

uint64_t irqs_in_order(void)
{
    uint64_t order = 0;

    for (unsigned i = 0; i < irq_total && i < 8; i++)
        order = order << 8 | irq_order[i];
    return order;
}

static void sti(void)
{
    __asm__ volatile("sti\n\tnop" : : : "memory");
}

static void cli(void)
{
    __asm__ volatile("cli" : : : "memory");
}

static void wait_until(uint64_t end)
{
    while (tsc() < end)
        __asm__ volatile("pause");
}

void irqs_let_in(void)
{
    if (skipping())
        return;
    /* an interrupt from another thread of an emulator may take a moment to arrive */
    irqs_on_for(50);
}

unsigned irqs_wait(unsigned vector, unsigned n, unsigned ms)
{
    uint64_t end;

    if (skipping())
        return 0;
    end = tsc() + tsc_hz() / 1000 * ms;
    sti();
    while (irq_count[vector] < n && tsc() < end)
        __asm__ volatile("pause");
    cli();
    return irq_count[vector];
}

void irqs_on_for(unsigned us)
{
    uint64_t end;

    if (skipping())
        return;
    end = tsc() + tsc_hz() / 1000000 * us;
    sti();
    wait_until(end);
    cli();
}

void delay(unsigned us)
{
    if (!skipping())
        wait_until(tsc() + tsc_hz() / 1000000 * us);
}

/* ---- time ---- */

uint64_t tsc(void)
{
    uint32_t low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

/*
 * Channel 2 in mode 0 for 1 ms. A host that pauses us at one of its ends makes that uncertain: the
 * measurement with the least doubt counts, and a good one ends it.
 */
uint64_t tsc_hz(void)
{
    static uint64_t known;
    uint64_t least = ~0ull, hz = 0;

    for (unsigned i = 0; known == 0 && i < 300 && least > hz / 200; i++) {
        uint64_t before, start, polled, end, doubt;

        outb(0x61, (inb(0x61) & 0x0c) | 1);
        outb(0x43, 0xb0);
        outb(0x42, 1193 & 0xff);
        before = tsc();
        outb(0x42, 1193 >> 8);
        start = end = tsc();
        do {
            polled = end;
            end = tsc();
        } while (!(inb(0x61) & 0x20) && end - start < 1ull << 34);
        end = tsc();
        doubt = (start - before + end - polled) * 1000;
        if (doubt < least) {
            least = doubt;
            hz = (end - start) * 1000;
        }
    }
    if (known == 0)
        known = hz;
    return known;
}

bool within(uint64_t a, uint64_t b, unsigned percent)
{
    uint64_t slack = b / 100 * percent + 1;

    return a + slack >= b && a <= b + slack;
}

/* ---- local APIC ---- */

static volatile uint32_t *mmio(uint64_t address)
{
    return (volatile uint32_t *)(word)address;
}

bool apic_is_x2apic(void)
{
    return (rdmsr(MSR_APIC_BASE) & APIC_BASE_EXTD) != 0;
}

void apic_mode(bool x2apic)
{
    uint64_t base = rdmsr(MSR_APIC_BASE);
    uint64_t clear = base & ~(uint64_t)(APIC_BASE_EN | APIC_BASE_EXTD);

    if ((base & APIC_BASE_EXTD) != 0 && !x2apic)
        wrmsr(MSR_APIC_BASE, clear);
    wrmsr(MSR_APIC_BASE, clear | APIC_BASE_EN);
    if (x2apic)
        wrmsr(MSR_APIC_BASE, clear | APIC_BASE_EN | APIC_BASE_EXTD);
}

uint32_t apic_read(unsigned offset)
{
    if (skipping())
        return 0;
    return apic_is_x2apic() ? (uint32_t)rdmsr(0x800 + offset / 16) : *mmio(0xfee00000 + offset);
}

void apic_write(unsigned offset, uint32_t value)
{
    if (skipping())
        return;
    if (apic_is_x2apic())
        wrmsr(0x800 + offset / 16, value);
    else
        *mmio(0xfee00000 + offset) = value;
}

void apic_reset(void)
{
    if (skipping())
        return;
    apic_write(APIC_SVR, 0x100 | APIC_SPURIOUS);
    apic_write(APIC_TPR, 0);
    apic_write(APIC_LVT_TIMER, APIC_MASKED);
    apic_write(APIC_INITIAL, 0);
    apic_write(APIC_LVT_LINT0, APIC_MASKED);
    apic_write(APIC_LVT_LINT1, APIC_MASKED);
    apic_write(APIC_LVT_ERROR, APIC_MASKED);
    apic_errors();
    for (unsigned i = 0; i < 256 && apic_busy(); i++) {
        irqs_let_in();
        apic_write(APIC_EOI, 0);
    }
    irqs_forget();
}

uint32_t apic_id(void)
{
    return apic_is_x2apic() ? apic_read(APIC_ID) : apic_read(APIC_ID) >> 24;
}

void apic_send(uint32_t low, uint32_t destination)
{
    if (skipping())
        return;
    if (apic_is_x2apic()) {
        wrmsr(0x830, (uint64_t)destination << 32 | low);
        return;
    }
    apic_write(APIC_ICR_HIGH, destination << 24);
    apic_write(APIC_ICR, low);
    for (unsigned i = 0; i < 100000 && (apic_read(APIC_ICR) & 0x1000) != 0; i++)
        ;
}

bool apic_bit(unsigned offset, unsigned vector)
{
    return (apic_read(offset + vector / 32 * 16) >> vector % 32 & 1) != 0;
}

bool apic_busy(void)
{
    uint32_t bits = 0;

    for (unsigned i = 0; i < 8; i++)
        bits |= apic_read(APIC_ISR + 16 * i) | apic_read(APIC_IRR + 16 * i);
    return bits != 0;
}

uint32_t apic_errors(void)
{
    apic_write(APIC_ESR, 0);
    return apic_read(APIC_ESR);
}

void apic_done(unsigned vector, const struct irq_frame *frame)
{
    (void)vector;
    (void)frame;
    apic_write(APIC_EOI, 0);
}

/* ---- I/O APIC ---- */

uint32_t ioapic_read(unsigned index)
{
    if (skipping())
        return 0;
    *mmio(0xfec00000) = index;
    return *mmio(0xfec00010);
}

void ioapic_write(unsigned index, uint32_t value)
{
    if (skipping())
        return;
    *mmio(0xfec00000) = index;
    *mmio(0xfec00010) = value;
}

void ioapic_entry(unsigned pin, uint32_t low, uint32_t high)
{
    ioapic_write(0x11 + 2 * pin, high);
    ioapic_write(0x10 + 2 * pin, low);
}

uint32_t ioapic_low(unsigned pin)
{
    return ioapic_read(0x10 + 2 * pin);
}

void ioapic_mask_all(void)
{
    for (unsigned pin = 0; pin <= (ioapic_read(1) >> 16 & 0xff); pin++)
        ioapic_entry(pin, IOAPIC_MASKED, 0);
}

void line(unsigned gsi, bool high)
{
    if (!skipping())
        outb((uint16_t)(0x2000 + gsi), high);
}

/* ---- 8259 ---- */

void pic_mask(unsigned mask)
{
    if (skipping())
        return;
    outb(0x21, (uint8_t)mask);
    outb(0xa1, (uint8_t)(mask >> 8));
}

void pic_start(unsigned icw4)
{
    if (skipping())
        return;
    outb(0x20, 0x11);
    outb(0xa0, 0x11);
    outb(0x21, PIC_BASE);
    outb(0xa1, PIC_BASE + 8);
    outb(0x21, 4);
    outb(0xa1, 2);
    outb(0x21, (uint8_t)icw4);
    outb(0xa1, 1);
    pic_mask(0xffff);
}
