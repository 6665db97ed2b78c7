"""Figures of the posterior: slices and contours through the best trial, and what matters over the space."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gpbo.analysis.figures import (
    BAND,
    BLACK,
    BLUE,
    GREY,
    RED,
    SCALE,
    SKY,
    Axis,
    axis_of,
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
from gpbo.analysis.importance import importance as find_importance
from gpbo.analysis.surrogate import LEVELS, Surrogate, fit_surrogate
from gpbo.diagnostics import Estimate
from gpbo.errors import NoResultError, SettingError, UnknownTrialError
from gpbo.outcomes import are_met
from gpbo.trial import Trial

if TYPE_CHECKING:
    from gpbo.study import Study

_ACROSS = 101  # points of a slice
_MESH = 41  # points of a contour, each way


def slices(
    study: Study, objective: int = 0, *, budget: float | None = None, at: Trial | int | None = None
) -> Any:
    """The posterior along every parameter through the best trial, median and middle 90 %, and the trials.

    Where the best trial lacks a conditional parameter, the slice goes through the best that has it. The
    trials themselves lie off the slices, and need not be near the line.

    Args:
        study: The study.
        objective: Which objective, from 0.
        budget: Whose values are modelled; by default those at the full one.
        at: The trial, or its number, that all slices go through instead.

    Raises:
        SettingError: if there is no such objective, budget or trial.
        NoResultError: if there are too few values for a model.
    """
    graph_objects()
    surrogate = fit_surrogate(study, objective, budget=budget)
    through = None if at is None else _trial_of(surrogate, at)
    drawn, missing = [], []
    for name in study.space.columns:
        axis = Axis(name, study.space.parameters[name])
        centre = through or _best_with(surrogate, study, [name])
        if centre is None or name not in centre.config:
            missing.append(name)
        else:
            drawn.append((axis, centre))
    if not drawn:
        raise NoResultError(f"no trial of study {study.name!r} with a value has any of {missing}.")
    titles = [f"{axis.name}, through trial {centre.number}" for axis, centre in drawn]
    figure, places = panels(titles, shared_yaxes=True)
    observed = surrogate.values.tolist()
    for (axis, centre), place in zip(drawn, places, strict=True):
        _draw_slice(figure, place, surrogate, study, axis, centre)
    figure.update_yaxes(**value_axis(observed, ""))
    figure.update_yaxes(col=1, title_text=wanted(study, surrogate.objective))
    notes = [
        *_of_model(surrogate),
        *([f"no slice of {', '.join(missing)}, which no trial has"] if missing else []),
    ]
    once_in_legend(figure)
    height = 130 + 270 * max(place["row"] for place in places)
    return finish(figure, "Slices of the posterior", notes, height=height)


def contour(study: Study, x: str, y: str, objective: int = 0, *, budget: float | None = None) -> Any:
    """The posterior over two parameters through the best trial that has both: its median and its width.

    The width is that of the middle 90 %. What the space does not allow is left blank.

    Args:
        study: The study.
        x: The parameter across.
        y: The parameter upwards.
        objective: Which objective, from 0.
        budget: Whose values are modelled; by default those at the full one.

    Raises:
        SettingError: if the two are not two varying parameters, or there is no such objective or budget.
        NoResultError: if there are too few values for a model, or no trial has both parameters.
    """
    go = graph_objects()
    across, upwards = axis_of(study.space, x, "x"), axis_of(study.space, y, "y")
    if x == y:
        raise SettingError(f"`x` and `y` must be two parameters, got {x!r} twice.")
    surrogate = fit_surrogate(study, objective, budget=budget)
    centre = _best_with(surrogate, study, [x, y])
    if centre is None:
        raise NoResultError(f"no trial of study {study.name!r} with a value has both {x!r} and {y!r}.")
    start = _completed(surrogate, study, centre)
    U, V = _grid(study, x, _MESH), _grid(study, y, _MESH)
    i, j = (study.space.columns.index(name) for name in (x, y))
    X = start.repeat(len(V) * len(U), 1)
    X[:, i], X[:, j] = U.repeat(len(V)), V.repeat_interleave(len(U))
    X = study.space.cube.snap(X)
    low, median, high = surrogate.quantiles(X, LEVELS)
    active = study.space.cube.active(X)
    blank = ~(active[:, i] & active[:, j] & study.space.cube.feasible(X))
    title = wanted(study, surrogate.objective)
    figure, places = panels([f"median of {title}", "width of the middle 90 %"], horizontal_spacing=0.16)
    smooth = not any(study.space.parameters[name].n_levels for name in (x, y))
    for place, z, where in ((places[0], median, 0.42), (places[1], high - low, 1.0)):
        table = z.masked_fill(blank, math.nan).reshape(len(V), len(U)).tolist()
        trace = go.Contour if smooth else go.Heatmap
        figure.add_trace(
            trace(
                x=_along(study, across, U), y=_along(study, upwards, V), z=table,
                colorscale=SCALE, colorbar={"x": where, "thickness": 12},
                hovertemplate="%{x}, %{y}: %{z:.6g}<extra></extra>",
            ),
            **place,
        )  # fmt: skip
        here = [t for t in surrogate.trials if x in t.config and y in t.config]
        for trials, name, marker in (
            (here, "trials", {"color": "white", "size": 5, "line": {"color": BLACK, "width": 1}}),
            ([centre], f"trial {centre.number}", {"color": RED, "size": 12, "symbol": "star"}),
        ):
            figure.add_scatter(
                x=[across.at(t.config[x]) for t in trials], y=[upwards.at(t.config[y]) for t in trials],
                text=[hover(t) for t in trials], name=name, mode="markers", marker=marker,
                hovertemplate="%{text}<extra></extra>", **place,
            )  # fmt: skip
        figure.update_xaxes(**across.layout, **place)
        figure.update_yaxes(**upwards.layout, **place)
    once_in_legend(figure)
    heading = f"The posterior over {x} and {y}, through trial {centre.number}"
    return finish(figure, heading, _of_model(surrogate), legend={"orientation": "h", "y": -0.2})


def importance(study: Study, objective: int | None = None, *, budget: float | None = None) -> Any:
    """The figures of `Study.importance` as bars with their intervals."""
    graph_objects()
    found = find_importance(study, objective, budget=budget)
    objectives = list(dict.fromkeys(effect.objective for effect in found.effects))
    titles = [column_of(study, k) for k in objectives] if len(objectives) > 1 else [""]
    figure, places = panels(titles, horizontal_spacing=0.15)
    for k, place in zip(objectives, places, strict=True):
        effects = [effect for effect in reversed(found.effects) if effect.objective == k]
        names = [effect.parameter for effect in effects]
        for title, colour, shares in (
            ("alone", SKY, [effect.first for effect in effects]),
            ("in total, with others", BLUE, [effect.total for effect in effects]),
        ):
            figure.add_bar(
                x=[share.value for share in shares], y=list(range(len(names))), orientation="h", name=title,
                marker_color=colour, error_x=_whiskers(shares), **place,
            )  # fmt: skip
        figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names, **place)
    figure.update_xaxes(title_text="share of the variance over the space", range=[0, 1.02])
    once_in_legend(figure)
    height = 220 + 45 * len(study.space.columns) * max(place["row"] for place in places)
    return finish(
        figure, "Importance of the parameters", [f"{found.n} trials; the whiskers hold 90 %"],
        barmode="group", legend={"traceorder": "reversed"}, height=height,
    )  # fmt: skip


def _draw_slice(
    figure: Any, place: dict[str, int], surrogate: Surrogate, study: Study, axis: Axis, centre: Trial
) -> None:
    """The posterior along one parameter, in one panel."""
    cube, j = study.space.cube, study.space.columns.index(axis.name)
    U = _grid(study, axis.name, _ACROSS)
    X = _completed(surrogate, study, centre).repeat(len(U), 1)
    X[:, j] = U
    X = cube.snap(X)
    allowed = cube.feasible(X).tolist()
    observed = surrogate.values.tolist()
    scale = value_axis(observed, "")
    low, median, high = (
        [value if ok else None for value, ok in zip(shown(row, scale, observed), allowed, strict=True)]
        for row in surrogate.quantiles(X, LEVELS).tolist()
    )
    x = _along(study, axis, U)
    trials = [t for t in surrogate.trials if axis.name in t.config]
    figure.add_scatter(
        x=[axis.at(t.config[axis.name]) for t in trials],
        y=[v for v, t in zip(observed, surrogate.trials, strict=True) if axis.name in t.config],
        text=[hover(t) for t in trials], name="trials", mode="markers",
        marker={"color": GREY, "size": 5, "opacity": 0.6}, hovertemplate="%{text}<br>%{y:.6g}<extra></extra>",
        **place,
    )  # fmt: skip
    if axis.parameter.n_levels and len(U) <= 12:
        bars = {
            "array": [
                b - a if a is not None and b is not None else None for a, b in zip(median, high, strict=True)
            ],
            "arrayminus": [
                b - a if a is not None and b is not None else None for a, b in zip(low, median, strict=True)
            ],
        }
        figure.add_scatter(
            x=x, y=median, error_y=bars, name="median, 90 %", mode="markers",
            marker={"color": BLUE, "size": 9, "symbol": "line-ew-open"}, **place,
        )  # fmt: skip
    else:
        outline = _band(x, low, high)
        figure.add_scatter(
            x=outline[0], y=outline[1], fill="toself", fillcolor=BAND[BLUE], mode="none", hoverinfo="skip",
            name="90 %", **place,
        )  # fmt: skip
        figure.add_scatter(
            x=x, y=median, name="median", mode="lines", line={"color": BLUE, "width": 2}, **place
        )
    value = observed[[t.number for t in surrogate.trials].index(centre.number)]
    figure.add_scatter(
        x=[axis.at(centre.config[axis.name])], y=[value], text=[hover(centre)], name="slices go through",
        mode="markers", marker={"color": RED, "size": 11, "symbol": "star"},
        hovertemplate="%{text}<br>%{y:.6g}<extra></extra>", **place,
    )  # fmt: skip
    figure.update_xaxes(**axis.layout, **place)


def _band(
    x: list[float], low: list[float | None], high: list[float | None]
) -> tuple[list[float | None], list[float | None]]:
    """The outlines of a band, one for each stretch without a gap."""
    outline: tuple[list[float | None], list[float | None]] = ([], [])
    start = 0
    for i in range(len(x) + 1):
        if i < len(x) and low[i] is not None:
            continue
        if i > start:
            outline[0].extend([*x[start:i], *reversed(x[start:i]), None])
            outline[1].extend([*high[start:i], *reversed(low[start:i]), None])
        start = i + 1
    return outline


def _grid(study: Study, name: str, n: int) -> Tensor:  # (<= n,)
    """Coordinates along one column: its levels, of many levels some, or evenly spaced ones."""
    levels = study.space.parameters[name].n_levels
    even = torch.linspace(0.0, 1.0, n, dtype=torch.float64)
    if not levels:
        return even
    which = torch.arange(levels) if levels <= n else (even * (levels - 1)).round().long()
    return study.space.cube.at_level(study.space.columns.index(name), which)


def _along(study: Study, axis: Axis, U: Tensor) -> list[float]:
    return [axis.at(value) for value in study.space.parameters[axis.name].from_unit(U.tolist())]


def _best_with(surrogate: Surrogate, study: Study, names: list[str]) -> Trial | None:
    """The best trial that has all these parameters; a feasible one if there is any."""
    rows = [
        (are_met(study.outcome_constraints, t.outcomes), y, -t.number, t)
        for t, y in zip(surrogate.trials, surrogate.y.tolist(), strict=True)
        if all(name in t.config for name in names)
    ]
    return max(rows, key=lambda row: row[:3])[3] if rows else None


def _completed(surrogate: Surrogate, study: Study, centre: Trial) -> Tensor:  # (d,)
    """The trial's point, with the parameters that it lacks as the best trials that have them."""
    x = study.space.encode([centre.config])[0]
    for j, name in enumerate(study.space.columns):
        other = None if name in centre.config else _best_with(surrogate, study, [name])
        if other is not None:
            x[j] = study.space.encode([other.config])[0, j]
    return x


def _trial_of(surrogate: Surrogate, at: Trial | int) -> Trial:
    number = at.number if isinstance(at, Trial) else at
    found = [trial for trial in surrogate.trials if trial.number == number]
    if not found:
        raise UnknownTrialError(
            f"`at` must be a trial with a value that is modelled, or its number, got {at!r}."
        )
    return found[0]


def _of_model(surrogate: Surrogate) -> list[str]:
    where = "" if surrogate.budget is None else f" at budget {surrogate.budget:g}"
    failed = f", {surrogate.n_failed} failed ones left out" if surrogate.n_failed else ""
    return [f"a Gaussian process of {len(surrogate.trials)} trials{where}{failed}"]


def _whiskers(shares: list[Estimate]) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(share.high - share.value, 0.0) for share in shares],
        "arrayminus": [max(share.value - share.low, 0.0) for share in shares],
        "thickness": 1,
        "color": BLACK,
    }
