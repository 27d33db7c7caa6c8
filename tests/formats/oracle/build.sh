#!/bin/sh
# Builds the two oracles of the bolt tests into a folder (default: .oracle at the project's top):
# Go's own `bbolt` command, and `boltoracle`, which writes to files with Go's library.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/../../../.oracle}
mkdir -p "$out"
out=$(cd "$out" && pwd)
command -v go >/dev/null || { echo "building the bolt oracle needs Go 1.25 or newer" >&2; exit 1; }
# In a copy: Go completes go.mod by what bbolt's own requires, and notes checksums beside it.
sources=$(mktemp -d)
trap 'rm -rf "$sources"' EXIT
cp "$here"/*.go "$here/go.mod" "$sources"
cd "$sources"
go mod tidy
go build -o "$out/bbolt" go.etcd.io/bbolt/cmd/bbolt
go build -o "$out/boltoracle" .
