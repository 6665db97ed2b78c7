"""One run: a peer asks, a problem answers, two clocks watch the asking and the telling."""

from __future__ import annotations

import gc
import time
import traceback
from dataclasses import dataclass, field
from typing import Any

from benchmarks.peers import Task, create
from benchmarks.problems import Problem
from benchmarks.records import Record
from gpbo.seeding import generator


@dataclass(slots=True)
class Stopwatch:
    """Seconds of wall clock and of this process's CPU time, one entry a call."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    _start: tuple[float, float] = (0.0, 0.0)

    def __enter__(self) -> None:
        self._start = (time.perf_counter(), time.process_time())

    def __exit__(self, *error: object) -> None:
        self.wall.append(round(time.perf_counter() - self._start[0], 7))
        self.cpu.append(round(time.process_time() - self._start[1], 7))


def initial_design(problem: Problem, seed: int, evaluations: int) -> list[dict[str, Any]]:
    """The configs given to every peer with `--shared-initial`: 2 (d + 1) random ones, at most a quarter."""
    cube = problem.space.cube
    n = min(2 * (cube.d + 1), evaluations // 4)
    return problem.space.decode(cube.draw(n, generator(seed, "shared", problem.name)))


def run_once(
    problem: Problem, peer_name: str, seed: int, *, evaluations: int, device: str, shared_initial: bool
) -> Record:
    """The record of one run; a peer that raises leaves its traceback and the values until then."""
    given = initial_design(problem, seed, evaluations) if shared_initial else []
    task = Task(problem.space, seed, evaluations, n_given=len(given), device=device)
    values: list[float] = []
    setup, evaluating, asking, telling = Stopwatch(), Stopwatch(), Stopwatch(), Stopwatch()
    error = None
    gc.collect()
    try:
        with setup:
            peer = create(peer_name, task)
        for i in range(evaluations):
            if i < len(given):
                config = given[i]
            else:
                with asking:
                    config = peer.ask()
                config = problem.space.validate(config)
            with evaluating:
                value = problem.objective(config)
            values.append(value)
            with telling:
                peer.tell(config, problem.loss(value))
    except Exception:
        error = traceback.format_exc()
    return {
        "problem": problem.name,
        "split": problem.split,
        "peer": peer_name,
        "seed": seed,
        "evaluations": evaluations,
        "initial": "shared" if shared_initial else "own",
        "device": device,
        "direction": problem.direction,
        "optimum": problem.optimum,
        "worst": problem.worst,
        "d": problem.space.cube.d,
        "values": values,
        "ask_seconds": asking.wall,
        "ask_cpu_seconds": asking.cpu,
        "tell_seconds": telling.wall,
        "tell_cpu_seconds": telling.cpu,
        "setup_seconds": sum(setup.wall),
        "evaluation_seconds": round(sum(evaluating.wall), 6),
        "rejections": task.counts.rejections,
        "error": error,
    }
