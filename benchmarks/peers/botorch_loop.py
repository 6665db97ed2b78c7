"""BoTorch's documented loop: Sobol points, then SingleTaskGP, LogExpectedImprovement and optimize_acqf.

As in its "Getting started" and its closed-loop tutorial: default priors, standardised outcomes, maximum a
posteriori fit, `num_restarts=10, raw_samples=512`. Spaces with levels use `MixedSingleTaskGP` (where there
are categories), and `optimize_acqf_mixed` over all combinations of levels where there are at most 10, else
`optimize_acqf_mixed_alternating`, with the same restarts and samples; 10 is BoTorch's own threshold. The
initial design has 2 (d + 1) Sobol points, but no more than a quarter of the evaluations.

Approximated: a parameter that does not exist in a config stands at the middle of its range; where the
best candidate breaks a constraint, the best of 512 random feasible configs is taken instead.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.base import Config, Task, quietly
from gpbo.seeding import derive, generator

_N_FEASIBLE = 512
_EFFORT: dict[str, Any] = {"num_restarts": 10, "raw_samples": 512}


class BoTorchLoop:
    """Bayesian optimisation with BoTorch; `Z` is the unit cube with categories as whole numbers."""

    def __init__(self, task: Task) -> None:
        self._task, self._cube = task, task.space.cube
        self._categories = torch.nonzero(self._cube.is_categorical).flatten().tolist()
        n_initial = max(2, min(2 * (self._cube.d + 1), task.evaluations // 4))
        self._initial = [] if task.n_given else self._sobol(n_initial)
        self._configs: list[Config] = []
        self._losses: list[float] = []

    def ask(self) -> Config:
        """The next point of the initial design, or the best candidate."""
        n = len(self._configs)
        if n < len(self._initial):
            return self._initial[n]
        torch.manual_seed(derive(self._task.seed, "botorch", n) % 2**31)
        with quietly():  # advice on precision, and warnings of fits that are retried
            acquisition = self._acquisition()
            z = self._maximize(acquisition)
            config = self._config(z)
            if self._task.space.satisfies(config):
                return config
            self._task.counts.rejections += 1
            return self._best_feasible(acquisition)

    def tell(self, config: Config, loss: float) -> None:
        """Add to the data."""
        self._configs.append(config)
        self._losses.append(loss)

    def _sobol(self, n: int) -> list[Config]:
        X = self._cube.sobol(8 * n, self._task.seed)
        X = X[self._cube.feasible(X)]
        if len(X) < n:
            more = self._cube.draw(n - len(X), generator(self._task.seed, "botorch", "initial"))
            X = torch.cat([X, more])
        return self._task.space.decode(X[:n])

    def _acquisition(self) -> Any:
        from botorch.acquisition.analytic import LogExpectedImprovement
        from botorch.fit import fit_gpytorch_mll
        from botorch.models.gp_regression import SingleTaskGP
        from botorch.models.gp_regression_mixed import MixedSingleTaskGP
        from gpytorch.mlls import ExactMarginalLogLikelihood

        Z = self._to_mixed(self._task.space.encode(self._configs)).to(self._task.device)
        Y = -torch.tensor(self._losses, dtype=Z.dtype, device=Z.device)[:, None]
        model = MixedSingleTaskGP(Z, Y, self._categories) if self._categories else SingleTaskGP(Z, Y)
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        return LogExpectedImprovement(model, best_f=Y.max())

    def _maximize(self, acquisition: Any) -> Tensor:  # (1, d)
        from botorch.optim.optimize import optimize_acqf, optimize_acqf_mixed
        from botorch.optim.optimize_mixed import (
            ALTERNATING_OPTIMIZER_THRESHOLD,
            optimize_acqf_mixed_alternating,
        )

        bounds = torch.zeros(2, self._cube.d, dtype=torch.float64, device=self._task.device)
        bounds[1] = 1.0
        values = {j: self._values(j) for j in self._cube.discrete}
        for j, listed in values.items():
            bounds[0, j], bounds[1, j] = listed[0], listed[-1]
        if not values:
            found, _ = optimize_acqf(acquisition, bounds, q=1, **_EFFORT)
        elif math.prod(map(len, values.values())) <= ALTERNATING_OPTIMIZER_THRESHOLD:
            combinations = [dict(zip(values, c, strict=True)) for c in itertools.product(*values.values())]
            found, _ = optimize_acqf_mixed(
                acquisition, bounds, 1, fixed_features_list=combinations, **_EFFORT
            )
        else:
            found, _ = optimize_acqf_mixed_alternating(
                acquisition,
                bounds,
                discrete_dims={j: v for j, v in values.items() if j not in self._categories},
                cat_dims={j: v for j, v in values.items() if j in self._categories},
                **_EFFORT,
            )
        return found

    def _values(self, column: int) -> list[float]:
        levels = torch.arange(int(self._cube.n_levels[column]))
        return (
            levels.double() if column in self._categories else self._cube.at_level(column, levels)
        ).tolist()

    def _best_feasible(self, acquisition: Any) -> Config:
        draws = generator(self._task.seed, "botorch", "feasible", len(self._configs))
        X = self._cube.draw(_N_FEASIBLE, draws)
        with torch.no_grad():
            values = acquisition(self._to_mixed(X).to(self._task.device)[:, None])
        return self._task.space.decode(X[values.argmax().cpu()][None])[0]

    def _to_mixed(self, X: Tensor) -> Tensor:  # (n, d) -> (n, d)
        Z = X.clone()
        for j in self._categories:
            Z[:, j] = self._cube.level(X, j).to(Z.dtype)
        return Z

    def _config(self, Z: Tensor) -> Config:  # (1, d)
        X = Z.detach().cpu().clone()
        for j in self._categories:
            X[:, j] = (X[:, j].round() + 0.5) / self._cube.n_levels[j]
        return self._task.space.decode(self._cube.snap(X))[0]


def create(kind: str, task: Task) -> BoTorchLoop:
    """The loop for the task."""
    return BoTorchLoop(task)
