import json
import math
from dataclasses import replace
from itertools import pairwise
from statistics import median

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gpbo
from gpbo import Categorical, Float, GPSuggester, Int, SearchSpace
from gpbo.acquisition import PENDING, log_ei, ucb
from gpbo.cube import Cube, is_new
from gpbo.data import Dataset
from gpbo.errors import SettingError
from gpbo.gp import STRENGTHS, Hypers, make_gp, warp_values
from gpbo.suggesters import bayes
from gpbo.suggesters.quasirandom import sobol_points


def draws(*shape, seed):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dataset(X, y, *, pending=None, number=None, info=None, budget=None, device="cpu"):
    Y = torch.as_tensor(y, dtype=torch.float64)
    Y = Y.reshape(len(X), -1) if Y.numel() else Y.reshape(0, 1)
    pending = X[:0] if pending is None else pending
    budget = torch.full((len(X),), math.nan, dtype=torch.float64) if budget is None else budget
    number = len(X) + len(pending) if number is None else number
    tensors = [t.to(device) for t in (X, Y, budget, pending)]
    return Dataset(*tensors, number=number, info=info or {})


def surface(X):
    return torch.sin(6 * X).sum(-1) - 2 * (X - 0.4).square().sum(-1)


def check(suggestion, cube, data, n=1):
    """Every suggestion is of new, feasible points of the space, and its info is plain JSON."""
    X = suggestion.X.cpu()
    assert X.shape == (n, cube.d)
    assert torch.isfinite(X).all()
    assert torch.equal(cube.snap(X.clone()), X)
    assert cube.feasible(X).all()
    assert is_new(X, data.seen.cpu()).all()
    assert json.loads(json.dumps(dict(suggestion.info), allow_nan=False)) == dict(suggestion.info)


# --- settings


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            {"acquisition": "log_ie"},
            r"`acquisition` must be one of .*, got 'log_ie'\. Did you mean 'log_[ep]i'",
        ),
        ({"acquisition": None}, "`acquisition` must be one of .*, got None"),
        ({"pending": "beleiver"}, r"`pending` must be one of .*, got 'beleiver'\. Did you mean 'believer'"),
        ({"nu": 2}, r"`nu` must be one of \[0.5, 1.5, 2.5\], got 2"),
        ({"beta": -0.1}, r"`beta` must be a finite number >= 0, got -0\.1"),
        ({"beta": math.nan}, "`beta` must be a finite number >= 0, got nan"),
        ({"n_initial": 0}, "`n_initial` must be a whole number >= 1, got 0"),
        ({"n_initial": 2.5}, r"`n_initial` must be a whole number >= 1, got 2\.5"),
        ({"beta": "a"}, r"`beta` must be a finite number >= 0, got 'a'"),
        ({"beta": math.inf}, r"`beta` must be a finite number >= 0, got inf"),
        ({"batch": "jiont"}, r"`batch` must be one of .*, got 'jiont'\. Did you mean 'joint'"),
        (
            {"batch": "joint", "acquisition": "ei"},
            "needs acquisition 'log_ei' or 'ucb', got 'ei'",
        ),
        ({"batch": "joint", "acquisition": "log_pi"}, "needs acquisition .* got 'log_pi'"),
    ],
)
def test_bad_settings_are_refused(setting, message):
    with pytest.raises(SettingError, match=message):
        GPSuggester(**setting)


# --- the initial design


@pytest.mark.parametrize("d", [1, 6, 50])
def test_the_first_trials_are_the_centre_and_sobol_points(d):
    cube, X = Cube.continuous(d), torch.empty(0, d, dtype=torch.float64)
    for number in range(5):
        data = dataset(X, surface(X))
        suggestion = GPSuggester().suggest(data, cube, 1, 7)
        assert suggestion.info["source"] == "initial"
        check(suggestion, cube, data)
        if number:
            assert torch.equal(suggestion.X, sobol_points(data, cube, 1, 7))
        else:
            assert (suggestion.X == 0.5).all()
        X = torch.cat([X, suggestion.X])
    assert GPSuggester().suggest(dataset(X, surface(X)), cube, 1, 7).info["source"] == "gp"


def test_the_number_of_initial_trials_can_be_set():
    cube, X = Cube.continuous(2), draws(3, 2, seed=0)
    assert GPSuggester(n_initial=4).suggest(dataset(X, surface(X)), cube, 1, 0).info["source"] == "initial"
    assert GPSuggester(n_initial=3).suggest(dataset(X, surface(X)), cube, 1, 0).info["source"] == "gp"


def test_a_first_batch_begins_with_the_centre_and_repeats_nothing():
    cube = Cube.continuous(3)
    data = dataset(torch.empty(0, 3, dtype=torch.float64), [])
    suggestion = GPSuggester().suggest(data, cube, 4, 0)
    assert (suggestion.X[0] == 0.5).all()
    check(suggestion, cube, data, n=4)


@pytest.mark.parametrize("values", [[math.nan] * 8, [1.0] + [math.nan] * 7])
def test_without_two_values_no_model_is_made(values):
    cube, X = Cube.continuous(2), draws(8, 2, seed=0)
    data = dataset(X, values)
    suggestion = GPSuggester().suggest(data, cube, 1, 0)
    assert suggestion.info["source"] == "initial"
    check(suggestion, cube, data)


# --- robustness

SPACES = {
    "continuous": SearchSpace(x=Float(0, 1), y=Float(-5, 5), z=Float(1e-5, 1, log=True)),
    "mixed": SearchSpace(x=Float(0, 1), i=Int(1, 9), c=Categorical(list("abc")), j=Int(1, 1000, log=True)),
    "conditional": SearchSpace(
        c=Categorical(list("ab")), x=Float(0, 1, when={"c": "a"}), k=Categorical(list("uvw"), when={"c": "b"})
    ),
    "constrained": SearchSpace(x=Float(0, 1), y=Float(0, 1), constraints=["x + y <= 0.7"]),
}

SHAPES = {
    "smooth": lambda X, seed: surface(X),
    "constant": lambda X, seed: torch.full((len(X),), 0.1, dtype=torch.float64),
    "noise": lambda X, seed: draws(len(X), seed=seed),
    "huge": lambda X, seed: 1e300 * (2 * draws(len(X), seed=seed) - 1),
    "tiny": lambda X, seed: 1e-300 * draws(len(X), seed=seed),
    "huge and tiny": lambda X, seed: 10.0 ** (300 * draws(len(X), seed=seed).sub(0.5).sign()),
    "outlier above": lambda X, seed: surface(X) + 1e9 * (torch.arange(len(X)) == 1),
    "outlier below": lambda X, seed: surface(X) - 1e9 * (torch.arange(len(X)) == 1),
    "heavy tails": lambda X, seed: torch.tan(3.14159 * (draws(len(X), seed=seed) - 0.5)),
    "two levels": lambda X, seed: (draws(len(X), seed=seed) > 0.5).double(),
}


@settings(max_examples=25)
@given(
    space=st.sampled_from(list(SPACES)),
    shape=st.sampled_from(list(SHAPES)),
    n=st.integers(2, 25),
    copies=st.sampled_from([1, 1, 3]),
    failed=st.sampled_from([0.0, 0.05, 0.5]),
    n_pending=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_awkward_studies_still_get_a_model_and_a_point(space, shape, n, copies, failed, n_pending, seed):
    cube = SPACES[space].cube
    X = cube.draw(n, torch.Generator().manual_seed(seed)).repeat(copies, 1)
    y = SHAPES[shape](X, seed)
    y[2:] = torch.where(draws(len(y) - 2, seed=seed + 1) < failed, math.nan, y[2:])
    data = dataset(X, y, pending=cube.draw(n_pending, torch.Generator().manual_seed(seed + 2)))
    suggestion = GPSuggester(n_initial=1).suggest(data, cube, 1, seed)
    check(suggestion, cube, data)
    assert suggestion.info["source"] == "gp"
    assert "fallback" not in suggestion.info


AWKWARD = {
    "two equal points, different values": ([[0.5, 0.5], [0.5, 0.5]], [0.0, 1.0]),
    "the same point ten times": ([[0.2, 0.7]] * 10, [0.1 * k for k in range(10)]),
    "one point and failures": ([[0.2, 0.7], [0.3, 0.1], [0.9, 0.9]], [1.0, 1.0, math.nan]),
    "on a line": ([[k / 9, 0.5] for k in range(10)], [float(k) for k in range(10)]),
    "last digit": ([[k / 9, 1 - k / 9] for k in range(10)], [1.0 + k * 2**-52 for k in range(10)]),
    "points a hair apart": ([[0.5 + k * 1e-8, 0.5] for k in range(10)], [float(k % 2) for k in range(10)]),
}


@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize("acquisition", ["log_ei", "ei", "log_pi", "ucb"])
def test_awkward_points_still_get_a_model_and_a_point(name, acquisition):
    X, y = AWKWARD[name]
    cube, data = Cube.continuous(2), dataset(torch.tensor(X, dtype=torch.float64), y)
    suggestion = GPSuggester(n_initial=1, acquisition=acquisition).suggest(data, cube, 1, 0)
    check(suggestion, cube, data)
    assert suggestion.info["source"] == "gp"


LARGE = {
    "500 columns": SearchSpace({f"x{i}": Float(0, 1) for i in range(500)}),
    "a category of 200 levels": SearchSpace(c=Categorical(list(range(200))), x=Float(0, 1)),
    "30 conditional parameters": SearchSpace(
        {
            "kind": Categorical([f"k{i}" for i in range(10)]),
            **{f"x{i}": Float(0, 1, when={"kind": f"k{i % 10}"}) for i in range(30)},
        }
    ),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_spaces_get_a_model_and_a_point(name):
    cube = LARGE[name].cube
    X = cube.draw(30, torch.Generator().manual_seed(0))
    data = dataset(X, surface(X[:, :3]))
    suggestion = GPSuggester().suggest(data, cube, 1, 0)
    check(suggestion, cube, data)
    assert suggestion.info["source"] == "gp"


def test_a_model_that_cannot_be_made_is_replaced_by_a_draw_and_said_so():
    # Hyper-parameters on the last trial with which no matrix has a factor.
    cube, X = Cube.continuous(2), draws(70, 2, seed=0)
    broken = {"lengthscale": [math.nan, 1.0], "noise_var": 1e-3, "outputscale": 1.0}
    data = dataset(X, surface(X), info={"hypers": broken, "warp": 0})
    suggestion = GPSuggester().suggest(data, cube, 1, 0)
    check(suggestion, cube, data)
    assert suggestion.info["source"] == "random"
    assert "not positive definite" in suggestion.info["fallback"]


# --- quality


def branin(x, y):
    u, v = 15 * x - 5, 15 * y
    bowl = v - 5.1 / (4 * math.pi**2) * u**2 + 5 / math.pi * u - 6
    return bowl**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(u) + 10  # at best 0.397887


HARTMANN_A = [
    [10, 3, 17, 3.5, 1.7, 8],
    [0.05, 10, 17, 0.1, 8, 14],
    [3, 3.5, 1.7, 10, 17, 8],
    [17, 8, 0.05, 10, 0.1, 14],
]
HARTMANN_P = [
    [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
    [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
    [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
    [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
]


def hartmann(**x):  # at best -3.32237
    x = list(x.values())
    total = 0.0
    for weight, A, P in zip([1.0, 1.2, 3.0, 3.2], HARTMANN_A, HARTMANN_P, strict=True):
        total -= weight * math.exp(-sum(a * (xi - p) ** 2 for a, xi, p in zip(A, x, P, strict=True)))
    return total


def best_after(n, objective, space, suggester, seed, direction="minimize"):
    study = gpbo.Study(space, suggester=suggester, store=None, seed=seed, direction=direction)
    for _ in range(n):
        trial = study.ask()
        study.tell(trial, objective(**trial.config))
    return study


BRANIN = SearchSpace(x=Float(0, 1), y=Float(0, 1))


def gaps_of(n, objective, best, space, suggester, seeds):
    """How far from the best value each of some short studies ends."""
    return [best_after(n, objective, space, suggester, seed).best.value - best for seed in seeds]


@pytest.mark.parametrize(("acquisition", "seeds"), [("log_ei", [0, 1, 2]), ("ucb", [0])])
def test_branin_is_solved_where_random_search_is_far(acquisition, seeds):
    found = gaps_of(18, branin, 0.397887, BRANIN, GPSuggester(acquisition=acquisition), seeds)
    chance = gaps_of(18, branin, 0.397887, BRANIN, gpbo.RandomSuggester(), range(15))
    assert max(found) < 0.3
    assert max(found) < 0.5 * median(chance)


def test_hartmann_in_six_dimensions_is_solved_where_random_search_is_far():
    space = SearchSpace({f"x{i}": Float(0, 1) for i in range(6)})
    found = gaps_of(40, hartmann, -3.32237, space, GPSuggester(), range(5))
    chance = gaps_of(40, hartmann, -3.32237, space, gpbo.RandomSuggester(), range(15))
    assert median(found) < 0.15
    assert median(found) < 0.1 * median(chance)


# --- one study or another


def test_maximising_is_minimising_the_negative_to_the_bit():
    down = best_after(12, branin, BRANIN, GPSuggester(), 3)
    up = best_after(12, lambda **c: -branin(**c), BRANIN, GPSuggester(), 3, direction="maximize")
    assert [t.config for t in up.trials] == [t.config for t in down.trials]
    assert [t.info for t in up.trials] == [t.info for t in down.trials]


@pytest.mark.parametrize("settings", [{}, {"batch": "joint"}, {"acquisition": "ucb", "pending": "liar_min"}])
def test_the_same_arguments_give_the_same_bits(device, settings):
    cube, X = SPACES["mixed"].cube, SPACES["mixed"].cube.draw(15, torch.Generator().manual_seed(0))
    data = dataset(X, surface(X), pending=cube.draw(2, torch.Generator().manual_seed(1)), device=device)
    first, second = (GPSuggester(**settings).suggest(data, cube, 2, 5) for _ in range(2))
    assert torch.equal(first.X, second.X)
    assert first.info == second.info
    assert first.X.device.type == device


def test_the_data_are_not_written_into():
    cube, X = Cube.continuous(3), draws(15, 3, seed=0)
    data = dataset(X, surface(X), pending=draws(2, 3, seed=1))
    before = [t.clone() for t in (data.X, data.Y, data.pending)]
    GPSuggester(batch="joint").suggest(data, cube, 2, 0)
    for now, then in zip((data.X, data.Y, data.pending), before, strict=True):
        assert torch.equal(now, then)


def test_seed_and_number_choose_the_point_only_among_good_ones():
    cube, X = Cube.continuous(2), draws(30, 2, seed=0)
    found = [GPSuggester().suggest(dataset(X, surface(X)), cube, 1, seed).X for seed in range(4)]
    for x in found[1:]:
        assert torch.allclose(x, found[0], atol=2e-2)  # one optimum of one acquisition function


@pytest.mark.parametrize("pending", PENDING)
def test_a_batch_one_after_another_spreads(pending):
    cube, X = Cube.continuous(2), draws(12, 2, seed=0)
    data = dataset(X, surface(X))
    suggestion = GPSuggester(pending=pending).suggest(data, cube, 4, 0)
    check(suggestion, cube, data, n=4)
    assert torch.pdist(suggestion.X).min() > 1e-2


@pytest.mark.parametrize("acquisition", ["log_ei", "ucb"])
@pytest.mark.parametrize("space", SPACES)
def test_joint_batches_are_new_feasible_and_apart(acquisition, space):
    cube = SPACES[space].cube
    X = cube.draw(12, torch.Generator().manual_seed(0))
    data = dataset(X, surface(X), pending=cube.draw(1, torch.Generator().manual_seed(1)))
    suggestion = GPSuggester(acquisition=acquisition, batch="joint").suggest(data, cube, 3, 0)
    check(suggestion, cube, data, n=3)


def test_a_batch_larger_than_the_space_gives_what_is_left():
    space = SearchSpace(c=Categorical(list("abc")), i=Int(0, 2))
    X = space.cube.enumerate()[:6]
    data = dataset(X, surface(X))
    for batch in ("greedy", "joint", "thompson", "ucb_pe"):
        suggestion = GPSuggester(n_initial=1, batch=batch).suggest(data, space.cube, 5, 0)
        check(suggestion, space.cube, data, n=3)


def test_pending_points_are_kept_away_from():
    # Here the posterior mean has its top between the observations, above all of them: what a pending point
    # there is expected to bring must not be counted again, or all workers get that very point.
    cube, X = Cube.continuous(2), draws(12, 2, seed=0)
    pending = X[:0]
    for _ in range(4):
        data = dataset(X, surface(X), pending=pending, number=12)
        pending = torch.cat([pending, GPSuggester().suggest(data, cube, 1, 0).X])
    assert torch.pdist(pending).min() > 1e-2


def test_a_single_point_of_thompson_is_from_a_draw():
    cube, X = Cube.continuous(2), draws(6, 2, seed=0)
    spread = {}
    for batch in ("auto", "thompson"):
        found = [
            GPSuggester(batch=batch).suggest(dataset(X, surface(X), number=number), cube, 1, 0)
            for number in range(6, 12)
        ]
        for suggestion in found:
            check(suggestion, cube, dataset(X, surface(X)))
        spread[batch] = torch.cat([suggestion.X for suggestion in found]).std(0).mean()
    assert spread["thompson"] > 0.03
    assert spread["thompson"] > 3 * spread["auto"]


@pytest.mark.parametrize("m", [2, 3])
def test_several_objectives_get_a_mix_that_changes_with_the_trial(m):
    cube, X = Cube.continuous(2), draws(15, 2, seed=0)
    Y = torch.stack([-(X - c).square().sum(-1) for c in torch.linspace(0.1, 0.9, m)], dim=-1)
    Y[3] = math.nan
    found = []
    for number in range(15, 23):
        data = dataset(X, Y, number=number)
        suggestion = GPSuggester().suggest(data, cube, 1, 0)
        check(suggestion, cube, data)
        found.append(suggestion.X)
    found = torch.cat(found)
    assert torch.pdist(found).max() > 0.2  # along the front from (0.1, 0.1) to (0.9, 0.9)
    assert (found[:, 0] - found[:, 1]).abs().median() < 0.2  # and not far from it


def test_the_largest_budget_with_enough_values_is_modelled():
    # At budget 9 the best is at 0.9, at budget 1 it looks to be at 0.1.
    cube, X = Cube.continuous(1), draws(30, 1, seed=0)
    budget = torch.where(torch.arange(30) < 20, 1.0, 9.0).double()
    y = torch.where(budget == 9.0, -(X[:, 0] - 0.9).abs(), 10 - (X[:, 0] - 0.1).abs())
    suggestion = GPSuggester(acquisition="ucb", beta=0.0).suggest(dataset(X, y, budget=budget), cube, 1, 0)
    assert suggestion.X.item() > 0.7


def test_many_values_at_a_low_budget_say_where_to_go_at_the_full_one():
    cube, X = Cube.continuous(4), draws(60, 4, seed=3)
    full = -(X - 0.6).square().sum(-1)
    budget = torch.cat([torch.ones(60), torch.full((5,), 27.0)]).double()
    y = torch.cat([0.5 * full - 3.0, full[:5]])
    data = dataset(torch.cat([X, X[:5]]), y, budget=budget)
    suggestion = GPSuggester().suggest(data, cube, 1, 0)
    assert suggestion.info["budget"] == 27.0
    alone = GPSuggester().suggest(dataset(X[:5], full[:5]), cube, 1, 0)
    near, far = ((found.X - 0.6).norm() for found in (suggestion, alone))
    assert near < 0.2
    assert near < far


def test_a_point_that_a_low_budget_stopped_is_not_proposed_again_a_hair_beside():
    cube, X = Cube.continuous(2), draws(20, 2, seed=1)
    full = -(X - 0.6).square().sum(-1)
    data = dataset(
        torch.cat([X, X[:8]]), torch.cat([draws(20, seed=2), full[:8]]),  # the low budget tells nothing
        budget=torch.tensor([1.0] * 20 + [27.0] * 8, dtype=torch.float64),
    )  # fmt: skip
    found = []
    for _ in range(6):  # each proposal is seen at the low budget only
        x = GPSuggester().suggest(data, cube, 1, 0).X
        found.append(x)
        one = torch.ones(1, dtype=torch.float64)
        data = replace(
            data, X=torch.cat([data.X, x]), Y=torch.cat([data.Y, 0.5 * one[:, None]]),
            budget=torch.cat([data.budget, one]), number=data.number + 1,
        )  # fmt: skip
    assert torch.pdist(torch.cat(found)).min() > 0.01


@pytest.mark.parametrize("batch", ["greedy", "joint", "thompson", "ucb_pe"])
def test_batches_and_running_trials_over_budgets(batch, device):
    space = SearchSpace(x=Float(0, 1), c=Categorical(["a", "b"]), z=Float(0, 1, when={"c": "b"}))
    X = space.cube.draw(30, torch.Generator().manual_seed(0))
    X = torch.cat([X, X[:8], X[:3]])
    budget = torch.tensor([1.0] * 30 + [3.0] * 8 + [9.0] * 3, dtype=torch.float64)
    y = -(X[:, 0] - 0.3).square() - 1 / budget
    y[4] = math.nan
    pending = space.cube.draw(3, torch.Generator().manual_seed(1))
    data = dataset(X, y, budget=budget, pending=pending, device=device)
    check(GPSuggester(batch=batch).suggest(data, space.cube, 5, 0), space.cube, data, n=5)


@pytest.mark.parametrize("n_full", [15, 55])
def test_of_too_many_rows_a_part_is_modelled(monkeypatch, n_full):
    monkeypatch.setattr(bayes, "BUDGETS_ON_CPU", 20)
    X = draws(60, 2, seed=0)
    budget = torch.tensor([1.0] * (60 - n_full) + [3.0] * n_full, dtype=torch.float64)
    info = GPSuggester().suggest(dataset(X, surface(X), budget=budget), Cube.continuous(2), 1, 0).info
    assert info["subset"] == 20
    assert math.isfinite(info["log_ei"])


# --- reopening


def test_hypers_on_the_last_trial_survive_json_and_start_the_next_fit():
    cube, X = Cube.continuous(3), draws(21, 3, seed=0)
    y = surface(X)
    info = GPSuggester().suggest(dataset(X[:20], y[:20]), cube, 1, 0).info
    read = json.loads(json.dumps(info))
    assert read == info  # floats are written with all their digits
    kept = dataset(X, y, info=info)
    reopened = dataset(X, y, info=read)
    one, other = (GPSuggester().suggest(data, cube, 1, 0) for data in (kept, reopened))
    assert torch.equal(one.X, other.X)
    assert one.info == other.info


def test_a_study_reopened_from_its_file_goes_on_with_the_same_bits(tmp_path):
    undisturbed = best_after(10, branin, BRANIN, GPSuggester(), 4)
    for _ in range(10):
        study = gpbo.Study(BRANIN, suggester=GPSuggester(), store=str(tmp_path / "study.db"), seed=4)
        trial = study.ask()
        study.tell(trial, branin(**trial.config))
    assert [t.config for t in study.trials] == [t.config for t in undisturbed.trials]
    assert [t.info for t in study.trials] == [t.info for t in undisturbed.trials]


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"source": "initial"},
        {"hypers": {"lengthscale": [1.0], "noise_var": 1.0, "outputscale": 1.0}},
    ],
)
def test_information_of_another_space_or_none_starts_cold(info):
    cube, X = Cube.continuous(2), draws(10, 2, seed=0)
    one = GPSuggester().suggest(dataset(X, surface(X), info=info), cube, 1, 0)
    other = GPSuggester().suggest(dataset(X, surface(X)), cube, 1, 0)
    assert torch.equal(one.X, other.X)


def test_a_refit_that_promises_nothing_is_skipped_and_said_so():
    cube, X = Cube.continuous(3), draws(70, 3, seed=0)
    info = GPSuggester().suggest(dataset(X, surface(X)), cube, 1, 0).info
    again = GPSuggester().suggest(dataset(X, surface(X), info=info), cube, 1, 0).info
    assert "refit" not in info
    assert again["refit"] == "skipped"
    assert again["hypers"]["lengthscale"] == pytest.approx(info["hypers"]["lengthscale"])


@pytest.mark.parametrize("until", [256, 0])
def test_exploring_doubts_the_lengthscales_and_goes_by_a_bound_when_there_are_many_rows(monkeypatch, until):
    monkeypatch.setattr(bayes, "_DOUBTED_UNTIL", until)
    cube, X = Cube.continuous(2), draws(30, 2, seed=0)
    y = torch.sin(9 * X[:, 0])  # the other column seems to be of no use
    info = GPSuggester().suggest(dataset(X, y), cube, 1, 0).info
    suggestion = GPSuggester().suggest(dataset(X, y, info={**info, "log_ei": -9.0}), cube, 1, 0)
    hypers = Hypers.from_dict(suggestion.info["hypers"], torch.device("cpu"))
    z = warp_values(y, STRENGTHS[suggestion.info["warp"]]).z
    doubting = make_gp(cube, X, z, hypers.halfway_to_prior())
    best = max(float(z.max()), float(doubting.marginal(X[y.topk(5).indices])[0].max()))
    by_doubt, by_bound = log_ei(doubting, best), ucb(make_gp(cube, X, z, hypers), 9.0)
    expected, other = (by_doubt, by_bound) if until else (by_bound, by_doubt)
    everywhere = torch.cartesian_prod(*[torch.linspace(0, 1, 201, dtype=torch.float64)] * 2)
    assert suggestion.info["explore"] == 1
    assert float(expected.values(suggestion.X)) > float(expected.values(everywhere).max()) - 1e-3
    assert float(other.values(suggestion.X)) < float(other.values(everywhere).max()) - 1e-2


def test_a_trial_explores_after_one_of_which_too_little_was_expected():
    space = SearchSpace(x=Float(0, 1), y=Float(0, 1))
    study = gpbo.Study(space, seed=0)
    for _ in range(25):
        trial = study.ask()
        study.tell(trial, (trial.config["x"] - 0.3) ** 2 + (trial.config["y"] - 0.6) ** 2)
    infos = [trial.info for trial in study.trials if trial.info["source"] == "gp"]
    assert any("explore" in info for info in infos)  # or this test has not looked at anything
    for before, after in pairwise(infos):
        assert ("explore" in after) == (before.get("log_ei", 0.0) < math.log(0.01))
        assert ("log_ei" in after) != ("explore" in after)
