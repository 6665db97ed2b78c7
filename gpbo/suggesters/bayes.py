"""The Gaussian-process suggester: warp, fit, account for what is pending, maximise the acquisition."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from gpbo.acquisition import (
    CPU_EFFORT,
    GPU_EFFORT,
    PENDING,
    Analytic,
    Effort,
    Fantasies,
    Pending,
    Turns,
    base_samples,
    constant_lie,
    ei,
    greedy_batch,
    log_ei,
    log_pi,
    maximize,
    over_fantasies,
    q_log_ei,
    q_ucb,
    thompson_batch,
    ucb,
    ucb_pe_batch,
    with_pending,
)
from gpbo.acquisition.lbfgs import maximize_rows
from gpbo.cube import Cube, is_new
from gpbo.data import Dataset
from gpbo.errors import NumericsError, SettingError, did_you_mean
from gpbo.gp import GP, STRENGTHS, Hypers, fit_gp, warp_values
from gpbo.gp.fidelity import on_one_scale, places, target_budget
from gpbo.gp.large import (
    BUDGETS_ON_CPU,
    BUDGETS_ON_CUDA,
    EXACT_ON_CPU,
    EXACT_ON_CUDA,
    choose_rows,
    choose_rows_of_budgets,
)
from gpbo.kernels import NUS, with_budget_column
from gpbo.numerics import few_threads
from gpbo.seeding import derive, generator
from gpbo.suggesters.base import Suggestion, few_budgets, new_draws
from gpbo.suggesters.quasirandom import sobol_points

AcquisitionName = Literal["log_ei", "ei", "log_pi", "ucb"]
BatchName = Literal["auto", "greedy", "joint", "thompson", "ucb_pe"]

_INCUMBENTS = 5
_GREEDY = 128  # points; beyond, a greedy batch takes seconds and Thompson samples do as well
_JOINT_SAMPLES = 128
_JOINT_STARTS = 8
_NOISY = 1e-2  # noise variance, of standardised values, above which best_f is a posterior mean
_NOTHING_EXPECTED = math.log(0.01)  # log EI of standardised values: the known basin is searched
_DOUBTED_UNTIL = 256  # values; up to here the next trial is then chosen in doubt of the lengthscales
_EXPLORE_BETA = 9.0  # of the UCB that chooses it beyond, and in a batch: three standard deviations
_WAITING = 64  # points
_INITIAL = 5  # trials; the process of a few points is a better guide than more that know nothing
_COUNTED = 1000  # observations; beyond, the initial design is over whatever is distinct
_RESTART_UNTIL = 64  # observations; up to here a warm fit is checked against a cold one

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class GPSuggester:
    """Proposes where a Gaussian process expects most.

    With "log_ei", once a trial was asked for with less than a hundredth of the values' standard deviation to
    be gained (``info["log_ei"]``), the next one explores (``info["explore"]``): it doubts the lengthscales
    that say so and is chosen with them halfway back to their prior; with more than 256 observations, and in a
    batch, by an upper confidence bound instead.

    Args:
        acquisition: "log_ei", "ei", "log_pi" or "ucb".
        beta: The weight of the variance in "ucb".
        nu: The Matern smoothness, 1/2, 3/2 or 5/2.
        n_initial: How many quasi-random trials come first, the centre of the space among them; by default 5.
        pending: What to believe about running trials: "variance" (they will be known, not what), "believer"
            (the posterior mean), "liar_min", "liar_mean" or "liar_max" (the worst, mean, best value), or
            "fantasies" (the acquisition's average over joint draws of their values).
        batch: How the points of one ``study.ask(n)`` are chosen: "greedy" (one after another, each accounting
            for those before), "joint" (optimised together; log_ei and ucb), "thompson" (each the best point
            of another draw from the posterior), "ucb_pe" (the first by an upper confidence bound, the rest
            where the process knows least), or "auto": greedy up to 128 points, thompson beyond. A single
            point is one of the acquisition, unless "thompson" makes it one of a draw.

    Raises:
        SettingError: if an argument breaks its rule.
    """

    acquisition: AcquisitionName = "log_ei"
    beta: float = 2.0
    nu: float = 2.5
    n_initial: int | None = None
    pending: Pending = "variance"
    batch: BatchName = "auto"

    def __post_init__(self) -> None:
        names = get_args(AcquisitionName)
        if self.acquisition not in names:
            hint = did_you_mean(str(self.acquisition), names)
            raise SettingError(f"`acquisition` must be one of {list(names)}, got {self.acquisition!r}.{hint}")
        if self.pending not in PENDING:
            hint = did_you_mean(str(self.pending), PENDING)
            raise SettingError(f"`pending` must be one of {list(PENDING)}, got {self.pending!r}.{hint}")
        if self.nu not in NUS:
            raise SettingError(f"`nu` must be one of {list(NUS)}, got {self.nu!r}.")
        number = isinstance(self.beta, int | float) and not isinstance(self.beta, bool)
        if not number or not 0 <= self.beta < math.inf:
            raise SettingError(f"`beta` must be a finite number >= 0, got {self.beta!r}.")
        whole = isinstance(self.n_initial, int) and not isinstance(self.n_initial, bool)
        if self.n_initial is not None and (not whole or self.n_initial < 1):
            raise SettingError(f"`n_initial` must be a whole number >= 1, got {self.n_initial!r}.")
        ways = get_args(BatchName)
        if self.batch not in ways:
            hint = did_you_mean(str(self.batch), ways)
            raise SettingError(f"`batch` must be one of {list(ways)}, got {self.batch!r}.{hint}")
        if self.batch == "joint" and self.acquisition not in ("log_ei", "ucb"):
            raise SettingError(
                f"a joint batch needs acquisition 'log_ei' or 'ucb', got {self.acquisition!r}."
            )

    def suggest(self, data: Dataset, cube: Cube, n: int, seed: int) -> Suggestion:
        """`n` points to evaluate next; quasi-random ones until enough is known for a model."""
        countable = cube.d > 0 and 0 < len(data.seen) <= _COUNTED
        asked = len(data.seen.unique(dim=0) if countable else data.seen)
        known = data.Y.isfinite().all(-1)
        enough = _INITIAL if self.n_initial is None else self.n_initial
        if asked < enough or int(known.sum()) < 2 or cube.d == 0:
            return Suggestion(_initial_points(data, cube, n, seed), {"source": "initial"})
        with few_threads(len(data.X)):
            try:
                return self._model_based(data, cube, n, seed)
            except NumericsError as error:
                logger.warning("trial %d is a random one: %s", data.number, error)
                draws = generator(seed, data.number, "fallback")
                found = new_draws(cube, data.seen, n, draws)
                return Suggestion(found, {"source": "random", "fallback": str(error)})

    def _model_based(self, data: Dataset, cube: Cube, n: int, seed: int) -> Suggestion:
        data = few_budgets(data)
        values = _scalarise(data.Y, derive(seed, data.number, "weights"))
        budget, pending = _budgets(data), data.pending
        if budget is None:
            X, gp, info = self._model(data, cube, values)
            y, best_f = gp.y, _best_f(gp, X, gp.y)
        else:
            X, gp, info = self._model_of_budgets(data, cube, values, budget)
            y = gp.marginal(X)[0]
            best_f = float(y.max())
            pending = torch.cat([_waiting(X, y, data.X[budget >= info["budget"]]), pending])
        top = X[y.topk(min(_INCUMBENTS, len(y))).indices]
        gp = with_pending(gp, pending, self.pending)
        best_f = self._expected_best(gp, best_f, pending)
        batch = self.batch if self.batch != "auto" else "greedy" if n <= _GREEDY else "thompson"
        if batch == "thompson" or (batch == "ucb_pe" and n > 1):
            choose = thompson_batch if batch == "thompson" else ucb_pe_batch
            stream = derive(seed, data.number, batch)
            found = choose(gp, cube, n, incumbents=top, seen=data.seen, seed=stream)
        elif batch == "joint" and n > 1:
            found = self._jointly(gp, best_f, cube, data, top, n, seed)
        else:
            whole = cube.fixed is None  # what is to be gained in a part says little about the whole
            explore = n == 1 and whole and self._is_exhausted(data.info.get("log_ei"))
            found, notes = self._one_by_one(gp, best_f, cube, data, top, n, seed, explore=explore)
            info |= notes
        if len(found) < n:
            draws = generator(seed, data.number, "rest")
            rest = new_draws(cube, torch.cat([data.seen, found]), n - len(found), draws)
            found = torch.cat([found, rest.to(found.device)])
        return Suggestion(found, info)

    def _model(self, data: Dataset, cube: Cube, values: Tensor) -> tuple[Tensor, GP, dict[str, Any]]:
        """The rows that are modelled, the process, and what to note of it."""
        kept = choose_rows(values, EXACT_ON_CUDA if values.is_cuda else EXACT_ON_CPU)
        X = data.X[kept]
        gp, info = self._fit(data, cube, X, values[kept])
        return X, gp, info | _subset(kept, values)

    def _model_of_budgets(
        self, data: Dataset, cube: Cube, values: Tensor, budget: Tensor
    ) -> tuple[Tensor, GP, dict[str, Any]]:
        """The same of the process over configs and budgets, at the budget that is searched at."""
        limit = BUDGETS_ON_CUDA if values.is_cuda else BUDGETS_ON_CPU
        kept = choose_rows_of_budgets(values, budget, limit)
        X, values, budget = data.X[kept], values[kept], budget[kept]
        configs = X.unique(dim=0, return_inverse=True)[1]
        place, at = places(budget), target_budget(values, budget)
        points = torch.cat([X, place.unsqueeze(-1)], dim=-1)
        gp, info = self._fit(data, with_budget_column(cube), points, on_one_scale(values, budget, configs))
        gp = gp.at_budget(cube, float(place[budget == at][0]))
        return X, gp, info | {"budget": at} | _subset(kept, data.X)

    def _fit(self, data: Dataset, cube: Cube, X: Tensor, y: Tensor) -> tuple[GP, dict[str, Any]]:
        """The process whose warp and hyper-parameters explain the values best, and what to note of it."""
        warm = _warm_start(data, cube.d)
        before, near = data.info.get("warp", 0), 1 if _at_milestone(len(X)) else 0
        tried = [k for k in range(len(STRENGTHS)) if warm is None or abs(k - before) <= near]
        variants = [warp_values(y, STRENGTHS[k]) for k in tried]
        gp, found = fit_gp(
            cube,
            X,
            torch.stack([variant.z for variant in variants]),
            nu=self.nu,
            warm=warm,
            restart=len(X) <= _RESTART_UNTIL,
            offset=-torch.tensor(
                [variant.log_jacobian for variant in variants], dtype=X.dtype, device=X.device
            ),
        )
        info: dict[str, Any] = {
            "source": "gp",
            "warp": tried[found.variants[0]],
            "hypers": gp.hypers.to_dict(),
            "factorizations": found.factorizations,
        }
        if found.skipped:
            info["refit"] = "skipped"
        return gp, info

    def _one_by_one(
        self,
        gp: GP,
        best_f: float,
        cube: Cube,
        data: Dataset,
        top: Tensor,
        n: int,
        seed: int,
        *,
        explore: bool,
    ) -> tuple[Tensor, dict[str, Any]]:  # (<= n, d)
        """Points chosen in turn, each accounting for those before; and what to note of them."""
        seen, number, scale = data.seen, data.number, gp.lengthscale
        effort = GPU_EFFORT if seen.is_cuda else Effort() if cube.discrete else CPU_EFFORT
        if n > 1 and self.pending != "fantasies":
            turns = Turns(
                lambda best: self._acquisition(gp, best, seed).rule,
                lie=constant_lie(gp, self.pending),
                other=ucb(gp, _EXPLORE_BETA).rule if self.acquisition == "log_ei" else None,
                goes_by_other=lambda k, value: (number + k) % 2 == 0 and value < _NOTHING_EXPECTED,
            )
            stream = derive(seed, number, "greedy")
            batch = partial(greedy_batch, gp, cube, n, turns, best_f=best_f, incumbents=top, seen=seen)
            found, explored = batch(seed=stream, effort=effort)
            return found, {"explore": explored} if explored else {}
        look = partial(maximize, cube=cube, incumbents=top, scale=scale, effort=effort)
        found, notes = seen.new_empty(0, cube.d), dict[str, Any]({"explore": 1} if explore else {})
        for k in range(n):
            acquisition = self._acquisition(gp, best_f, derive(seed, number, "fantasies"))
            taken, stream = torch.cat([seen, found]), derive(seed, number, "acquisition", k)
            best = torch.cat([top, data.pending])
            chosen_by = _in_doubt(gp, best_f, best) if explore else acquisition
            x = look(chosen_by, seen=taken, seed=stream)
            if x is None:
                break
            found = torch.cat([found, x.unsqueeze(0)])
            if self.acquisition == "log_ei" and not explore and cube.fixed is None:
                notes["log_ei"] = float(acquisition.values(x.unsqueeze(0)))
            if k + 1 < n:
                gp = with_pending(gp, x.unsqueeze(0), self.pending)
                best_f = self._expected_best(gp, best_f, x.unsqueeze(0))
        return found, notes

    def _is_exhausted(self, log_ei: float | None) -> bool:
        """Whether the last trial was asked for with so little expected that the next one should explore."""
        return self.acquisition == "log_ei" and log_ei is not None and log_ei < _NOTHING_EXPECTED

    def _jointly(
        self, gp: GP, best_f: float, cube: Cube, data: Dataset, top: Tensor, n: int, seed: int
    ) -> Tensor:  # (<= n, d)
        """The greedy batch and random ones, climbed together; the best whose points are all allowed."""
        seen, number = data.seen, data.number
        greedy, _ = self._one_by_one(gp, best_f, cube, data, top, n, seed, explore=False)
        if len(greedy) < n:
            return greedy
        samples = base_samples(n, _JOINT_SAMPLES, derive(seed, number, "joint"), seen.device)
        joint = q_ucb(gp, self.beta, samples) if self.acquisition == "ucb" else q_log_ei(gp, best_f, samples)
        draws = generator(seed, number, "joint")
        others = cube.draw((_JOINT_STARTS - 1) * n, draws).to(seen.device).reshape(-1, n, cube.d)
        starts = torch.cat([greedy.unsqueeze(0), others])
        scale = gp.lengthscale.repeat(n)
        held = [k * cube.d + j for k in range(n) for j in cube.held]
        tops = maximize_rows(joint.value_and_gradient, starts.flatten(1), scale=scale, held=held).x
        batches = torch.cat([cube.snap(tops.reshape(-1, n, cube.d)), greedy.unsqueeze(0)])
        for row in joint(batches).argsort(descending=True).tolist():
            if bool((is_new(batches[row], seen) & cube.feasible(batches[row])).all()):
                return batches[row]
        return greedy

    def _acquisition(self, gp: GP, best_f: float, seed: int) -> Analytic | Fantasies:
        makers: dict[str, Callable[[GP, Any], Analytic]] = {
            "log_ei": log_ei,
            "ei": ei,
            "log_pi": log_pi,
            "ucb": lambda gp, _: ucb(gp, self.beta),
        }
        make = makers[self.acquisition]
        if self.pending == "fantasies" and bool(gp.y.isnan().any()):
            in_logs = self.acquisition.startswith("log")
            return over_fantasies(make, gp, best_f, seed=seed, in_logs=in_logs)
        return make(gp, best_f)

    def _expected_best(self, gp: GP, best_f: float, pending: Tensor) -> float:
        """The value to improve on once the pending points are known as well.

        Where a pending point is expected to beat all that was observed, the improvement it brings anyway must
        not count again, or the next point is the same one. Each fantasy sees to this itself.
        """
        if len(pending) == 0 or self.pending == "fantasies":
            return best_f
        return max(best_f, float(gp.marginal(pending)[0].max()))


def _initial_points(data: Dataset, cube: Cube, n: int, seed: int) -> Tensor:  # (<= n, d)
    """The centre first, then Sobol points."""
    if len(data.seen) == 0:
        centre = cube.snap(torch.full((1, cube.d), 0.5, dtype=torch.float64))
        if bool(cube.feasible(centre).all()):
            rest = sobol_points(data, cube, n, seed) if n > 1 else centre[:0]
            return torch.cat([centre, rest[is_new(rest, centre)][: n - 1]])
    return sobol_points(data, cube, n, seed)


def _budgets(data: Dataset) -> Tensor | None:  # (n,)
    """The budget of each row, the highest where it is unknown; None unless there are values at several."""
    known = data.budget[data.budget.isfinite() & data.Y.isfinite().all(-1)].unique()
    return data.budget.nan_to_num(nan=float(known.max())) if len(known) > 1 else None


def _subset(kept: Tensor, rows: Tensor) -> dict[str, Any]:
    return {"subset": len(kept)} if len(kept) < len(rows) else {}


def _waiting(X: Tensor, y: Tensor, there: Tensor) -> Tensor:  # (n, d), (n,), (m, d) -> (<= _WAITING, d)
    """The most promising points that were proposed but are not known at the budget that is searched at.

    They have had their chance: a trial that pauses or was stopped would otherwise be proposed again and
    again, a hair's breadth beside, because what a low budget told leaves its value at a high one open.
    """
    X = X[y.argsort(descending=True)]
    X = X[is_new(X, there)]
    return X[:_WAITING]


def _scalarise(Y: Tensor, seed: int) -> Tensor:  # (n, m) -> (n,)
    """One objective as it is; of several, a random augmented Chebyshev mix (ParEGO, Knowles 2006)."""
    m = Y.shape[1]
    if m == 1:
        return Y[:, 0]
    Z = torch.stack([warp_values(column).z for column in Y.mT], dim=-1)
    weights = torch.rand(m, dtype=Y.dtype, generator=torch.Generator().manual_seed(seed))
    weights = (weights / weights.sum()).to(Y.device)
    gap = (Z - Z.amax(0)) * weights
    return torch.where(Y.isfinite().all(-1), gap.amin(-1) + 0.05 * gap.sum(-1), math.nan)


def _in_doubt(gp: GP, best_f: float, best: Tensor) -> Analytic:  # (b, d)
    """What to maximise where the process expects nothing better than `best_f`, seen at the `best` points.

    Lengthscales that are too long say that a column is of no use, and too short ones that only the levels of
    the best points are; either way nothing is expected elsewhere, and no trial there would tell otherwise.
    """
    if int(gp.y.isfinite().sum()) > _DOUBTED_UNTIL:
        return ucb(gp, _EXPLORE_BETA)
    doubting = gp.with_hypers(gp.hypers.halfway_to_prior())
    return log_ei(doubting, max(best_f, float(doubting.marginal(best)[0].max())))


def _at_milestone(n: int) -> bool:
    """Whether, with `n` observations, the warps next to the last one are tried again: at every 5 % more."""
    return n <= 20 or math.floor(math.log(n) / 0.05) > math.floor(math.log(n - 1) / 0.05)


def _warm_start(data: Dataset, d: int) -> Hypers | None:
    plain = data.info.get("hypers")
    if plain is None or len(plain["lengthscale"]) != d:
        return None
    return Hypers.from_dict(plain, data.X.device)


def _best_f(gp: GP, X: Tensor, y: Tensor) -> float:
    """The value to improve on: the best observed one, or the best posterior mean under noise."""
    if float(gp.hypers.noise_var) < _NOISY:
        return float(y.max())
    return float(gp.marginal(X)[0].max())
