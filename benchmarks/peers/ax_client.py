"""Ax through its Client: get_next_trials and complete_trial with the default strategy.

That is the centre of the space, then Sobol up to 5 trials, then its modular BoTorch ("fast"). Categories,
ordered or not, are texts in Ax; numbers with steps are ordered choices, as Ax's own `step_size` makes them.

Approximated: conditions are a tree in Ax, so what has several parents, or exists with several values of one,
is always there and is left out of the config where it does not exist; in a result from elsewhere it then has
its first level or lower bound. Ax takes linear constraints only, between numbers that are neither on a log
scale nor many choices, and the problems have none of these: a config that breaks a constraint is told as an
infeasible one, which Ax models as an outcome, and another is asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from benchmarks.peers.base import MAX_REJECTIONS, Config, Task, in_order, quietly, random_config, tidy
from gpbo import Categorical, Float, SearchSpace
from gpbo.parameters import level_of
from gpbo.space import Parameter


class AxClient:
    """An Ax experiment in memory that minimises the loss."""

    def __init__(self, task: Task) -> None:
        with quietly():
            from ax.api.client import Client

            for handler in logging.getLogger("ax").handlers:  # its loggers each have a level of their own
                handler.setLevel(logging.ERROR)
            self._client = Client(random_seed=task.seed)
            self._client.configure_experiment(to_parameters(task.space))
            constraints = ["feasible >= 0.5"] if task.space.constraints else None
            self._client.configure_optimization("-loss", constraints)
            if task.device != "cpu":
                self._client.configure_generation_strategy(torch_device=task.device)
        self._task, self._n_told = task, 0
        self._asked: tuple[int, Config] | None = None

    def ask(self) -> Config:
        """The next trial's config; after too many infeasible ones, a random feasible config."""
        for _ in range(MAX_REJECTIONS):
            with quietly():
                [(index, values)] = self._client.get_next_trials(max_trials=1).items()
                config = tidy(self._task.space, from_values(self._task.space, values))
                if self._task.space.satisfies(config):
                    self._asked = (index, config)
                    return config
                self._reject(index)
        self._asked = None
        return random_config(self._task, "rejected", self._task.counts.rejections)

    def tell(self, config: Config, loss: float) -> None:
        """Complete the trial that was asked for, or attach one for a result from elsewhere."""
        with quietly():
            if self._asked is not None and self._asked[1] == config:
                index = self._asked[0]
            else:
                index = self._client.attach_trial(to_values(self._task.space, config))
            feasible = {"feasible": 1.0} if self._task.space.constraints else {}
            self._client.complete_trial(index, {"loss": loss, **feasible})
        self._asked = None
        self._n_told += 1

    def _reject(self, index: int) -> None:
        self._task.counts.rejections += 1
        if self._n_told:
            self._client.complete_trial(index, {"feasible": 0.0})
        else:  # Ax has no model of a loss without a single value
            self._client.mark_trial_abandoned(index)


def to_parameters(space: SearchSpace) -> list[Any]:
    """Ax's parameters, as a tree where they have a home."""
    from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig

    below: dict[str, dict[Any, list[str]]] = {}
    for name in space.parameters:
        if home := _home(space, name):
            below.setdefault(home[0], {}).setdefault(home[1], []).append(name)
    found = []
    for name, p in space.parameters.items():
        kind = "str" if isinstance(p, Categorical) else "float" if isinstance(p, Float) else "int"
        if isinstance(p, Categorical) or name in below or p.step not in (None, 1):
            ordered = not isinstance(p, Categorical) or p.ordered
            levels = p.from_unit([(k + 0.5) / p.n_levels for k in range(p.n_levels)])
            values = [_to_value(p, level) for level in levels]
            found.append(ChoiceParameterConfig(name, values, kind, ordered, below.get(name)))
        else:
            scaling = "log" if p.log else "linear"
            found.append(RangeParameterConfig(name, (p.low, p.high), kind, scaling=scaling))
    return found


def to_values(space: SearchSpace, config: Mapping[str, Any]) -> dict[str, Any]:
    """The config in Ax's values, with what always exists there."""
    values: dict[str, Any] = {}
    for name in in_order(space):
        p, home = space.parameters[name], _home(space, name)
        if name in config:
            values[name] = _to_value(p, config[name])
        elif home is None or values.get(home[0]) == home[1]:
            values[name] = _to_value(p, p.choices[0] if isinstance(p, Categorical) else p.low)
    return values


def from_values(space: SearchSpace, values: Mapping[str, Any]) -> dict[str, Any]:
    """The config of Ax's values, with parameters that may not exist."""
    parameters = space.parameters
    return {
        name: p.choices[int(value)] if isinstance(p := parameters[name], Categorical) else value
        for name, value in values.items()
    }


def _home(space: SearchSpace, name: str) -> tuple[str, Any] | None:
    """The one parent, and its one value in Ax, with which the parameter exists."""
    when = space.parameters[name].when or {}
    cases = [(parent, value) for parent, values in when.items() for value in values]
    if len(cases) != 1:
        return None
    parent, value = cases[0]
    return (parent, _to_value(space.parameters[parent], value))


def _to_value(p: Parameter, value: Any) -> Any:
    return str(level_of(p, value)) if isinstance(p, Categorical) else value


def create(kind: str, task: Task) -> AxClient:
    """The client for the task."""
    return AxClient(task)
