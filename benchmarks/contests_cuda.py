"""The contests of `benchmarks.speed` that need an accelerator."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.contest_data import Clock, D, make_data, standardised
from benchmarks.contests import best_points, botorch_ask
from benchmarks.judge import Judge
from gpbo.acquisition import Effort, log_ei, maximize, thompson_batch
from gpbo.gp import Hypers, fit_gp
from gpbo.gp.model import make_gp
from gpbo.kernels import matern, squared_distances
from gpbo.numerics import cholesky


class Factor:
    """The exact factor of n points in one buffer, the covariance being written by blocks."""

    def __init__(self, n: int, repeat: int, device: str) -> None:
        data = make_data(n, repeat, device)
        self._X, self._device = data.X, device
        self.entrants: dict[str, Callable[[Clock], None]] = {"gpbo": self._gpbo}

    def _gpbo(self, clock: Clock) -> None:
        n = len(self._X)
        Z = (self._X - self._X.mean(0)) / math.sqrt(D)
        with clock("gpbo"):
            K = torch.empty(n, n, dtype=Z.dtype, device=Z.device)
            for rows in torch.arange(n, device=Z.device).split(2048):
                K[rows] = matern(squared_distances(Z[rows], Z), 2.5)
            K.diagonal().add_(1e-2)
            cholesky(K)

    def guards(self, *, thorough: bool) -> dict[str, float]:
        """None: nobody else has a factor to compare with."""
        return {}


class ThompsonMany:
    """A pathwise Thompson batch on a process that is fitted already."""

    def __init__(self, n: int, repeat: int, device: str, q: int = 256) -> None:
        data = make_data(n, repeat, device)
        z, self._q, self._repeat = standardised(data.losses), q, repeat
        _, found = fit_gp(data.space.cube, data.X[:1000], z[:1000])  # enough to settle them
        self._judge = Judge(data.space.cube, data.X, z, found.hypers[0])
        self._gp = make_gp(data.space.cube, data.X, z, found.hypers[0])
        self.entrants: dict[str, Callable[[Clock], None]] = {"gpbo": self._gpbo}

    def _gpbo(self, clock: Clock) -> None:
        judge = self._judge
        draw = partial(
            thompson_batch, self._gp, judge.cube, self._q, incumbents=best_points(judge), seen=judge.X
        )
        draw(seed=self._repeat + 1_000_000)
        with clock("gpbo"):
            draw(seed=self._repeat)

    def guards(self, *, thorough: bool) -> dict[str, float]:
        """The process's variance."""
        return {"variance_error": self._judge.variance_error(self._gp)} if thorough else {}


class AskStarts:
    """A warm refit and a search from 1 024 starts on the accelerator, against BoTorch's loop there."""

    def __init__(self, n: int, repeat: int, device: str) -> None:
        data = make_data(n + 1, repeat, device)
        self._data, self._X = data, data.X
        self._z, self._cube, self._repeat = standardised(data.losses), data.space.cube, repeat
        _, before = fit_gp(self._cube, self._X[:-1], self._z[:-1])
        self._warm = before.hypers[0]
        self.entrants: dict[str, Callable[[Clock], None]] = {"gpbo": self._gpbo, "botorch": self._botorch}

    def _gpbo(self, clock: Clock) -> None:
        self._ask(self._repeat + 1_000_000)
        with clock("gpbo"):
            self._hypers, self._x = self._ask(self._repeat)

    def _ask(self, seed: int) -> tuple[Hypers, Tensor | None]:
        gp, found = fit_gp(self._cube, self._X, self._z, warm=self._warm)
        x = maximize(
            log_ei(gp, float(self._z.max())),
            self._cube,
            incumbents=self._X[self._z.topk(5).indices],
            seen=self._X,
            scale=gp.hypers.lengthscale,
            seed=seed,
            effort=Effort(raw=16384, perturbed=4096, starts=1024, rounds=60),
        )
        return found.hypers[0], x

    def _botorch(self, clock: Clock) -> None:
        botorch_ask(self._data, self._repeat, clock)

    def guards(self, *, thorough: bool) -> dict[str, float]:
        """Of the fit and the posterior."""
        if not thorough:
            return {}
        judge = Judge(self._cube, self._X, self._z, self._hypers)
        return {"fit_gap": judge.fit_gap({}), "variance_error": judge.variance_error()}
