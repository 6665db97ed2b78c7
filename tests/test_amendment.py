"""Results that are corrected: what changes, what stays, and who sees it."""

import math

import pytest
import torch

from gpbo.data import to_dataset
from gpbo.errors import ResultError, SettingError, TrialStateError, UnknownTrialError
from gpbo.schedulers.asha import ASHA
from gpbo.schedulers.hyperband import SuccessiveHalving
from gpbo.schedulers.median import MedianStopping
from gpbo.space import Categorical, Float, SearchSpace
from gpbo.study import Study
from gpbo.suggesters.quasirandom import RandomSuggester
from gpbo.trial import Observation, State

SPACE = SearchSpace(x=Float(0, 1), c=Categorical(["a", "b"]))


def study_of(**options):
    return Study(SPACE, **{"suggester": RandomSuggester(), "device": "cpu", **options})


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    return None if request.param == "memory" else tmp_path / "study.db"


def test_a_budget_where_there_are_none_is_refused():
    study = study_of()
    study.tell(study.ask(), 1.0)
    study.fail(study.ask(), "lost")
    for number in (0, 1):
        with pytest.raises(
            SettingError, match="`budget` must be left out where a study has no budgets, got 3"
        ):
            study.amend(number, 2.0, budget=3)
    study.tell(study.ask(), 1.0, budget=3)  # of another program's schedule
    assert study.amend(2, 2.0, budget=3).value == 2.0


def test_a_corrected_value_is_the_stored_one(store):
    study = study_of(store=store)
    for value in (1.0, 2.0, 3.0):
        study.tell(study.ask(), value, seconds=5.0)
    before = study.trials[0]
    amended = study.amend(0, 9.0)
    assert (amended.state, amended.value, amended.observations[0].seconds) == (State.COMPLETE, 9.0, 5.0)
    assert (amended.config, amended.finished, amended.started) == (
        before.config,
        before.finished,
        before.started,
    )
    first, second = ({"values": [value], "budget": None, "seconds": 5.0} for value in (1.0, 9.0))
    assert amended.info["amended"] == [{"observations": [first]}]
    assert study.best.number == 1
    assert study.amend(amended, 0.5).info["amended"][1]["observations"] == [second]
    if store is not None:
        assert Study.load(store).trials == study.trials
        assert Study.load(store).best.value == 0.5


def test_a_failed_trial_is_complete_once_it_has_a_value(store):
    study = study_of(store=store)
    study.fail(study.ask(), "the oven broke")
    amended = study.amend(0, 3.0)
    assert (amended.state, amended.value, amended.error) == (State.COMPLETE, 3.0, None)
    assert amended.info["amended"] == [{"observations": [], "error": "the oven broke"}]
    assert study.best == amended


def test_a_value_that_is_taken_back_makes_a_failure():
    study = study_of()
    study.tell(study.ask(), 1.0)
    study.add({"x": 0.5, "c": "a"}, 2.0)
    taken_back = study.amend(0, math.nan)
    assert (taken_back.state, taken_back.observations) == (State.FAILED, ())
    assert taken_back.error == "the amended value was nan"
    assert study.best.number == 1
    assert study.amend(0, 0.5).state is State.COMPLETE
    assert study.amend(1, 0.25).info["source"] == "added"
    assert study.best.number == 1


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_whoever_remembers_trials_sees_an_old_one_that_changed(direction):
    study = study_of(direction=direction, scheduler=ASHA(1, 9))
    for k in range(6):
        trial = study.ask()
        study.tell(trial, float(k))
    study.ask()  # the study has read all trials by now
    for change in (lambda: study.amend(1, 7.0), lambda: study.amend(2, math.inf)):
        change()
        maximize = [direction == "maximize"]
        fresh = to_dataset(study.trials, SPACE, maximize, number=7, device="cpu")
        kept = study._datasets(study.trials, number=7)
        for name in ("X", "Y", "budget", "pending"):
            torch.testing.assert_close(
                getattr(kept, name), getattr(fresh, name), rtol=0, atol=0, equal_nan=True
            )
        assert kept.info == fresh.info
        other = Study(SPACE, scheduler=ASHA(1, 9), direction=direction, store=study._store)
        assert other._scheduler.next(other._minimised(study.trials)) == study._scheduler.next(
            study._minimised(study.trials)
        )


def test_a_suggester_is_not_told_of_amendments():
    study = study_of()
    study.tell(study.ask(), 1.0)
    study.amend(0, 2.0)
    assert "amended" not in to_dataset(study.trials, SPACE, [False], number=1, device="cpu").info


def test_decisions_stay_and_later_ones_go_by_the_new_value():
    study = study_of(scheduler=ASHA(1, 9, delay=False))
    values = [0.3, 0.1, 0.2, 0.5, 0.6, 0.7]
    trials = []
    for value in values[:3]:
        trials.append(study.ask())
        study.tell(trials[-1], value)
    promoted = study.ask()
    assert (promoted.number, promoted.budget) == (1, 3)
    study.tell(promoted, 0.05)
    amended = study.amend(1, 9.0, budget=1)  # it was not among the best after all
    assert (amended.state, amended.budget) == (State.PAUSED, 3)
    assert [seen.value for seen in amended.observations] == [9.0, 0.05]
    again = study.ask()  # the best third of three at the lowest rung is now another trial
    assert (again.number, again.budget) == (2, 3)


@pytest.mark.parametrize(
    ("scheduler", "budget", "state"),
    [
        (ASHA(1, 9), None, State.PAUSED),
        (ASHA(1, 9, stopping=True), 1, State.PAUSED),
        (SuccessiveHalving(1, 9), None, State.PAUSED),
        (MedianStopping(9), None, State.COMPLETE),
        (MedianStopping(9), 2, State.PAUSED),
    ],
)
def test_a_failed_trial_goes_on_where_the_scheduler_lets_it(scheduler, budget, state):
    study = study_of(scheduler=scheduler)
    failed = study.fail(study.ask(), "lost")
    amended = study.amend(0, 0.5, budget=budget)
    assert (amended.state, amended.error) == (state, None)
    assert amended.observations == (Observation((0.5,), failed.budget if budget is None else budget),)
    assert (amended.finished is None) == (state is State.PAUSED)
    if budget is not None:  # it has not spent what it was given, so it goes on first
        resumed = study.ask()
        assert (resumed.number, resumed.budget) == (0, 9)
        assert study.tell(resumed, 0.4, budget=3).state is State.RUNNING


def test_a_rung_that_is_taken_back_takes_those_above_it_along():
    study = study_of(scheduler=ASHA(1, 9, delay=False))
    for value in (0.3, 0.1, 0.2):
        study.tell(study.ask(), value)
    study.tell(study.ask(), 0.05)
    failed = study.amend(1, math.nan, budget=1)
    assert (failed.state, failed.observations) == (State.FAILED, ())
    assert failed.info["amended"][0]["observations"] == [
        {"values": [0.1], "budget": 1.0},
        {"values": [0.05], "budget": 3.0},
    ]
    assert study.ask().number == 2


def test_outcomes_are_corrected_too():
    study = study_of(outcome_constraints="t <= 1")
    study.tell(study.ask(), 1.0, outcomes={"t": 2.0})
    with pytest.raises(ResultError, match="`outcomes` must have a number for 't'"):
        study.amend(0, 1.0)
    amended = study.amend(0, 1.0, outcomes={"t": 0.5})
    assert study.best == amended
    assert amended.info["amended"][0]["observations"][0]["outcomes"] == {"t": 2.0}


@pytest.mark.parametrize(
    ("value", "options", "error", "message"),
    [
        ("a", {}, ResultError, "`value` must be a number, got 'a'"),
        ([1.0, 2.0], {}, ResultError, "`value` must be a number"),
        (1.0, {"budget": -1}, SettingError, "`budget` must be a finite number >= 0, got -1"),
        (1.0, {"budget": 2}, ResultError, "trial 0 has no observation at budget 2.0; it has 1, 3"),
        (math.nan, {"budget": 2}, ResultError, "trial 0 has no observation at budget 2.0; it has 1, 3"),
        (1.0, {"outcomes": {"t": 1}}, ResultError, "`outcomes` names 't'"),
    ],
)
def test_what_is_no_correction_changes_nothing(value, options, error, message):
    study = study_of(scheduler=ASHA(1, 9, 3, delay=False))
    for k in range(3):
        study.tell(study.ask(), float(k))
    study.tell(study.ask(), 0.0)
    before = study.trials
    with pytest.raises(error, match=message):
        study.amend(0, value, **options)
    assert study.trials == before


def test_only_what_was_told_can_be_amended():
    study = study_of(scheduler=ASHA(1, 9))
    study.ask()
    with pytest.raises(TrialStateError, match="trial 0 is running; tell it"):
        study.amend(0, 1.0)
    with pytest.raises(TrialStateError, match="trial 0 is running; tell it"):
        study.amend(0, math.nan)
    with pytest.raises(UnknownTrialError, match="no trial 1"):
        study.amend(1, 1.0)
    study.fail(0, "lost")
    with pytest.raises(ResultError, match="at most what trial 0 was given, 1, got 3"):
        study.amend(0, 1.0, budget=3)


def test_what_was_taken_back_keeps_its_budget_for_the_value_that_comes_later():
    study = Study(SearchSpace(x=Float(0, 1)), suggester=RandomSuggester())
    trial = study.ask()
    study.tell(trial, 1.0, budget=5, seconds=3)
    taken = study.amend(trial, math.nan)
    assert taken.info["amended"] == [{"observations": [{"values": [1.0], "budget": 5.0, "seconds": 3.0}]}]
    assert study.amend(trial, 2.0).observations == (Observation((2.0,), 5.0),)


@pytest.mark.parametrize("scheduler", [None, ASHA(1, 27)])
def test_an_added_result_that_was_no_number_is_amended_where_it_was_observed(scheduler):
    study = Study(SearchSpace(x=Float(0, 1)), suggester=RandomSuggester(), scheduler=scheduler)
    trial = study.add({"x": 0.5}, math.nan, budget=27)
    assert (trial.state, trial.budget) == ("failed", 27.0)
    mended = study.amend(trial, 0.5)
    assert (mended.state, mended.observations) == ("complete", (Observation((0.5,), 27.0),))
