"""Several points at a time: what to believe about points that are being evaluated, and UCB-PE.

variance    nothing about their values: the mean stays, the variance knows that they will be known
believer    the posterior mean at each (kriging believer, Ginsbourger et al. 2010)
liar_min, liar_mean, liar_max
            the worst, mean or best value observed (constant liar, the same)
fantasies   many joint draws of their values; the acquisition is the average over the draws (Snoek et al.
            2012). `with_pending` leaves the values open, and `over_fantasies` draws them.

UCB-PE (Contal et al. 2013) takes the first point of a batch by its upper confidence bound and the others by
pure exploration of the region where the maximum may plausibly be.

Notation: n rows of which the last p are pending, R the inverse factor of their covariance, k (b, n) the
covariances of b points, A = k R^T. The first n - p columns of A belong to the observed rows alone, so the
variance without the pending rows, |A[:, :n-p]|^2 off the prior's, comes with the one that counts them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from gpbo.acquisition.analytic import Analytic, Rule, ucb
from gpbo.acquisition.monte_carlo import base_samples
from gpbo.acquisition.optimize import Effort, maximize
from gpbo.checks import whole
from gpbo.cube import Cube
from gpbo.errors import SettingError, did_you_mean
from gpbo.gp import GP
from gpbo.gp.hypers import MEAN_VAR
from gpbo.seeding import derive

Pending = Literal["variance", "believer", "liar_min", "liar_mean", "liar_max", "fantasies"]
PENDING: tuple[Pending, ...] = (
    "variance", "believer", "liar_min", "liar_mean", "liar_max", "fantasies",
)  # fmt: skip
_FANTASIES = 64
_MIN_VAR = 1e-12  # times the prior's
# Of UCB-PE, as in Vizier's GP-UCB-PE (Song et al. 2024, arXiv 2408.11527): sigmas of the bound, sigmas that
# a plausible point may fall short, and what a point beyond them pays.
_BOUND, _PLAUSIBLE, _PENALTY = 1.8, 0.5, 10.0
_EFFORT = Effort(rounds=25)  # more of them hardly find more to explore


def with_pending(gp: GP, X: Tensor, belief: Pending = "variance") -> GP:  # (p, d)
    """The process that accounts for pending points X.

    Raises:
        SettingError: if the belief is not one of `PENDING`.
    """
    if belief not in PENDING:
        hint = did_you_mean(str(belief), PENDING)
        raise SettingError(f"`pending` must be one of {list(PENDING)}, got {belief!r}.{hint}")
    if len(X) == 0:
        return gp
    if belief in ("variance", "fantasies"):
        return gp.condition(X)
    lie = constant_lie(gp, belief)
    return gp.condition(X, gp.marginal(X)[0] if lie is None else gp.y.new_full((len(X),), lie))


def constant_lie(gp: GP, belief: Pending) -> float | None:
    """The value that every pending point is believed to have; None where they differ."""
    known = gp.y[gp.y.isfinite()]
    if belief == "liar_min":
        return float(known.min())
    if belief == "liar_mean":
        return float(known.mean())
    return float(known.max()) if belief == "liar_max" else None


@dataclass(frozen=True, eq=False)
class Fantasies:
    """An acquisition function averaged over imagined values at the pending rows of a process.

    Attributes:
        gp: The process with its pending rows.
        alphas: (n, k) the mean's weights under each of k fantasies.
        rule: The acquisition's value and slopes, in means (b, k) and standard deviations (b, 1).
        in_logs: Whether its values are logarithms of what is to be averaged.
    """

    gp: GP
    alphas: Tensor
    rule: Rule
    in_logs: bool

    def values(self, X: Tensor) -> Tensor:  # (b, d) -> (b,)
        """The values alone, at half the cost."""
        k = self.gp.covariance(self.gp.features(X), self.gp.Z)
        sigma = _variance(self.gp, k @ self.gp.R.mT).sqrt()
        return self._average(self.rule(k @ self.alphas, sigma.unsqueeze(-1))[0])

    def value_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:  # (b, d) -> (b,), (b, d)
        """The values and their gradients, for one factor and k products with a vector of n."""
        k, G = self.gp.covariance_and_slope(X)
        A = k @ self.gp.R.mT
        sigma = _variance(self.gp, A).sqrt().unsqueeze(-1)
        value, by_mean, by_sigma = self.rule(k @ self.alphas, sigma)
        share = value.softmax(-1) if self.in_logs else torch.full_like(value, 1.0 / value.shape[-1])
        weights = (share * by_mean) @ self.alphas.mT  # dmean/dx = sum_n alpha_n dk_n/dx
        weights -= (share * by_sigma).sum(-1, keepdim=True) / sigma * (A @ self.gp.R)
        return self._average(value), self.gp.pullback(X, G.mul_(weights))

    def _average(self, value: Tensor) -> Tensor:  # (b, k) -> (b,)
        if self.in_logs:
            return value.logsumexp(-1) - math.log(value.shape[-1])
        return value.mean(-1)


def over_fantasies(
    make: Callable[[GP, Any], Analytic],
    gp: GP,
    best_f: float,
    *,
    seed: int,
    n_fantasies: int = _FANTASIES,
    in_logs: bool = True,
) -> Fantasies:
    """The acquisition function `make(gp, best_f)`, averaged over joint draws at the pending rows of `gp`.

    Under each draw the value to improve on is the best posterior mean at the pending rows, where that is
    above `best_f`. So exp(over_fantasies(log_ei, ...)) is what a further point adds to the joint expected
    improvement of the pending ones.

    Args:
        make: `log_ei`, `log_pi`, `ei`, or any maker whose rule takes many means at once.
        gp: The process, with its pending rows from `with_pending(gp, X, "fantasies")`.
        best_f: The value to improve on.
        seed: Addresses the draws, which are the same at every point.
        n_fantasies: How many draws, k.
        in_logs: Whether `make` gives logarithms, as `log_ei` and `log_pi` do.

    Raises:
        SettingError: if `n_fantasies` is not positive.
    """
    whole("n_fantasies", n_fantasies, low=1)
    known = _n_observed(gp)
    # With L = inv(R), y = L e for e ~ N(0, I): the observed rows tell their own e, the others draw theirs.
    e = (gp.R[:known, :known] @ gp.y[:known]).unsqueeze(-1).expand(-1, n_fantasies)
    if gp.n > known:
        drawn = base_samples(gp.n - known, n_fantasies, derive(seed, "fantasies"), e.device)
        e = torch.cat([e, drawn.mT])
    alphas = gp.R.mT @ e  # = C^-1 y
    best = torch.full_like(alphas[0], best_f)
    if gp.n > known:
        best = torch.maximum(best, (gp.covariance(gp.Z[known:], gp.Z) @ alphas).amax(0))
    return Fantasies(gp, alphas, make(gp, best).rule, in_logs)


@dataclass(frozen=True, eq=False)
class Exploration:
    """The standard deviation given all rows, less a penalty where the maximum is implausible.

    A point is plausible where mean + 0.5 sigma reaches the threshold, with the sigma of the observed rows.

    Attributes:
        gp: The process with its pending rows.
        n_observed: How many of its rows have a value.
        threshold: What is still plausible.
    """

    gp: GP
    n_observed: int
    threshold: float

    def values(self, X: Tensor) -> Tensor:  # (b, d) -> (b,)
        """The values alone, at half the cost."""
        k = self.gp.covariance(self.gp.features(X), self.gp.Z)
        A = k @ self.gp.R.mT
        return _variance(self.gp, A).sqrt() + _PENALTY * self._excess(k, A).clamp(max=0.0)

    def value_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:  # (b, d) -> (b,), (b, d)
        """The values and their gradients."""
        k, G = self.gp.covariance_and_slope(X)
        A = k @ self.gp.R.mT
        sigma = _variance(self.gp, A).sqrt()
        excess = self._excess(k, A)
        value = sigma + _PENALTY * excess.clamp(max=0.0)
        A_observed, R_observed = A[:, : self.n_observed], self.gp.R[: self.n_observed]
        observed = _variance(self.gp, A_observed).sqrt().unsqueeze(-1)
        by_excess = self.gp.alpha - _PLAUSIBLE / observed * (A_observed @ R_observed)
        weights = torch.where((excess < 0.0).unsqueeze(-1), _PENALTY * by_excess, 0.0)
        weights -= (A @ self.gp.R) / sigma.unsqueeze(-1)
        return value, self.gp.pullback(X, G.mul_(weights))

    def _excess(self, k: Tensor, A: Tensor) -> Tensor:  # (b,)
        """How far the observed rows put each point above the threshold."""
        sigma = _variance(self.gp, A[:, : self.n_observed]).sqrt()
        return k @ self.gp.alpha + _PLAUSIBLE * sigma - self.threshold


def explore(gp: GP) -> Exploration:
    """Pure exploration of what the observed rows leave plausible, given a process with pending rows.

    The threshold is the mean at the row, observed or pending, with the largest upper confidence bound.
    """
    known = _n_observed(gp)
    noise_var, R = gp.hypers.noise_var, gp.R[:known, :known]
    # At the observed rows K C^-1 = I - noise_var C^-1 gives the posterior without a product of matrices.
    mean = gp.y[:known] - noise_var * gp.alpha[:known]
    var = noise_var - noise_var.square() * R.square().sum(0)
    k = gp.covariance(gp.Z[known:], gp.Z)
    mean = torch.cat([mean, k @ gp.alpha])
    var = torch.cat([var.clamp(min=0.0), _variance(gp, k[:, :known] @ R.mT)])
    return Exploration(gp, known, float(mean[(mean + _BOUND * var.sqrt()).argmax()]))


def ucb_pe_batch(
    gp: GP,
    cube: Cube,
    q: int,
    *,
    incumbents: Tensor,  # (k, d)
    seen: Tensor,  # (m, d)
    seed: int,
    effort: Effort | None = None,
) -> Tensor:  # (<= q, d)
    """A batch by UCB-PE: the largest upper confidence bound first, then pure exploration.

    Args:
        gp: The process; pending rows sharpen its variance.
        cube: The domain.
        q: How many points; there are fewer only when no more were found that are feasible and new.
        incumbents: The best observed points; the search also starts near them.
        seen: Points that must not come again.
        seed: Addresses the random draws.
        effort: How hard to look for each point.
    """
    found = seen.new_empty(0, cube.d)
    for i in range(q):
        x = maximize(
            explore(gp) if i else ucb(gp, _BOUND**2),
            cube,
            incumbents=incumbents,
            seen=torch.cat([seen, found]),
            scale=gp.lengthscale,
            seed=derive(seed, "ucb-pe", i),
            effort=effort or _EFFORT,
        )
        if x is None:
            break
        found = torch.cat([found, x.unsqueeze(0)])
        gp = gp.condition(found[-1:])
    return found


def _n_observed(gp: GP) -> int:
    return int(gp.y.isfinite().sum())


def _variance(gp: GP, A: Tensor) -> Tensor:  # (b, n) -> (b,)
    """The prior's variance, less what the rows explain."""
    prior = gp.hypers.outputscale + MEAN_VAR
    return torch.maximum(prior - torch.linalg.vecdot(A, A), _MIN_VAR * prior)
