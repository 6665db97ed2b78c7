"""Ray Tune's searchers, driven by the calls that Ray makes on them, without Ray's processes.

Ray's own loop takes about a second a trial, whoever searches; here a trial is `suggest`, `on_trial_result`
and `on_trial_complete`, one at a time. `OptunaSearch` as it comes (TPE), over a define-by-run function, which
has the conditions; `TuneBOHB` as it comes, over a ConfigSpace, each trial at one budget, without the brackets
of HyperBandForBOHB; and gpbo's `GPBOSearch` as it comes. Where Ray is used without a searcher, it draws at
random, which is the peer `random`.

Approximated: ordered categories are given to `OptunaSearch` as the whole number of their place, and as in
`configspace` to `TuneBOHB`; a config that breaks a constraint is told as a trial with an error and another is
asked for, and after too many a random one, of which the searcher does not hear.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.peers.base import MAX_REJECTIONS, Config, Task, in_order, quietly, random_config, tidy
from benchmarks.peers.configspace import from_values, to_configspace
from benchmarks.peers.hpbandster_bohb import strict_logger
from benchmarks.peers.optuna_study import suggested
from gpbo import Categorical, SearchSpace
from gpbo.errors import SettingError
from gpbo.seeding import derive


class RaySearch:
    """A searcher and the way from its values to configs."""

    def __init__(self, searcher: Any, to_config: Callable[[Config], Config], task: Task) -> None:
        self._searcher = searcher
        self._to_config = to_config
        self._task = task
        self._asked: Config | None = None
        self._n = 0  # trials until now

    def ask(self) -> Config:
        """The next config; after too many infeasible ones, a random feasible config."""
        for _ in range(MAX_REJECTIONS):
            self._n += 1
            with quietly():
                config = self._to_config(self._searcher.suggest(str(self._n)))
            if self._task.space.satisfies(config):
                self._asked = config
                return config
            self._searcher.on_trial_complete(str(self._n), error=True)
            self._task.counts.rejections += 1
        self._asked = None
        return random_config(self._task, "rejected", self._n)

    def tell(self, config: Config, loss: float) -> None:
        """Report and end the trial that was asked for."""
        if config != self._asked:
            return
        result = {"loss": loss, "training_iteration": 1, "hyperband_info": {"budget": 1}, "done": True}
        with quietly():
            self._searcher.on_trial_result(str(self._n), result)
            self._searcher.on_trial_complete(str(self._n), result)


def _optuna(task: Task) -> RaySearch:
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space, order = task.space, in_order(task.space)

    def define(trial: Any) -> None:  # Ray keeps what was suggested
        suggested(space, order, trial)

    def to_config(values: Config) -> Config:
        return tidy(space, {name: _choice(space, name, value) for name, value in values.items()})

    return RaySearch(OptunaSearch(define, metric="loss", mode="min", seed=task.seed), to_config, task)


def _bohb(task: Task) -> RaySearch:
    from ray.tune.search.bohb import TuneBOHB

    space = to_configspace(task.space, task.seed)
    np.random.seed(
        derive(task.seed, "bohb") % 2**32
    )  # HpBandSter draws from there, Ray seeds the space alone
    searcher = TuneBOHB(space, {"logger": strict_logger()}, metric="loss", mode="min", seed=task.seed % 2**32)
    return RaySearch(searcher, lambda values: tidy(task.space, from_values(task.space, values)), task)


def _gpbo(task: Task) -> RaySearch:
    from gpbo.integrations.ray_tune import GPBOSearch

    searcher = GPBOSearch(task.space, metric="loss", mode="min", seed=task.seed, device=task.device)
    return RaySearch(searcher, dict, task)


def _choice(space: SearchSpace, name: str, value: Any) -> Any:
    p = space.parameters[name]
    return p.choices[value] if isinstance(p, Categorical) and p.ordered else value


_SEARCHERS = {"optuna": _optuna, "bohb": _bohb, "gpbo": _gpbo}


def create(kind: str, task: Task) -> RaySearch:
    """The searcher called `kind` for the task.

    Raises:
        SettingError: if results are to be given that it did not ask for.
    """
    if task.n_given:
        raise SettingError("Ray's searchers take no shared initial design; leave `--shared-initial` out.")
    with quietly():
        return _SEARCHERS[kind](task)
