package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"strings"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
)

// What an expert would write by hand in Go on bbolt to keep executions: the same records, indexes,
// event rows and counters as the stores, for the benchmarks.

type execution struct {
	ID           string          `json:"id"`
	JobID        string          `json:"job_id"`
	Namespace    string          `json:"namespace"`
	NodeID       string          `json:"node_id"`
	State        string          `json:"state"`
	DesiredState string          `json:"desired_state"`
	Spec         json.RawMessage `json:"spec"`
	Message      string          `json:"message"`
	Revision     int             `json:"revision"`
	CreatedAt    time.Time       `json:"created_at"`
	ModifiedAt   time.Time       `json:"modified_at"`
}

type changeEvent struct {
	Kind          string    `json:"kind"`
	At            time.Time `json:"at"`
	Revision      int       `json:"revision"`
	State         string    `json:"state"`
	PreviousState string    `json:"previous_state,omitempty"`
}

var (
	path        = []string{"Created", "BidAccepted", "Running", "WaitingVerification", "ResultAccepted", "Publishing"}
	bucketNames = []string{
		"execution", "created", "modified", "job_id", "state", "node_id", "namespace", "history",
		"sequence", "counter",
	}
	spec = json.RawMessage(`{"engine":{"params":{"cmd":["` +
		strings.TrimSuffix(strings.Repeat(strings.Repeat("x", 40)+`","`, 8), `","`) +
		`"],"image":"ubuntu"},"type":"docker"}}`)
)

type workload struct {
	db             *bolt.DB
	count, records int // operations to do, and records that there are
	first          int // which one to begin with: in creating, or in changing states
	together       bool
}

// executions does one workload and prints the nanoseconds that it took in all.
func executions(args []string) error {
	flags := flag.NewFlagSet("executions", flag.ExitOnError)
	name := flags.String("do", "", "create, set-state, callers, get, find, history, scan, recount, delete, compact, open")
	w := workload{}
	flags.IntVar(&w.count, "count", 1, "operations")
	flags.IntVar(&w.records, "records", 0, "records that there are")
	flags.IntVar(&w.first, "first", 0, "the first operation's number")
	flags.BoolVar(&w.together, "together", false, "in one transaction")
	if err := flags.Parse(args); err != nil {
		return err
	}
	opening := time.Now()
	db, err := bolt.Open(flags.Arg(0), 0o600, nil)
	if err != nil {
		return err
	}
	defer db.Close()
	w.db = db
	if *name == "create" {
		if err := db.Update(makeBuckets); err != nil {
			return err
		}
	}
	w.order() // not timed
	started := time.Now()
	switch *name {
	case "open":
		started = opening
		err = w.find(1, 1)
	case "create":
		err = w.each(w.create)
	case "set-state":
		err = w.each(w.setState)
	case "callers":
		err = w.callers(64)
	case "get":
		err = w.get()
	case "find":
		err = w.find(w.count, 100)
	case "history":
		err = w.history()
	case "scan":
		err = w.scan()
	case "recount":
		err = w.recount()
	case "delete":
		err = db.Update(func(tx *bolt.Tx) error { return w.delete(tx) })
	case "compact":
		err = w.compact(flags.Arg(0) + ".compacted")
	default:
		err = fmt.Errorf("unknown workload %q", *name)
	}
	if err != nil {
		return err
	}
	fmt.Println(time.Since(started).Nanoseconds())
	return nil
}

func makeBuckets(tx *bolt.Tx) error {
	for _, name := range bucketNames {
		if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
			return err
		}
	}
	return nil
}

// each does count operations, in a transaction each or in one for all.
func (w *workload) each(do func(*bolt.Tx, int) error) error {
	if w.together {
		return w.db.Update(func(tx *bolt.Tx) error {
			for n := w.first; n < w.first+w.count; n++ {
				if err := do(tx, n); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for n := w.first; n < w.first+w.count; n++ {
		if err := w.db.Update(func(tx *bolt.Tx) error { return do(tx, n) }); err != nil {
			return err
		}
	}
	return nil
}

// callers changes states from many goroutines, by bbolt's own way of sharing commits.
func (w *workload) callers(many int) error {
	var wait sync.WaitGroup
	failed := make(chan error, many)
	w.db.MaxBatchSize = many
	for caller := 0; caller < many; caller++ {
		wait.Add(1)
		go func(n int) {
			defer wait.Done()
			for ; n < w.first+w.count; n += many {
				if err := w.db.Batch(func(tx *bolt.Tx) error { return w.setState(tx, n) }); err != nil {
					failed <- err
					return
				}
			}
		}(w.first + caller)
	}
	wait.Wait()
	close(failed)
	return <-failed
}

func idOf(number int) string { return fmt.Sprintf("e-%032x", number) }

func put(tx *bolt.Tx, bucket, key string, value []byte) error {
	return tx.Bucket([]byte(bucket)).Put([]byte(key), value)
}

func timeKey(at time.Time) string { return fmt.Sprintf("%016x", at.UnixMicro()) }

func (e *execution) indexes() map[string]string {
	tail := timeKey(e.CreatedAt) + " " + e.ID
	return map[string]string{
		"created": tail, "modified": timeKey(e.ModifiedAt) + " " + e.ID, "job_id": e.JobID + " " + tail,
		"state": e.State + " " + tail, "node_id": e.NodeID + " " + tail, "namespace": e.Namespace + " " + tail,
	}
}

func (w *workload) create(tx *bolt.Tx, number int) error {
	now := time.Now().UTC()
	e := execution{
		ID: idOf(number), JobID: fmt.Sprintf("j-%032x", number%4000), Namespace: "default",
		NodeID: fmt.Sprintf("node-%d", number%20), State: path[0], DesiredState: "Running", Spec: spec,
		Message: "accepted by the scheduler", Revision: 1, CreatedAt: now, ModifiedAt: now,
	}
	body, err := json.Marshal(&e)
	if err != nil {
		return err
	}
	if err := put(tx, "execution", e.ID, body); err != nil {
		return err
	}
	for bucket, key := range e.indexes() {
		if err := put(tx, bucket, key, []byte(e.ID)); err != nil {
			return err
		}
	}
	return note(tx, &e, "created", "")
}

func read(tx *bolt.Tx, id string) (execution, error) {
	var e execution
	err := json.Unmarshal(tx.Bucket([]byte("execution")).Get([]byte(id)), &e)
	return e, err
}

// setState makes the change of this number: each record in random order into its next state, then
// each into the one after that.
func (w *workload) setState(tx *bolt.Tx, number int) error {
	e, err := read(tx, idOf(w.order()[number%w.records]))
	if err != nil {
		return err
	}
	previous, next := e.State, path[1+number/w.records]
	if previous != path[number/w.records] {
		return fmt.Errorf("%s is %s", e.ID, previous)
	}
	old := e.indexes()
	e.State, e.Revision, e.ModifiedAt = next, e.Revision+1, time.Now().UTC()
	body, err := json.Marshal(&e)
	if err != nil {
		return err
	}
	if err := put(tx, "execution", e.ID, body); err != nil {
		return err
	}
	now := e.indexes()
	for _, bucket := range []string{"state", "modified"} {
		if err := tx.Bucket([]byte(bucket)).Delete([]byte(old[bucket])); err != nil {
			return err
		}
		if err := put(tx, bucket, now[bucket], []byte(e.ID)); err != nil {
			return err
		}
	}
	return note(tx, &e, "state", previous)
}

// note adds the event of a change, and counts it.
func note(tx *bolt.Tx, e *execution, kind, previous string) error {
	sequence, err := tx.Bucket([]byte("sequence")).NextSequence()
	if err != nil {
		return err
	}
	body, err := json.Marshal(changeEvent{kind, e.ModifiedAt, e.Revision, e.State, previous})
	if err != nil {
		return err
	}
	number := fmt.Sprintf("%016x", sequence)
	if err := put(tx, "history", e.ID+" "+number, body); err != nil {
		return err
	}
	if err := put(tx, "sequence", number, []byte(e.ID+" "+number)); err != nil {
		return err
	}
	if previous != "" {
		if err := tally(tx, previous, -1); err != nil {
			return err
		}
	}
	return tally(tx, e.State, 1)
}

func tally(tx *bolt.Tx, name string, by int) error {
	var value int
	fmt.Sscan(string(tx.Bucket([]byte("counter")).Get([]byte(name))), &value)
	return put(tx, "counter", name, []byte(fmt.Sprint(value+by)))
}

var shuffled []int
var shuffle sync.Once

func (w *workload) order() []int {
	shuffle.Do(func() { shuffled = rand.New(rand.NewSource(1)).Perm(w.records) })
	return shuffled
}

func (w *workload) get() error {
	order := w.order()
	for n := 0; n < w.count; n++ {
		if err := w.db.View(func(tx *bolt.Tx) error {
			_, err := read(tx, idOf(order[(w.first+n)%w.records]))
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

func (w *workload) find(times, limit int) error {
	for ; times > 0; times-- {
		if err := w.db.View(func(tx *bolt.Tx) error {
			cursor, found := tx.Bucket([]byte("state")).Cursor(), 0
			for key, id := cursor.Seek([]byte("Created ")); key != nil && found < limit; key, id = cursor.Next() {
				if !strings.HasPrefix(string(key), "Created ") {
					break
				}
				if _, err := read(tx, string(id)); err != nil {
					return err
				}
				found++
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

func (w *workload) history() error {
	order := w.order()
	for n := 0; n < w.count; n++ {
		prefix := idOf(order[(w.first+n)%w.records]) + " "
		if err := w.db.View(func(tx *bolt.Tx) error {
			cursor := tx.Bucket([]byte("history")).Cursor()
			for key, body := cursor.Seek([]byte(prefix)); key != nil && strings.HasPrefix(string(key), prefix); key, body = cursor.Next() {
				var each changeEvent
				if err := json.Unmarshal(body, &each); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

func (w *workload) scan() error {
	return w.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("created")).ForEach(func(_, id []byte) error {
			_, err := read(tx, string(id))
			return err
		})
	})
}

func (w *workload) recount() error {
	counts := map[string]int{}
	return w.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("state")).ForEach(func(key, _ []byte) error {
			state, _, _ := strings.Cut(string(key), " ")
			counts[state]++
			return nil
		})
	})
}

func (w *workload) delete(tx *bolt.Tx) error {
	order := w.order()
	for _, number := range order[w.first : w.first+w.count] {
		e, err := read(tx, idOf(number))
		if err != nil {
			return err
		}
		for bucket, key := range e.indexes() {
			if err := tx.Bucket([]byte(bucket)).Delete([]byte(key)); err != nil {
				return err
			}
		}
		if err := tx.Bucket([]byte("execution")).Delete([]byte(e.ID)); err != nil {
			return err
		}
		if err := tally(tx, e.State, -1); err != nil {
			return err
		}
	}
	return nil
}

// compact copies into a new file, as the bbolt command does.
func (w *workload) compact(target string) error {
	defer os.Remove(target)
	copied, err := bolt.Open(target, 0o600, nil)
	if err != nil {
		return err
	}
	defer copied.Close()
	return bolt.Compact(copied, w.db, 65536)
}
