import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpbo import Float, Study
from gpbo.errors import ResultError, SettingError, TrialStateError
from gpbo.schedulers.asha import ASHA
from gpbo.schedulers.base import Minimised, RunToEnd, changed
from gpbo.suggesters.quasirandom import RandomSuggester
from gpbo.trial import Observation, Start, State, Trial


def trial(number, *values):
    return Trial(number, {"x": 1}, observations=tuple(Observation(v) for v in values))


def study(scheduler, direction="minimize"):
    return Study({"x": Float(0, 1)}, suggester=RandomSuggester(), scheduler=scheduler, direction=direction)


def test_run_to_end_starts_and_completes():
    scheduler = RunToEnd()
    assert scheduler.next([]) == Start()
    assert scheduler.judge([trial(0, (1.0,))], 0) is State.COMPLETE
    assert scheduler.rungs == ()


def test_minimised_leaves_what_is_minimised_alone():
    trials = (trial(0, (1.0, 2.0)),)
    assert Minimised([False, False])(trials) is trials


def test_minimised_negates_what_is_maximised():
    trials = (trial(0, (1.0, 2.0), (3.0, -4.0)), trial(1))
    seen = Minimised([False, True])(trials)
    assert [o.values for o in seen[0].observations] == [(1.0, -2.0), (3.0, 4.0)]
    assert seen[1] is trials[1]
    assert trials[0].observations[0].values == (1.0, 2.0)


@given(st.lists(st.lists(st.integers(0, 2), max_size=5), min_size=1, max_size=6))
def test_minimised_remembers_without_effect(history):
    minimised = Minimised([True])
    for values in history:
        trials = tuple(trial(i, (float(v),)) for i, v in enumerate(values))
        assert minimised(trials) == Minimised([True])(trials)


@given(st.lists(st.integers(0, 1), max_size=400), st.lists(st.integers(0, 1), max_size=400))
def test_changed_is_where_they_differ(one, two):
    a = tuple(trial(i, (float(v),)) for i, v in enumerate(one))
    b = tuple(a[i] if i < len(a) and v == one[i] else trial(i, (float(v),)) for i, v in enumerate(two))
    both = min(len(a), len(b))
    differ = [i for i in range(both) if one[i] != two[i]]
    assert changed(a, b) == differ + list(range(both, max(len(a), len(b))))


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_study_promotes_the_better(direction):
    sign = -1.0 if direction == "maximize" else 1.0
    tuned = study(ASHA(1, 9, 3, delay=False), direction)
    for value in (3.0, 1.0, 2.0):
        asked = tuned.ask()
        assert asked.budget == 1
        assert tuned.tell(asked, sign * value).state is State.PAUSED
    promoted = tuned.ask()
    assert (promoted.number, promoted.budget) == (1, 3)
    assert promoted.observations[0].value == sign * 1.0


def test_a_study_ignores_a_second_report_at_a_budget():
    tuned = study(ASHA(1, 9, 3, delay=False))
    first = tuned.ask()
    told = tuned.tell(first, 5.0)
    assert tuned.tell(first, 7.0) == told
    assert tuned.tell(first.number, 7.0, budget=1.0000000001) == told
    for _ in range(2):
        tuned.tell(tuned.ask(), 6.0)
    promoted = tuned.ask()
    assert promoted.number == 0
    assert tuned.tell(first, 8.0) == promoted  # a late report of the first run
    assert tuned.tell(promoted, 4.0).observations == (Observation((5.0,), 1), Observation((4.0,), 3))


def test_a_study_takes_reports_below_the_rung():
    tuned = study(ASHA(4, 16, 4))
    asked = tuned.ask()
    assert tuned.tell(asked, 5.0, budget=2).state is State.RUNNING
    assert tuned.tell(asked, 4.0, budget=4).state is State.PAUSED
    assert [seen.budget for seen in tuned.trials[0].observations] == [2, 4]


def test_a_study_refuses_reports_at_wrong_budgets():
    tuned = study(ASHA(4, 16, 4))
    asked = tuned.ask()
    tuned.tell(asked, 5.0, budget=2)
    before = tuned.trials
    with pytest.raises(ResultError, match=r"at most what trial 0 was given, 4, got 5\.0"):
        tuned.tell(asked, 5.0, budget=5)
    with pytest.raises(ResultError, match=r"must rise from report to report, got 1\.0 after 2\.0"):
        tuned.tell(asked, 5.0, budget=1)
    assert tuned.trials == before
    tuned.tell(asked, 5.0)
    with pytest.raises(TrialStateError, match="trial 0 is paused"):
        tuned.tell(asked, 5.0, budget=8)


def test_a_study_fails_a_trial_whose_value_is_not_finite():
    tuned = study(ASHA(1, 9, 3, stopping=True))
    assert tuned.tell(tuned.ask(), float("nan")).state is State.FAILED


def test_a_scheduler_with_rungs_needs_one_objective():
    with pytest.raises(SettingError, match="`scheduler` compares trials by one objective, got 2"):
        study(ASHA(), direction=["minimize", "maximize"])
