#include "engine/engine.h"

#include "engine/null/null.h"
#include "engine/soft/soft.h"
#if HAVE_KVM
#include "engine/kvm/kvm.h"
#endif

const struct engine_ops *const engine_table[] = {
#if HAVE_KVM
    &engine_kvm,
#endif
    &engine_soft,
    &engine_null,
    NULL,
};
