"""Optimisers that choose budgets themselves, by name, and `play`, which runs one in virtual time.

A peer with budgets is asked for evaluations and told their losses. `play` keeps the clock and the accounts as
`gpbo.simulate` does: in `spent_from_scratch` every promotion pays its whole budget, and a trial that reports
on its way and goes on at once pays once.
"""

from __future__ import annotations

import heapq
import importlib
import importlib.util
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from benchmarks.peers import Spec
from benchmarks.peers.base import Config
from gpbo import SearchSpace, Simulation, Study
from gpbo.errors import MissingExtraError, SettingError, did_you_mean
from gpbo.schedulers.hyperband import hyperband_brackets
from gpbo.schedulers.rungs import rung_budgets
from gpbo.simulation import Report, Surrogate
from gpbo.study import Direction

BUDGET_PEERS: dict[str, Spec] = {
    "hpbandster-hyperband": Spec("hpbandster_brackets", "hyperband", ("hpbandster",)),
    "hpbandster-bohb": Spec("hpbandster_brackets", "bohb", ("hpbandster",)),
    "optuna-tpe-hyperband": Spec("optuna_pruners", "hyperband", ("optuna",)),
    "optuna-tpe-median": Spec("optuna_pruners", "median", ("optuna",)),
    "smac-hyperband": Spec("smac_hyperband", "hyperband", ("smac",)),
    "dehb": Spec("dehb_brackets", "dehb", ("dehb",)),
}


@dataclass(frozen=True, slots=True)
class BudgetTask:
    """What a peer with budgets is made for.

    Attributes:
        space: What may be tuned.
        seed: Addresses all randomness.
        min_budget: The least budget of an evaluation.
        max_budget: The full budget.
        is_whole: Whether budgets are whole numbers.
        total: How much budget there is in all.
        eta: How many trials there are at a rung for each that goes on.
    """

    space: SearchSpace
    seed: int
    min_budget: float
    max_budget: float
    is_whole: bool
    total: float
    eta: int = 3

    def at(self, budget: float) -> float:
        """A peer's own budget, as one of the problem's."""
        return round(budget) if self.is_whole else min(float(budget), self.max_budget)

    @property
    def rungs(self) -> tuple[float, ...]:
        """The budgets r of the published protocol, R / eta^k."""
        low, high = (int(b) if self.is_whole else b for b in (self.min_budget, self.max_budget))
        return rung_budgets(low, high, self.eta)

    @property
    def evaluations(self) -> int:
        """About how many evaluations Hyperband makes of the total."""
        steps = [step for bracket in hyperband_brackets(self.rungs, self.eta) for step in bracket]
        return round(self.total * sum(n for n, _ in steps) / sum(n * budget for n, budget in steps))


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What a peer wants to know.

    Attributes:
        number: The trial's.
        config: Its config, valid in the task's space.
        budget: At which budget.
        running_from: The budget at which the trial, which runs on, reported last; 0 for one that starts anew.
        handle: The peer's own.
    """

    number: int
    config: Config
    budget: float
    running_from: float = 0.0
    handle: Any = None


class BudgetPeer(Protocol):
    """One optimiser in one run."""

    def ask(self) -> Evaluation | None:
        """What a free worker should evaluate, or None while there is nothing."""
        ...

    def tell(self, evaluation: Evaluation, loss: float) -> None:
        """Take note of the result of something that was asked for."""
        ...


def create(name: str, task: BudgetTask) -> BudgetPeer:
    """The peer of that name, ready for the task.

    Raises:
        SettingError: if there is no such peer, or the space has constraints, which none of them takes.
        MissingExtraError: if what it needs is not installed.
    """
    if lacking := missing(name):
        raise MissingExtraError(f"{lacking[0]} is not installed; pip install 'gpbo[bench]'.")
    if task.space.constraints:
        raise SettingError("peers with budgets are for spaces without constraints.")
    spec = BUDGET_PEERS[name]
    peer: BudgetPeer = importlib.import_module(f"benchmarks.peers.{spec.module}").create(spec.kind, task)
    return peer


def missing(name: str) -> Sequence[str]:
    """The packages that the peer needs and that are not installed.

    Raises:
        SettingError: if there is no such peer.
    """
    if name not in BUDGET_PEERS:
        hint = did_you_mean(name, BUDGET_PEERS)
        raise SettingError(f"a peer with budgets must be of {list(BUDGET_PEERS)}, got {name!r}.{hint}")
    return [package for package in BUDGET_PEERS[name].packages if importlib.util.find_spec(package) is None]


def play(
    peer: BudgetPeer,
    task: BudgetTask,
    objective: Surrogate,
    direction: Direction,
    *,
    workers: int = 1,
    spend: float | None = None,
    resume: bool = False,
) -> Simulation:
    """What happens when a peer is run in virtual time until `spend`, as `gpbo.simulate` would have it.

    The study of the answer has no trials, because they are the peer's.
    """
    loop = _Loop(peer, task, objective, -1.0 if direction == "maximize" else 1.0, resume)
    loop.run(workers, task.total if spend is None else spend)
    study = Study(task.space, direction=direction, device="cpu")
    return Simulation(study, tuple(loop.reports), loop.now, workers, loop.busy)


@dataclass(frozen=True, slots=True, order=True)
class _Event:
    seconds: float
    order: int
    worker: int = field(compare=False)
    begun: float = field(compare=False)
    evaluation: Evaluation = field(compare=False)
    value: float = field(compare=False)


@dataclass(slots=True, eq=False)
class _Loop:
    peer: BudgetPeer
    task: BudgetTask
    objective: Callable[[Config, Any], tuple[float, float]]
    sign: float
    resume: bool
    reports: list[Report] = field(default_factory=list)
    furthest: dict[int, float] = field(default_factory=dict)  # by trial: the largest budget reported
    now: float = 0.0
    busy: float = 0.0

    def run(self, workers: int, spend: float) -> None:
        idle, events, order = list(range(workers)), list[_Event](), itertools.count()
        while True:
            while idle and (evaluation := self.peer.ask()) is not None:
                value, took = self.objective(evaluation.config, evaluation.budget)
                behind = evaluation.running_from
                if self.resume:
                    behind = max(behind, self.furthest.get(evaluation.number, 0.0))
                if behind:
                    took = max(took - self.objective(evaluation.config, behind)[1], 0.0)
                worker = heapq.heappop(idle)
                event = _Event(self.now + took, next(order), worker, self.now, evaluation, value)
                heapq.heappush(events, event)
            if not events:
                return
            event = heapq.heappop(events)
            self.now = event.seconds
            self._tell(event)
            heapq.heappush(idle, event.worker)
            last = self.reports[-1]
            if (last.spent if self.resume else last.spent_from_scratch) >= spend:
                break
        self.busy += sum(self.now - event.begun for event in events)

    def _tell(self, event: _Event) -> None:
        evaluation = event.evaluation
        number, budget = evaluation.number, evaluation.budget
        last = self.reports[-1] if self.reports else None
        behind = self.furthest.get(number, 0.0)
        self.reports.append(
            Report(
                seconds=event.seconds,
                worker=event.worker,
                number=number,
                budget=budget,
                value=event.value,
                is_full=budget >= self.task.max_budget * (1 - 1e-9),
                spent=(last.spent if last else 0.0) + max(budget - behind, 0.0),
                spent_from_scratch=(last.spent_from_scratch if last else 0.0)
                + budget
                - evaluation.running_from,
            )
        )
        self.furthest[number] = max(behind, budget)
        self.busy += event.seconds - event.begun
        self.peer.tell(evaluation, self.sign * event.value)
