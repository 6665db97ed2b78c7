"""Asynchronous successive halving (Li et al. 2020): nobody waits, the best third of each rung goes on.

Promotion pauses every trial at its rung and resumes it when it is among the best 1 / reduction_factor of all
that were ever there, promoted ones included; counting only those still waiting would promote nearly all.
Stopping runs trials on and ends those outside that share: for objectives that cannot pause. It depends more
on the order of arrival, since the first trials at a rung have nothing to be compared with; a trial that
slipped through is compared at its earlier rungs again at each later one.

Audits send a few trials on whatever their values (audit.py); they come on top of the best share.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from gpbo.checks import finite
from gpbo.errors import SettingError
from gpbo.schedulers.audit import audit_chance, is_audited
from gpbo.schedulers.rungs import (
    INTERRUPTED,
    RUNNING,
    Board,
    Place,
    Standings,
    best_waiting,
    check_budgets,
    check_reduction_factor,
    places,
    quota,
    rung_budgets,
)
from gpbo.trial import Decision, Resume, Start, State, Trial

_DELAY_FROM = 8  # workers: with so many, promotions made on few results cost more than those delayed


@dataclass(frozen=True)
class ASHA:
    """Asynchronous successive halving over rungs of rising budget.

    Args:
        min_budget: The least that a trial is given; 1 by default.
        max_budget: The full budget, at which a trial is complete; 27 by default.
        reduction_factor: How many trials at a rung there are for each that goes on.
        budgets: The rungs themselves; `min_budget` and `max_budget` are then the first and the last of them.
        stopping: Whether trials run on and are stopped, rather than pause and are resumed.
        delay: Whether to promote only while at most 1 / reduction_factor of a rung's trials have been
            (delayed promotion, Li et al. 2022); None does so from 8 workers up.
        audit: How many of the trials that are sent on, as a share up to 1/2, are ones that would not be;
            `Study.diagnose` needs some (0.05) to say how often good trials are stopped.

    Attributes:
        rungs: The budgets at which trials are compared.

    Raises:
        SettingError: if an argument breaks its rule.
    """

    min_budget: float | None = None
    max_budget: float | None = None
    reduction_factor: float = 3
    budgets: Sequence[float] | None = field(default=None, kw_only=True)
    stopping: bool = field(default=False, kw_only=True)
    delay: bool | None = field(default=None, kw_only=True)
    audit: float = field(default=0.0, kw_only=True)
    rungs: tuple[float, ...] = field(init=False, repr=False, compare=False)
    _eta: Fraction = field(init=False, repr=False, compare=False)
    _index: dict[float, int] = field(init=False, repr=False, compare=False)
    _standings: Standings = field(default_factory=Standings, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.stopping, bool):
            raise SettingError(f"`stopping` must be True or False, got {self.stopping!r}.")
        if self.delay is not None and not isinstance(self.delay, bool):
            raise SettingError(f"`delay` must be True, False or None, got {self.delay!r}.")
        finite("audit", self.audit, low=0, high=0.5)
        if self.budgets is None:
            low = 1 if self.min_budget is None else self.min_budget
            high = 27 if self.max_budget is None else self.max_budget
            rungs = rung_budgets(low, high, self.reduction_factor)
        else:
            rungs = check_budgets(self.budgets)
            low, high = rungs[0], rungs[-1]
            for name, given, end in (("min", self.min_budget, low), ("max", self.max_budget, high)):
                if given not in (None, end):
                    raise SettingError(
                        f"`{name}_budget` must be left out or agree with `budgets`, got {given!r} and "
                        f"{list(rungs)}; `dataclasses.replace` gives the ends that were there: "
                        "give it `min_budget=None` and `max_budget=None`, too."
                    )
            object.__setattr__(self, "budgets", rungs)
        object.__setattr__(self, "min_budget", low)
        object.__setattr__(self, "max_budget", high)
        object.__setattr__(self, "rungs", rungs)
        object.__setattr__(self, "_eta", check_reduction_factor(self.reduction_factor))
        object.__setattr__(self, "_index", {budget: k for k, budget in enumerate(rungs)})

    def next(self, trials: Sequence[Trial]) -> Decision:
        """An interrupted trial first, then the promotion to the highest rung, else a new config."""
        board = self._standings(trials, self._places)
        if interrupted := board.get(INTERRUPTED):
            lost = trials[interrupted[0][1]]
            return Resume(lost.number, lost.budget or self.rungs[0])
        if self.stopping:
            return Start(self.rungs[-1])
        # the worker that asks will run a trial too
        delay = len(board.get(RUNNING, ())) + 1 >= _DELAY_FROM if self.delay is None else self.delay
        for k in reversed(range(len(self.rungs) - 1)):
            number = self._promotable(board, k, delay)
            if number is None:
                number = next((i for _, i in board.get(("audit", 0, k), ())), None)
            if number is not None:
                return Resume(number, self.rungs[k + 1])
        return Start(self.rungs[0])

    def judge(self, trials: Sequence[Trial], number: int) -> State:
        """Running below its rung, paused (or: on or stopped) at it, complete at the full budget."""
        trial = trials[number]
        spent = trial.observations[-1].budget
        if spent is None or spent >= self.rungs[-1]:
            return State.COMPLETE
        if self.stopping:
            if spent not in self._index:
                return State.RUNNING
            board = self._standings(trials, self._places)
            stays = self.audits(number, self._index[spent]) or self._stays(board, trial)
            return State.RUNNING if stays else State.STOPPED
        return State.PAUSED if trial.budget is None or spent >= trial.budget else State.RUNNING

    def audits(self, number: int, rung: int) -> bool:
        """Whether a trial is sent on from the rung of this index, 0 for the lowest, whatever its value."""
        return self.audit > 0 and is_audited(number, rung, audit_chance(self.audit, float(self._eta)))

    def _places(self, trial: Trial) -> dict[Place, float]:
        """Its places; besides, where it waits for its audit, and from where it was sent on by one."""
        found = places(trial, self._index)
        if self.audit > 0:
            names = {"waiting": "audit", "promoted": "audited"}
            found |= {
                (names[what], bracket, k): 0.0
                for what, bracket, k in found
                if what in names and self.audits(trial.number, int(k))
            }
        return found

    def _promotable(self, board: Board, rung: int, delay: bool) -> int | None:
        n = quota(len(board.get(("finished", 0, rung), ())), self._eta)
        promoted = len(board.get(("promoted", 0, rung), ())) - len(board.get(("audited", 0, rung), ()))
        if delay and promoted >= n:
            return None
        return best_waiting(board, 0, rung, n)

    def _stays(self, board: Board, trial: Trial) -> bool:
        """Whether it is in the best share of every rung it has been to and that can tell."""
        for place, value in self._places(trial).items():
            finished = board[place]
            n = quota(len(finished), self._eta)
            if place[0] == "finished" and n > 0 and bisect_left(finished, (value, trial.number)) >= n:
                return False
        return True
