"""What `benchmarks.speed` times: one contest is one repetition of one cell, on fresh random data.

A contest has entrants that run one at a time and clock what counts, and guards that are looked at once all
have run.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks.contest_data import Clock, Data, make_data, standardised
from benchmarks.judge import Judge, batch_value, get_hypers, make_model, scipy_fit
from gpbo import GPSuggester, Study
from gpbo.acquisition import thompson_batch
from gpbo.gp import STRENGTHS, Fit, Hypers, fit_gp, warp_values
from gpbo.gp.fit import default_starts
from gpbo.gp.large import EXACT_ON_CPU, choose_rows
from gpbo.gp.model import make_gp

_BOTORCH_ASK: dict[str, Any] = {"num_restarts": 20, "raw_samples": 1024}
_BOTORCH_BATCH: dict[str, Any] = {"num_restarts": 10, "raw_samples": 256}
_MEASURED = (4, 8)  # sizes of BoTorch's batch from which q = 64 is extrapolated


class Contest(Protocol):
    """One repetition of one cell."""

    entrants: Mapping[str, Callable[[Clock], None]]

    def guards(self, *, thorough: bool) -> dict[str, float]:
        """The gaps of gpbo's result; the search from 4 096 starts only when `thorough`."""
        ...


def botorch_ask(data: Data, seed: int, clock: Clock) -> None:
    """One ask of BoTorch's documented loop."""
    from botorch.acquisition.analytic import LogExpectedImprovement
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.optim.optimize import optimize_acqf
    from gpytorch.mlls import ExactMarginalLogLikelihood

    X, Y = data.X, -data.losses.unsqueeze(-1)
    torch.manual_seed(seed)
    with _quietly(), clock("botorch"):
        model = SingleTaskGP(X, Y)
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        acquisition = LogExpectedImprovement(model, best_f=Y.max())
        optimize_acqf(acquisition, _bounds(X), q=1, **_BOTORCH_ASK)


class Ask:
    """The ask of a study: gpbo's public `ask` against Optuna's, and BoTorch's documented loop.

    The first ask ("-cold") knows no hyper-parameters; it is told, and the second starts from those of the
    first, as in the steady state of a study. Each repetition has one more point than the one before, because
    some asks do more: gpbo may explore at every other trial, and looks at its warp again at 5 % more points.
    """

    def __init__(self, n: int, repeat: int, *, peers: bool = True) -> None:
        self._data, self._repeat = make_data(n + repeat, repeat), repeat
        self.entrants: dict[str, Callable[[Clock], None]] = {"gpbo": self._gpbo}
        if peers:
            self.entrants |= {"optuna": self._optuna, "botorch": self._botorch}

    def _gpbo(self, clock: Clock) -> None:
        study = _filled_study(self._data, self._repeat)
        with clock("gpbo-cold"):
            (first,) = study.ask(1)
        study.tell(first, _loss(self._data, first.config))
        with clock("gpbo"):
            (second,) = study.ask(1)
        self._study, self._asked = study, second

    def _optuna(self, clock: Clock) -> None:
        study, distributions = _filled_optuna(self._data, self._repeat)
        with _quietly():
            with clock("optuna-cold"):
                first = study.ask(distributions)
            study.tell(first, _loss(self._data, first.params))
            with clock("optuna"):
                study.ask(distributions)

    def _botorch(self, clock: Clock) -> None:
        botorch_ask(self._data, self._repeat, clock)

    def guards(self, *, thorough: bool) -> dict[str, float]:
        """Of the second ask; the process is rebuilt from what the trial's info says."""
        if not thorough:
            return {}
        judge = _judge(self._study, self._asked)
        x = self._study.space.encode([self._asked.config])[0]
        return {
            "fit_gap": judge.fit_gap({}),
            "variance_error": judge.variance_error(),
            "acquisition_gap": judge.acquisition_gap(x, explored=bool(self._asked.info.get("explore"))),
        }


class PendingPoint:
    """One more row whose value is unknown: `GP.condition` against `condition_on_observations`."""

    def __init__(self, n: int, repeat: int) -> None:
        data = make_data(n + 1, repeat)
        self._z, self._X = standardised(data.losses)[:n], data.X
        _, found = fit_gp(data.space.cube, self._X[: min(n, 200)], self._z[:200])
        self._hypers, self._cube = found.hypers[0], data.space.cube
        self._gp = make_gp(self._cube, self._X[:n], self._z, self._hypers)
        self.entrants: dict[str, Callable[[Clock], None]] = {"gpbo": self._gpbo, "botorch": self._botorch}

    def _gpbo(self, clock: Clock) -> None:
        self._gp.condition(self._X[-1:])  # a time of milliseconds shows what a first call does besides
        with clock("gpbo"):
            self._conditioned = self._gp.condition(self._X[-1:])

    def _botorch(self, clock: Clock) -> None:
        model = make_model(self._X[:-1], self._z, self._hypers).eval()
        x = self._X[-1:]
        with torch.no_grad(), _quietly():
            y = model.posterior(x).mean  # BoTorch needs a value; and its caches are warm now
            model.condition_on_observations(x, y)
            with clock("botorch"):
                model.condition_on_observations(x, y)

    def guards(self, *, thorough: bool) -> dict[str, float]:
        """The variance with the new row, which no value changes."""
        z = torch.cat([self._z, self._z.new_zeros(1)])
        judge = Judge(self._cube, self._X, z, self._hypers)
        return {"variance_error": judge.variance_error(self._conditioned)}


class Batch:
    """64 points at once: gpbo's two ways, with a warm refit, against BoTorch's sequential greedy qLogEI.

    BoTorch is given gpbo's hyper-parameters and its fit is not timed. It is measured at q = 4 and 8, and
    q = 64 is what a straight line through these says: too little, because each point costs more.
    """

    def __init__(self, n: int, repeat: int, q: int = 64) -> None:
        self._data, self._repeat, self._q = make_data(n, repeat), repeat, q
        self._study = _filled_study(self._data, repeat)
        (first,) = self._study.ask(1)
        self._judge = _judge(self._study, first)
        self._study.tell(first, _loss(self._data, first.config))
        self._batches: dict[str, Tensor] = {}
        self.entrants: dict[str, Callable[[Clock], None]] = {
            "gpbo-greedy": self._greedy,
            "gpbo-thompson": self._thompson,
            "botorch": self._botorch,
        }

    def _greedy(self, clock: Clock) -> None:
        with clock("gpbo-greedy"):
            trials = self._study.ask(self._q)
        self._batches["gpbo-greedy"] = self._study.space.encode([trial.config for trial in trials])

    def _thompson(self, clock: Clock) -> None:
        judge = self._judge
        with clock("gpbo-thompson"):
            gp, _ = fit_gp(judge.cube, judge.X, judge.z, warm=judge.hypers)
            self._batches["gpbo-thompson"] = thompson_batch(
                gp, judge.cube, self._q, incumbents=best_points(judge), seen=judge.X, seed=self._repeat
            )

    def _botorch(self, clock: Clock) -> None:
        from botorch.acquisition.logei import qLogExpectedImprovement
        from botorch.optim.optimize import optimize_acqf

        judge = self._judge
        model = make_model(judge.X, judge.z, judge.hypers).eval()
        times = []
        for q in _MEASURED:
            torch.manual_seed(self._repeat)
            with _quietly(), clock(f"botorch-{q}"):
                acquisition = qLogExpectedImprovement(model, best_f=judge.z.max())
                batch, _ = optimize_acqf(
                    acquisition, _bounds(judge.X), q=q, sequential=True, **_BOTORCH_BATCH
                )
            times.append(clock.times[f"botorch-{q}"])
        self._batches["botorch"] = batch
        few, many = _MEASURED
        wall, cpu = (b + (self._q - many) * (b - a) / (many - few) for a, b in zip(*times, strict=True))
        clock.times["botorch"] = (wall, cpu)

    def guards(self, *, thorough: bool) -> dict[str, float]:
        """The batch_gap is how far the joint value of the first 8 points is below BoTorch's 8."""
        judge = self._judge
        many = _MEASURED[-1]
        value = partial(batch_value, judge.X, judge.z, judge.hypers)
        best = value(self._batches["botorch"])
        gaps = {
            f"{name}:batch_gap": max(0.0, best - value(self._batches[name][:many]))
            for name in ("gpbo-greedy", "gpbo-thompson")
        }
        return {"variance_error": judge.variance_error(), **gaps}


class ColdFit:
    """The hyper-parameters from nothing: gpbo, `fit_gpytorch_mll` and scipy on the same log posterior."""

    def __init__(self, n: int, repeat: int, device: str = "cpu", *, peers: bool = True) -> None:
        data = make_data(n, repeat, device)
        self._cube, self._X, self._z = data.space.cube, data.X, standardised(data.losses)
        self._found: dict[str, Hypers] = {}
        self.entrants: dict[str, Callable[[Clock], None]] = {"gpbo": self._gpbo}
        if peers:
            self.entrants |= {"botorch": self._botorch, "scipy": self._scipy}

    def _gpbo(self, clock: Clock) -> None:
        with clock("gpbo"):
            found: Fit = fit_gp(self._cube, self._X, self._z)[1]
        self._found["gpbo"] = found.hypers[0]

    def _botorch(self, clock: Clock) -> None:
        from botorch.fit import fit_gpytorch_mll
        from gpytorch.mlls import ExactMarginalLogLikelihood

        with _quietly(), clock("botorch"):
            model = make_model(self._X, self._z)
            fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        self._found["botorch"] = get_hypers(model)

    def _scipy(self, clock: Clock) -> None:
        start = default_starts(self._cube.d, self._X.device)[0]
        with clock("scipy"):
            self._found["scipy"] = scipy_fit(self._cube, self._X, self._z, start)

    def guards(self, *, thorough: bool) -> dict[str, float]:
        """Of gpbo's fit, against everybody's; unjudged where the judge would take hours."""
        if len(self._found) < 2:
            return {}
        judge = Judge(self._cube, self._X, self._z, self._found["gpbo"])
        others = {name: hypers for name, hypers in self._found.items() if name != "gpbo"}
        return {"fit_gap": judge.fit_gap(others), "variance_error": judge.variance_error()}


def _filled_study(data: Data, repeat: int) -> Study:
    study = Study(data.space, suggester=GPSuggester(), seed=repeat, device="cpu")
    for config, loss in zip(data.space.decode(data.X), data.losses.tolist(), strict=True):
        study.add(config, loss)
    return study


def _filled_optuna(data: Data, repeat: int) -> tuple[Any, dict[str, Any]]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions: dict[str, Any] = {
        name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in data.space.parameters
    }
    study = optuna.create_study(sampler=optuna.samplers.GPSampler(seed=repeat))
    study.add_trials(
        [
            optuna.trial.create_trial(params=config, distributions=distributions, value=loss)
            for config, loss in zip(data.space.decode(data.X), data.losses.tolist(), strict=True)
        ]
    )
    return study, distributions


def _judge(study: Study, asked: Any) -> Judge:
    """What the asked trial's info says the process was, on the values it was made from."""
    told = [trial for trial in study.trials if trial.number < asked.number]
    X = study.space.encode([trial.config for trial in told])
    y = -torch.tensor([trial.value for trial in told], dtype=torch.float64)
    kept = choose_rows(y, EXACT_ON_CPU)
    z = warp_values(y[kept], STRENGTHS[asked.info["warp"]]).z
    hypers = Hypers.from_dict(asked.info["hypers"], torch.device("cpu"))
    return Judge(study.space.cube, X[kept], z, hypers)


def _loss(data: Data, config: Mapping[str, Any]) -> float:
    return float(data.function(data.space.encode([dict(config)])))


def best_points(judge: Judge) -> Tensor:
    return judge.X[judge.z.topk(5).indices]


def _bounds(X: Tensor) -> Tensor:  # (2, d)
    return torch.stack([torch.zeros_like(X[0]), torch.ones_like(X[0])])


def _quietly() -> warnings.catch_warnings[None]:
    return warnings.catch_warnings(action="ignore")
