/*
 * The configuration tree: every option of a VM as dotted keys and string values, with bhyve's names
 * ("memory.size", "pci.0.1.0.device"). The command line, config files and -o fill it; the VM reads
 * only it. One thread at a time; read-only once the VM runs.
 */
#ifndef BASE_CONFIG_H
#define BASE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

struct config; /* a node: the root, or a subtree such as pci.0.1.0 */

struct config *config_create(void);
void config_destroy(struct config *root);

/* Copies value; an existing one is replaced. Key is relative to node. -EINVAL for an empty part. */
int config_set(struct config *node, const char *key, const char *value, struct error *err);

/* Value as stored, NULL if unset. Borrowed until the next change. */
const char *config_get(const struct config *node, const char *key);

/* Subtree, or NULL. */
const struct config *config_find(const struct config *node, const char *key);

/* The n-th child in order of insertion and its name, NULL past the last. */
const struct config *config_child(const struct config *node, size_t n, const char **name);

/* The node's own value, NULL if it has none. */
const char *config_value(const struct config *node);

/*
 * Typed reads with a default where the key is unset. -EINVAL with a sentence naming key and value
 * otherwise. bool: true/false, yes/no, on/off, 1/0. size: decimal or 0x with k, m, g, t.
 */
int config_bool(const struct config *node, const char *key, bool dflt, bool *out,
                struct error *err);
int config_u64(const struct config *node, const char *key, uint64_t dflt, uint64_t *out,
               struct error *err);
int config_size(const struct config *node, const char *key, uint64_t dflt, uint64_t *out,
                struct error *err);

/* Strict number parsers: the whole text must be the number. 0 or -EINVAL (-ERANGE on overflow). */
int parse_u64(const char *text, uint64_t *out);
int parse_size(const char *text, uint64_t *out); /* suffixes k m g t, powers of 1024 */

/* Replaces every %(key) by that key's value; new string, caller frees. NULL and err otherwise. */
char *config_expand(const struct config *root, const char *text, struct error *err);

/* Prints "key=value" lines, sorted by key. */
void config_dump(const struct config *root, FILE *to);

/*
 * The entry of names[0..count) nearest to word (edit distance), or NULL if none is near. For
 * "unknown device 'virtio-rng'; did you mean 'virtio-rnd'?".
 */
const char *nearest_name(const char *word, const char *const *names, size_t count);

#endif
