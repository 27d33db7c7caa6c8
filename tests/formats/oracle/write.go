package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand"

	bolt "go.etcd.io/bbolt"
)

// write makes random transactions in strict mode: bbolt checks the whole file before each commit
// and panics at the first thing that is not as it would have written it.
func write(args []string) error {
	flags := flag.NewFlagSet("write", flag.ExitOnError)
	seed := flags.Int64("seed", 1, "of the random numbers")
	rounds := flags.Int("rounds", 3, "transactions")
	ops := flags.Int("ops", 200, "operations in each, at most")
	pageSize := flags.Int("page-size", 0, "of a new file")
	noFreelist := flags.Bool("no-freelist", false, "keep no freelist in the file")
	hashmap := flags.Bool("map", false, "use bbolt's other freelist in memory")
	if err := flags.Parse(args); err != nil {
		return err
	}
	kind := bolt.FreelistArrayType
	if *hashmap {
		kind = bolt.FreelistMapType
	}
	db, err := bolt.Open(flags.Arg(0), 0o600, &bolt.Options{
		PageSize: *pageSize, NoFreelistSync: *noFreelist, FreelistType: kind, NoSync: true,
	})
	if err != nil {
		return err
	}
	defer db.Close()
	db.StrictMode = true
	random := rand.New(rand.NewSource(*seed))
	for round := 0; round < *rounds; round++ {
		if err := db.Update(func(tx *bolt.Tx) error { return change(tx, random, *ops) }); err != nil {
			return err
		}
	}
	return nil
}

// change makes one transaction's random operations, in a mood: mostly adding, or mostly removing.
func change(tx *bolt.Tx, random *rand.Rand, ops int) error {
	removing := random.Intn(3) == 0
	for op := random.Intn(ops) + 1; op > 0; op-- {
		bucket, err := tx.CreateBucketIfNotExists(bucketName(random, 4))
		if err != nil {
			return err
		}
		for depth := random.Intn(3); depth > 0; depth-- {
			if bucket, err = bucket.CreateBucketIfNotExists(bucketName(random, 3)); err != nil {
				return err
			}
		}
		if err := changeBucket(bucket, random, removing); err != nil {
			return err
		}
		if random.Intn(400) == 0 {
			if err := deleteTree(tx, bucketName(random, 4)); err != nil {
				return err
			}
		}
	}
	return nil
}

// parent is what a bucket may be deleted from: a bucket, or the transaction.
type parent interface {
	Bucket(name []byte) *bolt.Bucket
	DeleteBucket(name []byte) error
}

// deleteTree deletes a bucket, nested ones first. Left to itself bbolt deletes nested buckets while
// it iterates over them, skips some, and loses their pages; its own strict mode panics at that.
func deleteTree(from parent, name []byte) error {
	bucket := from.Bucket(name)
	if bucket == nil {
		return nil
	}
	var nested [][]byte
	if err := bucket.ForEachBucket(func(name []byte) error {
		nested = append(nested, append([]byte{}, name...))
		return nil
	}); err != nil {
		return err
	}
	for _, name := range nested {
		if err := deleteTree(bucket, name); err != nil {
			return err
		}
	}
	return from.DeleteBucket(name)
}

func changeBucket(bucket *bolt.Bucket, random *rand.Rand, removing bool) error {
	switch choice := random.Intn(20); {
	case choice == 0:
		_, err := bucket.NextSequence()
		return err
	case choice == 1:
		return bucket.SetSequence(random.Uint64())
	case choice < 8 || removing:
		cursor := bucket.Cursor()
		for key, value := cursor.Seek(randomKey(random)); key != nil && random.Intn(12) != 0; key, value = cursor.Next() {
			if value == nil {
				continue
			}
			if err := bucket.Delete(append([]byte{}, key...)); err != nil {
				return err
			}
			cursor.Seek(key)
		}
		return nil
	default:
		key := randomKey(random)
		if bucket.Bucket(key) != nil {
			return fmt.Errorf("%x is a bucket", key)
		}
		value := make([]byte, valueSize(random))
		random.Read(value)
		return bucket.Put(key, value)
	}
}

func bucketName(random *rand.Rand, most int) []byte {
	return []byte(fmt.Sprintf("bucket-%d", random.Intn(most)))
}

func randomKey(random *rand.Rand) []byte {
	key := make([]byte, 8, 400)
	binary.BigEndian.PutUint64(key, uint64(random.Intn(3000)))
	if key[7]%64 == 0 {
		key = key[:cap(key)] // a long one now and then
	}
	return key
}

func valueSize(random *rand.Rand) int {
	switch random.Intn(40) {
	case 0:
		return random.Intn(20000) // spans pages
	case 1:
		return 0
	default:
		return random.Intn(150)
	}
}
