"""Thompson sampling: functions drawn from the posterior, and the point where each of them is largest.

Notation: q paths f_s, n observed rows Z, M features of M / 2 frequencies, phi(z) = (cos wz, sin wz).

    f_s(x) = prior_s(x) + k(x, Z) v_s           prior_s(x) = mean_s + phi(z) . weights_s
    v_s    = C^-1 (y - prior_s(Z) - e_s)         e_s ~ N(0, noise_var I)

(Matheron's rule; Wilson et al. 2020, arXiv 2002.09309.) The frequencies of a Matern kernel follow a
multivariate Student t with 2 nu degrees of freedom (Rahimi and Recht 2007), drawn here from a Sobol
sequence, because the kernel's error is then smaller than that of independent draws. The features only
stand in for the prior: the update is exact. One point of one path costs O(n + M), against O(n^2) for the
posterior's variance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gpbo.acquisition.analytic import log_ei
from gpbo.acquisition.greedy import Turns, in_turn
from gpbo.acquisition.lbfgs import maximize_rows
from gpbo.acquisition.monte_carlo import base_samples
from gpbo.acquisition.optimize import Effort, as_far_as_feasible, perturb
from gpbo.checks import whole
from gpbo.cube import Cube, among, is_new
from gpbo.gp import GP
from gpbo.gp.hypers import MEAN_VAR
from gpbo.kernels import matern, matern_and_slope, squared_distances
from gpbo.seeding import derive, generator

_FREQUENCIES = 1024
_EFFORT = Effort(raw=2048, perturbed=512, starts=16, rounds=40)
_SIFTING = 10  # rounds that all starts of a path climb
_SIFTED = 2  # how many of them go on
_SWEEPS = 6  # over the discrete columns
_MANY_LEVELS = 16  # an ordered column with more of them moves by one or two levels
_CHUNK_ON_CPU = 2**19  # doubles in one block, which stays in the cache
_CHUNK_ON_CUDA = 2**26


@dataclass(frozen=True, eq=False)
class Paths:
    """q functions drawn from one posterior.

    Attributes:
        gp: The process they were drawn from.
        Z: (n, F) scaled features of the observed rows.
        frequencies: (F, M / 2) of the prior's features.
        weights: (q, M) of the cosines and of the sines.
        update: (q, n) weights of the kernel, outputscale included.
        offset: (q,) what does not depend on x.
    """

    gp: GP
    Z: Tensor
    frequencies: Tensor
    weights: Tensor
    update: Tensor
    offset: Tensor

    def __len__(self) -> int:
        """The number of paths, q."""
        return len(self.offset)

    def __getitem__(self, rows: Tensor | slice) -> Paths:
        """Some of the paths."""
        return replace(self, weights=self.weights[rows], update=self.update[rows], offset=self.offset[rows])

    def values(self, X: Tensor) -> Tensor:  # (b, d) or (q, b, d) -> (q, b)
        """Every path at the same b points, or each at b points of its own."""
        if X.ndim == 2:
            rows = _rows_in_chunk(self)
            return torch.cat([self._at_shared(part) for part in X.split(rows)], dim=-1)
        return torch.cat([paths._at_own(part) for paths, part in _chunks(self, X)])

    def value_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:  # (q, b, d) -> (q, b), (q, b, d)
        """Each path at b points of its own, and its gradient there."""
        parts = [paths._with_gradient(part) for paths, part in _chunks(self, X)]
        return torch.cat([value for value, _ in parts]), torch.cat([slope for _, slope in parts])

    def _at_shared(self, X: Tensor) -> Tensor:  # (b, d) -> (q, b)
        z = self.gp.features(X)
        theta = z @ self.frequencies
        phi = torch.cat([theta.cos(), theta.sin()], dim=-1)
        k = matern(squared_distances(z, self.Z), self.gp.nu)
        return self.offset.unsqueeze(-1) + self.weights @ phi.mT + self.update @ k.mT

    def _at_own(self, X: Tensor) -> Tensor:  # (q, b, d) -> (q, b)
        z = self.gp.features(X)
        theta = z @ self.frequencies
        of_cos, of_sin = self.weights.chunk(2, dim=-1)
        k = matern(squared_distances(z, self.Z), self.gp.nu)
        value = _per_path(k, self.update)
        value += _per_path(theta.cos(), of_cos)
        value += _per_path(theta.sin_(), of_sin)
        return value + self.offset.unsqueeze(-1)

    def _with_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:
        z = self.gp.features(X)
        theta = z @ self.frequencies
        cos, sin = theta.cos(), theta.sin_()
        of_cos, of_sin = (part.unsqueeze(-2) for part in self.weights.chunk(2, dim=-1))
        k, G = matern_and_slope(squared_distances(z, self.Z), self.gp.nu)
        value = self.offset.unsqueeze(-1) + _per_path(k, self.update)
        value += _per_path(cos, of_cos.squeeze(-2))
        value += _per_path(sin, of_sin.squeeze(-2))
        slope = torch.sub(cos.mul_(of_sin), sin.mul_(of_cos)) @ self.frequencies.mT
        G *= self.update.unsqueeze(-2)  # dk/dz = -G (z - Z)
        slope += G @ self.Z
        slope -= G.sum(-1, keepdim=True) * z
        return value, self.gp.embedding.pullback(X, slope.mul_(self.gp.scale))


def draw_paths(gp: GP, q: int, seed: int, *, n_frequencies: int = _FREQUENCIES) -> Paths:
    """`q` functions drawn from the posterior given the rows that have a value; pending rows are left out.

    Args:
        gp: The posterior.
        q: How many.
        seed: Addresses the random draws.
        n_frequencies: How many frequencies, two features each, stand in for the prior, M / 2.

    Raises:
        SettingError: if `q` or `n_frequencies` is not positive.
    """
    whole("q", q, low=1)
    whole("n_frequencies", n_frequencies, low=1)
    known = int(gp.y.isfinite().sum())
    Z, R, y = gp.Z[:known], gp.R[:known, :known], gp.y[:known]
    hypers = gp.hypers
    frequencies = _frequencies(Z.shape[-1], n_frequencies, gp.nu, seed, Z.device)
    draws = generator(seed, "paths")
    normal = torch.randn(q, 2 * n_frequencies + known + 1, dtype=Z.dtype, generator=draws)
    weights, noise, mean = normal.to(Z.device).split([2 * n_frequencies, known, 1], dim=-1)
    weights = weights * (hypers.outputscale / n_frequencies).sqrt()
    mean = mean * math.sqrt(MEAN_VAR)
    theta = Z @ frequencies
    prior = mean + weights @ torch.cat([theta.cos(), theta.sin()], dim=-1).mT
    v = (y - prior - hypers.noise_var.sqrt() * noise) @ R.mT @ R
    offset = mean.squeeze(-1) + MEAN_VAR * v.sum(-1)
    return Paths(gp, Z, frequencies, weights, hypers.outputscale * v, offset)


def thompson_batch(
    gp: GP,
    cube: Cube,
    q: int,
    *,
    incumbents: Tensor,  # (k, d)
    seen: Tensor,  # (m, d)
    seed: int,
    effort: Effort | None = None,
) -> Tensor:  # (<= q, d)
    """For each of `q` paths a feasible point where it is large, no two the same and none among `seen`.

    Where several paths agree on a point the first gets it and the others their next best. There are fewer
    points than paths only when no more were found that are feasible and new. They come in the order of a
    greedy choice among them by expected improvement, so that the first few are good together.

    Args:
        gp: The posterior; its pending rows count for nothing, because a draw differs from theirs anyway.
        cube: The domain.
        q: How many points.
        incumbents: The best observed points; the search also starts near them.
        seen: Points that must not come again.
        seed: Addresses the random draws.
        effort: How hard to look; `starts` and `rounds` are those of each path.
    """
    paths = draw_paths(gp, q, derive(seed, "paths"))
    X = path_maxima(paths, cube, incumbents=incumbents, seen=seen, seed=seed, effort=effort or _EFFORT)
    known = gp.y.isfinite()
    mean = gp.y[known] - gp.hypers.noise_var * gp.alpha[known]  # K C^-1 y = y - noise_var C^-1 y
    return in_turn(gp, X, Turns(lambda best: log_ei(gp, best).rule), float(mean.max()))


def path_maxima(
    paths: Paths,
    cube: Cube,
    *,
    incumbents: Tensor,  # (k, d)
    seen: Tensor,  # (m, d)
    seed: int,
    effort: Effort,
) -> Tensor:  # (<= q, d)
    """The points of `thompson_batch`, in the order of their paths."""
    q = len(paths)
    listed = cube.enumerate()
    if listed is not None:
        shared = listed.to(seen)
        return _choose(shared, paths.values(shared), seen, [])
    raw = cube.sobol(max(effort.raw, 2 * q), seed).to(seen)
    near = perturb(incumbents, cube, effort.perturbed, generator(seed, "perturbed"))
    shared = torch.cat([raw, near])
    shared = shared[cube.feasible(shared)]
    if len(shared) == 0:
        return shared
    values = paths.values(shared)
    starts = shared[values.topk(min(effort.starts, len(shared)), dim=-1).indices]  # (q, b, d)
    sifted = _best_of(paths, _climb(paths, cube, starts, min(_SIFTING, effort.rounds)), _SIFTED)
    own = [_climb(paths, cube, sifted, effort.rounds)]
    if cube.discrete:
        top = _settle(paths, cube, _best_of(paths, own[0], 1))
        own += [top, _climb(paths, cube, top, effort.rounds)]
    return _choose(shared, values, seen, [(X, paths.values(X)) for X in own])


def _frequencies(n_columns: int, n: int, nu: float, seed: int, device: torch.device) -> Tensor:
    dof = round(2 * nu)
    normal = base_samples(n_columns + dof, n, derive(seed, "frequencies"), device)
    chi2 = normal[:, n_columns:].square().sum(-1).clamp(min=1e-12)
    # ~ t_{2 nu}(0, I)
    return (normal[:, :n_columns] * (dof / chi2).sqrt().unsqueeze(-1)).mT.contiguous()


def _per_path(features: Tensor, weights: Tensor) -> Tensor:  # (q, b, m), (q, m) -> (q, b)
    return (features @ weights.unsqueeze(-1)).squeeze(-1)


def _rows_in_chunk(paths: Paths) -> int:
    room = _CHUNK_ON_CUDA if paths.Z.is_cuda else _CHUNK_ON_CPU
    return max(1, room // (len(paths.Z) + paths.weights.shape[-1]))


def _chunks(paths: Paths, X: Tensor) -> Iterator[tuple[Paths, Tensor]]:
    """Some of the paths with their points at a time, so that memory does not grow with q."""
    size = max(1, _rows_in_chunk(paths) // max(X.shape[1], 1))
    for start in range(0, len(X), size):
        rows = slice(start, start + size)
        yield paths[rows], X[rows]


def _climb(paths: Paths, cube: Cube, X: Tensor, rounds: int) -> Tensor:  # (q, b, d)
    """Local maxima of each path near its rows, snapped and feasible."""
    if bool(cube.is_categorical.all()):
        return X

    def function(rows: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = paths.value_and_gradient(rows.reshape(X.shape))
        return value.flatten(), slope.flatten(0, 1)

    rows = X.flatten(0, 1)
    scale = paths.gp.lengthscale
    tops = maximize_rows(function, rows, scale=scale, max_rounds=rounds, held=cube.held).x
    return as_far_as_feasible(cube, rows, tops).reshape(X.shape)


def _best_of(paths: Paths, X: Tensor, n: int) -> Tensor:  # (q, b, d) -> (q, <= n, d)
    """Each path's best rows."""
    values = paths.values(X).nan_to_num(nan=-torch.inf)
    best = values.topk(min(n, X.shape[1]), dim=-1).indices
    return X.gather(1, best.unsqueeze(-1).expand(-1, -1, X.shape[-1]))


def _settle(paths: Paths, cube: Cube, X: Tensor) -> Tensor:  # (q, 1, d)
    """Every path's point, moved in one discrete column after the other for as long as that helps."""
    X, values = X.squeeze(1).clone(), paths.values(X).squeeze(1)
    moving = torch.arange(len(X), device=X.device)
    for _ in range(_SWEEPS):
        before = X[moving].clone()
        for j in [j for j in cube.discrete if j not in cube.held]:
            X[moving], values[moving] = _move(paths[moving], cube, X[moving], values[moving], j)
        moving = moving[(X[moving] != before).any(-1)]
        if len(moving) == 0:
            break
    return X.unsqueeze(1)


def _move(
    paths: Paths, cube: Cube, X: Tensor, values: Tensor, column: int
) -> tuple[Tensor, Tensor]:  # (q, d), (q,)
    """Every path's point at the best level of one column, and its value."""
    n, here = int(cube.n_levels[column]), cube.level(X, column).unsqueeze(-1)
    if bool(cube.is_categorical[column]) or n <= _MANY_LEVELS:
        levels = torch.arange(n, device=X.device).expand(len(X), n)
    else:
        levels = (here + torch.tensor([-2, -1, 1, 2], device=X.device)).clamp(0, n - 1)
    offers = X.unsqueeze(1).repeat(1, levels.shape[1], 1)
    offers[..., column] = cube.at_level(column, levels).to(X)
    offers = cube.snap(offers)
    scores = paths.values(offers)
    better = scores > values.unsqueeze(-1) + 1e-9
    if cube.constraint is not None:
        better[better.clone()] = cube.feasible(offers[better])
    scores = torch.where(better, scores, -torch.inf)
    top, which = scores.max(-1)
    moved = offers[torch.arange(len(X), device=X.device), which]
    improved = top.isfinite()
    return torch.where(improved.unsqueeze(-1), moved, X), torch.where(improved, top, values)


def _choose(
    shared: Tensor,  # (b, d)
    shared_values: Tensor,  # (q, b)
    seen: Tensor,  # (m, d)
    own: list[tuple[Tensor, Tensor]],  # each (q, c, d), (q, c)
) -> Tensor:  # (<= q, d)
    """Each path's best candidate that is neither seen nor taken by a path before it."""
    q = len(shared_values)
    points, which = torch.unique(
        torch.cat([shared, *(X.flatten(0, 1) for X, _ in own)]), dim=0, return_inverse=True
    )
    sizes = [len(shared), *(X.shape[0] * X.shape[1] for X, _ in own)]
    ids = torch.cat(
        [part.expand(q, -1) if i == 0 else part.reshape(q, -1) for i, part in enumerate(which.split(sizes))],
        dim=-1,
    ).cpu()
    values = torch.cat([shared_values, *(v for _, v in own)], dim=-1).nan_to_num(nan=-torch.inf).cpu()
    free = torch.cat([~among(part, seen) for part in points.split(512)]).cpu()
    chosen: list[int] = []
    for row, row_values in zip(ids, values, strict=True):
        row_values = torch.where(free[row], row_values, -torch.inf)
        best = int(row_values.argmax())
        if row_values[best] > -torch.inf:
            chosen.append(int(row[best]))
            free[row[best]] = False
    found = points[torch.tensor(chosen, dtype=torch.long, device=points.device)]
    return found[is_new(found, seen)]
