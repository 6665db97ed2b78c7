"""What a scheduler is: two pure functions of the trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gpbo.trial import Decision, Start, State, Trial


class Scheduler(Protocol):
    """Says what runs next and what a report means. It keeps nothing between calls."""

    def next(self, trials: Sequence[Trial]) -> Decision:
        """What a free worker should do now."""
        ...

    def judge(self, trials: Sequence[Trial], number: int) -> State:
        """The state of trial `number` after its newest observation, which is in `trials`."""
        ...


class RunToEnd:
    """The scheduler of a study without budgets: every trial is evaluated once, and is then complete."""

    def next(self, trials: Sequence[Trial]) -> Decision:
        """A new config, always."""
        return Start()

    def judge(self, trials: Sequence[Trial], number: int) -> State:
        """Complete."""
        return State.COMPLETE
