// Command boltoracle is Go's side of storebridge's bolt tests: it writes at random to a file with
// bbolt itself, in strict mode, and prints what a file holds in a form that is easy to compare.
//
//	boltoracle write -seed N [-rounds N] [-ops N] [-page-size N] [-no-freelist] [-map] FILE
//	boltoracle dump FILE
//	boltoracle bench -name NAME [-count N] FILE
//	boltoracle executions -do WORKLOAD [-count N] [-records N] [-first N] [-together] FILE
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("usage: boltoracle write|dump|bench|executions … FILE"))
	}
	commands := map[string]func([]string) error{
		"write": write, "dump": dump, "bench": bench, "executions": executions,
	}
	run, known := commands[os.Args[1]]
	if !known {
		fail(fmt.Errorf("unknown command %q", os.Args[1]))
	}
	if err := run(os.Args[2:]); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "boltoracle:", err)
	os.Exit(1)
}
