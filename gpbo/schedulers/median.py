"""The median stopping rule: a trial that does worse than half of the others at the same budget ends.

After Golovin et al. (2017, section 3.2.2), who compare a trial's best value so far with the median of the
others' running averages. Here both sides are the values at that very budget: a running average carries the
others' early values along, and spares the more the faster they have improved.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from gpbo.checks import finite, whole
from gpbo.errors import SettingError
from gpbo.schedulers.rungs import INTERRUPTED, Entry, Place, Standings, rung_budgets
from gpbo.trial import Decision, Resume, Start, State, Trial

_STEP = 3  # from one stop to the next, so that training anew costs half of the full budget at most


@dataclass(frozen=True)
class MedianStopping:
    """Runs every trial to the full budget unless it falls behind the median on the way.

    Args:
        max_budget: The full budget, at which a trial is complete.
        min_budget: No trial is stopped before it has spent so much.
        min_trials: No trial is stopped before so many others have reported at the same budget.

    Raises:
        SettingError: if an argument breaks its rule.
    """

    max_budget: float
    min_budget: float = 1
    min_trials: int = 5
    _standings: Standings = field(default_factory=Standings, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        finite("min_budget", self.min_budget, above=0)
        finite("max_budget", self.max_budget, above=0)
        if self.min_budget >= self.max_budget:
            raise SettingError(
                "`min_budget` must be below `max_budget`, "
                f"got min_budget={self.min_budget}, max_budget={self.max_budget}."
            )
        whole("min_trials", self.min_trials, low=1)

    @property
    def rungs(self) -> tuple[float, ...]:
        """The full budget: every other report is welcome, none is required."""
        return (self.max_budget,)

    @property
    def stops(self) -> tuple[float, ...]:
        """Where a function of config and budget is called, since it cannot report on its way."""
        return rung_budgets(self.min_budget, self.max_budget, _STEP)

    def next(self, trials: Sequence[Trial]) -> Decision:
        """An interrupted trial first, else a new config."""
        interrupted = self._standings(trials, _places).get(INTERRUPTED)
        return Resume(interrupted[0][1], self.max_budget) if interrupted else Start(self.max_budget)

    def judge(self, trials: Sequence[Trial], number: int) -> State:
        """Stopped if its newest value is worse than the others' median there."""
        newest = trials[number].observations[-1]
        if newest.budget is None or newest.budget >= self.max_budget:
            return State.COMPLETE
        if newest.budget < self.min_budget:
            return State.RUNNING
        there = self._standings(trials, _places)["value", 0, newest.budget]
        if len(there) - 1 < self.min_trials:
            return State.RUNNING
        median = _median_without(there, bisect_left(there, (newest.value, number)))
        return State.STOPPED if newest.value > median else State.RUNNING


def _median_without(entries: Sequence[Entry], left_out: int) -> float:
    """The median of sorted entries' values, one of them left out."""
    low, high = (len(entries) - 2) // 2, (len(entries) - 1) // 2
    a, b = (entries[i + (i >= left_out)][0] for i in (low, high))
    return a if a == b else a / 2 + b / 2


def _places(trial: Trial) -> dict[Place, float]:
    found: dict[Place, float] = {}
    for seen in trial.observations:
        if seen.budget is not None:
            found.setdefault(("value", 0, seen.budget), seen.value)
    if trial.state is State.PAUSED:
        found[INTERRUPTED] = 0.0
    return found
