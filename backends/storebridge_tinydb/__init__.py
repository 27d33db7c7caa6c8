"""Stores in a TinyDB file, and safe storages for people who use TinyDB directly."""

from storebridge_tinydb.backend import TinyBackend

backend = TinyBackend()
"""What the entry point names: how a TinyDB file is recognised and opened."""
