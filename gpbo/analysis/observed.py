"""Figures of what was observed: parallel coordinates, survival by rung, learning curves, the Pareto front."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from gpbo.analysis.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    SCALE,
    SKY,
    Axis,
    column_of,
    finish,
    graph_objects,
    hover,
    is_wide,
    log_ticks,
    value_axis,
    wanted,
)
from gpbo.analysis.surrogate import check_objective, observed_budgets, trials_at, value_at
from gpbo.errors import NoResultError, SettingError
from gpbo.outcomes import are_met
from gpbo.standing import comparable, why_none_is_best
from gpbo.trial import State, Trial

if TYPE_CHECKING:
    from gpbo.study import Study

_ABSENT = "absent"
_STATES = {
    State.COMPLETE: BLUE,
    State.PAUSED: SKY,
    State.STOPPED: ORANGE,
    State.FAILED: RED,
    State.RUNNING: GREEN,
}


def parallel(study: Study, objective: int = 0, *, budget: float | None = None) -> Any:
    """Every trial as a line through its parameters and its values, coloured by one objective.

    Trials without a value, and with budgets those without one at the chosen budget, are left out and counted.

    Args:
        study: The study.
        objective: Which objective gives the colour, from 0.
        budget: Whose values are shown; by default those at the full one.

    Raises:
        NoResultError: if no trial has a value there.
    """
    go = graph_objects()
    objective = check_objective(study, objective)
    trials, budget = trials_at(study, budget)
    if not trials:
        raise NoResultError(f"{_nothing(study, budget)} to draw lines of.")
    dimensions = []
    for name in study.space.columns:
        axis = Axis(name, study.space.parameters[name])
        dimensions.append(_parameter_dimension(axis, trials))
    for k in range(len(study.directions)):
        dimensions.append(_value_dimension(study, trials, budget, k))
    colours = dimensions[len(study.space.columns) + objective]
    bar = {key: colours[key] for key in ("tickvals", "ticktext") if key in colours}
    figure = go.Figure(
        go.Parcoords(
            dimensions=dimensions,
            line={
                "color": colours["values"],
                "colorscale": SCALE,
                "reversescale": study.directions[objective] == "minimize",  # the best are the brightest
                "showscale": True,
                "colorbar": bar | {"title": {"text": colours["label"]}},
            },
        )
    )
    return finish(figure, "Parallel coordinates", _left_out(study, trials, budget))


def rungs(study: Study) -> Any:
    """How many trials have a value at each budget, and what became of them there.

    Raises:
        NoResultError: if no trial was observed at a budget.
    """
    go = graph_objects()
    budgets = _budgets(study, "rungs")
    fates: dict[float, Counter[str]] = {budget: Counter() for budget in budgets}
    for trial in study.trials:
        seen = sorted({o.budget for o in trial.observations if o.budget is not None})
        for budget in seen:
            fates[budget]["went on" if budget != seen[-1] else str(trial.state)] += 1
    colours = {"went on": GREY} | {str(state): colour for state, colour in _STATES.items()}
    labels = [f"{budget:g}" for budget in budgets]
    figure = go.Figure()
    for fate, colour in colours.items():
        counts = [fates[budget][fate] for budget in budgets]
        if any(counts):
            figure.add_bar(x=labels, y=counts, name=fate, marker_color=colour)
    figure.update_xaxes(type="category", title_text="budget")
    figure.update_yaxes(title_text="trials")
    silent = sum(trial.state is State.FAILED and not trial.observations for trial in study.trials)
    notes = [f"{silent} failed before their first value"] if silent else []
    return finish(figure, "Trials at each budget, and what became of them there", notes, barmode="stack")


def curves(study: Study, objective: int = 0) -> Any:
    """The value of every trial over its budget, by how the trial stands, and the best one where there is one.

    Args:
        study: The study.
        objective: Whose values, from 0.

    Raises:
        NoResultError: if no trial was observed at a budget.
        SettingError: if there is no such objective, or all values are of one budget.
    """
    go = graph_objects()
    objective = check_objective(study, objective)
    budgets = _budgets(study, "curves")
    if len(budgets) < 2:
        raise SettingError(
            f"curves need values at two budgets or more; study {study.name!r} has only {budgets[0]:g}."
        )
    figure = go.Figure()
    for state, colour in _STATES.items():
        x, y, words = _broken_lines([t for t in study.trials if t.state is state], objective)
        if x:
            line = {"color": colour, "width": 1}
            figure.add_scatter(
                x=x, y=y, text=words, name=str(state), mode="lines+markers", opacity=0.55, line=line,
                marker={"size": 4}, hovertemplate="%{text}<br>budget %{x:g}: %{y:.6g}<extra></extra>",
            )  # fmt: skip
    # several objectives have a front instead, and it may be that no trial is feasible
    compared = comparable(study.trials, study.outcome_constraints)
    best = [study.best] if len(study.directions) == 1 and compared else []
    x, y, words = _broken_lines(best, objective)
    if x:
        line = {"color": "black", "width": 3}
        figure.add_scatter(x=x, y=y, text=words, name="best", mode="lines+markers", line=line)
    values = [o.values[objective] for t in study.trials for o in t.observations if o.budget is not None]
    figure.update_yaxes(**value_axis(values, wanted(study, objective)))
    figure.update_xaxes(
        title_text="budget",
        type="log" if budgets[-1] >= 8 * budgets[0] > 0 else "linear",
        tickvals=budgets[:30],
    )
    return finish(figure, "Learning curves")


def front(study: Study) -> Any:
    """The Pareto front and the trials behind it; of three objectives or more, every two of them.

    Raises:
        SettingError: if the study has one objective.
        NoResultError: if no complete trial is feasible.
    """
    go = graph_objects()
    m = len(study.directions)
    if m < 2:
        raise SettingError("a front needs two objectives or more; this study has one, see `history`.")
    best = study.pareto_front
    if not best:
        raise NoResultError(why_none_is_best(study.name, study.trials, study.outcome_constraints))
    on_front = {trial.number for trial in best}
    compared = {trial.number for trial in comparable(study.trials, study.outcome_constraints)}
    complete = [t for t in study.trials if t.state is State.COMPLETE]
    infeasible = [t for t in complete if not are_met(study.outcome_constraints, t.outcomes)]
    groups = {
        "beaten": ([t for t in complete if t.number in compared - on_front], GREY, "circle"),
        "infeasible": (infeasible, RED, "x-thin-open"),
        "Pareto front": (best, BLUE, "diamond"),
    }
    notes = [f"{len(best)} of {len(compared)} trials are on the front"]
    figure = go.Figure()
    for name, (trials, colour, symbol) in groups.items():
        if not trials:
            continue
        trials = sorted(trials, key=lambda trial: trial.values or ())
        columns = [[(t.values or ())[k] for t in trials] for k in range(m)]
        words, marker = [hover(t) for t in trials], {"color": colour, "symbol": symbol, "size": 7}
        if m > 2:
            dimensions = [{"label": wanted(study, k), "values": columns[k]} for k in range(m)]
            figure.add_splom(
                dimensions=dimensions, name=name, text=words, marker=marker, diagonal_visible=False,
                showupperhalf=False,
            )  # fmt: skip
            continue
        is_front = name == "Pareto front"
        steps = {"shape": "hv" if study.directions[0] == "minimize" else "vh", "width": 1, "color": colour}
        figure.add_scatter(
            x=columns[0], y=columns[1], text=words, name=name, marker=marker,
            mode="lines+markers" if is_front else "markers", line=steps if is_front else None,
            hovertemplate="%{text}<br>(%{x:.6g}, %{y:.6g})<extra></extra>",
        )  # fmt: skip
    if m == 2:
        figure.update_xaxes(**value_axis([t.values[0] for t in complete if t.values], wanted(study, 0)))
        figure.update_yaxes(**value_axis([t.values[1] for t in complete if t.values], wanted(study, 1)))
    return finish(figure, "Pareto front", notes)


def _parameter_dimension(axis: Axis, trials: list[Trial]) -> dict[str, Any]:
    """One axis of a parallel plot; where the parameter is absent the line passes below all its values."""
    found = axis.dimension
    here = [axis.at(t.config[axis.name]) if axis.name in t.config else None for t in trials]
    values = [math.log10(v) if axis.is_log and v is not None else v for v in here]
    low, high = found.get("range", [0.0, max(len(found.get("tickvals", [])) - 1.0, 1.0)])
    if None in values:
        below = low - 0.15 * (high - low)
        found["range"] = [below, high]
        ticks = found.get("tickvals") or [low + (high - low) * k / 4 for k in range(5)]
        labels = found.get("ticktext") or [f"{tick:.4g}" for tick in ticks]
        found["tickvals"], found["ticktext"] = [below, *ticks], [_ABSENT, *labels]
        values = [below if v is None else v for v in values]
    return found | {"label": axis.name, "values": values}


def _value_dimension(
    study: Study, trials: list[Trial], budget: float | None, objective: int
) -> dict[str, Any]:
    """The axis of an objective; of logarithms where its values are many decades apart."""
    values = [value_at(trial, budget, objective) for trial in trials]
    label: dict[str, Any] = {"label": column_of(study, objective)}
    if not is_wide(values):
        return label | {"values": values}
    ticks = log_ticks(min(values), max(values))
    return label | {
        "values": [math.log10(value) for value in values],
        "tickvals": [math.log10(tick) for tick in ticks],
        "ticktext": [f"{tick:.3g}" for tick in ticks],
    }


def _broken_lines(
    trials: list[Trial], objective: int
) -> tuple[list[float | None], list[float | None], list[str | None]]:
    """All trials with budgets in one trace, with gaps between them."""
    x: list[float | None] = []
    y: list[float | None] = []
    words: list[str | None] = []
    for trial in trials:
        seen = sorted((o for o in trial.observations if o.budget is not None), key=lambda o: o.budget or 0.0)
        if not seen:
            continue
        x += [*(o.budget for o in seen), None]
        y += [*(o.values[objective] for o in seen), None]
        words += [*([hover(trial)] * len(seen)), None]
    return x[:-1], y[:-1], words[:-1]


def _budgets(study: Study, what: str) -> list[float]:
    budgets = observed_budgets(study)
    if not budgets:
        raise NoResultError(
            f"{what} need a study whose trials have budgets; no value of study {study.name!r} has one."
        )
    return budgets


def _left_out(study: Study, trials: list[Trial], budget: float | None) -> list[str]:
    numbers = {trial.number for trial in trials}
    counts = Counter(str(t.state) for t in study.trials if t.number not in numbers)
    notes = [] if budget is None else [f"values at budget {budget:g}"]
    if counts:
        notes.append("without one: " + ", ".join(f"{n} {state}" for state, n in counts.items()))
    return notes


def _nothing(study: Study, budget: float | None) -> str:
    where = "" if budget is None else f" at budget {budget:g}"
    return f"study {study.name!r} has no trial with a value{where}"
