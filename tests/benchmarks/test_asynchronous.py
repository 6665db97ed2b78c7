import json

import numpy as np
import pytest

from benchmarks import asynchronous
from benchmarks.asynchronous import regret_at, run, speedup, table
from benchmarks.problems.base import Fidelity, Problem
from gpbo import Float, SearchSpace


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
    fidelity=Fidelity("steps", 1, 27, curve, lambda config, b: b * (0.5 + config["y"]), is_integer=True),
)


@pytest.mark.parametrize("resume", [False, True])
def test_workers_are_busy_and_spend_what_they_may(resume):
    record = run(PROBLEM, "asha", 0, workers=8, each=4, resume=resume)
    assert json.loads(json.dumps(record))["steps"] == [list(step) for step in record["steps"]]
    assert record["busy"] > 0.99
    regrets = [regret for _, regret in record["steps"]]
    assert regrets == sorted(regrets, reverse=True)
    assert 0 <= regrets[-1] < 0.2
    # a full training takes 27 s on average, a worker four of them
    assert record["seconds"] == pytest.approx(4 * 27, rel=0.4)


def test_regret_at_by_hand():
    steps = {"steps": [(2.0, 0.5), (4.0, 0.1)]}
    assert regret_at(steps, np.array([1.0, 2.0, 3.0, 4.0, 9.0])).tolist() == [1.0, 0.5, 0.5, 0.1, 0.1]


def test_speedup_by_hand():
    rival = np.array([1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.2])
    assert speedup(np.array([1.0, 0.2, *[0.1] * 6]), rival) == 8 / 2
    assert speedup(rival, rival) == 1
    assert speedup(np.full(8, 0.3), rival) == 0


def test_the_table_counts_time_in_the_rivals():
    """The rival has its last regret at its end, 100 s; the other one had it after 25 s."""
    common = {"problem": "a/1", "seed": 0, "workers": 8, "busy": 0.5, "seconds": 100.0}
    runs = [
        {**common, "entrant": "hpbandster-bohb", "steps": [(10.0, 0.9), (100.0, 0.2)]},
        {**common, "entrant": "asha", "steps": [(25.0, 0.2), (90.0, 0.1)]},
    ]
    rows = table(runs, "hpbandster-bohb").splitlines()[2:]
    assert rows[0] == "| 8 | hpbandster-bohb | 1 | 50.00% | 0.2000 | 0.2000 | 1.0 (1.0 to 1.0) |"
    assert rows[1] == "| 8 | asha | 1 | 50.00% | 0.1000 | 0.2000 | 4.0 (4.0 to 4.0) |"


def test_what_is_missing_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("GPBO_BENCH_DATA", raising=False)
    assert asynchronous.main(["--out", str(tmp_path / "x")]) == 2
    assert "GPBO_BENCH_DATA must name the folder" in capsys.readouterr().err
    assert asynchronous.main(["--out", str(tmp_path / "x"), "--data", "d", "--rival", "bob"]) == 2
    assert "`--entrants` must be among" in capsys.readouterr().err
