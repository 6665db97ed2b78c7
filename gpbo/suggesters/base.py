"""What a suggester is: a pure function from data to the next points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from gpbo.cube import Cube, among, is_new
from gpbo.data import Dataset
from gpbo.errors import SpaceError

_MOST_BUDGETS = 8  # that are modelled
_NEAR = 2048  # moves away from seen points, in search of feasible ones
_ROUNDS = 64  # of drawing, before a discrete space is taken to be exhausted
_BATCH = 256  # of each round but the first: 64 rounds find one of the last 10 of 10 000 points nearly surely


@dataclass(frozen=True, slots=True, eq=False)
class Suggestion:
    """The next points, and what is worth knowing about how they were chosen.

    Attributes:
        X: (n, d) snapped, feasible points; fewer rows than asked for when the space has no more.
        info: JSON values to be written on the trials: fitted hyper-parameters, fallbacks and so on.
    """

    X: Tensor
    info: Mapping[str, Any] = field(default_factory=dict)


class Suggester(Protocol):
    """Chooses points. It is never told anything and keeps nothing between calls."""

    def suggest(self, data: Dataset, cube: Cube, n: int, seed: int) -> Suggestion:
        """`n` points to evaluate next.

        The same arguments give the same points. Randomness comes from `seeding.generator(seed,
        data.number, purpose)` alone.
        """
        ...


def few_budgets(data: Dataset) -> Dataset:
    """The data at the budgets where most trials ended or pause, and at the highest.

    Reports on the way, say after every epoch, tell a model little that those at the rungs do not, and are
    many. A config that was seen at none of the budgets that are kept keeps its last row; failures stay.
    """
    known = data.budget.isfinite()
    levels = data.budget[known].unique()
    if len(levels) <= _MOST_BUDGETS or data.X.shape[1] == 0:
        return data
    row = torch.arange(len(data.X), device=data.X.device)
    config = data.X.unique(dim=0, return_inverse=True)[1]
    last = torch.zeros_like(row).scatter_reduce(0, config, row, "amax")[config] == row
    ends, counts = data.budget[known & last].unique(return_counts=True)
    most = ends[counts.topk(min(len(ends), _MOST_BUDGETS - 1)).indices]
    kept = torch.isin(data.budget, torch.cat([most, levels[-1:]])) | ~known | data.Y.isnan().any(-1)
    is_there = torch.zeros_like(row).scatter_reduce(0, config, kept.long(), "amax")[config] > 0
    kept |= last & ~is_there
    outcomes = None if data.outcomes is None else data.outcomes[kept]
    return replace(data, X=data.X[kept], Y=data.Y[kept], budget=data.budget[kept], outcomes=outcomes)


def new_draws(cube: Cube, seen: Tensor, n: int, generator: torch.Generator) -> Tensor:  # (<= n, d)
    """Up to `n` random feasible points, none of them seen before; fewer where there are no more.

    In a space that can be listed every remaining point has the same chance. Where the constraints leave too
    little for uniform draws, the points lie near feasible ones that were seen.

    Raises:
        SpaceError: if the constraints leave so little of the space that no new feasible point was found.
    """
    listed = cube.enumerate()
    if listed is not None:
        left = listed[~among(listed, seen.cpu())]  # no two of the list are the same
        order = torch.randperm(len(left), generator=generator)
        return left[order[:n]]
    found = torch.empty(0, cube.d, dtype=torch.float64)
    for k in range(_ROUNDS):
        missing = n - len(found)
        try:
            X = cube.draw(missing if k == 0 else max(missing, _BATCH), generator)
        except SpaceError:
            X = _near(cube, seen.cpu(), generator)
            if len(found) == 0 and not bool(is_new(X, seen.cpu()).any()):
                raise
        found = torch.cat([found, X[is_new(X, torch.cat([seen.cpu(), found]))]])
        if len(found) >= n:
            break
    return found[:n]


def _near(cube: Cube, seen: Tensor, generator: torch.Generator) -> Tensor:  # (k, d)
    """Feasible points near seen ones, at distances of all magnitudes."""
    if len(seen) == 0:
        return seen
    rows = torch.randint(len(seen), (_NEAR,), generator=generator)
    size = 10.0 ** -(4.0 * torch.rand(_NEAR, 1, dtype=seen.dtype, generator=generator))
    X = cube.snap(seen[rows] + size * torch.randn(_NEAR, cube.d, dtype=seen.dtype, generator=generator))
    return X[cube.feasible(X)]
