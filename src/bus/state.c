#include "bus/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "bus/timer.h"

/* A field on the wire: tag 16, kind 8, 0, length 32, bytes. A section ends with a zero tag. */
enum { FIELD_HEADER = 8 };

void state_append(struct state_buf *b, const void *data, size_t len)
{
    if (b->error != 0 || len == 0)
        return;
    if (b->cap - b->len < len) {
        size_t cap = (b->len + len) * 2;
        uint8_t *grown = realloc(b->data, cap);

        if (grown == NULL) {
            b->error = -ENOMEM;
            return;
        }
        b->data = grown;
        b->cap = cap;
    }
    memcpy(b->data + b->len, data, len);
    b->len += len;
}

static void append_header(struct state_buf *out, uint16_t tag, uint8_t kind, uint32_t len)
{
    uint8_t h[FIELD_HEADER] = {0};

    le16_store(h, tag);
    h[2] = kind;
    le32_store(h + 4, len);
    state_append(out, h, sizeof(h));
}

void state_save(const struct state_field *fields, size_t count, const void *obj, struct timerq *q,
                struct state_buf *out)
{
    const char *base = obj;

    for (size_t i = 0; i < count; i++) {
        const struct state_field *f = &fields[i];
        uint8_t v[9] = {0};

        switch ((enum state_kind)f->kind) {
        case STATE_KIND_BYTES:
            append_header(out, f->tag, f->kind, f->size);
            state_append(out, base + f->offset, f->size);
            break;
        case STATE_KIND_CLOCK:
            append_header(out, f->tag, f->kind, 8);
            le64_store(v, le64_load(base + f->offset) - timerq_now(q));
            state_append(out, v, 8);
            break;
        case STATE_KIND_TIMER: {
            const struct timer *const *t = (const void *)(base + f->offset);
            uint64_t when = *t != NULL ? timer_when(*t) : UINT64_MAX;

            append_header(out, f->tag, f->kind, 9);
            v[0] = when != UINT64_MAX;
            le64_store(v + 1, when - timerq_now(q));
            state_append(out, v, 9);
            break;
        }
        }
    }
    append_header(out, 0, 0, 0);
}

/* A bool that is neither has no meaning in C: code that looks at it twice may see both. */
static bool all_truths(const uint8_t *v, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++)
        if (v[i] > 1)
            return false;
    return true;
}

static int load_field(const struct state_field *f, char *base, struct timerq *q, const uint8_t *v,
                      uint32_t len, struct error *err)
{
    uint32_t want = f->kind == STATE_KIND_BYTES ? f->size : f->kind == STATE_KIND_CLOCK ? 8 : 9;

    if (len != want)
        return error_set(err, -EINVAL, "saved field %u has %u bytes instead of %u", f->tag, len,
                         want);
    if (f->truth && !all_truths(v, len))
        return error_set(err, -EINVAL, "saved field %u is neither true nor false", f->tag);
    switch ((enum state_kind)f->kind) {
    case STATE_KIND_BYTES:
        memcpy(base + f->offset, v, len);
        break;
    case STATE_KIND_CLOCK:
        le64_store(base + f->offset, le64_load(v) + timerq_now(q));
        break;
    case STATE_KIND_TIMER: {
        struct timer **t = (void *)(base + f->offset);

        if (*t == NULL)
            break;
        if (v[0] != 0)
            timer_set(*t, le64_load(v + 1) + timerq_now(q));
        else
            timer_cancel(*t);
        break;
    }
    }
    return 0;
}

int state_load(const struct state_field *fields, size_t count, void *obj, struct timerq *q,
               const uint8_t *data, size_t len, size_t *pos, struct error *err)
{
    for (;;) {
        const struct state_field *f = NULL;
        const uint8_t *h = data + *pos;
        uint32_t size;
        uint16_t tag;
        int rc;

        if (len - *pos < FIELD_HEADER)
            return error_set(err, -EINVAL, "the saved state ends inside a device's fields");
        tag = le16_load(h);
        size = le32_load(h + 4);
        *pos += FIELD_HEADER;
        if (tag == 0)
            return 0;
        if (len - *pos < size)
            return error_set(err, -EINVAL, "the saved state ends inside field %u", tag);
        for (size_t i = 0; i < count && f == NULL; i++)
            f = fields[i].tag == tag && fields[i].kind == h[2] ? &fields[i] : NULL;
        if (f == NULL)
            return error_set(err, -EINVAL, "saved field %u is not known to this version", tag);
        rc = load_field(f, obj, q, h + FIELD_HEADER, size, err);
        if (rc != 0)
            return rc;
        *pos += size;
    }
}
