"""Whether results at low budgets foretell those at the full one, and what to do where they do not.

At every pair of neighbouring rungs, the trials seen at both are ranked at both. Those that were sent on for
their values are the best of the lower rung, and among the best alone the order of two rungs agrees less than
among all; so agreement is estimated only where audits (schedulers/audit.py) sent on some of the others,
each trial weighted by how many of the lower rung it stands for (Horvitz and Thompson 1952). Intervals hold
90 %: of a bootstrap within the two groups, and of shares Wilson's, over the audits.

Notation: x, y (n,) the places of the n trials at the lower and the upper rung, smaller is better; W (b, n)
weights, one row per resample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gpbo.markup import paragraph, table
from gpbo.schedulers.asha import ASHA
from gpbo.schedulers.base import Scheduler
from gpbo.schedulers.rungs import check_reduction_factor, quota
from gpbo.seeding import generator
from gpbo.space import Categorical, SearchSpace
from gpbo.trial import State, Trial

_RESAMPLES = 400
_PERMUTATIONS = 1999
_MOST = 1000  # trials per pair of rungs, the latest: every two of them are compared
_FEWEST = 12  # trials at both rungs, below which nothing is said
_FEWEST_AUDITS = 5
_NORMAL_95 = 1.6448536269514722  # the normal distribution's 95 % point
_LOW_TAU = 0.3  # a rung whose tau is surely below this misleads
_HIGH_TAU = 0.7  # a lowest rung whose tau is surely above this may be cheaper still
_FALSE_DISCOVERIES = 0.05


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with a 90 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True, slots=True)
class RungAgreement:
    """How well one rung foretells the next.

    Attributes:
        low: The budget at the lower rung.
        high: The budget at the upper one.
        n_low: How many trials have a value at the lower rung.
        n: How many of those the figures are of: seen at both, or failed on the way to the upper one.
        n_audits: How many of them were sent on by an audit.
        is_biased: Whether there are too few audits, so that the figures are of the best trials alone, and
            too low.
        kendall: Kendall's tau-b between the values at the two rungs; None for too few trials.
        spearman: Spearman's rho between them.
        recall: Of the trials that are among the best at the upper rung, the share that the lower one sends
            on; None if biased.
        false_stops: Of the trials that the lower rung stops, the share that would be among the best at the
            upper one; None if biased.
        misleads: Whether the lower rung surely tells too little; None where that is not known.
    """

    low: float
    high: float
    n_low: int
    n: int
    n_audits: int
    is_biased: bool
    kendall: Estimate | None = None
    spearman: Estimate | None = None
    recall: Estimate | None = None
    false_stops: Estimate | None = None
    misleads: bool | None = None

    @property
    def verdict(self) -> str:
        """Whether the lower rung misleads, in words."""
        if self.kendall is None:
            return "too few trials"
        return {True: "MISLEADS", False: "tells enough", None: "unclear"}[self.misleads]

    def __str__(self) -> str:
        head = f"From budget {self.low:g} to {self.high:g} ({self.n} of {self.n_low} trials): "
        if self.kendall is None:
            return f"{head}too few trials to tell; {_FEWEST} are needed at both."
        tau = f"the order of two trials is kept with Kendall's tau {self.kendall}"
        if self.recall is None or self.false_stops is None:
            return f"{head}{tau}, but that is among the trials that went on alone, and too low for all."
        return (
            f"{head}{self.verdict}; {tau}. Of the best at {self.high:g}, a share of {self.recall} were among "
            f"the best at {self.low:g}; of those stopped, {self.false_stops} would have been."
        )


@dataclass(frozen=True, slots=True)
class SlowStart:
    """Values of a parameter with which trials look worse early than they are later.

    Attributes:
        parameter: Its name.
        values: "large values", "small values", or the choice.
        low: The budget at which they look bad.
        high: The budget at which they look better.
        rho: Spearman's correlation of the parameter, or of having the choice, with how much a trial falls
            behind between the two.
        p: How likely so large a correlation is by chance, by permutation.
    """

    parameter: str
    values: str
    low: float
    high: float
    rho: float
    p: float

    def __str__(self) -> str:
        what = f"{self.values} of `{self.parameter}`" if "values" in self.values else self.values
        return (
            f"Trials with {what} look worse at budget {self.low:g} than at {self.high:g} "
            f"(rho {self.rho:+.2f}, p {self.p:.3g}): they start slowly, and more of them are stopped for it."
        )


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What `Study.diagnose` found; as a text, in sentences.

    Attributes:
        rungs: For each pair of neighbouring budgets, the lowest first.
        slow_starts: Those that are no accident, allowing for 5 % of false ones.
        min_budget: The least budget that is advised, or None where there is nothing to say.
        advice: What to do, a sentence each.
    """

    rungs: tuple[RungAgreement, ...]
    slow_starts: tuple[SlowStart, ...]
    min_budget: float | None
    advice: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([*map(str, self.rungs), *map(str, self.slow_starts), *self.advice])

    def _repr_html_(self) -> str:
        columns = [
            *("budget", "next", "trials", "audits"),
            *("Kendall's tau", "best sent on", "wrongly stopped", "verdict"),
        ]
        rows = []
        for r in self.rungs:
            figures = (r.kendall, r.recall, r.false_stops)
            rows.append([float(r.low), float(r.high), f"{r.n} of {r.n_low}", r.n_audits, *figures, r.verdict])
        said = "".join(paragraph(str(one)) for one in [*self.slow_starts, *self.advice])
        return (table(columns, rows) if rows else "") + said


def diagnose(
    trials: Sequence[Trial],
    space: SearchSpace,
    scheduler: Scheduler,
    maximize: Sequence[bool],
    *,
    seed: int = 0,
) -> Diagnosis:
    """How the trials of a study of one objective compare at low and at high budgets.

    Args:
        trials: All of them.
        space: Theirs.
        scheduler: The study's; its audits are looked for.
        maximize: Whether larger values are better.
        seed: Addresses the resampling.
    """
    levels = scheduler.rungs
    if len(levels) < 2:
        return Diagnosis((), (), None, ("This study compares trials at one budget alone.",))
    eta = float(getattr(scheduler, "reduction_factor", 2))  # the median lets one in two go on
    agreements, tests = [], list[SlowStart]()
    for k in range(len(levels) - 1):
        pair = _pair(trials, maximize, k, levels, scheduler, eta)
        agreements.append(_agreement(pair, levels[k], levels[k + 1], eta, seed))
        if len(pair.trials) >= _FEWEST:
            tests += _drifts(pair, space, levels[k], levels[k + 1], seed)
    slow = _discoveries(tests)
    min_budget, advice = _advice(trials, agreements, slow, eta)
    return Diagnosis(tuple(agreements), slow, min_budget, advice)


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """The trials at two neighbouring rungs."""

    n_low: int
    trials: list[Trial]
    x: Tensor  # (n,) places at the lower rung
    y: Tensor  # (n,)
    is_best: Tensor  # (n,) bool: among those that the lower rung sends on
    weight: Tensor  # (n,) how many trials of the lower rung each stands for
    n_audits: int
    is_biased: bool


def _pair(
    trials: Sequence[Trial],
    maximize: Sequence[bool],
    k: int,
    levels: Sequence[float],
    scheduler: Scheduler,
    eta: float,
) -> _Pair:
    low, high = _losses(trials, levels[k], maximize), _losses(trials, levels[k + 1], maximize)
    for number in low:
        if trials[number].state is State.FAILED and number not in high:
            high[number] = math.inf
    failed = sum(
        t.state is State.FAILED and t.number not in low and (k == 0 or _seen_at(t, levels[k - 1]))
        for t in trials
    )
    ranked = sorted(low, key=lambda number: (low[number], number))
    best = set(ranked[: quota(len(low) + failed, check_reduction_factor(eta))])
    both = sorted(number for number in low if number in high)[-_MOST:]
    since = both[0] if len(both) == _MOST else 0
    drawn = {i for i in both if isinstance(scheduler, ASHA) and scheduler.audits(i, k)}
    n_audits = len(drawn - best)
    is_biased = n_audits < _FEWEST_AUDITS
    if not is_biased:  # whoever was once among the best, and is no longer, is no fair draw from the rest
        both = [i for i in both if i in best or i in drawn]
    n_best = sum(i in best for i in both)
    all_best = sum(i in best for i in low if i >= since)
    all_rest = sum(i not in best for i in low if i >= since)
    is_best = torch.tensor([i in best for i in both], dtype=torch.bool)
    weight = torch.ones(len(both), dtype=torch.float64)
    if not is_biased:
        weight = torch.where(is_best, all_best / max(n_best, 1), all_rest / n_audits).double()
    return _Pair(
        n_low=len(low),
        trials=[trials[i] for i in both],
        x=_places([low[i] for i in both]),
        y=_places([high[i] for i in both]),
        is_best=is_best,
        weight=weight,
        n_audits=n_audits,
        is_biased=is_biased,
    )


def _agreement(pair: _Pair, low: float, high: float, eta: float, seed: int) -> RungAgreement:
    n = len(pair.trials)
    found = RungAgreement(low, high, pair.n_low, n, pair.n_audits, pair.is_biased)
    if n < _FEWEST:
        return found
    groups = [torch.arange(n)] if pair.is_biased else [pair.is_best.nonzero(), (~pair.is_best).nonzero()]
    W = pair.weight * _resampled([group.flatten() for group in groups], n, seed, low)
    tau = _estimate(kendall(pair.x, pair.y, W))
    rho = _estimate(spearman(pair.x, pair.y, W))
    if pair.is_biased or tau is None:
        return replace(found, kendall=tau, spearman=rho)
    total = pair.weight.sum()
    is_top = weighted_midranks(pair.y, pair.weight[None])[0] < total / eta  # among the best at the upper rung
    false_stops = proportion(int((is_top & ~pair.is_best).sum()), pair.n_audits)
    found_top = float(pair.weight[is_top & pair.is_best].sum())
    rest = float(pair.weight[~pair.is_best].sum())
    recall = Estimate(
        *(
            found_top / (found_top + rest * share) if found_top else 0.0
            for share in (false_stops.value, false_stops.high, false_stops.low)
        )
    )
    bad = tau.high < _LOW_TAU or false_stops.low > 0.5 / eta
    good = tau.low > _LOW_TAU
    return replace(
        found,
        kendall=tau,
        spearman=rho,
        recall=recall,
        false_stops=false_stops,
        misleads=True if bad else False if good else None,
    )


def proportion(hits: int, n: int) -> Estimate:
    """The share of hits with Wilson's (1927) interval, which none of few does not make certain."""
    p, z2 = hits / n, _NORMAL_95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * p * (1 - p) / n + (z2 / (2 * n)) ** 2) / (1 + z2 / n)
    return Estimate(p, max(centre - half, 0.0), min(centre + half, 1.0))


def kendall(x: Tensor, y: Tensor, W: Tensor) -> Tensor:  # (n,), (n,), (b, n) -> (b,)
    """Kendall's tau-b where trial i is there W_i times; nan where all of x or of y are equal."""
    a, b = (torch.sign(z[:, None] - z) for z in (x.double(), y.double()))
    both, one, two = (((W @ M) * W).sum(-1) for M in (a * b, a.abs(), b.abs()))
    return both / (one * two).sqrt()


def spearman(x: Tensor, y: Tensor, W: Tensor) -> Tensor:  # (n,), (n,), (b, n) -> (b,)
    """Spearman's rho where trial i is there W_i times; nan where all of x or of y are equal."""
    return _pearson(weighted_midranks(x, W), weighted_midranks(y, W), W)


def weighted_midranks(x: Tensor, W: Tensor) -> Tensor:  # (n,), (b, n) -> (b, n)
    """How much weight lies below each trial, and half of what is equal to it, its own included."""
    below = (x[:, None] < x).double() + 0.5 * (x[:, None] == x).double()
    return W @ below


def _pearson(A: Tensor, B: Tensor, W: Tensor) -> Tensor:  # (b, n) each -> (b,)
    total = W.sum(-1, keepdim=True)
    a, b = (Z - (W * Z).sum(-1, keepdim=True) / total for Z in (A, B))
    return (W * a * b).sum(-1) / ((W * a * a).sum(-1) * (W * b * b).sum(-1)).sqrt()


def _resampled(groups: Sequence[Tensor], n: int, seed: int, rung: float) -> Tensor:  # (1 + b, n)
    """How often each trial is drawn, within its group; in the first row once each."""
    draws = generator(seed, "diagnose", repr(rung))
    counts = torch.zeros(1 + _RESAMPLES, n, dtype=torch.float64)
    counts[0] = 1.0
    for group in groups:
        if len(group):
            rows = group[torch.randint(len(group), (_RESAMPLES, len(group)), generator=draws)]
            counts[1:].scatter_add_(1, rows, torch.ones(rows.shape, dtype=torch.float64))
    return counts


def _estimate(values: Tensor) -> Estimate | None:  # (1 + b,)
    """The first value, and the middle 90 % of the others; None where it is undefined."""
    if not bool(values[0].isfinite()):
        return None
    low, high = values[1:].nanquantile(values.new_tensor([0.05, 0.95])).tolist()
    return Estimate(float(values[0]), low, high)


def _drifts(pair: _Pair, space: SearchSpace, low: float, high: float, seed: int) -> list[SlowStart]:
    """For every column, how it goes with falling behind from the lower rung to the upper one."""
    found = []
    X = space.encode([trial.config for trial in pair.trials])
    for j, name in enumerate(space.columns):
        here = torch.tensor([name in trial.config for trial in pair.trials])
        if int(here.sum()) < _FEWEST:
            continue
        parameter = space.parameters[name]
        is_choice = isinstance(parameter, Categorical) and not parameter.ordered
        for level in X[here, j].unique() if is_choice else [None]:
            h = X[here, j] if level is None else -(X[here, j] == level).double()
            rho, p = _drift(h, pair.x[here], pair.y[here], pair.weight[here], seed, f"{name} {level}")
            if not math.isfinite(rho) or (level is not None and rho < 0):
                continue  # the other choices are tested themselves
            values = "large values" if rho < 0 else "small values"
            if level is not None:
                i = int((X[:, j] == level).nonzero()[0])
                values, rho = f"`{name}` = {pair.trials[i].config[name]!r}", -rho
            found.append(SlowStart(name, values, low, high, rho, p))
    return found


def _drift(h: Tensor, x: Tensor, y: Tensor, weight: Tensor, seed: int, stream: str) -> tuple[float, float]:
    """Spearman's correlation of a column with the change of place, and its two-sided p-value."""
    W = weight[None]
    drift = weighted_midranks(y, W) - weighted_midranks(x, W)
    places = weighted_midranks(drift[0], W)
    ranks = weighted_midranks(h, torch.ones_like(W))[0]
    draws = generator(seed, "drift", stream)
    orders = torch.rand(_PERMUTATIONS, len(h), dtype=torch.float64, generator=draws).argsort(-1)
    rho = _pearson(torch.cat([ranks[None], ranks[orders]]), places, W)
    as_large = (rho[1:].abs() >= rho[0].abs() - 1e-12).sum()
    return float(rho[0]), (1 + int(as_large)) / (1 + _PERMUTATIONS)


def _discoveries(tests: Sequence[SlowStart]) -> tuple[SlowStart, ...]:
    """Those that Benjamini and Hochberg (1995) keep, the surest first."""
    ordered = sorted(tests, key=lambda test: test.p)
    passed = [i for i, t in enumerate(ordered, 1) if t.p <= _FALSE_DISCOVERIES * i / len(ordered)]
    return tuple(ordered[: max(passed, default=0)])


def _advice(
    trials: Sequence[Trial], rungs: Sequence[RungAgreement], slow: Sequence[SlowStart], eta: float
) -> tuple[float | None, tuple[str, ...]]:
    first, advice = rungs[0], []
    misleading = [rung for rung in rungs if rung.misleads]
    min_budget: float | None = None
    if first.misleads:
        min_budget = first.high
        advice.append(
            f"Raise min_budget from {first.low:g} to {first.high:g}: what trials show at {first.low:g} says "
            "too little about how they end."
        )
    elif first.kendall is not None and not first.is_biased and first.kendall.low > _HIGH_TAU:
        spent = sum(t.observations[-1].budget or 0.0 for t in trials if t.observations)
        share = first.n_low * first.low / spent
        if share > 0.5:
            min_budget = first.low / eta
            advice.append(
                f"min_budget may be lowered from {first.low:g} to {min_budget:g}: budget {first.low:g} tells "
                f"the best trials well, and takes {share:.0%} of all that is spent."
            )
    is_settled = first.misleads or first.kendall is None or first.kendall.low > _HIGH_TAU
    if any(start.low == first.low for start in slow) and not is_settled:
        min_budget = first.high
        advice.append(
            f"Consider min_budget={first.high:g}, so that trials that start slowly are not stopped first."
        )
    advice += [
        f"Comparing trials at budget {rung.low:g} stops good ones; leave this rung out."
        for rung in misleading
        if rung is not first
    ]
    if all(rung.is_biased for rung in rungs) and any(rung.kendall is not None for rung in rungs):
        advice.append(
            f"Whether good trials are stopped cannot be told, since fewer than {_FEWEST_AUDITS} of those "
            "that would be stopped went on; with ASHA(audit=0.05), or a larger share, some do."
        )
    return min_budget, tuple(advice)


def _losses(trials: Sequence[Trial], budget: float, maximize: Sequence[bool]) -> dict[int, float]:
    """By trial, the first loss at a budget."""
    found: dict[int, float] = {}
    for trial in trials:
        for seen in trial.observations:
            if seen.budget == budget:
                found.setdefault(trial.number, seen.losses(maximize)[0])
    return found


def _seen_at(trial: Trial, budget: float) -> bool:
    return any(seen.budget == budget for seen in trial.observations)


def _places(losses: Sequence[float]) -> Tensor:  # (n,)
    """Whole numbers in the order of the losses, equal ones for equal losses."""
    order: Mapping[float, int] = {loss: i for i, loss in enumerate(sorted(set(losses)))}
    return torch.tensor([order[loss] for loss in losses], dtype=torch.long)
