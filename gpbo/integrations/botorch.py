"""The open path: botorch's acquisition functions and gpytorch's kernels in gpbo's search.

`to_botorch` makes a botorch model of processes, on which any of botorch's acquisition functions runs.
`BotorchSuggester` searches with such a function, or with a gpytorch kernel, for one objective or several.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from botorch.acquisition.acquisition import AcquisitionFunction, OneShotAcquisitionFunction
from botorch.acquisition.analytic import AnalyticAcquisitionFunction
from botorch.acquisition.logei import qLogNoisyExpectedImprovement
from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
from botorch.acquisition.multi_objective.objective import IdentityMCMultiOutputObjective
from botorch.acquisition.objective import GenericMCObjective
from botorch.exceptions.errors import ModelFittingError
from botorch.exceptions.warnings import BotorchWarning
from botorch.fit import fit_gpytorch_mll
from botorch.models.gp_regression import SingleTaskGP
from botorch.models.model import Model
from botorch.models.model_list_gp_regression import ModelListGP
from botorch.sampling.normal import SobolQMCNormalSampler
from gpytorch.kernels import Kernel
from gpytorch.mlls import ExactMarginalLogLikelihood, SumMarginalLogLikelihood
from gpytorch.utils.warnings import NumericalWarning
from linear_operator.utils.errors import NanError, NotPSDError
from torch import Tensor

from gpbo.acquisition import Effort, maximize
from gpbo.acquisition.multi_objective import (
    constraint_values,
    feasible_values,
    front_values,
    leading,
    reference_point,
)
from gpbo.cube import Cube
from gpbo.data import Dataset
from gpbo.errors import NumericsError, SettingError
from gpbo.gp import GP, STRENGTHS, fit_gp, warp_values
from gpbo.integrations.botorch_model import GPModel, to_botorch
from gpbo.numerics import few_threads
from gpbo.seeding import derive, generator
from gpbo.suggesters.base import Suggestion, new_draws
from gpbo.suggesters.bayes import GPSuggester
from gpbo.suggesters.multi_objective import rows_to_model

__all__ = ["AcquisitionFactory", "BotorchSuggester", "GPModel", "to_botorch"]

AcquisitionFactory = Callable[[Model, Tensor, Tensor, Tensor | None], AcquisitionFunction]

_EFFORT = Effort(raw=512, perturbed=256, starts=8, rounds=40)
_CHUNK = 128  # points evaluated at once; Monte Carlo functions hold samples times cells of each
_SAMPLES = 64
_FAILURES = (NumericsError, ModelFittingError, NotPSDError, NanError)


@dataclass(frozen=True, slots=True, kw_only=True)
class BotorchSuggester:
    """Proposes where a botorch acquisition function is largest, for one objective or several.

    Args:
        acquisition: Makes the function: ``acquisition(model, best_f, X_baseline, X_pending)``, with the
            model of all objectives, the best posterior mean of each (a number for one objective), the
            observed points, and those being evaluated or None. Points are those of the unit cube; values
            are warped, standardised and to be maximised. An analytic function, which knows no pending
            points, is made again with a model that believes its mean there. Infeasible trials are for it
            like failed ones. By default qLogNEI for one objective and qLogNEHVI for several, with a model
            of each outcome constraint too.
        kernel: A gpytorch kernel over the columns of the unit cube, fitted by botorch; by default the
            process is gpbo's own.
        n_initial: How many quasi-random trials come first; by default d + 2, at least 5 and at most 12.

    Raises:
        SettingError: if an argument breaks its rule.
    """

    acquisition: AcquisitionFactory | None = None
    kernel: Kernel | None = None
    n_initial: int | None = None

    def __post_init__(self) -> None:
        if self.acquisition is not None and not callable(self.acquisition):
            raise SettingError(f"`acquisition` must be a function, got {self.acquisition!r}.")
        if self.kernel is not None and not isinstance(self.kernel, Kernel):
            raise SettingError(f"`kernel` must be a gpytorch kernel, got {self.kernel!r}.")
        GPSuggester(n_initial=self.n_initial)  # has the same rule for it

    def suggest(self, data: Dataset, cube: Cube, n: int, seed: int) -> Suggestion:
        """`n` points to evaluate next; quasi-random ones until enough is known for a model."""
        n_initial = self.n_initial or min(max(cube.d + 2, 5), 12)
        known = int(self._outcomes(data).isfinite().all(-1).sum())
        if len(data.seen) < n_initial or known < 2 or cube.d == 0:
            return GPSuggester(n_initial=n_initial).suggest(data, cube, n, seed)
        with few_threads(len(data.X)), _isolated(derive(seed, data.number, "botorch")):
            try:
                return self._model_based(data, cube, n, seed)
            except _FAILURES as error:
                found = new_draws(cube, data.seen, n, generator(seed, data.number, "fallback"))
                return Suggestion(found, {"source": "random", "fallback": str(error)})

    def _model_based(self, data: Dataset, cube: Cube, n: int, seed: int) -> Suggestion:
        m = data.Y.shape[1]
        X, Y = rows_to_model(data, self._outcomes(data))
        C, thresholds = constraint_values(Y[:, m:])
        gps = _fit(cube, X, Y[:, :m]) + [fit_gp(cube, X, c)[0] for c in C.mT]
        model = to_botorch(gps, X) if self.kernel is None else _fit_kernel(self.kernel, gps, X)
        observed = Y.isfinite().all(-1)
        X, Z = X[observed], torch.stack([gp.y for gp in gps], dim=-1)[observed]
        scale = torch.stack([gp.lengthscale for gp in gps]).amin(0)
        found = X[:0]
        for k in range(n):
            draw = derive(seed, data.number, "acquisition", k)
            x = maximize(
                _SinglePoints(
                    self._function(model, X, Z, thresholds, torch.cat([data.pending, found]), draw)
                ),
                cube,
                incumbents=X[leading(Z, thresholds)],
                seen=torch.cat([data.seen, found]),
                scale=scale,
                seed=draw,
                effort=_EFFORT,
            )
            if x is None:
                draws = generator(seed, data.number, "rest")
                rest = new_draws(cube, torch.cat([data.seen, found]), n - k, draws)
                found = torch.cat([found, rest.to(found.device)])
                break
            found = torch.cat([found, x.unsqueeze(0)])
        return Suggestion(found, {"source": "botorch", "outcomes": [gp.hypers.to_dict() for gp in gps]})

    def _outcomes(self, data: Dataset) -> Tensor:  # (n, m + c)
        """What is modelled: for a function of the user's the objectives alone."""
        return data.Y if data.outcomes is None or self.acquisition is not None else data.outcomes

    def _function(
        self, model: Model, X: Tensor, Z: Tensor, thresholds: Tensor, asked: Tensor, seed: int
    ) -> AcquisitionFunction:
        """The acquisition function that accounts for the points asked for so far."""
        pending = asked if len(asked) else None
        if self.acquisition is None:
            return _noisy_improvement(model, X, Z, thresholds, pending, seed)
        with torch.no_grad():
            best_f = _mean(model, X).amax(0).squeeze(-1)
        made = self.acquisition(model, best_f, X, pending)
        if pending is not None and isinstance(made, AnalyticAcquisitionFunction):
            with torch.no_grad():
                believed = model.condition_on_observations(pending, _mean(model, pending))
            made = self.acquisition(believed, best_f, X, pending)
        if not isinstance(made, AcquisitionFunction) or isinstance(made, OneShotAcquisitionFunction):
            raise SettingError(
                "`acquisition` must make a botorch acquisition function of single points, "
                f"got a {type(made).__name__}; optimise others on `to_botorch(gp, X)` with botorch."
            )
        return made


@dataclass(frozen=True, eq=False)
class _SinglePoints:
    """A botorch acquisition function as gpbo's optimiser calls it."""

    function: AcquisitionFunction

    def values(self, X: Tensor) -> Tensor:  # (b, d) -> (b,)
        with torch.no_grad():
            return torch.cat([self.function(part.unsqueeze(-2)) for part in X.split(_CHUNK)])

    def value_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:  # (b, d) -> (b,), (b, d)
        X = X.detach().clone().requires_grad_(True)
        value = self.function(X.unsqueeze(-2))
        (gradient,) = torch.autograd.grad(value.sum(), X)
        return value.detach(), gradient


@contextmanager
def _isolated(seed: int) -> Iterator[None]:
    """A process-wide generator of botorch's own, and none of its warnings about numerics."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
        warnings.simplefilter("ignore", BotorchWarning)
        warnings.simplefilter("ignore", NumericalWarning)
        warnings.filterwarnings("ignore", "Failed to compile fused qLogEHVI")  # it is only slower
        torch.manual_seed(seed)
        yield


def _fit(cube: Cube, X: Tensor, Y: Tensor) -> list[GP]:  # (n, d), (n, m)
    """The process of each objective; of a single one under the warp that explains its values best."""
    if Y.shape[1] > 1:
        return [fit_gp(cube, X, z)[0] for z in front_values(Y).mT]
    warped = [warp_values(Y[:, 0], strength) for strength in STRENGTHS]
    fits = [(*fit_gp(cube, X, z), log_jacobian) for z, log_jacobian in warped]
    return [min(fits, key=lambda fit: fit[1].values[0] - fit[2])[0]]


def _fit_kernel(kernel: Kernel, gps: Sequence[GP], X: Tensor) -> Model:
    """The model with the user's kernel for each objective, fitted by botorch to the processes' values."""
    models = [
        SingleTaskGP(X, gp.y.unsqueeze(-1), covar_module=copy.deepcopy(kernel), outcome_transform=None)
        for gp in gps
    ]
    if len(models) == 1:
        fit_gpytorch_mll(ExactMarginalLogLikelihood(models[0].likelihood, models[0]))
        return models[0]
    model = ModelListGP(*models)
    fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
    return model


def _mean(model: Model, X: Tensor) -> Tensor:  # (n, d) -> (n, m)
    return model.posterior(X).mean  # type: ignore[attr-defined]  # all of them have one


def _noisy_improvement(
    model: Model,
    X: Tensor,  # (n, d)
    Z: Tensor,  # (n, m + c)
    thresholds: Tensor,  # (c,)
    pending: Tensor | None,  # (p, d)
    seed: int,
) -> AcquisitionFunction:
    m = Z.shape[-1] - len(thresholds)
    excess: list[Callable[[Tensor], Tensor]] | None = [
        partial(_excess, column=m + k, threshold=t) for k, t in enumerate(thresholds)
    ] or None
    sampler = SobolQMCNormalSampler(torch.Size([_SAMPLES]), seed=seed % 2**31)
    if m == 1:
        return qLogNoisyExpectedImprovement(
            model,
            X,
            sampler=sampler,
            objective=GenericMCObjective(_first),
            constraints=excess,
            X_pending=pending,
        )
    return qLogNoisyExpectedHypervolumeImprovement(
        model,
        reference_point(feasible_values(Z, thresholds)),
        X,
        sampler=sampler,
        objective=IdentityMCMultiOutputObjective(outcomes=list(range(m))),
        constraints=excess,
        X_pending=pending,
        prune_baseline=True,
    )


def _first(Y: Tensor, X: Tensor | None = None) -> Tensor:  # (..., m + c) -> (...)
    return Y[..., 0]


def _excess(Y: Tensor, *, column: int, threshold: Tensor) -> Tensor:  # (..., m + c) -> (...)
    """What botorch wants of a constraint: feasible where <= 0."""
    return threshold - Y[..., column]
