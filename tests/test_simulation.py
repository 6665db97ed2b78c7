import json
import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpbo import (
    ASHA,
    BOHBSuggester,
    Float,
    Hyperband,
    Int,
    MedianStopping,
    RandomSuggester,
    SearchSpace,
    SobolSuggester,
    State,
    Study,
    SuccessiveHalving,
    simulate,
)
from gpbo.errors import NoResultError, ResultError, SettingError
from gpbo.suggesters.base import Suggestion

NUMBERED = SearchSpace(i=Int(0, 4095))
PLANE = SearchSpace(x=Float(0, 1), y=Float(0, 1))


class InOrder:
    """Proposes the number of the trial, so that a test knows every config beforehand."""

    def suggest(self, data, cube, n, seed):
        i = torch.arange(data.number, data.number + n, dtype=torch.float64)
        return Suggestion(cube.snap((i[:, None] + 0.5) / 4096))


def table(values, seconds=10.0):
    return lambda config, budget: (values[config["i"]], seconds * (budget or 1))


def told(simulation):
    return [(r.seconds, r.worker, r.number, r.budget, r.value) for r in simulation.reports]


def plain(trials):
    return [(t.number, t.config, t.state, t.budget, t.bracket, t.values, t.info) for t in trials]


def test_one_worker_by_hand():
    found = simulate(
        NUMBERED, table([5, 3, 4]), scheduler=ASHA(1, 3, 3), suggester=InOrder(), n_trials=3, device="cpu"
    )
    assert told(found) == [(10, 0, 0, 1, 5), (20, 0, 1, 1, 3), (30, 0, 2, 1, 4), (50, 0, 1, 3, 3)]
    assert [(r.spent, r.spent_from_scratch) for r in found.reports] == [(1, 1), (2, 2), (3, 3), (5, 6)]
    assert (found.spent, found.spent_from_scratch) == (5, 6)
    assert (found.seconds, found.busy_seconds, found.busy_share) == (50, 50, 1)
    assert [t.state for t in found.study.trials] == [State.PAUSED, State.COMPLETE, State.PAUSED]
    assert [(t.started, t.finished) for t in found.study.trials] == [(0, None), (10, 50), (20, None)]
    assert [o.seconds for o in found.study.trials[1].observations] == [10, 20]
    assert [(r.number, r.seconds) for r in found.incumbents()] == [(1, 50)]
    assert [(r.number, r.seconds) for r in found.incumbents(any_budget=True)] == [(0, 10), (1, 20)]


def test_starting_again_takes_longer():
    again = simulate(
        NUMBERED,
        table([5, 3, 4]),
        scheduler=ASHA(1, 3, 3),
        suggester=InOrder(),
        n_trials=3,
        resume=False,
        device="cpu",
    )
    assert told(again)[-1] == (60, 0, 1, 3, 3)
    assert (again.spent, again.spent_from_scratch) == (5, 6)


def test_two_workers_by_hand():
    """Trial 0 takes three times as long; trial 2 is third, makes the quota one, and trial 1 goes on."""
    took = [3.0, 1.0, 1.5, 1.0]
    found = simulate(
        NUMBERED,
        lambda config, budget: (-config["i"], took[config["i"]] * budget),
        scheduler=ASHA(1, 3, 3),
        suggester=InOrder(),
        workers=2,
        n_trials=4,
        direction="maximize",
        device="cpu",
    )
    assert told(found) == [
        (1.0, 1, 1, 1, -1),
        (2.5, 1, 2, 1, -2),
        (3.0, 0, 0, 1, 0),
        (3.5, 1, 3, 1, -3),
        (9.0, 0, 0, 3, 0),
    ]
    assert found.busy_seconds == 3.5 + 9.0
    assert found.busy_share == 12.5 / 18


def test_reports_on_the_way_need_no_restart():
    found = simulate(
        NUMBERED,
        table([1, 2]),
        scheduler=MedianStopping(4, min_trials=1),
        suggester=InOrder(),
        n_trials=2,
        report_budgets=[1, 2],
        resume=False,
        device="cpu",
    )
    assert told(found) == [(10, 0, 0, 1, 1), (20, 0, 0, 2, 1), (40, 0, 0, 4, 1), (50, 0, 1, 1, 2)]
    assert found.spent == found.spent_from_scratch == 5
    assert found.study.trials[1].state is State.STOPPED


def test_without_budgets():
    found = simulate(NUMBERED, table([3, 1, 2]), suggester=InOrder(), workers=3, n_trials=3, device="cpu")
    assert told(found) == [(10, 0, 0, None, 3), (10, 1, 1, None, 1), (10, 2, 2, None, 2)]
    assert found.spent == found.spent_from_scratch == 3
    assert [r.number for r in found.incumbents()] == [0, 1]


def test_the_limits():
    def run(**limits):
        return simulate(
            NUMBERED, table(range(99)), scheduler=ASHA(1, 3, 3), suggester=InOrder(), device="cpu", **limits
        )

    early = run(until=25, workers=2)
    assert [r.seconds for r in early.reports] == [10, 10, 20, 20]
    assert (early.seconds, early.busy_seconds, early.busy_share) == (25, 50, 1)
    assert sum(t.state is State.RUNNING for t in early.study.trials) == 2
    # trials 0, 1, 2 at 1 each, then 0 goes on to 3: for 2 more, or for 3 from scratch
    assert [run(spend=s).spent for s in (3, 3.5, 5)] == [3, 5, 5]
    assert [run(spend=s, resume=False).spent_from_scratch for s in (3, 3.5, 6, 6.5)] == [3, 6, 6, 7]


def test_a_value_that_is_not_finite_fails_the_trial():
    found = simulate(
        NUMBERED, table([math.nan] * 4), scheduler=ASHA(1, 3), suggester=InOrder(), n_trials=4, device="cpu"
    )
    assert {t.state for t in found.study.trials} == {State.FAILED}
    assert (found.spent, found.incumbents(any_budget=True)) == (4, [])
    with pytest.raises(NoResultError):
        _ = found.study.best


@pytest.mark.parametrize("answer", [1.0, (1.0, -1.0), (1.0, math.inf), (1.0, None), "no"])
def test_the_objective_is_checked(answer):
    with pytest.raises(ResultError, match="must give a value and a number of seconds >= 0"):
        simulate(PLANE, lambda config, budget: answer, suggester=RandomSuggester(), n_trials=1, device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "`n_trials`, `until` or `spend` must be given"),
        ({"n_trials": 0}, "`n_trials` must be a whole number >= 1, got 0"),
        ({"until": 0}, "`until` must be a finite number > 0"),
        ({"spend": -1}, "`spend` must be a finite number > 0"),
        ({"n_trials": 1, "workers": 0}, "`workers` must be a whole number >= 1, got 0"),
        ({"n_trials": 1, "direction": ["minimize"] * 2}, "`direction` must be that of one objective"),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(SettingError, match=message):
        simulate(PLANE, lambda config, budget: (0.0, 1.0), **options)


def curve(config, budget):
    """A learning curve, some of which cross, and some of which break."""
    budget = 27 if budget is None else budget
    if config["x"] > 0.97:
        return math.nan, 0.5 * budget
    return (config["x"] - 0.3) ** 2 + config["y"] / budget, budget * (0.5 + config["y"])


SCHEDULERS = {
    "none": lambda: None,
    "asha": lambda: ASHA(1, 27, 3),
    "stopping": lambda: ASHA(1, 27, 3, stopping=True),
    "hyperband": lambda: Hyperband(1, 27, 3),
    "halving": lambda: SuccessiveHalving(1, 27, 3),
    "median": lambda: MedianStopping(27),
}


@settings(max_examples=25)
@given(
    name=st.sampled_from(list(SCHEDULERS)),
    workers=st.integers(1, 20),
    seed=st.integers(0, 99),
    resume=st.booleans(),
)
def test_what_always_holds(name, workers, seed, resume):
    found = simulate(
        PLANE,
        curve,
        scheduler=SCHEDULERS[name](),
        suggester=RandomSuggester(),
        workers=workers,
        n_trials=40,
        resume=resume,
        report_budgets=[5, 10] if name == "median" else (),
        seed=seed,
        device="cpu",
    )
    reports, trials = found.reports, found.study.trials
    assert [r.seconds for r in reports] == sorted(r.seconds for r in reports)
    assert found.busy_seconds <= workers * found.seconds * (1 + 1e-12)
    assert not any(t.state is State.RUNNING for t in trials)
    assert len(trials) == 40
    furthest = dict[int, float]()
    for r in reports:
        assert r.worker < workers
        assert furthest.get(r.number, 0) < (r.budget or 1)
        furthest[r.number] = r.budget or 1
    assert found.spent == sum(furthest.values())
    assert found.spent <= found.spent_from_scratch <= sum(r.budget or 1 for r in reports)
    finished = [t for t in trials if t.state is State.COMPLETE]
    full = [r for r in reports if r.is_full and math.isfinite(r.value)]
    assert sorted(r.number for r in full) == sorted(t.number for t in finished)
    if full:
        assert found.incumbents()[-1].number == found.study.best.number
    for worker in range(workers):
        mine = [r for r in reports if r.worker == worker]
        work = [o.seconds for r in mine for o in trials[r.number].observations if o.budget == r.budget]
        ends = [r.seconds for r in mine if math.isfinite(r.value)]
        assert all(b - a >= s * (1 - 1e-9) for a, b, s in zip(ends, ends[1:], work[1:], strict=False))


@pytest.mark.parametrize("suggester", [RandomSuggester, SobolSuggester, BOHBSuggester])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_decisions_are_those_of_a_study(name, suggester):
    """One that is asked and told in the same order, with no clock at all."""
    options = {"suggester": suggester(), "seed": 3, "device": "cpu"}
    found = simulate(PLANE, curve, scheduler=SCHEDULERS[name](), workers=5, n_trials=30, **options)
    study = Study(PLANE, scheduler=SCHEDULERS[name](), **options)
    running, reports = {}, iter(found.reports)
    while True:
        while len(running) < 5:
            trial = study._ask(owner=None, n_trials=30)
            if trial is None:
                break
            running[trial.number] = trial
        if not running:
            break
        report = next(reports)
        now = study.tell(running.pop(report.number), report.value, budget=report.budget)
        if now.state is State.RUNNING:
            running[report.number] = now
    assert next(reports, None) is None
    assert plain(study.trials) == plain(found.study.trials)


def test_a_ranking_kept_at_every_budget_ends_with_the_best():
    found = simulate(
        PLANE,
        lambda config, budget: (config["x"] + 1 / budget, budget),
        scheduler=ASHA(1, 27, 3),
        suggester=RandomSuggester(),
        workers=8,
        n_trials=300,
        device="cpu",
    )
    best = min(found.study.trials, key=lambda t: t.config["x"])
    assert found.incumbents()[-1].number == best.number


def test_equal_bit_for_bit_in_another_process():
    code = """
import json
from gpbo import ASHA, BOHBSuggester, Float, SearchSpace, simulate
found = simulate(
    SearchSpace(x=Float(0, 1), y=Float(0, 1)),
    lambda config, budget: (config["x"] + config["y"] / budget, budget * (0.5 + config["y"])),
    scheduler=ASHA(1, 27, 3), suggester=BOHBSuggester(), workers=16, n_trials=60, device="cpu", seed=7,
)
rows = [(r.seconds.hex(), r.worker, r.number, r.budget, r.value.hex(), r.spent) for r in found.reports]
trials = [(t.config, t.state, t.info, t.started, t.finished) for t in found.study.trials]
print(json.dumps([rows, trials, found.busy_seconds.hex()]))
"""
    answers = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": str(k), "OMP_NUM_THREADS": "1"},
        ).stdout
        for k in (1, 2)
    ]
    assert answers[0] == answers[1]
    assert len(json.loads(answers[0])[0]) > 60


def calls(n):
    """How many functions a simulation of `n` trials runs through."""
    counted = 0

    def count(_frame, event, _arg):
        nonlocal counted
        counted += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        simulate(
            PLANE,
            curve,
            scheduler=ASHA(1, 27, 3),
            suggester=RandomSuggester(),
            workers=16,
            n_trials=n,
            device="cpu",
        )
    finally:
        sys.setprofile(before)
    return counted


def test_a_trial_costs_no_more_among_many():
    """Calls per trial; 1 000 trials a second leave 1 ms, and a call takes a few tenths of a microsecond."""
    calls(10)  # what is imported and cached at first
    few, many = calls(300) / 300, calls(1200) / 1200
    assert many < 1.15 * few
    assert many < 1000
