"""Several objectives and outcome constraints: how much of the best hypervolume a few evaluations find.

    python -m benchmarks.multi_objective --problems zdt1,dtlz2-3 --peers gpbo,nsga2 --out front.jsonl

Problems are botorch's, all minimised over the unit cube, with the reference points and largest hypervolumes
that botorch gives; with one objective, the distance from a reference value to the optimum. A run's figure is
its shortfall, 1 - hypervolume / largest, of the feasible results after half and after all of the evaluations.
Of the peers only BoTorch's loop knows the reference point, which its documentation asks for. A file that is
there already is continued; its table is printed at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from botorch.test_functions import multi_objective, synthetic
from botorch.utils.multi_objective.hypervolume import Hypervolume
from torch import Tensor

from benchmarks.peers.base import quietly
from benchmarks.run import parse_seeds
from gpbo import Float, GPSuggester, RandomSuggester, SearchSpace, Study
from gpbo.seeding import derive
from gpbo.suggesters.base import Suggester

_SMALLEST = 1e-5  # shortfall; below, logarithms are not taken

PROBLEMS: Mapping[str, Callable[[], Any]] = {
    "branin-currin": multi_objective.BraninCurrin,
    "zdt1": lambda: multi_objective.ZDT1(dim=6),
    "zdt2": lambda: multi_objective.ZDT2(dim=6),
    "dtlz2-2": lambda: multi_objective.DTLZ2(dim=6, num_objectives=2),
    "dtlz2-3": lambda: multi_objective.DTLZ2(dim=6, num_objectives=3),
    "vehicle-safety": multi_objective.VehicleSafety,
    "penicillin": multi_objective.Penicillin,
    "car-side-impact": multi_objective.CarSideImpact,
    "constrained-branin-currin": multi_objective.ConstrainedBraninCurrin,
    "c2-dtlz2": lambda: multi_objective.C2DTLZ2(dim=6, num_objectives=2),
    "gramacy": synthetic.ConstrainedGramacy,
    "constrained-hartmann": lambda: synthetic.ConstrainedHartmann(dim=6),
}
_REFERENCES = {"gramacy": 2.0, "constrained-hartmann": 0.0}  # of problems with one objective

Results = tuple[list[float], list[float]]  # values to be minimised, slacks that must be >= 0
Evaluate = Callable[[Sequence[float]], Results]


class Problem:
    """A problem of botorch's on the unit cube, minimised.

    Args:
        name: One of `PROBLEMS`.
    """

    def __init__(self, name: str) -> None:
        self.function = PROBLEMS[name]().to(dtype=torch.float64)
        self.d: int = self.function.dim
        self.m: int = self.function.num_objectives
        self.constraints: int = getattr(self.function, "num_constraints", 0)
        if self.m == 1:
            self.reference = torch.tensor([_REFERENCES[name]], dtype=torch.float64)
            self.largest = float(self.reference) - float(self.function.optimal_value)
        else:
            self.reference = self.function.ref_point.double()
            self.largest = float(self.function.max_hv)

    def evaluate(self, x: Sequence[float]) -> Results:
        """What is observed at a point of the unit cube."""
        low, high = self.function.bounds
        X = (low + torch.tensor(x, dtype=torch.float64) * (high - low)).unsqueeze(0)
        values = self.function.evaluate_true(X).reshape(-1)
        slacks = self.function.evaluate_slack_true(X).reshape(-1) if self.constraints else values[:0]
        return values.tolist(), slacks.tolist()

    def shortfall(self, results: Sequence[Results]) -> float:
        """How much of the largest hypervolume the feasible results leave, as a share of it."""
        feasible = [values for values, slacks in results if all(slack >= 0.0 for slack in slacks)]
        front = -torch.tensor(feasible, dtype=torch.float64).reshape(-1, self.m)
        front = front[(front > -self.reference).all(-1)]
        if len(front) == 0:
            return 1.0
        if self.m == 1:
            return 1.0 - float((front + self.reference).max()) / self.largest
        return 1.0 - Hypervolume(-self.reference).compute(front) / self.largest


def _gpbo(make: Callable[[], Suggester | None]) -> Callable[..., list[Results]]:
    def run(problem: Problem, seed: int, evaluations: int) -> list[Results]:
        options: dict[str, Any] = {}
        if problem.constraints:
            options["outcome_constraints"] = [f"c{k} >= 0" for k in range(problem.constraints)]
        space = SearchSpace({f"x{j}": Float(0.0, 1.0) for j in range(problem.d)})
        study = Study(
            space, suggester=make(), direction=["minimize"] * problem.m, seed=seed, device="cpu", **options
        )
        results = []
        for _ in range(evaluations):
            trial = study.ask()
            assert trial is not None
            values, slacks = problem.evaluate([trial.config[name] for name in space.parameters])
            told = {"outcomes": {f"c{k}": slack for k, slack in enumerate(slacks)}} if slacks else {}
            study.tell(trial, values, **told)
            results.append((values, slacks))
        return results

    return run


def _botorch_suggester() -> Suggester:
    from gpbo.integrations.botorch import BotorchSuggester

    return BotorchSuggester()


def _botorch(problem: Problem, seed: int, evaluations: int) -> list[Results]:
    """BoTorch's documented loop: Sobol points, SingleTaskGPs, qLogNEHVI or qLogNEI, `optimize_acqf`."""
    X = torch.quasirandom.SobolEngine(problem.d, scramble=True, seed=seed).draw(2 * (problem.d + 1)).double()
    results = [problem.evaluate(x) for x in X.tolist()]
    while len(results) < evaluations:
        torch.manual_seed(derive(seed, "botorch", len(results)) % 2**31)
        with quietly():
            x = _botorch_candidate(problem, X, results)
        X = torch.cat([X, x])
        results.append(problem.evaluate(x[0].tolist()))
    return results[:evaluations]


def _botorch_candidate(problem: Problem, X: Tensor, results: Sequence[Results]) -> Tensor:  # (1, d)
    from botorch.acquisition.logei import qLogNoisyExpectedImprovement
    from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
    from botorch.acquisition.multi_objective.objective import IdentityMCMultiOutputObjective
    from botorch.acquisition.objective import GenericMCObjective
    from botorch.fit import fit_gpytorch_mll
    from botorch.models.gp_regression import SingleTaskGP
    from botorch.models.model_list_gp_regression import ModelListGP
    from botorch.models.transforms import Standardize
    from botorch.optim.optimize import optimize_acqf
    from gpytorch.mlls import SumMarginalLogLikelihood

    m = problem.m
    Y = -torch.tensor([values + slacks for values, slacks in results], dtype=torch.float64)
    model = ModelListGP(*(SingleTaskGP(X, y[:, None], outcome_transform=Standardize(1)) for y in Y.mT))
    fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
    constraints = [lambda Z, k=k: Z[..., k] for k in range(m, Y.shape[1])] or None
    if m > 1:
        acquisition: Any = qLogNoisyExpectedHypervolumeImprovement(
            model,
            -problem.reference,
            X,
            objective=IdentityMCMultiOutputObjective(outcomes=list(range(m))),
            constraints=constraints,
            prune_baseline=True,
        )
    else:
        objective = GenericMCObjective(lambda Z, X=None: Z[..., 0])
        acquisition = qLogNoisyExpectedImprovement(
            model, X, objective=objective, constraints=constraints, prune_baseline=True
        )
    bounds = torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(2, problem.d)
    return optimize_acqf(acquisition, bounds, q=1, num_restarts=10, raw_samples=512, sequential=True)[0]


def _optuna(sampler: str) -> Callable[..., list[Results]]:
    def run(problem: Problem, seed: int, evaluations: int) -> list[Results]:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)

        def broken(trial: Any) -> list[float]:
            return [-slack for slack in trial.user_attrs["slacks"]]

        options: dict[str, Any] = {"seed": seed}
        if problem.constraints:
            options["constraints_func"] = broken
        if sampler == "TPESampler":
            options["multivariate"] = True
        results = []
        with quietly():
            study = optuna.create_study(
                sampler=getattr(optuna.samplers, sampler)(**options), directions=["minimize"] * problem.m
            )
            for _ in range(evaluations):
                trial = study.ask()
                values, slacks = problem.evaluate(
                    [trial.suggest_float(f"x{j}", 0.0, 1.0) for j in range(problem.d)]
                )
                trial.set_user_attr("slacks", slacks)
                study.tell(trial, values)
                results.append((values, slacks))
        return results

    return run


PEERS: Mapping[str, Callable[[Problem, int, int], list[Results]]] = {
    "random": _gpbo(RandomSuggester),
    "gpbo": _gpbo(lambda: None),
    "gpbo-parego": _gpbo(GPSuggester),
    "gpbo-botorch": _gpbo(_botorch_suggester),
    "botorch": _botorch,
    "optuna-gp": _optuna("GPSampler"),
    "optuna-tpe": _optuna("TPESampler"),
    "nsga2": _optuna("NSGAIISampler"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is not in the file yet, and print its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--problems", default=",".join(PROBLEMS))
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--seeds", default="0-2", type=parse_seeds)
    parser.add_argument("--evaluations", default=50, type=int)
    parser.add_argument("--out", default="front.jsonl", type=Path)
    options = parser.parse_args(arguments)
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    records = [json.loads(line) for line in lines]
    torch.set_num_threads(1)
    for seed in options.seeds:
        for name in options.problems.split(","):
            for peer in options.peers.split(","):
                key = {"problem": name, "peer": peer, "seed": seed, "evaluations": options.evaluations}
                if any(record | key == record for record in records):
                    continue
                records.append(key | _measured(Problem(name), PEERS[peer], seed, options.evaluations))
                with options.out.open("a") as file:
                    file.write(json.dumps(records[-1]) + "\n")
                print(records[-1], file=sys.stderr, flush=True)
    print(table(records))


def _measured(problem: Problem, peer: Any, seed: int, evaluations: int) -> dict[str, Any]:
    started = time.process_time()
    results = peer(problem, seed, evaluations)
    seconds = time.process_time() - started
    halves = [problem.shortfall(results[:n]) for n in (evaluations // 2, evaluations)]
    return {"shortfall": halves, "cpu_seconds": round(seconds, 2)}


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: for each problem and peer the geometric mean of the shortfalls, half way and at the end."""
    problems, peers = (list(dict.fromkeys(record[key] for record in records)) for key in ("problem", "peer"))
    rows = [["problem", *peers], ["---"] * (len(peers) + 1)]
    for problem in problems:
        row = [problem]
        for peer in peers:
            runs = [r["shortfall"] for r in records if (r["problem"], r["peer"]) == (problem, peer)]
            means = [
                math.exp(fmean(math.log(max(s, _SMALLEST)) for s in half)) for half in zip(*runs, strict=True)
            ]
            row.append(" / ".join(f"{mean:.3g}" for mean in means) or "-")
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "Failed to compile fused qLogEHVI")
    main()
