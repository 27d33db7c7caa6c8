"""A database in memory, for tests and for what need not outlive its process."""

from storebridge_memory.driver import MemoryBackend

__all__ = ["MemoryBackend", "backend"]

backend = MemoryBackend()
