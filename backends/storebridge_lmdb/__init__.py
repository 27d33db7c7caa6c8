"""Databases as LMDB environments: a folder with `data.mdb` and `lock.mdb`."""

from storebridge_lmdb.backend import LmdbBackend

__all__ = ["LmdbBackend", "backend"]

backend = LmdbBackend()
