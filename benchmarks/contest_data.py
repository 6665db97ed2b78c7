"""What contests share: a clock, and data in 20 dimensions.

The values are those of a smooth function with noise, half of them at random points and half gathered near
the optimum, as in a study that has run for a while.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from gpbo import Float, SearchSpace
from gpbo.gp import warp_values
from gpbo.seeding import generator

D = 20
_NOISE = 0.05  # of the function's spread


class Clock:
    """Seconds of wall clock and of this process's CPU time, by name; the accelerator has finished."""

    def __init__(self, device: str) -> None:
        self._cuda = device.startswith("cuda")
        self.times: dict[str, tuple[float, float]] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what is inside."""
        gc.collect()
        self._finish()
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self._finish()
        self.times[name] = (time.perf_counter() - wall, time.process_time() - cpu)

    def _finish(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()


@dataclass(frozen=True, eq=False)
class Data:
    """Points of the unit cube and a noisy function to be minimised on them."""

    space: SearchSpace
    X: Tensor
    losses: Tensor
    function: Callable[[Tensor], Tensor]


def make_data(n: int, repeat: int, device: str = "cpu") -> Data:
    """A smooth function with noise of 5 % of its spread, and n points."""
    draws = generator(repeat, "speed", n)
    random = partial(torch.rand, dtype=torch.float64, generator=draws)
    centre, phase = 0.2 + 0.6 * random(D), 6.0 * random(D)
    weight = torch.logspace(0.0, -2.0, D, dtype=torch.float64)[torch.randperm(D, generator=draws)]

    def smooth(X: Tensor) -> Tensor:
        bowl = ((X - centre).square() * weight).sum(-1)
        return bowl + 0.1 * ((4.0 * X + phase).sin() * weight).sum(-1)

    def function(X: Tensor) -> Tensor:
        return smooth(X) + _NOISE * spread * torch.randn(len(X), dtype=X.dtype, generator=draws)

    X = random(n, D)
    spread = float(smooth(X).std())
    normal = torch.randn(n // 2, D, dtype=torch.float64, generator=draws)
    X[n - n // 2 :] = (centre + 0.1 * normal).clamp(0.0, 1.0)
    space = SearchSpace({f"x{i:02}": Float(0.0, 1.0) for i in range(D)})
    return Data(space, X.to(device), function(X).to(device), function)


def standardised(losses: Tensor) -> Tensor:
    """Values to be maximised, of mean 0 and standard deviation 1."""
    return warp_values(-losses).z
