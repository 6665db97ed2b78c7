import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch.utils._python_dispatch import TorchDispatchMode

from gpbo import Categorical, Float, Int, SearchSpace
from gpbo.acquisition import Effort, draw_paths, log_ei, thompson_batch
from gpbo.acquisition.thompson import _EFFORT, path_maxima
from gpbo.cube import Cube, is_new
from gpbo.errors import SettingError
from gpbo.gp import Hypers, make_gp
from gpbo.seeding import derive

SMALL = Effort(raw=128, perturbed=64, starts=4, rounds=10)
MIXED = SearchSpace(c=Categorical(list("abc")), i=Int(0, 40), x=Float(0, 1), y=Float(0, 1))
CONDITIONAL = SearchSpace(
    kind=Categorical(["p", "q"]),
    i=Int(1, 32, log=True),
    x=Float(0, 1),
    z=Float(1e-4, 1, log=True, when={"kind": "q"}),
    c=Categorical(list("uvw"), when={"kind": "p"}),
)
CONSTRAINED = SearchSpace(
    i=Int(1, 40), x=Float(0, 1), c=Categorical(list("ab")), constraints=["x * i <= 10", "c == 'a' or x < 0.5"]
)
FINITE = SearchSpace(a=Categorical(list("abcd")), i=Int(0, 9), b=Categorical(list("xyz")))
LARGE_FINITE = SearchSpace({f"c{j}": Categorical(list("abcde")) for j in range(7)})  # 78 125 points
CUBES = {
    "continuous": Cube.continuous(4),
    "mixed": MIXED.cube,
    "conditional": CONDITIONAL.cube,
    "constrained": CONSTRAINED.cube,
    "finite": FINITE.cube,
    "large finite": LARGE_FINITE.cube,
}
EVERY_CUBE = pytest.mark.parametrize("name", CUBES)


def draws(cube, n, seed, device="cpu"):
    return cube.draw(n, torch.Generator().manual_seed(seed)).to(device)


def process(cube, n, *, seed=0, noise_var=1e-4, lengthscale=0.5, nu=2.5, device="cpu"):
    X = draws(cube, n, seed, device)
    y = torch.sin(6 * X).sum(-1) - 2 * (X - 0.4).square().sum(-1)
    plain = {"lengthscale": [lengthscale] * cube.d, "noise_var": noise_var, "outputscale": 1.5}
    y = (y - y.mean()) / y.std()
    return make_gp(cube, X, y, Hypers.from_dict(plain, X.device), nu=nu), X


def four_thousand(gp, T, n_frequencies=1024):
    """4096 paths at T, of 16 draws of the frequencies, whose error is shared by the paths of one draw."""
    many = [draw_paths(gp, 256, seed, n_frequencies=n_frequencies).values(T) for seed in range(16)]
    return torch.cat(many)


def check_moments(gp, T):
    """Within five standard errors of 4096 draws, and the features' own error in the covariance."""
    paths = four_thousand(gp, T)
    mean, cov = gp.posterior(T)
    var = cov.diagonal()
    assert ((paths.mean(0) - mean).abs() <= 5 * (var / 4096).sqrt() + 1e-6).all()
    deviations = paths - mean
    error = (deviations.mT @ deviations / 4096 - cov).abs()
    scale = (var * var.unsqueeze(-1)).sqrt()
    standard_error = ((scale.square() + cov.square()) / 4096).sqrt()
    of_features = torch.minimum(0.02 * gp.hypers.outputscale, 0.2 * scale)
    assert (error <= 5 * standard_error + of_features).all()


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5])
def test_paths_have_the_posterior_s_mean_and_covariance(device, nu):
    gp, X = process(Cube.continuous(2), 12, nu=nu, device=device)
    far = draws(gp.embedding.cube, 20, 1, device)
    near = X[:6] + 0.003
    check_moments(gp, torch.cat([far, near, X[:3]]))


@pytest.mark.parametrize("name", ["mixed", "conditional"])
def test_paths_of_mixed_and_conditional_spaces_have_the_posterior_s_moments(name):
    gp, X = process(CUBES[name], 15)
    check_moments(gp, torch.cat([draws(gp.embedding.cube, 25, 1), X[:3]]))


def test_without_data_nearby_the_mean_is_as_uncertain_as_its_prior():
    gp, _ = process(Cube.continuous(1), 2, lengthscale=0.01)
    T = gp.y.new_tensor([[0.1], [0.2], [0.5]])
    check_moments(gp, T)


def test_more_data_than_features_do_not_starve_the_variance():
    # Regression on the 64 features alone would be certain everywhere, given 100 observations of [0, 1/2].
    cube = Cube.continuous(1)
    X = torch.linspace(0, 0.5, 100, dtype=torch.float64).unsqueeze(-1)
    plain = {"lengthscale": [0.15], "noise_var": 1e-6, "outputscale": 1.0}
    gp = make_gp(cube, X, torch.sin(9 * X.squeeze(-1)), Hypers.from_dict(plain, X.device))
    T = torch.tensor([[0.55], [0.6], [0.7], [0.85], [1.0]], dtype=torch.float64)
    paths = four_thousand(gp, T, n_frequencies=32)
    mean, var = gp.marginal(T)
    assert torch.allclose(paths.var(0), var, rtol=0.3)
    assert ((paths.mean(0) - mean).abs() <= 5 * (var / 4096).sqrt()).all()


def test_paths_go_through_values_that_are_known_almost_exactly():
    gp, X = process(Cube.continuous(3), 40, noise_var=1e-6)
    paths = draw_paths(gp, 50, 0).values(X)
    assert (paths - gp.y).abs().max() < 6e-3  # six standard deviations of the noise
    assert (paths - gp.y).abs().max() > 1e-5


@EVERY_CUBE
def test_gradients_equal_finite_differences(name):
    cube = CUBES[name]
    gp, _ = process(cube, 10)
    paths = draw_paths(gp, 3, 0, n_frequencies=64)
    X = torch.stack([draws(cube, 4, seed) for seed in range(3)])
    value, gradient = paths.value_and_gradient(X)
    assert torch.allclose(value, paths.values(X), rtol=1e-10)
    assert gradient.shape == X.shape
    for j in range(cube.d):
        if cube.is_categorical[j]:
            assert (gradient[..., j] == 0.0).all()
            continue
        e = torch.zeros(cube.d, dtype=torch.float64)
        e[j] = 1e-6
        slope = (paths.values(X + e) - paths.values(X - e)) / 2e-6
        assert torch.allclose(gradient[..., j], slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5])
def test_gradients_equal_finite_differences_for_every_smoothness(device, nu):
    gp, _ = process(Cube.continuous(2), 10, nu=nu, device=device)
    paths = draw_paths(
        gp, 2, 0, n_frequencies=16
    )  # at nu = 1/2 more of them would be too steep for differences
    X = draws(gp.embedding.cube, 6, 1, device).reshape(2, 3, 2)
    gradient = paths.value_and_gradient(X)[1]
    for j in range(2):
        e = torch.zeros(2, dtype=torch.float64, device=device)
        e[j] = 1e-7
        slope = (paths.values(X + e) - paths.values(X - e)) / 2e-7
        assert torch.allclose(gradient[..., j], slope, rtol=1e-3, atol=1e-4)


def test_shared_and_own_points_and_some_of_the_paths_give_the_same_values():
    gp, _ = process(MIXED.cube, 20)
    paths = draw_paths(gp, 5, 0)
    T = draws(MIXED.cube, 7, 1)
    values = paths.values(T)
    assert values.shape == (5, 7)
    assert torch.allclose(paths.values(T.expand(5, 7, 4)), values)
    assert torch.allclose(paths[1:3].values(T), values[1:3])
    assert torch.allclose(paths[torch.tensor([4, 0])].values(T), values[[4, 0]])
    assert len(paths[1:3]) == 2


def test_paths_depend_on_the_seed_alone():
    gp, X = process(Cube.continuous(2), 8)
    values = draw_paths(gp, 4, 7).values(X + 0.1)
    assert torch.equal(draw_paths(gp, 4, 7).values(X + 0.1), values)
    assert not torch.allclose(draw_paths(gp, 4, 8).values(X + 0.1), values)


def test_pending_rows_do_not_count():
    gp, _ = process(Cube.continuous(2), 8)
    T = draws(gp.embedding.cube, 5, 1)
    pending = draw_paths(gp.condition(T[:2]), 3, 0)
    assert torch.allclose(pending.values(T), draw_paths(gp, 3, 0).values(T), rtol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"q": 0}, "`q` must be a whole number >= 1, got 0"),
        ({"q": 1, "n_frequencies": 0}, "`n_frequencies` must be a whole number >= 1, got 0"),
    ],
)
def test_nothing_to_draw_is_refused(arguments, message):
    gp, _ = process(Cube.continuous(1), 3)
    with pytest.raises(SettingError, match=message):
        draw_paths(gp, seed=0, **arguments)


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


def test_memory_is_bounded_however_many_points_there_are():
    n, q, b = 100, 40, 64
    gp, _ = process(Cube.continuous(5), n)
    paths = draw_paths(gp, q, 0)
    X, shared = torch.rand(q, b, 5, dtype=torch.float64), torch.rand(q * b, 5, dtype=torch.float64)
    for call in (lambda: paths.values(X), lambda: paths.value_and_gradient(X), lambda: paths.values(shared)):
        with LargestTensor() as largest:
            call()
        assert largest.numel < q * b * (n + 1024) / 4


def batch(gp, X, q, *, seed=0, seen=None, **options):
    top = X[gp.y.topk(min(5, len(X))).indices]
    seen = X if seen is None else seen
    return thompson_batch(gp, gp.embedding.cube, q, incumbents=top, seen=seen, seed=seed, **options)


def maxima(gp, X, q):
    """The points of `batch` in the order of their paths."""
    paths, top = draw_paths(gp, q, derive(0, "paths")), X[gp.y.topk(min(5, len(X))).indices]
    return path_maxima(paths, gp.embedding.cube, incumbents=top, seen=X, seed=0, effort=_EFFORT)


@EVERY_CUBE
def test_a_batch_has_the_points_of_its_paths_the_first_of_them_good_together(name):
    cube = CUBES[name]
    gp, X = process(cube, 20)
    found, expected = batch(gp, X, 12), maxima(gp, X, 12)
    assert torch.equal(found.unique(dim=0), expected.unique(dim=0))
    best = float(gp.marginal(X)[0].max())
    first = log_ei(gp, best)(found.unsqueeze(1))
    assert first.argmax() == 0
    gp = gp.condition(found[:1])
    best = max(best, float(gp.marginal(found[:1])[0]))
    assert log_ei(gp, best)(found[1:].unsqueeze(1)).argmax() == 0


@EVERY_CUBE
@settings(max_examples=5)
@given(seed=st.integers(0, 1000), q=st.integers(1, 12))
def test_a_batch_is_of_different_new_feasible_points_and_the_same_again(name, seed, q):
    cube = CUBES[name]
    gp, X = process(cube, 12, seed=seed)
    found = batch(gp, X, q, seed=seed, effort=SMALL)
    assert found.shape == (q, cube.d)
    assert torch.equal(cube.snap(found.clone()), found)
    assert cube.feasible(found).all()
    assert is_new(found, X).all()
    assert torch.equal(batch(gp, X, q, seed=seed, effort=SMALL), found)


def test_a_batch_on_any_device(device):
    gp, X = process(MIXED.cube, 12, device=device)
    found = batch(gp, X, 6, effort=SMALL)
    assert found.device == X.device
    assert is_new(found, X).all()


def test_every_path_of_a_finite_space_gets_its_best_point_or_the_next_that_is_left():
    gp, X = process(FINITE.cube, 20, noise_var=1e-2)
    found = maxima(gp, X, 40)
    listed = FINITE.cube.enumerate()
    values = draw_paths(gp, 40, derive(0, "paths")).values(listed)
    left = is_new(listed, X)
    shared = 0
    for s in range(40):
        expected = torch.where(left, values[s], -math.inf).argmax()
        assert torch.equal(found[s], listed[expected])
        shared += int(values[s].argmax()) != int(expected)
        left[expected] = False
    assert shared > 10  # else nothing was shown


def test_the_last_points_of_a_finite_space_come_once_and_then_none():
    gp, X = process(FINITE.cube, 20)
    listed = FINITE.cube.enumerate()
    last = batch(gp, X, 10, seen=listed[:-3])
    assert torch.equal(last.unique(dim=0), listed[-3:])
    assert batch(gp, X, 10, seen=listed).shape == (0, 3)


@pytest.mark.parametrize("name", ["mixed", "large finite"])
def test_no_move_to_another_level_is_better_for_most_paths(name):
    cube = CUBES[name]
    gp, X = process(cube, 30)
    found = maxima(gp, X, 16)
    paths = draw_paths(gp, 16, derive(0, "paths"))
    stuck = 0
    for s in range(16):
        near = cube.neighbours(found[s])
        near = near[is_new(near, torch.cat([X, found]))]
        stuck += bool(
            (paths[s : s + 1].values(near) <= paths[s : s + 1].values(found[s : s + 1]) + 1e-6).all()
        )
    assert stuck >= 15


def judge(path, cube):
    """The best of 4096 Sobol points, of which scipy polishes the best 20."""
    X = cube.sobol(4096, 12345)
    starts = X[path.values(X)[0].topk(20).indices]

    def objective(x):
        value, gradient = path.value_and_gradient(torch.as_tensor(x).reshape(1, 1, -1))
        return -value.item(), -gradient[0, 0].numpy()

    bounds = [(0, 1)] * cube.d
    runs = (minimize(objective, s.numpy(), jac=True, method="L-BFGS-B", bounds=bounds) for s in starts)
    return -min(run.fun for run in runs)


@pytest.mark.parametrize(("d", "n", "lengthscale"), [(1, 5, 0.2), (2, 20, 0.3), (5, 40, 1.0)])
def test_paths_are_maximised_as_well_as_by_the_judge(d, n, lengthscale):
    cube = Cube.continuous(d)
    gp, X = process(cube, n, lengthscale=lengthscale)
    found = maxima(gp, X, 10)
    paths = draw_paths(gp, 10, derive(0, "paths"))
    reached = paths.values(found.unsqueeze(1)).squeeze(1)
    short = [judge(paths[s : s + 1], cube) - reached[s].item() for s in range(10)]
    assert sum(gap <= 1e-3 for gap in short) >= 9
    assert max(short) < 0.3


def test_a_maximum_on_the_edge_of_the_constraint_is_nearly_reached():
    # The function grows towards (1, 1), of which x + y <= 1.2 leaves an edge.
    space = SearchSpace(x=Float(0, 1), y=Float(0, 1), constraints=["x + y <= 1.2"])
    X = draws(space.cube, 20, 3)
    plain = {"lengthscale": [2.0, 2.0], "noise_var": 1e-6, "outputscale": 1.0}
    gp = make_gp(space.cube, X, X.sum(-1), Hypers.from_dict(plain, X.device))
    found = batch(gp, X, 8)
    assert (found.sum(-1) <= 1.2 + 1e-12).all()
    assert (found.sum(-1) >= 1.15).all()


def test_a_constraint_that_forbids_every_candidate_has_nothing_to_offer():
    plain = Cube.continuous(2)
    gp, X = process(plain, 8)
    cube = Cube(
        plain.n_levels,
        plain.is_categorical,
        plain.log_edges,
        constraint=lambda X: torch.zeros(len(X), dtype=torch.bool),
    )
    assert thompson_batch(gp, cube, 3, incumbents=X[:1], seen=X, seed=0).shape == (0, 2)


def test_draws_spread_where_the_maximum_may_be_and_agree_where_it_is_known():
    cube = Cube.continuous(1)
    gp, X = process(cube, 3, lengthscale=0.15)
    assert batch(gp, X, 30).std() > 0.1
    T = torch.linspace(0, 1, 60, dtype=torch.float64).unsqueeze(-1)
    plain = {"lengthscale": [0.5], "noise_var": 1e-6, "outputscale": 1.0}
    known = make_gp(cube, T, -8 * (T.squeeze(-1) - 0.37).square(), Hypers.from_dict(plain, T.device))
    assert (batch(known, T, 30) - 0.37).abs().max() < 0.05
