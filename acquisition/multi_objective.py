"""How much the Pareto front's hypervolume is expected to grow, with gradients and under constraints.

Notation: m objectives to be maximised, independent at x with means mu_k and deviations s_k; a reference point
r; boxes [l, u], u possibly infinite, that fill what lies above r and is not dominated by the front. With
psi_k(a) = E[(y_k - a)^+] = s_k h((mu_k - a) / s_k), h(z) = phi(z) + z Phi(z),

    EHVI = sum_boxes prod_k (psi_k(l_k) - psi_k(u_k))

(Emmerich et al. 2006), here in logarithms as LogEI is; for one objective it is LogEI. A constraint is met
where its process is at least its threshold t and adds log Phi((mu - t) / s) (Gardner et al. 2014).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpbo.gp import GP
from gpbo.numerics import log_h

_CHUNK = 2**22  # doubles in one block of points times boxes times objectives
_BELOW = 0.1
_TO_WORST = 0.5
_FAILED_BELOW = 0.5  # of the standard deviation, below the worst value
_FARTHEST = 1e100


@dataclass(frozen=True, eq=False)
class HypervolumeImprovement:
    """log EHVI of single points, an acquisition function for `maximize`.

    Attributes:
        gps: The processes of the objectives, then those of the constraints.
        lower: (boxes, m) the boxes' lower corners.
        upper: (boxes, m) their upper corners, inf where there is no end.
        thresholds: (constraints,) from where on each constraint is met.
    """

    gps: tuple[GP, ...]
    lower: Tensor
    upper: Tensor
    thresholds: Tensor

    def values(self, X: Tensor) -> Tensor:  # (b, d) -> (b,)
        """The values alone."""
        mean, var = (
            torch.stack(parts, -1) for parts in zip(*(gp.marginal(X) for gp in self.gps), strict=True)
        )
        rows = max(1, _CHUNK // self.lower.numel())
        parts = zip(mean.split(rows), var.split(rows), strict=True)
        return torch.cat([self._value(mu, v.sqrt()) for mu, v in parts])

    def value_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:  # (b, d) -> (b,), (b, d)
        """The values and their gradients."""
        each = zip(*(gp.marginal_and_gradient(X) for gp in self.gps), strict=True)
        mean, var, d_mean, d_var = (torch.stack(parts, 1) for parts in each)  # (b, k) and (b, k, d)
        mean, var = mean.requires_grad_(True), var.requires_grad_(True)
        with torch.enable_grad():
            value = self._value(mean, var.sqrt())
        by_mean, by_var = torch.autograd.grad(value.sum(), (mean, var))
        gradient = (by_mean.unsqueeze(-1) * d_mean + by_var.unsqueeze(-1) * d_var).sum(1)
        return value.detach(), gradient

    def _value(self, mean: Tensor, sigma: Tensor) -> Tensor:  # (b, k), (b, k) -> (b,)
        m = self.lower.shape[-1]
        mu, s = mean[:, None, :m], sigma[:, None, :m]
        ends = self.upper.isfinite()
        log_low = s.log() + log_h((mu - self.lower) / s)[0]  # (b, boxes, m)
        log_high = s.log() + log_h((mu - torch.where(ends, self.upper, 0.0)) / s)[0]
        ratio = torch.where(ends, (log_high - log_low).clamp(max=-1e-12), -1.0)
        log_sides = log_low + torch.where(ends, torch.log(-torch.expm1(ratio)), 0.0)
        met = torch.special.log_ndtr((mean[:, m:] - self.thresholds) / sigma[:, m:])
        return log_sides.sum(-1).logsumexp(-1) + met.sum(-1)


def log_ehvi(
    gps: Sequence[GP],
    Z: Tensor,  # (n, m + constraints)
    thresholds: Tensor,  # (constraints,)
) -> HypervolumeImprovement:
    """The logarithm of the expected growth of the hypervolume that the feasible rows of Z dominate.

    Args:
        gps: The processes of the objectives, then those of the constraints.
        Z: What they are believed to be at the points observed or pending.
        thresholds: From where on each constraint is met.
    """
    m = len(gps) - len(thresholds)
    feasible = Z[(Z[:, m:] >= thresholds).all(-1), :m]
    lower, upper = _undominated_boxes(feasible, reference_point(feasible_values(Z, thresholds)))
    return HypervolumeImprovement(tuple(gps), lower, upper, thresholds)


def _undominated_boxes(
    Z: Tensor, reference: Tensor
) -> tuple[Tensor, Tensor]:  # (n, m), (m,) -> (boxes, m) x 2
    if len(Z) == 0 or len(reference) == 1:
        lower = torch.cat([Z, reference.unsqueeze(0)]).amax(0, keepdim=True)
        return lower, torch.full_like(lower, torch.inf)
    from botorch.utils.multi_objective.box_decompositions.non_dominated import FastNondominatedPartitioning

    lower, upper = FastNondominatedPartitioning(reference, Z).get_hypercell_bounds()
    return lower, upper


def reference_point(Z: Tensor) -> Tensor:  # (n, m) -> (m,)
    """What a point must beat in every objective to count.

    Halfway from the worst of the front to the worst of all, each lowered by a tenth of its range. At the
    front's worst nothing would widen the front; at the worst of all little but its ends would be looked for.
    """

    def below(values: Tensor) -> Tensor:
        worst, best = values.aminmax(dim=0)
        return worst - _BELOW * (best - worst).clamp(min=1.0)  # where all agree: of a standard deviation

    return torch.lerp(below(Z[~is_dominated(Z)]), below(Z), _TO_WORST)


def feasible_values(Z: Tensor, thresholds: Tensor) -> Tensor:  # (n, m + c), (c,) -> (<= n, m)
    """The objectives of the feasible rows; of all rows where none is."""
    m = Z.shape[1] - len(thresholds)
    feasible = (Z[:, m:] >= thresholds).all(-1)
    return Z[feasible | ~feasible.any(), :m]


def leading(Z: Tensor, thresholds: Tensor) -> Tensor:  # (n, m + c), (c,) -> (n,)
    """Whether no other row beats this one, where meeting a constraint is an aim and exceeding it none."""
    m = Z.shape[1] - len(thresholds)
    return ~is_dominated(torch.cat([Z[:, :m], Z[:, m:].minimum(thresholds)], dim=-1))


def is_dominated(Z: Tensor) -> Tensor:  # (n, m) -> (n,)
    """Whether another row is as good in every objective and better in one."""
    as_good = (Z.unsqueeze(0) >= Z.unsqueeze(1)).all(-1)
    better = (Z.unsqueeze(0) > Z.unsqueeze(1)).any(-1)
    return (as_good & better).any(-1)


def front_values(Y: Tensor) -> Tensor:  # (n, m) -> (n, m)
    """Standardised values, larger still better, in which the front keeps its shape; nan (failed) becomes bad.

    Each objective is linear over the range of the front, and over the better half of its values; what is
    worse is compressed by a logarithm that begins with the same slope.

    Args:
        Y: Values to be maximised, at least one row of them finite, with rows of nan where a trial failed.
    """
    known = Y.isfinite().all(-1)
    seen = Y[known]
    largest = seen.abs().amax(0).clamp(min=1e-300)
    gap = (seen.amax(0) / largest - seen / largest).clamp(min=0.0)
    reach = torch.maximum(gap[~is_dominated(seen)].amax(0), gap.median(0).values)
    reach = torch.where(reach > 0.0, reach, gap.amax(0)).clamp(min=1e-300)
    far = (gap / reach).clamp(max=_FARTHEST)
    t = -torch.where(far <= 1.0, far, 1.0 + torch.log(far.clamp(min=1.0)))
    Z = (t.amin(0) - _FAILED_BELOW * t.std(0, correction=0)).expand(Y.shape).clone()
    Z[known] = t
    return _standardised(Z)[0]


def constraint_values(Y: Tensor) -> tuple[Tensor, Tensor]:  # (n, c) -> (n, c), (c,)
    """Standardised values of constraints that are met where Y >= 0, and where 0 came to lie.

    What is far from 0 is compressed by sign(y) log(1 + |y|) (Eriksson and Poloczek 2021), y in units of its
    median; rows of nan (failed) become the worst observed.
    """
    known = Y.isfinite().all(-1)
    largest = Y[known].abs().amax(0)
    y = Y[known] / torch.where(largest > 0.0, largest, 1.0)
    unit = y.abs().median(0).values.clamp(min=1.0 / _FARTHEST)
    t = y.sign() * torch.log1p(y.abs() / unit)
    T = t.amin(0).expand(Y.shape).clone()
    T[known] = t
    return _standardised(T)


def _standardised(T: Tensor) -> tuple[Tensor, Tensor]:  # (n, k) -> (n, k), (k,)
    """Columns of mean 0 and deviation 1 (0 where all values agree), and what 0 becomes."""
    mean = T.mean(0)
    scale = (T - mean).square().mean(0).sqrt()
    scale = torch.where(scale > 1e-12, scale, 1.0)
    return (T - mean) / scale, -mean / scale
