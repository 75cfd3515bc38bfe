/*
 * The kernel as it comes out of a bzImage's payload: an ELF file, followed by the list of places to
 * change when it runs at another virtual address (vmlinux.relocs). Hostile input. Any thread.
 *
 * The list is read from its end: 32-bit words, in groups that end in a zero word:
 *
 *     ELF | 0 | 64-bit places | 0 | inverse 32-bit places | 0 | 32-bit places |   <- start here
 *
 * Each word is the link address of a place, sign-extended. Inverse places hold a distance from a
 * per-CPU variable and shrink by the slide. Kernels without zero-based per-CPU data lack that
 * group. Link addresses start at VMLINUX_MAP, of which physical ones are the low part.
 */
#ifndef BOOT_VMLINUX_H
#define BOOT_VMLINUX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define VMLINUX_MAP 0xFFFFFFFF80000000ull
#define VMLINUX_WINDOW (1ull << 30) /* virtual room for the kernel's image with KASLR */
#define VMLINUX_SEGMENTS 16u

struct vmlinux_segment {
    uint64_t paddr, filesz, memsz;
    const uint8_t *data;
};

/* Words in file order, into the image; n of them. */
struct vmlinux_places {
    const uint8_t *words;
    size_t n;
};

struct vmlinux {
    uint64_t link;  /* physical address it is linked for */
    uint64_t span;  /* bytes from there to the end of the last segment */
    uint64_t entry; /* offset from link */
    struct vmlinux_segment seg[VMLINUX_SEGMENTS];
    unsigned segs;
    bool movable; /* the three lists are there and valid */
    struct vmlinux_places abs64, inv32, abs32;
};

/*
 * Takes the image apart; `v` points into it. link: the address that the bzImage header gives.
 * -EINVAL with half a sentence ("its ELF ...") if it is not a 64-bit x86 kernel. A list of places
 * that is absent or bad is no error: movable is false then.
 */
int vmlinux_parse(const uint8_t *image, size_t size, uint64_t link, struct vmlinux *v,
                  struct error *err);

/* Copies it to to[0..span), for guest-physical `link` + any aligned displacement. */
void vmlinux_copy(const struct vmlinux *v, uint8_t *to);

/*
 * The same for an image that was unpacked around its place, to[0..span) being part of it: segments
 * only move down, in their order. *places: the lists, which the image no longer holds; free() it.
 * -ENOTSUP: this image cannot be settled so, and nothing has changed; -ENOMEM.
 */
int vmlinux_settle(struct vmlinux *v, uint8_t *to, void **places);

/* Moves the copy by slide bytes of virtual address; v->movable must be set. */
void vmlinux_relocate(const struct vmlinux *v, uint8_t *to, uint64_t slide);

#endif
