"""What a peer is, and what all adapters need: an order for conditions, and configs drawn at random.

A peer is made for one run. It is asked for a config and told its loss, which is to be minimised. Before the
first ask it may be told results that it did not ask for: the shared initial design.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Any, Protocol

from gpbo import Categorical, SearchSpace
from gpbo.seeding import generator

Config = dict[str, Any]
MAX_REJECTIONS = 32  # proposals in a row that break a constraint, before a random config is taken instead


@dataclass(slots=True)
class Counts:
    """What a peer wants noted about its run: proposals that the constraints forbade."""

    rejections: int = 0


@dataclass(frozen=True, slots=True)
class Task:
    """What a peer is made for.

    Attributes:
        space: What may be tuned.
        seed: Addresses all randomness.
        evaluations: How many evaluations there will be, told ones included.
        n_given: How many results it is told before its first ask; 0 for its own initial design.
        device: Where tensors are computed, for peers that use them.
    """

    space: SearchSpace
    seed: int
    evaluations: int
    n_given: int = 0
    device: str = "cpu"
    counts: Counts = field(default_factory=Counts)


class Peer(Protocol):
    """One optimiser in one run."""

    def ask(self) -> Config:
        """The next config, valid in the task's space."""
        ...

    def tell(self, config: Config, loss: float) -> None:
        """Take note of a result, asked for or not."""
        ...


def in_order(space: SearchSpace) -> list[str]:
    """The parameters' names with parents first."""
    parents = {name: list(p.when or ()) for name, p in space.parameters.items()}
    return list(TopologicalSorter(parents).static_order())


def tidy(space: SearchSpace, given: Mapping[str, Any]) -> Config:
    """A valid config from a peer's values: inactive ones left out, numbers pulled inside their bounds."""
    config: Config = {}
    for name in in_order(space):
        parameter = space.parameters[name]
        if not space.is_active(name, config):
            continue
        value = given[name]
        if not isinstance(parameter, Categorical):
            value = min(max(value, parameter.low), parameter.high)
        config[name] = parameter.normalise(value)
    return {name: config[name] for name in space.parameters if name in config}


def random_config(task: Task, *key: int | str) -> Config:
    """A uniformly random feasible config, addressed by the task's seed and `key`."""
    return task.space.decode(task.space.cube.draw(1, generator(task.seed, "random", *key)))[0]


def quietly() -> warnings.catch_warnings[None]:
    """A context in which other people's warnings are not shown."""
    return warnings.catch_warnings(action="ignore")
