"""A study in virtual time: any scheduler and suggester over a function that says what a trial would cost.

`simulate` drives the real `Study` on a store in memory, so every decision is the one that a real run with
the same order of reports would take. Only the clock is made up: a heap of reports to come, taken in the
order of their times and, at equal times, of their making. Nothing is drawn outside the study, so the same
arguments give the same trials, times and figures, bit for bit.

Two accounts of the budget are kept. In `spent` a trial that is promoted pays for what it has not yet run;
in `spent_from_scratch` every promotion starts again from nothing, which is what published comparisons charge.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from gpbo.checks import finite, whole
from gpbo.errors import ResultError, SettingError
from gpbo.schedulers.base import Scheduler
from gpbo.space import Config, SearchSpace
from gpbo.stores.memory import MemoryStore
from gpbo.study import Direction, Study
from gpbo.suggesters.base import Suggester
from gpbo.trial import State, Trial

Surrogate = Callable[[Config, Any], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Report:
    """One observation of the simulated study.

    Attributes:
        seconds: When it came, in virtual seconds.
        worker: Who ran it, 0, 1, 2, ...
        number: The trial's.
        budget: What the trial had been given, or None without budgets.
        value: In the user's sign; it may be not finite, and the trial is a failed one then.
        is_full: Whether the budget is the full one.
        spent: All budgets so far, if promoted trials go on from where they were; without budgets, how many
            reports.
        spent_from_scratch: The same, if every promoted trial starts from nothing.
    """

    seconds: float
    worker: int
    number: int
    budget: float | None
    value: float
    is_full: bool
    spent: float
    spent_from_scratch: float


@dataclass(frozen=True, slots=True, eq=False)
class Simulation:
    """What happened.

    Attributes:
        study: With every trial; when they started and finished is in virtual seconds.
        reports: In the order of their times.
        seconds: When it ended, in virtual seconds.
        workers: How many there were.
        busy_seconds: How long the workers ran trials, in sum.
    """

    study: Study
    reports: tuple[Report, ...]
    seconds: float
    workers: int
    busy_seconds: float

    @property
    def spent(self) -> float:
        """All budgets, if promoted trials go on from where they were."""
        return self.reports[-1].spent if self.reports else 0.0

    @property
    def spent_from_scratch(self) -> float:
        """All budgets, if every promoted trial starts from nothing."""
        return self.reports[-1].spent_from_scratch if self.reports else 0.0

    @property
    def busy_share(self) -> float:
        """The part of the workers' time in which they ran trials, from 0 to 1."""
        return self.busy_seconds / (self.workers * self.seconds) if self.seconds else 0.0

    def incumbents(self, *, any_budget: bool = False) -> list[Report]:
        """The reports that were better than all before them.

        Args:
            any_budget: Whether reports below the full budget count; some published comparisons have it so,
                though a value at a low budget says little about the config at the full one.
        """
        sign = -1.0 if self.study.directions[0] == "maximize" else 1.0
        best, found = math.inf, []
        for report in self.reports:
            if (any_budget or report.is_full) and sign * report.value < best:
                best = sign * report.value
                found.append(report)
        return found


def simulate(
    space: SearchSpace | Mapping[str, Any],
    objective: Surrogate,
    *,
    scheduler: Scheduler | None = None,
    suggester: Suggester | None = None,
    workers: int = 1,
    n_trials: int | None = None,
    until: float | None = None,
    spend: float | None = None,
    resume: bool = True,
    report_budgets: Sequence[float] = (),
    direction: Direction = "minimize",
    seed: int = 0,
    device: str = "auto",
) -> Simulation:
    """Run a study in virtual time until the first of the limits that are given.

    Args:
        space: What may be tuned.
        objective: Gives, for a config and a budget (None without a scheduler), the value there and how many
            seconds it takes to get there from nothing.
        scheduler: As of a `Study`.
        suggester: As of a `Study`.
        workers: How many trials run at once.
        n_trials: How many trials are started; what they lead to is finished.
        until: When it ends, in virtual seconds; what runs then is left running.
        spend: How much budget is spent in all before it ends, in the account that `resume` names.
        resume: Whether promoted trials go on from where they were, rather than start from nothing.
        report_budgets: Budgets at which trials report besides those at which they are compared.
        direction: Whether values are minimized or maximized.
        seed: Addresses all randomness.
        device: Where tensors are computed.

    Raises:
        SettingError: if an argument breaks its rule, or no limit is given.
        ResultError: if the objective gives no pair of a value and a number of seconds >= 0.
    """
    workers = whole("workers", workers, low=1)
    if n_trials is not None:
        n_trials = whole("n_trials", n_trials, low=1)
    for name, limit in (("until", until), ("spend", spend)):
        if limit is not None:
            finite(name, limit, above=0)
    if n_trials is None and until is None and spend is None:
        raise SettingError("`n_trials`, `until` or `spend` must be given, or it would never end.")
    if not isinstance(direction, str):
        raise SettingError(f"`direction` must be that of one objective, got {direction!r}.")
    store = _VirtualStore()
    study = Study(
        space,
        suggester=suggester,
        scheduler=scheduler,
        store=store,
        direction=direction,
        seed=seed,
        device=device,
    )
    rungs = scheduler.rungs if scheduler else ()
    loop = _Loop(study, store, objective, rungs, sorted(report_budgets), n_trials, resume)
    loop.idle = list(range(workers))
    loop.run(math.inf if until is None else until, math.inf if spend is None else spend)
    return Simulation(study, tuple(loop.reports), store.now, workers, loop.busy)


@dataclass(slots=True, eq=False)
class _Run:
    """A trial on a worker, from its start or promotion to the next pause."""

    worker: int
    trial: Trial
    origin: float  # virtual seconds: when it would have started had it started from nothing
    since: float  # virtual seconds: its last report, or its start
    is_restart: bool  # nothing of what the trial was given before has been paid for in this run


@dataclass(frozen=True, slots=True, order=True)
class _Event:
    """A report to come."""

    seconds: float
    order: int
    run: _Run = field(compare=False)
    budget: float | None = field(compare=False)
    value: float = field(compare=False)
    took: float = field(compare=False)  # from nothing, seconds


@dataclass(slots=True, eq=False)
class _Loop:
    study: Study
    store: _VirtualStore
    objective: Surrogate
    rungs: tuple[float, ...]
    report_budgets: Sequence[float]
    n_trials: int | None
    resume: bool
    idle: list[int] = field(default_factory=list)
    events: list[_Event] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    took: dict[int, float] = field(default_factory=dict)  # by trial: seconds from nothing to its last report
    busy: float = 0.0
    order: Iterator[int] = field(default_factory=itertools.count)

    def run(self, until: float, spend: float) -> None:
        while True:
            self._start()
            if not self.events:
                return
            if self.events[0].seconds > until:
                self.store.now = until
                break
            event = heapq.heappop(self.events)
            self.store.now = event.seconds
            self._tell(event)
            last = self.reports[-1]
            if (last.spent if self.resume else last.spent_from_scratch) >= spend:
                break
        self.busy += sum(self.store.now - event.run.since for event in self.events)

    def _start(self) -> None:
        """Give every idle worker a trial, as far as there are any."""
        while self.idle:
            trial = self.study._ask(owner=None, n_trials=self.n_trials)
            if trial is None:
                return
            worker, now = heapq.heappop(self.idle), self.store.now
            behind = self.took.get(trial.number, 0.0) if self.resume else 0.0
            self._plan(_Run(worker, trial, now - behind, now, is_restart=True))

    def _plan(self, run: _Run) -> None:
        trial = run.trial
        budget = trial.budget
        if budget is not None:
            behind = _budget_of(trial)
            ahead = self.report_budgets
            if trial.bracket is None:  # others are compared at the budgets they are given alone
                ahead = sorted({*ahead, *self.rungs})
            budget = next((b for b in ahead if behind < b < budget), budget)
        value, took = _checked(self.objective(dict(trial.config), budget))
        seconds = max(run.origin + took, self.store.now)
        heapq.heappush(self.events, _Event(seconds, next(self.order), run, budget, value, took))

    def _tell(self, event: _Event) -> None:
        run, trial = event.run, event.run.trial
        duration = event.seconds - run.since
        given = 1.0 if event.budget is None else event.budget
        more = given - _budget_of(trial)
        last = self.reports[-1] if self.reports else None
        self.reports.append(
            Report(
                seconds=event.seconds,
                worker=run.worker,
                number=trial.number,
                budget=event.budget,
                value=event.value,
                is_full=event.budget is None or event.budget >= self.rungs[-1],
                spent=(last.spent if last else 0.0) + more,
                spent_from_scratch=(last.spent_from_scratch if last else 0.0)
                + (given if run.is_restart else more),
            )
        )
        self.busy += duration
        self.took[trial.number] = event.took
        told = self.study.tell(trial, event.value, budget=event.budget, seconds=duration)
        if told.state is State.RUNNING:
            self._plan(replace(run, trial=told, since=event.seconds, is_restart=False))
        else:
            heapq.heappush(self.idle, run.worker)


def _budget_of(trial: Trial) -> float:
    """What the trial had been given at its last report."""
    last = trial.observations[-1].budget if trial.observations else None
    return last or 0.0


def _checked(answer: Any) -> tuple[float, float]:
    try:
        value, seconds = (float(x) for x in answer)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ResultError(f"`objective` must give a value and a number of seconds >= 0, got {answer!r}.")
    return value, seconds


class _VirtualStore:
    """A store in memory that writes virtual times on the trials."""

    def __init__(self) -> None:
        self.now = 0.0
        self._store = MemoryStore()

    @property
    def meta(self) -> MutableMapping[str, Any]:
        return self._store.meta

    def trials(self) -> Sequence[Trial]:
        return self._store.trials()

    def add(self, trials: Sequence[Trial]) -> None:
        self._store.add([replace(trial, started=self.now) for trial in trials])

    def swap(self, old: Trial, new: Trial) -> bool:
        return self._store.swap(old, new if new.finished is None else replace(new, finished=self.now))

    def asking(self) -> AbstractContextManager[None]:
        return self._store.asking()

    def alone(self) -> AbstractContextManager[None]:
        return self._store.alone()

    def close(self) -> None:
        self._store.close()
