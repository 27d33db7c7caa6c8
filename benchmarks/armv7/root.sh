#!/bin/sh
# Make FOLDER/root: the packages of Debian's armhf that are needed here, unpacked beside each other.
# They come from wherever this machine's own apt gets its packages. Nothing is configured, as that
# would run under emulation and take minutes: what maintainer scripts would do is done by hand.
set -eu
apt=$1/apt
root=$1/root
# A compiler for this machine that compiles for ARM: emulated it would take ten times as long. Its
# programs and libraries have names of their own, so they can lie in the same folders.
compiler=gcc-arm-linux-gnueabihf
packages="base-files base-passwd bash coreutils dash findutils grep libc-bin libc6-dev libffi-dev libpq5
 lmdb-utils mount patch procps python3 python3-dev python3-venv sed sqlite3 tzdata util-linux"

[ "$compiler $packages" != "$(cat "$root/.complete" 2>/dev/null)" ] || exit 0

apt_for() { # ARCHITECTURE ARGUMENT... : apt as for a machine of that kind where nothing is installed
    state=$apt/$1
    mkdir -p "$state/lists/partial" "$state/archives/partial"
    : >"$state/status"
    architecture=$1
    shift
    apt-get -qq -o APT::Architecture="$architecture" -o APT::Architectures::="$architecture" \
        -o APT::Sandbox::User=root -o APT::Keep-Downloaded-Packages=true -o Dir::Cache="$state" \
        -o Dir::State="$state" -o Dir::State::status="$state/status" "$@"
}

download() { # ARCHITECTURE PACKAGE...
    # A mirror may lack one of its indexes for a while; what is needed may stand in the others.
    apt_for "$1" update || echo "armv7: going on without the indexes that did not come" >&2
    apt_for "$1" autoclean >/dev/null # of older versions, which would be unpacked as well
    wanted=$1
    shift
    apt_for "$wanted" install --download-only --no-install-recommends -y "$@" >/dev/null
}

unpack() { # ARCHITECTURE
    for package in "$apt/$1"/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$package" |
            tar --extract --keep-directory-symlink --directory "$root"
    done
}

native=$(dpkg --print-architecture)
# shellcheck disable=SC2086 # a list
download armhf $packages
download "$native" "$compiler"

rm -rf "$root"
mkdir -p "$root/usr/bin" "$root/usr/sbin" "$root/usr/lib"
for each in bin sbin lib; do ln -s "usr/$each" "$root/$each"; done
unpack "$native"
unpack armhf # later, so that what both have is ARM's
cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
ln -sf "arm-linux-gnueabihf-gcc" "$root/usr/bin/gcc"
ln -sf gcc "$root/usr/bin/cc"
ln -sf dash "$root/usr/bin/sh"
mkdir -p "$root/storebridge" "$root/build" "$root/run/lock"
printf '%s' "$compiler $packages" >"$root/.complete"
