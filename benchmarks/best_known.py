"""Write the best values known of the YAHPO surrogates: random configs, then moves around the best.

python -m benchmarks.best_known --data DIR
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from benchmarks.problems import Problem, yahpo
from gpbo.seeding import generator

_N_RANDOM = 50_000
_N_BEST = 20
_RADII = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002)
_N_MOVES = 50  # around each of the best, at each radius


def best_of(
    scenario: yahpo.Scenario, data: Path, instance: str, problem: Problem, start: torch.Tensor
) -> float:
    """The largest target found for one instance."""
    cube = problem.space.cube
    draws = generator(0, problem.name, "best")

    def values(X: torch.Tensor) -> torch.Tensor:
        outputs = yahpo.predict(scenario, data, instance, problem.space.decode(X), scenario.fidelity[2])
        return torch.as_tensor(outputs[:, scenario.target[1]].copy(), dtype=torch.float64)

    X, y = start, values(start)
    for radius in _RADII:
        top = y.topk(_N_BEST).indices
        X, y = X[top], y[top]
        steps = radius * torch.randn(_N_MOVES, _N_BEST, cube.d, generator=draws, dtype=X.dtype)
        steps *= torch.rand(steps.shape, generator=draws) < 0.5  # some columns only, so that levels stay too
        near = cube.snap((X + steps).reshape(-1, cube.d))
        X, y = torch.cat([X, near]), torch.cat([y, values(near)])
    return float(y.max())


def main() -> None:
    """Search every instance and write the file beside the problems."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    torch.set_num_threads(1)
    found: dict[str, float] = {}
    problems = {problem.name: problem for problem in yahpo.problems(data)}
    for scenario in yahpo.SCENARIOS:
        mine = {name: problem for name, problem in problems.items() if problem.group == scenario.name}
        cube = next(iter(mine.values())).space.cube
        start = cube.draw(_N_RANDOM, generator(0, scenario.name, "best"))
        for name, problem in mine.items():
            found[name] = best_of(scenario, data, name.split("/")[1], problem, start)
    yahpo.BEST_KNOWN.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
