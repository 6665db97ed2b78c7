"""How often the intervals of `Study.importance` hold the true shares, for functions whose shares are known.

    python -m benchmarks.importance --seeds 4

One row for each function and design: how large a part of the 90 % intervals holds the truth, give or take
0.01, how wide they are, and how far their means are off. A design is some points of a Sobol sequence, or the
trials of a search. With `--warped` the values are modelled as the suggester models them.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

import gpbo
from gpbo.analysis import fit_surrogate
from gpbo.analysis.importance import sobol_indices
from gpbo.gp import STRENGTHS

Objective = Callable[[dict[str, Any]], float]
_TRUE_PAIRS = 4096
_SLACK = 0.01


def _cube(d: int, low: float, high: float) -> gpbo.SearchSpace:
    return gpbo.SearchSpace({f"x{j}": gpbo.Float(low, high) for j in range(d)})


def ishigami(config: dict[str, float]) -> float:
    a, b, c = config.values()
    return math.sin(a) + 7.0 * math.sin(b) ** 2 + 0.1 * c**4 * math.sin(a)


def g_function(config: dict[str, float]) -> float:
    pairs = zip(config.values(), (0.0, 0.5, 3.0, 9.0, 99.0, 99.0), strict=True)
    return math.prod((abs(4.0 * x - 2.0) + a) / (1.0 + a) for x, a in pairs)


def rosenbrock(config: dict[str, float]) -> float:
    x = list(config.values())
    return sum(100.0 * (x[i + 1] - x[i] ** 2) ** 2 + (1.0 - x[i]) ** 2 for i in range(len(x) - 1))


def training(config: dict[str, Any]) -> float:
    """A loss in a conditional space."""
    loss = (math.log10(config["lr"]) + 2.5) ** 2
    return loss + 2.0 * (config["momentum"] - 0.9) ** 2 if config["optimizer"] == "sgd" else loss


FUNCTIONS: dict[str, tuple[gpbo.SearchSpace, Objective]] = {
    "ishigami": (_cube(3, -math.pi, math.pi), ishigami),
    "g-function": (_cube(6, 0.0, 1.0), g_function),
    "rosenbrock-4": (_cube(4, -2.0, 2.0), rosenbrock),
    "training": (
        gpbo.SearchSpace(
            lr=gpbo.Float(1e-4, 1e-1, log=True),
            optimizer=gpbo.Categorical(["sgd", "adam"]),
            momentum=gpbo.Float(0.0, 0.99, when={"optimizer": "sgd"}),
            width=gpbo.Int(1, 8),
        ),
        training,
    ),
}


def measure(name: str, design: str, n: int, seed: int, warps: tuple[float, ...]) -> Tensor:  # (3,)
    """The part of intervals that hold the truth, their mean width, and the mean error."""
    space, f = FUNCTIONS[name]
    study = gpbo.Study(space, seed=seed)
    if design == "search":
        study.optimize(f, n, progress=False)
    else:
        for config in space.decode(space.cube.sobol(n, seed)):
            study.add(config, f(config))
    found = torch.cat(sobol_indices(fit_surrogate(study, warps=warps).draws(64, seed), space.cube, seed))
    low, high = found.quantile(0.05, dim=-1), found.quantile(0.95, dim=-1)
    true = truth(name)
    held = (true > low - _SLACK) & (true < high + _SLACK)
    return torch.stack([held.double(), high - low, (found.mean(-1) - true).abs()]).mean(-1)


@cache
def truth(name: str) -> Tensor:  # (2 d,)
    """First-order shares, then total ones."""
    space, f = FUNCTIONS[name]

    def values(X: Tensor) -> Tensor:
        return torch.tensor([[f(config) for config in space.decode(X)]], dtype=torch.float64)

    return torch.cat(sobol_indices(values, space.cube, 0, n=_TRUE_PAIRS))[:, 0]


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--designs", default="sobol-15,sobol-40,search-30")
    parser.add_argument("--functions", default=",".join(FUNCTIONS))
    parser.add_argument("--warped", action="store_true")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("| function | trials | hold the truth | width | error |\n| --- | --- | --- | --- | --- |")
    for name in given.functions.split(","):
        for design in given.designs.split(","):
            kind, n = design.split("-")
            warps = STRENGTHS if given.warped else (0.0,)
            runs = [measure(name, kind, int(n), seed, warps) for seed in range(given.seeds)]
            held, width, error = torch.stack(runs).mean(0).tolist()
            print(f"| {name} | {n}, {kind} | {held:.0%} | {width:.2f} | {error:.2f} |", flush=True)


if __name__ == "__main__":
    main()
