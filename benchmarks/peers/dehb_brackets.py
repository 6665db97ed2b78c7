"""DEHB (Awad et al. 2021) by ask and tell, with its defaults. Every budget is trained from scratch.

Approximated: as in `configspace`.
"""

from __future__ import annotations

import tempfile

from benchmarks.peers.base import quietly, tidy
from benchmarks.peers.budgets import BudgetTask, Evaluation
from benchmarks.peers.configspace import from_values, to_configspace


class DehbBrackets:
    """A DEHB object that runs nothing itself."""

    def __init__(self, task: BudgetTask) -> None:
        with quietly():
            from dehb import DEHB
            from loguru import logger

            self._folder = tempfile.TemporaryDirectory(prefix="dehb-")  # it writes a log somewhere
            self._dehb = DEHB(
                cs=to_configspace(task.space, task.seed),
                dimensions=len(task.space.columns),
                min_fidelity=task.min_budget,
                max_fidelity=task.max_budget,
                eta=task.eta,
                n_workers=1,
                seed=task.seed,
                output_path=self._folder.name,
                save_freq="end",
            )
            logger.remove()  # its log goes to standard output and, through a thread, to a file
        self._task = task
        self._numbers: dict[int, int] = {}

    def ask(self) -> Evaluation:
        """The next job."""
        with quietly():
            job = self._dehb.ask()
        return Evaluation(
            number=self._numbers.setdefault(int(job["config_id"]), len(self._numbers)),
            config=tidy(self._task.space, from_values(self._task.space, dict(job["config"]))),
            budget=self._task.at(job["fidelity"]),
            handle=job,
        )

    def tell(self, evaluation: Evaluation, loss: float) -> None:
        """Tell the job's fitness."""
        with quietly():
            self._dehb.tell(evaluation.handle, {"fitness": loss, "cost": evaluation.budget})


def create(kind: str, task: BudgetTask) -> DehbBrackets:
    """The optimiser for the task."""
    return DehbBrackets(task)
