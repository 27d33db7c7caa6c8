"""storebridge's bolt backend: stores in files that Go's bbolt reads and writes.

`storebridge_bolt.pybolt` is the engine behind it and stands on its own.
"""
