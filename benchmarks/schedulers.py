"""What budgets cost besides training: simulated trials a second, and decisions among many trials.

    python -m benchmarks.schedulers --trials 10000

The simulator runs 16 workers and random configs of two parameters. A decision is `judge` after one trial's
report and `next` for the worker that it leaves free, in a study of so many trials; the median of 200 is shown
with the least, which is what a quiet machine would take.

On two cores shared with five to eight other busy processes (November 2026): 720 to 1 050 trials a second
in studies of 1 000 trials and 400 to 580 in studies of 10 000; decisions in 0.04 to 0.1 and in 0.3 to 0.4 ms,
0.25 at the least.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gpbo import ASHA, Float, Hyperband, MedianStopping, RandomSuggester, SearchSpace, State, simulate
from gpbo.schedulers.base import Scheduler
from gpbo.trial import Observation, Trial

_SPACE = SearchSpace(x=Float(0, 1), y=Float(0, 1))
_REPEATS = 200

SCHEDULERS: Mapping[str, Callable[[], Scheduler]] = {
    "asha": lambda: ASHA(1, 81),
    "asha-stopping": lambda: ASHA(1, 81, stopping=True),
    "hyperband": lambda: Hyperband(1, 81),
    "median": lambda: MedianStopping(81),
}


def curve(config: Mapping[str, Any], budget: Any) -> tuple[float, float]:
    """A learning curve: the value after so much budget, and the seconds it takes."""
    return (config["x"] - 0.3) ** 2 + config["y"] / budget, budget * (0.5 + config["y"])


def simulated(scheduler: Scheduler, n_trials: int) -> tuple[list[Trial], float]:
    """The trials of a simulated study, and how many of them a second of CPU time was enough for."""
    begun = time.process_time()
    found = simulate(
        _SPACE,
        curve,
        scheduler=scheduler,
        suggester=RandomSuggester(),
        workers=16,
        n_trials=n_trials,
        report_budgets=(1, 3, 9, 27),
        device="cpu",
    )
    return found.study.trials, n_trials / (time.process_time() - begun)


def decisions(scheduler: Scheduler, trials: Sequence[Trial]) -> list[float]:
    """Seconds of each of some decisions, after one new report each."""
    now, seconds = list(trials), []
    scheduler.next(tuple(now))
    for k in range(_REPEATS):
        number = len(now) * k // _REPEATS
        old = now[number]
        now[number] = replace(
            old, state=State.RUNNING, observations=(Observation((k / _REPEATS,), 1),), budget=1
        )
        given = tuple(now)
        begun = time.perf_counter()
        scheduler.judge(given, number)
        scheduler.next(given)
        seconds.append(time.perf_counter() - begun)
        now[number] = old
    return seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line for each scheduler."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.schedulers", description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000, help="how many trials the studies have")
    options = parser.parse_args(arguments)
    simulated(ASHA(1, 81), 50)  # what is imported and cached at first
    for name, make in SCHEDULERS.items():
        trials, rate = simulated(make(), options.trials)
        seconds = decisions(make(), trials)
        print(
            f"{name}: {rate:.0f} simulated trials a second; a decision among {len(trials)} trials takes "
            f"{1e3 * statistics.median(seconds):.3f} ms ({1e3 * min(seconds):.3f} ms at the least)",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
