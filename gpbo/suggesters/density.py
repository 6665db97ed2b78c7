"""BOHB's density model (Falkner, Klein and Hutter 2018): points where good ones are denser than bad ones.

The observations of a budget are split into the good and the bad, a product-kernel density is fitted to each
(l_k and g_k), candidates are drawn around good points, and the one with the largest l / g is proposed. With
one budget this is the TPE of Bergstra et al. (2011) with multivariate densities.

BOHB takes l and g from the largest budget with enough observations and forgets the others. Here they are
mixtures over the budgets, l = sum_k theta_k l_k and g = sum_k theta_k g_k, where theta_k is the chance that
budget k orders what was seen at the highest budget best (Hyper-Tune, Li et al. 2022, section 4.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gpbo.checks import finite, whole
from gpbo.cube import Cube, among, is_new
from gpbo.data import Dataset
from gpbo.numerics import few_threads
from gpbo.seeding import generator
from gpbo.suggesters.base import Suggestion, few_budgets, new_draws
from gpbo.suggesters.kernel_density import LEAST_PDF, Density, Mixture, ReferenceDensity

_MOST_MIN_POINTS = 8  # so that many columns do not put the model off for ever
_LEAST_RANDOM = 0.3  # of the random fraction, which falls as data come in
_JUDGES = 6  # observations at a budget, to judge the others by how they order them
_MOST_JUDGES = 100  # the best and as many of the rest, evenly
_RESAMPLES = 50
_LEAST_WEIGHT = 0.01  # budgets below it are left out
_TRUSTED_FROM, _TRUSTED_BY = 10, 40  # observations at the highest budget, which then weighs more and more


@dataclass(frozen=True, slots=True, kw_only=True)
class BOHBSuggester:
    """Proposes where good observations are dense and bad ones are not.

    Of several budgets each has a part, by how well it foretells the highest. Failed and running trials count
    as bad, and random points become rarer as observations come in. No config is proposed twice.

    Args:
        reference: Whether to follow the published code in all of this, with the largest budget alone. It
            still proposes no config twice, imputes a first column that is inactive (there a bug leaves nan),
            and counts trials that failed at an unknown budget at the smallest.
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
        data = data if self.reference else few_budgets(data)
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
        splits = self._splits(data, cube) if cube.d else []
        if not splits or chance < self._random_fraction(splits[0]):
            return new_draws(cube, data.seen, 1, draws), {"source": "random"}
        split, theta = splits[0], None
        good: Mixture | ReferenceDensity
        bad: Mixture | ReferenceDensity
        if self.reference:
            good = ReferenceDensity.fit(split.good, cube, self.min_bandwidth, draws)
            bad = ReferenceDensity.fit(split.bad, cube, self.min_bandwidth, draws)
        else:
            pairs = [self._densities(each, cube) for each in splits]
            theta = _rung_weights(data, splits, pairs, draws)
            good, bad = (_mixture(parts, theta) for parts in zip(*pairs, strict=True))
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
        info: dict[str, Any] = {
            "source": "bohb",
            "budget": split.budget,
            "n_good": len(split.good),
            "n_bad": len(split.bad),
        }
        if theta is not None and len(splits) > 1:
            info["theta"] = {f"{each.budget:g}": t for each, t in zip(splits, theta.tolist(), strict=True)}
        return points[best], info

    def _densities(self, split: Split, cube: Cube) -> tuple[Density, Density]:
        least = max(self.min_bandwidth, 1 / (8 * len(split.good)))
        return Density.fit(split.good, cube, least), Density.fit(split.bad, cube, least)

    def _splits(self, data: Dataset, cube: Cube) -> list[Split]:
        """The good and the bad at the budgets with enough observations, the largest first."""
        observed = ~data.Y.isnan().any(-1)
        order = _best_first(data.Y[observed])
        X, budget = data.X[observed][order], _full_where_unknown(data.budget[observed][order])
        failed = data.X[~observed]
        levels, splits = budget.unique().tolist(), list[Split]()
        for level in reversed(levels):
            here = X[budget == level]
            if self.reference:
                lost = data.budget[~observed].nan_to_num(nan=levels[0]) == level
                parts = self._published(torch.cat([here, failed[lost]]), cube.d)
            else:
                parts = self._repaired(here, failed, data.pending, cube.d)
            if parts is not None:
                known = not bool(data.budget[observed].isnan().all())
                splits.append(Split(*parts, n=len(here), budget=level if known else None))
                if self.reference:
                    break
        return splits

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


def _mixture(parts: Sequence[Density], theta: Tensor) -> Mixture:
    used = theta.nonzero()[:, 0].tolist()
    return Mixture([parts[k] for k in used], theta[used])


def _rung_weights(
    data: Dataset, splits: Sequence[Split], pairs: Sequence[tuple[Density, Density]], draws: torch.Generator
) -> Tensor:  # (k,)
    """theta: how often each budget's model orders resampled values of the highest budget best.

    A model is asked about a point without what it knows of that very point. The largest of the budgets gets
    at least 1 / (1 + 2 exp(-(n - 10) / 40)) once it has n >= 10 observations of its own.
    """
    first = torch.eye(len(splits), dtype=torch.float64)[0]
    X, y, n_highest = _judges(data)
    if len(splits) == 1 or len(y) == 0:
        return first
    scores = torch.stack(
        [good.log_prob(X, of_others=True) - bad.log_prob(X, of_others=True) for good, bad in pairs]
    )
    ahead = scores.unsqueeze(-1) - scores.unsqueeze(-2)
    right = ((ahead > 0.0) + 0.5 * (ahead == 0.0)) * (y.unsqueeze(-1) > y)  # (k, n, n)
    n = len(y)
    rows = torch.randint(n, (_RESAMPLES, n), generator=draws)
    counts = torch.zeros(_RESAMPLES, n, dtype=torch.float64).scatter_add_(
        1, rows, torch.ones(rows.shape).double()
    )
    counts = counts.to(right)
    agreed = ((counts @ right) * counts).sum(-1).mT.cpu()  # (resamples, k)
    wins = (agreed >= agreed.amax(-1, keepdim=True) - 1e-9).double()
    theta = (wins / wins.sum(-1, keepdim=True)).mean(0)
    theta = torch.where(theta < _LEAST_WEIGHT, 0.0, theta)
    if n_highest >= _TRUSTED_FROM and splits[0].n == n_highest:
        least = 1.0 / (1.0 + 2.0 * math.exp(-(n_highest - _TRUSTED_FROM) / _TRUSTED_BY))
        if theta[0] < least:
            theta = least * first + (1.0 - least) * theta * (1.0 - first) / (1.0 - theta[0])
    return theta / theta.sum()


def _judges(data: Dataset) -> tuple[Tensor, Tensor, int]:
    """Points (n, d) and values (n,) at the highest budget with enough, and how many were seen there."""
    observed = ~data.Y.isnan().any(-1)
    X, order = data.X[observed], _best_first(data.Y[observed])
    budget = _full_where_unknown(data.budget[observed])
    levels, counts = budget.unique(return_counts=True)
    if not bool((counts >= _JUDGES).any()):
        return X[:0], X.new_empty(0), 0
    order = order[budget[order] == levels[counts >= _JUDGES].max()]
    n = len(order)
    if n > _MOST_JUDGES:
        rest = torch.linspace(_MOST_JUDGES // 2, n - 1, _MOST_JUDGES // 2, device=order.device)
        order = torch.cat([order[: _MOST_JUDGES // 2], order[rest.round().long()]])
    return X[order], -torch.arange(len(order), dtype=X.dtype, device=X.device), n


def _score(log_l: Tensor, log_g: Tensor) -> Tensor:
    """log l / g, and what the published loop makes of the reference's infinities.

    It takes the first candidate of which only g is infinite, passes over those of which l is infinite
    too or undefined, and reads an undefined g as 0.
    """
    log_g = torch.where(log_g.isnan(), math.log(LEAST_PDF), log_g)
    most = torch.finfo(log_l.dtype).max
    score = (log_l - log_g).nan_to_num(nan=-math.inf, posinf=most, neginf=-math.inf)
    return torch.where(log_l.isfinite() & log_g.isposinf(), math.inf, score)


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
