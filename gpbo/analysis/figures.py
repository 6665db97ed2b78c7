"""What all figures share: plotly where it is installed, colours, axes in the user's units.

The colours are Okabe and Ito's and the scale is cividis, which colour-blind people can tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from gpbo.errors import MissingExtraError, SettingError, did_you_mean
from gpbo.markup import settings, text
from gpbo.parameters import Categorical, Parameter
from gpbo.trial import Trial

if TYPE_CHECKING:
    from gpbo.space import SearchSpace
    from gpbo.study import Study

BLUE, ORANGE, GREEN, RED, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9"
GREY, BLACK = "#8C8C8C", "#000000"
BAND = {BLUE: "rgba(0, 114, 178, 0.18)", ORANGE: "rgba(230, 159, 0, 0.22)"}
SCALE = "Cividis"
_DECADES = 2.0  # that positive values must span to be shown on a log axis
_MOST_TICKS = 9


def graph_objects() -> Any:
    """The module `plotly.graph_objects`.

    Raises:
        MissingExtraError: if plotly is not installed.
    """
    try:
        import plotly.graph_objects as go
    except ImportError:
        raise MissingExtraError("plotly is not installed; pip install 'gpbo[plot]'.") from None
    return go


def panels(titles: Sequence[str], *, columns: int = 3, **options: Any) -> tuple[Any, list[dict[str, int]]]:
    """A figure of several panels, and the keywords that put a trace into each."""
    graph_objects()
    from plotly.subplots import make_subplots

    columns = min(columns, len(titles))
    rows = math.ceil(len(titles) / columns)
    figure = make_subplots(rows, columns, subplot_titles=[escape(t, quote=False) for t in titles], **options)
    return figure, [{"row": 1 + k // columns, "col": 1 + k % columns} for k in range(len(titles))]


def finish(figure: Any, title: str, notes: Iterable[str] = (), **layout: Any) -> Any:
    """The figure with its title, and below it what must be known to read it."""
    words = escape("; ".join(notes), quote=False)
    heading: dict[str, Any] = {"text": escape(title, quote=False)}
    if words:
        heading["subtitle"] = {"text": words}
    figure.update_layout(title=heading, template="plotly_white", margin={"t": 120}, **layout)
    return figure


def once_in_legend(figure: Any) -> None:
    """Let traces of the same name share one entry of the legend."""
    named: set[str] = set()
    for trace in figure.data:
        if trace.name is not None and trace.showlegend is not False:
            trace.update(legendgroup=trace.name, showlegend=trace.name not in named)
            named.add(trace.name)


@dataclass(frozen=True, slots=True)
class Axis:
    """Where the values of a parameter stand on an axis: choices at 0, 1, ..., numbers where they are."""

    name: str
    parameter: Parameter

    @property
    def is_log(self) -> bool:
        """Whether equal ratios are equally far apart."""
        return not isinstance(self.parameter, Categorical) and self.parameter.log

    def at(self, value: Any) -> float:
        """The coordinate of a value."""
        if not isinstance(self.parameter, Categorical):
            return float(value)
        [u] = self.parameter.to_unit([self.parameter.normalise(value)])  # the middle of its cell
        return float(int(u * self.parameter.n_levels))

    @property
    def layout(self) -> dict[str, Any]:
        """What plotly is to be told of the axis."""
        words: dict[str, Any] = {"title": {"text": escape(self.name, quote=False)}}
        if isinstance(self.parameter, Categorical):
            choices = self.parameter.choices
            labels = [escape(_choice(choice, choices), quote=False) for choice in choices]
            return words | {"tickvals": list(range(len(choices))), "ticktext": labels}
        return words | (_log_axis(self.parameter.low, self.parameter.high) if self.parameter.log else {})

    @property
    def dimension(self) -> dict[str, Any]:
        """What a parallel plot is to be told of it: an axis that is never logarithmic itself."""
        parameter = self.parameter
        if isinstance(parameter, Categorical):
            layout = self.layout
            return {"tickvals": layout["tickvals"], "ticktext": layout["ticktext"]}
        low, high = float(parameter.low), float(parameter.high)
        if not parameter.log:
            return {"range": [low, high]}
        ticks = log_ticks(low, high)
        return {
            "range": [math.log10(low), math.log10(high)],
            "tickvals": [math.log10(tick) for tick in ticks],
            "ticktext": [text(tick) for tick in ticks],
        }


def axis_of(space: SearchSpace, name: Any, role: str) -> Axis:
    """The axis of a parameter that varies.

    Raises:
        SettingError: if there is none of this name, or it is a constant.
    """
    if name not in space.columns:
        hint = did_you_mean(str(name), space.columns)
        why = " is a constant" if name in space.parameters else f" must be one of {space.columns}"
        raise SettingError(f"`{role}`{why}, got {name!r}.{hint}")
    return Axis(name, space.parameters[name])


def value_axis(values: Iterable[float], title: str) -> dict[str, Any]:
    """The axis of an objective: logarithmic where positive values span two decades."""
    finite = list(values)
    low, high = min(finite), max(finite)
    words: dict[str, Any] = {"title": {"text": title}}
    return words | (_log_axis(low, high) if is_wide(finite) else {})


def is_wide(values: Sequence[float]) -> bool:
    """Whether values are to be shown on a log axis."""
    return min(values) > 0.0 and math.log10(max(values)) - math.log10(min(values)) >= _DECADES


def shown(values: Iterable[float], axis: Mapping[str, Any], observed: Iterable[float]) -> list[float]:
    """Values that are to stand on an axis; on a logarithmic one none below a tenth of all observed."""
    if axis.get("type") != "log":
        return list(values)
    floor = 0.1 * min(observed)
    return [max(value, floor) for value in values]


def column_of(study: Study, objective: int) -> str:
    """What an objective is called: "value", or "value_0" and so on."""
    return "value" if len(study.directions) == 1 else f"value_{objective}"


def wanted(study: Study, objective: int) -> str:
    """The objective's name with its direction."""
    return f"{column_of(study, objective)} ({study.directions[objective]}d)"


def hover(trial: Trial) -> str:
    """What is said of a trial where the mouse is over it."""
    return f"trial {trial.number}: {escape(settings(trial.config), quote=False)}"


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, not too many, or where there are none the ends."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    step = max(1, math.ceil((last - first + 1) / _MOST_TICKS))
    ticks = [10.0**k for k in range(first, last + 1, step)]
    return sorted({low, *ticks, high}) if len(ticks) < 3 else ticks


def _log_axis(low: float, high: float) -> dict[str, Any]:
    decades = math.log10(high) - math.log10(low)
    ticks = {"dtick": max(1, math.ceil(decades / _MOST_TICKS))} if decades >= _DECADES else {}
    return {"type": "log", "exponentformat": "power", **ticks}


def _choice(choice: Any, choices: Sequence[Any]) -> str:
    """A choice as people read it, in quotes where another looks like it."""
    alike = sum(text(other) == text(choice) for other in choices) > 1
    return repr(choice) if alike or choice in (None, "") else text(choice)
