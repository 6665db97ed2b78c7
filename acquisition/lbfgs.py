"""Projected L-BFGS for many starts at once: every row is its own problem, all rows share each evaluation.

Notation: b rows x (b, k) in the unit box, coordinates scaled by a preconditioner, history of m pairs
s = x' - x, y = g' - g of the negated function. One evaluation a round: a row whose trial point is not
good enough shortens its step for the next round instead of searching on its own. The inverse Hessian is
applied in its compact form (Byrd, Nocedal and Schnabel 1994, eq. 3.1), a few products of small matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    held: Sequence[int] = (),
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
        held: Coordinates that stay where they start.
    """
    scale = scale.clamp(1e-3, 1.0)
    moves = scale.index_fill(0, torch.tensor(held, dtype=torch.long, device=x.device), 0.0)
    value, slope = function(x)
    g = -slope * moves
    S, Y = x.new_zeros(len(x), _MEMORY, x.shape[1]), x.new_zeros(len(x), _MEMORY, x.shape[1])
    t = x.new_ones(len(x))
    done = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    start = torch.arange(len(x), device=x.device)
    rounds = 1
    while rounds < max_rounds:
        if sift is not None and rounds == sift[0] and len(x) > sift[1]:
            ahead = value.nan_to_num(nan=-torch.inf).topk(sift[1]).indices
            x, value, g, S, Y, t, done, start = (v[ahead] for v in (x, value, g, S, Y, t, done, start))
        bound = torch.where(g > 0.0, x <= 0.0, x >= 1.0)
        pg = g.masked_fill(bound, 0.0)
        done = done | (pg.abs().amax(-1) < tolerance) | (t < _SHORTEST)
        step, promise = _step(pg, S, Y)
        done = done | (promise < 0.01 * tolerance)
        if sift is not None and rounds >= sift[0]:  # rows that do not expect to overtake the best give up
            done = done | (value + 2.0 * promise < value.max())
        if bool(done.all()):
            break
        step = step.masked_fill(bound, 0.0)
        target = torch.addcmul(x, t.unsqueeze(-1) * step, scale, value=-1.0).clamp_(0.0, 1.0)
        new_value, new_slope = function(target)
        rounds += 1
        new_g = -new_slope * moves
        s = (target - x) / scale
        enough = _ARMIJO * torch.linalg.vecdot(s, pg)
        good = (new_value - value + enough >= 0.0) & ~done & new_value.isfinite()
        y = new_g - g
        store = good & (torch.linalg.vecdot(s, y) > 1e-10 * torch.linalg.vecdot(y, y).clamp(min=1e-300))
        S, Y = _remember(S, s, store), _remember(Y, y, store)
        row = good.unsqueeze(-1)
        x, g = torch.where(row, target, x), torch.where(row, new_g, g)
        value = torch.where(good, new_value, value)
        t = torch.where(good, 1.0, _SHORTER * t)
    return Maxima(x, value, start, rounds)


def _step(g: Tensor, S: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:  # (b, k), (b,)
    """The inverse Hessian times g, and the gain it promises to first order; unused history holds zeros.

    Rows without history, or where the product is no descent, get a scaled gradient that promises anything.
    """
    SY = S @ Y.mT
    D = SY.diagonal(dim1=-2, dim2=-1)
    R = torch.triu(SY)
    R.diagonal(dim1=-2, dim2=-1).add_(D <= 0.0)
    gamma = (D[:, -1:] / torch.linalg.vecdot(Y[:, -1], Y[:, -1]).clamp(min=1e-300).unsqueeze(-1)).unsqueeze(
        -1
    )
    column = g.unsqueeze(-1)
    w = torch.linalg.solve_triangular(R, S @ column, upper=True)
    rest = gamma * (column - Y.mT @ w)
    u = torch.linalg.solve_triangular(R.mT, D.unsqueeze(-1) * w - Y @ rest, upper=False)
    product = torch.baddbmm(rest, S.mT, u).squeeze(-1)
    promise = torch.linalg.vecdot(product, g)
    known = (D[:, -1] > 0.0) & (promise > 0.0)
    first = g * (_FIRST / g.abs().amax(-1, keepdim=True).clamp(min=_FIRST))
    return torch.where(known.unsqueeze(-1), product, first), torch.where(known, promise, torch.inf)


def _remember(H: Tensor, newest: Tensor, store: Tensor) -> Tensor:
    """The history (b, m, k) with the newest pair's part last in the rows marked `store`."""
    return torch.where(store[:, None, None], torch.cat([H[:, 1:], newest.unsqueeze(1)], dim=1), H)
