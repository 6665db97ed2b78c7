"""Acquisition functions of one point's posterior mean and standard deviation, with gradients.

Notation: b points X (b, d) or (b, 1, d), mean m, standard deviation s, best_f the value to improve on,
z = (m - best_f) / s, h(z) = phi(z) + z Phi(z).

    EI = s h(z)      log EI = log s + log h(z)      log PI = log Phi(z)      UCB = m + sqrt(beta) s

(Jones et al. 1998; Ament et al. 2023, eq. 9; Kushner 1964; Srinivas et al. 2010.) Value and gradient come
from one pass over the posterior; where torch's autograd asks for a gradient it is handed the same one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gpbo.errors import SettingError
from gpbo.gp import GP
from gpbo.numerics import log_h, log_ndtr_slope

Rule = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Analytic:
    """An acquisition function given by its value and slopes in (mean, standard deviation)."""

    gp: GP
    rule: Rule

    def __call__(self, X: Tensor) -> Tensor:  # (..., 1, d) -> (...)
        """The value of each single point; differentiable once.

        Raises:
            SettingError: if `X` holds more than one point a candidate.
        """
        if X.ndim < 2 or X.shape[-2] != 1:
            raise SettingError(
                f"`X` must have shape (..., 1, {self.gp.embedding.cube.d}), got {tuple(X.shape)}."
            )
        flat = X.reshape(-1, X.shape[-1])
        value: Tensor = _Fused.apply(flat, self)  # type: ignore[no-untyped-call]
        return value.reshape(X.shape[:-2])

    def values(self, X: Tensor) -> Tensor:  # (b, d) -> (b,)
        """The values alone, at half the cost."""
        mean, var = self.gp.marginal(X)
        return self.rule(mean, var.sqrt())[0]

    def value_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:  # (b, d) -> (b,), (b, d)
        """The values and their gradients."""
        mean, var, gradient = self.gp.marginal_and_slope(X)
        sigma = var.sqrt()
        value, by_mean, by_sigma = self.rule(mean, sigma)
        return value, gradient(by_mean, 0.5 * by_sigma / sigma)


def log_ei(gp: GP, best_f: float) -> Analytic:
    """The logarithm of expected improvement on `best_f`; finite however small the improvement."""

    def rule(mean: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = (mean - best_f) / sigma
        value, slope = log_h(z)
        return sigma.log() + value, slope / sigma, (1.0 - slope * z) / sigma

    return Analytic(gp, rule)


def ei(gp: GP, best_f: float) -> Analytic:
    """Expected improvement on `best_f`; it underflows to 0 far from any improvement, unlike `log_ei`."""

    def rule(mean: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = (mean - best_f) / sigma
        phi = torch.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
        return sigma * log_h(z)[0].exp(), torch.special.ndtr(z), phi

    return Analytic(gp, rule)


def log_pi(gp: GP, best_f: float) -> Analytic:
    """The logarithm of the probability to improve on `best_f`."""

    def rule(mean: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = (mean - best_f) / sigma
        slope = log_ndtr_slope(z)
        return torch.special.log_ndtr(z), slope / sigma, -slope * z / sigma

    return Analytic(gp, rule)


def ucb(gp: GP, beta: float) -> Analytic:
    """The upper confidence bound mean + sqrt(beta) sigma.

    Raises:
        SettingError: if `beta` is negative.
    """
    if beta < 0:
        raise SettingError(f"`beta` must be >= 0, got {beta}.")
    weight = math.sqrt(beta)

    def rule(mean: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        one = torch.ones_like(mean)
        return mean + weight * sigma, one, weight * one

    return Analytic(gp, rule)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, X: Tensor, acquisition: Analytic) -> Tensor:
        value, gradient = acquisition.value_and_gradient(X)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return grad.unsqueeze(-1) * gradient, None
