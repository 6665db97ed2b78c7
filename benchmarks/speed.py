"""Time gpbo beside its peers, with guards on what the time bought; lines of JSON and a table.

    python -m benchmarks.speed --device cpu --out speed.jsonl
    python -m benchmarks.speed --table speed.jsonl [--short]

The table is made of all lines in the file, so cells may be measured one at a time into the same file.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import records
from benchmarks.records import Record
from benchmarks.run import revision
from benchmarks.speed_table import CELLS, short, table
from gpbo.errors import GpboError, SettingError, did_you_mean

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_FEW = 24  # points of a warm-up


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, measure unless a file is only to be read, print the table; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.out:
            _run(options)
        measured = read(options.out or options.table)
        if options.table and not measured:
            raise SettingError(f"there are no measurements at {options.table}.")
    except GpboError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print((short if options.short else table)(measured))
    return 0


def choose(names: str | None, device: str, *, cuda: bool) -> list[str]:
    """The cells that can be measured here; the others are named on stderr.

    Raises:
        SettingError: if a name is not that of a cell.
    """
    wanted = [name for name in names.split(",") if name] if names is not None else list(CELLS)
    chosen = []
    for name in wanted:
        if name not in CELLS:
            hint = did_you_mean(name, CELLS)
            raise SettingError(f"`--cells` must be of {list(CELLS)}, got {name!r}.{hint}")
        needed = CELLS[name].device
        if needed == "cuda" and not cuda:
            print(f"{name} is left out: it needs CUDA, and there is none here", file=sys.stderr)
        elif needed != device:
            if names is not None or needed == "cuda":
                print(f"{name} is left out: it is measured with --device {needed}", file=sys.stderr)
        else:
            chosen.append(name)
    return chosen


def measure(cell: str, repeat: int, device: str) -> list[Record]:
    """The measurements of one repetition; an entrant that raises leaves its traceback."""
    from benchmarks.contest_data import Clock

    spec = CELLS[cell]
    try:
        contest = _makers(device)[cell](spec.n, repeat)
    except Exception:
        return [_record(cell, "gpbo", repeat, device, error=traceback.format_exc())]
    names = [name for name in contest.entrants if repeat == 0 or name not in spec.once]
    found, failed = [], False
    for name in reversed(names) if repeat % 2 else names:
        clock, error = Clock(device), None
        try:
            contest.entrants[name](clock)
        except Exception:
            error, failed = traceback.format_exc(), True
            found.append(_record(cell, name, repeat, device, error=error))
        for entrant, (wall, cpu) in clock.times.items():
            found.append(_record(cell, entrant, repeat, device, wall=wall, cpu=cpu))
    try:
        guards = {} if failed else contest.guards(thorough=repeat == 0)
    except Exception:
        guards = {}
        found.append(_record(cell, "guards", repeat, device, error=traceback.format_exc()))
    for record in found:
        record["guards"] = _guards_of(record["entrant"], guards)
    return found


def read(path: Path) -> list[Record]:
    """The measurements in a file.

    Raises:
        SettingError: if a line is not a measurement.
    """
    found = []
    for i, line in enumerate(path.read_text().splitlines() if path.is_file() else []):
        try:
            record = json.loads(line)
            record["cell"], record["entrant"], record["repeat"]
        except (ValueError, KeyError, TypeError):
            raise SettingError(f"line {i + 1} of {path} is not a measurement: {line[:80]!r}.") from None
        found.append(record)
    return found


def _guards_of(entrant: str, guards: dict[str, float]) -> dict[str, float]:
    """The guards of a whole contest, and those that are of this entrant alone; peers have none."""
    if not entrant.startswith("gpbo") or entrant.endswith("-cold"):
        return {}
    own = {name.rpartition(":")[2]: value for name, value in guards.items() if name.startswith(f"{entrant}:")}
    return {name: value for name, value in guards.items() if ":" not in name} | own


def _makers(device: str) -> dict[str, Callable[[int, int], Any]]:
    """How each cell's contest is made, from the number of points and the repetition."""
    from benchmarks import contests, contests_cuda

    return {
        "ask-200": contests.Ask,
        "ask-1000": contests.Ask,
        "pending-1000": contests.PendingPoint,
        "batch-64": contests.Batch,
        "fit-200": contests.ColdFit,
        "fit-500": contests.ColdFit,
        "ask-10000": partial(contests.Ask, peers=False),
        "ask-1024-starts": partial(contests_cuda.AskStarts, device=device),
        "fit-20000": partial(contests.ColdFit, device=device, peers=False),
        "factor-100000": partial(contests_cuda.Factor, device=device),
        "thompson-256": partial(contests_cuda.ThompsonMany, device=device),
    }


def _warm_up(cell: str, device: str) -> None:
    """Run all entrants on little data, for imports and what else a process does once."""
    from benchmarks.contest_data import Clock

    with suppress(Exception):  # what fails here fails in the measurement, and is recorded there
        for entrant in _makers(device)[cell](_FEW, 0).entrants.values():
            entrant(Clock(device))


def _run(options: argparse.Namespace) -> None:
    if options.repeats < 1:
        raise SettingError(f"`--repeats` must be >= 1, got {options.repeats}.")
    if options.device not in ("cpu", "cuda"):
        raise SettingError(f"`--device` must be cpu or cuda, got {options.device!r}.")
    for variable in _THREADS:  # before the processes start, so that they are obeyed
        os.environ[variable] = "1"
    cuda = options.device == "cuda" and _has_cuda()
    cells = choose(options.cells, options.device, cuda=cuda)
    about = {
        "revision": revision(),
        "versions": records.versions(),
        "machine": {"python": platform.python_version(), "cpus": os.cpu_count(), "threads": 1},
    }
    spawn = multiprocessing.get_context("spawn")
    for cell in cells:
        begin = partial(_warm_up, cell, options.device)
        with ProcessPoolExecutor(1, mp_context=spawn, initializer=begin) as pool:
            for repeat in range(options.repeats):
                try:
                    found = pool.submit(measure, cell, repeat, options.device).result()
                except BrokenProcessPool:
                    found = [_record(cell, "gpbo", repeat, options.device, error="the process died")]
                for record in found:
                    records.append(options.out, {**record, **about})
                print(
                    f"{cell} {repeat + 1}/{options.repeats}: {_summary(found)}", file=sys.stderr, flush=True
                )
                if found[-1]["error"] == "the process died":
                    break


def _summary(found: Sequence[Record]) -> str:
    return ", ".join(
        f"{record['entrant']} "
        + (f"{record['cpu_seconds']:.3g} s" if record["error"] is None else record["error"].splitlines()[-1])
        for record in found
    )


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _record(
    cell: str,
    entrant: str,
    repeat: int,
    device: str,
    *,
    wall: float | None = None,
    cpu: float | None = None,
    error: str | None = None,
) -> Record:
    return {
        "cell": cell,
        "entrant": entrant,
        "repeat": repeat,
        "device": device,
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "guards": {},
        "error": error,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed", description="Time gpbo beside its peers, with guards."
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, help="measure into this file")
    where.add_argument("--table", type=Path, help="measure nothing; print the table of this file")
    parser.add_argument("--short", action="store_true", help="print the short table")
    parser.add_argument("--cells", help=f"some of {','.join(CELLS)}")
    parser.add_argument("--repeats", type=int, default=5)
    return parser


if __name__ == "__main__":
    sys.exit(main())
