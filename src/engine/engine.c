#include "engine/engine.h"

#include "engine/soft/soft.h"

const struct engine_ops *const engine_table[] = {&engine_soft, NULL};
