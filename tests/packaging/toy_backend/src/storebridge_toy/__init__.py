"""A storebridge backend that keeps a database in one file of JSON lines."""

from storebridge_toy.backend import ToyBackend

__all__ = ["backend"]

backend = ToyBackend()
