"""Run peers on problems, one line of JSON for each run.

    python -m benchmarks.run --peers random,optuna-tpe,gpbo --problems 'synthetic/*' --out runs.jsonl

A file that is there already is continued: runs in it are not repeated, crashed ones included.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import records
from benchmarks.measure import run_once
from benchmarks.peers import missing
from benchmarks.problems import Problem, all_problems, choose
from gpbo.errors import GpboError, SettingError

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Plan:
    """What every run has in common; sent to the processes that do the work."""

    data: Path | None
    evaluations: int
    device: str
    shared_initial: bool
    threads: int

    def key(self, problem: str, peer: str, seed: int) -> records.Key:
        """The key of a run."""
        initial = "shared" if self.shared_initial else "own"
        return (problem, peer, seed, self.evaluations, initial, self.device)


@dataclass(frozen=True, slots=True)
class Block:
    """One problem and seed for several peers, run one after the other in one process."""

    problem: str
    seed: int
    peers: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run and write; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except GpboError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def blocks(problems: Sequence[Problem], seeds: Sequence[int], peers: Sequence[str]) -> list[Block]:
    """All runs, seed by seed; the peers' order is turned round from block to block: A B C, C B A."""
    pairs = itertools.product(seeds, problems)
    return [
        Block(problem.name, seed, tuple(reversed(peers)) if i % 2 else tuple(peers))
        for i, (seed, problem) in enumerate(pairs)
    ]


def parse_seeds(text: str) -> list[int]:
    """The seeds in a text such as "0-4,7".

    Raises:
        SettingError: if it is not of that form.
    """
    seeds: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        if not low.isdecimal() or (high and not high.isdecimal()) or part.endswith("-"):
            raise SettingError(f"`--seeds` must look like 0-29 or 0,3,5-7, got {text!r}.")
        seeds += range(int(low), int(high or low) + 1)
    return list(dict.fromkeys(seeds))


def revision() -> str:
    """The git revision of this checkout, with "+changes" where files were changed, or "unknown"."""
    root = Path(__file__).parents[1]
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description="Run peers on problems, one line of JSON for each run."
    )
    parser.add_argument("--peers", required=True, help="names of benchmarks.peers.PEERS, with commas")
    parser.add_argument(
        "--problems", default="*", help="patterns such as 'synthetic/*,lcbench/3945', or panel"
    )
    parser.add_argument("--split", choices=["dev", "test", "both"], default="dev")
    parser.add_argument("--seeds", default="0-29", help="such as 0-29 or 0,3,5-7")
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument(
        "--data", type=Path, help="the folder of the YAHPO surrogates; default GPBO_BENCH_DATA"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--jobs", type=int, default=1, help="how many runs at a time; keep 1 to measure times"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of each run")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--shared-initial", action="store_true", help="give every peer the same first configs"
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    for name, least in (("evaluations", 4), ("jobs", 1), ("threads", 1)):  # the report looks at quarters
        if getattr(options, name) < least:
            raise SettingError(f"`--{name}` must be >= {least}, got {getattr(options, name)}.")
    data = options.data or (
        Path(os.environ["GPBO_BENCH_DATA"]) if os.environ.get("GPBO_BENCH_DATA") else None
    )
    if data is None:
        print("no --data and no GPBO_BENCH_DATA: the YAHPO problems are left out.", file=sys.stderr)
    patterns = [pattern for pattern in options.problems.split(",") if pattern]
    split = None if options.split == "both" else options.split
    problems = choose(all_problems(data), patterns, split)
    if not problems:
        raise SettingError(f"`--split` {options.split} holds none of `--problems` {options.problems!r}.")
    peers = _installed([name for name in options.peers.split(",") if name])
    plan = Plan(data, options.evaluations, options.device, options.shared_initial, options.threads)
    done = {records.key_of(r) for r in records.read([options.out])} if options.out.is_file() else set()
    todo = [
        block
        for block in blocks(problems, parse_seeds(options.seeds), peers)
        if any(plan.key(block.problem, peer, block.seed) not in done for peer in block.peers)
    ]
    _work(plan, todo, done, options.out, options.jobs)
    return 0


def _installed(peers: Sequence[str]) -> list[str]:
    present = []
    for name in dict.fromkeys(peers):
        lacking = missing(name)
        if lacking:
            print(
                f"{name} is left out: {lacking[0]} is not installed; pip install 'gpbo[bench]'",
                file=sys.stderr,
            )
        else:
            present.append(name)
    if not present:
        raise SettingError("`--peers` names nothing that is installed.")
    return present


def _work(plan: Plan, todo: Sequence[Block], done: set[records.Key], out: Path, jobs: int) -> None:
    """Let `jobs` lanes take blocks in order, each with a process of its own."""
    for variable in _THREAD_VARIABLES:  # before the processes start, so that they are obeyed
        os.environ[variable] = str(plan.threads)
    about = {"revision": revision(), "threads": plan.threads, "jobs": jobs, "machine": _machine()}
    queue, lock = iter(enumerate(todo)), threading.Lock()

    def lane() -> None:
        with Worker(plan) as worker:
            while (item := _next(queue, lock)) is not None:
                i, block = item
                for peer in block.peers:
                    if plan.key(block.problem, peer, block.seed) in done:
                        continue
                    record = {**worker.run(block.problem, peer, block.seed), **about}
                    with lock:
                        records.append(out, record)
                        print(f"[{i + 1}/{len(todo)}] {_summary(record)}", flush=True)

    with ThreadPoolExecutor(jobs) as lanes:
        for future in [lanes.submit(lane) for _ in range(jobs)]:
            future.result()


class Worker:
    """A process that does one run at a time and is replaced when it dies."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._pool = self._new()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()

    def run(self, problem: str, peer: str, seed: int) -> records.Record:
        """The record of one run; one with an error when its process died."""
        try:
            return self._pool.submit(_run_here, problem, peer, seed).result()
        except BrokenProcessPool:
            self._pool = self._new()
            return _died(self._plan, problem, peer, seed)

    def _new(self) -> ProcessPoolExecutor:
        spawn = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(1, mp_context=spawn, initializer=_begin, initargs=(self._plan,))


_plan: Plan | None = None  # of this process, when it is one that does the work
_problems: dict[str, Problem] = {}


def _begin(plan: Plan) -> None:
    global _plan
    import torch

    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(plan.threads)
    _plan = plan
    _problems.update({problem.name: problem for problem in all_problems(plan.data)})


def _end_with_parent() -> None:
    """Leave when the parent was killed, which nobody tells a process that is at work."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_here(problem: str, peer: str, seed: int) -> records.Record:
    assert _plan is not None
    record = run_once(
        _problems[problem],
        peer,
        seed,
        evaluations=_plan.evaluations,
        device=_plan.device,
        shared_initial=_plan.shared_initial,
    )
    return {**record, "versions": records.versions(), "finished": round(time.time(), 1)}


def _died(plan: Plan, problem: str, peer: str, seed: int) -> records.Record:
    key = dict(
        zip(
            ("problem", "peer", "seed", "evaluations", "initial", "device"),
            plan.key(problem, peer, seed),
            strict=True,
        )
    )
    return {**key, "values": [], "error": "the process died", "versions": records.versions()}


def _next(queue: Iterator[tuple[int, Block]], lock: threading.Lock) -> tuple[int, Block] | None:
    with lock:
        return next(queue, None)


def _summary(record: records.Record) -> str:
    what = f"{record['problem']} {record['peer']} seed {record['seed']}"
    if record["error"]:
        return f"{what}: {record['error'].strip().splitlines()[-1]}"
    best = (max if record["direction"] == "maximize" else min)(record["values"])
    spent = sum(record["ask_seconds"]) + sum(record["tell_seconds"])
    return f"{what}: best {best:.6g}, {1e3 * spent / record['evaluations']:.3g} ms a suggestion"


def _machine() -> dict[str, Any]:
    return {"python": platform.python_version(), "system": platform.platform(), "cpus": os.cpu_count()}


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=root, capture_output=True, text=True, check=True
    ).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
