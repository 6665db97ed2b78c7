"""What a study's trials say about one objective over the whole space, in the user's own units.

The process is fitted as the suggester fits it: to values turned to be maximised and warped, z = w(y) with w
increasing. Whatever is asked of it here is answered in the user's values. A quantile of the value is the
value of z's quantile, so medians and intervals are exact; means and variances are taken over drawn
functions, each of which is unwarped first, because those of z are not those of the value.

Functions are drawn from several processes, so that the spread over them knows of the warp and the
hyper-parameters too: from normal distributions at the optima that the fit found, weighted by their evidence
(Laplace's method: MacKay 2003, chapter 27).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gpbo.acquisition import Paths, draw_paths
from gpbo.checks import as_finite, as_whole
from gpbo.errors import NoResultError, NumericsError, SettingError
from gpbo.gp import GP, STRENGTHS, Fit, fit_gp, make_gp, unwarp_values, warp_values
from gpbo.gp.hypers import from_theta
from gpbo.gp.large import EXACT_ON_CPU, choose_rows
from gpbo.gp.likelihood import derivatives, evaluate, make_problem
from gpbo.numerics import few_threads
from gpbo.seeding import derive, generator
from gpbo.space import SearchSpace
from gpbo.trial import State, Trial

if TYPE_CHECKING:
    from gpbo.study import Study

LEVELS = (0.05, 0.5, 0.95)  # of the quantiles that figures show: the median and the middle 90 %
_BEYOND = 2.0  # how far from the best a warped value may lie, in units of how far the worst observed one does
_PROCESSES = 16
_FEW_PROCESSES = 4  # where there are many trials, which leave little doubt about hyper-parameters
_MANY = 200  # trials
_FREQUENCIES = 128  # of each process's paths, whose prior the observations all but replace
_WIDER = 1.5  # than Laplace's method has it, which is too narrow: benchmarks/importance.py
_MIN_CURVATURE = 1.0 / 3.0  # that of the widest prior


@dataclass(frozen=True, eq=False)
class Surrogate:
    """A posterior over the values of one objective.

    Attributes:
        space: Where the configs come from.
        trials: Those with a value, in the order of their numbers; of very many a part.
        y: (n,) their values, to be maximised.
        maximize: Whether larger values are better.
        objective: Which objective the values are of, from 0.
        budget: At which they were observed, or None without budgets.
        n_failed: How many trials of the study have no value because they failed.
        gp: The likeliest process, of warped and standardised values.
        found: How its fit went, and other optima.
        warps: The strength of the warp of each variant that was fitted, 0 for none.
    """

    space: SearchSpace
    trials: tuple[Trial, ...]
    y: Tensor
    maximize: bool
    objective: int
    budget: float | None
    n_failed: int
    gp: GP
    found: Fit
    warps: tuple[float, ...]

    @cached_property
    def X(self) -> Tensor:  # (n, d)
        """The trials' points of the unit cube."""
        return self.space.encode([trial.config for trial in self.trials])

    @property
    def values(self) -> Tensor:  # (n,)
        """The trials' values in the user's sign."""
        return self.y if self.maximize else -self.y

    @property
    def strength(self) -> float:
        """What the values were warped with, 0 for not at all."""
        return self.warps[self.found.variants[0]]

    def quantiles(self, X: Tensor, levels: Sequence[float]) -> Tensor:  # (b, d) -> (levels, b)
        """Quantiles of the value, noise left out, at points of the unit cube."""
        with torch.no_grad(), few_threads(self.gp.n):
            mean, var = self.gp.marginal(self.space.cube.snap(X))
        at = mean.new_tensor([level if self.maximize else 1.0 - level for level in levels])
        return self._unwarped(mean + var.sqrt() * torch.special.ndtri(at).unsqueeze(-1), self.strength)

    def draws(self, q: int, seed: int) -> Draws:
        """`q` functions that the value may be, given the trials.

        Args:
            q: How many, a multiple of 16.
            seed: Addresses the random draws.
        """
        k = _PROCESSES if self.gp.n < _MANY else _FEW_PROCESSES
        with few_threads(self.gp.n):
            parts = [
                (draw_paths(gp, q // k, derive(seed, i), n_frequencies=_FREQUENCIES), strength)
                for i, (gp, strength) in enumerate(self._processes(k, derive(seed, "processes")))
            ]
        return Draws(self, parts)

    def _processes(self, k: int, seed: int) -> list[tuple[GP, float]]:
        """`k` processes that the trials may come from, and the strengths of their warps."""
        cube, nu = self.space.cube, self.gp.nu
        phi, groups = self.gp.embedding(self.X), self.gp.embedding.groups
        optima, evidence = [], []
        for hypers, value, variant in zip(
            self.found.hypers, self.found.values, self.found.variants, strict=True
        ):
            z = warp_values(self.y, self.warps[variant]).z
            problem = make_problem(phi, groups, z, cube.d, nu)
            curvature = derivatives(problem, evaluate(problem, hypers.theta.unsqueeze(0)))[1][0]
            lam, Q = torch.linalg.eigh(curvature)
            lam = lam.clamp(min=_MIN_CURVATURE)
            optima.append((z, self.warps[variant], hypers.theta, _WIDER * Q / lam.sqrt()))
            evidence.append(-value - 0.5 * float(lam.log().sum()))
        share = torch.tensor(evidence, dtype=torch.float64).softmax(0).cumsum(0)
        draws = generator(seed, "hypers")
        processes = []
        for i in range(k):  # every optimum gets its share of them
            z, strength, theta, spread = optima[int((share < (i + 0.5) / k).sum())]
            normal = torch.randn(len(theta), dtype=torch.float64, generator=draws)
            try:
                gp = make_gp(cube, self.X, z, from_theta(theta + spread @ normal), nu=nu)
            except NumericsError:
                gp = make_gp(cube, self.X, z, from_theta(theta), nu=nu)
            processes.append((gp, strength))
        return processes

    def _unwarped(self, z: Tensor, strength: float) -> Tensor:
        y = unwarp_values(z, self.y, strength)
        if strength > 0.0:  # the tail of an exponentiated normal variable has no bound
            best, worst = float(self.y.max()), float(self.y.min())
            y = y.clamp(min=best - _BEYOND * (best - worst))
        return y if self.maximize else -y


@dataclass(frozen=True, eq=False)
class Draws:
    """Functions drawn from a surrogate, as paths of warped values with the strengths of their warps."""

    surrogate: Surrogate
    parts: Sequence[tuple[Paths, float]]

    def __call__(self, X: Tensor) -> Tensor:  # (b, d) -> (q, b)
        """The value of every function at snapped points."""
        with few_threads(self.surrogate.gp.n):
            return torch.cat(
                [self.surrogate._unwarped(paths.values(X), strength) for paths, strength in self.parts]
            )

    def observed(self, X: Tensor, draws: torch.Generator) -> Tensor:  # (b, d) -> (q, b)
        """What would be measured of every function at snapped points, noise and all."""
        parts = []
        with few_threads(self.surrogate.gp.n):
            for paths, strength in self.parts:
                z = paths.values(X)
                noise = torch.randn(z.shape, dtype=z.dtype, generator=draws)
                parts.append(self.surrogate._unwarped(z + paths.gp.hypers.noise_var.sqrt() * noise, strength))
        return torch.cat(parts)


def fit_surrogate(
    study: Study,
    objective: int = 0,
    *,
    budget: float | None = None,
    fewest: int = 2,
    warps: Sequence[float] = STRENGTHS,
) -> Surrogate:
    """The surrogate of one objective of a study.

    Args:
        study: The study.
        objective: Which one, from 0.
        budget: The budget whose values are looked at; by default the full one.
        fewest: How many trials must have a value, at least 2.
        warps: The strengths of the warps that are tried.

    Raises:
        SettingError: if there is no such objective, or nothing was observed at the budget.
        NoResultError: if too few trials have a value, all values are the same, or no parameter varies.
    """
    objective = check_objective(study, objective)
    if not study.space.columns:
        raise NoResultError(f"every parameter of study {study.name!r} is a constant.")
    trials, budget = trials_at(study, budget)
    maximize = study.directions[objective] == "maximize"
    seen = [value_at(trial, budget, objective) for trial in trials]
    where = "" if budget is None else f" at budget {budget:g}"
    if len(seen) < fewest:
        raise NoResultError(
            f"this needs {fewest} trials with a value{where}; study {study.name!r} has {len(seen)}."
            f"{_other_budgets(study, budget)}"
        )
    if min(seen) == max(seen):
        raise NoResultError(
            f"all {len(seen)} values of study {study.name!r}{where} are {seen[0]:g}; a model needs another."
        )
    y = torch.tensor(seen, dtype=torch.float64) * (1.0 if maximize else -1.0)
    kept = choose_rows(y, EXACT_ON_CPU)
    chosen, y = tuple(trials[i] for i in kept.tolist()), y[kept]
    n_failed = sum(trial.state is State.FAILED for trial in study.trials)
    gp, found = _fitted(study.space, chosen, y, warps)
    return Surrogate(study.space, chosen, y, maximize, objective, budget, n_failed, gp, found, tuple(warps))


def check_objective(study: Study, objective: int) -> int:
    """The number of an objective.

    Raises:
        SettingError: if the study has none of this number.
    """
    m = len(study.directions)
    if as_whole(objective) is None or not 0 <= objective < m:
        rule = f"a whole number from 0 to {m - 1}" if m > 1 else "0, because the study has one objective"
        raise SettingError(f"`objective` must be {rule}, got {objective!r}.")
    return int(objective)


def trials_at(study: Study, budget: float | None = None) -> tuple[list[Trial], float | None]:
    """The trials with a value at a budget, by default the full one; and which one that is.

    Raises:
        SettingError: if nothing was observed at the budget that was given.
    """
    seen = observed_budgets(study)
    if budget is not None and as_finite(budget) not in seen:
        known = ", ".join(f"{one:g}" for one in seen) if seen else "of which this study has none"
        raise SettingError(f"`budget` must be one that values were observed at, {known}; got {budget!r}.")
    rungs = study._scheduler.rungs
    full = rungs[-1] if rungs else max(seen, default=None)
    chosen = full if budget is None else float(budget)
    return [t for t in study.trials if any(o.budget in (None, chosen) for o in t.observations)], chosen


def value_at(trial: Trial, budget: float | None, objective: int) -> float:
    """The latest value that was observed at a budget."""
    return next(o.values[objective] for o in reversed(trial.observations) if o.budget in (None, budget))


def observed_budgets(study: Study) -> list[float]:
    """The budgets that values were observed at, rising."""
    return sorted({o.budget for t in study.trials for o in t.observations if o.budget is not None})


def _fitted(space: SearchSpace, trials: Sequence[Trial], y: Tensor, warps: Sequence[float]) -> tuple[GP, Fit]:
    """The process and the warp that explain the values best together."""
    X = space.encode([trial.config for trial in trials])
    variants = [warp_values(y, strength) for strength in warps]
    offset = -torch.tensor([variant.log_jacobian for variant in variants], dtype=y.dtype)
    with few_threads(len(y)):
        return fit_gp(space.cube, X, torch.stack([variant.z for variant in variants]), offset=offset)


def _other_budgets(study: Study, budget: float | None) -> str:
    others = [f"{one:g}" for one in observed_budgets(study) if one != budget]
    return f" There are values at {', '.join(others)}, one of which `budget` may name." if others else ""
