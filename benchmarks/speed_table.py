"""The cells of `benchmarks.speed`, their targets, and the markdown table of what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from textwrap import fill

from benchmarks.records import Record

_PEERS = {"optuna": "Optuna GPSampler", "botorch": "BoTorch", "scipy": "scipy L-BFGS-B"}  # columns of `short`
_WIDTH = 118  # of a line of text


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


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured of a row.

    Attributes:
        failed: The entrant that left no time, or None.
        ours: Seconds of wall clock and of CPU time of gpbo's entrant, by repetition.
        theirs: The same of the peer's.
        wall: The peer's time as a multiple of gpbo's, in each repetition that both have.
        cpu: The same of CPU time.
        guards: The worst of each.
        broken: Those that do not hold.
    """

    failed: str | None
    ours: dict[int, tuple[float, float]]
    theirs: dict[int, tuple[float, float]]
    wall: list[float]
    cpu: list[float]
    guards: dict[str, float]
    broken: list[str]

    @property
    def seconds(self) -> float:
        """gpbo's median wall clock."""
        return median(wall for wall, _ in self.ours.values())


def table(measured: Iterable[Record]) -> str:
    """The markdown table: medians, quartiles of paired ratios, targets and guards."""
    lines = [
        "| what | gpbo, CPU s | peer | peer, CPU s | times faster, CPU (quartiles) | wall clock "
        "| target (aim) | verdict | guards |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_line(row, result) for row, result in _results(list(measured)))])


def short(measured: Iterable[Record]) -> str:
    """A markdown table of medians with one line for each entrant of gpbo, and what was measured with."""
    measured = list(measured)
    found: dict[tuple[str, str], list[tuple[Row, Result]]] = {}
    for row, result in _results(measured):
        found.setdefault((row.cell, row.ours), []).append((row, result))
    header = ["times faster, CPU time", "gpbo", *_PEERS.values()]
    lines = [header, ["---"] * len(header), *(_short_line(results) for results in found.values())]
    repeats = [len(result.cpu or result.ours) for results in found.values() for _, result in results]
    revisions = sorted({record.get("revision", "unknown") for record in measured})
    versions = sorted({" ".join(v) for record in measured for v in record.get("versions", {}).items()})
    caption = (
        f"Medians of at most {max(repeats)} repetitions; in brackets the target. Revision "
        f"{', '.join(revisions)}; {', '.join(versions)}."
    )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n\n" + fill(caption, _WIDTH)


def _results(measured: Sequence[Record]) -> Iterator[tuple[Row, Result]]:
    for row in ROWS:
        here = [record for record in measured if record["cell"] == row.cell]
        if here:
            yield row, _result(row, here)


def _result(row: Row, here: Sequence[Record]) -> Result:
    from benchmarks.judge import LIMITS

    ours, theirs = _times(here, row.ours), _times(here, row.peer)
    both = [repeat for repeat in ours if repeat in theirs]
    guards = _worst_guards(here, row.ours)
    return Result(
        failed=row.ours if not ours else row.peer if not both else None,
        ours=ours,
        theirs=theirs,
        wall=[theirs[repeat][0] / ours[repeat][0] for repeat in both],
        cpu=[theirs[repeat][1] / ours[repeat][1] for repeat in both],
        guards=guards,
        broken=[name for name, value in guards.items() if not value <= LIMITS[name]],
    )


def _line(row: Row, result: Result) -> str:
    what = CELLS[row.cell].text + (f", {row.ours}" if row.ours != "gpbo" else "")
    what += f" ({row.note})" if row.note else ""
    guards = ", ".join(
        f"{name} {value:.1e}" + (" !" if name in result.broken else "")
        for name, value in result.guards.items()
    )
    if result.failed:
        end = f"{_target(row)} | {result.failed} failed | {guards} |"
        return f"| {what} | - | {row.peer or '-'} | - | - | - | {end}"
    cells = [
        what,
        _seconds(cpu for _, cpu in result.ours.values()),
        row.peer or "-",
        _seconds(cpu for _, cpu in result.theirs.values()) if row.peer else "-",
        _spread(result.cpu) if row.peer else "-",
        _spread(result.wall) if row.peer else f"{result.seconds:.3g} s",
        _target(row),
        _verdict(row, result),
        guards or "-",
    ]
    return "| " + " | ".join(cells) + " |"


def _short_line(results: Sequence[tuple[Row, Result]]) -> list[str]:
    """What it is, gpbo's seconds, and one cell for each of `_PEERS`."""
    first, result = results[0]
    notes = dict.fromkeys(row.note for row, _ in results if row.note)
    what = CELLS[first.cell].text + (f", {first.ours}" if first.ours != "gpbo" else "")
    what += f" ({'; '.join(notes)})" if notes else ""
    cells = {"": f"{_seconds(cpu for _, cpu in result.ours.values())} s" if result.ours else "failed"}
    for row, result in results:
        if result.failed:
            text = f"{result.failed} failed"
        else:
            text = f"{median(result.cpu):.3g}x" if row.peer else f"{result.seconds:.3g} s of wall clock"
            verdict = _verdict(row, result)
            text += f", {verdict}" if verdict != "-" else ""
        text += f" ({_target(row).partition(' (')[0]})" if row.least is not None else ""
        if row.peer:
            cells[row.peer.removesuffix("-cold")] = text
        else:
            cells[""] += f", {text}"
    return [what, *(cells.get(name, "") for name in ("", *_PEERS))]


def _verdict(row: Row, result: Result) -> str:
    if result.broken:
        return "guard failed"
    reached = median(result.cpu) if row.peer else result.seconds
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
