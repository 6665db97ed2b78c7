"""One process for all budgets: the budget is one more column, and the search stays at one budget.

The kernel is the Matern of the joint distance over config and budget, with a lengthscale for the budget: how
fast what was seen with little budget stops to tell what would be seen with more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gpbo.cube import Cube
from gpbo.kernels.embedding import Embedding


@dataclass(frozen=True, eq=False)
class AtBudget:
    """The features of a cube's points at one budget, for a process over a cube with a budget column.

    Attributes:
        whole: The features of points with their budgets.
        cube: The domain without the budget.
        budget: Where the budget stands in its column, from 0 to 1.
    """

    whole: Embedding
    cube: Cube
    budget: float

    @property
    def groups(self) -> Tensor:  # (F,)
        """The column, and so the lengthscale, that each feature belongs to; the budget's is the last."""
        return self.whole.groups

    def __call__(self, X: Tensor) -> Tensor:  # (..., d) -> (..., F)
        """The features of points at the budget."""
        return self.whole(self._with_budget(X))

    def pullback(self, X: Tensor, slope: Tensor) -> Tensor:  # (..., d), (..., F) -> (..., d)
        """The gradient with respect to X, from the one with respect to the features."""
        return self.whole.pullback(self._with_budget(X), slope)[..., :-1]

    def _with_budget(self, X: Tensor) -> Tensor:
        return torch.cat([X, X.new_full((*X.shape[:-1], 1), self.budget)], dim=-1)


def with_budget_column(cube: Cube) -> Cube:
    """The domain of points with their budgets as a last column; what is infeasible is not told of."""
    plain = Cube.continuous(1)
    return Cube(
        n_levels=torch.cat([cube.n_levels, plain.n_levels]),
        is_categorical=torch.cat([cube.is_categorical, plain.is_categorical]),
        log_edges=torch.cat([cube.log_edges, plain.log_edges]),
        conditions=cube.conditions,
    )
