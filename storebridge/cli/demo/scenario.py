"""What happens in the demo: jobs are submitted, a node runs them, is stopped halfway and started
again. What the node's stores acknowledged is noted on the way, outside of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import perf_counter
from typing import NamedTuple, Protocol

_ENDED = {"completed": "Completed", "failed": "Failed"}
_JOB_ENDED = ("job-completed", "job-failed")


class Said(NamedTuple):
    """A line of the node's: what happened to what. Ids are whole."""

    event: str
    subject: str
    text: str


class Node(Protocol):
    """A node service, wherever it runs."""

    how: str
    """How it is stopped halfway, in words."""

    def submit(self) -> dict[str, str]:
        """Put the jobs into the store: names by id."""

    def start(self) -> Iterable[Said]:
        """Start the node; what it says, until it ends."""

    def interrupt(self) -> None:
        """Stop it in the midst of its work, as hard as can be."""

    def stop(self) -> None:
        """Ask it to end."""


@dataclass
class Story:
    """What happened, as the node said it."""

    jobs: dict[str, str] = field(default_factory=dict)
    """Names by id."""
    acknowledged: list[tuple[str, str]] = field(default_factory=list)
    """Executions and the states that their store has acknowledged, in order."""
    running: dict[str, str] = field(default_factory=dict)
    """Executions that run now: what they are."""
    begun: int = 0
    left: int = 0
    """Jobs that have not come to their end."""
    interrupted: dict[str, str] = field(default_factory=dict)
    """Executions that ran when the node was stopped halfway."""
    ended_before: int = 0
    unclean: list[int] = field(default_factory=list)
    """Processes that the restart found to have ended without closing."""
    drift: dict[str, str] = field(default_factory=dict)
    """By store: what the restart's recount found."""
    orphans: dict[str, str] = field(default_factory=dict)
    """Executions whose owner was gone: the reason they were failed with."""
    requeued: dict[str, str] = field(default_factory=dict)
    """Those of them that are followed by another: which."""
    seconds: float = 0.0

    @property
    def ended(self) -> int:
        """Jobs that came to their end."""
        return len(self.jobs) - self.left

    def note(self, said: Said) -> None:
        """Take in a line of the node's."""
        event, subject, text = said
        if event == "running":
            self.acknowledged.append((subject, "Running"))
            self.running[subject] = text
            self.begun += 1
        elif event in _ENDED:
            self.acknowledged.append((subject, _ENDED[event]))
            self.running.pop(subject, None)
            self.left -= 1
        elif event in _JOB_ENDED:
            self.left -= 1
        elif event == "ready":
            # A kill may have come between a change and its line: the node knows better.
            self.left = int(text.split()[0])
        elif event == "orphan":
            self.acknowledged.append((subject, "Failed"))
            self.orphans[subject] = text
        elif event == "requeued":
            self.requeued[subject] = text
        elif event == "unclean":
            self.unclean.append(int(subject))
        elif event == "recount":
            self.drift[subject] = text


def play(node: Node, watch: Callable[[Said, Story], None]) -> Story:
    """Run the demo. `watch` is told of every line."""
    story = Story()
    started = perf_counter()
    story.jobs = node.submit()
    story.left = len(story.jobs)
    watch(Said("submitted", str(len(story.jobs)), "jobs"), story)
    _first_run(node, story, watch)
    _second_run(node, story, watch)
    story.seconds = perf_counter() - started
    return story


def _first_run(node: Node, story: Story, watch: Callable[[Said, Story], None]) -> None:
    done = False
    for said in node.start():
        story.note(said)
        watch(said, story)
        if not done and story.begun >= len(story.jobs) // 2:
            done = True
            watch(Said("interrupt", "node", node.how), story)
            node.interrupt()
    story.interrupted, story.running = dict(story.running), {}
    story.ended_before = story.ended


def _second_run(node: Node, story: Story, watch: Callable[[Said, Story], None]) -> None:
    watch(Said("restart", "node", "starting it again"), story)
    ready = done = False
    for said in node.start():
        story.note(said)
        watch(said, story)
        ready = ready or said.event == "ready"
        if ready and not done and not story.left:
            done = True
            node.stop()
