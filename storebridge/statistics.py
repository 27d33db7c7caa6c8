"""What a database has been through since it was opened."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Statistics:
    """Counts since opening, in this process. Times are in seconds."""

    transactions: int = 0
    """Write transactions committed."""
    rollbacks: int = 0
    lock_waits: int = 0
    """How often a writer had to wait for another thread's or process's transaction."""
    lock_wait_seconds: float = 0.0
    slow_transactions: int = 0
    """Write transactions that held the writer's lock for longer than `slow_after`."""
    longest_transaction_seconds: float = 0.0
    slow_after: float = 1.0
    """Seconds after which a transaction or a wait is logged as slow; set it as you need."""
