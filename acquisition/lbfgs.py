"""Projected L-BFGS for many starts at once: every row is its own problem, all rows share each evaluation.

Notation: b rows x (b, k) in the unit box, coordinates scaled by a preconditioner, history of m pairs
s = x' - x, y = g' - g of the negated function. One evaluation a round: a row whose trial point is not
good enough shortens its step for the next round instead of searching on its own. The inverse Hessian is
applied in its compact form (Byrd, Nocedal and Schnabel 1994, eq. 3.1), a few products of small matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_MEMORY = 10
_ARMIJO = 1e-4
_SHORTER = 0.3
_FIRST = 0.3  # scaled lengths that a step without history goes at most
_SHORTEST = 1e-6


class Maxima(NamedTuple):
    """Where the rows ended, which starts they are, and after how many shared evaluations."""

    x: Tensor  # (b, k)
    value: Tensor  # (b,)
    start: Tensor  # (b,)
    rounds: int


def maximize_rows(
    function: Callable[[Tensor], tuple[Tensor, Tensor]],  # (b, k) -> (b,), (b, k)
    x: Tensor,  # (b, k)
    *,
    scale: Tensor,  # (k,)
    max_rounds: int = 60,
    tolerance: float = 1e-5,
    sift: tuple[int, int] | None = None,
) -> Maxima:
    """Local maxima of `function` over the unit box, one for each starting row or for the best of them.

    Args:
        function: Values and gradients of many rows.
        x: Starting points in the box.
        scale: Typical lengths of the function along each coordinate, the preconditioner.
        max_rounds: How many times `function` is called at most.
        tolerance: A row is done when its projected, scaled gradient is below it, or a full step promises a
            gain of less than a hundredth of it.
        sift: After how many rounds only the best rows go on, and how many these are; all by default.
    """
    scale = scale.clamp(1e-3, 1.0)
    value, slope = function(x)
    g = -slope * scale
    S, Y = x.new_zeros(len(x), _MEMORY, x.shape[1]), x.new_zeros(len(x), _MEMORY, x.shape[1])
    t = x.new_ones(len(x))
    done = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    start = torch.arange(len(x), device=x.device)
    rounds = 1
    while rounds < max_rounds:
        if sift is not None and rounds == sift[0] and len(x) > sift[1]:
            ahead = value.nan_to_num(nan=-torch.inf).topk(sift[1]).indices
            x, value, g, S, Y, t, done, start = (v[ahead] for v in (x, value, g, S, Y, t, done, start))
        free = ~(((x <= 0.0) & (g > 0.0)) | ((x >= 1.0) & (g < 0.0)))
        pg = torch.where(free, g, 0.0)
        done = done | (pg.abs().amax(-1) < tolerance) | (t < _SHORTEST)
        step = -_inverse_hessian_times(pg, S, Y)
        step = torch.where(free, step, 0.0)
        uphill = (step * pg).sum(-1) >= 0.0
        step = torch.where(uphill.unsqueeze(-1), -_first_step(pg), step)
        promise = -(step * pg).sum(-1)  # of a full step, to first order
        done = done | ((promise < 0.01 * tolerance) & (S[:, -1] != 0.0).any(-1))
        if sift is not None and rounds >= sift[0]:  # rows that do not expect to overtake the best give up
            done = done | (value + 2.0 * promise < value.max())
        if bool(done.all()):
            break
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
        S, Y = _remember(S, s, store), _remember(Y, y, store)
        row = good.unsqueeze(-1)
        x, g = torch.where(row, target, x), torch.where(row, new_g, g)
        value = torch.where(good, new_value, value)
        t = torch.where(good, 1.0, _SHORTER * t)
    return Maxima(x, value, start, rounds)


def _inverse_hessian_times(g: Tensor, S: Tensor, Y: Tensor) -> Tensor:  # (b, k)
    """The product; rows without history get a first step. Unused places of the history hold zeros."""
    SY = S @ Y.mT
    D = SY.diagonal(dim1=-2, dim2=-1)
    empty = D <= 0.0
    R = torch.triu(SY) + torch.diag_embed(empty.to(g.dtype))
    newest = Y[:, -1].square().sum(-1)
    gamma = (D[:, -1] / newest.clamp(min=1e-300)).unsqueeze(-1)
    g_ = g.unsqueeze(-1)
    w = torch.linalg.solve_triangular(R, S @ g_, upper=True)
    inner = D.unsqueeze(-1) * w + gamma.unsqueeze(-1) * (Y @ (Y.mT @ w - g_))
    u = torch.linalg.solve_triangular(R.mT, inner, upper=False)
    product = gamma * (g - (Y.mT @ w).squeeze(-1)) + (S.mT @ u).squeeze(-1)
    return torch.where(empty[:, -1:], _first_step(g), product)


def _first_step(g: Tensor) -> Tensor:  # (b, k)
    """The gradient, no longer than a part of the box, however steep the function."""
    return g * (_FIRST / g.abs().amax(-1, keepdim=True).clamp(min=1e-12)).clamp(max=1.0)


def _remember(H: Tensor, newest: Tensor, store: Tensor) -> Tensor:
    """The history (b, m, k) with the newest pair's part last in the rows marked `store`."""
    return torch.where(store[:, None, None], torch.cat([H[:, 1:], newest.unsqueeze(1)], dim=1), H)
