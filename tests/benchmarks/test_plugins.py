import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import compare, plugins, records
from benchmarks.problems import all_problems, choose
from benchmarks.problems.trainings import data_of


def run_of(problem, peer, seed, last):
    return {
        "problem": problem, "peer": peer, "seed": seed, "evaluations": 12, "initial": "own", "device": "cpu",
        "split": "test", "direction": "minimize", "optimum": 0.0, "worst": None, "error": None,
        "values": [9.0] * 11 + [last], "rejections": 0, "revision": "abc", "versions": {"torch": "2.13"},
        "ask_seconds": [1.0] * 12, "ask_cpu_seconds": [1.0] * 12,
        "tell_seconds": [0.0] * 12, "tell_cpu_seconds": [0.0] * 12,
    }  # fmt: skip


def test_a_summary_counts_problems_and_runs_and_names_every_loss():
    last = {
        "g/a": {"random": 9.0, "optuna-gpbo": 1.0, "optuna-tpe": 3.0},
        "g/b": {"random": 9.0, "optuna-gpbo": 4.5, "optuna-tpe": 0.9},
        "h/c": {"random": 9.0, "optuna-gpbo": 2.0, "optuna-tpe": 2.0},
    }
    runs = [
        run_of(problem, peer, seed, value)
        for problem, by_peer in last.items() for seed in range(8) for peer, value in by_peer.items()
    ]  # fmt: skip
    text = plugins.summary(compare.tabulate(runs), "optuna-gpbo")
    head, _, ours, random, tpe, *_ = text.splitlines()
    assert [cell.strip() for cell in head.split("|")[2:4]] == ["g (2)", "h (1)"]
    assert [cell.strip() for cell in ours.split("|")[1:4]] == ["optuna-gpbo", "0.306", "0.222"]
    assert random.endswith("| 3 / 0 / 0 | 0 | 24 / 0 / 0 | 1x |")
    assert tpe.endswith("| 1 / 1 / 1 | 1 | 8 / 8 / 8 | 1x |")  # eight of eight seeds worse on g/b
    assert "All losses: g/b optuna-tpe (0.100 against 0.500, p = 0.01)" in " ".join(text.split())
    assert "3 problems, 8 to 8 seeds, 24 blocks" in text


def test_problems_are_of_the_test_half():
    known = {problem.name: problem.split for problem in all_problems()}
    for names in (plugins._OPTUNA, plugins._RAY):
        here = [name for name in names.split(",") if name in known]
        assert len(here) > 3
        assert {known[name] for name in here} == {"test"}
    trained = {problem.name.split("/")[1] for problem in choose(all_problems(), ["training/*"], "test")}
    assert plugins.searches().keys() <= trained


@pytest.mark.parametrize("name", plugins._SEARCHERS)
def test_a_search_leaves_a_record_that_can_be_compared(name):
    record = plugins.search("linear-breast_cancer", name, 3, n_iter=4)
    assert record["error"] is None
    assert len(record["values"]) == (1 if name == "sklearn-halving" else 4)
    assert all(-1 <= value <= 0 for value in record["values"])
    again = plugins.search("linear-breast_cancer", name, 3, n_iter=4)
    assert again["values"] == record["values"]
    assert records.key_of(record) == ("sklearn/linear-breast_cancer", name, 3, 4, "own", "cpu")


def test_halving_is_given_as_many_samples_as_the_others():
    task = plugins.searches()["linear-breast_cancer"]
    X, y = data_of(task.data)
    search = plugins.entrant(
        "sklearn-halving", task.estimator, task.space, 0, 3, len(y), scoring="accuracy", cv=task.folds()
    ).fit(X, y)
    samples = search.cv_results_["n_resources"]
    assert samples.max() == len(y)
    assert samples.sum() == 3 * len(y)


def test_a_search_that_fails_leaves_the_error(monkeypatch):
    monkeypatch.setattr(plugins, "data_of", lambda name: (np.zeros((9, 2)), np.zeros(9)))
    record = plugins.search("svc-breast_cancer", "random", 0, n_iter=2)
    assert "Error" in record["error"]
    assert record["values"] == []


@pytest.mark.parametrize("name", ["random", "sklearn-gpbo"])
def test_the_time_of_a_trial_is_looked_at_where_it_is_said(monkeypatch, name):
    monkeypatch.setattr(plugins, "MARKS", (10, 12))
    found = plugins._searched(name)
    assert len(plugins.Function.moments) == 12
    assert all(len(found[unit]) == 2 and min(found[unit]) > 0 for unit in ("wall", "cpu"))
    wall = np.arange(12.0)
    assert plugins._at_marks(wall, wall)["wall"] == [4.5, 6.5]


def test_statements_are_timed_in_a_fresh_process_after_what_they_need():
    wall, cpu = plugins._fresh("import json", "assert 'json' in dir()\nfor _ in range(10**6): pass")
    assert wall > 0 < cpu


def test_what_is_there_is_not_run_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plugins, "CANDIDATES", 4)
    monkeypatch.setattr(plugins, "searches", lambda: {"t": None})
    ran = []

    def search(task, name, seed):
        ran.append((name, seed))
        return run_of(f"sklearn/{task}", name, seed, float(len(ran))) | {"evaluations": 4}

    monkeypatch.setattr(plugins, "search", search)
    options = ["--parts", "sklearn", "--out", str(tmp_path)]
    assert plugins.main([*options, "--seeds", "0"]) == 0
    assert plugins.main([*options, "--seeds", "0-1"]) == 0
    assert (
        ran == [(name, 0) for name in plugins._SEARCHERS] + [(name, 1) for name in plugins._SEARCHERS][::-1]
    )
    monkeypatch.setattr(plugins, "_PUBLISHED", tmp_path / "published")
    assert plugins.main([*options, "--seeds", "", "--publish"]) == 0
    assert len(ran) == 6
    first = json.loads(Path(tmp_path, "published", "plugins-sklearn.jsonl").read_text().splitlines()[0])
    assert first["peers"] == list(plugins._SEARCHERS)
    assert "sklearn-gpbo's share of it" in capsys.readouterr().out
    assert plugins.main(["--parts", "keras", "--out", str(tmp_path)]) == 2
    assert "must be among optuna, ray, sklearn, times; got 'keras'" in capsys.readouterr().err
