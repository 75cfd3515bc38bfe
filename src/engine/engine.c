#include "engine/engine.h"

#include "engine/null/null.h"
#include "engine/soft/soft.h"

const struct engine_ops *const engine_table[] = {&engine_soft, &engine_null, NULL};
