package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// dump prints a line for each bucket ("B depth name sequence") and value ("V depth key value"),
// in order, buckets before what they hold; bytes in hexadecimal.
func dump(args []string) error {
	db, err := bolt.Open(args[0], 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer db.Close()
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	defer out.Flush()
	return db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, bucket *bolt.Bucket) error {
			return dumpBucket(out, 0, name, bucket)
		})
	})
}

func dumpBucket(out *bufio.Writer, depth int, name []byte, bucket *bolt.Bucket) error {
	fmt.Fprintf(out, "B %d %x %d\n", depth, name, bucket.Sequence())
	return bucket.ForEach(func(key, value []byte) error {
		if value == nil {
			return dumpBucket(out, depth+1, key, bucket.Bucket(key))
		}
		_, err := fmt.Fprintln(out, strings.TrimSpace(fmt.Sprintf("V %d %x %x", depth, key, value)))
		return err
	})
}
