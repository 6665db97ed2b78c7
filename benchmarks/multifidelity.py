"""Budgets: what schedulers and suggesters find on learning curves, for the same total of budget.

    python -m benchmarks.multifidelity --entrants random,bohb,hpbandster-bohb --seeds 0-29 --out mf.jsonl

The protocol is that of YAHPO Gym's multi-fidelity study (Pfisterer et al. 2022): one worker; in all
20 + 40 sqrt(d) evaluations at the full budget's price; eta 3; epochs from 1 on and training sets from 3 % on,
so that the rungs are 2, 6, 17 and 52 epochs and 1/27, 1/9, 1/3 and 1 of the data. Every promotion pays from
scratch. An epoch passed on the way to a later one is free to report at; a smaller training set is another
training, which every report pays for.

Entrants are gpbo's (`ENTRANTS`) and its peers at their defaults, on the same accounts; how each peer is
driven is said at the top of its module.

    hpbandster-hyperband, hpbandster-bohb      HpBandSter's own brackets and generators, without its servers
    optuna-tpe-hyperband, optuna-tpe-median    TPE with each of the two pruners, reporting at the rungs
    smac-hyperband                             SMAC3's MultiFidelityFacade, by ask and tell
    dehb                                       DEHB, by ask and tell

In a block of one problem and one seed the entrants run one after the other in this process, in the order
A B C and in the next block C B A. A peer whose package is missing is named and left out; an entrant that
raises leaves a line with the error, which is not repeated.

A run's figures are normalised regrets, (best known - found) / (best known - published worst), after 10, 25,
50 and 100 % of the budget, by two definitions of what is found: `full`, the best value at the full budget (1
while there is none), and `any`, the best value at any budget, as published; below 0 is counted as 0. Defaults
may be chosen on the development split alone, whose problems are in benchmarks/README.md. A file that is there
already is continued; its tables are printed at the end: mean regrets, the ratios of one entrant's to the
others' (`--subject`), both with 95 % intervals of a bootstrap over problems and seeds, and, for the instances
of the published study that are there, the published figures beside ours.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import records
from benchmarks.anchors import ANCHORED, ANCHORS
from benchmarks.peers import budgets
from benchmarks.peers.budgets import BUDGET_PEERS, BudgetTask
from benchmarks.problems import all_problems, choose
from benchmarks.problems.base import Problem
from benchmarks.run import parse_seeds, revision
from gpbo import ASHA, BOHBSuggester, GPSuggester, Hyperband, RandomSuggester, Simulation, simulate
from gpbo.errors import SettingError
from gpbo.schedulers.base import Scheduler
from gpbo.suggesters.base import Suggester
from gpbo.suggesters.multifidelity import MultiFidelitySuggester

FRACTIONS = (0.1, 0.25, 0.5, 1.0)
N_RESAMPLES = 2000
_ON_THE_WAY = {"lcbench"}  # groups whose trials pass through smaller budgets
_LOWEST = {"lcbench": 1}  # as published; the smallest rung is then 2, since epoch 1 is an untrained network

Run = Mapping[str, Any]
Array = NDArray[np.float64]
Entrant = Callable[[float, float], tuple[Scheduler | None, Suggester]]

ENTRANTS: Mapping[str, Entrant] = {
    "random": lambda low, high: (None, RandomSuggester()),
    "gp": lambda low, high: (None, GPSuggester()),
    "hyperband": lambda low, high: (Hyperband(low, high), RandomSuggester()),
    "bohb-reference": lambda low, high: (Hyperband(low, high), BOHBSuggester(reference=True)),
    "bohb": lambda low, high: (Hyperband(low, high), BOHBSuggester()),
    "gpbo-hyperband": lambda low, high: (Hyperband(low, high), MultiFidelitySuggester()),
    "gpbo-asha": lambda low, high: (ASHA(low, high), MultiFidelitySuggester()),
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
    task = task_of(problem, seed)
    begun = time.perf_counter()
    found = found_by(entrant, problem, task, spend=task.total)
    unit = 1.0 if found.reports[0].budget else task.max_budget  # without budgets a report counts 1
    return {
        "problem": problem.name,
        "entrant": entrant,
        "seed": seed,
        "full": regrets(problem, found, task.total / unit, any_budget=False),
        "any": regrets(problem, found, task.total / unit, any_budget=True),
        "trials": len({report.number for report in found.reports}),
        "reports": len(found.reports),
        "wall_seconds": time.perf_counter() - begun,
    }


def task_of(problem: Problem, seed: int) -> BudgetTask:
    """The published protocol for the problem.

    Raises:
        SettingError: if the problem has no budgets, or no optimum or worst value is known.
    """
    fidelity = problem.fidelity
    if fidelity is None or problem.optimum is None or problem.worst is None:
        raise SettingError(f"{problem.name} has no budgets, or too little is known of it.")
    return BudgetTask(
        space=problem.space,
        seed=seed,
        min_budget=_LOWEST.get(problem.group, fidelity.low),
        max_budget=fidelity.high,
        is_whole=fidelity.is_integer,
        total=(20 + 40 * math.sqrt(len(problem.space.columns))) * fidelity.high,
    )


def found_by(
    entrant: str,
    problem: Problem,
    task: BudgetTask,
    *,
    spend: float,
    workers: int = 1,
    resume: bool = False,
) -> Simulation:
    """What an entrant or peer finds in virtual time until it has spent so much budget."""
    fidelity = problem.fidelity
    assert fidelity is not None

    def objective(config: Mapping[str, Any], budget: float | None) -> tuple[float, float]:
        at = fidelity.high if budget is None else budget
        return fidelity.objective(config, at), max(fidelity.cost(config, at), 0.0)

    if entrant in BUDGET_PEERS:
        peer = budgets.create(entrant, task)
        return budgets.play(
            peer, task, objective, problem.direction, workers=workers, spend=spend, resume=resume
        )
    scheduler, suggester = ENTRANTS[entrant](task.min_budget, task.max_budget)
    return simulate(
        problem.space,
        objective,
        scheduler=scheduler,
        suggester=suggester,
        workers=workers,
        spend=spend if scheduler else spend / fidelity.high,  # without budgets a report counts 1
        resume=resume,
        direction=problem.direction,
        seed=task.seed,
        device="cpu",
    )


def regrets(problem: Problem, found: Simulation, total: float, *, any_budget: bool) -> list[float]:
    """The normalised regret of the incumbent at each of `FRACTIONS` of the total, from scratch."""
    best, worst = problem.optimum, problem.worst
    if best is None or worst is None:
        raise SettingError(f"{problem.name} has no scale for its regret.")
    spent = {id(r): r.spent_from_scratch for r in found.reports}
    if problem.group not in _ON_THE_WAY:
        paid = itertools.accumulate(r.budget or 1.0 for r in found.reports)
        spent = {id(r): so_far for r, so_far in zip(found.reports, paid, strict=True)}
    incumbents = found.incumbents(any_budget=any_budget)
    values = []
    for fraction in FRACTIONS:
        # what ends just behind the mark is not yet known there; rounding is forgiven
        known = [r.value for r in incumbents if spent[id(r)] <= fraction * total * (1 + 1e-9)]
        values.append(max((best - known[-1]) / (best - worst), 0.0) if known else 1.0)
    return values


def table(runs: Sequence[Run]) -> str:
    """Mean regrets of each group and entrant over its problems, each over its seeds, with intervals."""
    heads = [f"{kind} {fraction:.0%}" for kind in ("full", "any") for fraction in FRACTIONS]
    lines = _head(["group", "entrant", "problems", "runs", *heads])
    for group in _groups(runs):
        here = [r for r in runs if _group(r) == group]
        for entrant in dict.fromkeys(r["entrant"] for r in runs):
            cube = _cube(here, [entrant])
            if not cube:
                continue
            drawn = _resampled(cube)[..., 0, :]  # (b, figures)
            n = sum(len(block) for block in cube.values())
            cells = [_interval(drawn[:, k], 4) for k in range(drawn.shape[1])]
            lines.append(_row([group, entrant, len(cube), n, *cells]))
    return "\n".join(lines)


def ratios(runs: Sequence[Run], subject: str) -> str:
    """The subject's mean regret over each other entrant's, in each group, over the blocks that both ran."""
    heads = [f"{kind} {fraction:.0%}" for kind in ("full", "any") for fraction in FRACTIONS]
    lines = _head(["group", f"{subject} against", "problems", "blocks", *heads])
    for group in _groups(runs):
        here = [r for r in runs if _group(r) == group]
        for rival in dict.fromkeys(r["entrant"] for r in runs if r["entrant"] != subject):
            cube = _cube(here, [subject, rival])
            if cube:
                drawn = _resampled(cube)
                quotients = drawn[:, 0] / np.maximum(drawn[:, 1], 1e-9)
                n = sum(len(block) for block in cube.values())
                cells = [_interval(quotients[:, k], 2) for k in range(quotients.shape[1])]
                lines.append(_row([group, rival, len(cube), n, *cells]))
    return "\n".join(lines)


def summary(runs: Sequence[Run], subject: str = "gpbo-hyperband") -> str:
    """Mean regrets at the full budget, and the subject's share of each over all blocks that both ran."""
    marks = [FRACTIONS.index(mark) for mark in (0.25, 1.0)]
    groups = _groups(runs)
    heads = [f"{group} at {FRACTIONS[k]:.0%}" for group in groups for k in marks]
    heads += [f"{subject}'s share at {FRACTIONS[k]:.0%}" for k in marks]
    lines = _head(["optimiser", *heads, "runs"])
    for entrant in dict.fromkeys(r["entrant"] for r in runs):
        cells = []
        for group in groups:
            cube = _cube([r for r in runs if _group(r) == group], [entrant])
            means = np.mean([block.mean(0) for block in cube.values()], 0)[0] if cube else None
            cells += ["" if means is None else f"{means[k]:.4f}" for k in marks]
        both = _cube(runs, [subject, entrant])  # empty for the subject itself
        drawn = _resampled(both) if both else None
        cells += [
            "" if drawn is None else _interval(drawn[:, 0, k] / np.maximum(drawn[:, 1, k], 1e-9), 2)
            for k in marks
        ]
        lines.append(_row([entrant, *cells, sum(r["entrant"] == entrant for r in runs)]))
    return "\n".join(lines)


def anchored(runs: Sequence[Run]) -> str:
    """Regrets by the `any` definition as shares of random search's, ours and as published.

    A share needs no common scale: the published study's worst value is not ours.
    """
    marks = (0.25, 0.5, 1.0)
    heads = [f"{mark:.0%} {whose}" for mark in marks for whose in ("ours", "published")]
    lines = _head(["problem", "entrant", "published as", *heads])
    for problem in [name for name in ANCHORS if any(r["problem"] == name for r in runs)]:
        means = {
            entrant: np.mean(
                [r["any"] for r in runs if (r["problem"], r["entrant"]) == (problem, entrant)], 0
            )
            for entrant in dict.fromkeys(r["entrant"] for r in runs)
            if any((r["problem"], r["entrant"]) == (problem, entrant) for r in runs)
        }
        if "random" not in means:
            continue
        for entrant in [name for name in means if ANCHORED.get(name, "Random") != "Random"]:
            shares = means[entrant] / means["random"]
            cells: list[str] = []
            for k, mark in enumerate(marks):
                published = ANCHORS[problem][ANCHORED[entrant]][k] / ANCHORS[problem]["Random"][k]
                cells += [f"{shares[FRACTIONS.index(mark)]:.2f}", f"{published:.2f}"]
            lines.append(_row([problem, entrant, ANCHORED[entrant], *cells]))
    return "\n".join(lines)


def _cube(runs: Sequence[Run], entrants: Sequence[str]) -> dict[str, Array]:
    """For each problem (seeds, entrants, figures), of the seeds that all of them ran."""
    figures: dict[str, dict[int, dict[str, list[float]]]] = {}
    for r in runs:
        if r["entrant"] in entrants:
            figures.setdefault(r["problem"], {}).setdefault(r["seed"], {})[r["entrant"]] = (
                r["full"] + r["any"]
            )
    complete = {
        problem: [
            [block[name] for name in entrants] for block in seeds.values() if len(block) == len(entrants)
        ]
        for problem, seeds in figures.items()
    }
    return {problem: np.array(blocks) for problem, blocks in complete.items() if blocks}


def _resampled(cube: Mapping[str, Array]) -> Array:  # (1 + b, entrants, figures)
    """Means over problems, each over its seeds: of the runs first, then of bootstrap resamples of both."""
    rng = np.random.default_rng(0)
    blocks = list(cube.values())
    rows = [np.mean([block.mean(0) for block in blocks], 0)]
    for _ in range(N_RESAMPLES):
        drawn = [blocks[i] for i in rng.integers(len(blocks), size=len(blocks))]
        rows.append(np.mean([block[rng.integers(len(block), size=len(block))].mean(0) for block in drawn], 0))
    return np.array(rows)


def _interval(values: Array, digits: int) -> str:
    """The first value, and the middle 95 % of the others."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return f"{values[0]:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _head(cells: Sequence[str]) -> list[str]:
    return [_row(cells), "|---" * len(cells) + "|"]


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _group(run: Run) -> str:
    return str(run["problem"]).split("/")[0]


def _groups(runs: Sequence[Run]) -> list[str]:
    return sorted({_group(r) for r in runs})


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
    entrants = installed(options.entrants.split(","))
    split = None if options.split == "both" else options.split
    chosen = [p for p in choose(all_problems(Path(data)), options.problems.split(","), split) if p.fidelity]
    runs = read(options.out)
    done = {(r["problem"], r["entrant"], r["seed"]) for r in runs}
    about = {"revision": revision(), "versions": records.versions()}
    blocks = [(problem, seed) for seed in parse_seeds(options.seeds) for problem in chosen]
    for i, (problem, seed) in enumerate(blocks):
        for entrant in reversed(entrants) if i % 2 else entrants:
            if (problem.name, entrant, seed) not in done:
                runs.append({**attempt(run, problem, entrant, seed), **about})
                records.append(options.out, runs[-1])
    failed = [r for r in runs if "error" in r]
    for r in failed:
        print(
            f"{r['problem']} {r['entrant']} seed {r['seed']} failed: {r['error'].splitlines()[-1]}",
            file=sys.stderr,
        )
    whole = [r for r in runs if "error" not in r]
    print(table(whole))
    subject = options.subject or next((name for name in reversed(entrants) if name in ENTRANTS), None)
    if subject is not None and len({r["entrant"] for r in whole}) > 1:
        print(f"\n{ratios(whole, subject)}\n\n{anchored(whole)}")
    return 0


def attempt(
    run: Callable[[Problem, str, int], dict[str, Any]], problem: Problem, entrant: str, seed: int
) -> dict[str, Any]:
    """The run's record, or one with the error that ended it: whatever another package may raise."""
    try:
        return run(problem, entrant, seed)
    except Exception:
        return {
            "problem": problem.name,
            "entrant": entrant,
            "seed": seed,
            "error": traceback.format_exc().strip(),
        }


def installed(names: Sequence[str]) -> list[str]:
    """The entrants that are known and can run here; the others are named on standard error.

    Raises:
        SettingError: if one is unknown, or none can run.
    """
    present = []
    for name in dict.fromkeys(names):
        if name not in ENTRANTS and name not in BUDGET_PEERS:
            raise SettingError(
                f"`--entrants` must be among {', '.join([*ENTRANTS, *BUDGET_PEERS])}; got {name!r}."
            )
        lacking = budgets.missing(name) if name in BUDGET_PEERS else ()
        if lacking:
            print(
                f"{name} is left out: {lacking[0]} is not installed; pip install 'gpbo[bench]'",
                file=sys.stderr,
            )
        else:
            present.append(name)
    if not present:
        raise SettingError("`--entrants` names nothing that is installed.")
    return present


def read(path: Path) -> list[dict[str, Any]]:
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
    parser.add_argument(
        "--subject", help="whose ratios to the others are shown; the last of gpbo's by default"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
