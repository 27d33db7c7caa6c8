"""Running a hypothesis state machine as the suite does: so long, from a seed that can be given."""

from __future__ import annotations

import os
from functools import partialmethod

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from storebridge.testing.harness import BackendHarness, attack


def run_randomly(
    machine: type[RuleBasedStateMachine], harness: BackendHarness, examples: int, steps: int
) -> None:
    """Run a machine that is made with the harness; a failure's note says how to have it again, and
    shorter."""
    shrink = bool(os.environ.get("STOREBRIDGE_SHRINK"))
    seed = int(os.environ.get("STOREBRIDGE_SEED", "1"))
    settings = hypothesis.settings(
        max_examples=examples * attack(),
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        # The shortest way to a failure can take minutes to find, so it is for those who ask.
        phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
    )
    # A class, as hypothesis makes one for each example without arguments.
    made = type(
        machine.__name__, (machine,), {"__init__": partialmethod(machine.__init__, harness)}
    )
    try:
        run_state_machine_as_test(hypothesis.seed(seed)(made), settings=settings)
    except Exception as error:
        error.add_note(f"again, and shorter, with STOREBRIDGE_SEED={seed} STOREBRIDGE_SHRINK=1")
        raise
