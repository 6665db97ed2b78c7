"""Optuna's TPE as it comes, with its HyperbandPruner or its MedianPruner as it comes.

A trial reports at the protocol's rungs, R / eta^k, as in the published study, and runs on until it is pruned;
so it pays once. Steps are whole numbers in Optuna: rung k is step eta^k, and the full budget step eta^K.
"""

from __future__ import annotations

from typing import Any

from benchmarks.peers.base import in_order, quietly
from benchmarks.peers.budgets import BudgetTask, Evaluation
from benchmarks.peers.optuna_study import suggested


class OptunaPruner:
    """An Optuna study in memory."""

    def __init__(self, kind: str, task: BudgetTask) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        top = task.eta ** (len(task.rungs) - 1)
        pruner: Any = {
            "median": optuna.pruners.MedianPruner,
            "hyperband": lambda: optuna.pruners.HyperbandPruner(
                min_resource=1, max_resource=top, reduction_factor=task.eta
            ),
        }[kind]()
        with quietly():
            self._study = optuna.create_study(
                sampler=optuna.samplers.TPESampler(seed=task.seed),
                pruner=pruner,
                study_name=f"seed {task.seed}",  # Hyperband draws a trial's bracket by it
            )
        self._pruned = optuna.trial.TrialState.PRUNED
        self._task, self._order = task, in_order(task.space)
        self._going_on: list[Evaluation] = []

    def ask(self) -> Evaluation:
        """The next rung of a trial that goes on, else a new trial's first."""
        if self._going_on:
            return self._going_on.pop(0)
        with quietly():
            trial = self._study.ask()
            config = suggested(self._task.space, self._order, trial)
        return Evaluation(trial.number, config, self._task.rungs[0], handle=(trial, 0))

    def tell(self, evaluation: Evaluation, loss: float) -> None:
        """Report, and prune or go on as the pruner says."""
        trial, k = evaluation.handle
        rungs = self._task.rungs
        with quietly():
            trial.report(loss, self._task.eta**k)
            if k == len(rungs) - 1:
                self._study.tell(trial, loss)
            elif trial.should_prune():
                self._study.tell(trial, state=self._pruned)
            else:
                self._going_on.append(
                    Evaluation(
                        evaluation.number, evaluation.config, rungs[k + 1], rungs[k], handle=(trial, k + 1)
                    )
                )


def create(kind: str, task: BudgetTask) -> OptunaPruner:
    """The study with the pruner called `kind` for the task."""
    return OptunaPruner(kind, task)
