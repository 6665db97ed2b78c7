import copy
import itertools
import math
import pickle
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpbo.errors import ResultError, SettingError
from gpbo.schedulers.rungs import (
    INTERRUPTED,
    RUNNING,
    Standings,
    best_waiting,
    check_budgets,
    is_reported,
    places,
    quota,
    report_budget,
    rung_budgets,
)
from gpbo.trial import Observation, State, Trial

RUNGS = (1, 3, 9)
INDEX = {1: 0, 3: 1, 9: 2}


def trial(number, state, budget, *seen):
    return Trial(number, {}, state, budget, observations=tuple(Observation((v,), b) for v, b in seen))


@pytest.mark.parametrize(
    ("setting", "rungs"),
    [
        ((1, 243, 3), (1, 3, 9, 27, 81, 243)),  # floating logarithms lose one of these
        ((3, 729, 3), (3, 9, 27, 81, 243, 729)),
        ((1, 1000, 10), (1, 10, 100, 1000)),
        ((1, 100, 10), (1, 10, 100)),
        ((1, 81, 3), (1, 3, 9, 27, 81)),
        ((1, 100, 3), (1, 4, 11, 33, 100)),
        ((1, 52, 3), (2, 6, 17, 52)),
        ((1, 10, 4), (3, 10)),  # 2.5 is rounded half up
        ((1, 27, 2.5), (2, 4, 11, 27)),
        ((5, 6, 3), (6,)),
        ((0.01, 1, 10), (0.01, 0.1, 1.0)),
        ((1 / 15, 0.6, 3), (1 / 15, 0.2, 0.6)),
        ((0.03, 1.0, 3), (1 / 27, 1 / 9, 1 / 3, 1.0)),
    ],
)
def test_rung_budgets_golden(setting, rungs):
    found = rung_budgets(*setting)
    assert found == pytest.approx(rungs, rel=1e-15)
    assert found[-1] == setting[1]


def test_whole_budgets_stay_whole():
    assert all(type(r) is int for r in rung_budgets(1, 100, 3))
    assert all(type(r) is int for r in rung_budgets(np.int64(1), np.int64(100), 2.5))
    assert all(type(r) is float for r in rung_budgets(1.0, 100, 3))


@given(st.integers(1, 50), st.integers(1, 10**6), st.fractions(2, 20, max_denominator=10))
def test_rung_budgets_rise_from_min_to_max(low, more, eta):
    rungs = rung_budgets(low, low + more, float(eta))
    assert low <= rungs[0] < low * eta + 1
    assert rungs[-1] == low + more
    assert all(a < b for a, b in itertools.pairwise(rungs))
    factor = Fraction(repr(float(eta)))
    assert len(rungs) == sum(1 for k in range(30) if (low + more) >= low * factor**k)


@given(st.floats(1e-6, 1e3), st.integers(0, 12), st.integers(2, 10))
def test_float_rungs_are_not_lost_to_rounding(low, k, eta):
    if k:
        assert len(rung_budgets(low, low * eta**k, eta)) == k + 1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ((3, 3, 3), "`min_budget` must be below `max_budget`, got min_budget=3, max_budget=3"),
        ((4, 3, 3), "`min_budget` must be below `max_budget`"),
        ((0, 3, 3), "`min_budget` must be a finite number > 0, got 0"),
        ((-1, 3, 3), "`min_budget` must be a finite number > 0, got -1"),
        ((1, math.inf, 3), "`max_budget` must be a finite number > 0, got inf"),
        ((math.nan, 3, 3), "`min_budget` must be a finite number > 0, got nan"),
        ((1, "9", 3), "`max_budget` must be a finite number > 0, got '9'"),
        ((True, 9, 3), "`min_budget` must be a finite number > 0, got True"),
        ((1, 9, 1), "`reduction_factor` must be a finite number >= 2, got 1"),
        ((1, 9, 1.99), "`reduction_factor` must be a finite number >= 2, got 1.99"),
        ((1, 9, None), "`reduction_factor` must be a finite number >= 2, got None"),
    ],
)
def test_rung_budgets_refuse(setting, message):
    with pytest.raises(SettingError, match=message):
        rung_budgets(*setting)


def test_check_budgets_gives_plain_numbers():
    found = check_budgets([np.int64(1), np.float64(2.5), 9])
    assert found == (1, 2.5, 9)
    assert [type(b) for b in found] == [int, float, int]


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        ([], "one or more rising numbers, got \\[\\]"),
        ([1, 1], "rising"),
        ([3, 1], "rising"),
        ([0, 1], "`budgets` must be a finite number > 0, got 0"),
        ([1, "2"], "`budgets` must be a finite number > 0, got '2'"),
        ([1, 10**400], "`budgets` must be a finite number > 0, got 10"),
        ("123", "must be a list of numbers, got '123'"),
        (3, "must be a list of numbers, got 3"),
    ],
)
def test_check_budgets_refuses(budgets, message):
    with pytest.raises(SettingError, match=message):
        check_budgets(budgets)


def test_quota_is_exact():
    assert [quota(n, Fraction(3)) for n in (0, 2, 3, 8, 9)] == [0, 0, 1, 2, 3]
    assert [quota(n, Fraction(5, 2)) for n in (2, 4, 5)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("standing", "found"),
    [
        (trial(0, State.RUNNING, 1), {RUNNING: 0.0}),
        (
            trial(0, State.PAUSED, 1, (0.5, 1)),
            {("finished", 0, 0): 0.5, ("waiting", 0, 0): 0.5},
        ),
        (
            trial(0, State.RUNNING, 3, (0.7, 0.5), (0.5, 1), (0.4, 2)),
            {("finished", 0, 0): 0.5, ("promoted", 0, 0): 0.5, RUNNING: 0.0},
        ),
        (
            trial(0, State.FAILED, 3, (0.5, 1)),
            {("finished", 0, 0): 0.5, ("promoted", 0, 0): 0.5, ("finished", 0, 1): math.inf},
        ),
        (trial(0, State.FAILED, 1), {("finished", 0, 0): math.inf}),
        (trial(0, State.PAUSED, 1), {INTERRUPTED: 0.0}),
        (
            trial(0, State.PAUSED, 3, (0.5, 1)),
            {("finished", 0, 0): 0.5, ("promoted", 0, 0): 0.5, INTERRUPTED: 0.0},
        ),
        (trial(0, State.STOPPED, 1, (0.5, 1)), {("finished", 0, 0): 0.5}),
        (trial(0, State.FAILED, None), {}),  # added from elsewhere
        (trial(0, State.COMPLETE, None, (0.5, 9)), {("finished", 0, 2): 0.5}),
        (trial(0, State.COMPLETE, None, (0.5, None)), {}),
    ],
)
def test_places(standing, found):
    assert places(standing, INDEX) == found


def test_failed_rank_last_and_ties_go_to_the_older():
    trials = [
        trial(0, State.FAILED, 1),
        trial(1, State.PAUSED, 1, (2.0, 1)),
        trial(2, State.PAUSED, 1, (1.0, 1)),
        trial(3, State.PAUSED, 1, (1.0, 1)),
    ]
    board = Standings()(trials, lambda t: places(t, INDEX))
    assert [number for _, number in board["finished", 0, 0]] == [2, 3, 1, 0]


def test_best_waiting_is_ranked_among_all_that_were_there():
    trials = [trial(0, State.RUNNING, 3, (1.0, 1)), trial(1, State.PAUSED, 1, (2.0, 1))]
    board = Standings()(trials, lambda t: places(t, INDEX))
    assert best_waiting(board, 0, 0, 1) is None  # the promoted trial holds the only place
    assert best_waiting(board, 0, 0, 2) == 1
    assert best_waiting(board, 0, 1, 2) is None


STATES = st.sampled_from(
    [
        (State.RUNNING, 1, ()),
        (State.PAUSED, 1, (1,)),
        (State.RUNNING, 3, (1,)),
        (State.PAUSED, 3, (1, 3)),
        (State.FAILED, 3, (1,)),
        (State.COMPLETE, 9, (1, 3, 9)),
    ]
)


@given(st.lists(st.lists(st.tuples(STATES, st.integers(0, 3)), max_size=8), max_size=6))
def test_standings_remember_without_effect(history):
    """Any sequence of snapshots, unrelated ones included, gives what a fresh instance gives."""
    standings = Standings()
    for snapshot in history:
        trials = [
            trial(i, state, budget, *((float(v + k), b) for k, b in enumerate(reports)))
            for i, ((state, budget, reports), v) in enumerate(snapshot)
        ]
        board = standings(trials, lambda t: places(t, INDEX))
        fresh = Standings()(trials, lambda t: places(t, INDEX))
        assert {p: e for p, e in board.items() if e} == {p: e for p, e in fresh.items() if e}


def test_standings_leave_earlier_answers_alone():
    standings = Standings()
    first = standings([trial(0, State.PAUSED, 1, (1.0, 1))], lambda t: places(t, INDEX))
    kept = copy.deepcopy(first)
    standings([trial(0, State.PAUSED, 1, (2.0, 1))], lambda t: places(t, INDEX))
    assert first == kept


def test_standings_travel_without_their_trials():
    standings = Standings()
    empty = len(pickle.dumps(standings))
    standings([trial(0, State.PAUSED, 1, (1.0, 1))], lambda t: places(t, INDEX))
    assert len(pickle.dumps(standings)) == empty


def test_a_report_at_a_rung_is_recorded_there():
    running = trial(0, State.RUNNING, 3, (0.5, 1))
    assert report_budget(running, None, RUNGS) == 3
    assert report_budget(running, 3.0000000001, RUNGS) == 3
    assert report_budget(running, 2, RUNGS) == 2
    assert report_budget(replace(running, budget=None), 9, (9,)) == 9


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (4, "at most what trial 0 was given, 3, got 4"),
        (1.5, "must rise from report to report, got 1.5 after 2"),
        (0, "must be positive, got 0"),
        (-1, "must be positive, got -1"),
    ],
)
def test_report_budget_refuses(budget, message):
    with pytest.raises(ResultError, match=message):
        report_budget(trial(0, State.RUNNING, 3, (0.5, 1), (0.4, 2)), budget, RUNGS)


def test_report_budget_refuses_to_skip_a_rung():
    with pytest.raises(ResultError, match="must report at budget 3, where trials are compared, before 4"):
        report_budget(trial(0, State.RUNNING, 9, (0.5, 1), (0.4, 2)), 4, RUNGS)


def test_is_reported():
    paused = trial(0, State.PAUSED, 3, (0.5, 1), (0.4, 3))
    assert is_reported(paused, 1, RUNGS)
    assert is_reported(paused, None, RUNGS)
    assert is_reported(paused, 2.9999999999, RUNGS)
    assert not is_reported(paused, 2, RUNGS)
    assert not is_reported(trial(0, State.RUNNING, 3, (0.5, 1)), None, RUNGS)
