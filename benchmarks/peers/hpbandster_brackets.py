"""HpBandSter's Hyperband and BOHB (Falkner et al. 2018) with their defaults, without its servers.

Its config generator, its successive halving and its rule for the next bracket are its own; what is ours is
the loop of its `Master.run`, in which workers that find all begun brackets blocked begin another one. Every
budget is trained from scratch, as its documentation's examples do.

Approximated: as in `configspace`.
"""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.peers.base import quietly, tidy
from benchmarks.peers.budgets import BudgetTask, Evaluation
from benchmarks.peers.configspace import from_values, to_configspace
from benchmarks.peers.hpbandster_bohb import Strict
from gpbo.seeding import derive


class HpBandSterBrackets:
    """HpBandSter's brackets over one of its config generators."""

    def __init__(self, kind: str, task: BudgetTask) -> None:
        with quietly():
            from hpbandster.optimizers.bohb import BOHB
            from hpbandster.optimizers.config_generators.bohb import BOHB as Densities  # noqa: N811
            from hpbandster.optimizers.config_generators.random_sampling import RandomSampling

            logger = logging.getLogger("benchmarks.hpbandster")
            logger.handlers = [Strict()]
            logger.propagate = False
            make = {"bohb": Densities, "hyperband": RandomSampling}[kind]
            self._generator = make(to_configspace(task.space, task.seed), logger=logger)
        np.random.seed(derive(task.seed, kind) % 2**32)
        n_rungs = -int(np.log(task.min_budget / task.max_budget) / np.log(task.eta)) + 1  # as it counts them
        budgets = task.max_budget * np.power(task.eta, -np.linspace(n_rungs - 1, 0, n_rungs))
        self._settings = SimpleNamespace(
            max_SH_iter=n_rungs, eta=task.eta, budgets=budgets, config_generator=self._generator
        )
        self._next_bracket = BOHB.get_next_iteration  # the same for both
        self._brackets: list[Any] = []
        self._task = task
        self._numbers: dict[Any, int] = {}

    def ask(self) -> Evaluation:
        """The next run of the oldest bracket that is not blocked, or of a new one."""
        with quietly():
            while True:
                for bracket in self._brackets:
                    found = None if bracket.is_finished else bracket.get_next_run()
                    if found is not None:
                        return self._evaluation(bracket, *found)
                self._brackets.append(self._next_bracket(self._settings, len(self._brackets)))

    def tell(self, evaluation: Evaluation, loss: float) -> None:
        """As the server's callback: to the bracket, then to the generator."""
        from hpbandster.core.dispatcher import Job

        bracket, key, values, budget = evaluation.handle
        job = Job(key, config=values, budget=budget)
        job.result = {"loss": loss}
        with quietly():
            bracket.register_result(job)
            self._generator.new_result(job)

    def _evaluation(self, bracket: Any, key: Any, values: Any, budget: float) -> Evaluation:
        return Evaluation(
            number=self._numbers.setdefault(key, len(self._numbers)),
            config=tidy(self._task.space, from_values(self._task.space, values)),
            budget=self._task.at(budget),
            handle=(bracket, key, values, budget),
        )


def create(kind: str, task: BudgetTask) -> HpBandSterBrackets:
    """The optimiser called `kind` for the task."""
    return HpBandSterBrackets(kind, task)
