#!/bin/sh
# Runs a command where /dev has nothing but null, or also a file in KVM's place:
#     without_kvm.sh [--fake] COMMAND...
# In a mount namespace of its own; the status is 1 if this user gets none.
set -eu
if [ "${1-}" != --inside ]; then
    exec unshare --map-root-user --mount "$0" --inside "$@"
fi
shift
exec 9</dev/null
mount -t tmpfs none /dev
: >/dev/null
mount --no-canonicalize --bind /proc/self/fd/9 /dev/null
exec 9<&-
if [ "$1" = --fake ]; then
    shift
    : >/dev/kvm
fi
exec "$@"
