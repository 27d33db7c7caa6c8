"""What a compaction did, or would do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Pruned:
    """What was removed from a store, or would be."""

    records: int = 0
    events: int = 0
    versions: int = 0
    keys: int = 0
    """Keys of a key-value store whose time was over."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.records + self.events + self.versions + self.keys

    def add(self, more: Pruned) -> None:
        """Count more."""
        self.records += more.records
        self.events += more.events
        self.versions += more.versions
        self.keys += more.keys


@dataclass(frozen=True)
class CompactionReport:
    """What a compaction did; a dry run: what it would do."""

    before: int | None
    """Bytes on disk, side files included; None where the engine does not say."""
    after: int | None
    pruned: dict[str, Pruned]
    """What was removed, by store. In a dry run an event may be counted with its record and by a
    rule of its own."""
    kept: int = 0
    """Records that a hook wanted to keep."""
    failed: int = 0
    """Records that stay because a hook raised an exception."""
    notes: tuple[str, ...] = ()
    """Why something stays whose time it is, in words."""
    skipped: str | None = None
    """Why nothing was reclaimed, or less than there is to gain."""
    longest_pause: float = 0.0
    """Seconds for which other writers had to wait at the most."""
    seconds: float = 0.0
    dry_run: bool = False
