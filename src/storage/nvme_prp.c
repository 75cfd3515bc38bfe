/*
 * Physical Region Pages: how a command names the memory of its data. PRP1 is the first piece and
 * may begin inside a page. PRP2 is the second page if that is all, else a list of pages, whose last
 * entry in a page leads to the next page of the list if more pages are to come.
 */
#include <string.h>

#include "base/endian.h"
#include "mem/gmem.h"
#include "storage/nvme_impl.h"

#define PAGE_OFFSET(gpa) ((gpa) & (NVME_PAGE - 1u))

/* Entries of a list that were copied and not yet used. */
struct prp_list {
    uint8_t raw[NVME_PAGE];
    unsigned next, count;
};

static uint16_t map_add(struct nvme *n, struct nvme_map *m, uint64_t gpa, uint64_t len)
{
    char *hva = gmem_ptr(n->env->mem, gpa, len);
    struct iovec *last;

    if (hva == NULL)
        return ST_DATA_TRANSFER;
    if (m->count > 0) {
        last = &m->iov[m->count - 1];
        if (m->gpa[m->count - 1] + last->iov_len == gpa &&
            (char *)last->iov_base + last->iov_len == hva) {
            last->iov_len += len;
            return ST_SUCCESS;
        }
    }
    m->iov[m->count].iov_base = hva;
    m->iov[m->count].iov_len = len;
    m->gpa[m->count++] = gpa;
    return ST_SUCCESS;
}

/* Copies the list at gpa up to its page's end; at least pages entries, if they fit, are needed. */
static uint16_t list_load(struct nvme *n, struct prp_list *l, uint64_t gpa, uint64_t pages)
{
    uint64_t fit = (NVME_PAGE - PAGE_OFFSET(gpa)) / 8;

    l->next = 0;
    l->count = (unsigned)min_u64(fit, pages);
    return gmem_read(n->env->mem, gpa, l->raw, l->count * 8) == 0 ? ST_SUCCESS : ST_DATA_TRANSFER;
}

/* len bytes by the list at gpa. Lists need not end: len bounds the work. */
static uint16_t map_list(struct nvme *n, struct nvme_map *m, uint64_t gpa, uint64_t len)
{
    uint64_t pages = (len + NVME_PAGE - 1) / NVME_PAGE;
    struct prp_list l;
    uint16_t st;

    if ((gpa & 7) != 0)
        return ST_PRP_OFFSET;
    st = list_load(n, &l, gpa, pages);
    while (st == ST_SUCCESS && pages > 0) {
        uint64_t piece = min_u64(len, NVME_PAGE);
        uint64_t entry = le64_load(l.raw + 8 * l.next++);

        if (PAGE_OFFSET(entry) != 0)
            return ST_PRP_OFFSET;
        if (l.next == l.count && pages > 1) {
            /* Never without progress: a page of list has at least two entries, or this is the
             * one entry at the end of the first page. */
            st = list_load(n, &l, entry, pages);
            continue;
        }
        st = map_add(n, m, entry, piece);
        len -= piece;
        pages--;
    }
    return st;
}

uint16_t nvme_prp_map(struct nvme *n, uint64_t prp1, uint64_t prp2, uint64_t len,
                      struct nvme_map *m)
{
    uint64_t first = min_u64(len, NVME_PAGE - PAGE_OFFSET(prp1));
    uint16_t st;

    m->count = 0;
    if ((prp1 & 3) != 0)
        return ST_PRP_OFFSET;
    st = map_add(n, m, prp1, first);
    len -= first;
    if (st != ST_SUCCESS || len == 0)
        return st;
    if (len > NVME_PAGE)
        return map_list(n, m, prp2, len);
    return PAGE_OFFSET(prp2) != 0 ? ST_PRP_OFFSET : map_add(n, m, prp2, len);
}

void nvme_map_written(struct nvme *n, const struct nvme_map *m)
{
    for (unsigned i = 0; i < m->count; i++)
        gmem_written(n->env->mem, m->gpa[i], m->iov[i].iov_len);
}

uint16_t nvme_copy_to_host(struct nvme *n, const struct nvme_cmd *c, const void *from, uint64_t len)
{
    struct nvme_map *m = &n->admin_map;
    const char *p = from;
    uint16_t st = nvme_prp_map(n, c->prp1, c->prp2, len, m);

    if (st != ST_SUCCESS)
        return st;
    for (unsigned i = 0; i < m->count; i++) {
        memcpy(m->iov[i].iov_base, p, m->iov[i].iov_len);
        p += m->iov[i].iov_len;
    }
    nvme_map_written(n, m);
    return ST_SUCCESS;
}

uint16_t nvme_copy_from_host(struct nvme *n, const struct nvme_cmd *c, void *to, uint64_t len)
{
    struct nvme_map *m = &n->admin_map;
    char *p = to;
    uint16_t st = nvme_prp_map(n, c->prp1, c->prp2, len, m);

    for (unsigned i = 0; st == ST_SUCCESS && i < m->count; i++) {
        memcpy(p, m->iov[i].iov_base, m->iov[i].iov_len);
        p += m->iov[i].iov_len;
    }
    return st;
}
