import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch.utils._python_dispatch import TorchDispatchMode

from gpbo import Categorical, Float, Int, SearchSpace
from gpbo.acquisition import Effort, log_ei, maximize, ucb
from gpbo.acquisition.optimize import perturb
from gpbo.cube import Cube, is_new
from gpbo.gp import Hypers, fit_gp, make_gp


def draws(*shape, seed):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def surface(X):
    return torch.sin(6 * X).sum(-1) - 2 * (X - 0.4).square().sum(-1)


def fitted(cube, n, seed, function=surface):
    X = cube.draw(n, torch.Generator().manual_seed(seed))
    y = function(X)
    y = (y - y.mean()) / y.std()
    return fit_gp(cube, X, y)[0], X, y


def best_of(acquisition, cube, X, y, gp, **options):
    top = X[y.topk(min(5, len(y))).indices]
    options = {"incumbents": top, "seen": X, "scale": gp.hypers.lengthscale, "seed": 0} | options
    return maximize(acquisition, cube, **options)


def value_at(acquisition, x):
    return acquisition.values(x.unsqueeze(0)).item()


def judge(acquisition, cube):
    """The best of 4096 Sobol points, of which scipy polishes the best 20."""
    X = cube.sobol(4096, 12345)
    starts = X[acquisition.values(X).topk(20).indices]

    def objective(x):
        value, gradient = acquisition.value_and_gradient(torch.as_tensor(x).unsqueeze(0))
        return -value.item(), -gradient[0].numpy()

    bounds = [(0, 1)] * cube.d
    return -min(
        minimize(objective, s.numpy(), jac=True, method="L-BFGS-B", bounds=bounds).fun for s in starts
    )


@pytest.mark.parametrize(
    ("d", "n", "seed"), [(1, 6, 0), (2, 12, 1), (2, 60, 2), (4, 30, 3), (6, 80, 4), (10, 60, 5), (20, 80, 6)]
)
@pytest.mark.parametrize("name", ["log_ei", "ucb"])
def test_as_good_as_the_judge(d, n, seed, name):
    cube = Cube.continuous(d)
    gp, X, y = fitted(cube, n, seed)
    acquisition = log_ei(gp, float(y.max())) if name == "log_ei" else ucb(gp, 2.0)
    x = best_of(acquisition, cube, X, y, gp)
    assert value_at(acquisition, x) >= judge(acquisition, cube) - 1e-3


MIXED = {
    "ordered and categorical": SearchSpace(
        a=Categorical(list("abcd")), i=Int(0, 9), b=Categorical(list("xyz"))
    ),
    "conditional": SearchSpace(
        kind=Categorical(["p", "q", "r"]),
        i=Int(1, 12, when={"kind": ["p", "q"]}),
        c=Categorical(list("uvw"), when={"kind": "q"}),
        j=Int(1, 32, log=True),
    ),
    "all categorical": SearchSpace({f"c{i}": Categorical(list("abcde")) for i in range(4)}),
    "constrained": SearchSpace(i=Int(0, 20), j=Int(0, 20), constraints=["i * j <= 40"]),
}


@pytest.mark.parametrize("name", MIXED)
def test_finite_spaces_are_solved_as_by_listing_every_point(name):
    cube = MIXED[name].cube
    listed = cube.enumerate()
    gp, X, y = fitted(cube, 20, 7)
    acquisition = log_ei(gp, float(y.max()))
    x = best_of(acquisition, cube, X, y, gp)
    left = listed[is_new(listed, X)]
    assert (listed - x).abs().amax(-1).min().item() < 1e-12  # a point of the space
    assert is_new(x.unsqueeze(0), X).all()
    assert value_at(acquisition, x) == pytest.approx(acquisition.values(left).max().item(), abs=1e-6)


def test_mixed_spaces_are_solved_as_by_every_combination_with_the_judge():
    space = SearchSpace(c=Categorical(list("abc")), i=Int(0, 4), x=Float(0, 1), y=Float(0, 1))
    gp, X, y = fitted(space.cube, 30, 8)
    acquisition = log_ei(gp, float(y.max()))
    x = best_of(acquisition, space.cube, X, y, gp)
    best = -math.inf
    for c in range(3):
        for i in range(5):
            at = space.cube.sobol(256, c * 5 + i)
            at[:, 0], at[:, 1] = (c + 0.5) / 3, (i + 0.5) / 5
            start = at[acquisition.values(at).argmax()]

            def objective(numbers, start=start):
                point = torch.cat([start[:2], torch.as_tensor(numbers)]).unsqueeze(0)
                value, gradient = acquisition.value_and_gradient(point)
                return -value.item(), -gradient[0, 2:].numpy()

            run = minimize(objective, start[2:].numpy(), jac=True, method="L-BFGS-B", bounds=[(0, 1)] * 2)
            best = max(best, -run.fun)
    assert value_at(acquisition, x) >= best - 1e-2


SPACE = SearchSpace(
    kind=Categorical(["p", "q"]),
    i=Int(1, 40),
    x=Float(0, 1),
    z=Float(1e-4, 1, log=True, when={"kind": "q"}),
    constraints=["x * i <= 20"],
)


@settings(max_examples=15)
@given(st.integers(0, 1000), st.integers(3, 25))
def test_what_comes_back_is_snapped_feasible_new_and_the_same_again(seed, n):
    cube = SPACE.cube
    gp, X, y = fitted(cube, n, seed)
    acquisition = log_ei(gp, float(y.max()))
    small = Effort(raw=64, perturbed=32, starts=4, rounds=10)
    x = best_of(acquisition, cube, X, y, gp, seed=seed, effort=small)
    assert x.shape == (4,)
    assert torch.equal(cube.snap(x.clone()), x)
    assert cube.feasible(x.unsqueeze(0)).all()
    assert is_new(x.unsqueeze(0), X).all()
    SPACE.validate(SPACE.decode(x.unsqueeze(0))[0])
    assert torch.equal(x, best_of(acquisition, cube, X, y, gp, seed=seed, effort=small))


def test_a_maximum_on_the_edge_of_the_constraint_is_nearly_reached():
    # EI grows towards (1, 1), of which x + y <= 1.2 leaves an edge.
    space = SearchSpace(x=Float(0, 1), y=Float(0, 1), constraints=["x + y <= 1.2"])
    gp, X, y = fitted(space.cube, 20, 9, function=lambda X: X.sum(-1))
    acquisition = ucb(gp, 0.0)
    x = best_of(acquisition, space.cube, X, y, gp)
    grid = torch.cartesian_prod(*[torch.linspace(0, 1, 201, dtype=torch.float64)] * 2)
    grid = grid[grid.sum(-1) <= 1.2]
    assert x.sum().item() <= 1.2 + 1e-12
    assert value_at(acquisition, x) >= acquisition.values(grid).max().item() - 0.05


def test_an_exhausted_space_has_nothing_left():
    space = SearchSpace(c=Categorical(list("ab")), i=Int(0, 2))
    listed = space.cube.enumerate()
    gp = fitted(space.cube, 6, 10)[0]
    top = {"incumbents": listed[:1], "scale": gp.hypers.lengthscale, "seed": 0}
    assert maximize(log_ei(gp, 0.0), space.cube, seen=listed, **top) is None
    last = maximize(log_ei(gp, 0.0), space.cube, seen=listed[:-1], **top)
    assert torch.equal(last, listed[-1])


def test_a_constraint_that_forbids_every_candidate_has_nothing_to_offer():
    cube = Cube(*[getattr(Cube.continuous(2), f) for f in ("n_levels", "is_categorical", "log_edges")],
                constraint=lambda X: torch.zeros(len(X), dtype=torch.bool))  # fmt: skip
    gp, X, y = fitted(Cube.continuous(2), 8, 11)
    assert best_of(log_ei(gp, 0.0), cube, X, y, gp) is None


@pytest.mark.parametrize("best_f", [1e4, -1e4])
def test_a_flat_or_hopeless_acquisition_still_gives_a_point(best_f):
    cube = Cube.continuous(3)
    gp, X, y = fitted(cube, 10, 12)
    x = best_of(log_ei(gp, best_f), cube, X, y, gp)
    assert torch.isfinite(x).all()
    assert is_new(x.unsqueeze(0), X).all()


def test_without_incumbents_or_anything_seen(device):
    cube = Cube.continuous(2)
    X = draws(8, 2, seed=0).to(device)
    plain = {"lengthscale": [0.3, 0.3], "noise_var": 1e-3, "outputscale": 1.0, "mean": 0.0}
    gp = make_gp(cube, X, surface(X), Hypers.from_dict(plain, X.device))
    nothing = X.new_empty(0, 2)
    x = maximize(ucb(gp, 1.0), cube, incumbents=nothing, seen=nothing, scale=gp.hypers.lengthscale, seed=0)
    assert x.device.type == device
    assert ((x >= 0) & (x <= 1)).all()


@given(st.integers(0, 1000), st.integers(1, 50))
def test_perturbations_are_points_of_the_space_near_the_incumbents(seed, n):
    cube = SPACE.cube
    X = cube.draw(3, torch.Generator().manual_seed(seed))
    near = perturb(X, cube, n, torch.Generator().manual_seed(seed))
    assert near.shape == (n, 4)
    assert torch.equal(cube.snap(near.clone()), near)
    assert perturb(X[:0], cube, n, torch.Generator().manual_seed(seed)).shape == (0, 4)


class LargestTensor(TorchDispatchMode):
    """Counts the elements of the largest tensor that any operation returns."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(value, torch.Tensor):
                self.numel = max(self.numel, value.numel())
        return out


def test_a_round_makes_no_tensor_of_candidates_observations_and_columns():
    n, d, b = 200, 20, 64
    gp, _, y = fitted(Cube.continuous(d), n, 13)
    X = draws(b, d, seed=14)
    with LargestTensor() as largest:
        log_ei(gp, float(y.max())).value_and_gradient(X)
    assert b * n <= largest.numel < b * n * d / 4


@pytest.mark.parametrize("seed", range(3))
def test_the_maximum_of_a_part_is_found_with_what_was_seen_elsewhere(seed):
    space = SearchSpace(x=Float(0, 1), y=Float(0, 1), z=Float(0, 1), c=Categorical(["a", "b"]))
    gp, X, y = fitted(space.cube, 30, seed)
    acquisition, part = log_ei(gp, y.max().item()), space.part({"y": 0.9, "c": "b"})
    x = best_of(acquisition, part, X, y, gp)
    assert torch.equal(x[[1, 3]], part.fixed[[1, 3]])
    axis = torch.linspace(0, 1, 101, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    everywhere = part.snap(grid[:, [0, 0, 1, 1]])
    assert value_at(acquisition, x) >= acquisition.values(everywhere).max().item() - 1e-3
    assert value_at(acquisition, x) < value_at(acquisition, best_of(acquisition, space.cube, X, y, gp))
