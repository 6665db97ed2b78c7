"""From what was measured to what a Gaussian process can believe: a monotone warp of the values.

Notation: y (n,) to be maximised, gap g = (max y - y) / s >= 0 with s the median gap, strength k >= 0,

    t = -log(1 + k g)   (k > 0)        t = -g   (k = 0)        z = (t - mean) / std

The warp is linear near the best value and compresses what is far below it, so that an outlier of 1e9 or a
diverged training does not set the scale. Which strength suits is decided by the likelihood of the model of
z, to which the logarithm of the warp's Jacobian is added so that strengths can be compared (Snelson et al.
2003). Failed trials stand below the worst value.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

STRENGTHS = (0.0, 0.5, 5.0, 50.0)
_FAILED_BELOW = 0.5  # of the standard deviation, below the worst value
_FARTHEST = 1e100  # median gaps; squares of what is farther overflow


class Warped(NamedTuple):
    """Values for a model.

    Attributes:
        z: (n,) finite, of mean 0 and standard deviation 1 (0 where all values agree).
        log_jacobian: The sum over observed values of log dz/dg.
    """

    z: Tensor
    log_jacobian: float


def warp_values(y: Tensor, strength: float = 0.0) -> Warped:  # (n,)
    """Standardised values, larger still better; nan (failed) becomes bad.

    Args:
        y: Values to be maximised, at least one of them finite, with nan where a trial failed.
        strength: How much the bad values are compressed; 0 for not at all.
    """
    known = y.isfinite()
    gap, _ = _gaps(y[known])
    t = -torch.log1p(strength * gap) if strength > 0.0 else -gap
    spread = float(t.std(correction=0))
    failed = y.new_full(y.shape, float(t.min()) - _FAILED_BELOW * spread)
    failed[known] = t
    centred = failed - failed.mean()
    scale = float(centred.square().mean().sqrt())
    if scale <= 1e-12:
        return Warped(torch.zeros_like(y), 0.0)
    slope = math.log(strength) * len(t) + float(t.sum()) if strength > 0.0 else 0.0
    return Warped(centred / scale, slope - len(t) * math.log(scale))


def unwarp_values(z: Tensor, y: Tensor, strength: float = 0.0) -> Tensor:  # (...), (n,) -> (...)
    """The values that ``warp_values(y, strength)`` would take to `z`, also beyond the range of `y`.

    Args:
        z: Warped values.
        y: What was warped, at least two different finite values among it.
        strength: What it was warped with.
    """
    known = y.isfinite()
    gap, unit = _gaps(y[known])
    t = -torch.log1p(strength * gap) if strength > 0.0 else -gap
    warped = warp_values(y, strength).z[known]
    slope = t.min() / (warped.min() - warped.max())  # z is affine in t, which is 0 at the best value
    t = slope * (z - warped.max())
    gap = torch.expm1(-t) / strength if strength > 0.0 else -t
    return y[known].max() - gap * unit


def _gaps(values: Tensor) -> tuple[Tensor, Tensor]:  # (n,), ()
    """How far each value is below the best, whatever the magnitude, and the median gap it is in units of."""
    largest = values.abs().max().clamp(min=1e-300)
    gap = (values.max() / largest - values / largest).clamp(min=0.0)
    positive = gap[gap > 0.0]
    if len(positive) == 0:
        return gap, largest
    median = positive.median()
    return (gap / median).clamp(max=_FARTHEST), median * largest
