import json
import math
import os
from pathlib import Path

import pytest

from benchmarks import multifidelity
from benchmarks.multifidelity import ENTRANTS, regrets, run, table
from benchmarks.problems import yahpo
from benchmarks.problems.base import Fidelity, Problem
from gpbo import Float, SearchSpace, Simulation, Study
from gpbo.simulation import Report


def curve(config, budget):
    return config["x"] - config["y"] / budget


PROBLEM = Problem(
    name="curves/1",
    space=SearchSpace(x=Float(0, 1), y=Float(0, 1)),
    objective=lambda config: curve(config, 27),
    split="dev",
    direction="maximize",
    optimum=1.0,
    worst=-1.0,
    fidelity=Fidelity("steps", 1, 27, curve, lambda config, budget: budget, is_integer=True),
)
TOTAL = (20 + 40 * math.sqrt(2)) * 27


@pytest.mark.parametrize("name", ["random", "hyperband", "bohb", "bohb-reference", "asha-stopping-bohb"])
def test_a_run_spends_the_budget_and_no_more_than_one_evaluation_beyond(name):
    record = run(PROBLEM, name, 3)
    assert json.loads(json.dumps(record)) == record
    for kind in ("full", "any"):
        assert record[kind] == sorted(record[kind], reverse=True)
        assert all(0 <= regret <= 1 for regret in record[kind])
    assert all(a <= f for a, f in zip(record["any"], record["full"], strict=True))
    if name == "random":
        assert record["trials"] == record["reports"] == math.ceil(TOTAL / 27)
        assert record["full"] == record["any"]
    else:
        assert record["trials"] > TOTAL / 27
    assert run(PROBLEM, name, 3)["full"] == record["full"]


def test_regrets_by_hand():
    """The marks are at 2, 5, 10 and 20; the optimum is 1 and the worst value -1."""
    told = [(1, 0.2, 2), (3, 0.1, 4.9), (1, 0.6, 5.5), (3, 0.4, 10), (3, 0.9, 21)]
    reports = tuple(Report(0.0, 0, 0, b, v, b == 3, 0.0, spent) for b, v, spent in told)
    found = Simulation(Study(PROBLEM.space, direction="maximize"), reports, 1.0, 1, 1.0)
    assert regrets(PROBLEM, found, 20, any_budget=False) == pytest.approx([1.0, 0.45, 0.3, 0.3])
    assert regrets(PROBLEM, found, 20, any_budget=True) == pytest.approx([0.4, 0.4, 0.2, 0.2])
    assert regrets(PROBLEM, found, 21, any_budget=True)[-1] == pytest.approx(0.05)


def test_the_table_averages_problems_of_unequal_runs():
    runs = [
        {"problem": p, "entrant": "bohb", "seed": s, "full": [v] * 4, "any": [v / 2] * 4}
        for p, s, v in (("a/1", 0, 0.2), ("a/1", 1, 0.4), ("a/2", 0, 0.5))
    ]
    cells = " | ".join(["0.4000"] * 4 + ["0.2000"] * 4)
    assert table(runs).splitlines()[2] == f"| a | bohb | 2 | 3 | {cells} |"


def test_what_is_missing_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("GPBO_BENCH_DATA", raising=False)
    assert multifidelity.main(["--out", str(tmp_path / "x")]) == 2
    assert "GPBO_BENCH_DATA must name the folder" in capsys.readouterr().err
    assert multifidelity.main(["--out", str(tmp_path / "x"), "--data", "d", "--entrants", "bob"]) == 2
    assert "`--entrants` must be among" in capsys.readouterr().err


@pytest.fixture(scope="module")
def surrogates():
    folder = os.environ.get("GPBO_BENCH_DATA")
    if not folder:
        pytest.skip("GPBO_BENCH_DATA does not name the folder of the YAHPO surrogates")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    return {problem.name: problem for problem in yahpo.problems(Path(folder))}


@pytest.mark.parametrize(
    ("name", "rungs"), [("lcbench/3945", (2, 6, 17, 52)), ("rbv2_rpart/14", (1 / 27, 1 / 9, 1 / 3, 1))]
)
def test_rungs_and_trials_of_the_protocol(surrogates, name, rungs):
    problem = surrogates[name]
    low = multifidelity._LOWEST.get(problem.group, problem.fidelity.low)
    full = 20 + 40 * math.sqrt(len(problem.space.columns))
    hyperband, asha = (ENTRANTS[name](low, problem.fidelity.high)[0] for name in ("hyperband", "asha"))
    assert hyperband.rungs == asha.rungs == pytest.approx(rungs)
    started = sum(bracket[0][0] for bracket in hyperband.brackets)
    cost = sum(n * budget for bracket in hyperband.brackets for n, budget in bracket) / rungs[-1]
    assert run(problem, "hyperband", 0)["trials"] == pytest.approx(full * started / cost, rel=0.12)
    # with one in three going on a trial costs 4 / 27 from scratch; the best so far go on besides
    assert 0.65 * full * 27 / 4 < run(problem, "asha", 0)["trials"] < full * 27 / 4


def test_the_command_continues_a_file(surrogates, capsys, tmp_path):
    out = tmp_path / "runs.jsonl"
    command = ["--problems", "rbv2_rpart/14", "--entrants", "hyperband", "--out", str(out), "--seeds"]
    assert multifidelity.main([*command, "0"]) == 0
    first = out.read_text()
    assert multifidelity.main([*command, "0-1"]) == 0
    assert out.read_text().startswith(first)
    assert len(out.read_text().splitlines()) == 2
    assert "| rbv2_rpart | hyperband | 1 | 2 |" in capsys.readouterr().out
