"""The suggester for several objectives and outcome constraints: one process each, and the front's growth."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from gpbo.acquisition import GPU_EFFORT, Effort, maximize, with_pending
from gpbo.acquisition.multi_objective import constraint_values, front_values, leading, log_ehvi
from gpbo.cube import Cube
from gpbo.data import Dataset
from gpbo.errors import NumericsError
from gpbo.gp import fit_gp
from gpbo.gp.large import EXACT_ON_CPU, EXACT_ON_CUDA, choose_rows
from gpbo.numerics import few_threads
from gpbo.seeding import derive, generator
from gpbo.suggesters.base import Suggestion, new_draws
from gpbo.suggesters.bayes import GPSuggester

_MANY = 3  # objectives; from here on every other trial improves a random mix of them
_TOO_MANY = 5  # and from here on every trial

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiObjectiveSuggester:
    """Proposes where the hypervolume that the Pareto front dominates is expected to grow most.

    Of three or four objectives a random mix is improved instead at every other trial, as `GPSuggester` does:
    there the front takes long to close in on, and its ends would be searched alone. Of more objectives it is
    the mix at every trial, because the hypervolume falls into too many boxes.

    Under the study's outcome constraints only what is feasible counts, and the growth is weighed with the
    probability to be; of one objective the best value is to be improved. Whether a point is feasible is
    judged by the processes, which see through noise. Points that are being evaluated count as if their
    posterior mean had been observed.

    Args:
        nu: The Matern smoothness, 1/2, 3/2 or 5/2.
        n_initial: How many quasi-random trials come first; by default d + 2, at least 5 and at most 12.

    Raises:
        SettingError: if an argument breaks its rule.
    """

    nu: float = 2.5
    n_initial: int | None = None

    def __post_init__(self) -> None:
        GPSuggester(nu=self.nu, n_initial=self.n_initial)  # has the same rules for them

    def suggest(self, data: Dataset, cube: Cube, n: int, seed: int) -> Suggestion:
        """`n` points to evaluate next; quasi-random ones until enough is known for a model."""
        n_initial = self.n_initial or min(max(cube.d + 2, 5), 12)
        known = int(_observed(data).isfinite().all(-1).sum())
        if len(data.seen) < n_initial or known < 2 or cube.d == 0:
            return GPSuggester(n_initial=n_initial).suggest(data, cube, n, seed)
        m, feasible = data.Y.shape[1], int(data.Y.isfinite().all(-1).sum())
        mixes = m >= _TOO_MANY or (m >= _MANY and data.number % 2 == 1)
        if mixes and feasible >= n_initial:
            return GPSuggester(nu=self.nu, n_initial=n_initial).suggest(data, cube, n, seed)
        with few_threads(len(data.X)):
            try:
                return self._model_based(data, cube, n, seed)
            except NumericsError as error:
                logger.warning("trial %d is a random one: %s", data.number, error)
                found = new_draws(cube, data.seen, n, generator(seed, data.number, "fallback"))
                return Suggestion(found, {"source": "random", "fallback": str(error)})

    def _model_based(self, data: Dataset, cube: Cube, n: int, seed: int) -> Suggestion:
        X, Z, thresholds = _outcomes(data)
        gps = [fit_gp(cube, X, z, nu=self.nu)[0] for z in Z.mT]
        info = {"source": "multi_objective", "outcomes": [gp.hypers.to_dict() for gp in gps]}
        scale = torch.stack([gp.lengthscale for gp in gps]).amin(0)
        found = data.seen[:0]
        for k in range(n):
            asked = torch.cat([data.pending, found])
            believers = [with_pending(gp, asked, "believer") for gp in gps]
            points = torch.cat([X, asked])
            believed = torch.stack([gp.marginal(points)[0] for gp in believers], dim=-1)
            x = maximize(
                log_ehvi(believers, believed, thresholds),
                cube,
                incumbents=points[leading(believed, thresholds)],
                seen=torch.cat([data.seen, found]),
                scale=scale,
                seed=derive(seed, data.number, "acquisition", k),
                effort=GPU_EFFORT if X.is_cuda else Effort(),
            )
            if x is None:
                draws = generator(seed, data.number, "rest")
                rest = new_draws(cube, torch.cat([data.seen, found]), n - k, draws)
                return Suggestion(torch.cat([found, rest.to(found.device)]), info)
            found = torch.cat([found, x.unsqueeze(0)])
        return Suggestion(found, info)


def rows_to_model(data: Dataset, Y: Tensor) -> tuple[Tensor, Tensor]:  # (n, d), (n, m + c)
    """Failures and what was observed at the largest budget; of too many a part."""
    m = data.Y.shape[1]
    known = Y.isfinite().all(-1)
    budget = data.budget.nan_to_num(nan=-torch.inf)
    rows = ~known | (budget == budget[known].max())
    X, Y = data.X[rows], Y[rows]
    merit = torch.where(Y.isfinite().all(-1), front_values(Y[:, :m]).sum(-1), torch.nan)
    kept = choose_rows(merit, EXACT_ON_CUDA if X.is_cuda else EXACT_ON_CPU)
    return X[kept], Y[kept]


def _observed(data: Dataset) -> Tensor:  # (n, m + c)
    """The objectives, then the constraints' slacks where there are any; of infeasible rows too."""
    return data.Y if data.outcomes is None else data.outcomes


def _outcomes(data: Dataset) -> tuple[Tensor, Tensor, Tensor]:  # (n, d), (n, m + c), (c,)
    """The observed points, what the processes are told of them, and the constraints' thresholds."""
    X, Y = rows_to_model(data, _observed(data))
    m = data.Y.shape[1]
    C, thresholds = constraint_values(Y[:, m:])
    Z = torch.cat([front_values(Y[:, :m]), C], dim=-1)
    return X, Z, thresholds
