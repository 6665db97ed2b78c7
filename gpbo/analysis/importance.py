"""How much of a value's variation over the search space is due to each parameter, and how surely.

With the config drawn as random search draws it, f the value, X_i parameter i and X_-i all others,

    first order   S_i = Var E[f | X_i] / Var f        what i explains alone (Sobol' 1993)
    total         T_i = E Var(f | X_-i) / Var f       and together with others (Homma and Saltelli 1996)

f is not known but believed, so both are computed for many functions drawn from the posterior, and reported
as their mean with the middle 90 % (Le Gratiet, Cannamela and Iooss 2014, SIAM/ASA J. UQ 2). Each is the
correlation of the values at pairs of configs (Janon et al. 2014, ESAIM P&S 18): of pairs that share X_i
alone; and, taken from one, of those that share all but X_i.

f is the value itself: a warp does not keep shares of variance. Nor is a warped value modelled here, as the
suggester does: such a model is good near the best values, and these figures hang on all of them
(``benchmarks/importance.py --warped``).

A conditional parameter counts where it exists, and changes nothing elsewhere. Under constraints both figures
keep these definitions, but the shares of parameters that the constraints tie together overlap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gpbo.analysis.surrogate import Surrogate, fit_surrogate
from gpbo.cube import Cube
from gpbo.diagnostics import Estimate
from gpbo.errors import NoResultError, SettingError, did_you_mean
from gpbo.markup import paragraph, table
from gpbo.seeding import derive, generator

if TYPE_CHECKING:
    from gpbo.study import Study

_FEWEST = 5  # trials with a value
_FUNCTIONS = 64
_PAIRS = 1024
_TRIED = 16  # random configs for each that must meet the constraints, and redraws of each partner
_FEWEST_PAIRS = 64
_TAIL = 0.05


@dataclass(frozen=True, slots=True)
class Effect:
    """The shares of one objective's variance that are due to one parameter, with 90 % intervals.

    Attributes:
        parameter: Its name.
        objective: Which objective, from 0.
        first: What the parameter explains alone.
        total: What it explains alone and together with others.
    """

    parameter: str
    objective: int
    first: Estimate
    total: Estimate


@dataclass(frozen=True, slots=True)
class Importance:
    """What `Study.importance` found.

    Attributes:
        effects: One for each objective and parameter, the largest total first within an objective.
        columns: What the objectives are called: "value", or "value_0" and so on.
        n: How many trials the figures are of.
        n_failed: How many failed trials, which have no value, are left out.
        budget: At which the values were observed, or None without budgets.
    """

    effects: tuple[Effect, ...]
    columns: tuple[str, ...]
    n: int
    n_failed: int
    budget: float | None

    def of(self, parameter: str, objective: int | None = None) -> Effect:
        """The effect of one parameter; of several objectives, on one of them.

        Raises:
            SettingError: if there is no such effect, or it is on several objectives and none is named.
        """
        named = [effect for effect in self.effects if effect.parameter == parameter]
        found = [effect for effect in named if objective in (None, effect.objective)]
        if not named:
            known = dict.fromkeys(effect.parameter for effect in self.effects)
            hint = did_you_mean(str(parameter), known)
            raise SettingError(f"`parameter` must be one of {list(known)}, got {parameter!r}.{hint}")
        if len(found) != 1:
            numbers = [effect.objective for effect in named]
            raise SettingError(f"`objective` must be one of {numbers}, got {objective!r}.")
        return found[0]

    def to_dict(self) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
        """By objective and parameter, ``{"first": {"value", "low", "high"}, "total": ...}``."""
        plain: dict[str, Any] = {}
        for effect in self.effects:
            shares = {"first": asdict(effect.first), "total": asdict(effect.total)}
            plain.setdefault(self._column(effect), {})[effect.parameter] = shares
        return plain

    def __str__(self) -> str:
        rows = [("parameter", "alone", "in total")]
        rows += [(e.parameter, str(e.first), str(e.total)) for e in self.effects]
        width = [max(len(row[j]) for row in rows) for j in range(3)]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, width, strict=True)).rstrip() for row in rows
        ]
        if len(self.columns) == 1:
            return "\n".join([self._caption(), *lines])
        parts = [self._caption()]
        for column in self.columns:
            mine = [
                line for line, e in zip(lines[1:], self.effects, strict=True) if self._column(e) == column
            ]
            parts += [f"{column}:", lines[0], *mine]
        return "\n".join(parts)

    def _repr_html_(self) -> str:
        several = len(self.columns) > 1
        columns = [*(["objective"] if several else []), "parameter", "alone", "in total"]
        rows = [
            (*([self._column(e)] if several else []), e.parameter, str(e.first), str(e.total))
            for e in self.effects
        ]
        return paragraph(self._caption()) + table(columns, rows)

    def _column(self, effect: Effect) -> str:
        single = len(self.columns) == 1
        return (
            self.columns[0] if single else next(c for c in self.columns if c == f"value_{effect.objective}")
        )

    def _caption(self) -> str:
        where = "" if self.budget is None else f" at budget {self.budget:g}"
        failed = f"; {self.n_failed} failed, and have none" if self.n_failed else ""
        return (
            f"Shares of the variance of the value{where} over the search space, with 90 % intervals, "
            f"from {self.n} trials{failed}."
        )


def importance(study: Study, objective: int | None = None, *, budget: float | None = None) -> Importance:
    """How much each parameter matters, by the posterior; see `Study.importance`."""
    m = len(study.directions)
    chosen = range(m) if objective is None else [objective]
    surrogates = [fit_surrogate(study, k, budget=budget, fewest=_FEWEST, warps=[0.0]) for k in chosen]
    effects = [effect for one in surrogates for effect in _effects(one, study.seed)]
    first = surrogates[0]
    return Importance(
        tuple(effects),
        ("value",) if m == 1 else tuple(f"value_{one.objective}" for one in surrogates),
        len(first.trials),
        first.n_failed,
        first.budget,
    )


def _effects(surrogate: Surrogate, seed: int) -> list[Effect]:
    seed = derive(seed, "importance", surrogate.objective)
    draws = surrogate.draws(_FUNCTIONS, derive(seed, "functions"))
    first, total = sobol_indices(draws, surrogate.space.cube, seed)
    effects = [
        Effect(name, surrogate.objective, _estimate(first[j]), _estimate(total[j]))
        for j, name in enumerate(surrogate.space.columns)
    ]
    return sorted(effects, key=lambda effect: -effect.total.value)


def sobol_indices(
    function: Callable[[Tensor], Tensor], cube: Cube, seed: int, *, n: int = _PAIRS
) -> tuple[Tensor, Tensor]:  # (d, q), (d, q)
    """First-order and total indices, in [0, 1], of every column for each of q functions; 0 for constant ones.

    Args:
        function: The values (q, b) of the functions at snapped points (b, d).
        cube: Where the points come from, uniformly as far as the constraint allows.
        seed: Addresses the points.
        n: How many pairs of points each index is computed from.

    Raises:
        NoResultError: if the constraint leaves too little of the cube.
    """
    A, B = _independent(cube, n, seed)
    here = function(cube.snap(A))
    first: list[Tensor] = []
    total: list[Tensor] = []
    for j in range(cube.d):
        alone = torch.arange(cube.d) == j
        for shared, found in ((alone, first), (~alone, total)):
            there = function(_partners(cube, A, B, shared, derive(seed, j, len(found))))
            found.append(_correlation(here, there))
    S, T = torch.stack(first), 1.0 - torch.stack(total)
    return S.nan_to_num(nan=0.0).clamp(0.0, 1.0), T.nan_to_num(nan=0.0).clamp(0.0, 1.0)


def _independent(cube: Cube, n: int, seed: int) -> tuple[Tensor, Tensor]:  # (<= n, d) each
    """Two independent points of the cube a row, not snapped: the first allowed, the second any."""
    sobol = Cube.continuous(2 * cube.d).sobol
    found = cube.n_levels.new_empty(0, 2 * cube.d).double()
    for k in range(1 if cube.constraint is None else _TRIED):
        pairs = sobol(n, seed, skip=k * n)
        found = torch.cat([found, pairs[cube.feasible(cube.snap(pairs[:, : cube.d]))]])
        if len(found) >= n:
            break
    if len(found) < _FEWEST_PAIRS:
        raise NoResultError(
            f"only {len(found)} of {n * _TRIED} random configs meet the constraints; what matters among so "
            "few cannot be told."
        )
    A, B = found[:n].chunk(2, dim=-1)
    return A, B


def _partners(cube: Cube, A: Tensor, B: Tensor, shared: Tensor, seed: int) -> Tensor:  # (n, d)
    """Snapped points that share some columns with A, the others drawn anew until the constraint holds.

    Where it never does, next to nothing but the point itself is left, and that is taken.
    """
    found = cube.snap(torch.where(shared, A, B))
    if cube.constraint is None:
        return found
    draws = generator(seed, "partners")
    missing = (~cube.feasible(found)).nonzero().squeeze(-1)
    for _ in range(_TRIED):
        if len(missing) == 0:
            return found
        other = torch.rand(len(missing), cube.d, dtype=A.dtype, generator=draws)
        found[missing] = cube.snap(torch.where(shared, A[missing], other))
        missing = missing[~cube.feasible(found[missing])]
    found[missing] = cube.snap(A[missing])
    return found


def _correlation(a: Tensor, b: Tensor) -> Tensor:  # (q, n), (q, n) -> (q,)
    """Of two columns that are distributed alike; nan where they are constant."""
    mean = 0.5 * (a + b).mean(-1, keepdim=True)
    a, b = a - mean, b - mean
    return (a * b).mean(-1) / (0.5 * (a.square() + b.square())).mean(-1)


def _estimate(shares: Tensor) -> Estimate:  # (q,)
    low, high = shares.quantile(shares.new_tensor([_TAIL, 1.0 - _TAIL])).tolist()
    return Estimate(float(shares.mean()), low, high)
