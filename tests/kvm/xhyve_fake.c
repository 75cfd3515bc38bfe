/*
 * The xhyve program with the fake in KVM's place: links all of the command line, and every VM that
 * it makes gets a fake of its own. XHYVE_FAKE_FAILS=1: the fake's emulator does not know vector and
 * x87 instructions and a few others, as KVMs without hardware behind them. XHYVE_FAKE_FAILS=mmio:
 * it runs as fast as the software CPU, and its emulator knows only loads: a Linux boots in it
 * through a rescue for each store to a device. XHYVE_FAKE_SHOWS: it cannot hide features.
 * XHYVE_FAKE_LACKS=NAME: it does without that capability.
 */
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>

#include "fake.h"
#include "vmm/vm.h"

int __wrap_vm_create_from_config(const struct config *cfg, struct log *log, struct vm **out,
                                 struct error *err);
void __real_vm_destroy(struct vm *vm);
void __wrap_vm_destroy(struct vm *vm);

/* The fake outlives the VM; one process makes one VM. */
static struct kvm_fake *fake;

static bool fails(void *ctx, const uint8_t *bytes, unsigned len)
{
    struct x86_insn in;

    (void)ctx;
    if (x86_decode(bytes, len, X86_MODE_64, &in) <= 0)
        return false;
    for (unsigned i = 0; i < in.opnd_count; i++) {
        uint8_t rc = in.opnd[i].rclass;

        if (in.opnd[i].kind == X86_OPND_REG &&
            (rc == X86_RC_VEC || rc == X86_RC_MMX || rc == X86_RC_ST))
            return true;
    }
    return in.enc == X86_ENC_VEX || in.op == X86_CMPXCHG16B || in.op == X86_XRSTOR;
}

#define CAP(n) .name = #n, .cap = KVM_CAP_##n

/* What the engine can do without. 0: there is none of this name, or nothing is lacking. */
static uint32_t lacking(void)
{
    static const struct {
        const char *name;
        uint32_t cap;
    } caps[] = {
        {CAP(EXIT_ON_EMULATION_FAILURE)},
        {CAP(XSAVE)},
        {CAP(XCRS)},
        {CAP(SREGS2)},
        {CAP(DEBUGREGS)},
        {CAP(SET_GUEST_DEBUG)},
        {CAP(READONLY_MEM)},
        {CAP(SPLIT_IRQCHIP)},
        {CAP(SIGNAL_MSI)},
        {CAP(IRQ_ROUTING)},
        {CAP(TSC_DEADLINE_TIMER)},
        {CAP(SYNC_REGS)},
        {CAP(IOEVENTFD)},
        {CAP(IRQFD)},
        {CAP(GET_TSC_KHZ)},
    };
    const char *name = getenv("XHYVE_FAKE_LACKS");

    for (unsigned i = 0; name != NULL && i < sizeof(caps) / sizeof(caps[0]); i++) {
        if (strcmp(caps[i].name, name) == 0)
            return caps[i].cap;
    }
    return 0;
}

int __wrap_vm_create_from_config(const struct config *cfg, struct log *log, struct vm **out,
                                 struct error *err)
{
    const uint32_t missing = lacking();
    const char *what = getenv("XHYVE_FAKE_FAILS");
    bool fast = what != NULL && strcmp(what, "mmio") == 0;
    const struct kvm_fake_options options = {.fails = what != NULL && !fast ? fails : NULL,
                                             .fast = fast,
                                             .missing = &missing,
                                             .missing_count = missing != 0,
                                             .shows = getenv("XHYVE_FAKE_SHOWS") != NULL};

    if (missing == 0 && getenv("XHYVE_FAKE_LACKS") != NULL)
        return error_set(err, -1, "XHYVE_FAKE_LACKS names no capability that is optional");

    fake = kvm_fake_create(&options);
    if (fake == NULL)
        return error_set(err, -1, "no memory for the fake KVM");
    return vm_create_on(cfg, log, kvm_fake_sys(fake), out, err);
}

void __wrap_vm_destroy(struct vm *vm)
{
    __real_vm_destroy(vm);
    kvm_fake_destroy(fake);
    fake = NULL;
}
