"""Where a study stands: which of its trials can be compared, which are best, and why none is."""

from __future__ import annotations

from collections.abc import Sequence

from gpbo.outcomes import OutcomeConstraint, are_met
from gpbo.trial import State, Trial


def comparable(trials: Sequence[Trial], constraints: Sequence[OutcomeConstraint]) -> list[Trial]:
    """The complete trials that were observed at the largest budget of any and are feasible."""
    complete = [t for t in trials if t.state is State.COMPLETE]
    budgets = [t.observations[-1].budget for t in complete]
    largest = max((budget for budget in budgets if budget is not None), default=None)
    return [
        t
        for t, budget in zip(complete, budgets, strict=True)
        if budget in (None, largest) and are_met(constraints, t.outcomes)
    ]


def pareto_front(trials: Sequence[Trial], maximize: Sequence[bool]) -> list[Trial]:
    """Those of comparable trials that no other beats, in their order; trials with equal values are all in."""
    losses = [t.observations[-1].losses(maximize) for t in trials]
    front: set[tuple[float, ...]] = set()
    for loss in sorted(set(losses)):  # whatever beats one comes before it
        if not any(all(a <= b for a, b in zip(other, loss, strict=True)) for other in front):
            front.add(loss)
    return [t for t, loss in zip(trials, losses, strict=True) if loss in front]


def how_often_met(trials: Sequence[Trial], constraints: Sequence[OutcomeConstraint]) -> dict[str, int]:
    """How many complete trials meet each outcome constraint."""
    complete = [t for t in trials if t.state is State.COMPLETE]
    return {str(c): sum(c.slack(t.outcomes) >= 0.0 for t in complete) for c in constraints}


def why_none_is_best(name: str, trials: Sequence[Trial], constraints: Sequence[OutcomeConstraint]) -> str:
    """What to say where no trial of the study `name` can be compared."""
    n = sum(t.state is State.COMPLETE for t in trials)
    if n == 0:
        return f"study {name!r} has no complete trial yet."
    met = ", ".join(f"`{c}` is met by {k}" for c, k in how_often_met(trials, constraints).items())
    return f"none of the {n} complete trials of study {name!r} is feasible: {met}."
