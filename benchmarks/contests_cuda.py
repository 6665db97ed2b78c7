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
from gpbo.gp import Hypers, exact_posterior, fit_gp
from gpbo.gp.model import make_gp

_CHECKED = 64  # rows whose equation is checked


class Factor:
    """The exact posterior of n points in one n x n buffer: covariance, factor and weights."""

    def __init__(self, n: int, repeat: int, device: str) -> None:
        data = make_data(n, repeat, device)
        self._cube, self._X, self._z = data.space.cube, data.X, standardised(data.losses)
        self._residual = math.nan
        self.entrants: dict[str, Callable[[Clock], None]] = {"gpbo": self._gpbo}

    def _gpbo(self, clock: Clock) -> None:
        one = self._X.new_ones(())
        hypers = Hypers(self._X.new_full((D,), math.sqrt(D)), 1e-2 * one, one)
        with clock("gpbo"):
            posterior = exact_posterior(self._cube, self._X, self._z, hypers)
        # K alpha = y - noise_var alpha. Only the number is kept: a second buffer would not fit.
        rows = torch.linspace(0, len(self._X) - 1, _CHECKED, device=self._X.device).round().long()
        expected = self._z[rows] - hypers.noise_var * posterior.alpha[rows]
        self._residual = float((posterior.marginal(self._X[rows])[0] - expected).abs().max())

    def guards(self, *, thorough: bool) -> dict[str, float]:
        """How far the weights are from solving their equations; nobody else has a factor of this size."""
        return {"residual": self._residual}


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
