"""Product-kernel densities over a cube: where points of a kind are dense.

`Density` is a mixture of kernels, one at each datum, each a distribution over its column: a Gaussian
truncated to [0, 1] and renormalised, the mass of that Gaussian in a level's cell, or a categorical kernel
with the true number of choices. A column that is inactive in a candidate has no factor; where a datum says
nothing about an active column, the factor is uniform; so the densities sum to one over conditional spaces
too. `ReferenceDensity` is the published BOHB code's, faults included: Gaussians without boundaries,
bandwidths of choices from the spread of their codes (which makes negative kernels), choices counted in the
data.

Notation: X (n, d) data, C (c, d) candidates, h bandwidths in units of the cube.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpbo.cube import Cube

_SAME = 1e-9  # unit cube: points nearer than this are one
_SMOOTHING = 1.0  # the weight of the uniform distribution against the data, in data
_NARROW = 1e-5  # cells of so few standard deviations: their mass is density times width, to 1e-10
LEAST_PDF = 1e-32  # the published code's floor
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


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

    def log_prob(self, C: Tensor, *, of_others: bool = False) -> Tensor:  # (c, d) -> (c,)
        """The logarithm of the density at snapped points; of the mass, in columns with levels.

        Args:
            C: The points.
            of_others: Whether data that are the point itself are left out, as in cross-validation.
        """
        factors = torch.where(self.active, self._log_kernels(C), self._log_uniform(C)[:, None, :])
        factors = torch.where(self.cube.active(C)[:, None, :], factors, 0.0)
        kernels = factors.sum(-1)
        if not of_others:
            return kernels.logsumexp(-1) - math.log(len(self.X))
        own = (C[:, None, :] - self.X).abs().amax(-1) <= _SAME
        left = (~own).sum(-1).clamp(min=1).to(C.dtype)
        return kernels.masked_fill(own, -math.inf).logsumexp(-1) - left.log()

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
class Mixture:
    """Densities of the same domain, by weight.

    Attributes:
        parts: The densities.
        weights: (k,) positive, of sum one.
    """

    parts: Sequence[Density]
    weights: Tensor

    def log_prob(self, C: Tensor) -> Tensor:  # (c, d) -> (c,)
        """The logarithm of the density at snapped points."""
        logs = torch.stack([part.log_prob(C) for part in self.parts])
        return (logs + self.weights.log().to(C.device).unsqueeze(-1)).logsumexp(0)

    def sample(self, n: int, factor: float, draws: torch.Generator) -> Tensor:  # (n, d)
        """Points drawn from kernels `factor` times as wide, not snapped."""
        if len(self.parts) == 1:
            return self.parts[0].sample(n, factor, draws)
        which = torch.multinomial(self.weights, n, replacement=True, generator=draws)
        drawn = torch.stack([part.sample(n, factor, draws) for part in self.parts])
        return drawn[which.to(drawn.device), torch.arange(n, device=drawn.device)]


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
        return density.clamp_min(LEAST_PDF).log()

    def sample(self, n: int, factor: float, draws: torch.Generator) -> Tensor:  # (n, d)
        """Points around data: numbers `factor` times as wide, choices kept with chance 1 - h."""
        rows = torch.randint(len(self.Z), (n,), generator=draws).to(self.Z.device)
        levels = self.cube.n_levels.to(self.Z.device).clamp_min(1)
        is_categorical = self.cube.is_categorical.to(self.Z.device)
        X = torch.where(is_categorical, (self.Z + 0.5) / levels, self.Z)
        return _around(X[rows], factor * self.bandwidth, self.bandwidth, self.cube, draws)[0]


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
