/* virtio-rnd: the host's random numbers. virtio 1.2, "Entropy Device". */
#include <errno.h>
#include <stdlib.h>

#include "host/random.h"
#include "virtio/pci.h"
#include "virtio/virtio.h"

#define RND_QUEUE 0u
#define RND_QUEUE_SIZE 64u

/*
 * A request may ask for gigabytes, all under the device's lock; the device may give less than was
 * asked for, but at least a byte.
 */
#define RND_REQUEST_MAX 4096u

struct rnd {
    struct dev_env *env;
    struct virtio *v;
};

static int rnd_type_create(struct virtio *v, struct dev_env *env, const struct options *opts,
                           void **out, struct error *err)
{
    struct rnd *r = calloc(1, sizeof(*r));

    (void)opts;
    if (r == NULL)
        return error_set(err, -ENOMEM, "no memory for virtio-rnd");
    r->env = env;
    r->v = v;
    *out = r;
    return 0;
}

static void rnd_notify(void *dev, unsigned queue)
{
    struct rnd *r = dev;
    struct virtio *v = r->v;
    uint8_t bytes[RND_REQUEST_MAX];
    struct virtq_chain c;

    while (virtio_pop(v, queue, &c)) {
        size_t len = (size_t)min_u64(c.in_len, sizeof(bytes));

        if (len == 0) {
            virtio_fail(v, "a request for random numbers has no room for them");
            break;
        }
        if (host_random(bytes, len) != 0) {
            /* Kept waiting rather than answered with what is not random. */
            virtq_unpop(virtio_queue(v, queue), &c.token);
            log_error(r->env->log, "the host has no random numbers");
            break;
        }
        len = virtq_copy_in(virtio_queue(v, queue), &c, 0, bytes, len);
        virtio_push(v, queue, &c.token, (uint32_t)len);
    }
    virtio_flush(v, RND_QUEUE);
}

static const struct virtio_ops rnd_ops = {
    .id = 4,
    .pci_id = 0x1005,
    .class_code = 0x100000, /* encryption controller: network and computing */
    .queues = 1,
    .queue_size = RND_QUEUE_SIZE,
    .create = rnd_type_create,
    .destroy = free,
    .notify = rnd_notify,
};

static int rnd_create(struct dev_env *env, struct pci_func *f, const struct options *opts,
                      void **out, struct error *err)
{
    return virtio_pci_create(env, f, opts, &rnd_ops, out, err);
}

static const struct dev_option rnd_options[] = {VIRTIO_PCI_OPTIONS};

const struct pci_ops virtio_rnd_ops = {
    .name = "virtio-rnd",
    .summary = "random numbers from the host",
    .options = rnd_options,
    .option_count = countof(rnd_options),
    .create = rnd_create,
    VIRTIO_PCI_OPS,
};
