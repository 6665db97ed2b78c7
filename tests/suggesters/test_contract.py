"""What every suggester keeps: one suite for all of them."""

import json
from dataclasses import replace

import pytest
import torch

from gpbo.cube import is_new
from gpbo.data import Dataset, to_dataset
from gpbo.integrations.botorch import BotorchSuggester
from gpbo.outcomes import parse_outcome_constraints
from gpbo.space import Categorical, Float, Int, SearchSpace
from gpbo.suggesters.bayes import GPSuggester
from gpbo.suggesters.density import BOHBSuggester
from gpbo.suggesters.grid import GridSuggester
from gpbo.suggesters.multi_objective import MultiObjectiveSuggester
from gpbo.suggesters.multifidelity import MultiFidelitySuggester
from gpbo.suggesters.quasirandom import RandomSuggester, SobolSuggester
from gpbo.trial import Observation, State, Trial

SUGGESTERS = {
    "random": RandomSuggester(),
    "sobol": SobolSuggester(),
    "grid": GridSuggester(points_per_axis=4),
    "gp": GPSuggester(n_initial=4),
    "multi-objective": MultiObjectiveSuggester(n_initial=4),
    "botorch": BotorchSuggester(n_initial=4),
    "multi-fidelity": MultiFidelitySuggester(),
    "bohb": BOHBSuggester(),
    "bohb as published": BOHBSuggester(reference=True),
}
SPACES = {
    "continuous": SearchSpace(x=Float(0, 1), y=Float(1e-5, 1e-1, log=True)),
    "mixed": SearchSpace(x=Float(-5, 5), n=Int(1, 500, log=True), c=Categorical(["a", "b", "c"])),
    "conditional": SearchSpace(
        lr=Float(1e-5, 1e-1, log=True),
        opt=Categorical(["sgd", "adam"]),
        momentum=Float(0, 0.99, when={"opt": "sgd"}),
        nesterov=Categorical([True, False], when={"opt": "sgd"}),
        warm=Int(1, 5, when={"nesterov": True}),
    ),
    "constrained": SearchSpace(
        n_heads=Int(1, 16), width=Int(8, 128, step=8), x=Float(0, 1), constraints="n_heads * 8 <= width"
    ),
    "finite": SearchSpace(
        a=Int(0, 4),
        c=Categorical(["p", "q", "r"]),
        b=Categorical([True, False], when={"c": "p"}),
        constraints="a < 4 or b",
    ),
}
FIXED = {
    "continuous": {"y": 1e-3},
    "mixed": {"c": "b", "n": 7},
    "conditional": {"warm": 2},  # which only exists with sgd and nesterov
    "constrained": {"n_heads": 13},  # so that few widths are left
    "finite": {"c": "p"},
}
N_FINITE = 19  # 4 * (2 + 2), and with a = 4: b True, or b inactive, which every constraint allows


@pytest.fixture(params=SUGGESTERS)
def suggester(request):
    return SUGGESTERS[request.param]


@pytest.fixture(params=SPACES)
def space(request):
    return SPACES[request.param]


def trials_of(space, n):
    """`n` trials, every fifth failed, and the last of several still running."""
    X = space.cube.draw(n, torch.Generator().manual_seed(1))
    trials = []
    for k, config in enumerate(space.decode(X)):
        seen = (Observation((float((X[k] - 0.3).square().sum()),)),)
        state = State.FAILED if k % 5 == 4 else State.RUNNING if n > 3 and k == n - 1 else State.COMPLETE
        trials.append(Trial(k, config, state, observations=seen if state is State.COMPLETE else ()))
    return trials


def data_of(space, n, device="cpu"):
    return to_dataset(trials_of(space, n), space, [False], number=n, device=device)


@pytest.mark.parametrize("n_trials", [0, 1, 3, 12])
@pytest.mark.parametrize("n", [1, 3])
def test_points_are_new_points_of_the_space(suggester, space, n_trials, n, device):
    data = data_of(space, n_trials, device)
    suggestion = suggester.suggest(data, space.cube, n, 0)
    X = suggestion.X.cpu()
    assert X.shape == (n, space.cube.d)
    assert X.dtype == torch.float64
    assert torch.equal(space.cube.snap(X), X)
    assert space.cube.feasible(X).all()
    assert is_new(X, data.seen.cpu()).all()
    for config in space.decode(X):
        assert space.validate(config) == config
    assert json.loads(json.dumps(suggestion.info)) == suggestion.info
    assert isinstance(suggestion.info["source"], str)


def test_the_same_arguments_give_the_same_points_and_no_argument_nor_global_state_is_written(
    suggester, space
):
    data, state = data_of(space, 8), torch.get_rng_state()
    before = {name: getattr(data, name).clone() for name in ("X", "Y", "budget", "pending")}
    info = json.dumps(dict(data.info))
    one = suggester.suggest(data, space.cube, 2, 3)
    assert torch.equal(state, torch.get_rng_state())
    for name, value in before.items():
        torch.testing.assert_close(getattr(data, name), value, rtol=0, atol=0, equal_nan=True)
    assert json.dumps(dict(data.info)) == info
    torch.rand(3)  # the state of the process does not matter
    two = suggester.suggest(data_of(space, 8), space.cube, 2, 3)
    assert torch.equal(one.X, two.X)
    assert one.info == two.info


def test_seeds_differ(suggester, space):
    data = data_of(space, 0)
    one, two = (suggester.suggest(data, space.cube, 3, seed).X for seed in (0, 1))
    assert not torch.equal(one, two)


def test_a_finite_space_is_asked_for_to_the_end_and_no_further(suggester):
    space = SPACES["finite"]
    data = data_of(space, 0)
    seen = data.seen
    while True:
        Y = torch.cat([(seen - 0.3).square().sum(-1, keepdim=True)])
        data = Dataset(
            seen, Y, torch.full((len(seen),), torch.nan), pending=seen[:0], number=len(seen), info=data.info
        )
        X = suggester.suggest(data, space.cube, 4, 0).X.cpu()
        seen = torch.cat([seen, X])
        if len(X) < 4:
            break
    complete = isinstance(suggester, GridSuggester)
    listed = space.cube.enumerate()
    if complete:  # five levels of `a` are thinned to four
        listed = listed[torch.isin(space.cube.level(listed, 0), torch.tensor([0, 1, 3, 4]))]
    assert len(seen) == len(listed)
    assert is_new(listed, seen).sum() == 0


def test_an_exhausted_space_gives_nothing(suggester):
    space = SPACES["finite"]
    seen = space.cube.enumerate()
    assert len(seen) == N_FINITE
    n = len(seen)
    Y = torch.linspace(0, 1, n, dtype=torch.float64)[:, None]
    data = Dataset(seen[2:], Y[2:], torch.full((n - 2,), torch.nan), pending=seen[:2], number=n)
    assert suggester.suggest(data, space.cube, 2, 0).X.shape == (0, space.cube.d)


def test_a_space_of_constants_has_one_point(suggester):
    space = SearchSpace(a=1)
    assert suggester.suggest(data_of(space, 0), space.cube, 2, 0).X.shape == (1, 0)
    [trial] = trials_of(space, 1)
    data = to_dataset([trial], space, [False], number=1, device="cpu")
    assert suggester.suggest(data, space.cube, 2, 0).X.shape == (0, 0)


@pytest.mark.parametrize(("n_trials", "n"), [(0, 3), (12, 1), (12, 4)])
@pytest.mark.parametrize("name", FIXED)
def test_columns_that_are_fixed_stay_so(suggester, name, n_trials, n):
    space = SPACES[name]
    fixed = space.fix(FIXED[name])
    part = space.part(fixed)
    data = data_of(space, n_trials)
    X = suggester.suggest(data, part, n, 0).X
    assert X.shape == (n, space.cube.d)
    assert torch.equal(part.snap(X), X)
    assert is_new(X, data.seen).all()
    for config in space.decode(X):
        assert space.validate(config | fixed) == config


def test_a_part_of_a_finite_space_is_asked_for_to_its_end(suggester):
    space = SPACES["finite"]
    part = space.part({"c": "p", "b": True})
    seen = data_of(space, 0).X
    levels = 4 if isinstance(suggester, GridSuggester) else 5  # of `a`
    for left in (3, levels - 3, 0):
        Y = (seen - 0.3).square().sum(-1, keepdim=True)
        data = Dataset(seen, Y, torch.full((len(seen),), torch.nan), pending=seen[:0], number=len(seen))
        X = suggester.suggest(data, part, 3, 0).X
        assert len(X) == left
        seen = torch.cat([seen, X])
    assert is_new(seen, seen[:0]).all()
    assert all(config["c"] == "p" and config["b"] for config in space.decode(seen))


@pytest.mark.parametrize("state", [State.FAILED, State.RUNNING])
def test_nothing_but_failures_or_running_trials(suggester, space, state):
    trials = [Trial(t.number, t.config, state) for t in trials_of(space, 8)]
    data = to_dataset(trials, space, [False], number=8, device="cpu")
    X = suggester.suggest(data, space.cube, 1, 0).X.cpu()
    assert X.shape == (1, space.cube.d)
    assert is_new(X, data.seen).all()


def test_several_objectives(suggester, space):
    data = data_of(space, 12)
    both = Dataset(
        data.X, torch.cat([data.Y, 1 - data.Y], -1), data.budget, pending=data.pending, number=data.number
    )
    assert suggester.suggest(both, space.cube, 1, 0).X.shape == (1, space.cube.d)


@pytest.mark.parametrize("least", [-9.0, 0.5, 9.0])
def test_outcome_constraints_that_all_some_or_no_trials_meet(suggester, space, least):
    trials = [
        replace(t, observations=tuple(replace(seen, outcomes={"t": k / 12}) for seen in t.observations))
        for k, t in enumerate(trials_of(space, 12))
    ]
    bounds = parse_outcome_constraints(f"t >= {least}")
    data = to_dataset(trials, space, [False], number=12, outcome_constraints=bounds, device="cpu")
    X = suggester.suggest(data, space.cube, 2, 0).X
    assert X.shape == (2, space.cube.d)
    assert space.cube.feasible(X).all()
    assert is_new(X, data.seen).all()
