//go:build tools

// Keeps the command's own dependencies in go.mod, so that it builds from the same pinned module.
package main

import _ "go.etcd.io/bbolt/cmd/bbolt"
