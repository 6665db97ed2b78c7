import dataclasses

import pytest

from gpbo.trial import Observation, State, Trial


@pytest.mark.parametrize(
    ("state", "final"),
    [
        (State.RUNNING, False),
        (State.PAUSED, False),
        (State.COMPLETE, True),
        (State.STOPPED, True),
        (State.FAILED, True),
    ],
)
def test_final_states_are_those_without_a_sequel(state, final):
    assert state.is_final is final


def test_a_state_is_written_as_its_word():
    assert str(State.COMPLETE) == "complete"
    assert State("paused") is State.PAUSED


def test_a_trial_without_observations_has_no_value():
    trial = Trial(0, {"x": 1})
    assert trial.value is None
    assert trial.values is None


def test_the_value_is_the_last_one_observed():
    trial = Trial(0, {"x": 1}, observations=(Observation((3.0, 4.0), 1.0), Observation((2.0, 5.0), 3.0)))
    assert trial.value == 2.0
    assert trial.values == (2.0, 5.0)


def test_losses_are_the_values_with_those_to_be_maximized_negated():
    assert Observation((3.0, 4.0)).losses([False, True]) == (3.0, -4.0)
    with pytest.raises(ValueError, match="zip"):
        Observation((3.0,)).losses([False, True])


@pytest.mark.parametrize(("source", "own"), [("gp", True), ("queue", True), ("added", False)])
def test_a_trial_from_elsewhere_is_not_the_studys_own(source, own):
    assert Trial(0, {}, info={"source": source}).is_own is own
    assert Trial(0, {}).is_own


def test_a_trial_is_a_value():
    trial = Trial(0, {"x": 1})
    with pytest.raises(dataclasses.FrozenInstanceError):
        trial.state = State.FAILED
    assert dataclasses.replace(trial, state=State.FAILED) != trial
    assert dataclasses.replace(trial) == trial
