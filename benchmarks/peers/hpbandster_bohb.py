"""HpBandSter's BOHB config generator (Falkner et al. 2018) with its defaults, at a single budget.

Without budgets, BOHB is this generator: random until there are d + 2 results, then two kernel density
estimates, with a third of the configs random throughout.

Approximated: as in `configspace`; a config that breaks a constraint is dropped and another is asked for.
"""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np

from benchmarks.peers.base import MAX_REJECTIONS, Config, Task, quietly, random_config, tidy
from benchmarks.peers.configspace import from_values, to_configspace, to_values
from gpbo.seeding import derive


class HpBandSterBOHB:
    """The generator and the way to and from its space."""

    def __init__(self, task: Task) -> None:
        with quietly():
            from hpbandster.optimizers.config_generators.bohb import BOHB  # type: ignore[import-untyped]

            self._generator = BOHB(to_configspace(task.space, task.seed), logger=strict_logger())
        np.random.seed(derive(task.seed, "bohb") % 2**32)
        self._task = task

    def ask(self) -> Config:
        """The next config; after too many infeasible ones, a random feasible config."""
        for _ in range(MAX_REJECTIONS):
            with quietly():
                values, _ = self._generator.get_config(budget=1.0)
            config = tidy(self._task.space, from_values(self._task.space, values))
            if self._task.space.satisfies(config):
                return config
            self._task.counts.rejections += 1
        return random_config(self._task, "rejected", self._task.counts.rejections)

    def tell(self, config: Config, loss: float) -> None:
        """Refit the densities."""
        kwargs = {"budget": 1.0, "config": to_values(self._task.space, config)}
        with quietly():
            self._generator.new_result(SimpleNamespace(result={"loss": loss}, kwargs=kwargs, exception=None))


class Strict(logging.Handler):
    """Makes an error of the generator's "sampling failed, using random configuration".

    It catches every exception, so a version of ConfigSpace or numpy that it does not work with would
    turn it into random search without a word.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING and "random configuration" in record.getMessage():
            raise RuntimeError(record.getMessage())


def strict_logger() -> logging.Logger:
    """A logger for the generator that is `Strict`."""
    logger = logging.getLogger("benchmarks.hpbandster")
    if not logger.handlers:
        logger.addHandler(Strict())
    logger.propagate = False
    return logger


def create(kind: str, task: Task) -> HpBandSterBOHB:
    """The generator for the task."""
    return HpBandSterBOHB(task)
