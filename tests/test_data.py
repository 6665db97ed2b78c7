import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpbo.data import Datasets, choose_device, to_dataset
from gpbo.errors import SettingError
from gpbo.outcomes import parse_outcome_constraints
from gpbo.space import Categorical, Float, SearchSpace
from gpbo.trial import Observation, State, Trial

SPACE = SearchSpace(x=Float(0, 1), c=Categorical(["a", "b"]))
TRIALS = [
    Trial(0, {"x": 0.1, "c": "a"}, State.COMPLETE, observations=(Observation((1.0, 2.0)),), info={"fit": 1}),
    Trial(1, {"x": 0.2, "c": "b"}, State.FAILED, error="why", info={"source": "added"}),
    Trial(2, {"x": 0.3, "c": "a"}, State.RUNNING, info={"source": "queue"}),
    Trial(
        3,
        {"x": 0.4, "c": "b"},
        State.PAUSED,
        observations=(Observation((3.0, 4.0), 1.0), Observation((5.0, 6.0), 3.0)),
    ),
    Trial(4, {"x": 0.5, "c": "b"}, State.RUNNING, observations=(Observation((7.0, 8.0), 1.0),)),
]


def test_a_worked_example(device):
    data = to_dataset(TRIALS, SPACE, [False, True], number=5, device=device)
    nan = math.nan
    torch.testing.assert_close(
        data.X.cpu(),
        torch.tensor([[0.1, 0.25], [0.2, 0.75], [0.4, 0.75], [0.4, 0.75], [0.5, 0.75]], dtype=torch.float64),
    )
    expected = torch.tensor([[-1, 2], [nan, nan], [-3, 4], [-5, 6], [-7, 8]], dtype=torch.float64)
    torch.testing.assert_close(data.Y.cpu(), expected, equal_nan=True)
    assert data.budget.nan_to_num(-1).tolist() == [-1, -1, 1, 3, 1]
    assert data.pending.tolist() == [[0.3, 0.25], [0.5, 0.75]]
    assert torch.equal(data.seen, torch.cat([data.X, data.pending]))
    assert {t.device.type for t in (data.X, data.Y, data.budget, data.pending)} == {device}


def test_infeasible_rows_look_like_failures_to_whoever_does_not_look_at_outcomes():
    def seen(value, t):
        return Trial(
            0, {"x": 0.1, "c": "a"}, State.COMPLETE, observations=(Observation((value,), outcomes={"t": t}),)
        )

    failed = Trial(1, {"x": 0.2, "c": "b"}, State.FAILED)
    trials = [seen(1.0, 5.0), seen(2.0, 1.0), seen(3.0, 6.0), failed]
    bounds = parse_outcome_constraints(["t <= 5", "t >= 2"])
    data = to_dataset(trials, SPACE, [True], number=4, outcome_constraints=bounds, device="cpu")
    nan = math.nan
    expected = torch.tensor([[1, 0, 3], [2, 4, -1], [3, -1, 4], [nan] * 3], dtype=torch.float64)
    torch.testing.assert_close(data.outcomes, expected, rtol=0, atol=0, equal_nan=True)
    expected = torch.tensor([[1], [nan], [nan], [nan]], dtype=torch.float64)
    torch.testing.assert_close(data.Y, expected, rtol=0, atol=0, equal_nan=True)
    none = to_dataset([], SPACE, [True], number=0, outcome_constraints=bounds, device="cpu")
    assert (none.Y.shape, none.outcomes.shape) == ((0, 1), (0, 3))
    assert to_dataset(TRIALS, SPACE, [False, True], number=5, device="cpu").outcomes is None


def test_the_info_is_the_last_one_that_a_suggester_wrote():
    data = to_dataset(TRIALS, SPACE, [False, True], number=5, device="cpu")
    assert data.info == {"fit": 1}
    assert data.number == 5


@pytest.mark.parametrize("m", [1, 3])
def test_no_trials(m):
    data = to_dataset([], SPACE, [False] * m, number=0, device="cpu")
    assert (data.X.shape, data.Y.shape, data.budget.shape) == ((0, 2), (0, m), (0,))
    assert data.pending.shape == data.seen.shape == (0, 2)
    assert data.X.dtype == data.Y.dtype == data.budget.dtype == torch.float64
    assert data.info == {}


def test_auto_is_cuda_where_there_is_one():
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_device_is_chosen_by_name(device):
    assert choose_device(device).type == device


@pytest.mark.parametrize("name", ["cuba", "", "cuda:99", "cuda:-1", "meta"])
def test_a_device_that_does_not_exist_is_refused(name):
    rule = f"`device` must name a device of this machine, 'auto' or one of 'cpu'.*, got '{name}'"
    with pytest.raises(SettingError, match=rule):
        choose_device(name)


def test_a_device_that_is_no_name_is_refused():
    with pytest.raises(SettingError, match=r"`device` must be the name of a device, such as .*, got None"):
        choose_device(None)


def same(one, two):
    for name in ("X", "Y", "budget", "pending"):
        a, b = getattr(one, name), getattr(two, name)
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
        assert a.is_contiguous()
    assert (one.number, one.info) == (two.number, two.info)


@st.composite
def histories(draw):
    """Trials as a study would hold them one after another; now and then another study's."""
    trials, history = [], []
    for _ in range(draw(st.integers(1, 12))):
        for _ in range(draw(st.integers(0, 3))):
            config = {"x": draw(st.floats(0, 1)), "c": draw(st.sampled_from("ab"))}
            info = draw(st.sampled_from([{}, {"source": "gp", "k": len(trials)}, {"source": "added"}]))
            trials.append(Trial(len(trials), config, info=info))
        for i in draw(st.sets(st.sampled_from(range(len(trials))))) if trials else ():
            seen = tuple(Observation((float(i), 2.0), float(k)) for k in range(draw(st.integers(0, 3))))
            state = draw(st.sampled_from(list(State)))
            trials[i] = Trial(i, trials[i].config, state, 3.0, None, seen, info=trials[i].info)
        if draw(st.integers(0, 9)) == 0:
            trials = trials[: draw(st.integers(0, len(trials)))]
        history.append(tuple(trials))
    return history


@given(histories())
def test_reading_only_what_changed_changes_nothing(history):
    datasets = Datasets(SPACE, [False, True], device="cpu")
    for trials in history:
        same(
            datasets(trials, number=len(trials)),
            to_dataset(trials, SPACE, [False, True], number=len(trials), device="cpu"),
        )


def test_an_answer_is_not_written_into_later():
    datasets = Datasets(SPACE, [False, True], device="cpu")
    first = datasets(TRIALS[:3], number=3)
    kept = to_dataset(TRIALS[:3], SPACE, [False, True], number=3, device="cpu")
    datasets(TRIALS, number=5)
    same(first, kept)


def test_only_new_configs_are_encoded(monkeypatch):
    encoded = []
    encode = SearchSpace.encode
    monkeypatch.setattr(
        SearchSpace, "encode", lambda self, configs: encoded.extend(configs) or encode(self, configs)
    )
    datasets = Datasets(SPACE, [False, True], device="cpu")
    for n in range(len(TRIALS) + 1):
        datasets(TRIALS[:n], number=n)
    changed = [*TRIALS[:2], Trial(2, TRIALS[2].config, State.PAUSED), *TRIALS[3:]]
    datasets(changed, number=5)
    assert encoded == [trial.config for trial in TRIALS]
