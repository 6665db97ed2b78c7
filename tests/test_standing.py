"""Where a study stands, by hand-made trials."""

from gpbo.outcomes import parse_outcome_constraints
from gpbo.standing import comparable, how_often_met, pareto_front, why_none_is_best
from gpbo.trial import Observation, State, Trial

LATENCY = parse_outcome_constraints("latency <= 4")


def trial(number, *values, state=State.COMPLETE, budget=None, latency=None):
    outcomes = {} if latency is None else {"latency": latency}
    return Trial(number, {}, state=state, observations=(Observation(values, budget, None, outcomes),))


def test_only_complete_and_feasible_trials_at_the_largest_budget_are_compared():
    trials = [
        trial(0, 1.0, budget=3.0, latency=1.0),
        trial(1, 1.0, budget=9.0, latency=4.0),
        trial(2, 1.0, budget=9.0, latency=4.1),
        trial(3, 1.0, budget=9.0, latency=1.0, state=State.PAUSED),
        trial(4, 1.0, latency=1.0),  # added without a budget
    ]
    assert [t.number for t in comparable(trials, LATENCY)] == [1, 4]
    assert [t.number for t in comparable(trials, ())] == [1, 2, 4]


def test_the_front_keeps_ties_and_their_order():
    trials = [trial(0, 1.0, 2.0), trial(1, 2.0, 1.0), trial(2, 3.0, 3.0), trial(3, 1.0, 2.0)]
    assert [t.number for t in pareto_front(trials, [False, False])] == [0, 1, 3]
    assert [t.number for t in pareto_front(trials, [True, False])] == [1, 2]
    assert [t.number for t in pareto_front(trials, [True, True])] == [2]
    assert pareto_front([], [True, False]) == []


def test_why_there_is_no_best_names_each_bound():
    assert why_none_is_best("mine", [], LATENCY) == "study 'mine' has no complete trial yet."
    trials = [trial(0, 1.0, latency=5.0), trial(1, 1.0, latency=6.0)]
    assert how_often_met(trials, LATENCY) == {"latency <= 4": 0}
    assert why_none_is_best("mine", trials, LATENCY) == (
        "none of the 2 complete trials of study 'mine' is feasible: `latency <= 4` is met by 0."
    )
