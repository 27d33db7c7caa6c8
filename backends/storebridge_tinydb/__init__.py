"""Stores in a TinyDB file, and safe storages for people who use TinyDB directly."""
