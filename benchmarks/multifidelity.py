"""Budgets: what schedulers and suggesters find on learning curves, for the same total of budget.

    python -m benchmarks.multifidelity --entrants hyperband,bohb --seeds 0-29 --out mf.jsonl

The protocol is that of YAHPO Gym's multi-fidelity study (Pfisterer et al. 2022): one worker; in all
20 + 40 sqrt(d) evaluations at the full budget's price; eta 3; epochs from 1 on and training sets from 3 % on,
so that the rungs are 2, 6, 17 and 52 epochs and 1/27, 1/9, 1/3 and 1 of the data. Every promotion pays from
scratch; a trial that reports on its way and is then stopped, rather than paused, pays once.

A run's figures are normalised regrets, (best known - found) / (best known - published worst), after 10, 25,
50 and 100 % of the budget, by two definitions of what is found: `full`, the best value at the full budget (1
while there is none), and `any`, the best value at any budget, as published; below 0 is counted as 0. Defaults
may be chosen on the development split alone. A file that is there already is continued; its table is
printed at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import records
from benchmarks.problems import all_problems, choose
from benchmarks.problems.base import Problem
from benchmarks.run import parse_seeds, revision
from gpbo import ASHA, BOHBSuggester, GPSuggester, Hyperband, RandomSuggester, Simulation, simulate
from gpbo.errors import SettingError
from gpbo.schedulers.base import Scheduler
from gpbo.suggesters.base import Suggester
from gpbo.suggesters.multifidelity import MultiFidelitySuggester

FRACTIONS = (0.1, 0.25, 0.5, 1.0)
_LOWEST = {"lcbench": 1}  # as published; the smallest rung is then 2, since epoch 1 is an untrained network

Entrant = Callable[[float, float], tuple[Scheduler | None, Suggester]]

ENTRANTS: Mapping[str, Entrant] = {
    "random": lambda low, high: (None, RandomSuggester()),
    "gp": lambda low, high: (None, GPSuggester()),
    "hyperband": lambda low, high: (Hyperband(low, high), RandomSuggester()),
    "bohb-reference": lambda low, high: (Hyperband(low, high), BOHBSuggester(reference=True)),
    "bohb": lambda low, high: (Hyperband(low, high), BOHBSuggester()),
    "hyperband-mix": lambda low, high: (Hyperband(low, high), MultiFidelitySuggester()),
    "asha-mix": lambda low, high: (ASHA(low, high), MultiFidelitySuggester()),
    "hyperband-mix3": lambda low, high: (Hyperband(low, high), MultiFidelitySuggester(density_share=0.25)),
    "hyperband-gp": lambda low, high: (Hyperband(low, high), GPSuggester()),
    "asha": lambda low, high: (ASHA(low, high), RandomSuggester()),
    "asha-bohb": lambda low, high: (ASHA(low, high), BOHBSuggester()),
    "asha-bohb-audit": lambda low, high: (ASHA(low, high, audit=0.05), BOHBSuggester()),
    "asha-gp": lambda low, high: (ASHA(low, high), GPSuggester()),
    "asha-stopping-bohb": lambda low, high: (ASHA(low, high, stopping=True), BOHBSuggester()),
}


def run(problem: Problem, entrant: str, seed: int) -> dict[str, Any]:
    """One run, as a record.

    Raises:
        SettingError: if the problem has no budgets, or no optimum or worst value is known.
    """
    fidelity = problem.fidelity
    if fidelity is None or problem.optimum is None or problem.worst is None:
        raise SettingError(f"{problem.name} has no budgets, or too little is known of it.")
    scheduler, suggester = ENTRANTS[entrant](_LOWEST.get(problem.group, fidelity.low), fidelity.high)
    total = (20 + 40 * math.sqrt(len(problem.space.columns))) * fidelity.high

    def objective(config: Mapping[str, Any], budget: float | None) -> tuple[float, float]:
        at = fidelity.high if budget is None else budget
        return fidelity.objective(config, at), max(fidelity.cost(config, at), 0.0)

    begun = time.perf_counter()
    found = simulate(
        problem.space,
        objective,
        scheduler=scheduler,
        suggester=suggester,
        spend=total if scheduler else total / fidelity.high,  # without budgets a report counts 1
        resume=False,
        direction=problem.direction,
        seed=seed,
        device="cpu",
    )
    unit = 1.0 if scheduler else fidelity.high
    return {
        "problem": problem.name,
        "entrant": entrant,
        "seed": seed,
        "full": regrets(problem, found, total / unit, any_budget=False),
        "any": regrets(problem, found, total / unit, any_budget=True),
        "trials": len(found.study.trials),
        "reports": len(found.reports),
        "wall_seconds": time.perf_counter() - begun,
        "revision": revision(),
        "versions": records.versions(),
    }


def regrets(problem: Problem, found: Simulation, total: float, *, any_budget: bool) -> list[float]:
    """The normalised regret of the incumbent at each of `FRACTIONS` of the total, from scratch."""
    best, worst = problem.optimum, problem.worst
    if best is None or worst is None:
        raise SettingError(f"{problem.name} has no scale for its regret.")
    incumbents = found.incumbents(any_budget=any_budget)
    values = []
    for fraction in FRACTIONS:
        # what ends just behind the mark is not yet known there; rounding is forgiven
        known = [r.value for r in incumbents if r.spent_from_scratch <= fraction * total * (1 + 1e-9)]
        values.append(max((best - known[-1]) / (best - worst), 0.0) if known else 1.0)
    return values


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Mean regrets of each group and entrant over its problems, each over its seeds."""
    head = [f"{kind} {fraction:.0%}" for kind in ("full", "any") for fraction in FRACTIONS]
    lines = [
        "| group | entrant | problems | runs | " + " | ".join(head) + " |",
        "|---" * (4 + len(head)) + "|",
    ]
    groups = sorted({r["problem"].split("/")[0] for r in runs})
    for group in groups:
        here = [r for r in runs if r["problem"].split("/")[0] == group]
        for entrant in [name for name in ENTRANTS if any(r["entrant"] == name for r in here)]:
            mine = [r for r in here if r["entrant"] == entrant]
            names = sorted({r["problem"] for r in mine})
            cells = [
                fmean(fmean(r[kind][i] for r in mine if r["problem"] == name) for name in names)
                for kind in ("full", "any")
                for i in range(len(FRACTIONS))
            ]
            lines.append(
                f"| {group} | {entrant} | {len(names)} | {len(mine)} | "
                + " | ".join(f"{cell:.4f}" for cell in cells)
                + " |"
            )
    return "\n".join(lines)


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
    unknown = [name for name in options.entrants.split(",") if name not in ENTRANTS]
    if unknown:
        raise SettingError(f"`--entrants` must be among {', '.join(ENTRANTS)}; got {unknown[0]!r}.")
    split = None if options.split == "both" else options.split
    chosen = [p for p in choose(all_problems(Path(data)), options.problems.split(","), split) if p.fidelity]
    runs = _read(options.out)
    done = {(r["problem"], r["entrant"], r["seed"]) for r in runs}
    for problem in chosen:
        for seed in parse_seeds(options.seeds):
            for entrant in options.entrants.split(","):
                if (problem.name, entrant, seed) not in done:
                    record = run(problem, entrant, seed)
                    records.append(options.out, record)
                    runs.append(record)
    print(table(runs))
    return 0


def _read(path: Path) -> list[dict[str, Any]]:
    """The records of a file, without a last line that was cut off."""
    lines = path.read_text().split("\n") if path.is_file() else []
    return [json.loads(line) for line in lines[:-1]]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.multifidelity", description="Schedulers and suggesters over budgets."
    )
    parser.add_argument("--entrants", default="random,hyperband,bohb,asha-bohb", help="names, with commas")
    parser.add_argument("--problems", default="lcbench/*,rbv2_rpart/*", help="patterns, with commas")
    parser.add_argument("--split", choices=["dev", "test", "both"], default="dev")
    parser.add_argument("--seeds", default="0-29", help="such as 0-29 or 0,3,5-7")
    parser.add_argument("--data", type=Path, help="the folder of the YAHPO surrogates")
    parser.add_argument("--out", type=Path, required=True)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
