"""The suggester that tries every combination of a few values of each parameter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gpbo.checks import whole
from gpbo.cube import INACTIVE, Cube, is_new
from gpbo.data import Dataset
from gpbo.errors import SettingError
from gpbo.seeding import generator
from gpbo.suggesters.base import Suggestion

_MAX_POINTS = 2**18
_BATCH = 1024  # how many points are looked at together in search of new ones


@dataclass(frozen=True, kw_only=True)
class GridSuggester:
    """The points of a grid, each once, in an order shuffled by the seed; then nothing more.

    The order is shuffled so that a grid that is stopped early has not spent itself in one corner.

    Args:
        points_per_axis: How many values of a continuous parameter are tried, both ends included; an ordered
            parameter with more levels is thinned to so many. Of categories without order, all are tried.

    Raises:
        SettingError: if `points_per_axis` is not a whole number >= 2.
    """

    points_per_axis: int = 5

    def __post_init__(self) -> None:
        whole("points_per_axis", self.points_per_axis, low=2)

    def suggest(self, data: Dataset, cube: Cube, n: int, seed: int) -> Suggestion:
        """The grid's next `n` points that were not asked for yet, or as many as it has left.

        Raises:
            SettingError: if the grid has too many points to be listed.
        """
        grid = _grid(cube, self.points_per_axis)
        order = torch.randperm(len(grid), generator=generator(seed, "grid"))  # one order for all trials
        seen = data.seen.cpu()
        found = grid[:0]
        for batch in order.split(_BATCH):
            if len(found) >= n:
                break
            X = grid[batch]
            X = X[is_new(X, seen)]
            found = torch.cat([found, X[cube.feasible(X)]])
        return Suggestion(found[:n], {"source": "grid"})


def _grid(cube: Cube, points_per_axis: int) -> Tensor:  # (k, d)
    """Every point of the grid once; a column is spread out only where its parents make it active."""
    X = torch.full((1, cube.d), INACTIVE, dtype=torch.float64)
    for done, column in enumerate(_parents_first(cube), start=1):
        axis = _axis(cube, column, points_per_axis)
        active = cube.active(X)[:, column]
        size = len(X) + int(active.sum()) * (len(axis) - 1)
        if size > _MAX_POINTS:
            raise SettingError(
                f"a grid may have at most {_MAX_POINTS} points, got {size} from {done} of {cube.d} "
                "parameters; use a smaller `points_per_axis`, fewer parameters, or SobolSuggester."
            )
        spread = X[active].repeat_interleave(len(axis), dim=0)
        spread[:, column] = axis.repeat(int(active.sum()))
        X = torch.cat([X[~active], spread])
    return X


def _parents_first(cube: Cube) -> list[int]:
    conditional = dict.fromkeys(condition.column for condition in cube.conditions)
    return [j for j in range(cube.d) if j not in conditional] + list(conditional)


def _axis(cube: Cube, column: int, k: int) -> Tensor:  # (<= k or n_levels,)
    """The coordinates that are tried of one column."""
    if cube.fixed is not None and column in cube.held:
        return cube.fixed[[column]]
    n = int(cube.n_levels[column])
    if n == 0:
        return torch.linspace(0.0, 1.0, k, dtype=torch.float64)
    if n <= k or cube.is_categorical[column]:
        return cube.at_level(column, torch.arange(n))
    return cube.at_level(column, torch.linspace(0, n - 1, k, dtype=torch.float64).round().long())
