"""A greedy batch: points chosen in turn, each given those before it, and all of them climbed at once.

choose    from a pool of candidates, one pick after another; a pick costs one column of the candidates'
          posterior covariance, and no factor is made anew
climb     from all picks in one batch, each on the acquisition that knows of the picks before its own
again     the tops join the pool, and the choice begins anew

A pick depends on those before it only, so that the first ones settle first.

Notation: n rows, q picks, b candidates with covariances k (b, n), A = k R^T. With the picks as rows n..n+q of
R the i-th pick sees the first n + i columns of A; nothing else tells its acquisition from the others'.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gpbo.acquisition.analytic import Rule
from gpbo.acquisition.lbfgs import maximize_rows
from gpbo.acquisition.optimize import Effort, as_far_as_feasible, perturb
from gpbo.cube import Cube, among, is_new
from gpbo.gp import GP
from gpbo.gp.hypers import MEAN_VAR
from gpbo.gp.model import MIN_VAR
from gpbo.numerics import row_blocks, whiten_and_solve
from gpbo.seeding import generator

_SWEEPS = 4  # choices that are climbed from
_ROUNDS = 12  # of a climb
_ROWS = 64  # that climb at least
_KEPT = 128  # candidates of the screening for their value, and as many wherever they are
_TOLERANCE = 1e-4  # of the climb
_WORST = -1e300  # instead of a value that is not a number
_CHUNK = 2**22  # doubles in one screening block
_SEEN_AT_ONCE = 512  # candidates that are compared with the seen points at once


@dataclass(frozen=True, eq=False)
class Turns:
    """How the points of a batch are valued.

    Attributes:
        rule: From the values to improve on to the acquisition's rule.
        lie: The value that a point is believed to have; None for its posterior mean.
        other: A rule that some points go by instead.
        goes_by_other: Whether one does, by its place in the batch and the acquisition's largest value there.
    """

    rule: Callable[[Any], Rule]
    lie: float | None = None
    other: Rule | None = None
    goes_by_other: Callable[[int, float], bool] = lambda place, value: False


def greedy_batch(
    gp: GP,
    cube: Cube,
    q: int,
    turns: Turns,
    *,
    best_f: float,
    incumbents: Tensor,  # (k, d)
    seen: Tensor,  # (m, d)
    seed: int,
    effort: Effort | None = None,
) -> tuple[Tensor, int]:  # (<= q, d)
    """A batch whose points are each the best given those before, and how many went by another rule.

    Args:
        gp: The process; pending rows sharpen its variance.
        cube: The domain.
        q: How many points; there are fewer only when no more were found that are feasible and new.
        turns: How they are valued.
        best_f: The value to improve on.
        incumbents: The best observed points; the search also starts near them.
        seen: Points that must not come again.
        seed: Addresses the random draws.
        effort: How many candidates are screened.
    """
    effort = effort or Effort()
    raw = cube.sobol(effort.raw, seed).to(seen)
    random = generator(seed, "perturbed")
    X = torch.cat([raw, perturb(incumbents, cube, effort.perturbed, random)])
    X = X[cube.feasible(X)]
    if cube.discrete:  # levels repeat: without this the best would be few points many times, or seen ones
        X = torch.unique(X, dim=0)
        X = X[torch.randperm(len(X), generator=random).to(X.device)]
        X = torch.cat([part[~among(part, seen)] for part in X.split(_SEEN_AT_ONCE)])
    parts = [gp.marginal(part) for part in X.split(max(1, _CHUNK // gp.n))]
    mean, var = (torch.cat(of_parts) for of_parts in zip(*parts, strict=True))
    value = turns.rule(mean.new_tensor(best_f))(mean, var.sqrt())[0]
    best = value.topk(min(_KEPT, len(X))).indices
    X = torch.cat([X[best], X[:_KEPT]])
    pool = _make_pool(gp, X[is_new(X, seen)])
    picks = _choose(gp, pool, q, turns, best_f)
    for _ in range(_SWEEPS):
        if len(picks.rows) == 0:
            break
        new = [_climb(_InTurn.of(gp, pool, picks, turns), cube, pool.X[picks.starts].flatten(0, 1))]
        if cube.discrete:
            new += [cube.neighbours(x) for x in torch.cat([pool.X[picks.rows], *new])]
        X = torch.cat(new)
        X = X[cube.feasible(X) & is_new(X, torch.cat([seen, pool.X]))]
        pool = _joined(gp, pool, _make_pool(gp, X))
        picks = _choose(gp, pool, q, turns, best_f)
    return pool.X[picks.rows], int(picks.others.sum())


def in_turn(gp: GP, X: Tensor, turns: Turns, best_f: float) -> Tensor:  # (q, d)
    """The points X in the order of a greedy choice among them."""
    return X[_choose(gp, _make_pool(gp, X), len(X), turns, best_f).rows]


class _Pool(NamedTuple):
    """Candidates that may be picked, and what the process tells of them."""

    X: Tensor  # (b, d)
    z: Tensor  # (b, F) scaled features
    A: Tensor  # (b, n)
    mean: Tensor  # (b,)
    cov: Tensor  # (b, b) of the posterior


class _Picks(NamedTuple):
    rows: Tensor  # (q,) of the pool
    starts: Tensor  # (q, m) of the pool, the best for each pick, its own first
    best_f: Tensor  # (q,) the value that each had to improve on
    surprise: Tensor  # (q,) how far the belief is from the mean, in standard deviations
    others: Tensor  # (q,) bool: whether each went by the other rule


def _make_pool(gp: GP, X: Tensor) -> _Pool:
    z = gp.features(X)
    k = gp.covariance(z, gp.Z)
    A = torch.empty_like(k)
    for i, j, block in row_blocks(gp.R):
        A[:, i:j] = k[:, :j] @ block.mT
    return _Pool(X, z, A, k @ gp.alpha, gp.covariance(z, z) - A @ A.mT)


def _joined(gp: GP, one: _Pool, other: _Pool) -> _Pool:
    cross = gp.covariance(one.z, other.z) - one.A @ other.A.mT
    cov = torch.cat([torch.cat([one.cov, cross], dim=1), torch.cat([cross.mT, other.cov], dim=1)])
    X, z, A, mean = (torch.cat(pair) for pair in zip(one[:4], other[:4], strict=True))
    return _Pool(X, z, A, mean, cov)


def _choose(gp: GP, pool: _Pool, q: int, turns: Turns, best_f: float) -> _Picks:
    """The picks: the pivots of a partial Cholesky factor B of the pool's posterior covariance."""
    b = len(pool.X)
    q = min(q, b)
    m = max(1, min(-(-_ROWS // max(q, 1)), b))
    B = pool.cov.new_zeros(b, q)
    starts = torch.zeros(q, m, dtype=torch.long, device=B.device)
    best_fs, surprises = B.new_zeros(q), B.new_zeros(q)
    others = torch.zeros(q, dtype=torch.bool, device=B.device)
    free = torch.ones(b, dtype=torch.bool, device=B.device)
    mean, var, best = pool.mean, pool.cov.diagonal(), B.new_tensor(best_f)
    floor = MIN_VAR * float(gp.hypers.outputscale)
    for i in range(q):
        best_fs[i] = best
        sigma = var.clamp(min=floor).sqrt()
        value = torch.where(free, turns.rule(best)(mean, sigma)[0].nan_to_num(nan=_WORST), -torch.inf)
        if turns.other is not None and turns.goes_by_other(i, float(value.max())):
            others[i] = True
            value = torch.where(free, turns.other(mean, sigma)[0].nan_to_num(nan=_WORST), -torch.inf)
        top = value.topk(m).indices
        j = top[0]
        starts[i] = torch.where(free[top], top, j)
        noisy = (var[j].clamp(min=0.0) + gp.hypers.noise_var).sqrt()
        B[:, i] = column = torch.addmv(pool.cov[j], B[:, :i], B[j, :i], alpha=-1.0) / noisy
        var = var - column.square()
        if turns.lie is not None:
            surprises[i] = surprise = (turns.lie - mean[j]) / noisy
            mean = mean + surprise * column
        best = torch.maximum(best, mean[j])
        free[j] = False
    return _Picks(starts[:, 0], starts, best_fs, surprises, others)


@dataclass(frozen=True, eq=False)
class _InTurn:
    """The acquisitions of the picks, each at as many points as the pick has starts."""

    base: GP  # n rows
    gp: GP  # n + q rows
    sees: Tensor  # (b, q) 1 where a point knows of a pick, else 0
    alpha: Tensor  # (b, n + q) the weights of its mean
    best_f: Tensor  # (b,) the value that it has to improve on
    turns: Turns
    others: Tensor  # (b,) bool: whether it goes by the other rule

    @classmethod
    def of(cls, gp: GP, pool: _Pool, picks: _Picks, turns: Turns) -> _InTurn:
        grown = gp.condition(pool.X[picks.rows])
        q, m = picks.starts.shape
        sees = torch.ones(q, q, dtype=gp.R.dtype, device=gp.R.device).tril(-1).repeat_interleave(m, 0)
        alpha = grown.alpha + (sees * picks.surprise) @ grown.R[gp.n :]
        best_f, others = picks.best_f.repeat_interleave(m), picks.others.repeat_interleave(m)
        return cls(gp, grown, sees, alpha, best_f, turns, others)

    def value_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:  # (b, d) -> (b,), (b, d)
        k, G = self.gp.covariance_and_slope(X)
        n, tail = self.base.n, self.gp.R[self.base.n :]
        A, V = whiten_and_solve(self.base.R, k[:, :n])
        B = (k @ tail.mT).mul_(self.sees)
        var = self.gp.hypers.outputscale + MEAN_VAR - torch.linalg.vecdot(A, A)
        var -= torch.linalg.vecdot(B, B)
        floor = MIN_VAR * self.gp.hypers.outputscale
        sigma = var.clamp(min=floor).sqrt()
        mean = torch.linalg.vecdot(k, self.alpha)
        usual = self.turns.rule(self.best_f)(mean, sigma)
        other = self.turns.other(mean, sigma) if self.turns.other is not None else usual
        value, by_mean, by_sigma = (
            torch.where(self.others, new, old) for new, old in zip(other, usual, strict=True)
        )
        V_all = B @ tail
        V_all[:, :n] += V
        by_sigma = torch.where(var > floor, by_sigma / sigma, 0.0)
        weights = by_mean.unsqueeze(-1) * self.alpha - by_sigma.unsqueeze(-1) * V_all
        return value, self.gp.pullback(X, G.mul_(weights))


def _climb(acquisition: _InTurn, cube: Cube, X: Tensor) -> Tensor:  # (b, d)
    """Local maxima near the rows of X, snapped; a row whose maximum is infeasible goes as far as it may."""
    if bool(cube.is_categorical.all()):
        return X
    scale = acquisition.gp.lengthscale
    climb = partial(maximize_rows, max_rounds=_ROUNDS, tolerance=_TOLERANCE, held=cube.held)
    tops = climb(acquisition.value_and_gradient, X, scale=scale).x
    return as_far_as_feasible(cube, X, tops)
