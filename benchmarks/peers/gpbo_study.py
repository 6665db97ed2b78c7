"""gpbo through its public ask and tell, with the default suggester or a named variant of it.

An ablation is one entry in `VARIANTS` and one in `benchmarks.peers.PEERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import gpbo
from benchmarks.peers.base import Config, Task

if TYPE_CHECKING:
    from gpbo.suggesters.base import Suggester

VARIANTS: dict[str, Callable[[], Suggester | None]] = {
    "default": lambda: None,
    "random": lambda: gpbo.RandomSuggester(),
    "sobol": lambda: gpbo.SobolSuggester(),
}


class GpboStudy:
    """A study in memory that minimises the loss."""

    def __init__(self, suggester: Suggester | None, task: Task) -> None:
        self._study = gpbo.Study(task.space, suggester=suggester, seed=task.seed, device=task.device)
        self._asked: gpbo.Trial | None = None

    def ask(self) -> Config:
        """The next trial's config."""
        trial = self._study.ask()
        if trial is None:
            raise RuntimeError("the study has nothing more to ask for; the problem's space is too small.")
        self._asked = trial
        return dict(trial.config)

    def tell(self, config: Config, loss: float) -> None:
        """Tell the trial, or add a result that was not asked for."""
        if self._asked is not None and dict(self._asked.config) == config:
            self._study.tell(self._asked, loss)
            self._asked = None
        else:
            self._study.add(config, loss)


def create(kind: str, task: Task) -> GpboStudy:
    """The variant called `kind` for the task."""
    return GpboStudy(VARIANTS[kind](), task)
