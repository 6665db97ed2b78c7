"""Projected L-BFGS for many starts at once: every row is its own problem, all rows share each evaluation.

Notation: b rows x (b, k) in the unit box, coordinates scaled by a preconditioner, history of m pairs
s = x' - x, y = g' - g of the negated function. One evaluation a round: a row whose trial point is not
good enough shortens its step for the next round instead of searching on its own. The inverse Hessian is
applied in its compact form (Byrd, Nocedal and Schnabel 1994, eq. 3.1), a few products of small matrices.

The rows that are left after sifting have their curvature measured, by differences of gradients in one more
shared evaluation, and go on from its inverse instead of from what their history tells: a few rounds then do
what some twenty would.
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
_MEASURED = 50  # columns; the curvature by more of them costs more than the rounds that it saves
_APART = 1e-4  # scaled lengths between the gradients whose difference is the curvature
_FLATTEST = 0.3  # curvature that a step may count on


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
        sift: After how many rounds only the best rows go on, with their curvature measured, and how many
            these are; by default all go on, and without.
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
    inverse = None
    free = [j for j in range(x.shape[1]) if j not in held]
    rounds = 1
    while rounds < max_rounds:
        sifted = sift is not None and rounds == sift[0]
        if sift is not None and sifted and len(x) > sift[1]:
            ahead = value.nan_to_num(nan=-torch.inf).topk(sift[1]).indices
            x, value, g, S, Y, t, done, start = (v[ahead] for v in (x, value, g, S, Y, t, done, start))
        bound = torch.where(g > 0.0, x <= 0.0, x >= 1.0)
        pg = g.masked_fill(bound, 0.0)
        done = done | (pg.abs().amax(-1) < tolerance) | (t < _SHORTEST)
        if sifted and len(free) <= _MEASURED and rounds + 1 < max_rounds and not bool(done.all()):
            inverse = _inverse_curvature(function, x, g, moves, free, bound)
            S, Y, t = torch.zeros_like(S), torch.zeros_like(Y), torch.ones_like(t)
            rounds += 1
        step, promise = _step(pg, S, Y, inverse)
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


def _inverse_curvature(
    function: Callable[[Tensor], tuple[Tensor, Tensor]],
    x: Tensor,  # (b, k)
    g: Tensor,  # (b, k)
    moves: Tensor,  # (k,)
    free: Sequence[int],
    bound: Tensor,  # (b, k)
) -> Tensor:  # (b, k, k)
    """The inverse of the Hessian at every row, negative curvature taken for as much positive one.

    The identity for coordinates that are held or bound.
    """
    (b, k), columns = x.shape, torch.tensor(free, dtype=torch.long, device=x.device)
    apart = _APART * (1.0 - 2.0 * (x > 0.5).to(x.dtype))  # into the box
    near = x.unsqueeze(1) + torch.diag_embed(apart * moves)[:, columns]
    slope = function(near.flatten(0, 1))[1].reshape(b, len(free), k)
    H = x.new_zeros(b, k, k)
    H[:, columns] = (-slope * moves - g.unsqueeze(1)) / apart[:, columns].unsqueeze(-1)
    still = bound | (moves == 0.0)
    H = (0.5 * (H + H.mT)).masked_fill(still.unsqueeze(-1) | still.unsqueeze(-2), 0.0)
    lam, Q = torch.linalg.eigh(H.nan_to_num() + torch.diag_embed(still.to(H.dtype)))
    return (Q / lam.abs().clamp(min=_FLATTEST).unsqueeze(-2)) @ Q.mT


def _step(g: Tensor, S: Tensor, Y: Tensor, inverse: Tensor | None) -> tuple[Tensor, Tensor]:  # (b, k), (b,)
    """The inverse Hessian times g, and the gain it promises to first order; unused history holds zeros.

    Where the product is no descent, and without an inverse to begin from where there is no history either, it
    is the inverse alone, or else a scaled gradient that promises anything.
    """
    SY = S @ Y.mT
    D = SY.diagonal(dim1=-2, dim2=-1)
    R = torch.triu(SY)
    R.diagonal(dim1=-2, dim2=-1).add_(D <= 0.0)
    column = g.unsqueeze(-1)
    w = torch.linalg.solve_triangular(R, S @ column, upper=True)
    rest = column - Y.mT @ w
    if inverse is None:
        rest *= (D[:, -1] / torch.linalg.vecdot(Y[:, -1], Y[:, -1]).clamp(min=1e-300))[:, None, None]
    else:
        rest = inverse @ rest
    u = torch.linalg.solve_triangular(R.mT, D.unsqueeze(-1) * w - Y @ rest, upper=False)
    product = torch.baddbmm(rest, S.mT, u).squeeze(-1)
    promise = torch.linalg.vecdot(product, g)
    known = promise > 0.0
    if inverse is None:
        known &= D[:, -1] > 0.0
        first = g * (_FIRST / g.abs().amax(-1, keepdim=True).clamp(min=_FIRST))
        hope = torch.full_like(promise, torch.inf)
    else:
        first = (inverse @ column).squeeze(-1)
        hope = torch.linalg.vecdot(first, g)
    return torch.where(known.unsqueeze(-1), product, first), torch.where(known, promise, hope)


def _remember(H: Tensor, newest: Tensor, store: Tensor) -> Tensor:
    """The history (b, m, k) with the newest pair's part last in the rows marked `store`."""
    return torch.where(store[:, None, None], torch.cat([H[:, 1:], newest.unsqueeze(1)], dim=1), H)
