"""Many workers in virtual time: how busy they are, and how much sooner gpbo has BOHB's final regret.

    python -m benchmarks.asynchronous --workers 8,64 --seeds 0-4 --out async.jsonl

Entrants and problems are those of `benchmarks.multifidelity`; lcbench says how many seconds a training takes.
Every entrant spends `--each` full trainings' budget a worker, from scratch, or with `--resume` each going on
from where it was paused. The rival (`--rival`, HpBandSter's BOHB) is driven as its own server does: a worker
that finds all brackets blocked begins another one, so that nobody waits. The seconds that choosing takes are
not in the clock: they are milliseconds, and trainings minutes.

A run's regret is that of the best value at the full budget. Time is counted in the rival's, in the same
problem and seed, from its start to its end; regrets are averaged over problems and seeds at each time; and
the figure is how many times sooner an entrant's average is down to the rival's last one than the rival's is,
with the middle 95 % of a bootstrap over problems and seeds. An entrant that never gets there is "not".
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import records
from benchmarks.multifidelity import attempt, found_by, installed, read, task_of
from benchmarks.problems import all_problems, choose
from benchmarks.problems.base import Problem
from benchmarks.run import parse_seeds, revision
from gpbo.errors import SettingError

N_TIMES = 1000  # of the rival's time
N_RESAMPLES = 500

Run = Mapping[str, Any]


def run(
    problem: Problem, entrant: str, seed: int, *, workers: int, each: float, resume: bool
) -> dict[str, Any]:
    """One run, as a record."""
    task = task_of(problem, seed)
    task = replace(task, total=workers * each * task.max_budget)
    begun = time.perf_counter()
    found = found_by(entrant, problem, task, spend=task.total, workers=workers, resume=resume)
    best, worst = problem.optimum, problem.worst
    assert best is not None
    assert worst is not None
    steps = [
        (report.seconds, max((best - report.value) / (best - worst), 0.0)) for report in found.incumbents()
    ]
    return {
        "problem": problem.name,
        "entrant": entrant,
        "seed": seed,
        "workers": workers,
        "each": each,
        "resume": resume,
        "seconds": found.seconds,
        "busy": found.busy_share,
        "steps": steps,
        "trials": len({report.number for report in found.reports}),
        "wall_seconds": time.perf_counter() - begun,
    }


def regret_at(run: Run, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """The regret at each time; 1 while no trial was trained in full."""
    times = np.array([t for t, _ in run["steps"]])
    values = np.array([1.0, *(regret for _, regret in run["steps"])])
    return values[np.searchsorted(times, seconds, side="right")]


def speedup(mine: NDArray[np.float64], rivals: NDArray[np.float64]) -> float:
    """How many times sooner `mine` is down to the rival's last regret; 0 if it never is. (times,) each."""
    first, theirs = (int(np.argmax(curve <= rivals[-1])) for curve in (mine, rivals))
    return (theirs + 1) / (first + 1) if mine[first] <= rivals[-1] else 0.0


def table(runs: Sequence[Run], rival: str) -> str:
    """For each number of workers and entrant: busy share, regret at the rival's end, and the speed-up."""
    lines = [
        "| workers | entrant | runs | busy | regret at the rival's end | the rival's | times sooner |",
        "|---" * 7 + "|",
    ]
    for workers in sorted({r["workers"] for r in runs}):
        here = {(r["problem"], r["seed"], r["entrant"]): r for r in runs if r["workers"] == workers}
        for entrant in dict.fromkeys(r["entrant"] for r in runs):
            pairs: dict[str, list[NDArray[np.float64]]] = {}
            mine = []
            for (problem, seed, name), r in here.items():
                other = here.get((problem, seed, rival))
                if name == entrant and other is not None:
                    seconds = other["seconds"] * np.arange(1, N_TIMES + 1) / N_TIMES
                    pairs.setdefault(problem, []).append(
                        np.stack([regret_at(r, seconds), regret_at(other, seconds)])
                    )
                    mine.append(r)
            if not mine:
                continue
            curves = np.mean([np.mean(blocks, 0) for blocks in pairs.values()], 0)
            sooner = _sooner(pairs)
            cells = [
                f"{fmean(r['busy'] for r in mine):.2%}",
                f"{curves[0, -1]:.4f}",
                f"{curves[1, -1]:.4f}",
                sooner,
            ]
            lines.append(f"| {workers} | {entrant} | {len(mine)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _sooner(pairs: Mapping[str, Sequence[NDArray[np.float64]]]) -> str:
    rng = np.random.default_rng(0)
    blocks = [np.array(block) for block in pairs.values()]
    found = [speedup(*np.mean([block.mean(0) for block in blocks], 0))]
    for _ in range(N_RESAMPLES):
        drawn = [blocks[i] for i in rng.integers(len(blocks), size=len(blocks))]
        means = [block[rng.integers(len(block), size=len(block))].mean(0) for block in drawn]
        found.append(speedup(*np.mean(means, 0)))
    value, low, high = (
        "not" if x == 0 else f"{x:.1f}" for x in (found[0], *np.quantile(found[1:], [0.025, 0.975]))
    )
    return f"{value} ({low} to {high})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the file does not hold yet, and print the table."""
    options = _parser().parse_args(arguments)
    try:
        return _main(options)
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _main(options: argparse.Namespace) -> int:
    data = options.data or os.environ.get("GPBO_BENCH_DATA")
    if not data:
        raise SettingError("`--data` or GPBO_BENCH_DATA must name the folder of the YAHPO surrogates.")
    entrants = installed([options.rival, *options.entrants.split(",")])
    if options.rival not in entrants:
        raise SettingError(f"`--rival` {options.rival} is not installed.")
    split = None if options.split == "both" else options.split
    problems = choose(all_problems(Path(data)), options.problems.split(","), split)
    runs = read(options.out)
    names = ("problem", "entrant", "seed", "workers", "each", "resume")
    done = {tuple(r.get(name) for name in names) for r in runs}
    about = {"revision": revision(), "versions": records.versions()}
    for seed in parse_seeds(options.seeds):
        for workers in (int(w) for w in options.workers.split(",")):
            for problem in problems:
                for entrant in entrants:
                    settings = {"workers": workers, "each": options.each, "resume": options.resume}
                    if (problem.name, entrant, seed, *settings.values()) not in done:
                        record = attempt(partial(run, **settings), problem, entrant, seed)
                        runs.append({**settings, **record, **about})
                        records.append(options.out, runs[-1])
    for r in (r for r in runs if "error" in r):
        print(f"{r['problem']} {r['entrant']} failed: {r['error'].splitlines()[-1]}", file=sys.stderr)
    same = [
        r for r in runs if "error" not in r and (r["each"], r["resume"]) == (options.each, options.resume)
    ]
    print(table(same, options.rival))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.asynchronous", description="Many workers in virtual time."
    )
    parser.add_argument("--entrants", default="asha-bohb", help="names, with commas")
    parser.add_argument("--rival", default="hpbandster-bohb", help="the entrant that time is counted in")
    parser.add_argument("--workers", default="8,64", help="numbers, with commas")
    parser.add_argument("--each", type=float, default=20.0, help="full trainings' budget for each worker")
    parser.add_argument("--resume", action="store_true", help="promoted trials go on from where they were")
    parser.add_argument("--problems", default="lcbench/*", help="patterns, with commas")
    parser.add_argument("--split", choices=["dev", "test", "both"], default="dev")
    parser.add_argument("--seeds", default="0-9", help="such as 0-9 or 0,3,5-7")
    parser.add_argument("--data", type=Path, help="the folder of the YAHPO surrogates")
    parser.add_argument("--out", type=Path, required=True)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
