#!/bin/sh
# The rules of the layers, for src/: who may include whom, and where the operating system's name may
# be asked. Prints each breach; status 1 if there is one.
#     tools/check-includes.sh [DIR]      DIR: a tree laid out like src/
set -eu
cd "${1:-$(dirname "$0")/../src}"

find . -name '*.c' -o -name '*.h' -o -name '*.def' | sed 's|^\./||' | LC_ALL=C sort |
    tr '\n' '\0' | xargs -0 awk '
BEGIN {
    # A file includes its own folder and lower levels.
    n = split("base:0 host:1 x86:1 mem:2 bus:3 engine:4 block:4 net:4 chardev:4 dev:5 pci:5 " \
        "virtio:6 storage:6 nic:6 share:6 usb:6 display:6 boot:6 vmm:7 ctl:8 cli:9", pair, " ")
    for (i = 1; i <= n; i++) {
        split(pair[i], part, ":")
        level[part[1]] = part[2]
    }
    may["pci/dev"] = 1 # lpc and uart hold chips
    may["virtio/storage"] = 1 # virtio-scsi carries the commands of storage/scsi.c
    # The CPU and the devices meet in bus/ and are joined in vmm/; boot/ knows no device.
    n = split("engine/dev engine/pci engine/virtio engine/storage engine/nic dev/engine pci/engine " \
        "virtio/engine storage/engine nic/engine boot/dev boot/pci boot/virtio boot/storage boot/nic " \
        "boot/engine boot/chardev boot/block boot/net", pair, " ")
    for (i = 1; i <= n; i++)
        never[pair[i]] = 1
}

function breach(text) {
    printf "src/%s:%d: %s\n", FILENAME, FNR, text
    bad = 1
}

FNR == 1 {
    split(FILENAME, path, "/")
    own = path[1]
    if (!(own in level) && FILENAME ~ /\//)
        breach("folder " own " has no level; give it one in tools/check-includes.sh")
}

/^#[ \t]*include[ \t]*"/ {
    split($0, quoted, "\"")
    if (split(quoted[2], path, "/") < 2)
        breach("\"" quoted[2] "\" does not name its folder")
    else if (path[1] == own || (own "/" path[1]) in may)
        ;
    else if (!(path[1] in level))
        breach("\"" quoted[2] "\" is in no known folder")
    else if ((own "/" path[1]) in never)
        breach(own "/ may never include " path[1] "/: \"" quoted[2] "\"")
    else if (level[path[1]] >= level[own])
        breach(own "/ (level " level[own] ") includes " path[1] "/ (level " level[path[1]] "): \"" \
            quoted[2] "\"")
}

/^#[ \t]*(if|ifdef|ifndef|elif).*(__linux__|__APPLE__|__FreeBSD__|_WIN32)/ {
    if (own != "host" && FILENAME !~ /^(engine\/(kvm|hvf)|net|block)\//)
        breach("only host/ and named back ends may ask for the operating system")
}

END { exit bad }
' && exit 0
exit 1
