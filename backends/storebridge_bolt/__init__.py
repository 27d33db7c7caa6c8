"""The bolt backend: stores in a bolt file, in the format of Go's bbolt, and `pybolt`, the engine
that reads and writes it."""

from storebridge_bolt.backend import BoltBackend

backend = BoltBackend()
