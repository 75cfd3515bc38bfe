#!/bin/sh
# make check-fresh: make and make check in a new minimal Debian that has only git and make, to show
# that tools/deps.sh leaves nothing out. Needs root (debootstrap and chroot) and the network; the
# package sources are this system's. The new system is in $FRESH, build/fresh by default, and removed
# at the end unless KEEP is set.
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || {
    echo "check-fresh: debootstrap and chroot need root: sudo make check-fresh" >&2
    exit 1
}
fresh=${FRESH:-$PWD/build/fresh}
suite=$(. /etc/os-release && [ "$ID" = debian ] && echo "${VERSION_CODENAME-}" || :)
suite=${suite:-bookworm}

# The first archive of that suite among apt's sources, in either form of file.
mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE) $(CODENAME)' 2>/dev/null |
    awk -v suite="$suite" '$2 == suite || $3 == suite { print $1; exit }')
[ -n "$mirror" ] || {
    echo "check-fresh: apt has no source for $suite; run apt-get update first" >&2
    exit 1
}

clean() {
    for mount in dev/pts dev sys proc; do
        ! mountpoint -q "$fresh/$mount" || umount "$fresh/$mount" || umount -l "$fresh/$mount"
    done
    # never across a mount that is still there
    [ -n "${KEEP-}" ] || rm -rf --one-file-system "$fresh"
}
clean
trap clean EXIT
trap 'exit 130' INT TERM

echo "check-fresh: a minimal $suite in $fresh"
mkdir -p "$(dirname "$fresh")"
debootstrap --variant=minbase --include=git,make,ca-certificates "$suite" "$fresh" "$mirror" \
    >"$fresh.log" 2>&1 || {
    tail -n 20 "$fresh.log"
    echo "check-fresh: debootstrap failed; all it said is in $fresh.log" >&2
    exit 1
}

# The same package sources, with the keys they name, and the same way to the network.
rm -rf "$fresh/etc/apt/sources.list" "$fresh/etc/apt/sources.list.d"
mkdir -p "$fresh/etc/apt/sources.list.d"
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
    # other archives, for programs of this system, would need keys and transports of their own
    if [ -f "$file" ] && grep -q "$suite" "$file" && grep -q -E "debian-archive|^deb .*$mirror" "$file"; then
        cp "$file" "$fresh$file"
    fi
done
[ -n "$(ls -A "$fresh/etc/apt/sources.list.d")" ] || [ -f "$fresh/etc/apt/sources.list" ] ||
    echo "deb $mirror $suite main" >"$fresh/etc/apt/sources.list"
cp /etc/resolv.conf "$fresh/etc/resolv.conf"
cp /etc/hosts "$fresh/etc/hosts"
for file in /etc/apt/apt.conf.d/*; do
    ! grep -q -i proxy "$file" || cp "$file" "$fresh/etc/apt/apt.conf.d/"
done

mkdir -p "$fresh/proc" "$fresh/sys" "$fresh/dev/pts"
mount -t proc proc "$fresh/proc"
mount -t sysfs -o ro sys "$fresh/sys" || echo "check-fresh: no /sys in there"
mount --bind /dev "$fresh/dev"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$fresh/dev/pts" ||
    mount --bind /dev/pts "$fresh/dev/pts"

# The tree as it stands, also what is not committed; nothing that was built.
mkdir -p "$fresh/root/tree"
git ls-files -z --cached --others --exclude-standard |
    tar --null --ignore-failed-read -T - -cf - | tar -C "$fresh/root/tree" -xf -

echo "check-fresh: make and make check in there"
status=0
chroot "$fresh" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb CI=true \
    ${http_proxy:+http_proxy=$http_proxy} ${https_proxy:+https_proxy=$https_proxy} \
    sh -c 'cd /root/tree && git init -q . && make && make check' || status=$?
[ "$status" -eq 0 ] && echo "check-fresh: a new Debian builds and checks this tree" ||
    echo "check-fresh: failed with status $status" >&2
exit "$status"
