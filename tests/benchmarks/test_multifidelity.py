import json
import math
import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import multifidelity
from benchmarks.multifidelity import ENTRANTS, regrets, run, table, task_of
from benchmarks.peers import budgets
from benchmarks.peers.budgets import BUDGET_PEERS, Evaluation
from benchmarks.problems import yahpo
from benchmarks.problems.base import Fidelity, Problem
from gpbo import Float, SearchSpace, Simulation, Study
from gpbo.errors import SettingError
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
    epochs = replace(PROBLEM, name="lcbench/1")
    assert regrets(epochs, found, 20, any_budget=False) == pytest.approx([1.0, 0.45, 0.3, 0.3])
    assert regrets(epochs, found, 20, any_budget=True) == pytest.approx([0.4, 0.4, 0.2, 0.2])
    assert regrets(epochs, found, 21, any_budget=True)[-1] == pytest.approx(0.05)


def test_the_table_averages_problems_of_unequal_runs():
    runs = [
        {"problem": p, "entrant": "bohb", "seed": s, "full": [v] * 4, "any": [v / 2] * 4}
        for p, s, v in (("a/1", 0, 0.2), ("a/1", 1, 0.4), ("a/2", 0, 0.5))
    ]
    line = table(runs).splitlines()[2]
    assert line.startswith("| a | bohb | 2 | 3 | 0.4000 (")
    assert [cell[:6] for cell in line.split(" | ")[4:]] == ["0.4000"] * 4 + ["0.2000"] * 4


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


# ---------------------------------------------------------------- peers


TASK = task_of(PROBLEM, 3)


def needs(name):
    lacking = budgets.missing(name)
    if lacking:
        pytest.skip(f"{lacking[0]} is not installed")


def evaluated(name, seed=3, n=40):
    """What a peer asks for when one is evaluated after the other."""
    peer, asked = budgets.create(name, replace(TASK, seed=seed)), []
    for _ in range(n):
        evaluation = peer.ask()
        assert PROBLEM.space.validate(evaluation.config) == evaluation.config
        peer.tell(evaluation, -curve(evaluation.config, evaluation.budget))
        asked.append((evaluation.number, evaluation.config, evaluation.budget, evaluation.running_from))
    return asked


@pytest.mark.parametrize("name", [name for name in BUDGET_PEERS if name != "smac-hyperband"])  # it is slow
def test_a_peer_halves_and_does_the_same_again(name):
    needs(name)
    asked = evaluated(name)
    assert asked == evaluated(name)
    assert asked != evaluated(name, seed=4)
    assert {budget for _, _, budget, _ in asked} == {1, 3, 9, 27}
    at = {budget: [config for _, config, b, _ in asked if b == budget] for budget in (1, 3)}
    assert len(at[1]) > len(at[3])
    by_number = {}
    for number, config, _, _ in asked:  # one that is promoted keeps its number and its config
        assert by_number.setdefault(number, config) == config


def test_smac_promotes_configs_of_the_lowest_rung():
    needs("smac-hyperband")
    asked = evaluated("smac-hyperband", n=28)
    assert {budget for _, _, budget, _ in asked} == {1, 3}
    lowest = {number: config for number, config, budget, _ in asked if budget == 1}
    assert all(lowest[number] == config for number, config, budget, _ in asked if budget == 3)


@pytest.mark.parametrize("name", ["hpbandster-hyperband", "hpbandster-bohb", "dehb"])
def test_brackets_start_as_many_at_each_rung_as_the_protocol_says(name):
    needs(name)
    counts = Counter(budget for _, _, budget, _ in evaluated(name, n=40))
    assert counts == {1: 27, 3: 9, 9: 3, 27: 1}
    assert TASK.evaluations == round(TASK.total / 27 * 65 / 15)


def test_pruned_trials_run_on_and_pay_once():
    needs("optuna-tpe-median")
    peer = budgets.create("optuna-tpe-median", TASK)
    found = budgets.play(peer, TASK, lambda c, b: (curve(c, b), b), "maximize", spend=300)
    first = [r for r in found.reports if r.number == 0]
    assert [r.budget for r in first] == [1, 3, 9, 27]  # nobody to be compared with
    assert [r.spent_from_scratch for r in first] == [r.seconds for r in first] == [1, 3, 9, 27]
    furthest = {r.number: r.budget for r in found.reports}
    assert found.spent == found.spent_from_scratch == sum(furthest.values())
    assert min(furthest.values()) < 27  # pruned


class Listed:
    """A peer that asks for evaluations of a list, and is blocked where one is None."""

    def __init__(self, *wanted):
        self.wanted, self.told = list(wanted), []

    def ask(self):
        if self.wanted and self.wanted[0] is None and not self.told:
            return None
        while self.wanted and self.wanted[0] is None:
            self.wanted.pop(0)
        return self.wanted.pop(0) if self.wanted else None

    def tell(self, evaluation, loss):
        self.told.append((evaluation.number, evaluation.budget, loss))


def listed(*wanted):
    return Listed(*(w and Evaluation(w[0], {"x": w[1], "y": 0.0}, w[2]) for w in wanted))


def test_virtual_time_by_hand():
    """Worker 0 takes trial 0 for 3 s; worker 1 trial 1 for 1 s, waits for nobody, and is then blocked."""
    seconds = {0: 3.0, 1: 1.0}

    def objective(config, budget):
        return config["x"], seconds[config["x"]] * budget

    wanted = [(0, 0, 1), (1, 1, 1), None, (1, 1, 3)]
    peer = listed(*wanted)
    found = budgets.play(peer, TASK, objective, "maximize", workers=2, spend=5)
    rows = [(r.seconds, r.worker, r.number, r.budget, r.spent, r.spent_from_scratch) for r in found.reports]
    assert rows == [(1, 1, 1, 1, 1, 1), (3, 0, 0, 1, 2, 2), (4, 1, 1, 3, 4, 5)]
    assert peer.told == [(1, 1, -1), (0, 1, 0), (1, 3, -1)]
    assert (found.seconds, found.busy_seconds, found.workers) == (4, 3 + 1 + 3, 2)
    again = budgets.play(listed(*wanted), TASK, objective, "maximize", workers=2, spend=5, resume=True)
    assert [r.seconds for r in again.reports] == [1, 3, 3]  # trial 1 goes on from where it was
    with pytest.raises(SettingError, match="got 'bob'"):
        budgets.create("bob", TASK)
    constrained = SearchSpace(x=Float(0, 1), y=Float(0, 1), constraints="x <= y")
    with pytest.raises(SettingError, match="without constraints"):
        budgets.create("optuna-tpe-median", replace(TASK, space=constrained))


def test_a_report_of_another_training_pays_for_itself():
    """The marks are at 1, 2.5, 5 and 10; trial 0 reports at 1 and at 3, for 4 in all."""
    told = [(1, 0.2, 1), (3, 0.8, 3)]
    reports = tuple(Report(0.0, 0, 0, b, v, b == 3, spent, spent) for b, v, spent in told)
    found = Simulation(Study(PROBLEM.space, direction="maximize"), reports, 1.0, 1, 1.0)
    assert regrets(PROBLEM, found, 10, any_budget=False) == pytest.approx([1, 1, 0.1, 0.1])
    assert regrets(PROBLEM, found, 6, any_budget=False) == pytest.approx([1, 1, 1, 0.1])
    epochs = replace(PROBLEM, name="lcbench/1")
    assert regrets(epochs, found, 6, any_budget=False) == pytest.approx([1, 1, 0.1, 0.1])


def rows_of(*values):
    return [
        {"problem": p, "entrant": e, "seed": s, "full": [v] * 4, "any": [v / 2] * 4} for p, e, s, v in values
    ]


def test_ratios_are_of_the_blocks_that_both_ran():
    runs = rows_of(
        ("a/1", "bohb", 0, 0.2), ("a/1", "dehb", 0, 0.4), ("a/1", "dehb", 1, 9.0), ("a/2", "bohb", 0, 9.0)
    )
    cell = "0.50 (0.50 to 0.50)"
    assert multifidelity.ratios(runs, "bohb").splitlines()[2] == (
        f"| a | dehb | 1 | 1 | {' | '.join([cell] * 8)} |"
    )


def test_intervals_come_from_problems_and_seeds():
    rng = np.random.default_rng(1)
    runs = rows_of(*((f"a/{p}", "bohb", s, p + rng.normal()) for p in range(10) for s in range(10)))
    cell = table(runs).splitlines()[2].split(" | ")[4]
    value, low, high = (float(x) for x in re.findall(r"-?\d+\.\d+", cell))
    assert low < value < high
    # the problems' own spread, 0 to 9, is most of it: 4 standard errors of a mean of ten
    assert high - low == pytest.approx(4 * math.sqrt(99 / 12 / 10), rel=0.25)


def test_published_figures_are_shares_of_random_searchs():
    runs = rows_of(("rbv2_rpart/14", "random", 0, 0.4), ("rbv2_rpart/14", "hpbandster-bohb", 0, 0.1))
    assert multifidelity.anchored(runs).splitlines()[2] == (
        "| rbv2_rpart/14 | hpbandster-bohb | BOHB | 0.25 | 0.40 | 0.25 | 0.24 | 0.25 | 0.23 |"
    )
    assert len(multifidelity.anchored(runs[1:]).splitlines()) == 2


def test_what_is_not_installed_is_named_and_left_out(monkeypatch, capsys):
    monkeypatch.setattr(budgets, "missing", lambda name: ["dehb"] if name == "dehb" else [])
    assert multifidelity.installed(["bohb", "dehb"]) == ["bohb"]
    assert "dehb is left out: dehb is not installed" in capsys.readouterr().err
    with pytest.raises(SettingError, match="nothing that is installed"):
        multifidelity.installed(["dehb"])


def test_an_entrant_that_raises_leaves_its_error():
    def broken(problem, entrant, seed):
        raise RuntimeError("no good")

    record = multifidelity.attempt(broken, PROBLEM, "dehb", 1)
    assert (record["problem"], record["entrant"], record["seed"]) == ("curves/1", "dehb", 1)
    assert record["error"].endswith("RuntimeError: no good")
