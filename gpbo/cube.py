"""The domain as the core sees it: the unit cube, with levels, categories, activity and constraints.

Notation: X (n, d) points; column j has ``n_levels[j]`` values (0: a continuum), each at the middle of its
cell. A conditional column is active where its parents hold allowed levels; an inactive one stands at 0.5,
so that two points with the same config are the same point.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from gpbo.errors import SpaceError
from gpbo.seeding import derive

INACTIVE = 0.5
_MAX_ENUMERATED = 4096  # spaces up to this many points are listed when drawing finds nothing new
_MAX_NEIGHBOURS = 16  # ordered columns with more levels offer only their nearest levels
_MAX_DRAWS = 2**16  # how many points are drawn in search of feasible ones


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """`column` is active only where `parent` is active and holds a level marked in `allowed`."""

    column: int
    parent: int
    allowed: Tensor  # (n_levels of parent,) bool


@dataclass(frozen=True, eq=False)
class Cube:
    """A domain inside [0, 1]^d.

    Attributes:
        n_levels: (d,) the number of levels of each column, 0 for a continuum.
        is_categorical: (d,) whether a column's levels have no order.
        log_edges: (d, 2) natural logarithms of the outer edges of the cells of log-spaced whole numbers;
            nan in all other columns.
        conditions: Ordered such that a parent's own conditions come first.
        constraint: (n, d) -> (n,) bool over snapped points, or None where everything is allowed.
        fixed: (d,) where the columns that are held stand, nan in those that are free; None where all are.
    """

    n_levels: Tensor
    is_categorical: Tensor
    log_edges: Tensor
    conditions: tuple[Condition, ...] = ()
    constraint: Callable[[Tensor], Tensor] | None = None
    fixed: Tensor | None = None

    @classmethod
    def continuous(cls, d: int) -> Cube:
        """The plain unit cube with `d` columns."""
        return cls(
            n_levels=torch.zeros(d, dtype=torch.long),
            is_categorical=torch.zeros(d, dtype=torch.bool),
            log_edges=torch.full((d, 2), math.nan, dtype=torch.float64),
        )

    @property
    def d(self) -> int:
        """The number of columns."""
        return len(self.n_levels)

    @cached_property
    def discrete(self) -> list[int]:
        """The columns with levels."""
        return [j for j, n in enumerate(self.n_levels.tolist()) if n]

    @cached_property
    def held(self) -> list[int]:
        """The columns that are fixed."""
        return [] if self.fixed is None else (~self.fixed.isnan()).nonzero()[:, 0].tolist()

    @cached_property
    def conditional(self) -> list[int]:
        """The columns that are not always active."""
        return sorted({condition.column for condition in self.conditions})

    @cached_property
    def size(self) -> float:
        """An upper bound on the number of distinct points; infinite with a continuous column."""
        levels = [1 if j in self.held else n for j, n in enumerate(self.n_levels.tolist())]
        return float(math.prod(levels)) if all(levels) else math.inf

    def level(self, X: Tensor, column: int) -> Tensor:  # (..., d) -> (...)
        """The level that each point holds in a column that has levels."""
        return self.levels(X)[..., self.discrete.index(column)]

    def levels(self, X: Tensor) -> Tensor:  # (..., d) -> (..., k)
        """The level that each point holds in each of the columns `discrete`."""
        on = self._grid(X.device)
        u = X[..., on.columns]
        even = (u * on.n).long()
        if self._is_any_log:
            logarithmic = torch.exp(on.low + u * on.width).round().long() - on.first
            even = torch.where(on.is_log, logarithmic, even)
        return even.clamp(min=0).minimum(on.n - 1)

    def at_level(self, column: int, level: Tensor) -> Tensor:
        """The coordinate, in [0, 1], of each level of a column."""
        k = self.discrete.index(column)
        columns = level.new_zeros(*level.shape, len(self.discrete), dtype=torch.long)
        columns[..., k] = level
        return self.at_levels(columns)[..., k]

    def at_levels(self, levels: Tensor) -> Tensor:  # (..., k) -> (..., k)
        """The coordinates, in [0, 1], of levels of the columns `discrete`."""
        on = self._grid(levels.device)
        levels = levels.to(torch.float64)
        even = (levels + 0.5) / on.n
        if not self._is_any_log:
            return even
        return torch.where(on.is_log, (torch.log(levels + on.first) - on.low) / on.width, even)

    def active(self, X: Tensor) -> Tensor:  # (..., d) -> (..., d)
        """Whether each column of each point exists, given its parents."""
        if not self.conditions:
            return torch.ones(X.shape, dtype=torch.bool, device=X.device)
        tree = self._tree(X.device)
        held = self.levels(X)[..., tree.parents]
        inactive = (tree.forbidden[tree.each, held] @ tree.columns) > 0.0
        for _ in range(tree.depth - 1):
            inactive |= (inactive.to(tree.children.dtype) @ tree.children) > 0.0
        return ~inactive

    def snap(self, X: Tensor) -> Tensor:  # (..., d) -> (..., d)
        """The nearest points of the domain: inside the cube, on levels, inactive columns at 0.5."""
        X = self.hold(X.clamp(0.0, 1.0))
        if self.discrete:
            X[..., self._grid(X.device).columns] = self.at_levels(self.levels(X)).to(X.dtype)
        if self.conditions:
            X = torch.where(self.active(X), X, INACTIVE)
        return X

    def hold(self, X: Tensor) -> Tensor:  # (..., d) -> (..., d)
        """The points with the held columns where they are held."""
        if self.fixed is None:
            return X
        fixed = self.fixed.to(X)
        return torch.where(fixed.isnan(), X, fixed)

    def feasible(self, X: Tensor) -> Tensor:  # (n, d) -> (n,)
        """Whether the constraint holds at snapped points."""
        if self.constraint is None:
            return torch.ones(len(X), dtype=torch.bool, device=X.device)
        return self.constraint(X)

    def sobol(self, n: int, seed: int, *, skip: int = 0) -> Tensor:  # (n, d)
        """`n` snapped points of a scrambled Sobol sequence, from its point `skip` on."""
        if self.d == 0:
            return torch.empty(n, 0, dtype=torch.float64)
        scramble = derive(seed, "sobol") % 2**31
        engine = SobolEngine(self.d, scramble=True, seed=scramble)
        if skip:
            engine.fast_forward(skip)
        return self.snap(engine.draw(n, dtype=torch.float64))

    def draw(self, n: int, generator: torch.Generator) -> Tensor:  # (n, d)
        """`n` feasible points, uniform over the levels and the continuum.

        Raises:
            SpaceError: if the constraint leaves too little of the space to find `n` points.
        """
        found: list[Tensor] = []
        missing, drawn = n, 0
        while missing > 0 and drawn < _MAX_DRAWS:
            batch = min(max(2 * missing, 64), 8192) if self.constraint else missing
            X = self.snap(torch.rand(batch, self.d, dtype=torch.float64, generator=generator))
            X = X[self.feasible(X)][:missing]
            found.append(X)
            missing, drawn = missing - len(X), drawn + batch
        if missing == n and n > 0:
            raise SpaceError(
                f"no config that meets the constraints was found among {drawn} random ones; loosen them, "
                "narrow the bounds, or enqueue a config that meets them, near which others are looked for."
            )
        X = torch.cat(found) if found else torch.empty(0, self.d, dtype=torch.float64)
        if missing > 0:
            X = X.repeat(-(-n // len(X)), 1)[:n]
        return X

    def enumerate(self) -> Tensor | None:  # (size, d)
        """Every feasible point once, or None when there are too many to list; not to be written into."""
        return self._listed

    @cached_property
    def _listed(self) -> Tensor | None:
        if self.size > _MAX_ENUMERATED:
            return None
        anywhere = torch.zeros(1, dtype=torch.float64)  # snapping puts held columns in their place
        axes = [
            anywhere if j in self.held else self.at_level(j, torch.arange(n))
            for j, n in enumerate(self.n_levels.tolist())
        ]
        X = torch.empty(1, 0, dtype=torch.float64)
        if axes:
            X = torch.unique(self.snap(torch.cartesian_prod(*axes).reshape(-1, self.d)), dim=0)
        return X[self.feasible(X)]

    def neighbours(self, x: Tensor) -> Tensor:  # (d,) -> (k, d)
        """Every point that differs from the snapped `x` in one free discrete column, snapped and feasible.

        Of ordered columns with many levels only the nearest few levels are offered.
        """
        active, counts = self.active(x).tolist(), self.n_levels.tolist()
        categorical = self.is_categorical.tolist()
        here = self.levels(x).tolist()
        moves: list[tuple[int, int]] = []  # (index into `discrete`, level)
        for k, j in enumerate(self.discrete):
            if not active[j] or j in self.held:
                continue
            if categorical[j] or counts[j] <= _MAX_NEIGHBOURS:
                levels = [level for level in range(counts[j]) if level != here[k]]
            else:
                near = (here[k] - 2, here[k] - 1, here[k] + 1, here[k] + 2)
                levels = [level for level in near if 0 <= level < counts[j]]
            moves += [(k, level) for level in levels]
        if not moves:
            return x.new_empty(0, self.d)
        which, level = torch.tensor(moves, device=x.device).unbind(-1)
        each = torch.arange(len(moves), device=x.device)
        grid = torch.tensor(here, device=x.device).repeat(len(moves), 1)
        grid[each, which] = level
        columns = self._grid(x.device).columns
        X = x.repeat(len(moves), 1)
        X[each, columns[which]] = self.at_levels(grid)[each, which].to(x)
        X = self.snap(X)
        return X[self.feasible(X)]

    @cached_property
    def _is_any_log(self) -> bool:
        return bool(self.log_edges.isfinite().any())

    def _grid(self, device: torch.device) -> _Grid:
        """The levels' constants on a device."""
        found = self._grids.get(device)
        if found is None:
            columns = torch.tensor(self.discrete, dtype=torch.long)
            low, high = self.log_edges[columns].unbind(-1)
            is_log = low.isfinite()
            low, width = low.nan_to_num(), torch.where(is_log, high - low, 1.0)
            first = torch.where(is_log, (low.exp() + 0.5).round(), 0.0).long()
            grid = (columns, self.n_levels[columns], is_log, low, width, first)
            found = self._grids[device] = _Grid(*(tensor.to(device) for tensor in grid))
        return found

    @cached_property
    def _grids(self) -> dict[torch.device, _Grid]:
        return {}

    def _tree(self, device: torch.device) -> _Tree:
        """The conditions as matrices on a device."""
        found = self._trees.get(device)
        if found is None:
            c, levels = len(self.conditions), max(len(one.allowed) for one in self.conditions)
            forbidden = torch.ones(c, levels, dtype=torch.float64)
            columns, children = torch.zeros(c, self.d).double(), torch.zeros(self.d, self.d).double()
            depth = [0] * self.d
            for i, one in enumerate(self.conditions):  # a parent's own conditions come first
                forbidden[i, : len(one.allowed)] = (~one.allowed.cpu()).double()
                columns[i, one.column] = 1.0
                children[one.parent, one.column] = 1.0
                depth[one.column] = max(depth[one.column], depth[one.parent] + 1)
            parents = torch.tensor([self.discrete.index(one.parent) for one in self.conditions])
            matrices = (parents, torch.arange(c), forbidden, columns, children)
            found = self._trees[device] = _Tree(max(depth), *(matrix.to(device) for matrix in matrices))
        return found

    @cached_property
    def _trees(self) -> dict[torch.device, _Tree]:
        return {}


class _Grid(NamedTuple):
    """Constants of the columns with levels, each (k,)."""

    columns: Tensor
    n: Tensor
    is_log: Tensor
    low: Tensor
    width: Tensor
    first: Tensor


class _Tree(NamedTuple):
    """Conditions as matrices: which of c conditions forbids what, and whose children are whose."""

    depth: int
    parents: Tensor  # (c,) indices into `discrete`
    each: Tensor  # (c,) 0, 1, ...
    forbidden: Tensor  # (c, levels) 1 where the parent's level makes the column inactive
    columns: Tensor  # (c, d) 1 at the condition's column
    children: Tensor  # (d, d) 1 where the column depends on the row


def among(X: Tensor, others: Tensor, *, tolerance: float = 1e-9) -> Tensor:  # (n, d), (m, d) -> (n,)
    """Whether each row of X is a row of `others`."""
    if X.shape[-1] == 0:
        return torch.full((len(X),), len(others) > 0, device=X.device)
    return (torch.cdist(X, others, p=float("inf")) <= tolerance).any(-1)


def is_new(X: Tensor, seen: Tensor, *, tolerance: float = 1e-9) -> Tensor:  # (n, d), (m, d) -> (n,)
    """Whether each row of X differs from every row of `seen` and from the rows of X before it."""
    if X.shape[-1] == 0:
        new = torch.zeros(len(X), dtype=torch.bool, device=X.device)
        new[:1] = len(seen) == 0
        return new
    new = ~among(X, seen, tolerance=tolerance)
    if len(X) > 1:
        near = torch.cdist(X, X, p=float("inf")) <= tolerance
        new &= ~near.tril(-1).any(-1)
    return new
