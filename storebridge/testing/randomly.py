"""Running what Hypothesis draws as the suite does: so long, from a seed that can be given."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partialmethod
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from hypothesis.strategies import SearchStrategy

from storebridge.testing.harness import BackendHarness, attack


def run_randomly(
    machine: type[RuleBasedStateMachine], harness: BackendHarness, examples: int, steps: int
) -> None:
    """Run a machine that is made with the harness; a failure's note says how to have it again, and
    shorter."""
    # A class, as hypothesis makes one for each example without arguments.
    made = type(
        machine.__name__, (machine,), {"__init__": partialmethod(machine.__init__, harness)}
    )
    with _seeded() as seed:
        settings = _settings(max(1, round(examples * harness.effort)))
        settings = hypothesis.settings(settings, stateful_step_count=steps)
        run_state_machine_as_test(hypothesis.seed(seed)(made), settings=settings)


def check_randomly(check: Callable[[Any], None], drawn: SearchStrategy[Any], examples: int) -> None:
    """Call `check` with so many examples of what can be drawn."""
    with _seeded() as seed:
        test = hypothesis.given(drawn)(lambda example: check(example))
        hypothesis.seed(seed)(_settings(examples)(test))()


def _settings(examples: int) -> hypothesis.settings:
    shrink = bool(os.environ.get("STOREBRIDGE_SHRINK"))
    return hypothesis.settings(
        max_examples=examples * attack(),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        # The shortest way to a failure can take minutes to find, so it is for those who ask.
        phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
    )


@contextmanager
def _seeded() -> Iterator[int]:
    """The seed; a failure in the block is told it."""
    seed = int(os.environ.get("STOREBRIDGE_SEED", "1"))
    try:
        yield seed
    except Exception as error:
        error.add_note(f"again, and shorter, with STOREBRIDGE_SEED={seed} STOREBRIDGE_SHRINK=1")
        raise
