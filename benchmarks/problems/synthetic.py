"""The usual published test functions, in 2 to 20, 50 and 100 dimensions, with optima where nobody starts.

Formulas as collected by Surjanovic and Bingham, "Virtual Library of Simulation Experiments". Each function
takes X (n, d) to (n,). Where the published optimum is the centre of the box, or all its coordinates are
equal, the function is moved so that its optimum lies at a random point of the middle 70 % of each side;
the point is fixed by the problem's name. Only functions whose optimum is global in all of R^d are moved. Of
the ones called "six", only the first six coordinates matter.

All dimensions of a function are in the same split, so nothing is tuned on a small version of a test problem.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.problems.base import Problem, Split
from gpbo import Float, SearchSpace
from gpbo.seeding import derive

Array = NDArray[np.float64]
_MARGIN = 0.15  # moved optima keep this distance from the sides of the unit cube


@dataclass(frozen=True, slots=True)
class Function:
    """A published function.

    Attributes:
        f: (n, d) -> (n,).
        bounds: One (low, high) for all coordinates, or one pair for each.
        argmin: A place where the minimum is attained.
        optimum: The minimum.
        split: "dev" or "test".
        move: Whether to move the optimum to a random place.
    """

    f: Callable[[Array], Array]
    bounds: Sequence[tuple[float, float]]
    argmin: Sequence[float]
    optimum: float
    split: Split
    move: bool = True

    @property
    def d(self) -> int:
        """The number of coordinates."""
        return len(self.argmin)

    @property
    def group(self) -> str:
        """The group of problems that it belongs to."""
        return "synthetic" if self.d <= 20 else "high-dimensional"

    @property
    def box(self) -> Array:  # (2, d)
        """The lower and the upper bounds."""
        pairs = self.bounds if len(self.bounds) == self.d else [self.bounds[0]] * self.d
        return np.array(pairs, dtype=float).T


def problems() -> list[Problem]:
    """The synthetic problems, development ones first."""
    return [_problem(name, function) for name, function in functions().items()]


def shift(name: str, function: Function) -> Array:  # (d,)
    """How far the function called `name` is moved."""
    if not function.move:
        return np.zeros(function.d)
    low, high = function.box
    place = np.random.default_rng(derive(0, "shift", name)).uniform(_MARGIN, 1 - _MARGIN, function.d)
    return np.asarray(low + place * (high - low) - np.asarray(function.argmin))


def functions() -> dict[str, Function]:
    """Every function by name."""
    found: dict[str, Function] = {}

    def add(
        name: str, f: Callable[[Array], Array], bounds: Any, argmin: Any, optimum: float = 0.0, **more: Any
    ) -> None:
        pairs = [bounds] if isinstance(bounds, tuple) else bounds
        found[f"{name}-{len(argmin)}"] = Function(f, pairs, list(argmin), optimum, **more)

    def zeros(d: int) -> list[float]:
        return [0.0] * d

    def ones(d: int) -> list[float]:
        return [1.0] * d

    def dixon_price_argmin(d: int) -> list[float]:
        return [2.0 ** (-(2.0**i - 2) / 2.0**i) for i in range(1, d + 1)]

    dev: Any = {"split": "dev"}
    add("branin", branin, [(-5, 10), (0, 15)], [np.pi, 2.275], 0.39788735772973816, move=False, **dev)
    add("bohachevsky", bohachevsky, (-100, 100), zeros(2), **dev)
    add("goldstein_price", goldstein_price, (-2, 2), [0, -1], 3.0, **dev)
    add("hartmann", hartmann3, (0, 1), [0.114614, 0.555649, 0.852547], -3.862779787, move=False, **dev)
    add("rosenbrock", rosenbrock, (-5, 10), ones(4), **dev)
    add("rosenbrock", rosenbrock, (-5, 10), ones(10), **dev)
    add("zakharov", zakharov, (-5, 10), zeros(5), **dev)
    add("styblinski_tang", styblinski_tang, (-5, 5), [-2.903534027771] * 6, -39.16616570377142 * 6, **dev)
    add("griewank", griewank, (-600, 600), zeros(8), **dev)
    for d in (5, 10, 20, 50):
        add("ackley", ackley, (-32.768, 32.768), zeros(d), **dev)
    add("rosenbrock", rosenbrock, (-5, 10), ones(50), **dev)
    add("styblinski_tang", styblinski_tang, (-5, 5), [-2.903534027771] * 50, -39.16616570377142 * 50, **dev)
    place = [-2.903534027771] * 6 + zeros(44)
    add("six_styblinski_tang", six(styblinski_tang), (-5, 5), place, -39.16616570377142 * 6, **dev)
    add("griewank", griewank, (-600, 600), zeros(100), **dev)
    test: Any = {"split": "test"}
    add(
        "six_hump_camel",
        six_hump_camel,
        [(-3, 3), (-2, 2)],
        [0.089842013, -0.712656403],
        -1.031628453489877,
        **test,
    )
    add("beale", beale, (-4.5, 4.5), [3, 0.5], move=False, **test)
    add("dixon_price", dixon_price, (-10, 10), dixon_price_argmin(4), **test)
    add("dixon_price", dixon_price, (-10, 10), dixon_price_argmin(10), **test)
    add(
        "shekel",
        shekel,
        (0, 10),
        [4.000746531, 4.000592936, 3.999663398, 3.999509801],
        -10.536409816692,
        **test,
    )
    place = [2.202905520, 1.570796327, 1.284991567, 1.923058469, 1.720469767]
    add("michalewicz", michalewicz, (0, np.pi), place, -4.687658179, move=False, **test)
    place = [0.20168951, 0.15001069, 0.47687398, 0.27533243, 0.31165162, 0.65730054]
    add("hartmann", hartmann6, (0, 1), place, -3.322368011, move=False, **test)
    add("six_hartmann", six(hartmann6), (0, 1), place + zeros(44), -3.322368011, move=False, **test)
    for d in (6, 50):
        add("rastrigin", rastrigin, (-5.12, 5.12), zeros(d), **test)
    for d in (8, 100):
        add("powell", powell, (-4, 5), zeros(d), **test)
    add("dixon_price", dixon_price, (-10, 10), dixon_price_argmin(50), **test)
    for d in (5, 10, 20, 50):
        add("levy", levy, (-10, 10), ones(d), **test)
    return found


def _problem(name: str, function: Function) -> Problem:
    low, high = function.box
    names = [f"x{i + 1}" for i in range(function.d)]
    return Problem(
        name=f"{function.group}/{name}",
        space=SearchSpace(
            {n: Float(a, b) for n, a, b in zip(names, low.tolist(), high.tolist(), strict=True)}
        ),
        objective=partial(_value, function.f, shift(name, function), names),
        split=function.split,
        optimum=function.optimum,
    )


def _value(
    f: Callable[[Array], Array], moved: Array, names: Sequence[str], config: Mapping[str, Any]
) -> float:
    return float(f(np.array([[config[name] for name in names]]) - moved)[0])


def six(f: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """The function of six coordinates, of the first six of any number."""
    return partial(_of_six, f)


def _of_six(f: Callable[[Array], Array], X: Array) -> Array:
    return f(X[:, :6])


# Below, x_i is column i - 1 of X.


def ackley(X: Array) -> Array:
    near = -20 * np.exp(-0.2 * np.sqrt((X**2).mean(1)))
    return near - np.exp(np.cos(2 * np.pi * X).mean(1)) + 20 + np.e


def beale(X: Array) -> Array:
    x, y = X.T
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def bohachevsky(X: Array) -> Array:
    x, y = X.T
    return x**2 + 2 * y**2 - 0.3 * np.cos(3 * np.pi * x) - 0.4 * np.cos(4 * np.pi * y) + 0.7


def branin(X: Array) -> Array:
    x, y = X.T
    bowl = (y - 5.1 / (4 * np.pi**2) * x**2 + 5 / np.pi * x - 6) ** 2
    return bowl + 10 * (1 - 1 / (8 * np.pi)) * np.cos(x) + 10


def dixon_price(X: Array) -> Array:
    i = np.arange(2, X.shape[1] + 1)
    return (X[:, 0] - 1) ** 2 + (i * (2 * X[:, 1:] ** 2 - X[:, :-1]) ** 2).sum(1)


def goldstein_price(X: Array) -> Array:
    x, y = X.T
    p, q = x + y, 2 * x - 3 * y
    return (1 + (p + 1) ** 2 * (19 - 14 * p + 3 * p**2)) * (30 + q**2 * (18 - 16 * q + 3 * q**2))


def griewank(X: Array) -> Array:
    i = np.arange(1, X.shape[1] + 1)
    return (X**2).sum(1) / 4000 - np.cos(X / np.sqrt(i)).prod(1) + 1


_HARTMANN_WEIGHTS = np.array([1.0, 1.2, 3.0, 3.2])


def hartmann3(X: Array) -> Array:
    A = np.array([[3, 10, 30], [0.1, 10, 35], [3, 10, 30], [0.1, 10, 35]])
    P = 1e-4 * np.array([[3689, 1170, 2673], [4699, 4387, 7470], [1091, 8732, 5547], [381, 5743, 8828]])
    return -np.exp(-(A * (X[:, None] - P) ** 2).sum(-1)) @ _HARTMANN_WEIGHTS


def hartmann6(X: Array) -> Array:
    A = np.array(
        [
            [10, 3, 17, 3.5, 1.7, 8],
            [0.05, 10, 17, 0.1, 8, 14],
            [3, 3.5, 1.7, 10, 17, 8],
            [17, 8, 0.05, 10, 0.1, 14],
        ]
    )
    P = 1e-4 * np.array(
        [
            [1312, 1696, 5569, 124, 8283, 5886],
            [2329, 4135, 8307, 3736, 1004, 9991],
            [2348, 1451, 3522, 2883, 3047, 6650],
            [4047, 8828, 8732, 5743, 1091, 381],
        ]
    )
    return -np.exp(-(A * (X[:, None] - P) ** 2).sum(-1)) @ _HARTMANN_WEIGHTS


def levy(X: Array) -> Array:
    W = 1 + (X - 1) / 4
    first, last = W[:, 0], W[:, -1]
    middle = ((W[:, :-1] - 1) ** 2 * (1 + 10 * np.sin(np.pi * W[:, :-1] + 1) ** 2)).sum(1)
    return np.sin(np.pi * first) ** 2 + middle + (last - 1) ** 2 * (1 + np.sin(2 * np.pi * last) ** 2)


def michalewicz(X: Array) -> Array:
    i = np.arange(1, X.shape[1] + 1)
    return -(np.sin(X) * np.sin(i * X**2 / np.pi) ** 20).sum(1)


def powell(X: Array) -> Array:
    a, b, c, d = X[:, 0::4], X[:, 1::4], X[:, 2::4], X[:, 3::4]
    return ((a + 10 * b) ** 2 + 5 * (c - d) ** 2 + (b - 2 * c) ** 4 + 10 * (a - d) ** 4).sum(1)


def rastrigin(X: Array) -> Array:
    return (X**2 - 10 * np.cos(2 * np.pi * X) + 10).sum(1)


def rosenbrock(X: Array) -> Array:
    return (100 * (X[:, 1:] - X[:, :-1] ** 2) ** 2 + (X[:, :-1] - 1) ** 2).sum(1)


def shekel(X: Array) -> Array:
    beta = np.array([1, 2, 2, 4, 4, 6, 3, 7, 5, 5]) / 10
    C = np.array(
        [
            [4, 1, 8, 6, 3, 2, 5, 8, 6, 7],
            [4, 1, 8, 6, 7, 9, 5, 1, 2, 3.6],
            [4, 1, 8, 6, 3, 2, 3, 8, 6, 7],
            [4, 1, 8, 6, 7, 9, 3, 1, 2, 3.6],
        ]
    )
    return -(1 / (((X[:, None] - C.T) ** 2).sum(-1) + beta)).sum(1)


def six_hump_camel(X: Array) -> Array:
    x, y = X.T
    return (4 - 2.1 * x**2 + x**4 / 3) * x**2 + x * y + (-4 + 4 * y**2) * y**2


def styblinski_tang(X: Array) -> Array:
    return (X**4 - 16 * X**2 + 5 * X).sum(1) / 2


def zakharov(X: Array) -> Array:
    s = (0.5 * np.arange(1, X.shape[1] + 1) * X).sum(1)
    return (X**2).sum(1) + s**2 + s**4
