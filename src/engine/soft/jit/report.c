#include "engine/soft/jit/internal.h"

/* What the translator has counted, for --stats. */

void jit_report(void *vcpu, FILE *to)
{
    struct soft_cpu *cpu = vcpu;
    struct jit *j = cpu->jit;
    struct jit_stats s;

    if (j == NULL)
        return;
    s = j->stats;
    fprintf(to,
            "vcpu %u: translated %llu instructions in %llu blocks, %llu bytes of code, %llu ns for "
            "each; cache emptied %llu times, %llu blocks overwritten\n",
            cpu->id, (unsigned long long)s.translated, (unsigned long long)s.blocks,
            (unsigned long long)s.bytes,
            (unsigned long long)(s.translated != 0 ? s.ns / s.translated : 0),
            (unsigned long long)s.flushes, (unsigned long long)s.kills);
    fprintf(to,
            "vcpu %u: TLB filled %llu times; %llu accesses by the interpreter (two pages, devices, "
            "code); %llu targets looked up, %llu links made, %llu shared probes given up\n",
            cpu->id, (unsigned long long)s.fills, (unsigned long long)s.steps,
            (unsigned long long)s.misses, (unsigned long long)s.links, (unsigned long long)s.apart);
    fprintf(to,
            "vcpu %u: TLB misses: %llu pages not there, %llu not for writing, %llu over two pages, "
            "%llu shared over two, %llu not aligned; %llu were no RAM or code\n",
            cpu->id, (unsigned long long)s.whys[WHY_ABSENT], (unsigned long long)s.whys[WHY_WRITE],
            (unsigned long long)s.whys[WHY_CROSSING], (unsigned long long)s.whys[WHY_SPAN],
            (unsigned long long)s.whys[WHY_ALIGN], (unsigned long long)s.whys[WHY_NO_RAM]);
    fprintf(
        to,
        "vcpu %u: left: %llu for something pending, %llu for another mode, %llu for code that is "
        "not translated, %llu because of what an instruction changed\n",
        cpu->id, (unsigned long long)s.leaves[LEAVE_PENDING],
        (unsigned long long)s.leaves[LEAVE_MODE], (unsigned long long)s.leaves[LEAVE_CODE],
        (unsigned long long)s.leaves[LEAVE_CHANGED]);
    fprintf(to, "vcpu %u: instructions left to the interpreter:", cpu->id);
    for (unsigned n = 0; n < 24; n++) {
        unsigned most = 0;

        for (unsigned i = 1; i < X86_OP_COUNT; i++) {
            if (s.helpers[i] > s.helpers[most])
                most = i;
        }
        if (s.helpers[most] == 0)
            break;
        fprintf(to, " %s %llu", x86_op_name((enum x86_op)most),
                (unsigned long long)s.helpers[most]);
        s.helpers[most] = 0;
    }
    fputc('\n', to);
}
