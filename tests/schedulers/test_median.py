import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpbo.errors import SettingError
from gpbo.schedulers.median import MedianStopping
from gpbo.trial import Observation, Resume, Start, State, Trial


def trial(number, *seen, state=State.RUNNING):
    return Trial(number, {}, state, 9, observations=tuple(Observation((v,), b) for v, b in seen))


@pytest.mark.parametrize(
    ("value", "state"), [(3.0, State.RUNNING), (3.1, State.STOPPED), (0.0, State.RUNNING)]
)
def test_worse_than_the_median_is_stopped(value, state):
    others = [trial(i, (float(i + 1), 2)) for i in range(5)]  # median 3
    assert MedianStopping(9).judge([*others, trial(5, (value, 2))], 5) is state


def test_only_values_at_the_same_budget_are_compared():
    others = [trial(i, (0.0, 1), (5.0, 2), (0.0, 3)) for i in range(5)]
    assert MedianStopping(9).judge([*others, trial(5, (9.0, 1), (4.0, 2))], 5) is State.RUNNING
    assert MedianStopping(9).judge([*others, trial(5, (-9.0, 1), (6.0, 2))], 5) is State.STOPPED


def test_nobody_is_stopped_early_or_with_few_others():
    others = [trial(i, (0.0, 1), (0.0, 2)) for i in range(4)]
    bad = trial(4, (9.0, 1), (9.0, 2))
    assert MedianStopping(9).judge([*others, bad], 4) is State.RUNNING
    assert MedianStopping(9, min_trials=4).judge([*others, bad], 4) is State.STOPPED
    assert MedianStopping(9, 3, min_trials=4).judge([*others, bad], 4) is State.RUNNING


def test_the_full_budget_completes():
    assert MedianStopping(9).judge([trial(0, (99.0, 9))], 0) is State.COMPLETE


@given(st.lists(st.integers(0, 9), min_size=2, max_size=12), st.data())
def test_against_the_statistics_module(values, data):
    number = data.draw(st.integers(0, len(values) - 1))
    trials = [trial(i, (float(v), 2)) for i, v in enumerate(values)]
    rest = [v for i, v in enumerate(values) if i != number]
    worse = values[number] > statistics.median(rest)
    found = MedianStopping(9, min_trials=1).judge(trials, number)
    assert found is (State.STOPPED if worse else State.RUNNING)


def test_next_starts_and_resumes_the_interrupted():
    assert MedianStopping(9).next([trial(0)]) == Start(9)
    assert MedianStopping(9).next([trial(0), trial(1, (1.0, 1), state=State.PAUSED)]) == Resume(1, 9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_budget": 1}, "`min_budget` must be below `max_budget`, got min_budget=1, max_budget=1"),
        ({"max_budget": 9, "min_budget": 0}, "`min_budget` must be a finite number > 0, got 0"),
        ({"max_budget": float("inf")}, "`max_budget` must be a finite number > 0, got inf"),
        ({"max_budget": 9, "min_trials": 0}, "`min_trials` must be a whole number >= 1, got 0"),
        ({"max_budget": 9, "min_trials": 2.5}, "`min_trials` must be a whole number >= 1, got 2.5"),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(SettingError, match=message):
        MedianStopping(**options)
