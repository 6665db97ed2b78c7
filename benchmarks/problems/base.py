"""What a problem is: a search space, a number for each config, and what is known of the best number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gpbo import SearchSpace
from gpbo.errors import SettingError

Split = Literal["dev", "test"]
Objective = Callable[[Mapping[str, Any]], float]
AtBudget = Callable[[Mapping[str, Any], float], float]


@dataclass(frozen=True, slots=True)
class Fidelity:
    """A resource that makes an evaluation cheaper and less telling.

    Attributes:
        name: What the resource is called in the problem's own words, such as "epoch".
        low: The smallest amount that means anything.
        high: The full amount, which `Problem.objective` uses.
        objective: The value of a config at an amount.
        cost: What that takes, in seconds.
        is_integer: Whether only whole amounts exist.
    """

    name: str
    low: float
    high: float
    objective: AtBudget
    cost: AtBudget
    is_integer: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to optimise, the same in every run.

    Attributes:
        name: "group/short name", unique.
        space: What may be tuned; no constants, so that every peer can express it.
        objective: The deterministic value of a config, at full fidelity.
        split: "dev" for problems that defaults may be chosen on, "test" for those that are only reported.
        direction: Whether small or large values are good.
        optimum: The best value there is, or the best known; None where only runs can tell.
        worst: A published worst value that regret is normalised with, or None.
        fidelity: How to evaluate for less, where that is possible.
    """

    name: str
    space: SearchSpace
    objective: Objective
    split: Split
    direction: Literal["minimize", "maximize"] = "minimize"
    optimum: float | None = None
    worst: float | None = None
    fidelity: Fidelity | None = None

    def __post_init__(self) -> None:
        if self.name.count("/") != 1:
            raise SettingError(f"`name` must be 'group/short name', got {self.name!r}.")
        constants = [name for name in self.space.parameters if name not in self.space.columns]
        if constants:
            raise SettingError(f"a benchmark's space must have no constants, got {constants}.")

    @property
    def group(self) -> str:
        """The part of the name before the slash."""
        return self.name.split("/")[0]

    def loss(self, value: float) -> float:
        """The value with the sign that makes small ones good, which is what peers are told."""
        return -value if self.direction == "maximize" else value
