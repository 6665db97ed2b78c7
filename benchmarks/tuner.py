"""BOHB in Ray's own loop: `Tuner.fit` with Ray's pair, with gpbo's of the same names, and with gpbo's own.

    python -m benchmarks.tuner --seeds 0-2 --out tuner.jsonl

Each run is an experiment in a fresh process: 49 trials, which is one round of Hyperband's brackets, two at a
time, each up to 27 reports, among which the 52 epochs of LCBench's trainings are divided (surrogates, of the
test half). Trials are paused and resumed as schedulers say, with checkpoints and reused actors. `ray-bohb` is
Ray's TuneBOHB with its HyperBandForBOHB, over hpbandster's densities; `gpbo-bohb` the two of these names of
`gpbo.integrations.ray_tune`, with the same arguments; `gpbo` a `GPBOSearch` with `Hyperband` from 1 to 27.
Which of two trials reports first is up to Ray, so that runs with one seed differ.

Regrets are normalised, 0 the best known, 1 the worst published: of the best value at all 27 reports (1 where
no trial got there), and of the best at any. A file that is there already is continued.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import records
from benchmarks.peers.base import quietly, tidy
from benchmarks.peers.configspace import from_values, to_configspace
from benchmarks.problems import all_problems, choose
from benchmarks.problems.base import Problem
from benchmarks.run import parse_seeds, revision
from gpbo import Hyperband
from gpbo.errors import SettingError

PROBLEMS = ("lcbench/126025", "lcbench/167184", "lcbench/189354")
ENTRANTS = ("ray-bohb", "gpbo-bohb", "gpbo")
N_TRIALS = 49
N_REPORTS = 27

Run = Mapping[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the file does not hold yet, and print the table."""
    options = _parser().parse_args(arguments)
    try:
        if options.one:
            name, entrant, seed = options.one
            print(json.dumps(run(_problem(name), entrant, int(seed))))
            return 0
        runs = _read(options.out)
        done = {(r["problem"], r["entrant"], r["seed"]) for r in runs}
        about = {"revision": revision(), "versions": records.versions()}
        for seed in parse_seeds(options.seeds):
            for problem in PROBLEMS:
                for entrant in ENTRANTS[:: -1 if seed % 2 else 1]:
                    if (problem, entrant, seed) not in done:
                        runs.append({**_apart(problem, entrant, seed), **about})
                        records.append(options.out, dict(runs[-1]))
                        print(
                            *(runs[-1][name] for name in ("problem", "entrant", "seed", "full")), flush=True
                        )
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(runs))
    return 0


def run(problem: Problem, entrant: str, seed: int) -> dict[str, Any]:
    """One experiment in this process, which Ray leaves unfit for another."""
    import ray
    from ray import tune

    mode = "max" if problem.direction == "maximize" else "min"
    with quietly(), tempfile.TemporaryDirectory() as folder:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        search, scheduler = _entrant(entrant, problem, seed, metric="value", mode=mode)
        tuner = tune.Tuner(
            tune.with_parameters(_trainable(), name=problem.name, is_by_place=entrant == "ray-bohb"),
            tune_config=tune.TuneConfig(
                metric="value",
                mode=mode,
                num_samples=N_TRIALS,
                search_alg=search,
                scheduler=scheduler,
                max_concurrent_trials=2,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        begun = time.perf_counter()
        results = tuner.fit()
        seconds = time.perf_counter() - begun
        told = _told(results)
        ray.shutdown()
    return {
        "problem": problem.name,
        "entrant": entrant,
        "seed": seed,
        "full": _regret(problem, [values[-1] for report, values in told if report == N_REPORTS]),
        "any": _regret(problem, [value for _, values in told for value in values]),
        "trials": len(results),
        "errors": results.num_errors,
        "reports": sum(report for report, _ in told),
        "seconds": seconds,
    }


def epoch_of(report: int, last: float) -> float:
    """The epoch of a report, of which the last is that of all."""
    return max(2.0, float(round(report * last / N_REPORTS)))


def table(runs: Sequence[Run]) -> str:
    """Means over problems and seeds, and in how many of them the entrant was better than Ray's pair."""
    header = [
        "entrant",
        "runs",
        "regret in full",
        "at any budget",
        "better / equal / worse",
        "reports",
        "seconds",
    ]
    theirs = {(r["problem"], r["seed"]): r["full"] for r in runs if r["entrant"] == ENTRANTS[0]}
    lines = [header, ["---"] * len(header)]
    for entrant in ENTRANTS:
        mine = [r for r in runs if r["entrant"] == entrant]
        if not mine:
            continue
        gaps = [
            r["full"] - theirs[r["problem"], r["seed"]] for r in mine if (r["problem"], r["seed"]) in theirs
        ]
        against = [sum(gap < 0 for gap in gaps), sum(gap == 0 for gap in gaps), sum(gap > 0 for gap in gaps)]
        means = [f"{np.mean([r[name] for r in mine]):.3f}" for name in ("full", "any")]
        costs = [f"{np.mean([r[name] for r in mine]):.0f}" for name in ("reports", "seconds")]
        compared = "" if entrant == ENTRANTS[0] else " / ".join(map(str, against))
        lines.append([entrant, str(len(mine)), *means, compared, *costs])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _entrant(name: str, problem: Problem, seed: int, **objective: str) -> tuple[Any, Any]:
    """A searcher and a scheduler."""
    from gpbo.integrations import ray_tune as ours

    if name == "gpbo":
        search = ours.GPBOSearch(problem.space, seed=seed, device="cpu", **objective)  # type: ignore[arg-type]
        return search, ours.GPBOScheduler(Hyperband(1, N_REPORTS))
    if name == "gpbo-bohb":
        search = ours.TuneBOHB(problem.space, seed=seed, **objective)
        return search, ours.HyperBandForBOHB(max_t=N_REPORTS)
    from ray.tune.schedulers.hb_bohb import HyperBandForBOHB
    from ray.tune.search.bohb import TuneBOHB

    np.random.seed(seed)  # HpBandSter draws from there, Ray seeds the space alone
    return TuneBOHB(to_configspace(problem.space, seed), seed=seed, **objective), HyperBandForBOHB(
        max_t=N_REPORTS, reduction_factor=3
    )


def _trainable() -> type:
    """A training that reports a surrogate's values, epoch by epoch."""
    from ray import tune

    class Training(tune.Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any], name: str, is_by_place: bool) -> None:
            self.problem, self.is_by_place = _problem(name), is_by_place
            self.reset_config(config)

        def step(self) -> dict[str, float]:
            assert self.problem.fidelity is not None
            at = epoch_of(self.iteration + 1, self.problem.fidelity.high)
            return {"value": float(self.problem.fidelity.objective(self.chosen, at))}

        def save_checkpoint(self, folder: str) -> dict[str, float]:
            return {"iteration": self.iteration}  # which Ray restores by itself

        def load_checkpoint(self, checkpoint: Any) -> None:
            pass

        def reset_config(self, config: dict[str, Any]) -> bool:
            values = from_values(self.problem.space, config) if self.is_by_place else config
            self.chosen = tidy(self.problem.space, values)
            return True

    return Training


def _problem(name: str) -> Problem:
    data = os.environ.get("GPBO_BENCH_DATA")
    if not data:
        raise SettingError("GPBO_BENCH_DATA must name the folder of the YAHPO surrogates.")
    [problem] = choose(all_problems(Path(data)), [name], "test")
    return problem


def _apart(problem: str, entrant: str, seed: int) -> dict[str, Any]:
    """A run in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.tuner", "--one", problem, entrant, str(seed)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"ended with {done.returncode} and no word"]
        raise SettingError(f"{problem} {entrant} seed {seed}: {said[-1]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _told(results: Iterable[Any]) -> list[tuple[int, list[float]]]:
    """Of each trial that has reported the number of its last report, and all its values."""
    return [
        (one.metrics["training_iteration"], list(one.metrics_dataframe["value"]))
        for one in results
        if "value" in (one.metrics or {})  # one that failed at once has none
    ]


def _regret(problem: Problem, values: Sequence[float]) -> float:
    if not values:
        return 1.0
    assert problem.optimum is not None
    assert problem.worst is not None
    best = max(values) if problem.direction == "maximize" else min(values)
    return float(max((problem.optimum - best) / (problem.optimum - problem.worst), 0.0))


def _read(file: Path) -> list[Run]:
    lines = file.read_text().split("\n") if file.is_file() else [""]
    return [json.loads(line) for line in lines[:-1]]  # the last one may be cut off


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tuner", description="BOHB in Ray's own loop, Ray's and gpbo's."
    )
    parser.add_argument("--seeds", default="0-2", help="such as 0-9 or 0,3,5-7")
    parser.add_argument("--out", type=Path, default=Path("tuner.jsonl"), help="a file")
    parser.add_argument("--one", nargs=3, metavar=("PROBLEM", "ENTRANT", "SEED"), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
