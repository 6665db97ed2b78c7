"""From points of the cube to features whose scaled Euclidean distance is the kernel's distance.

Every column becomes one or more features that share the column's lengthscale, so that mixed and
conditional spaces are one more Euclidean distance and every kernel of it is positive definite by
construction:

    number                       x
    category, of c levels        one-hot / sqrt(2): distance 1 between any two levels (Hamming)
    conditional number           (cos(w x), sin(w x)) / w where active, (0, 0) elsewhere
    conditional category         one-hot / sqrt(2) where active, 0 elsewhere

The third is the arc kernel of Swersky et al. 2014 (arXiv 1409.4011) with w = pi/2: two active values are
about as far apart as plain numbers, and an inactive one is equally far from all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from gpbo.cube import Cube

_ARC = 0.5 * math.pi


class _Hot(NamedTuple):
    """Of each feature of a category: its column, that column's index in `cube.discrete`, its level."""

    column: Tensor
    discrete: Tensor
    level: Tensor


@dataclass(frozen=True, eq=False)
class Embedding:
    """The features of a cube's points; F of them for d columns."""

    cube: Cube

    @cached_property
    def numeric(self) -> list[int]:
        """Columns that are one feature, the coordinate itself."""
        cube = self.cube
        categorical = cube.is_categorical.tolist()
        return [j for j in range(cube.d) if not categorical[j] and j not in cube.conditional]

    @cached_property
    def arcs(self) -> list[int]:
        """Conditional numeric columns, two features each."""
        return [j for j in self.cube.conditional if not self.cube.is_categorical[j]]

    @cached_property
    def categorical(self) -> list[int]:
        """Categorical columns, one feature for each level."""
        return [j for j in range(self.cube.d) if self.cube.is_categorical[j]]

    @cached_property
    def groups(self) -> Tensor:  # (F,)
        """The column, and so the lengthscale, that each feature belongs to."""
        levels = self.cube.n_levels.tolist()
        columns = [*self.numeric, *(j for j in self.arcs for _ in "cs")]
        columns += [j for j in self.categorical for _ in range(levels[j])]
        return torch.tensor(columns, dtype=torch.long)

    @property
    def is_plain(self) -> bool:
        """Whether the features are the coordinates themselves."""
        return len(self.numeric) == self.cube.d

    def __call__(self, X: Tensor) -> Tensor:  # (..., d) -> (..., F)
        """The features of points whose discrete columns may lie between levels, except the categories."""
        if self.is_plain:
            return X
        active = self.cube.active(X) if self.cube.conditions else None
        parts = [X[..., self.numeric]]
        if self.arcs and active is not None:
            angle = _ARC * X[..., self.arcs]
            arcs = torch.stack([torch.cos(angle), torch.sin(angle)], dim=-1) / _ARC
            parts.append((arcs * active[..., self.arcs, None]).flatten(-2))
        if self.categorical:
            on = self._hot(X.device)
            hot = self.cube.levels(X)[..., on.discrete] == on.level
            parts.append(
                (hot if active is None else hot & active[..., on.column]).to(X.dtype) / math.sqrt(2.0)
            )
        return torch.cat(parts, dim=-1)

    def _hot(self, device: torch.device) -> _Hot:
        """The features of categories, on a device."""
        found = self._hots.get(device)
        if found is None:
            counts = self.cube.n_levels.tolist()
            pairs = [(j, level) for j in self.categorical for level in range(counts[j])]
            columns, levels = torch.tensor(pairs, device=device).reshape(-1, 2).unbind(-1)
            indices = torch.tensor([self.cube.discrete.index(j) for j, _ in pairs], device=device)
            found = self._hots[device] = _Hot(columns, indices, levels)
        return found

    @cached_property
    def _hots(self) -> dict[torch.device, _Hot]:
        return {}

    def pullback(self, X: Tensor, slope: Tensor) -> Tensor:  # (..., d), (..., F) -> (..., d)
        """The gradient with respect to X, from the one with respect to the features; 0 for categories."""
        if self.is_plain:
            return slope
        gradient = torch.zeros_like(X)
        gradient[..., self.numeric] = slope[..., : len(self.numeric)]
        if self.arcs:
            start = len(self.numeric)
            pairs = slope[..., start : start + 2 * len(self.arcs)].unflatten(-1, (-1, 2))
            angle = _ARC * X[..., self.arcs]
            along = -torch.sin(angle) * pairs[..., 0] + torch.cos(angle) * pairs[..., 1]
            gradient[..., self.arcs] = along * self.cube.active(X)[..., self.arcs]
        return gradient


def squared_distances(A: Tensor, B: Tensor) -> Tensor:  # (..., n, F), (..., m, F) -> (..., n, m)
    """|a - b|^2 for all pairs of rows, by one matrix product; both sides should be centred alike."""
    r2 = torch.matmul(A, B.mT).mul_(-2.0)
    r2 += A.square().sum(-1).unsqueeze(-1)
    r2 += B.square().sum(-1).unsqueeze(-2)
    return r2.clamp_(min=0.0)
