#!/bin/sh
# The conformance suite of one backend under emulation: suite.sh FOLDER RESULTS BACKEND [TESTS]
# TESTS, as pytest's -k takes them, are run for themselves: once more what failed and was mended since.
# What has been run to its end for these RESULTS, a folder below FOLDER/build, is not run again.
set -eu
folder=$1 results=$2 backend=$3 tests=${4:-}
here=$(dirname "$0")
report=$results/suite-$backend
[ -z "$tests" ] || report=$results/again-$backend
[ ! -e "$folder/build/$report.xml" ] || exit 0

# A worker that does not answer is given up, and a lock that is not had, after as many times as long
# as usual: the emulation is slow, more so on a busy machine.
export STOREBRIDGE_PATIENCE="${STOREBRIDGE_PATIENCE:-20}"
set -- sh "$here/enter.sh" "$folder" pytest -q -p no:xdist --timeout 7200 --durations 5 \
    --junitxml "/build/$report.xml" -k "$tests" "tests/conformance/test_$backend.py"
if [ "$backend" = postgresql ]; then
    set -- .venv/bin/python -m benchmarks.armv7.postgresql "$@"
fi
git describe --always --dirty --abbrev=10 >"$folder/build/$report.commit"
echo "armv7: $backend ..."
nice -n 19 "$@" >"$folder/build/$report.log" 2>&1 || true # what failed stands in the report
echo "armv7: $backend: $(tail -n 1 "$folder/build/$report.log")"
