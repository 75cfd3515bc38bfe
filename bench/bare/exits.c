/*
 * What it costs a guest to leave its processor: each kind of access over and over, timed by the
 * guest itself on the HPET. An image of tests/cpu/bare (whose runtime it uses) for
 * tools/bench-kvm.sh; it wants an HPET, COM1, and an entropy device (virtio 1.x) on PCI bus 0. A
 * kind's line is
 *
 *     exit NAME COUNT NANOSECONDS CYCLES
 *
 * for the quickest of some batches of COUNT accesses, CYCLES by the TSC. Each batch takes ten
 * milliseconds or more. The checks make sure that what was measured did what it should.
 */
#include "bare.h"

#define UART "16550, scratch register"
#define TIMER "HPET 1.0a, general capabilities and status registers"
#define DEVICE "virtio 1.2, split queue"

#define BATCHES 9u
#define BATCH_NS 10000000u
#define COUNT_MIN 16u
#define COUNT_MAX (1u << 24)

/* ---- what is measured ---- */

#define POST_PORT 0x80u
#define SCRATCH 0x3ffu /* of COM1: kept by the device, means nothing to it */

#define HPET 0xfed00000u
#define HPET_CAPS 0x00u
#define HPET_CONF 0x10u
#define HPET_STATUS 0x20u
#define HPET_COUNTER 0xf0u

static volatile uint32_t *hpet(unsigned offset)
{
    return (volatile uint32_t *)(word)(HPET + offset);
}

static void kernel_only(uint32_t count)
{
    uint32_t regs[4];

    while (count-- > 0)
        cpuid(0, 0, regs);
}

static void out_post(uint32_t count)
{
    while (count-- > 0)
        outb(POST_PORT, 0);
}

static void out_scratch(uint32_t count)
{
    while (count-- > 0)
        outb(SCRATCH, 0x5a);
}

static void in_scratch(uint32_t count)
{
    while (count-- > 0)
        inb(SCRATCH);
}

static void mmio_read(uint32_t count)
{
    while (count-- > 0)
        (void)*hpet(HPET_CAPS);
}

/* Bits to clear, none of them given. */
static void mmio_write(uint32_t count)
{
    while (count-- > 0)
        *hpet(HPET_STATUS) = 0;
}

/* ---- PCI ---- */

#define PCI_ID 0x00u
#define PCI_COMMAND 0x04u
#define PCI_BAR0 0x10u
#define PCI_CAPS 0x34u
#define COMMAND_ON 0x406u /* memory, bus master, no INTx */
#define CAP_VENDOR 9u
#define BAR_MEM64 4u

static void outl(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static uint32_t inl(uint16_t port)
{
    uint32_t value;

    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

/* Of function 0 of a slot of bus 0. */
static uint32_t pci_read(unsigned slot, unsigned reg)
{
    outl(0xcf8, 0x80000000u | slot << 11 | (reg & ~3u));
    return inl(0xcfc);
}

static void pci_write(unsigned slot, unsigned reg, uint32_t value)
{
    outl(0xcf8, 0x80000000u | slot << 11 | (reg & ~3u));
    outl(0xcfc, value);
}

/* ---- the entropy device ---- */

#define RNG_TRANSITIONAL 0x10051af4u
#define RNG_MODERN 0x10441af4u

/* Structures in the vendor capabilities. */
#define CAP_COMMON 1u
#define CAP_NOTIFY 2u

/* The common configuration. */
#define COMMON_FEATURE_SELECT 0x08u /* of the driver, as is the next */
#define COMMON_FEATURE 0x0cu
#define COMMON_STATUS 0x14u
#define COMMON_QUEUE_SELECT 0x16u
#define COMMON_QUEUE_SIZE 0x18u
#define COMMON_QUEUE_ENABLE 0x1cu
#define COMMON_QUEUE_OFF 0x1eu
#define COMMON_QUEUE_DESC 0x20u
#define COMMON_QUEUE_DRIVER 0x28u
#define COMMON_QUEUE_DEVICE 0x30u

#define STATUS_SEEN 3u /* acknowledge, driver */
#define STATUS_FEATURES 8u
#define STATUS_DRIVER_OK 4u

#define QUEUE_SIZE 8u
#define DESC_WRITE 2u
#define NO_INTERRUPT 1u

/*
 * Where the device's memory BAR goes: below 4 GiB, since no more is mapped, and in the hole of both
 * machines, at a place that their firmware gives away last.
 */
#define BAR_BASE 0xd0000000u

static struct {
    struct {
        uint64_t addr;
        uint32_t len;
        uint16_t flags, next;
    } desc[QUEUE_SIZE];
    struct {
        uint16_t flags, idx, ring[QUEUE_SIZE];
    } avail;
    struct {
        uint16_t flags, idx;
        struct {
            uint32_t id, len;
        } ring[QUEUE_SIZE];
    } used __attribute__((aligned(4)));
    uint8_t bytes[16];
} queue __attribute__((aligned(4096)));

static volatile uint16_t *doorbell;

/* Nothing is in the queue: the device looks, and that is all. */
static void notify(uint32_t count)
{
    while (count-- > 0)
        *doorbell = 0;
}

/* A request, until its answer is seen; false if none came for long. */
static bool request(void)
{
    uint16_t want = (uint16_t)(queue.used.idx + 1);

    queue.avail.ring[queue.avail.idx % QUEUE_SIZE] = 0;
    __atomic_store_n(&queue.avail.idx, (uint16_t)(queue.avail.idx + 1), __ATOMIC_SEQ_CST);
    *doorbell = 0;
    for (uint32_t i = 0; i < 1u << 26; i++) {
        if (__atomic_load_n(&queue.used.idx, __ATOMIC_ACQUIRE) == want)
            return true;
        __asm__ volatile("pause");
    }
    return false;
}

static void requests(uint32_t count)
{
    while (count-- > 0)
        if (!request())
            give_up("the entropy device does not answer");
}

/* Where a structure of the device is, by its capability; 0 if it has none. *extra: the multiplier.
 */
static word find_structure(unsigned slot, unsigned type, uint32_t *extra)
{
    unsigned at = pci_read(slot, PCI_CAPS) & 0xfc;

    for (unsigned n = 0; at != 0 && n < 48; n++) {
        uint32_t head = pci_read(slot, at), bar;

        if ((head & 0xff) == CAP_VENDOR && head >> 24 == type) {
            bar = pci_read(slot, at + 4) & 0xff;
            if (bar > 5)
                return 0;
            *extra = pci_read(slot, at + 16);
            return (pci_read(slot, PCI_BAR0 + 4 * bar) & ~15u) + pci_read(slot, at + 8);
        }
        at = head >> 8 & 0xfc;
    }
    return 0;
}

/* Puts the device's 64-bit memory BAR at BAR_BASE. A second one would keep its place. */
static void move_bar(unsigned slot)
{
    pci_write(slot, PCI_COMMAND, 0);
    for (unsigned reg = PCI_BAR0; reg < PCI_BAR0 + 4 * 5; reg += 4) {
        if ((pci_read(slot, reg) & 7) == BAR_MEM64) {
            pci_write(slot, reg, BAR_BASE);
            pci_write(slot, reg + 4, 0);
            break;
        }
    }
    pci_write(slot, PCI_COMMAND, COMMAND_ON);
}

static void common_store(word common, unsigned offset, unsigned size, uint32_t value)
{
    if (size == 1)
        *(volatile uint8_t *)(common + offset) = (uint8_t)value;
    else if (size == 2)
        *(volatile uint16_t *)(common + offset) = (uint16_t)value;
    else
        *(volatile uint32_t *)(common + offset) = value;
}

static void common_address(word common, unsigned offset, const volatile void *p)
{
    common_store(common, offset, 4, (uint32_t)(word)p);
    common_store(common, offset + 4, 4, 0);
}

static void start_device(word common, word notification, uint32_t multiplier)
{
    volatile uint8_t *status = (volatile uint8_t *)(common + COMMON_STATUS);

    *status = 0;
    for (unsigned i = 0; i < 100000 && *status != 0; i++)
        ;
    *status = STATUS_SEEN;
    common_store(common, COMMON_FEATURE_SELECT, 4, 0);
    common_store(common, COMMON_FEATURE, 4, 0);
    common_store(common, COMMON_FEATURE_SELECT, 4, 1);
    common_store(common, COMMON_FEATURE, 4, 1); /* VERSION_1, bit 32, and nothing else */
    *status = STATUS_SEEN | STATUS_FEATURES;
    check("device.features", DEVICE, *status, STATUS_SEEN | STATUS_FEATURES);

    queue.desc[0].addr = (word)queue.bytes;
    queue.desc[0].len = sizeof(queue.bytes);
    queue.desc[0].flags = DESC_WRITE;
    queue.avail.flags = NO_INTERRUPT;
    common_store(common, COMMON_QUEUE_SELECT, 2, 0);
    common_store(common, COMMON_QUEUE_SIZE, 2, QUEUE_SIZE);
    common_address(common, COMMON_QUEUE_DESC, queue.desc);
    common_address(common, COMMON_QUEUE_DRIVER, &queue.avail);
    common_address(common, COMMON_QUEUE_DEVICE, &queue.used);
    common_store(common, COMMON_QUEUE_ENABLE, 2, 1);
    *status = STATUS_SEEN | STATUS_FEATURES | STATUS_DRIVER_OK;
    check("device.started", DEVICE, *status, STATUS_SEEN | STATUS_FEATURES | STATUS_DRIVER_OK);
    doorbell =
        (volatile uint16_t *)(notification +
                              multiplier * *(volatile uint16_t *)(common + COMMON_QUEUE_OFF));
}

static bool find_device(void)
{
    for (unsigned slot = 0; slot < 32; slot++) {
        uint32_t id = pci_read(slot, PCI_ID), multiplier = 0, none;
        word common, notification;

        if (id != RNG_TRANSITIONAL && id != RNG_MODERN)
            continue;
        move_bar(slot);
        common = find_structure(slot, CAP_COMMON, &none);
        notification = find_structure(slot, CAP_NOTIFY, &multiplier);
        if (common == 0 || notification == 0)
            give_up("the entropy device has no modern interface");
        start_device(common, notification, multiplier);
        return true;
    }
    return false;
}

/* ---- the clock ---- */

static uint32_t period_ps; /* of the HPET */

static uint64_t tsc(void)
{
    uint32_t low, high;

    __asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

static void measure(const char *name, void (*what)(uint32_t))
{
    uint64_t ns, least = UINT64_MAX, cycles = 0;
    uint32_t count = COUNT_MIN;

    for (unsigned batch = 0; batch < BATCHES;) {
        uint32_t from = *hpet(HPET_COUNTER);
        uint64_t since = tsc();

        what(count);
        since = tsc() - since;
        ns = (uint64_t)(*hpet(HPET_COUNTER) - from) * period_ps / 1000;
        if (ns < BATCH_NS && count < COUNT_MAX) {
            count *= 2;
            batch = 0;
            least = UINT64_MAX;
            continue;
        }
        batch++;
        if (ns < least) {
            least = ns;
            cycles = since;
        }
    }
    say("exit %s %u %u %lu\n", name, count, (uint32_t)least, cycles);
}

void test(void)
{
    uint32_t caps = *hpet(HPET_CAPS), from;

    period_ps = *hpet(HPET_CAPS + 4) / 1000; /* it holds femtoseconds */
    if (caps == UINT32_MAX || period_ps == 0)
        give_up("there is no HPET");
    *hpet(HPET_CONF) |= 1;
    from = *hpet(HPET_COUNTER);
    kernel_only(1000);
    check("hpet.counts", TIMER, *hpet(HPET_COUNTER) != from, true);

    measure("cpuid", kernel_only);
    measure("out-post", out_post);
    measure("out-scratch", out_scratch);
    check("uart.scratch", UART, inb(SCRATCH), 0x5a);
    measure("in-scratch", in_scratch);
    measure("mmio-read", mmio_read);
    measure("mmio-write", mmio_write);
    check("hpet.unchanged", TIMER, *hpet(HPET_CAPS), caps);

    if (!find_device())
        give_up("there is no entropy device on PCI bus 0");
    check("device.answers", DEVICE, request(), true);
    measure("notify", notify);
    measure("request", requests);
    check("device.wrote", DEVICE, queue.used.ring[0].len > 0, true);
}
