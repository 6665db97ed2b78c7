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
