#!/bin/sh
# Run a command in .armv7/root under qemu's user emulation: enter.sh FOLDER COMMAND...
# The checkout is at /storebridge, for reading only; FOLDER/build is /build. What is mounted for it
# goes when it ends.
set -eu
root=$1/root build=$1/build
source=$(cd "$(dirname "$0")/../.." && pwd)
shift

mkdir -p "$build"
# The kernel starts programs for ARM by qemu, which is what qemu's package sets up where the system
# was booted in the usual way. To undo it: echo -1 >/proc/sys/fs/binfmt_misc/qemu-arm
formats=/proc/sys/fs/binfmt_misc
[ -e "$formats/register" ] || mount -t binfmt_misc none "$formats"
[ -e "$formats/qemu-arm" ] || cat /usr/lib/binfmt.d/qemu-arm.conf >"$formats/register"

# shellcheck disable=SC2016 # for the inner shell
exec unshare --mount --ipc --propagation private sh -euc '
    root=$1 build=$2 source=$3
    shift 3
    mount --bind "$source" "$root/storebridge"
    mount -o remount,bind,ro "$root/storebridge"
    mount --bind "$build" "$root/build"
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    # How this machine reaches the package registries: names, certificates, settings of pip.
    for each in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/ssl/certs /usr/share/ca-certificates \
        /usr/local/share/ca-certificates "$HOME/.config/pip" ${PIP_FIND_LINKS:-}; do
        [ -e "$each" ] || continue
        if [ -d "$each" ]; then mkdir -p "$root$each"; else touch "$root$each"; fi
        mount --rbind "$each" "$root$each"
    done
    cd /
    exec chroot "$root" env -u PYTHONPATH -u VIRTUAL_ENV -u TMPDIR \
        PATH=/build/venv/bin:/usr/bin:/usr/sbin LANG=C.UTF-8 XDG_CACHE_HOME=/build/cache \
        PYTHONPYCACHEPREFIX=/build/pycache HYPOTHESIS_STORAGE_DIRECTORY=/build/hypothesis \
        sh -euc "cd /storebridge; exec \"\$@\"" sh "$@"
' sh "$root" "$build" "$source" "$@"
