"""Rungs: the budgets at which trials are compared, who stands there, and which reports are allowed.

Budgets follow Li et al. (2018), r_k = R / eta^(K - k) for k = 0..K, in exact arithmetic: the logarithms in
which the formula is often written lose a rung at (1, 243, 3). A trial stands at a rung once it has an
observation at exactly that budget, or has failed on the way there; the failed rank last, and of equal
values the older trial ranks first.
"""

from __future__ import annotations

import itertools
import math
import numbers
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from gpbo.checks import finite
from gpbo.errors import ResultError, SettingError
from gpbo.schedulers.base import changed
from gpbo.trial import State, Trial

Place = tuple[str, int, int | float]  # what, in which bracket, at which rung (or budget)
Entry = tuple[float, int]  # value, trial number: sorts best first, then oldest first

INTERRUPTED: Place = ("interrupted", 0, 0)  # lost their worker: paused short of a budget they were given
RUNNING: Place = ("running", 0, 0)
MODELLED: Place = ("modelled", 0, 0)  # chosen by a Gaussian process

_SLACK = Fraction(1, 10**12)  # relative: what decimal notation may lose of a budget such as 1/15
_NEAR = 1e-9  # relative: a report so near to a rung is a report at the rung


def rung_budgets(min_budget: float, max_budget: float, reduction_factor: float) -> tuple[float, ...]:
    """The budgets of all rungs from at least `min_budget` up to exactly `max_budget`.

    Whole-number budgets stay whole numbers, rounded half up.

    Raises:
        SettingError: if a budget is not a positive number, `min_budget` is not below `max_budget`, or
            `reduction_factor` is below 2.
    """
    finite("min_budget", min_budget, above=0)
    finite("max_budget", max_budget, above=0)
    low, high, eta = _exact(min_budget), _exact(max_budget), check_reduction_factor(reduction_factor)
    if low >= high:
        raise SettingError(
            f"`min_budget` must be below `max_budget`, got min_budget={min_budget}, max_budget={max_budget}."
        )
    whole = isinstance(min_budget, numbers.Integral) and isinstance(max_budget, numbers.Integral)
    lowest = low if whole else low * (1 - _SLACK)
    exact = [high]
    while exact[-1] / eta >= lowest:
        exact.append(exact[-1] / eta)
    exact.reverse()
    if whole:  # r >= 1 and eta >= 2 keep the rounded budgets apart
        return tuple(math.floor(r + Fraction(1, 2)) for r in exact)
    return (*(max(float(r), float(min_budget)) for r in exact[:-1]), float(max_budget))


def check_budgets(budgets: Iterable[float]) -> tuple[float, ...]:
    """The rungs that a user gave, as plain numbers.

    Raises:
        SettingError: if there are none, one is not a positive number, or they do not rise.
    """
    if isinstance(budgets, str) or not isinstance(budgets, Iterable):
        raise SettingError(f"`budgets` must be a list of numbers, got {budgets!r}.")
    given = list(budgets)
    for budget in given:
        finite("budgets", budget, above=0)
    plain = tuple(int(b) if isinstance(b, numbers.Integral) else float(b) for b in given)
    if not plain or any(a >= b for a, b in itertools.pairwise(plain)):
        raise SettingError(f"`budgets` must be one or more rising numbers, got {given!r}.")
    return plain


def check_reduction_factor(reduction_factor: float) -> Fraction:
    """The reduction factor as an exact number.

    Raises:
        SettingError: if it is not a finite number of at least 2.
    """
    finite("reduction_factor", reduction_factor, low=2)
    return _exact(reduction_factor)


def quota(n: int, eta: Fraction) -> int:
    """How many of `n` trials go on: floor(n / eta), exactly."""
    return n * eta.denominator // eta.numerator


def is_reported(trial: Trial, budget: float | None, rungs: Sequence[float]) -> bool:
    """Whether the trial has an observation at this budget already, so that another changes nothing."""
    budget = trial.budget if budget is None else _snapped(budget, rungs)
    return budget is not None and any(seen.budget == budget for seen in trial.observations)


def report_budget(trial: Trial, budget: float | None, rungs: Sequence[float]) -> float:
    """The budget at which a new observation of the trial is recorded, exact at the rungs.

    A trial of a bracket is compared at the budgets that it is given, and nowhere else; others at every rung.

    Args:
        trial: A running trial that has no observation at this budget.
        budget: What the report says, or None for all that the trial was given.
        rungs: The scheduler's.

    Raises:
        ResultError: if the budget is not positive, lies beyond what the trial was given, behind its last
            report, or past a rung at which it is compared and has not reported.
    """
    given = rungs[-1] if trial.budget is None else trial.budget
    budget = given if budget is None else _snapped(budget, rungs)
    who = f"trial {trial.number}"
    last = trial.observations[-1].budget if trial.observations else None
    behind = 0.0 if last is None else last
    if budget <= 0:
        raise ResultError(f"`budget` must be positive, got {budget} for {who}.")
    if budget > given:
        raise ResultError(
            f"`budget` must be at most what {who} was given, {given}, got {budget}; "
            "stop there and ask the study whether it goes on."
        )
    if budget < behind:
        raise ResultError(f"`budget` must rise from report to report, got {budget} after {behind} for {who}.")
    skipped = next((r for r in rungs if behind < r < budget), None)
    if skipped is not None and trial.bracket is None:
        raise ResultError(
            f"{who} must report at budget {skipped}, where trials are compared, before {budget}; "
            f"its last report was at {behind}."
        )
    return budget


def places(trial: Trial, index: Mapping[float, int], bracket: int = 0) -> dict[Place, float]:
    """Where a trial stands, and with what value.

    Args:
        trial: The trial.
        index: The rungs' budgets, each with its place in the order from 0 up.
        bracket: The bracket to be written into each place.

    Returns:
        ("finished", bracket, k): it has been to rung k; infinity if it failed on the way.
        ("promoted", bracket, k): it was sent on from there.
        ("waiting", bracket, k): it is paused there.
        `RUNNING`, `INTERRUPTED` or `MODELLED`, where that is so.
    """
    values: dict[int, float] = {}
    for seen in trial.observations:
        if seen.budget is not None and seen.budget in index:
            values.setdefault(index[seen.budget], seen.value)
    found: dict[Place, float] = {("finished", bracket, k): value for k, value in values.items()}
    if trial.budget is None:
        return found
    if trial.info.get("source") == "gp":
        found[MODELLED] = 0.0
    target = index.get(trial.budget, len(index))
    found |= {("promoted", bracket, k): value for k, value in values.items() if k < target}
    if trial.state is State.FAILED:
        k = max(values, default=-1) + 1
        if k < len(index):
            found["finished", bracket, k] = math.inf
    elif trial.state is State.RUNNING:
        found[RUNNING] = 0.0
    elif trial.state is State.PAUSED and target in values:
        found["waiting", bracket, target] = values[target]
    elif trial.state is State.PAUSED:
        found[INTERRUPTED] = 0.0
    return found


def best_waiting(board: Board, bracket: int, rung: int, n: int) -> int | None:
    """The number of the best trial that waits at a rung, if it is among the best `n` that were ever there."""
    waiting = board.get(("waiting", bracket, rung), ())
    if not waiting:
        return None
    rank = bisect_left(board["finished", bracket, rung], waiting[0])
    return waiting[0][1] if rank < n else None


class Board(dict[Place, list[Entry]]):
    """The entries at every place.

    Attributes:
        n_settled: All brackets with smaller numbers were found to be over; kept while their trials stay.
    """

    n_settled = 0


class Standings:
    """Who stands where, best first: a pure function of the trials that reads only those that changed.

    It keeps the last answer and returns a new one, so that threads may share it. One instance belongs to
    one placing function.
    """

    def __init__(self) -> None:
        self._last: tuple[tuple[Trial, ...], Board] = (), Board()

    def __reduce__(self) -> tuple[Any, ...]:
        return Standings, ()  # a copy starts afresh, rather than take the trials along

    def __call__(self, trials: Sequence[Trial], placed: Callable[[Trial], Mapping[Place, float]]) -> Board:
        """The entries at every place, given the places of one trial."""
        before, last = self._last
        after = tuple(trials)
        board, owned = Board(last), set[Place]()
        board.n_settled = last.n_settled
        for number in changed(before, after):
            was, now = (part[number] if number < len(part) else None for part in (before, after))
            old, new = ((placed(trial) if trial else {}).items() for trial in (was, now))
            brackets = [trial.bracket for trial in (was, now) if trial and trial.bracket is not None]
            board.n_settled = min([board.n_settled, *brackets])
            for place, _ in old ^ new:
                if place not in owned:
                    board[place] = list(board.get(place, ()))
                    owned.add(place)
            for place, value in old - new:
                entries = board[place]
                del entries[bisect_left(entries, (value, number))]
            for place, value in new - old:
                insort(board[place], (value, number))
        self._last = after, board
        return board


def _snapped(budget: float, rungs: Sequence[float]) -> float:
    return next((r for r in rungs if abs(budget - r) <= _NEAR * r), budget)


def _exact(value: float) -> Fraction:
    # the decimals that people write, not the nearest binary fraction: 1 / 10^2 is 0.01
    return Fraction(int(value)) if isinstance(value, numbers.Integral) else Fraction(repr(float(value)))
