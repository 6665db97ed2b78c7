"""BOHB's density model (Falkner, Klein and Hutter 2018): points where good ones are denser than bad ones.

The observations of one budget are split into the good and the bad, a product-kernel density is fitted to
each (l and g), candidates are drawn around good points, and the one with the largest l / g is proposed.
With one budget this is the TPE of Bergstra et al. (2011) with multivariate densities.

`Density` is the repaired model. Every kernel is a distribution over its column: a Gaussian truncated to
[0, 1] and renormalised, the mass of that Gaussian in a level's cell, or a categorical kernel with the true
number of choices. A column that is inactive in a candidate has no factor; where a datum says nothing
about an active column, the factor is uniform; so the densities sum to one over conditional spaces too.
`ReferenceDensity` is the published code's, faults included: Gaussians without boundaries, bandwidths of
choices from the spread of their codes (which makes negative kernels), choices counted in the data.

Notation: X (n, d) data, C (c, d) candidates, h bandwidths in units of the cube.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gpbo.checks import finite, whole
from gpbo.cube import Cube, among, is_new
from gpbo.data import Dataset
from gpbo.numerics import few_threads
from gpbo.seeding import generator
from gpbo.suggesters.base import Suggestion, new_draws

_SAME = 1e-9  # unit cube: points nearer than this are one
_MOST_MIN_POINTS = 8  # so that many columns do not put the model off for ever
_LEAST_RANDOM = 0.3  # of the random fraction, which falls as data come in
_SMOOTHING = 1.0  # the weight of the uniform distribution against the data, in data
_NARROW = 1e-5  # cells of so few standard deviations: their mass is density times width, to 1e-10
_LEAST_PDF = 1e-32  # the published code's floor
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True, slots=True, kw_only=True)
class BOHBSuggester:
    """Proposes where good observations are dense and bad ones are not, at the largest budget with enough.

    Failed and running trials count as bad, and random points become rarer as observations come in. No
    config is proposed twice.

    Args:
        reference: Whether to follow the published code in all of this. It still proposes no config twice,
            imputes a first column that is inactive (there a bug leaves nan), and counts trials that failed
            at an unknown budget at the smallest.
        top_fraction: The share of observations that are good.
        n_candidates: How many points are drawn and compared.
        random_fraction: How often to propose a random point; at first, unless `reference`.
        bandwidth_factor: How much wider than the density the candidates are drawn.
        min_bandwidth: The least width of a kernel, in the unit cube.
        min_points: How many good observations there are at least; by default d + 1, unless `reference`
            at most 8. The model starts with twice as many.

    Raises:
        SettingError: if an argument breaks its rule.
    """

    reference: bool = False
    top_fraction: float = 0.15
    n_candidates: int = 64
    random_fraction: float = 1 / 3
    bandwidth_factor: float = 3.0
    min_bandwidth: float = 1e-3
    min_points: int | None = None

    def __post_init__(self) -> None:
        finite("top_fraction", self.top_fraction, above=0, below=1)
        whole("n_candidates", self.n_candidates, low=1)
        finite("random_fraction", self.random_fraction, low=0, high=1)
        finite("bandwidth_factor", self.bandwidth_factor, above=0)
        finite("min_bandwidth", self.min_bandwidth, above=0)
        if self.min_points is not None:
            whole("min_points", self.min_points, low=1)

    def suggest(self, data: Dataset, cube: Cube, n: int, seed: int) -> Suggestion:
        """The best of the candidates, or a random point; as many as the space has left."""
        points, infos = data.X.new_empty(0, cube.d), []
        with few_threads(len(data.X)):
            for i in range(n):
                draws = generator(seed, data.number, "density", i)
                now = replace(data, pending=torch.cat([data.pending, points]))
                x, info = self._one(now, cube, draws)
                points = torch.cat([points, x.to(points.device)])
                infos.append(info)
        return Suggestion(points, infos[0] if infos else {"source": "random"})

    def _one(self, data: Dataset, cube: Cube, draws: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        chance = float(torch.rand((), dtype=torch.float64, generator=draws))
        split = self._split(data, cube) if cube.d else None
        if split is None or chance < self._random_fraction(split):
            return new_draws(cube, data.seen, 1, draws), {"source": "random"}
        good: Density | ReferenceDensity
        bad: Density | ReferenceDensity
        if self.reference:
            good = ReferenceDensity.fit(split.good, cube, self.min_bandwidth, draws)
            bad = ReferenceDensity.fit(split.bad, cube, self.min_bandwidth, draws)
        else:
            least = max(self.min_bandwidth, 1 / (8 * len(split.good)))
            good, bad = Density.fit(split.good, cube, least), Density.fit(split.bad, cube, least)
        C = cube.hold(good.sample(self.n_candidates, self.bandwidth_factor, draws))
        points = cube.snap(C)
        at = C if self.reference else points  # the published code scores numbers before rounding them
        score = _score(good.log_prob(at), bad.log_prob(at))
        score[~(is_new(points, data.seen) & cube.feasible(points))] = -math.inf
        if score.max() == -math.inf:
            n = 1 if self.reference else self.n_candidates
            points = new_draws(cube, data.seen, n, draws).to(data.X.device)
            score = _score(good.log_prob(points), bad.log_prob(points))
        best = score.argsort(descending=True, stable=True)[:1]
        info = {
            "source": "bohb",
            "budget": split.budget,
            "n_good": len(split.good),
            "n_bad": len(split.bad),
        }
        return points[best], info

    def _split(self, data: Dataset, cube: Cube) -> Split | None:
        """The good and the bad at the largest budget with enough observations, or None."""
        observed = ~data.Y.isnan().any(-1)
        order = _best_first(data.Y[observed])
        X, budget = data.X[observed][order], _full_where_unknown(data.budget[observed][order])
        failed = data.X[~observed]
        levels = budget.unique().tolist()
        for level in reversed(levels):
            here = X[budget == level]
            if self.reference:
                lost = data.budget[~observed].nan_to_num(nan=levels[0]) == level
                parts = self._published(torch.cat([here, failed[lost]]), cube.d)
            else:
                parts = self._repaired(here, failed, data.pending, cube.d)
            if parts is not None:
                known = not bool(data.budget[observed].isnan().all())
                return Split(*parts, n=len(here), budget=level if known else None)
        return None

    def _published(self, X: Tensor, d: int) -> tuple[Tensor, Tensor] | None:
        n_min = max(self.min_points or 0, d + 1)
        n_good = max(n_min, _floor(self.top_fraction * len(X)))
        n_bad = max(n_min, _floor((1 - self.top_fraction) * len(X)))
        good, bad = X[:n_good], X[n_good : n_good + n_bad]
        return (good, bad) if min(len(good), len(bad)) > d else None

    def _repaired(self, X: Tensor, failed: Tensor, pending: Tensor, d: int) -> tuple[Tensor, Tensor] | None:
        X = X[~among(X, failed)]  # one that failed later on is bad
        n_min = self._min_points(d)
        if len(X) < 2 * n_min:
            return None
        n_good = max(n_min, _floor(self.top_fraction * len(X)))
        return X[:n_good], torch.cat([X[n_good:], failed, pending[~among(pending, X)]])

    def _min_points(self, d: int) -> int:
        return self.min_points or min(d + 1, _MOST_MIN_POINTS)

    def _random_fraction(self, split: Split) -> float:
        if self.reference:
            return self.random_fraction
        started = 2 * self._min_points(split.good.shape[-1])
        return self.random_fraction * max(_LEAST_RANDOM, started / max(split.n, started))


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """The good and the bad points at a budget, of `n` observations there."""

    good: Tensor  # (n_good, d)
    bad: Tensor  # (n_bad, d)
    n: int
    budget: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Density:
    """An equal mixture of product kernels at the data: a distribution over the whole domain.

    Attributes:
        X: (n, d) the data.
        active: (n, d) where they say anything.
        bandwidth: (d,) the Gaussians' sigma before truncation; of a categorical column, the weight of the
            uniform distribution in its kernel.
        cube: The domain.
    """

    X: Tensor
    active: Tensor
    bandwidth: Tensor
    cube: Cube

    @classmethod
    def fit(cls, X: Tensor, cube: Cube, min_bandwidth: float) -> Density:
        """The density with Scott's bandwidths, h = 1.06 sigma n^(-1 / (4 + d)), over active data.

        A categorical kernel's uniform part is such that the mixture has frequencies (n_k + 1/K) / (n + 1).
        """
        active = cube.active(X)
        n = active.sum(0).clamp_min(1).to(X.dtype)
        mean = (X * active).sum(0) / n
        sigma = (((X - mean).square() * active).sum(0) / n).sqrt()
        d_active = active.sum(-1).to(X.dtype).mean()
        h = (1.06 * sigma * n ** (-1 / (4 + d_active))).clamp_min(min_bandwidth)
        is_categorical = cube.is_categorical.to(X.device)
        return cls(X, active, torch.where(is_categorical, _SMOOTHING / (n + _SMOOTHING), h), cube)

    def log_prob(self, C: Tensor) -> Tensor:  # (c, d) -> (c,)
        """The logarithm of the density at snapped points; of the mass, in columns with levels."""
        factors = torch.where(self.active, self._log_kernels(C), self._log_uniform(C)[:, None, :])
        factors = torch.where(self.cube.active(C)[:, None, :], factors, 0.0)
        return factors.sum(-1).logsumexp(-1) - math.log(len(self.X))

    def sample(self, n: int, factor: float, draws: torch.Generator) -> Tensor:  # (n, d)
        """Points drawn from kernels `factor` times as wide, not snapped."""
        rows = torch.randint(len(self.X), (n,), generator=draws).to(self.X.device)
        wide = factor * self.bandwidth
        drawn, uniform = _around(self.X[rows], wide, wide, self.cube, draws)
        return torch.where(self.active[rows], drawn, uniform)

    def _log_kernels(self, C: Tensor) -> Tensor:  # (c, d) -> (c, n, d)
        levels = self.cube.n_levels.to(C.device)
        is_categorical = self.cube.is_categorical.to(C.device)
        out = C.new_zeros(len(C), *self.X.shape)
        j = (levels == 0).nonzero()[:, 0]
        X, h = self.X[:, j], self.bandwidth[j]
        z = (C[:, None, j] - X) / h
        out[..., j] = -0.5 * z.square() - _LOG_SQRT_2PI - h.log() - _log_mass(-X / h, (1 - X) / h)
        low, high = _cells(C, self.cube)
        for k in ((levels > 0) & ~is_categorical).nonzero()[:, 0].tolist():
            x, back = self.X[:, k].unique(return_inverse=True)  # levels repeat, and log_ndtr is slow
            h = self.bandwidth[k]
            mass = _log_mass((low[:, k, None] - x) / h, (high[:, k, None] - x) / h)
            out[..., k] = (mass - _log_mass(-x / h, (1 - x) / h))[:, back]
        j = is_categorical.nonzero()[:, 0]
        share = self.bandwidth[j] / levels[j]
        match = (C[:, None, j] - self.X[:, j]).abs() < _SAME
        out[..., j] = torch.where(match, 1 - self.bandwidth[j] + share, share).log()
        return out

    def _log_uniform(self, C: Tensor) -> Tensor:  # (c, d) -> (c, d)
        low, high = _cells(C, self.cube)
        return torch.where(self.cube.n_levels.to(C.device) > 0, high - low, 1.0).log()


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceDensity:
    """The published code's density: statsmodels' KDEMultivariate with normal-reference bandwidths.

    Attributes:
        Z: (n, d) the data, imputed; levels in categorical columns, numbers of the unit cube in others.
        bandwidth: (d,) of all columns alike.
        cube: The domain.
    """

    Z: Tensor
    bandwidth: Tensor
    cube: Cube

    @classmethod
    def fit(cls, X: Tensor, cube: Cube, min_bandwidth: float, draws: torch.Generator) -> ReferenceDensity:
        """The density, inactive columns imputed from random rows in which they are active."""
        Z = _imputed(_levels(X, cube), cube.active(X), cube, draws)
        n, d = Z.shape
        h = 1.06 * Z.std(0, correction=0) * n ** (-1 / (4 + d))
        return cls(Z, h.clamp_min(min_bandwidth), cube)

    def log_prob(self, C: Tensor) -> Tensor:  # (c, d) -> (c,)
        """The logarithm of the density, floored; infinite where a column's data are all of one level.

        There the Aitchison-Aitken kernel divides by the number of other levels in the data, 0.
        """
        is_categorical = self.cube.is_categorical.to(C.device)
        apart = _levels(C, self.cube)[:, None, :] - self.Z
        gaussian = torch.exp(-0.5 * (apart / self.bandwidth).square() - _LOG_SQRT_2PI) / self.bandwidth
        ordered = self.Z.sort(0).values
        seen = 1 + (ordered.diff(dim=0) != 0).sum(0)
        choice = torch.where(apart == 0, 1 - self.bandwidth, self.bandwidth / (seen - 1))
        density = torch.where(is_categorical, choice, gaussian).prod(-1).mean(-1)
        return density.clamp_min(_LEAST_PDF).log()

    def sample(self, n: int, factor: float, draws: torch.Generator) -> Tensor:  # (n, d)
        """Points around data: numbers `factor` times as wide, choices kept with chance 1 - h."""
        rows = torch.randint(len(self.Z), (n,), generator=draws).to(self.Z.device)
        levels = self.cube.n_levels.to(self.Z.device).clamp_min(1)
        is_categorical = self.cube.is_categorical.to(self.Z.device)
        X = torch.where(is_categorical, (self.Z + 0.5) / levels, self.Z)
        return _around(X[rows], factor * self.bandwidth, self.bandwidth, self.cube, draws)[0]


def _score(log_l: Tensor, log_g: Tensor) -> Tensor:
    """log l / g, and what the published loop makes of the reference's infinities.

    It takes the first candidate of which only g is infinite, passes over those of which l is infinite
    too or undefined, and reads an undefined g as 0.
    """
    log_g = torch.where(log_g.isnan(), math.log(_LEAST_PDF), log_g)
    most = torch.finfo(log_l.dtype).max
    score = (log_l - log_g).nan_to_num(nan=-math.inf, posinf=most, neginf=-math.inf)
    return torch.where(log_l.isfinite() & log_g.isposinf(), math.inf, score)


def _around(
    X: Tensor,  # (n, d)
    sigma: Tensor,  # (d,)
    chance: Tensor,  # (d,)
    cube: Cube,
    draws: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Points around X, x ~ N(X, sigma^2) within [0, 1] or another choice with `chance`; and uniform ones."""
    u, v = torch.rand(2, *X.shape, dtype=X.dtype, generator=draws).to(X.device)
    low, high = (torch.special.ndtr((edge - X) / sigma) for edge in (0.0, 1.0))
    number = (X + sigma * torch.special.ndtri(low + u * (high - low))).clamp(0.0, 1.0)
    levels = cube.n_levels.to(X.device).clamp_min(1)
    choice = torch.where(v < chance, ((u * levels).floor() + 0.5) / levels, X)
    return torch.where(cube.is_categorical.to(X.device), choice, number), u


def _cells(X: Tensor, cube: Cube) -> tuple[Tensor, Tensor]:  # (n, d) -> (n, d), (n, d)
    """The edges of the cells in which snapped points lie; the points themselves in a continuum."""
    levels, edges = cube.n_levels.to(X), cube.log_edges.to(X)
    half = torch.where(levels > 0, 0.5 / levels.clamp_min(1), 0.0)
    start, span = edges[:, 0], edges[:, 1] - edges[:, 0]
    whole = (start + X * span).exp().round()  # the number itself, in log-spaced columns
    low = torch.where(start.isnan(), X - half, ((whole - 0.5).log() - start) / span)
    high = torch.where(start.isnan(), X + half, ((whole + 0.5).log() - start) / span)
    return low.clamp(0.0, 1.0), high.clamp(0.0, 1.0)


def _log_mass(a: Tensor, b: Tensor) -> Tensor:
    """log(Phi(b) - Phi(a)) for a < b, anywhere on the line."""
    a, b = torch.where(a > 0, -b, a), torch.where(a > 0, -a, b)
    narrow = b - a < _NARROW
    wide_b = torch.where(narrow, a + _NARROW, b)
    at_b = torch.special.log_ndtr(wide_b)
    wide = at_b + torch.log1p(-torch.exp(torch.special.log_ndtr(a) - at_b))
    middle = -0.125 * (a + b).square() - _LOG_SQRT_2PI + (b - a).log()
    return torch.where(narrow, middle, wide)


def _levels(X: Tensor, cube: Cube) -> Tensor:  # (n, d) -> (n, d)
    """X with 0, 1, 2, ... in its categorical columns."""
    levels = cube.n_levels.to(X.device)
    return torch.where(cube.is_categorical.to(X.device), (X * levels).floor().clamp_max(levels - 1), X)


def _imputed(Z: Tensor, active: Tensor, cube: Cube, draws: torch.Generator) -> Tensor:  # (n, d)
    """Z with the inactive columns of each row from one in which the first of them is active, in turn.

    Where a column is never active, it is drawn uniformly.
    """
    full, missing = Z.clone(), ~active
    for j in cube.conditional:
        donors = active[:, j].nonzero()[:, 0]
        if len(donors):
            drawn = torch.randint(len(donors), (len(Z),), generator=draws).to(Z.device)
            donor = donors[drawn]
            taken = missing & missing[:, j : j + 1] & active[donor]
            full = torch.where(taken, Z[donor], full)
            missing = missing & ~taken
        else:
            u = torch.rand(len(Z), dtype=Z.dtype, generator=draws).to(Z.device)
            k = int(cube.n_levels[j]) if cube.is_categorical[j] else 0
            full[:, j] = torch.where(missing[:, j], (u * k).floor() if k else u, full[:, j])
            missing[:, j] = False
    return full


def _best_first(Y: Tensor) -> Tensor:  # (n, m) -> (n,)
    """The order from best to worst, older first; of several objectives, by how many points dominate."""
    order = Y[:, 0].argsort(descending=True, stable=True)
    if Y.shape[-1] == 1:
        return order
    better = []
    for part in Y.split(1024):
        ahead = Y - part[:, None]
        better.append(((ahead >= 0).all(-1) & (ahead > 0).any(-1)).sum(-1))
    return order[torch.cat(better)[order].argsort(stable=True)] if better else order


def _full_where_unknown(budget: Tensor) -> Tensor:  # (n,) -> (n,)
    known = budget[~budget.isnan()]
    return budget.nan_to_num(nan=float(known.max()) if len(known) else 0.0)


def _floor(x: float) -> int:
    return math.floor(x + 1e-9)  # 0.15 * 60 is 9
