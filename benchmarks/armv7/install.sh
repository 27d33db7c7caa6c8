#!/bin/bash
# Within the root: install the checkout with every backend and what its tests need into /build/venv.
# msgspec, lmdb and zstandard have no wheels for this platform, so they are compiled; pip keeps what
# it compiled, so that this takes long only once.
set -eu
ldconfig # by whose list psycopg finds libpq
ready=/build/venv/.ready
[ -x /build/venv/bin/python ] || python3 -m venv /build/venv
robust=$PWD/benchmarks/armv7/robust.h # which says what for
[ "$ready" -nt "$robust" ] ||
    CFLAGS="-include $robust" pip install --quiet --no-cache-dir --force-reinstall --no-binary lmdb lmdb
[ "$ready" -nt pyproject.toml ] || pip install --quiet --editable '.[all,testing]' 'pytest-timeout>=2.3'
touch "$ready"
pip list --format=freeze
