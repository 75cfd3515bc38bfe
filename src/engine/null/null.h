/*
 * The null engine: vCPUs with state, and none of their instructions run. For looking at a machine
 * as it is built (devices, tables, guest memory, control socket) on any host, and the smallest
 * example of an engine. Threads as engine.h says.
 */
#ifndef ENGINE_NULL_NULL_H
#define ENGINE_NULL_NULL_H

#include "engine/engine.h"

extern const struct engine_ops engine_null;

#endif
