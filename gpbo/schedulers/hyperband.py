"""Hyperband and successive halving (Li et al. 2018): brackets of trials, halved rung by rung.

A bracket starts a fixed number of trials at its lowest rung; when all of a rung have finished, the best
1 / reduction_factor go on to the next. A worker that finds a bracket blocked by running trials goes on to
the next bracket, so nobody waits. The trials' `bracket` numbers (0, 1, 2, ...) hold the whole state;
bracket b is of the kind ``b mod len(brackets)``. Trials that failed are not replaced: their bracket goes
on with fewer.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import ClassVar, final

from gpbo.checks import whole
from gpbo.schedulers.rungs import (
    INTERRUPTED,
    MODELLED,
    Board,
    Place,
    Standings,
    best_waiting,
    check_reduction_factor,
    places,
    rung_budgets,
)
from gpbo.trial import Decision, Resume, Start, State, Trial

Bracket = tuple[tuple[int, float], ...]  # (how many trials, to which budget), rung by rung


@dataclass(frozen=True)
class _Halving:
    """The two schedulers below, which differ in their kinds of bracket alone."""

    _n_kinds: ClassVar[int | None] = None  # of brackets, the first ones; None for all

    min_budget: float = 1
    max_budget: float = 27
    reduction_factor: float = 3
    rungs: tuple[float, ...] = field(init=False, repr=False, compare=False)
    brackets: tuple[Bracket, ...] = field(init=False, repr=False, compare=False)
    _standings: Standings = field(default_factory=Standings, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rungs = rung_budgets(self.min_budget, self.max_budget, self.reduction_factor)
        brackets = hyperband_brackets(rungs, self.reduction_factor)
        object.__setattr__(self, "rungs", rungs)
        object.__setattr__(self, "brackets", brackets[: self._n_kinds])

    def next(self, trials: Sequence[Trial]) -> Decision:
        """What the oldest bracket that is not blocked needs; a new bracket where all are."""
        return _next(self.brackets, self._standings(trials, self._places), trials, self._n_rounds)

    @property
    def _n_rounds(self) -> int | None:
        return None

    def judge(self, trials: Sequence[Trial], number: int) -> State:
        """Running below its rung, paused at it, complete at the full budget."""
        trial = trials[number]
        spent = trial.observations[-1].budget
        if spent is None or spent >= self.rungs[-1]:
            return State.COMPLETE
        return State.PAUSED if trial.budget is None or spent >= trial.budget else State.RUNNING

    def _places(self, trial: Trial) -> dict[Place, float]:
        if trial.bracket is None:
            return {}
        bracket = self.brackets[trial.bracket % len(self.brackets)]
        index = {budget: i for i, (_, budget) in enumerate(bracket)}
        return {**places(trial, index, trial.bracket), ("started", trial.bracket, 0): 0.0}


@final
@dataclass(frozen=True)
class Hyperband(_Halving):
    """Successive halving from several starting budgets in turn, the lowest first.

    Low budgets find out cheaply where it is worth looking. A Gaussian process that knows it chooses configs
    among which low budgets no longer tell the best, so that in time only the last kind of bracket pays,
    which gives every trial the full budget at once.

    Args:
        min_budget: The least that a trial is given.
        max_budget: The full budget, at which a trial is complete.
        reduction_factor: How many trials at a rung there are for each that goes on.
        rounds: After how many rounds of all kinds of bracket the last kind goes on alone where a Gaussian
            process chooses configs (as by default); None for never, as in the paper.

    Attributes:
        rungs: The budgets at which trials are compared.
        brackets: For each kind of bracket, how many trials reach which budget.

    Raises:
        SettingError: if an argument breaks its rule.
    """

    rounds: int | None = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        if self.rounds is not None:
            whole("rounds", self.rounds, low=1)
        super().__post_init__()

    @property
    def _n_rounds(self) -> int | None:
        return self.rounds


@final
class SuccessiveHalving(_Halving):
    """Successive halving from the lowest budget: Hyperband's first bracket, again and again.

    Args:
        min_budget: The least that a trial is given.
        max_budget: The full budget, at which a trial is complete.
        reduction_factor: How many trials at a rung there are for each that goes on.

    Attributes:
        rungs: The budgets at which trials are compared.
        brackets: The one kind of bracket: how many trials reach which budget.

    Raises:
        SettingError: if an argument breaks its rule.
    """

    _n_kinds = 1


def hyperband_brackets(rungs: Sequence[float], reduction_factor: float) -> tuple[Bracket, ...]:
    """The brackets from the one that starts at the lowest rung to the one that starts at the full budget.

    Of s + 1 rungs, ceil(floor(K / (s + 1)) eta^s) trials start with K rungs in all, and floor(n / eta^i)
    reach the i-th: the rule behind the paper's table (81, 27, 9, 6, 5) rather than behind its Algorithm 1.
    """
    eta: Fraction = check_reduction_factor(reduction_factor)
    brackets = []
    for s in reversed(range(len(rungs))):
        n = math.ceil(len(rungs) // (s + 1) * eta**s)
        sizes = [math.floor(n / eta**i) for i in range(s + 1)]
        brackets.append(tuple(zip(sizes, rungs[-1 - s :], strict=True)))
    return tuple(brackets)


def _next(
    brackets: tuple[Bracket, ...], board: Board, trials: Sequence[Trial], rounds: int | None
) -> Decision:
    if interrupted := board.get(INTERRUPTED):
        lost = trials[interrupted[0][1]]
        return Resume(lost.number, lost.budget or brackets[0][0][1])
    halved = rounds * len(brackets) if rounds is not None and board.get(MODELLED) else math.inf
    for b in itertools.count(board.n_settled):
        bracket = brackets[b % len(brackets)]
        n_started = len(board.get(("started", b, 0), ()))
        is_left_out = n_started == 0 and b >= halved and len(bracket) > 1
        if is_left_out or len(board.get(("finished", b, len(bracket) - 1), ())) >= bracket[-1][0]:
            board.n_settled += b == board.n_settled
        elif n_started < bracket[0][0]:
            return Start(bracket[0][1], b)
        elif (promotion := _promotion(bracket, board, b)) is not None:
            return promotion
    raise AssertionError("unreachable")


def _promotion(bracket: Bracket, board: Board, b: int) -> Resume | None:
    """The bracket's next promotion, or None while it is blocked or when it is over."""
    expected = bracket[0][0]
    for i in range(len(bracket) - 1):
        finished = board.get(("finished", b, i), ())
        if len(finished) < expected:
            return None
        size, budget = bracket[i + 1]
        number = best_waiting(board, b, i, size)
        if number is not None:
            return Resume(number, budget)
        expected = min(size, bisect_left(finished, (math.inf, -1)))
    return None
