"""Values at several budgets on one scale: what a value at a low budget foretells at the highest.

Losses fall and spread differently as budgets rise, and only the best trials are seen with much budget, so
that standardising each budget by itself would take their average for that of all. Instead each budget is
mapped to the next by the trials that were seen at both,

    y' = median(high - s low) + s y        s the median slope between pairs of them (Theil 1950, Sen 1968),

which choosing the pairs by their values at the lower budget does not bias, and neighbouring maps are chained.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

_PRIOR_PAIRS = 5  # the slope is 1 to as many pairs as this
_MOST_PAIRS = 128  # the best of them, by the value at the lower budget; slopes are between all pairs of these
_SLOPES = (0.1, 10.0)  # whatever the pairs say
_ENOUGH = 3  # values at a budget, to search there


def target_budget(y: Tensor, budget: Tensor) -> float:  # (n,), (n,)
    """The budget to search at: the largest with three values, or else the one with the most."""
    found, counts = budget[y.isfinite()].unique(return_counts=True)
    enough = found[counts >= _ENOUGH]
    return float(enough.max() if len(enough) else found[counts.argmax()])


def places(budget: Tensor) -> Tensor:  # (n,) -> (n,)
    """Where each budget stands between the lowest, 0, and the highest, 1; in logarithms, unless one is 0."""
    at = budget if bool((budget <= 0.0).any()) else budget.log()
    span = at.max() - at.min()
    return torch.where(span > 0.0, (at - at.min()) / span, 1.0)


def on_one_scale(y: Tensor, budget: Tensor, config: Tensor) -> Tensor:  # (n,), (n,), (n,) -> (n,)
    """The values as they are to be expected at the highest budget; nan (failed) stays.

    Args:
        y: Values, to be maximised.
        budget: The budget of each.
        config: Which config each is of; values of one at two budgets are a pair.
    """
    scaled, rungs = y.clone(), budget[y.isfinite()].unique()
    for low, high in pairwise(rungs):
        slope, shift = _line(*_pairs(y, budget, config, low, high))
        scaled = torch.where(budget <= low, shift + slope * scaled, scaled)
    return scaled


def _pairs(y: Tensor, budget: Tensor, config: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The values (m,) at the low and (m,) at the high budget of the configs that have both."""
    here, there = ((budget == level) & y.isfinite() for level in (low, high))
    both = config[here].unsqueeze(-1) == config[there]
    i, j = both.nonzero().unbind(-1)
    best = y[here][i].topk(min(len(i), _MOST_PAIRS)).indices
    return y[here][i[best]], y[there][j[best]]


def _line(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:  # (m,), (m,)
    """The slope and the shift of b ~ shift + slope a; 1 and 0 without pairs, when nothing can be said."""
    m = len(a)
    if m == 0:
        return a.new_tensor(1.0), a.new_tensor(0.0)
    run, rise = a.unsqueeze(-1) - a, b.unsqueeze(-1) - b
    slopes = (rise / run)[run > 0.0]
    slope = slopes.median() if len(slopes) else a.new_tensor(1.0)
    slope = ((m * slope + _PRIOR_PAIRS) / (m + _PRIOR_PAIRS)).clamp(*_SLOPES)
    return slope, (b - slope * a).median()
