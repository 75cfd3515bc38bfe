/*
 * Wires, I/O APIC and several local APICs together, at random: level and edge pins, vectors shared
 * by pins, masks, changes of trigger mode, suppressed broadcasts, late EOIs. When all is quiet, no
 * level may have been forgotten and none be told of without a wire that is high.
 *
 *     test_irq_flow [SEED]
 */
#include "lapic_fixture.h"

#include <stdio.h>
#include <time.h>

#include "dev/chips.h"

#define PINS 8u /* the pins in use: 16-23 */
#define FIRST 16u
#define ROUNDS 300u
#define STEPS 300u

struct flow {
    struct fixture *f;
    struct dev_env env;
    struct device ioapic;
    struct irq_line *line[PINS];
    bool high[PINS];
    uint32_t entry[PINS];   /* lower halves as last written */
    unsigned service[CPUS]; /* EOIs owed */
    unsigned got[256];
    bool suppress;
    uint64_t seed;
};

static uint64_t random_state;

static unsigned rnd(unsigned below)
{
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)((random_state >> 33) % below);
}

static uint32_t io_read(struct flow *w, unsigned index)
{
    uint64_t value = 0;

    bus_write(w->env.bus, BUS_READER_OTHER, BUS_MMIO, 0xFEC00000, 4, index);
    bus_read(w->env.bus, BUS_READER_OTHER, BUS_MMIO, 0xFEC00010, 4, &value);
    return (uint32_t)value;
}

static void io_write(struct flow *w, unsigned index, uint32_t value)
{
    bus_write(w->env.bus, BUS_READER_OTHER, BUS_MMIO, 0xFEC00000, 4, index);
    bus_write(w->env.bus, BUS_READER_OTHER, BUS_MMIO, 0xFEC00010, 4, value);
}

static void io_eoi(struct flow *w, unsigned vector)
{
    bus_write(w->env.bus, BUS_READER_OTHER, BUS_MMIO, 0xFEC00040, 4, vector);
}

static void program_pin(struct flow *w, unsigned pin, uint32_t low)
{
    w->entry[pin] = low;
    io_write(w, 0x10 + 2 * (FIRST + pin), low);
}

static void set_line(struct flow *w, unsigned pin, bool high)
{
    w->high[pin] = high;
    irq_set(w->line[pin], high);
}

/* One vCPU takes what it may; true if there was something. */
static bool take(struct flow *w, unsigned cpu)
{
    int vector = ack(w->f, cpu);

    if (vector < 0)
        return false;
    w->got[vector]++;
    w->service[cpu]++;
    return true;
}

static void end(struct flow *w, unsigned cpu)
{
    unsigned vector = 0;

    if (w->service[cpu] == 0)
        return;
    for (unsigned v = 0; v < 256; v++) {
        if (rd(w->f, cpu, ISR + 16 * (v / 32)) >> (v & 31) & 1)
            vector = v;
    }
    w->service[cpu]--;
    wr(w->f, cpu, EOI, 0);
    if (w->suppress)
        io_eoi(w, vector);
}

static void random_pin(struct flow *w, unsigned pin)
{
    uint32_t low = 0x40 + 0x10 * rnd(2) + (rnd(4) ? pin : 0);

    /* No vector is edge and level at once: TMR has but one bit for it. */
    low += rnd(2) ? 0x8020u : 0;
    low |= rnd(3) == 0 ? 1u << 16 : 0;
    low |= rnd(2) ? 0x900u : 0x800u; /* logical, fixed or lowest priority */
    /* A pin's vector and mode are changed as guests do it: masked, and its interrupts ended. */
    program_pin(w, pin, w->entry[pin] | 1u << 16);
    for (unsigned i = 0; i < PINS; i++)
        set_line(w, i, false);
    for (unsigned cpu = 0; cpu < CPUS; cpu++) {
        wr(w->f, cpu, TPR, 0);
        while (take(w, cpu))
            ;
        while (w->service[cpu] != 0) {
            end(w, cpu);
            while (take(w, cpu))
                ;
        }
    }
    io_write(w, 0x11 + 2 * (FIRST + pin), (1u + rnd(255)) << 24);
    program_pin(w, pin, low);
}

static void quiet(struct flow *w)
{
    for (bool again = true; again;) {
        again = false;
        for (unsigned cpu = 0; cpu < CPUS; cpu++) {
            for (; w->service[cpu] != 0; again = true)
                end(w, cpu); /* may ask one that has been looked at */
            if (take(w, cpu)) {
                unsigned vector = 0;

                for (unsigned v = 0; v < 256; v++)
                    vector = rd(w->f, cpu, ISR + 16 * (v / 32)) >> (v & 31) & 1 ? v : vector;
                /* The handler quiets every device on its vector. */
                for (unsigned pin = 0; pin < PINS; pin++) {
                    if ((w->entry[pin] & 0xFF) == vector)
                        set_line(w, pin, false);
                }
                again = true;
            }
        }
    }
}

/* All that should be heard has been heard: lines of unmasked level pins are low again by now. */
static void check_quiet(struct flow *w)
{
    for (unsigned pin = 0; pin < PINS; pin++) {
        uint32_t low = io_read(w, 0x10 + 2 * (FIRST + pin));
        bool level = (low & 0x18000) == 0x8000;

        if ((level && w->high[pin]) || (low & 0x4000))
            fail_msg("seed %#llx: pin %u is %s, entry %#x", (unsigned long long)w->seed, pin,
                     w->high[pin] ? "high" : "low", low);
    }
    for (unsigned cpu = 0; cpu < CPUS; cpu++) {
        for (unsigned i = 0; i < 8; i++) {
            assert_int_equal(rd(w->f, cpu, IRR + 16 * i), 0);
            assert_int_equal(rd(w->f, cpu, ISR + 16 * i), 0);
        }
        assert_int_equal(rd(w->f, cpu, PPR), rd(w->f, cpu, TPR));
    }
}

static void one_step(struct flow *w)
{
    unsigned pin = rnd(PINS), cpu = rnd(CPUS);

    switch (rnd(8)) {
    case 0:
    case 1:
    case 2:
        set_line(w, pin, rnd(2));
        break;
    case 3:
        program_pin(w, pin, w->entry[pin] ^ 1u << 16);
        break;
    case 4:
        if (rnd(4) == 0)
            random_pin(w, pin);
        break;
    case 5:
        wr(w->f, cpu, TPR, rnd(4) ? 0 : rnd(8) << 4);
        break;
    case 6:
        take(w, cpu);
        break;
    default:
        end(w, cpu);
        break;
    }
}

static uint64_t first_seed;

static void start(struct flow *w, struct fixture *f)
{
    w->f = f;
    enable(f);
    for (unsigned i = 0; i < CPUS; i++)
        wr(f, i, LDR, 0x01000000u << (i % 8)); /* more than one of some */
    dev_env_init(&w->env, "ioapic");
    w->env.irqs = f->env.irqs;
    w->env.timers = f->env.timers;
    w->env.bus = bus_create(NULL);
    assert_int_equal(device_create(&ioapic_ops, &w->env, NULL, &w->ioapic, NULL), 0);
    for (unsigned i = 0; i < PINS; i++) {
        w->line[i] = irq_line_create(w->env.irqs, FIRST + i);
        w->entry[i] = 0x10000;
    }
}

static void test_flow(void **state)
{
    struct flow *w = calloc(1, sizeof(*w));
    unsigned total = 0;

    assert_non_null(w);
    start(w, *state);
    for (unsigned round = 0; round < ROUNDS; round++) {
        w->seed = first_seed + round;
        random_state = w->seed * 0x9E3779B97F4A7C15ull;
        quiet(w);
        w->suppress = rnd(3) == 0;
        for (unsigned i = 0; i < CPUS; i++)
            wr(w->f, i, SVR, w->suppress ? 0x11FF : 0x1FF);
        for (unsigned i = 0; i < PINS; i++)
            random_pin(w, i);
        for (unsigned i = 0; i < STEPS; i++)
            one_step(w);
        for (unsigned i = 0; i < CPUS; i++)
            wr(w->f, i, TPR, 0);
        quiet(w);
        check_quiet(w);
    }
    for (unsigned v = 0; v < 256; v++)
        total += w->got[v];
    assert_in_range(total, ROUNDS * 10, UINT32_MAX);
    for (unsigned i = 0; i < PINS; i++)
        irq_line_free(w->line[i]);
    device_destroy(&w->ioapic);
    bus_destroy(w->env.bus);
    dev_env_fini(&w->env);
    free(w);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {T(test_flow)};

    first_seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL) * 1000003u;
    printf("seed %#llx\n", (unsigned long long)first_seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
