"""The figure of a study's history: values, the best so far, and what random search would have found.

The last is what the surrogate believes of it. For a function f_s drawn from the posterior, let F_s be the
distribution of its observed values, to be minimised, over random configs. The best of k of them is below v
with probability 1 - (1 - F_s(v))^k, and this is averaged over the functions, so that the band holds both the
luck of the draw and what is not known of the function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gpbo.analysis.figures import (
    BAND,
    BLUE,
    GREY,
    ORANGE,
    RED,
    column_of,
    finish,
    graph_objects,
    hover,
    once_in_legend,
    panels,
    shown,
    value_axis,
    wanted,
)
from gpbo.analysis.surrogate import LEVELS, Surrogate, fit_surrogate, trials_at, value_at
from gpbo.errors import NoResultError, SpaceError
from gpbo.outcomes import are_met
from gpbo.seeding import derive, generator
from gpbo.trial import State, Trial

if TYPE_CHECKING:
    from gpbo.study import Study

_FEWEST = 5  # trials with a value, to say anything of random search
_POOL = 1024  # random configs
_FUNCTIONS = 64
_EDGES = 800  # values at which the distribution of the best is computed
_MOST_COUNTS = 60  # of random trials for which it is


def history(study: Study, *, budget: float | None = None) -> Any:
    """The values in the order of the trials, the best so far, and what random search would have found.

    The latter is what the surrogate believes of the best of so many configs drawn at random, as observed: its
    median and middle 90 % over the luck of the draw and over what is not known of the function. With budgets
    it is drawn over the budget spent, random search training every config in full.

    Args:
        study: The study.
        budget: Whose values are shown; by default those at the full one.

    Raises:
        NoResultError: if no trial has a value there.
    """
    graph_objects()
    m = len(study.directions)
    figure, places = panels([column_of(study, k) for k in range(m)] if m > 1 else [""])
    notes: list[str] = []
    for k, place in enumerate(places):
        notes += _draw_history(figure, place, study, k, budget)
    title = "History" if m == 1 else "History of each objective"
    return finish(figure, title, dict.fromkeys(notes), legend={"orientation": "h", "y": -0.2})


@dataclass(frozen=True, slots=True)
class _Progress:
    """The trials of a study in the order in which they ended, and what each brought and cost."""

    trials: list[Trial]
    values: list[float | None]  # None where there is none at the budget
    feasible: list[bool]
    spent: list[float]  # up to and with each; trials, or budget
    full: float | None


def random_search(surrogate: Surrogate, counts: Sequence[int], seed: int) -> Tensor:  # (levels, counts)
    """The 5 %, 50 % and 95 % points of the best observed value among so many random configs.

    Raises:
        SpaceError: if the constraints leave too little of the space.
    """
    cube, sign = surrogate.space.cube, -1.0 if surrogate.maximize else 1.0
    X = cube.draw(_POOL, generator(seed, "random configs"))
    functions = surrogate.draws(_FUNCTIONS, derive(seed, "functions"))
    losses = (sign * functions.observed(X, generator(seed, "noise"))).sort(dim=-1).values
    pooled = losses.flatten().sort().values
    edges = torch.logspace(0.0, math.log10(len(pooled)), _EDGES, dtype=pooled.dtype).long().unique() - 1
    grid = pooled[edges]
    F = torch.searchsorted(losses, grid.expand(len(losses), -1).contiguous(), right=True) / _POOL
    k = torch.tensor(counts, dtype=F.dtype).reshape(-1, 1, 1)
    below = (1.0 - (1.0 - F) ** k).mean(1).contiguous()  # (counts, grid)
    levels = torch.tensor(LEVELS, dtype=F.dtype).expand(len(below), -1).contiguous()
    at = torch.searchsorted(below, levels).clamp(max=len(grid) - 1)
    best = sign * grid[at].mT
    return best.flip(0) if surrogate.maximize else best


def _draw_history(
    figure: Any, place: dict[str, int], study: Study, objective: int, budget: float | None
) -> list[str]:
    """One objective's history in one panel; what must be known to read it."""
    done = _progress(study, objective, budget)
    rows = [
        (x, v, ok, t) for x, v, ok, t in zip(done.spent, done.values, done.feasible, done.trials, strict=True)
    ]
    maximize = study.directions[objective] == "maximize"
    best, so_far = math.nan, []
    for _, value, feasible, _ in rows:
        if value is not None and feasible and not (value <= best if maximize else value >= best):
            best = value
        so_far.append(best)
    observed = [value for value in done.values if value is not None]
    if not observed:
        where = "" if done.full is None else f" at budget {done.full:g}"
        raise NoResultError(f"study {study.name!r} has no trial with a value{where} to show.")
    axis = value_axis(observed, wanted(study, objective))
    notes = [] if done.full is None else [f"values at budget {done.full:g}"]
    try:
        notes += _draw_random(figure, place, study, objective, budget, done, axis, observed)
    except (NoResultError, SpaceError) as error:
        notes.append(f"no random search: {error}")
    failed = [(x, t) for x, _, _, t in rows if t.state is State.FAILED]
    groups = (
        ("trials", GREY, "circle", [(x, v, t) for x, v, ok, t in rows if v is not None and ok]),
        ("infeasible", RED, "x-thin-open", [(x, v, t) for x, v, ok, t in rows if v is not None and not ok]),
        ("failed", RED, "x", [(x, (min if maximize else max)(observed), t) for x, t in failed]),
    )
    for name, colour, symbol, points in groups:
        words = "%{text}" if name == "failed" else "%{text}<br>%{y:.6g}"
        if points:
            figure.add_scatter(
                x=[x for x, _, _ in points], y=[v for _, v, _ in points], name=name, mode="markers",
                text=[hover(t) for _, _, t in points], marker={"color": colour, "symbol": symbol, "size": 6},
                hovertemplate=f"{words}<extra></extra>",
                **place,
            )  # fmt: skip
    figure.add_scatter(
        x=done.spent, y=so_far, name="best so far", mode="lines",
        line={"color": BLUE, "width": 2.5, "shape": "hv"}, **place,
    )  # fmt: skip
    figure.update_yaxes(**axis, **place)
    figure.update_xaxes(title_text="trials that have ended" if done.full is None else "budget spent", **place)
    once_in_legend(figure)
    return notes


def _draw_random(
    figure: Any,
    place: dict[str, int],
    study: Study,
    objective: int,
    budget: float | None,
    done: _Progress,
    axis: dict[str, Any],
    observed: list[float],
) -> list[str]:
    surrogate = fit_surrogate(study, objective, budget=budget, fewest=_FEWEST)
    cost = 1.0 if done.full is None else done.full
    most = int(done.spent[-1] / cost) if cost > 0.0 else 0
    if most < 1:
        raise NoResultError(f"what was spent trains no config up to budget {cost:g}.")
    counts = sorted({max(1, round(most ** (i / (_MOST_COUNTS - 1)))) for i in range(_MOST_COUNTS)})
    low, median, high = random_search(surrogate, counts, derive(study.seed, "history", objective)).tolist()
    x = [count * cost for count in counts]
    band = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    figure.add_scatter(x=x, y=shown(low, axis, observed), **band, **place)
    figure.add_scatter(
        x=x, y=shown(high, axis, observed), fill="tonexty", fillcolor=BAND[ORANGE], **band, **place
    )
    figure.add_scatter(
        x=x, y=shown(median, axis, observed), name="random search, by the surrogate (90 %)", mode="lines",
        line={"color": ORANGE, "width": 2, "dash": "dash"}, **place,
    )  # fmt: skip
    lost = surrogate.n_failed or any(not ok for ok in done.feasible)
    return ["random search is shown as if none of its trials failed or was infeasible"] if lost else []


def _progress(study: Study, objective: int, budget: float | None) -> _Progress:
    with_value, chosen = trials_at(study, budget)
    numbers = {trial.number for trial in with_value}
    ended = [t for t in study.trials if t.state.is_final or (t.observations and chosen is not None)]
    # what is paused has spent its budget by some time since it was asked for; that is not known better
    ended.sort(key=lambda t: ((t.finished if t.state.is_final else t.started) or 0.0, t.number))
    values = [value_at(t, chosen, objective) if t.number in numbers else None for t in ended]
    feasible = [are_met(study.outcome_constraints, t.outcomes) if t.observations else True for t in ended]
    spent, total = [], 0.0
    for trial in ended:
        total += 1.0 if chosen is None else _cost(trial)
        spent.append(total)
    return _Progress(ended, values, feasible, spent, chosen)


def _cost(trial: Trial) -> float:
    """The budget that a trial has spent."""
    last = max((o.budget or 0.0 for o in trial.observations), default=trial.budget or 0.0)
    return float(trial.info.get("run", {}).get("spent", last))
