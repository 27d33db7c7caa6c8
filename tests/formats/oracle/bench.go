package main

import (
	"flag"
	"fmt"
	"math/rand"
	"time"

	bolt "go.etcd.io/bbolt"
)

var bucketOfBench = []byte("bench")

// bench prints the nanoseconds that bbolt takes for one operation, on average over count of them.
// The benchmarks run it in turns with pybolt doing the same to files of the same content.
func bench(args []string) error {
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	name := flags.String("name", "", "put-sequential, put-random, put-durable, get, scan")
	count := flags.Int("count", 100000, "operations")
	if err := flags.Parse(args); err != nil {
		return err
	}
	db, err := bolt.Open(flags.Arg(0), 0o600, &bolt.Options{NoSync: *name != "put-durable"})
	if err != nil {
		return err
	}
	defer db.Close()
	order := rand.New(rand.NewSource(1)).Perm(*count)
	run, known := map[string]func(*bolt.DB, []int) (time.Duration, error){
		"put-sequential": putSequential, "put-random": putAll, "put-durable": putDurable,
		"get": getAll, "scan": scan,
	}[*name]
	if !known {
		return fmt.Errorf("unknown benchmark %q", *name)
	}
	took, err := run(db, order)
	if err != nil {
		return err
	}
	fmt.Println(took.Nanoseconds() / int64(*count))
	return nil
}

func benchKey(number int) []byte { return []byte(fmt.Sprintf("%016d", number)) }

func keysOf(order []int) [][]byte {
	keys := make([][]byte, len(order))
	for i, number := range order {
		keys[i] = benchKey(number)
	}
	return keys
}

func putSequential(db *bolt.DB, order []int) (time.Duration, error) {
	for i := range order {
		order[i] = i
	}
	return putAll(db, order)
}

func putAll(db *bolt.DB, order []int) (time.Duration, error) {
	keys, value := keysOf(order), make([]byte, 100)
	start := time.Now()
	err := db.Update(func(tx *bolt.Tx) error {
		bucket, err := tx.CreateBucketIfNotExists(bucketOfBench)
		if err != nil {
			return err
		}
		for _, key := range keys {
			if err := bucket.Put(key, value); err != nil {
				return err
			}
		}
		return nil
	})
	return time.Since(start), err
}

func putDurable(db *bolt.DB, order []int) (time.Duration, error) {
	keys, value := keysOf(order), make([]byte, 100)
	start := time.Now()
	for _, key := range keys {
		if err := db.Update(func(tx *bolt.Tx) error {
			bucket, err := tx.CreateBucketIfNotExists(bucketOfBench)
			if err != nil {
				return err
			}
			return bucket.Put(key, value)
		}); err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}

func getAll(db *bolt.DB, order []int) (time.Duration, error) {
	keys := keysOf(order)
	var took time.Duration
	err := db.View(func(tx *bolt.Tx) error {
		bucket := tx.Bucket(bucketOfBench)
		start := time.Now()
		for _, key := range keys {
			if len(bucket.Get(key)) != 100 {
				return fmt.Errorf("%s is missing", key)
			}
		}
		took = time.Since(start)
		return nil
	})
	return took, err
}

func scan(db *bolt.DB, _ []int) (time.Duration, error) {
	var took time.Duration
	err := db.View(func(tx *bolt.Tx) error {
		start, total := time.Now(), 0
		if err := tx.Bucket(bucketOfBench).ForEach(func(key, value []byte) error {
			total += len(key) + len(value)
			return nil
		}); err != nil {
			return err
		}
		took = time.Since(start)
		return nil
	})
	return took, err
}
