"""More observations than an exact process can take: which of them to keep.

An ask must stay interactive, so beyond a limit the process is exact on a subset: the best observations,
where the search goes on, and of the rest an even selection over the ranks, so that the model still knows
what bad looks like.
"""

from __future__ import annotations

import torch
from torch import Tensor

EXACT_ON_CPU = 1500  # observations; benchmarks/speed.py times asks with 10 000 (cell ask-10000)
EXACT_ON_CUDA = 20_000
BUDGETS_ON_CPU = 500  # the same over several budgets, where trials come faster
BUDGETS_ON_CUDA = 5000
_BEST = 0.5  # of the subset


def choose_rows(y: Tensor, limit: int) -> Tensor:  # (n,) -> (<= limit,)
    """The rows to keep, in their order: all of them up to `limit`; nan (failed) ranks last."""
    n = len(y)
    if n <= limit:
        return torch.arange(n, device=y.device)
    order = y.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)
    n_best = round(_BEST * limit)
    rest = order[n_best:]
    even = torch.linspace(0, len(rest) - 1, limit - n_best, device=y.device).round().long()
    return torch.cat([order[:n_best], rest[even]]).sort().values


def choose_rows_of_budgets(y: Tensor, budget: Tensor, limit: int) -> Tensor:  # (n,), (n,) -> (<= limit,)
    """The rows to keep, in their order: the highest budgets' first, but half of the room for those below.

    Of a budget with too many rows those are kept that `choose_rows` does.
    """
    if len(y) <= limit:
        return torch.arange(len(y), device=y.device)
    kept, n_below = budget.new_empty(0, dtype=torch.long), len(y)
    for level in budget.unique().flip(0):
        rows = (budget == level).nonzero().squeeze(-1)
        n_below -= len(rows)
        room = limit - len(kept)
        kept = torch.cat([kept, rows[choose_rows(y[rows], max(room - n_below, room // 2))]])
    return kept.sort().values
