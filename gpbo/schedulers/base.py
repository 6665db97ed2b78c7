"""What a scheduler is: two pure functions of the trials.

Schedulers minimise. The study hands them its trials with the values of an objective to be maximised
negated (`Minimised`), so that no scheduler knows about directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from gpbo.trial import Decision, Done, Start, State, Trial

_CHUNK = 128  # trials that are compared at once


class Scheduler(Protocol):
    """Says what runs next and what a report means.

    The answers depend on the trials alone, whose values are to be minimised; what an implementation
    remembers between calls only makes it faster.
    """

    @property
    def rungs(self) -> tuple[float, ...]:
        """The budgets at which a trial must report, rising to the full budget; empty without budgets.

        A study with rungs has one objective, and its reports must pass `rungs.report_budget`.
        """
        ...

    def next(self, trials: Sequence[Trial]) -> Decision:
        """What a free worker should do now; never to wait while nothing is running."""
        ...

    def judge(self, trials: Sequence[Trial], number: int) -> State:
        """The state of trial `number` after its newest observation, which is in `trials`."""
        ...


def closing(scheduler: Scheduler, trials: Sequence[Trial]) -> Decision:
    """What is left to do where no trial is to be begun any more; `Done` if nothing is.

    What a begun bracket lacks counts as failed, so that the best of those there are go on.
    """
    begun = {trial.bracket for trial in trials} - {None}
    wish = scheduler.next(trials)
    while isinstance(wish, Start) and wish.bracket in begun:
        trials = [*trials, Trial(len(trials), {}, State.FAILED, wish.budget, wish.bracket)]
        wish = scheduler.next(trials)
    return Done() if isinstance(wish, Start) else wish


class RunToEnd:
    """The scheduler of a study without budgets: every trial is evaluated once, and is then complete."""

    @property
    def rungs(self) -> tuple[float, ...]:
        """None."""
        return ()

    def next(self, trials: Sequence[Trial]) -> Decision:
        """A new config, always."""
        return Start()

    def judge(self, trials: Sequence[Trial], number: int) -> State:
        """Complete."""
        return State.COMPLETE


class Minimised:
    """Trials as schedulers see them: with values of which smaller is better.

    Its last answer is kept, so that a call negates only what has changed since.

    Args:
        maximize: For each objective, whether larger is better.
    """

    def __init__(self, maximize: Sequence[bool]) -> None:
        self._maximize = tuple(maximize)
        self._last: tuple[tuple[Trial, ...], tuple[Trial, ...]] = (), ()

    def __call__(self, trials: Sequence[Trial]) -> Sequence[Trial]:
        """The trials themselves where everything is minimised, else signed copies."""
        if not any(self._maximize):
            return trials
        given = tuple(trials)
        before, signed = self._last
        answer = list(signed[: len(given)])
        for number in changed(before, given):
            if number < len(given):
                answer[number : number + 1] = [self._signed(given[number])]
        self._last = given, tuple(answer)
        return self._last[1]

    def _signed(self, trial: Trial) -> Trial:
        if not trial.observations:
            return trial
        signed = tuple(replace(seen, values=seen.losses(self._maximize)) for seen in trial.observations)
        return replace(trial, observations=signed)


def changed(before: tuple[Trial, ...], after: tuple[Trial, ...]) -> list[int]:
    """The numbers of the trials that differ, in order; those that only one of the two has are last.

    Equal parts are compared in C, where identical trials cost next to nothing.
    """
    if before is after:
        return []
    both = min(len(before), len(after))
    found: list[int] = []
    for start in range(0, both, _CHUNK):
        stop = start + _CHUNK
        if before[start:stop] != after[start:stop]:
            found += [i for i in range(start, min(stop, both)) if before[i] is not after[i]]
    return found + list(range(both, max(len(before), len(after))))
