/* The software CPU as an engine. */
#ifndef ENGINE_SOFT_SOFT_H
#define ENGINE_SOFT_SOFT_H

#include "engine/engine.h"

extern const struct engine_ops engine_soft;

#endif
