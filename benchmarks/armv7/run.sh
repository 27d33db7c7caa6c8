#!/bin/sh
# Everything about ARMv7, by `make armv7`: run.sh FOLDER. What is interrupted goes on where it was
# when it is run again at the same commit; to begin anew, remove FOLDER/build/results. With RUN=NAME it
# goes on with the results of that name, be they of another commit: remove those that are to be made
# anew. The page says of each at which commit it was made.
set -eu
folder=$1
here=$(dirname "$0")
missing=""
[ -e /usr/lib/binfmt.d/qemu-arm.conf ] || missing="qemu-user-static"
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null ||
    missing="$missing postgresql"
if [ -n "$missing" ]; then
    apt-get update -qq
    # shellcheck disable=SC2086 # a list
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing >/dev/null
fi

commit() { git describe --always --dirty --abbrev=10; }
results=results/${RUN:-$(commit)}
mkdir -p "$folder/build/$results"
there=$folder/build/$results
emulated() { sh "$here/enter.sh" "$folder" "$@"; }

sh "$here/root.sh" "$folder"
emulated bash benchmarks/armv7/install.sh >"$there/versions.part"
mv "$there/versions.part" "$there/versions"

backends="memory sqlite lmdb bolt tinydb postgresql"
# shellcheck disable=SC2086 # a list
printf '%s\n' $backends | xargs -P "${WORKERS:-2}" -n 1 sh "$here/suite.sh" "$folder" "$results"

if [ ! -e "$there/edges.xml" ]; then
    commit >"$there/edges.commit"
    nice -n 19 sh "$here/enter.sh" "$folder" \
        pytest -q --timeout 7200 --confcutdir=benchmarks/armv7 -o junit_family=xunit1 \
        --junitxml "/build/$results/edges.xml" benchmarks/armv7/edges.py || true # see the report
fi

commit >"$there/ratios.commit"
emulated python -m benchmarks.armv7.ratios "/build/$results/ratios.json" sqlite lmdb bolt tinydb
.venv/bin/python -m benchmarks.armv7.ratios "$there/native.json" sqlite lmdb bolt tinydb
[ -e "$there/wheels.json" ] || .venv/bin/python -m benchmarks.armv7.wheels "$there/wheels.json"
.venv/bin/python -m benchmarks.armv7.report "$there"
