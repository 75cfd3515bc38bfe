/*
 * What xhyve-record writes about the files of its disks, and guest-crash reads: each call that
 * changes a file, when it began and when it had ended, all files in one order. Entries follow each
 * other without a gap, in the host's byte order.
 */
#ifndef TESTS_BLOCK_TRACE_H
#define TESTS_BLOCK_TRACE_H

#include <stdint.h>

#define TRACE_MAGIC 0x7261ce01u

enum trace_kind {
    TRACE_FILE,    /* opened: len bytes of its path follow; offset is its size */
    TRACE_WRITE,   /* begins: len bytes of data follow */
    TRACE_ZERO,    /* begins */
    TRACE_DISCARD, /* begins */
    TRACE_FLUSH,   /* begins */
    TRACE_SIZE,    /* begins: the file's size becomes offset */
    TRACE_END,     /* the one with that id has ended; offset: 1 if all of it was done, else 0 */
};

struct trace_entry {
    uint32_t magic, kind;
    uint32_t file; /* counts from 0, by TRACE_FILE */
    uint32_t id;   /* of a call, counts from 1 */
    uint64_t offset, len;
};

#endif
