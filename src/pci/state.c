/*
 * PCI in a snapshot: the address latch, then for each function its place, what the guest wrote to
 * configuration space, its interrupts, and the device's own. A snapshot is untrusted: of
 * configuration space only what the guest could have written is taken over.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "pci/internal.h"

struct func_state {
    uint8_t bdf[4];
    uint8_t intx_level;
    uint32_t msi_pending;
    uint32_t msix_vectors;
    uint8_t mapped; /* a bit for each BAR: of two at one address the first to come has it */
    uint8_t cfg[PCI_CFG_SIZE];
};

static const struct state_field pci_fields[] = {
    STATE_FIELD(1, struct pci, address),
    STATE_FIELD(2, struct pci, func_count),
};

static const struct state_field func_fields[] = {
    STATE_FIELD(1, struct func_state, bdf),         STATE_FIELD(2, struct func_state, intx_level),
    STATE_FIELD(3, struct func_state, msi_pending), STATE_FIELD(4, struct func_state, msix_vectors),
    STATE_FIELD(5, struct func_state, cfg),         STATE_FIELD(6, struct func_state, mapped),
};

#define MSI_PENDING_OFFSET 0x14u

static size_t pba_size(const struct pci_func *f)
{
    return (f->msix.vectors + 63) / 64 * 8;
}

static void func_place(const struct pci_func *f, uint8_t bdf[4])
{
    bdf[0] = f->bus;
    bdf[1] = f->slot;
    bdf[2] = f->func;
    bdf[3] = 0;
}

static void func_save(struct pci_func *f, struct func_state *s, struct state_buf *out)
{
    struct timerq *q = f->env->timers;

    memset(s, 0, sizeof(*s));
    func_place(f, s->bdf);
    s->intx_level = f->intx_level;
    if (f->msi_cap != 0)
        s->msi_pending = le32_load(f->cfg + f->msi_cap + MSI_PENDING_OFFSET);
    s->msix_vectors = f->msix.vectors;
    for (unsigned i = 0; i < PCI_BAR_SLOTS; i++)
        s->mapped |= (uint8_t)(f->bars[i].mapped << i);
    memcpy(s->cfg, f->cfg, sizeof(s->cfg));
    state_save(func_fields, countof(func_fields), s, q, out);
    state_append(out, f->msix.table, f->msix.vectors * 16u);
    state_append(out, f->msix.pba, pba_size(f));
    state_save(f->ops->state, f->ops->state_count, f->impl, q, out);
    if (f->ops->save != NULL)
        f->ops->save(f->impl, out);
}

void pci_save(struct pci *p, struct state_buf *out)
{
    struct func_state *s = malloc(sizeof(*s));

    if (s == NULL) {
        out->error = -ENOMEM;
        return;
    }
    pthread_mutex_lock(&p->env->lock);
    for (unsigned i = 0; i < p->func_count; i++) {
        struct pci_func *f = p->funcs[i];

        pthread_mutex_lock(&f->env->lock);
        pci_bells_poll(f);
        if (f->ops->quiesce != NULL)
            f->ops->quiesce(f->impl);
        pthread_mutex_unlock(&f->env->lock);
    }
    state_save(pci_fields, countof(pci_fields), p, p->env->timers, out);
    for (unsigned i = 0; i < p->func_count; i++) {
        pthread_mutex_lock(&p->funcs[i]->env->lock);
        func_save(p->funcs[i], s, out);
        pthread_mutex_unlock(&p->funcs[i]->env->lock);
    }
    pthread_mutex_unlock(&p->env->lock);
    free(s);
}

static int take(void *to, size_t n, const uint8_t *data, size_t len, size_t *pos)
{
    if (*pos > len || len - *pos < n)
        return -EINVAL;
    if (n != 0)
        memcpy(to, data + *pos, n);
    *pos += n;
    return 0;
}

static void msix_sane(struct pci_func *f)
{
    for (unsigned i = 0; i < f->msix.vectors; i++)
        le32_store(f->msix.table + i * 16 + 12, f->msix.table[i * 16 + 12] & 1u);
    if (f->msix.vectors % 64 != 0)
        f->msix.pba[f->msix.vectors / 64] &= (1ull << f->msix.vectors % 64) - 1;
}

/* Those that were not mapped wait until all others are, and are not complained of again. */
static void hold_bars(struct pci_func *f, uint8_t mapped)
{
    for (unsigned i = 0; i < PCI_BAR_SLOTS; i++) {
        struct pci_bar *b = &f->bars[i];

        if (b->type == PCI_BAR_NONE || (mapped >> i & 1) != 0)
            continue;
        b->held = true;
        b->refused = true;
        b->refused_at = pci_bar_addr(b);
    }
}

static void release_bars(struct pci_func *f)
{
    for (unsigned i = 0; i < PCI_BAR_SLOTS; i++)
        f->bars[i].held = false;
}

static int func_load(struct pci_func *f, struct func_state *s, const uint8_t *data, size_t len,
                     size_t *pos, struct error *err)
{
    struct timerq *q = f->env->timers;
    uint8_t bdf[4];
    int rc;

    memset(s, 0, sizeof(*s));
    memcpy(s->cfg, f->cfg, sizeof(s->cfg));
    rc = state_load(func_fields, countof(func_fields), s, q, data, len, pos, err);
    if (rc != 0)
        return rc;
    func_place(f, bdf);
    if (memcmp(bdf, s->bdf, sizeof(bdf)) != 0 || s->msix_vectors != f->msix.vectors)
        return error_set(err, -EINVAL, "%s: the saved state is of another PCI device",
                         f->env->name);
    for (unsigned i = 0; i < PCI_CFG_SIZE; i++)
        f->cfg[i] = (uint8_t)((f->cfg[i] & ~f->wmask[i]) | (s->cfg[i] & f->wmask[i]));
    hold_bars(f, s->mapped);
    if (f->msi_cap != 0)
        le32_store(f->cfg + f->msi_cap + MSI_PENDING_OFFSET,
                   s->msi_pending & ((uint32_t)~0u >> (32 - f->msi_vectors)));
    if (take(f->msix.table, f->msix.vectors * 16u, data, len, pos) != 0 ||
        take(f->msix.pba, pba_size(f), data, len, pos) != 0)
        return error_set(err, -EINVAL, "%s: the saved state ends early", f->env->name);
    msix_sane(f);
    pci_msix_tell(f);
    rc = state_load(f->ops->state, f->ops->state_count, f->impl, q, data, len, pos, err);
    if (rc == 0 && f->ops->load != NULL)
        rc = f->ops->load(f->impl, data, len, pos, err);
    if (rc != 0)
        return rc;
    f->intx_level = s->intx_level != 0 && f->pin != 0;
    pci_intx_update(f);
    if (f->ops->loaded != NULL)
        f->ops->loaded(f->impl);
    return 0;
}

int pci_load(struct pci *p, const uint8_t *data, size_t len, size_t *pos, struct error *err)
{
    struct func_state *s = malloc(sizeof(*s));
    unsigned count = p->func_count;
    int rc;

    if (s == NULL)
        return error_set(err, -ENOMEM, "no memory to load PCI state");
    pthread_mutex_lock(&p->env->lock);
    rc = state_load(pci_fields, countof(pci_fields), p, p->env->timers, data, len, pos, err);
    if (rc == 0 && p->func_count != count)
        rc = error_set(err, -EINVAL, "the saved state has %u PCI functions, this VM has %u",
                       p->func_count, count);
    p->func_count = count;
    for (unsigned i = 0; i < count; i++)
        pci_bars_unmap(p->funcs[i]);
    for (unsigned i = 0; i < count && rc == 0; i++) {
        pthread_mutex_lock(&p->funcs[i]->env->lock);
        rc = func_load(p->funcs[i], s, data, len, pos, err);
        pthread_mutex_unlock(&p->funcs[i]->env->lock);
    }
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < count; i++) {
            pthread_mutex_lock(&p->funcs[i]->env->lock);
            pci_bars_update(p->funcs[i]);
            release_bars(p->funcs[i]);
            pthread_mutex_unlock(&p->funcs[i]->env->lock);
        }
    }
    pthread_mutex_unlock(&p->env->lock);
    free(s);
    return rc;
}
