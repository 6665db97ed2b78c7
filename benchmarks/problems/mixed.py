"""Problems with integers, categories, conditions and constraints, whose optimum is known.

Four are for development and four for the test; each half has one with conditions, one with a constraint
and one with all kinds of parameters side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.problems.base import Problem, Split
from benchmarks.problems.synthetic import Array, ackley, branin, hartmann3, levy, six_hump_camel
from gpbo import Categorical, Float, Int, SearchSpace
from gpbo.seeding import derive

Config = Mapping[str, Any]


def problems() -> list[Problem]:
    """The mixed problems, development ones first."""
    return [
        _side_by_side("ackley-9", ackley, centre=0.0, split="dev"),
        _tree(),
        _gomez_levy(),
        _pairs(),
        _side_by_side("levy-9", levy, centre=1.0, split="test"),
        _branches(),
        _pressure_vessel(),
        _network(),
    ]


def _side_by_side(name: str, f: Callable[[Array], Array], *, centre: float, split: Split) -> Problem:
    """Three floats, three integers and three categories; `f` has its minimum 0 where all are `centre`."""
    rng = np.random.default_rng(derive(0, "mixed", name))
    floats, integers = rng.uniform(-3, 3, 3), rng.integers(-7, 8, 3)
    steps = [rng.permutation([-2.0, -1.0, 0.0, 1.0, 2.0]) for _ in range(3)]  # categories in no order
    choices = ["a", "b", "c", "d", "e"]

    def objective(config: Config) -> float:
        x = [config[f"x{i}"] - floats[i] for i in range(3)]
        x += [0.5 * (config[f"k{i}"] - integers[i]) for i in range(3)]
        x += [steps[i][choices.index(config[f"c{i}"])] for i in range(3)]
        return float(f(np.array([x]) + centre)[0])

    parameters: dict[str, Any] = {f"x{i}": Float(-5, 5) for i in range(3)}
    parameters |= {f"k{i}": Int(-10, 10) for i in range(3)}
    parameters |= {f"c{i}": Categorical(choices) for i in range(3)}
    return Problem(f"mixed/{name}", SearchSpace(parameters), objective, split, optimum=0.0)


def _tree() -> Problem:
    """A binary decision tree with four leaves and a parameter shared by two of them.

    After Jenatton et al. 2017, section 5.1, with optima moved away from the centre and the border.
    """
    space = SearchSpace(
        root=Categorical(["left", "right"]),
        left=Categorical(["low", "high"], when={"root": "left"}),
        right=Categorical(["low", "high"], when={"root": "right"}),
        shared_left=Float(0, 1, when={"root": "left"}),
        shared_right=Float(0, 1, when={"root": "right"}),
        a=Float(-1, 1, when={"left": "low"}),
        b=Float(-1, 1, when={"left": "high"}),
        c=Float(-1, 1, when={"right": "low"}),
        d=Float(-1, 1, when={"right": "high"}),
    )
    return Problem("mixed/tree-9", space, _tree_value, "dev", optimum=0.1)


def _tree_value(config: Config) -> float:
    leaf = next(name for name in "abcd" if name in config)
    best = {"a": 0.37, "b": -0.52, "c": 0.64, "d": -0.18}[leaf]
    height = {"a": 0.2, "b": 0.3, "c": 0.1, "d": 0.4}[leaf]
    shared = config.get("shared_left", config.get("shared_right"))
    return float((config[leaf] - best) ** 2 + abs(shared - 0.28) + height)


def _gomez_levy() -> Problem:
    """The six-hump camel under a wavy constraint (Gomez and Levy 1982)."""

    def allowed(config: Config) -> bool:
        wave = -math.sin(4 * math.pi * config["x"]) + 2 * math.sin(2 * math.pi * config["y"]) ** 2
        return wave <= 1.5

    space = SearchSpace(x=Float(-1, 0.75), y=Float(-1, 1), constraints=[allowed])
    return Problem("mixed/gomez_levy-2", space, _camel_value, "dev", optimum=-1.031628453489877)


def _camel_value(config: Config) -> float:
    return float(six_hump_camel(np.array([[config["x"], config["y"]]]))[0])


def _pairs() -> Problem:
    """Eight categories in a ring, each pair of neighbours with a random table; the optimum by enumeration."""
    rng = np.random.default_rng(derive(0, "mixed", "pairs-8"))
    n, levels = 8, 4
    tables = rng.random((n, levels, levels))
    every = np.indices((levels,) * n).reshape(n, -1)
    totals = sum(tables[i][every[i], every[(i + 1) % n]] for i in range(n))

    def objective(config: Config) -> float:
        k = [int(config[f"c{i}"][1:]) for i in range(n)]
        return float(sum(tables[i, k[i], k[(i + 1) % n]] for i in range(n)))

    space = SearchSpace({f"c{i}": Categorical([f"v{k}" for k in range(levels)]) for i in range(n)})
    return Problem("mixed/pairs-8", space, objective, "dev", optimum=float(np.min(totals)))


def _branches() -> Problem:
    """Three methods with parameters of their own, of which one can reach the least value."""
    space = SearchSpace(
        method=Categorical(["branin", "hartmann", "whole"]),
        u=Float(-5, 10, when={"method": "branin"}),
        v=Float(0, 15, when={"method": "branin"}),
        p=Float(0, 1, when={"method": "hartmann"}),
        q=Float(0, 1, when={"method": "hartmann"}),
        r=Float(0, 1, when={"method": "hartmann"}),
        k=Int(1, 1000, log=True, when={"method": "whole"}),
        extra=Categorical([False, True], when={"method": "whole"}),
        m=Int(0, 40, step=4, when={"extra": True}),
    )
    return Problem("mixed/branches-9", space, _branches_value, "test", optimum=0.39788735772973816 / 50)


def _branches_value(config: Config) -> float:
    if config["method"] == "branin":
        return float(branin(np.array([[config["u"], config["v"]]]))[0]) / 50
    if config["method"] == "hartmann":
        return (float(hartmann3(np.array([[config["p"], config["q"], config["r"]]]))[0]) + 3.86278) / 4 + 0.05
    bowl = math.log(config["k"] / 37) ** 2 / 10
    return bowl + (0.02 + abs(config["m"] - 28) / 80 if config["extra"] else 0.12)


def _pressure_vessel() -> Problem:
    """The pressure vessel (Kannan and Kramer 1994): plates in steps of 1/16 inch, three constraints."""
    plate = Float(0.0625, 6.1875, step=0.0625)
    space = SearchSpace(
        shell=plate,
        head=plate,
        radius=Float(10, 200),
        length=Float(10, 200),
        constraints=[
            "0.0193 * radius <= shell",
            "0.00954 * radius <= head",
            f"{math.pi} * radius ** 2 * length + {4 / 3 * math.pi} * radius ** 3 >= 1296000",
        ],
    )
    return Problem("mixed/pressure_vessel-4", space, _vessel_value, "test", optimum=6059.714335)


def _vessel_value(config: Config) -> float:
    s, h, r, n = (config[name] for name in ("shell", "head", "radius", "length"))
    return float(0.6224 * s * r * n + 1.7781 * h * r**2 + 3.1661 * s**2 * n + 19.84 * s**2 * r)


def _network() -> Problem:
    """What tuning a network looks like, as a formula: a valley in two log scales and conditional widths."""
    space = SearchSpace(
        optimizer=Categorical(["sgd", "adam", "rmsprop"]),
        lr=Float(1e-6, 1.0, log=True),
        weight_decay=Float(1e-8, 1e-1, log=True),
        momentum=Float(0, 0.99, when={"optimizer": ["sgd", "rmsprop"]}),
        layers=Int(1, 4),
        width=Int(8, 1024, log=True),
        width_2=Int(8, 1024, log=True, when={"layers": [2, 3, 4]}),
        activation=Categorical(["relu", "tanh", "gelu"]),
    )
    return Problem("mixed/network-8", space, _network_value, "test", optimum=0.1)


def _network_value(config: Config) -> float:
    kind = config["optimizer"]
    log_lr, log_wd = math.log10(config["lr"]), math.log10(config["weight_decay"])
    best_lr = {"sgd": -1.2, "adam": -2.9, "rmsprop": -3.3}[kind]
    if kind == "sgd":
        best_lr -= 1.5 * config["momentum"]
    loss = 0.1 + {"sgd": 0.03, "adam": 0.0, "rmsprop": 0.02}[kind]
    loss += 0.15 * (log_lr - best_lr) ** 2 + 0.02 * (log_wd + 0.5 * log_lr + 2.4) ** 2
    if kind != "adam":
        loss += 0.1 * (config["momentum"] - 0.85) ** 2
    loss += 0.04 * abs(config["layers"] - 3) + 0.03 * math.log2(config["width"] / 181) ** 2 / 4
    if config["layers"] > 1:
        loss += 0.02 * math.log2(config["width_2"] / 90) ** 2 / 4
    return loss + {"relu": 0.01, "tanh": 0.03, "gelu": 0.0}[config["activation"]]
