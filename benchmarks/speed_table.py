"""The cells of `benchmarks.speed`, their targets, and the markdown table of what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from benchmarks.records import Record


@dataclass(frozen=True, slots=True)
class Cell:
    """One thing that is timed.

    Attributes:
        text: What it is, for the table.
        n: How many points are told.
        device: Where it is measured, "cpu" or "cuda".
        once: Entrants that run in the first repetition only, because they take minutes.
    """

    text: str
    n: int
    device: str = "cpu"
    once: tuple[str, ...] = ()


CELLS = {
    "ask-200": Cell("ask with refit, n = 200", 200),
    "ask-1000": Cell("ask with refit, n = 1000", 1000, once=("botorch",)),
    "pending-1000": Cell("tell of a pending point, n = 1000", 1000),
    "batch-64": Cell("q = 64 batch, n = 500", 500),
    "fit-200": Cell("cold fit, n = 200", 200),
    "fit-500": Cell("cold fit, n = 500", 500),
    "ask-10000": Cell("ask with refit, n = 10 000", 10_000),
    "ask-1024-starts": Cell("ask with refit, n = 1000, 1 024 starts", 1000, "cuda"),
    "fit-20000": Cell("cold exact fit, n = 20 000", 20_000, "cuda"),
    "factor-100000": Cell("exact factor, n = 100 000", 100_000, "cuda"),
    "thompson-256": Cell("q = 256 Thompson batch, n = 10 000", 10_000, "cuda"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: an entrant of gpbo against a peer, or against a number of seconds.

    Attributes:
        cell: Where.
        ours: The entrant of gpbo.
        peer: The other entrant; None where a time counts by itself.
        least: The least ratio, or the most seconds, that was set as a target.
        aim: What was aimed at.
        note: What must be known to read the row.
    """

    cell: str
    ours: str
    peer: str | None = None
    least: float | None = None
    aim: float | None = None
    note: str = ""


ROWS = (
    Row("ask-200", "gpbo", "optuna", 5, 15),
    Row("ask-200", "gpbo-cold", "optuna-cold", note="first ask, nothing to start from"),
    Row("ask-200", "gpbo", "botorch", 20, 100),
    Row("ask-1000", "gpbo", "optuna", 10, 30),
    Row("ask-1000", "gpbo-cold", "optuna-cold", note="first ask, nothing to start from"),
    Row("ask-1000", "gpbo", "botorch"),
    Row("pending-1000", "gpbo", "botorch", 100, 300, "condition_on_observations"),
    Row("batch-64", "gpbo-greedy", "botorch", 50, 200, "BoTorch extrapolated from q = 4 and 8"),
    Row("batch-64", "gpbo-thompson", "botorch", 50, 200, "BoTorch extrapolated from q = 4 and 8"),
    Row("fit-200", "gpbo", "botorch", note="fit_gpytorch_mll, same kernel and priors"),
    Row("fit-200", "gpbo", "scipy", note="L-BFGS-B on gpbo's objective"),
    Row("fit-500", "gpbo", "botorch", note="fit_gpytorch_mll, same kernel and priors"),
    Row("fit-500", "gpbo", "scipy", note="L-BFGS-B on gpbo's objective"),
    Row("ask-10000", "gpbo", note="peers hold an n x n x d tensor or fit exactly: not run"),
    Row("ask-1024-starts", "gpbo", None, 0.010, 0.004),
    Row("ask-1024-starts", "gpbo", "botorch", 70, 300),
    Row("fit-20000", "gpbo", None, 3.0, 1.5),
    Row("factor-100000", "gpbo", None, 8.0, 6.0),
    Row("thompson-256", "gpbo", None, 0.050, 0.025),
)


def table(measured: Iterable[Record]) -> str:
    """The markdown table: medians, quartiles of paired ratios, targets and guards."""
    measured = list(measured)
    lines = [
        "| what | gpbo, CPU s | peer | peer, CPU s | times faster, CPU (quartiles) | wall clock "
        "| target (aim) | verdict | guards |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        here = [record for record in measured if record["cell"] == row.cell]
        if here:
            lines.append(_line(row, here))
    return "\n".join(lines)


def _line(row: Row, here: Sequence[Record]) -> str:
    from benchmarks.judge import LIMITS

    ours, theirs = _times(here, row.ours), _times(here, row.peer)
    what = CELLS[row.cell].text + (f", {row.ours}" if row.ours != "gpbo" else "")
    what += f" ({row.note})" if row.note else ""
    both = [repeat for repeat in ours if repeat in theirs]
    worst = _worst_guards(here, row.ours)
    broken = [name for name, value in worst.items() if not value <= LIMITS[name]]
    guards = ", ".join(f"{name} {worst[name]:.1e}" + (" !" if name in broken else "") for name in worst)
    if not ours or (row.peer and not both):
        who = row.ours if not ours else row.peer
        return f"| {what} | - | {row.peer or '-'} | - | - | - | {_target(row)} | {who} failed | {guards} |"
    cpu = [theirs[repeat][1] / ours[repeat][1] for repeat in both]
    wall = [theirs[repeat][0] / ours[repeat][0] for repeat in both]
    seconds = median(time[0] for time in ours.values())
    reached = median(cpu) if row.peer else seconds
    cells = [
        what,
        _seconds(time[1] for time in ours.values()),
        row.peer or "-",
        _seconds(time[1] for time in theirs.values()) if row.peer else "-",
        _spread(cpu) if row.peer else "-",
        _spread(wall) if row.peer else f"{seconds:.3g} s",
        _target(row),
        "guard failed" if broken else _verdict(row, reached),
        guards or "-",
    ]
    return "| " + " | ".join(cells) + " |"


def _verdict(row: Row, reached: float) -> str:
    if row.least is None or row.aim is None:
        return "slower" if row.peer and reached < 1.0 else "-"
    sign = 1.0 if row.peer else -1.0
    if sign * reached >= sign * row.aim:
        return "aim met"
    return "met" if sign * reached >= sign * row.least else "**missed**"


def _target(row: Row) -> str:
    if row.least is None or row.aim is None:
        return "-"
    return f"{row.least:g}x ({row.aim:g}x)" if row.peer else f"{row.least:g} s ({row.aim:g} s)"


def _times(here: Iterable[Record], entrant: str | None) -> dict[int, tuple[float, float]]:
    return {
        record["repeat"]: (record["wall_seconds"], record["cpu_seconds"])
        for record in here
        if record["entrant"] == entrant and record["error"] is None
    }


def _worst_guards(here: Iterable[Record], ours: str) -> dict[str, float]:
    worst: dict[str, float] = {}
    for record in here:
        if record["entrant"] == ours:
            for name, value in record["guards"].items():
                worst[name] = max(value, worst.get(name, value))
    return worst


def _seconds(times: Iterable[float]) -> str:
    return f"{median(times):.3g}"


def _spread(ratios: Sequence[float]) -> str:
    if len(ratios) < 2:
        return f"{ratios[0]:.3g}x"
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    return f"{middle:.3g}x ({low:.3g}-{high:.3g})"
