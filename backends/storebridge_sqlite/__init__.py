"""The SQLite backend: a database in one file that `sqlite3`, Datasette and any SQL tool read."""

from storebridge_sqlite.backend import backend

__all__ = ["backend"]
