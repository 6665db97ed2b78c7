"""Projected L-BFGS for many starts at once: every row is its own problem, all rows share each evaluation.

Notation: b rows x (b, k) in the unit box, coordinates scaled by a preconditioner, history of m pairs
s = x' - x, y = g' - g of the negated function. One evaluation a round: a row whose trial point is not
good enough shortens its step for the next round instead of searching on its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_MEMORY = 8
_ARMIJO = 1e-4
_SHORTER = 0.3
_FIRST = 0.3  # scaled lengths that a step without history goes at most
_SHORTEST = 1e-6


class Maxima(NamedTuple):
    """Where the rows ended, and after how many shared evaluations."""

    x: Tensor  # (b, k)
    value: Tensor  # (b,)
    rounds: int


def maximize_rows(
    function: Callable[[Tensor], tuple[Tensor, Tensor]],  # (b, k) -> (b,), (b, k)
    x: Tensor,  # (b, k)
    *,
    scale: Tensor,  # (k,)
    max_rounds: int = 60,
    tolerance: float = 1e-5,
) -> Maxima:
    """Local maxima of `function` over the unit box, one for each starting row.

    Args:
        function: Values and gradients of many rows.
        x: Starting points in the box.
        scale: Typical lengths of the function along each coordinate, the preconditioner.
        max_rounds: How many times `function` is called at most.
        tolerance: A row is done when its projected, scaled gradient is below it, or it gains less.
    """
    scale = scale.clamp(1e-3, 1.0)
    value, slope = function(x)
    g = -slope * scale
    b, k = x.shape
    S, Y = x.new_zeros(_MEMORY, b, k), x.new_zeros(_MEMORY, b, k)
    rho = x.new_zeros(_MEMORY, b)
    t = x.new_ones(b)
    done = torch.zeros(b, dtype=torch.bool, device=x.device)
    rounds = 1
    while rounds < max_rounds:
        free = ~(((x <= 0.0) & (g > 0.0)) | ((x >= 1.0) & (g < 0.0)))
        pg = torch.where(free, g, 0.0)
        done = done | (pg.abs().amax(-1) < tolerance) | (t < _SHORTEST)
        if bool(done.all()):
            break
        used = min(max(rounds - 1, 1), _MEMORY)  # the older pairs are zeros still
        step = -_two_loop(pg, S[_MEMORY - used :], Y[_MEMORY - used :], rho[_MEMORY - used :])
        step = torch.where(free, step, 0.0)
        uphill = (step * pg).sum(-1) >= 0.0
        step = torch.where(uphill.unsqueeze(-1), -_first_step(pg), step)
        target = (x + t.unsqueeze(-1) * step * scale).clamp(0.0, 1.0)
        new_value, new_slope = function(target)
        rounds += 1
        new_g = -new_slope * scale
        s = (target - x) / scale
        enough = _ARMIJO * -(s * pg).sum(-1)
        good = (new_value >= value + enough) & new_value.isfinite() & ~done
        y = new_g - g
        curvature = (s * y).sum(-1)
        store = good & (curvature > 1e-10 * y.square().sum(-1).clamp(min=1e-300))
        S, Y, rho = _remember(S, Y, rho, s, y, curvature, store)
        gain = torch.where(good, new_value - value, float("inf"))
        done = done | (gain.abs() < 1e-2 * tolerance)
        row = good.unsqueeze(-1)
        x, g = torch.where(row, target, x), torch.where(row, new_g, g)
        value = torch.where(good, new_value, value)
        t = torch.where(good, 1.0, _SHORTER * t)
    return Maxima(x, value, rounds)


def _two_loop(g: Tensor, S: Tensor, Y: Tensor, rho: Tensor) -> Tensor:  # (b, k)
    """The inverse-Hessian product (Nocedal 1980); rows without history get a first step."""
    q = g.clone()
    alphas = []
    for i in range(len(S) - 1, -1, -1):
        alpha = rho[i] * (S[i] * q).sum(-1)
        q -= alpha.unsqueeze(-1) * Y[i]
        alphas.append(alpha)
    yy = Y[-1].square().sum(-1)
    gamma = 1.0 / (rho[-1] * yy).clamp(min=1e-300)
    q = torch.where((rho[-1] > 0.0).unsqueeze(-1), q * gamma.unsqueeze(-1), _first_step(q))
    for i, alpha in zip(range(len(S)), reversed(alphas), strict=True):
        beta = rho[i] * (Y[i] * q).sum(-1)
        q += (alpha - beta).unsqueeze(-1) * S[i]
    return q


def _first_step(g: Tensor) -> Tensor:  # (b, k)
    """The gradient, no longer than a part of the box, however steep the function."""
    return g * (_FIRST / g.abs().amax(-1, keepdim=True).clamp(min=1e-12)).clamp(max=1.0)


def _remember(
    S: Tensor, Y: Tensor, rho: Tensor, s: Tensor, y: Tensor, curvature: Tensor, store: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The history with the pair (s, y) appended in the rows marked `store`."""
    row = store.unsqueeze(-1)
    newest = torch.where(store, 1.0 / curvature.clamp(min=1e-300), 0.0)
    S = torch.where(row, torch.cat([S[1:], s.unsqueeze(0)]), S)
    Y = torch.where(row, torch.cat([Y[1:], y.unsqueeze(0)]), Y)
    rho = torch.where(store, torch.cat([rho[1:], newest.unsqueeze(0)]), rho)
    return S, Y, rho
