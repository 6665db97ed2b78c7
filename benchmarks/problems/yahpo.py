"""YAHPO Gym surrogates (Pfisterer et al. 2022): real trainings as networks that predict in a tenth of a ms.

The folder holds, for each scenario, `model.onnx`, `encoding.json` and `config_space.json`, and beside them
`target_statistics.csv` with the smallest and the largest target in the data of each instance. Regret is
measured from the best value known of the surrogate at full fidelity (`best_known.json`, made by
`python -m benchmarks.best_known`) and normalised by the instance's smallest target.

Split: of the instances in the order of their numbers, the 1st, 3rd, 5th, ... are for development.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.problems.base import Fidelity, Problem
from gpbo import Categorical, Float, Int, SearchSpace
from gpbo.errors import MissingExtraError, SettingError

BEST_KNOWN = Path(__file__).with_name("best_known.json")


@dataclass(frozen=True, slots=True)
class Scenario:
    """How one scenario's model is called.

    Attributes:
        instance: The categorical column that names the data set.
        categorical: All categorical columns, in the order of the model.
        continuous: All other columns, in the order of the model.
        fidelity: The column that is the resource, its smallest meaningful amount and its largest.
        fixed: Columns that are not tuned.
        target: The output column that is maximised.
        cost: The output column with the seconds an evaluation takes.
    """

    name: str
    instance: str
    categorical: tuple[str, ...]
    continuous: tuple[str, ...]
    fidelity: tuple[str, float, float]
    fixed: Mapping[str, float]
    target: tuple[str, int]
    cost: int
    whole_budgets: bool


SCENARIOS = (
    Scenario(
        name="lcbench",
        instance="OpenML_task_id",
        categorical=("OpenML_task_id",),
        continuous=(
            "epoch", "batch_size", "learning_rate", "momentum", "weight_decay", "num_layers", "max_units",
            "max_dropout",
        ),
        fidelity=("epoch", 2, 52),  # epoch 1 is an untrained network
        fixed={},
        target=("val_accuracy", 1),
        cost=0,
        whole_budgets=True,
    ),
    Scenario(
        name="rbv2_rpart",
        instance="task_id",
        categorical=("task_id", "num.impute.selected.cpo"),
        continuous=("cp", "maxdepth", "minbucket", "minsplit", "trainsize", "repl"),
        fidelity=("trainsize", 0.03, 1.0),
        fixed={"repl": 10.0},
        target=("acc", 0),
        cost=6,
        whole_budgets=False,
    ),
)  # fmt: skip


def problems(data: Path) -> list[Problem]:
    """One problem for each instance of each scenario in the folder.

    Raises:
        SettingError: if the folder does not hold the scenarios.
    """
    for scenario in SCENARIOS:
        if not (data / scenario.name / "model.onnx").is_file():
            raise SettingError(
                f"`--data` must be a folder with {scenario.name}/model.onnx in it, got {data}."
            )
    return [problem for scenario in SCENARIOS for problem in _scenario_problems(scenario, data)]


def predict(
    scenario: Scenario, data: Path, instance: str, configs: Sequence[Mapping[str, Any]], budget: float
) -> Any:
    """The model's outputs for some configs, (n, outputs)."""
    run, codes = _session(scenario, data)
    fixed: dict[str, Any] = {**scenario.fixed, scenario.fidelity[0]: budget, scenario.instance: instance}
    rows = [{**config, **fixed} for config in configs]
    x_cat = [[codes[c].get(row.get(c, "#na#"), 0) for c in scenario.categorical] for row in rows]
    x_cont = [[row[c] for c in scenario.continuous] for row in rows]
    return run(None, {"x_cat": np.array(x_cat, np.int32), "x_cont": np.array(x_cont, np.float32)})[0]


def _scenario_problems(scenario: Scenario, data: Path) -> list[Problem]:
    plain = json.loads((data / scenario.name / "config_space.json").read_text())["hyperparameters"]
    instances = next(p["choices"] for p in plain if p["name"] == scenario.instance)
    ignored = {scenario.instance, scenario.fidelity[0], *scenario.fixed}
    space = SearchSpace({p["name"]: _parameter(p) for p in plain if p["name"] not in ignored})
    best = json.loads(BEST_KNOWN.read_text()) if BEST_KNOWN.is_file() else {}
    worst = _smallest_targets(data, scenario)
    found = []
    for i, instance in enumerate(sorted(instances, key=int)):
        name = f"{scenario.name}/{instance}"
        full = scenario.fidelity[2]
        at = partial(_output, scenario, data, instance, scenario.target[1])
        cost = partial(_output, scenario, data, instance, scenario.cost)
        found.append(
            Problem(
                name=name,
                space=space,
                objective=partial(_at_full, at, full),
                split="test" if i % 2 else "dev",
                direction="maximize",
                optimum=best.get(name),
                worst=worst[instance],
                fidelity=Fidelity(*scenario.fidelity, at, cost, scenario.whole_budgets),
            )
        )
    return found


def _parameter(plain: Mapping[str, Any]) -> Any:
    if plain["type"] == "categorical":
        return Categorical(plain["choices"])
    kind = {"uniform_int": Int, "uniform_float": Float}[plain["type"]]
    return kind(plain["lower"], plain["upper"], log=plain["log"])


def _output(
    scenario: Scenario, data: Path, instance: str, column: int, config: Mapping[str, Any], budget: float
) -> float:
    value = float(predict(scenario, data, instance, [config], budget)[0][column])
    if not math.isfinite(value):
        raise SettingError(f"the surrogate {scenario.name} gave {value} for {dict(config)!r}.")
    return value


def _at_full(at: Any, full: float, config: Mapping[str, Any]) -> float:
    return float(at(config, full))


@lru_cache(maxsize=1)
def _statistics(data: Path) -> dict[tuple[str, str, str, str], float]:
    with (data / "target_statistics.csv").open(newline="") as file:
        keys = ("scenario", "metric", "statistic", "instance")
        return {tuple(row[k] for k in keys): float(row["value"]) for row in csv.DictReader(file)}  # type: ignore[misc]


def _smallest_targets(data: Path, scenario: Scenario) -> dict[str, float]:
    wanted = (scenario.name, scenario.target[0], "min")
    return {key[3]: value for key, value in _statistics(data).items() if key[:3] == wanted}


@cache
def _session_of(model: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime is not installed; pip install 'gpbo[bench]'.") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@cache
def _codes(path: Path) -> Any:
    return json.loads(path.read_text())


def _session(scenario: Scenario, data: Path) -> tuple[Any, Any]:
    folder = data / scenario.name
    return _session_of(folder / "model.onnx").run, _codes(folder / "encoding.json")
