"""The suggester for studies with budgets: a Gaussian process and a density model, in turn.

The density model follows promoted trials soon and wherever they are; the process closes in on the best. Each
proposes a part of the trials and both learn from all of them. Every tenth trial or so is a random one: where
low budgets mislead, both models are wrong together.

Once much is known at the highest budget the process is ahead and trials are dear, so the other two fade out
(benchmarks/RESULTS.md has what each brought).

Where many trials run at once, each long, the process expects the best of some of those, wrongly as often as
not, and would send worker after worker to nearly the same point before it knows. So every other of its
proposals is then the best point of a draw from it: draws differ by as much as it is unsure. And the other two
fade out later, since it takes more values for the process to be ahead where few of them were known to it when
the rest were proposed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from gpbo.checks import finite
from gpbo.cube import Cube
from gpbo.data import Dataset
from gpbo.seeding import generator
from gpbo.suggesters.base import Suggestion, new_draws
from gpbo.suggesters.bayes import GPSuggester
from gpbo.suggesters.density import BOHBSuggester

_MOST_INITIAL = 24  # trials; twice as many as without budgets, being cheap: low budgets mislead the greedy
_FEW_RUNNING = 8  # trials; up to so many, nothing differs from one after another
_MANY_RUNNING = 16  # with fewer, draws were no better than expected improvement
_FOR_WARM_STARTS = ("hypers", "warp")  # of the process's notes, which a trial of another origin hands on


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiFidelitySuggester:
    """Proposes by a Gaussian process over configs and budgets, by BOHB's density model, or at random.

    Points of one ``study.ask(n)`` are all of one origin. Where the highest of several budgets has n values,
    more than m = 2 (d + 1), both shares are smaller by the factor m / n; while r > 8 trials run, m is r / 8
    times as large.

    Args:
        density_share: How much of what is not random the density model proposes, once it has enough to go by.
        random_fraction: How often to propose a random point.

    Raises:
        SettingError: if an argument breaks its rule.
    """

    density_share: float = 0.5
    random_fraction: float = 0.1

    def __post_init__(self) -> None:
        finite("density_share", self.density_share, low=0, high=1)
        finite("random_fraction", self.random_fraction, low=0, high=1)

    def suggest(self, data: Dataset, cube: Cube, n: int, seed: int) -> Suggestion:
        """`n` points to evaluate next; quasi-random ones until enough is known for a model."""
        draws = generator(seed, data.number, "origin")
        enough = 2 * (cube.d + 1) * max(len(data.pending) / _FEW_RUNNING, 1.0)
        fading = min(1.0, enough / max(_n_at_the_top(data), 1))
        is_random, is_density = (torch.rand(2, dtype=torch.float64, generator=draws) / fading).tolist()
        handed_on = {name: data.info[name] for name in _FOR_WARM_STARTS if name in data.info}
        if is_random < self.random_fraction and handed_on:
            found = new_draws(cube, data.seen, n, generator(seed, data.number, "random"))
            return Suggestion(found, handed_on | {"source": "random"})
        if is_density < self.density_share and handed_on:
            by_density = BOHBSuggester(random_fraction=0.0).suggest(data, cube, n, seed)
            if by_density.info["source"] != "random":
                return Suggestion(by_density.X, handed_on | dict(by_density.info))
        n_initial = min(2 * (cube.d + 2), _MOST_INITIAL)
        is_drawn = len(data.pending) >= _MANY_RUNNING and data.number % 2 == 1
        process = GPSuggester(n_initial=n_initial, batch="thompson" if is_drawn else "auto")
        return process.suggest(data, cube, n, seed)


def _n_at_the_top(data: Dataset) -> int:
    """How many values there are at the highest of several budgets."""
    budget = data.budget[data.Y.isfinite().all(-1)].nan_to_num(nan=math.inf).cpu()
    return int((budget == budget.max()).sum()) if len(budget.unique()) > 1 else 0
