"""Suggesters that look at nothing but what was asked for already: random and Sobol points."""

from __future__ import annotations

import torch

from gpbo.cube import Cube, is_new
from gpbo.data import Dataset
from gpbo.seeding import generator
from gpbo.suggesters.base import Suggestion, new_draws


class RandomSuggester:
    """Independent uniform points; no config twice."""

    def suggest(self, data: Dataset, cube: Cube, n: int, seed: int) -> Suggestion:
        """`n` random points, or as many as the space has left."""
        draws = generator(seed, data.number, "random")
        return Suggestion(new_draws(cube, data.seen, n, draws), {"source": "random"})


class SobolSuggester:
    """The points of one scrambled Sobol sequence in the order of the trials' numbers; no config twice.

    Points that the constraints forbid or that were asked for before give way to random ones.
    """

    def suggest(self, data: Dataset, cube: Cube, n: int, seed: int) -> Suggestion:
        """The sequence's next `n` points, or as many as the space has left."""
        return Suggestion(sobol_points(data, cube, n, seed), {"source": "sobol"})


def sobol_points(data: Dataset, cube: Cube, n: int, seed: int) -> torch.Tensor:  # (<= n, d)
    """The Sobol points numbered as the next `n` trials, made feasible and new with random ones."""
    X = cube.sobol(n, seed, skip=data.number)
    seen = data.seen.cpu()
    X = X[cube.feasible(X)] if n else X
    X = X[is_new(X, seen)]
    if len(X) < n:
        draws = generator(seed, data.number, "sobol", "random")
        X = torch.cat([X, new_draws(cube, torch.cat([seen, X]), n - len(X), draws)])
    return X
