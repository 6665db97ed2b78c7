import json

import pytest

from benchmarks import multi_objective
from benchmarks.multi_objective import PEERS, PROBLEMS, Problem, table


def test_the_shortfall_by_hand():
    problem = Problem("constrained-branin-currin")
    (low, high), slack = (80.0, 12.0), [0.0]
    largest = problem.largest
    assert problem.shortfall([]) == 1.0
    assert problem.shortfall([([low, high], slack), ([0.0, 0.0], [-1.0])]) == 1.0
    half = 1.0 - 40.0 * 6.0 / largest
    assert problem.shortfall([([40.0, 6.0], slack), ([41.0, 7.0], slack)]) == pytest.approx(half)
    one = Problem("gramacy")
    assert one.shortfall([([1.0], [0.0, 0.0]), ([0.6], [0.0, -1.0])]) == pytest.approx(1 - 1 / (2 - 0.5998))


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_problem_is_evaluated_on_the_unit_cube(name):
    problem = Problem(name)
    values, slacks = problem.evaluate([0.25] * problem.d)
    assert (len(values), len(slacks)) == (problem.m, problem.constraints)
    assert problem.largest > 0.0


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("problem", ["gramacy", "constrained-branin-currin"])
def test_every_peer_runs(name, problem):
    if name.startswith(("optuna", "nsga2")):
        pytest.importorskip("optuna")
    n = 8 if name == "botorch" else 7
    results = PEERS[name](Problem(problem), 0, n)
    assert len(results) == n


def test_a_file_is_continued(tmp_path, capsys):
    out = tmp_path / "front.jsonl"
    command = ["--problems", "zdt1", "--peers", "random", "--evaluations", "4", "--out", str(out), "--seeds"]
    multi_objective.main([*command, "0"])
    multi_objective.main([*command, "0-1"])
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [record["seed"] for record in records] == [0, 1]
    assert table(records) in capsys.readouterr().out


def test_a_table_has_geometric_means():
    runs = [{"problem": "p", "peer": "a", "shortfall": [0.1, half]} for half in (0.04, 0.01)]
    assert table([*runs, {"problem": "q", "peer": "b", "shortfall": [0.5, 0.0]}]).splitlines()[2:] == [
        "| p | 0.1 / 0.02 | - |",
        "| q | - | 0.5 / 1e-05 |",
    ]
