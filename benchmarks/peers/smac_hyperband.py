"""SMAC3's MultiFidelityFacade by ask and tell: Hyperband over a random forest, with its defaults.

The scenario is deterministic, and its number of trials, by which SMAC sizes its initial design, is what
Hyperband makes of the total. Every budget is trained from scratch; SMAC has no checkpoints.

Approximated: as in `configspace`.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from benchmarks.peers.base import quietly, tidy
from benchmarks.peers.budgets import BudgetTask, Evaluation
from benchmarks.peers.configspace import from_values, to_configspace


class SmacHyperband:
    """A SMAC facade whose target function is never called."""

    def __init__(self, task: BudgetTask) -> None:
        with quietly():
            from smac import MultiFidelityFacade, Scenario

            logging.getLogger("smac").setLevel(logging.ERROR)
            self._folder = tempfile.TemporaryDirectory(prefix="smac-")  # it writes its history somewhere
            scenario = Scenario(
                to_configspace(task.space, task.seed),
                n_trials=task.evaluations,
                min_budget=task.min_budget,
                max_budget=task.max_budget,
                deterministic=True,
                seed=task.seed,
                output_directory=Path(self._folder.name),
            )
            self._smac = MultiFidelityFacade(
                scenario,
                _never_called,
                intensifier=MultiFidelityFacade.get_intensifier(scenario, eta=task.eta),
                overwrite=True,
                logging_level=False,
            )
        self._task = task
        self._numbers: dict[object, int] = {}

    def ask(self) -> Evaluation:
        """The next trial at its budget."""
        with quietly():
            info = self._smac.ask()
        return Evaluation(
            number=self._numbers.setdefault(info.config, len(self._numbers)),
            config=tidy(self._task.space, from_values(self._task.space, dict(info.config))),
            budget=self._task.at(info.budget),
            handle=info,
        )

    def tell(self, evaluation: Evaluation, loss: float) -> None:
        """Tell the trial's cost."""
        from smac.runhistory.dataclasses import TrialValue

        with quietly():
            self._smac.tell(evaluation.handle, TrialValue(cost=loss), save=False)


def _never_called(config: object, seed: int = 0, budget: float = 0.0) -> float:
    raise RuntimeError("SMAC is used by ask and tell only")


def create(kind: str, task: BudgetTask) -> SmacHyperband:
    """The facade for the task."""
    return SmacHyperband(task)
