"""What a study remembers: one config, what was observed of it, and how it ended.

Trials are values. A tell, a failure or a promotion makes a new `Trial` with `dataclasses.replace`, and
the store swaps the old value for the new one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gpbo.markup import settings, table


class State(StrEnum):
    """Where a trial stands; after a report, the state is the scheduler's decision."""

    RUNNING = "running"
    PAUSED = "paused"
    COMPLETE = "complete"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will be heard of the trial."""
        return self in (State.COMPLETE, State.STOPPED, State.FAILED)


@dataclass(frozen=True, slots=True)
class Observation:
    """What the user measured, in the user's own numbers and sign.

    Attributes:
        values: One finite number per objective.
        budget: The resource the trial had been given when it was measured, or None where there is none.
        seconds: What the measurement took, in seconds, or None when unknown.
        outcomes: What else was measured, by name: a finite number for each that the study has a bound on.
    """

    values: tuple[float, ...]
    budget: float | None = None
    seconds: float | None = None
    outcomes: Mapping[str, float] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """The first objective's number."""
        return self.values[0]

    def losses(self, maximize: Sequence[bool]) -> tuple[float, ...]:
        """The values with those to be maximized negated, so that less is better: the one sign flip.

        Args:
            maximize: For each objective, whether larger is better.
        """
        return tuple(-v if up else v for v, up in zip(self.values, maximize, strict=True))


@dataclass(frozen=True, slots=True)
class Trial:
    """One config and everything known about it.

    Attributes:
        number: 0, 1, 2, ... in the order of asking.
        config: The user's parameters by name; inactive ones are absent.
        state: Where the trial stands.
        budget: The resource it may use until its next report, or None without a scheduler.
        bracket: The scheduler's bracket, or None.
        observations: In the order of reporting.
        error: Why it failed, with the traceback where there is one.
        info: How its config was chosen (suggester, hyper-parameters, fallbacks), JSON values only.
        owner: The process that runs it within `Study.optimize`, or None for ask and tell.
        started: When it was asked for, in seconds since 1970.
        finished: When it reached a final state, in seconds since 1970.
    """

    number: int
    config: Mapping[str, Any]
    state: State = State.RUNNING
    budget: float | None = None
    bracket: int | None = None
    observations: tuple[Observation, ...] = ()
    error: str | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    owner: str | None = None
    started: float | None = None
    finished: float | None = None

    @property
    def values(self) -> tuple[float, ...] | None:
        """The last observation's numbers, or None before the first."""
        return self.observations[-1].values if self.observations else None

    @property
    def value(self) -> float | None:
        """The last observation's first number, or None before the first."""
        return self.observations[-1].value if self.observations else None

    @property
    def outcomes(self) -> Mapping[str, float]:
        """The last observation's outcomes by name; empty before the first."""
        return self.observations[-1].outcomes if self.observations else {}

    def _repr_html_(self) -> str:
        rows = [("config", settings(self.config)), ("state", self.state)]
        rows += [
            (f"value{'' if o.budget is None else f' at budget {o.budget:g}'}", ", ".join(map(repr, o.values)))
            for o in self.observations
        ]
        rows += [("outcomes", settings(self.outcomes))] if self.outcomes else []
        rows += [("error", self.error.splitlines()[-1])] if self.error else []
        return table(["trial", str(self.number)], rows)

    @property
    def is_own(self) -> bool:
        """Whether the study asked for it, rather than took in a result from elsewhere."""
        return self.info.get("source") != "added"


@dataclass(frozen=True, slots=True)
class Start:
    """The scheduler's wish: a new config with this budget."""

    budget: float | None = None
    bracket: int | None = None


@dataclass(frozen=True, slots=True)
class Resume:
    """The scheduler's wish: let a paused trial go on to this budget."""

    number: int
    budget: float


@dataclass(frozen=True, slots=True)
class Wait:
    """The scheduler's wish: nothing until another trial reports."""


@dataclass(frozen=True, slots=True)
class Done:
    """The scheduler's wish: nothing more, ever."""


Decision = Start | Resume | Wait | Done
