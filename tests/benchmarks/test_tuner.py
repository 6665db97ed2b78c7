import subprocess
from types import SimpleNamespace

import pandas as pd
import pytest

from benchmarks import tuner
from benchmarks.problems.base import Problem
from gpbo import Float, SearchSpace
from gpbo.errors import SettingError


def run_of(entrant, seed, full, seconds=10.0):
    return {
        "problem": "g/a", "entrant": entrant, "seed": seed, "full": full, "any": full / 2, "reports": 300,
        "seconds": seconds,
    }  # fmt: skip


def test_a_table_compares_with_rays_pair_seed_by_seed():
    runs = [run_of("ray-bohb", seed, 0.5, 20.0) for seed in range(3)]
    runs += [run_of("gpbo", 0, 0.25), run_of("gpbo", 1, 0.5), run_of("gpbo", 2, 0.75), run_of("gpbo", 3, 0.5)]
    _, _, rays, ours = tuner.table(runs).splitlines()
    assert rays == "| ray-bohb | 3 | 0.500 | 0.250 |  | 300 | 20 |"
    assert ours == "| gpbo | 4 | 0.500 | 0.250 | 1 / 1 / 1 | 300 | 10 |"


def test_reports_divide_the_epochs():
    assert [tuner.epoch_of(report, 52.0) for report in (1, 3, 9, 27)] == [2, 6, 17, 52]


@pytest.mark.parametrize(("values", "regret"), [([3.0, 7.0], 0.5), ([11.0], 0.0), ([], 1.0)])
def test_a_regret_is_between_the_worst_and_the_best_known(values, regret):
    space = SearchSpace(x=Float(0, 1))
    problem = Problem("g/a", space, len, "test", "maximize", optimum=9.0, worst=5.0)
    assert tuner._regret(problem, values) == regret


def test_the_data_that_are_missing_are_named(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("GPBO_BENCH_DATA", raising=False)
    with pytest.raises(SettingError, match="GPBO_BENCH_DATA must name the folder"):
        tuner._problem("lcbench/126025")
    assert tuner.main(["--seeds", "0", "--out", str(tmp_path / "t.jsonl")]) == 2
    assert "GPBO_BENCH_DATA must name" in capsys.readouterr().err


def test_trials_that_failed_before_a_report_are_left_out():
    frame = pd.DataFrame({"value": [3.0, 2.0]})
    results = [
        SimpleNamespace(metrics={"training_iteration": 2, "value": 2.0}, metrics_dataframe=frame),
        SimpleNamespace(metrics={}, metrics_dataframe=pd.DataFrame()),
        SimpleNamespace(metrics={"trial_id": "a"}, metrics_dataframe=None),
        SimpleNamespace(metrics=None, metrics_dataframe=None),
    ]
    assert tuner._told(results) == [(2, [3.0, 2.0])]


@pytest.mark.parametrize(("said", "match"), [("", "ended with -9 and no word"), ("a\nb: c\n", "b: c")])
def test_a_run_that_ended_badly_is_named(monkeypatch, said, match):
    done = subprocess.CompletedProcess([], -9, "", said)
    monkeypatch.setattr(tuner.subprocess, "run", lambda *given, **options: done)
    with pytest.raises(SettingError, match=f"g/a gpbo seed 0: {match}"):
        tuner._apart("g/a", "gpbo", 0)
