"""What a service has to say when records are about to go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from storebridge.events import Event

if TYPE_CHECKING:
    from storebridge.compaction.report import CompactionReport
    from storebridge.compaction.retention import Retention

logger = logging.getLogger("storebridge")
_TOLD = 10
_FAILED = object()
_decode = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True)
class Removal:
    """A record that retention is about to remove."""

    store: str
    id: str
    state: str | None
    body: bytes
    """As it is stored; `jobs.codec.decode(removal.body)` is the job."""
    history: tuple[Event, ...]
    """What happened to it, as far as that is still there."""

    @property
    def members(self) -> dict[str, Any]:
        """The fields, as in JSON."""
        return _decode(self.body)


Before = Callable[[Sequence["Retention"]], object]
Keep = Callable[[Removal], bool]
Archive = Callable[[Sequence[Removal]], object]
After = Callable[["CompactionReport"], object]


@dataclass
class Hooks:
    """The hooks of a database, in the order in which they were added."""

    before: list[Before] = field(default_factory=list)
    keep: list[Keep] = field(default_factory=list)
    archive: list[Archive] = field(default_factory=list)
    after: list[After] = field(default_factory=list)


class Consent:
    """Asks the hooks of one run. What a hook raises keeps the record that it was asked about."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self.is_asked = bool(hooks.keep or hooks.archive)
        """Whether anybody wants to see what is about to go."""
        self.kept = 0
        """Records that a hook wants to keep."""
        self.failed = 0
        """Records that stay because a hook raised."""
        self.failures: list[str] = []
        """What hooks raised, the first ones."""

    def before(self, rules: Sequence[Retention]) -> bool:
        """Whether compaction may begin."""
        return all(self._call("before", hook, rules) is not _FAILED for hook in self._hooks.before)

    def to(self, removals: Sequence[Removal]) -> list[Removal]:
        """Those that may go, once they are archived."""
        going = [removal for removal in removals if self._may_go(removal)]
        for archive in self._hooks.archive if going else ():
            if self._call("archive", archive, going) is _FAILED:
                self.failed += len(going)
                return []
        return going

    def after(self, report: CompactionReport) -> None:
        """Tell what was done."""
        for hook in self._hooks.after:
            self._call("after", hook, report)

    def _may_go(self, removal: Removal) -> bool:
        for keep in self._hooks.keep:
            answer = self._call("keep", _asked, keep, removal)
            if answer is _FAILED:
                self.failed += 1
            elif answer:
                self.kept += 1
            if answer is not False:
                return False
        return True

    def _call(self, name: str, hook: Callable[..., Any], *args: Any) -> Any:
        try:
            return hook(*args)
        except Exception as error:
            if len(self.failures) < _TOLD:
                self.failures.append(f"the hook {name} raised {type(error).__name__}: {error}")
                logger.warning("compaction: %s", self.failures[-1], exc_info=True)
            return _FAILED


def _asked(keep: Keep, removal: Removal) -> bool:
    answer = keep(removal)
    if type(answer) is not bool:
        # One that forgot to answer must not lose a record.
        raise TypeError(f"keep must answer True or False, not {answer!r}")
    return answer
