/*
 * ACPI fixed hardware: the PM1a event and control registers, the SMI command port and the power
 * button. There is no SMM: what the SMI handler of a PC does is done here at once.
 *
 * Called by the bus with the device's lock held; the power button may come from any thread. The
 * PM timer's overflow status is not raised: guests read a 32-bit timer and need no carry.
 * ACPI specification, "ACPI Hardware Specification", fixed registers.
 */
#include "dev/chips.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"

enum { EVENT_PORT = 0x400, CONTROL_PORT = 0x404, SMI_PORT = 0xB2, SCI_GSI = 9 };
enum { SMI_ACPI_ENABLE = 0xA0, SMI_ACPI_DISABLE = 0xA1 };

#define PM1_TIMER (1u << 0)
#define PM1_BUS_MASTER (1u << 4)
#define PM1_GLOBAL (1u << 5)
#define PM1_POWER_BUTTON (1u << 8)
#define PM1_SLEEP_BUTTON (1u << 9)
#define PM1_RTC (1u << 10)
#define PM1_PCIE_WAKE (1u << 14)
#define PM1_WAKE (1u << 15)

#define STATUS_BITS                                                                                \
    (PM1_TIMER | PM1_BUS_MASTER | PM1_GLOBAL | PM1_POWER_BUTTON | PM1_SLEEP_BUTTON | PM1_RTC |     \
     PM1_PCIE_WAKE | PM1_WAKE)
#define ENABLE_BITS                                                                                \
    (PM1_TIMER | PM1_GLOBAL | PM1_POWER_BUTTON | PM1_SLEEP_BUTTON | PM1_RTC | PM1_PCIE_WAKE)
/* Events that raise the SCI; the PCIe wake bit of the enable register means "do not". */
#define SCI_BITS (PM1_TIMER | PM1_GLOBAL | PM1_POWER_BUTTON | PM1_SLEEP_BUTTON | PM1_RTC)

#define CONTROL_SCI_EN (1u << 0)
#define CONTROL_BM_RLD (1u << 1)
#define CONTROL_GBL_RLS (1u << 2) /* write-only */
#define CONTROL_SLP_TYP(c) (((c) >> 10) & 7)
#define CONTROL_SLP_EN (1u << 13) /* write-only */
#define CONTROL_KEPT (CONTROL_SCI_EN | CONTROL_BM_RLD | 7u << 10)

#define SLEEP_S5 5u /* the DSDT's _S5 package says the same */

struct acpipm {
    struct dev_env *env;
    struct irq_line *sci;
    uint16_t status, enable, control;
    uint8_t smi_command;
};

static void update_sci(struct acpipm *pm)
{
    irq_set(pm->sci,
            (pm->control & CONTROL_SCI_EN) != 0 && (pm->status & pm->enable & SCI_BITS) != 0);
}

/* Status and enable side by side, as one 32-bit access sees them. */
static uint32_t event_in(void *dev, unsigned offset, unsigned size)
{
    struct acpipm *pm = dev;

    return extract32(pm->status | (uint32_t)pm->enable << 16, 8 * offset, 8 * size);
}

static void event_out(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    struct acpipm *pm = dev;

    for (unsigned i = 0; i < size; i++) {
        unsigned byte = offset + i, shift = 8 * (byte & 1);
        uint32_t v = ((value >> (8 * i)) & 0xFF) << shift;

        if (byte < 2) /* a one clears */
            pm->status = (uint16_t)(pm->status & ~v);
        else
            pm->enable = (uint16_t)(((pm->enable & ~(0xFFu << shift)) | v) & ENABLE_BITS);
    }
    update_sci(pm);
}

static uint32_t control_in(void *dev, unsigned offset, unsigned size)
{
    struct acpipm *pm = dev;

    return extract32(pm->control, 8 * offset, 8 * size);
}

static void control_out(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    struct acpipm *pm = dev;
    uint32_t mask = (uint32_t)bytes_mask(size) << (8 * offset);
    uint32_t written = (value << (8 * offset)) & mask;
    uint32_t control = (pm->control & ~mask) | written;

    pm->control = (uint16_t)(control & CONTROL_KEPT);
    update_sci(pm);
    if (written & CONTROL_GBL_RLS) /* firmware never waits for the global lock */
        log_trace(pm->env->log, "acpipm", "global lock released to the firmware");
    if (!(written & CONTROL_SLP_EN))
        return;
    if (CONTROL_SLP_TYP(control) == SLEEP_S5)
        dev_event(pm->env, DEV_EVENT_POWEROFF, 0);
    else
        log_guest(pm->env, "sleep of type %u, which no table offers", CONTROL_SLP_TYP(control));
}

static uint32_t smi_in(void *dev, unsigned offset, unsigned size)
{
    struct acpipm *pm = dev;

    (void)offset;
    (void)size;
    return pm->smi_command;
}

static void smi_out(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    struct acpipm *pm = dev;

    (void)offset;
    (void)size;
    pm->smi_command = (uint8_t)value;
    switch (pm->smi_command) {
    case SMI_ACPI_ENABLE:
        pm->control |= CONTROL_SCI_EN;
        break;
    case SMI_ACPI_DISABLE:
        pm->control = (uint16_t)(pm->control & ~CONTROL_SCI_EN);
        break;
    default:
        log_guest(pm->env, "SMI command %#x", pm->smi_command);
        break;
    }
    update_sci(pm);
}

void acpipm_power_button(struct device *acpipm)
{
    struct acpipm *pm = acpipm->impl;

    pthread_mutex_lock(&pm->env->lock);
    pm->status |= PM1_POWER_BUTTON;
    update_sci(pm);
    pthread_mutex_unlock(&pm->env->lock);
}

bool acpipm_enabled(struct device *acpipm)
{
    struct acpipm *pm = acpipm->impl;
    bool enabled;

    pthread_mutex_lock(&pm->env->lock);
    enabled = (pm->control & CONTROL_SCI_EN) != 0 &&
              (pm->enable & (PM1_POWER_BUTTON | PM1_SLEEP_BUTTON)) != 0;
    pthread_mutex_unlock(&pm->env->lock);
    return enabled;
}

static void acpipm_reset(void *dev)
{
    struct acpipm *pm = dev;

    pm->status = pm->enable = pm->control = 0;
    pm->smi_command = 0;
    update_sci(pm);
}

static void acpipm_loaded(void *dev)
{
    struct acpipm *pm = dev;

    pm->status &= STATUS_BITS;
    pm->enable &= ENABLE_BITS;
    pm->control &= CONTROL_KEPT;
    update_sci(pm);
}

static void acpipm_destroy(void *dev)
{
    struct acpipm *pm = dev;

    irq_line_free(pm->sci);
    free(pm);
}

static int acpipm_create(struct dev_env *env, const struct options *opts, void **out,
                         struct error *err)
{
    struct acpipm *pm = calloc(1, sizeof(*pm));

    (void)opts;
    if (pm == NULL)
        return error_set(err, -ENOMEM, "no memory for the ACPI registers");
    pm->env = env;
    pm->sci = irq_open(env, SCI_GSI);
    if (pm->sci == NULL) {
        free(pm);
        return error_set(err, -ENOMEM, "no memory for the ACPI interrupt");
    }
    *out = pm;
    return 0;
}

static const struct port_range acpipm_ports[] = {
    {.base = EVENT_PORT, .len = 4, .in = event_in, .out = event_out},
    {.base = CONTROL_PORT, .len = 2, .in = control_in, .out = control_out},
    {.base = SMI_PORT, .len = 1, .in = smi_in, .out = smi_out},
};

static const struct state_field acpipm_state[] = {
    STATE_FIELD(1, struct acpipm, status),
    STATE_FIELD(2, struct acpipm, enable),
    STATE_FIELD(3, struct acpipm, control),
    STATE_FIELD(4, struct acpipm, smi_command),
};

const struct dev_ops acpipm_ops = {
    .name = "acpipm",
    .summary = "ACPI power management registers",
    .ports = acpipm_ports,
    .port_count = countof(acpipm_ports),
    .state = acpipm_state,
    .state_count = countof(acpipm_state),
    .create = acpipm_create,
    .destroy = acpipm_destroy,
    .reset = acpipm_reset,
    .loaded = acpipm_loaded,
};
