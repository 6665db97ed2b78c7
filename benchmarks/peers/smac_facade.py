"""SMAC3 by ask and tell: its facades for hyperparameters (random forest) and for black boxes (GP).

Both with the defaults of the facade and a deterministic scenario; the initial design is SMAC's own (Sobol,
10 or 8 points a parameter, at most a quarter of the evaluations).

Approximated: as in `configspace`; a config that breaks a constraint is told as a crashed trial with the worst
loss so far (an infinite one becomes a NaN in its log-scaled encoder), and another is asked for.
"""

from __future__ import annotations

import logging
import math
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.peers.base import MAX_REJECTIONS, Config, Task, quietly, random_config, tidy
from benchmarks.peers.configspace import from_values, to_configspace, to_values


class SmacFacade:
    """A SMAC facade whose target function is never called."""

    def __init__(self, kind: str, task: Task) -> None:
        with quietly():
            from smac import BlackBoxFacade, HyperparameterOptimizationFacade, Scenario

        logging.getLogger("smac").setLevel(logging.ERROR)
        facade: Any = {"rf": HyperparameterOptimizationFacade, "gp": BlackBoxFacade}[kind]
        self._task = task
        self._folder = tempfile.TemporaryDirectory(prefix="smac-")  # it writes its history somewhere
        scenario = Scenario(
            to_configspace(task.space, task.seed),
            n_trials=task.evaluations,
            deterministic=True,
            seed=task.seed,
            output_directory=Path(self._folder.name),
        )
        self._scenario, self._facade = scenario, facade
        self._smac: Any = None
        self._worst = -math.inf
        self._waiting: list[tuple[Config, float]] = []
        self._asked: tuple[Any, Config] | None = None

    def ask(self) -> Config:
        """The next trial's config; after too many infeasible ones, a random feasible config."""
        if self._smac is None:
            self._start()
        for _ in range(MAX_REJECTIONS):
            with quietly():
                info = self._smac.ask()
            values = dict(info.config)
            config = tidy(self._task.space, from_values(self._task.space, values))
            if self._task.space.satisfies(config):
                self._asked = (info, config)
                return config
            self._reject(info)
        self._asked = None
        return random_config(self._task, "rejected", self._task.counts.rejections)

    def tell(self, config: Config, loss: float) -> None:
        """Tell the trial that was asked for, or a result from elsewhere."""
        if self._smac is None:
            self._waiting.append((config, loss))
        elif self._asked is not None and self._asked[1] == config:
            self._report(self._asked[0], loss)
            self._asked = None
        else:
            self._report(self._foreign(config), loss)

    def _start(self) -> None:
        initial = None
        with quietly():
            if self._waiting:  # the given configs are the whole initial design
                initial = self._facade.get_initial_design(
                    self._scenario,
                    n_configs=0,
                    additional_configs=[self._foreign(c).config for c, _ in self._waiting],
                )
            self._smac = self._facade(
                self._scenario, _never_called, initial_design=initial, overwrite=True, logging_level=False
            )
        for config, loss in self._waiting:
            self._report(self._foreign(config), loss)
        self._waiting = []

    def _foreign(self, config: Config) -> Any:
        from ConfigSpace import Configuration
        from smac.runhistory.dataclasses import TrialInfo

        values = to_values(self._task.space, config)
        return TrialInfo(Configuration(self._scenario.configspace, values=values), seed=0)

    def _report(self, info: Any, loss: float) -> None:
        from smac.runhistory.dataclasses import TrialValue

        self._worst = max(self._worst, loss)
        with quietly():
            self._smac.tell(info, TrialValue(cost=loss), save=False)

    def _reject(self, info: Any) -> None:
        from smac.runhistory.dataclasses import TrialValue
        from smac.runhistory.enumerations import StatusType

        self._task.counts.rejections += 1
        if math.isfinite(self._worst):  # before the first result it stays a running trial
            with quietly():
                self._smac.tell(info, TrialValue(cost=self._worst, status=StatusType.CRASHED), save=False)


def _never_called(config: Any, seed: int = 0) -> float:
    raise RuntimeError("SMAC is used by ask and tell only")


def create(kind: str, task: Task) -> SmacFacade:
    """The facade called `kind` for the task."""
    return SmacFacade(kind, task)
