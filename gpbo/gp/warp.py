"""From what was measured to what a Gaussian process can believe: a monotone warp of the values.

A search cares about the good half of what it has seen. Values below the median keep only their rank: they
move to normal quantiles with the spread of the good half, so that an outlier of 1e9 or a diverged training
does not set the scale (the half-rank warp of Song et al. 2024, arXiv 2408.11527). Failed trials stand
below the worst value. The result has mean 0 and standard deviation 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MIN_RANKED = 8  # values; with fewer a median says little
_FAILED_BELOW = 0.5  # of the standard deviation, below the worst value


def warp_values(y: Tensor) -> Tensor:  # (n,) -> (n,)
    """Standardised values for a model, larger still better; nan (failed) becomes bad. All finite.

    Args:
        y: Values to be maximised, at least one of them finite, with nan where a trial failed.
    """
    known = y.isfinite()
    values = _scaled(y[known])
    if len(values) >= _MIN_RANKED:
        values = _half_rank(values)
    values = _standardised(values)
    warped = y.new_full(y.shape, float(values.min()) - _FAILED_BELOW)
    warped[known] = values
    return _standardised(warped) if not bool(known.all()) else warped


def _scaled(values: Tensor) -> Tensor:
    """The values moved and scaled into [-2, 2], whatever their magnitude."""
    largest = values.abs().max().clamp(min=1e-300)
    values = values / largest
    values = values - values.median()
    spread = values.abs().max()
    return values / spread if float(spread) > 0.0 else values


def _half_rank(values: Tensor) -> Tensor:
    median = values.median()
    good = values >= median
    spread = (values[good] - median).square().mean().sqrt()
    if float(spread) == 0.0:
        return values
    smaller = (values.unsqueeze(0) < values.unsqueeze(1)).sum(1)
    equal = (values.unsqueeze(0) == values.unsqueeze(1)).sum(1)
    quantile = (smaller + 0.5 * equal) / len(values)
    ranked = median + spread * torch.special.ndtri(quantile).clamp(max=0.0)
    return torch.where(good, values, ranked)


def _standardised(values: Tensor) -> Tensor:
    centred = values - values.mean()
    spread = centred.square().mean().sqrt()
    return centred / spread if float(spread) > 1e-12 else torch.zeros_like(values)
