"""What a corrected result makes of a trial: a pure function, which keeps what was there before.

The value that was replaced has been acted on: the trial was paused, stopped or promoted, and others with it.
None of that is undone; the new value counts in whatever is decided next.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gpbo.errors import ResultError, TrialStateError
from gpbo.schedulers.rungs import report_budget
from gpbo.trial import Observation, State, Trial

_NEAR = 1e-9  # relative: budgets so near to each other are the same


def amended(
    trial: Trial,
    values: tuple[float, ...],
    outcomes: Mapping[str, float],
    *,
    budget: float | None,
    rungs: Sequence[float],
    judge: Callable[[Trial], State],
) -> Trial:
    """The trial with other numbers at a budget.

    Args:
        trial: As it is.
        values: The right ones, finite.
        outcomes: The right ones, finite.
        budget: Where they were observed; by default at the last observation, or, of a failed trial, at the
            budget that it did not reach.
        rungs: The scheduler's.
        judge: The state of a trial after its newest observation.

    Raises:
        TrialStateError: if the trial is running.
        ResultError: if it has no observation there, or is a failed one that could not have had one.
    """
    k, at = _place(trial, budget)
    if k is not None:
        corrected = replace(trial.observations[k], values=values, outcomes=outcomes)
        seen = (*trial.observations[:k], corrected, *trial.observations[k + 1 :])
        return replace(_noted(trial, trial.observations[k : k + 1]), observations=seen)
    at = report_budget(trial, at, rungs) if rungs and trial.is_own else at
    seen = (*trial.observations, Observation(values, at, outcomes=outcomes))
    told = replace(_noted(trial, ()), state=State.RUNNING, observations=seen, error=None)
    state = judge(told) if trial.is_own else State.COMPLETE
    # Nobody runs it, so where it may go on it waits until the scheduler has it resumed.
    state = State.PAUSED if state is State.RUNNING else state
    return replace(told, state=state, finished=trial.finished if state.is_final else None)


def retracted(trial: Trial, *, budget: float | None, error: str) -> Trial:
    """The trial as one that failed at a budget: without its observations there and beyond.

    Raises:
        TrialStateError: if the trial is running.
        ResultError: if it has no observation there and has not failed.
    """
    k, at = _place(trial, budget)
    seen = trial.observations if k is None else trial.observations[:k]
    failed = _noted(trial, trial.observations[len(seen) :])
    finished = trial.finished or time.time()
    failed = replace(failed, state=State.FAILED, observations=seen, error=error, finished=finished)
    return failed if trial.budget is not None else replace(failed, budget=at)  # where a value may come later


def _place(trial: Trial, budget: float | None) -> tuple[int | None, float | None]:
    """Which observation is meant, None where a failed trial has none there, and its budget."""
    if trial.state is State.RUNNING:
        raise TrialStateError(f"trial {trial.number} is running; tell it, and amend what was told.")
    seen, has_failed = trial.observations, trial.state is State.FAILED
    if budget is None:
        budget = trial.budget if has_failed or not seen else seen[-1].budget
    k = next((k for k, one in enumerate(seen) if _is_near(one.budget, budget)), None)
    if k is None and not has_failed:
        where = f"; it has {', '.join(str(one.budget) for one in seen)}" if seen else ""
        raise ResultError(f"trial {trial.number} has no observation at budget {budget}{where}.")
    return k, budget


def _noted(trial: Trial, replaced: Sequence[Observation]) -> Trial:
    """The trial with what an amendment replaces, written down."""
    lost: dict[str, Any] = {"observations": [_plain(one) for one in replaced]}
    if trial.error is not None:
        lost["error"] = trial.error
    return replace(trial, info={**trial.info, "amended": [*trial.info.get("amended", ()), lost]})


def _plain(seen: Observation) -> dict[str, Any]:
    plain: dict[str, Any] = {"values": list(seen.values), "budget": seen.budget}
    plain |= {} if seen.seconds is None else {"seconds": seen.seconds}
    return plain | {"outcomes": dict(seen.outcomes)} if seen.outcomes else plain


def _is_near(one: float | None, two: float | None) -> bool:
    if one is None or two is None:
        return one is two
    return math.isclose(one, two, rel_tol=_NEAR)
