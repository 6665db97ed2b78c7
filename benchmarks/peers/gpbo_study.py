"""gpbo through its public ask and tell, with the default suggester or a named variant of it.

An ablation is one entry in `VARIANTS` or in `PATCHES`, and one in `benchmarks.peers.PEERS`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from unittest import mock

import gpbo
from benchmarks.peers.base import Config, Task

if TYPE_CHECKING:
    from gpbo.suggesters.base import Suggester

VARIANTS: dict[str, Callable[[], Suggester | None]] = {
    "default": lambda: None,
    "random": lambda: gpbo.RandomSuggester(),
    "sobol": lambda: gpbo.SobolSuggester(),
    "ten-initial": lambda: gpbo.GPSuggester(n_initial=10),
    "matern-3/2": lambda: gpbo.GPSuggester(nu=1.5),
}

# constants of the library, by module and name, and what stands there while the variant asks
PATCHES: dict[str, dict[tuple[str, str], Any]] = {
    "no-warp": {("gpbo.suggesters.bayes", "STRENGTHS"): (0.0,)},
    "no-exploring": {("gpbo.suggesters.bayes", "_NOTHING_EXPECTED"): -math.inf},
    "explore-by-bound": {("gpbo.suggesters.bayes", "_DOUBTED_UNTIL"): 0},
    "explore-nearer": {
        ("gpbo.suggesters.bayes", "_DOUBTED_UNTIL"): 0,
        ("gpbo.suggesters.bayes", "_EXPLORE_BETA"): 4.0,
    },
    "low-noise": {("gpbo.gp.hypers", "_NOISE"): (-3.0, 2.0)},  # the prior's centre e^2 times lower, and wider
    "free-noise": {("gpbo.gp.hypers", "_NOISE"): (-1.0, 2.0)},  # the prior's centre as it is, but wider
    "zero-mean": {("gpbo.gp.likelihood", "MEAN_VAR"): 1e-4, ("gpbo.gp.model", "MEAN_VAR"): 1e-4},
    "free-outputscale": {("gpbo.gp.hypers", "_OUTPUTSCALE"): (0.0, 1.5)},
    "flat-lengthscales": {("gpbo.gp.hypers", "_LENGTHSCALE"): (math.sqrt(2.0), 5.0)},
}


class GpboStudy:
    """A study in memory that minimises the loss."""

    def __init__(
        self, suggester: Suggester | None, patches: Mapping[tuple[str, str], Any], task: Task
    ) -> None:
        self._patches = patches
        self._study = gpbo.Study(task.space, suggester=suggester, seed=task.seed, device=task.device)
        self._asked: gpbo.Trial | None = None

    def ask(self) -> Config:
        """The next trial's config."""
        with ExitStack() as stack:
            for (module, name), value in self._patches.items():
                stack.enter_context(mock.patch.object(importlib.import_module(module), name, value))
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
    return GpboStudy(VARIANTS.get(kind, lambda: None)(), PATCHES.get(kind, {}), task)
