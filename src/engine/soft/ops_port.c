#include "engine/soft/interp.h"

/* Port I/O: permission, breakpoints on ports, IN and OUT; INS and OUTS use the same. */

void port_check(struct soft_cpu *cpu, uint16_t port, unsigned size)
{
    const struct x86_segment *tr = &cpu->st.tr;
    uint32_t map, bits;

    if (!in_protected(cpu) || (!in_vm86(cpu) && cpu->cpl <= ((cpu->st.rflags >> 12) & 3)))
        return;
    if ((tr->attr & 15) != 11 || tr->limit < 103)
        soft_raise_error(cpu, X86_EXC_GP, 0);
    map = (uint32_t)sys_load(cpu, tr->base + 102, 2) + port / 8;
    if (map + 1 > tr->limit)
        soft_raise_error(cpu, X86_EXC_GP, 0);
    bits = (uint32_t)sys_load(cpu, tr->base + map, 2) >> (port & 7);
    if (bits & ((1u << size) - 1))
        soft_raise_error(cpu, X86_EXC_GP, 0);
}

/* CR4.DE: breakpoints of kind 2 are on ports. They trap, as those on data do. */
static void port_breakpoint(struct soft_cpu *cpu, uint16_t port, unsigned size)
{
    for (unsigned i = 0; i < 4; i++) {
        unsigned kind = (cpu->st.dr7 >> (16 + 4 * i)) & 3, len = (cpu->st.dr7 >> (18 + 4 * i)) & 3;
        uint64_t at = cpu->st.dr[i] & ~(uint64_t)len;

        if (((cpu->st.dr7 >> (2 * i)) & 3) != 0 && kind == 2 && (cpu->st.cr4 & X86_CR4_DE) &&
            port < at + len + 1 && at < port + size) {
            cpu->db_hit |= 1u << i;
            soft_set_slow(cpu);
        }
    }
}

static void io_unclaimed(struct soft_cpu *cpu, uint16_t port, unsigned size, bool write, uint64_t v)
{
    if (!cpu->vm->env.strict_io)
        return;
    *cpu->exit = (struct vcpu_exit){.reason = VCPU_EXIT_PIO, .io = {port, (uint8_t)size, write, v}};
    cpu->exit_wanted = true;
    atomic_fetch_or(&cpu->pending, SOFT_PENDING_SLOW);
}

uint32_t port_in(struct soft_cpu *cpu, uint16_t port, unsigned size)
{
    uint64_t v;

    cpu->stats.pio++;
    if (unlikely((cpu->st.dr7 & 0xff) != 0))
        port_breakpoint(cpu, port, size);
    if (!bus_read(cpu->vm->env.bus, cpu->id, BUS_PIO, port, size, &v))
        io_unclaimed(cpu, port, size, false, v);
    return (uint32_t)v;
}

void port_out(struct soft_cpu *cpu, uint16_t port, unsigned size, uint32_t v)
{
    cpu->stats.pio++;
    if (unlikely((cpu->st.dr7 & 0xff) != 0))
        port_breakpoint(cpu, port, size);
    if (!bus_write(cpu->vm->env.bus, cpu->id, BUS_PIO, port, size, v))
        io_unclaimed(cpu, port, size, true, v);
}

/* cc: operand size; src: 1 = the port is the immediate */
static void op_in(struct soft_cpu *cpu, const struct uop *u)
{
    uint16_t port = (uint16_t)(u->src ? u->imm & 0xff : cpu->st.gpr[X86_RDX]);

    port_check(cpu, port, u->cc);
    reg_set(cpu, X86_RAX, u->cc, port_in(cpu, port, u->cc));
}

static void op_out(struct soft_cpu *cpu, const struct uop *u)
{
    uint16_t port = (uint16_t)(u->src ? u->imm & 0xff : cpu->st.gpr[X86_RDX]);

    port_check(cpu, port, u->cc);
    port_out(cpu, port, u->cc, (uint32_t)reg_get(cpu, X86_RAX, u->cc));
}

bool build_port(const struct x86_insn *insn, struct uop *u)
{
    bool in = insn->op == X86_IN;
    const struct x86_opnd *port = &insn->opnd[in ? 1 : 0], *data = &insn->opnd[in ? 0 : 1];

    if (!in && insn->op != X86_OUT)
        return false;
    u->cc = (uint8_t)data->size;
    u->src = port->kind == X86_OPND_IMM;
    u->fn = in ? op_in : op_out;
    u->flags |= UOP_END;
    return true;
}
