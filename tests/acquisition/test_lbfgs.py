import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from gpbo.acquisition.lbfgs import maximize_rows


def draws(*shape, seed):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ones(k, device="cpu"):
    return torch.ones(k, dtype=torch.float64, device=device)


def differentiated(function):
    """A function (b, k) -> (b,) as one that gives values and gradients."""

    def both(x):
        at = x.detach().clone().requires_grad_(True)
        value = function(at)
        return value.detach(), torch.autograd.grad(value.sum(), at)[0]

    return both


def quadratic(k, seed, device="cpu"):
    """-1/2 (x - top)^T A (x - top) with its top inside the box."""
    M = torch.randn(k, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    A = (M @ M.mT + 0.1 * torch.eye(k, dtype=torch.float64)).to(device)
    top = (0.2 + 0.6 * draws(k, seed=seed + 1)).to(device)
    return (lambda x: -0.5 * ((x - top) @ A * (x - top)).sum(-1)), top


def rosenbrock(x):
    """Its maximum, 0, at (0.75, ..., 0.75)."""
    u = 4 * x - 2
    return -(100 * (u[..., 1:] - u[..., :-1] ** 2).square() + (1 - u[..., :-1]).square()).sum(-1) / 1000


def hills(x):
    return (torch.sin(7 * x) + 0.3 * torch.cos(19 * x)).sum(-1) - (x - 0.3).square().sum(-1)


@pytest.mark.parametrize("k", [1, 2, 10])
def test_quadratics_are_climbed_to_their_top(device, k):
    function, top = quadratic(k, seed=k, device=device)
    found = maximize_rows(
        differentiated(function), draws(6, k, seed=0).to(device), scale=ones(k, device), max_rounds=200
    )
    assert found.x.device.type == device
    assert torch.allclose(found.x, top.expand(6, k), atol=5e-3)
    assert torch.allclose(found.value, torch.zeros_like(found.value), atol=1e-5)


def test_a_top_outside_the_box_is_met_at_the_edge():
    # max -(x - 2)^2 - (y - 1/2)^2 - (z + 1)^2 over the box is at (1, 1/2, 0)
    target = torch.tensor([2.0, 0.5, -1.0], dtype=torch.float64)
    found = maximize_rows(
        differentiated(lambda x: -(x - target).square().sum(-1)), draws(5, 3, seed=1), scale=ones(3)
    )
    assert torch.allclose(found.x, torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64).expand(5, 3), atol=1e-5)


@pytest.mark.parametrize("k", [2, 4])
def test_rosenbrock_is_solved_as_by_scipy(k):
    x = draws(8, k, seed=2)
    found = maximize_rows(differentiated(rosenbrock), x, scale=ones(k), max_rounds=400, tolerance=1e-8)
    expected = torch.tensor([by_scipy(rosenbrock, row) for row in x])
    assert (found.value >= expected.double() - 1e-4).double().mean() > 0.85  # rows may take to other valleys
    assert found.value.max().item() == pytest.approx(0.0, abs=1e-5)


def by_scipy(function, start):
    both = differentiated(function)

    def objective(x):
        value, gradient = both(torch.as_tensor(x).unsqueeze(0))
        return -value.item(), -gradient[0].numpy()

    bounds = [(0, 1)] * len(start)
    return -minimize(objective, start.numpy(), jac=True, method="L-BFGS-B", bounds=bounds).fun


def test_many_hills_are_climbed_as_high_as_by_scipy():
    x = draws(30, 3, seed=3)
    found = maximize_rows(differentiated(hills), x, scale=ones(3) * 0.2, max_rounds=100)
    expected = torch.tensor([by_scipy(hills, row) for row in x])
    assert found.value.max() >= expected.max() - 1e-6
    polished = torch.tensor([by_scipy(hills, row) for row in found.x])
    assert torch.allclose(found.value, polished.double(), atol=1e-4)  # every row stands on its own top


@settings(max_examples=25)
@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 7))
def test_rows_do_not_know_of_each_other(seed, k, b):
    x = draws(b, k, seed=seed)
    scale = 0.1 + draws(k, seed=seed + 1)
    together = maximize_rows(differentiated(hills), x, scale=scale, max_rounds=30)
    for i in range(b):
        alone = maximize_rows(differentiated(hills), x[i : i + 1], scale=scale, max_rounds=30)
        assert torch.allclose(alone.x[0], together.x[i], rtol=1e-9, atol=1e-9)
        assert torch.allclose(alone.value[0], together.value[i], rtol=1e-9, atol=1e-9)


@settings(max_examples=25)
@given(st.integers(0, 1000), st.integers(1, 5))
def test_it_never_leaves_the_box_and_never_ends_lower_than_it_began(seed, k):
    x = draws(5, k, seed=seed).round(decimals=1)  # some on the edges
    asked = []

    def watched(at):
        asked.append(at.clone())
        return differentiated(hills)(at)

    found = maximize_rows(watched, x, scale=ones(k), max_rounds=25)
    for at in [*asked, found.x]:
        assert (at >= 0.0).all()
        assert (at <= 1.0).all()
    assert (found.value >= hills(x)).all()
    assert torch.allclose(found.value, hills(found.x), rtol=1e-12)
    assert found.rounds == len(asked) <= 25


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_more_rounds_never_end_lower(rounds):
    x = draws(10, 3, seed=4)
    fewer = maximize_rows(differentiated(hills), x, scale=ones(3), max_rounds=rounds)
    more = maximize_rows(differentiated(hills), x, scale=ones(3), max_rounds=rounds + 1)
    assert (more.value >= fewer.value).all()


def test_arguments_are_not_written_into():
    x, scale = draws(4, 3, seed=5), draws(3, seed=6)
    before = x.clone(), scale.clone()
    maximize_rows(differentiated(hills), x, scale=scale)
    assert torch.equal(x, before[0])
    assert torch.equal(scale, before[1])


@pytest.mark.parametrize("level", [0.0, -5800.0])
def test_a_plateau_ends_at_once(level):
    x = draws(3, 2, seed=7)
    found = maximize_rows(
        lambda at: (torch.full((len(at),), level).to(at), torch.zeros_like(at)), x, scale=ones(2)
    )
    assert found.rounds == 1
    assert torch.equal(found.x, x)


@pytest.mark.parametrize("steep", [1e-3, 1.0, 1e8, 1e12])
def test_any_steepness_is_climbed(steep):
    top = 0.3 * ones(2)
    function = differentiated(lambda x: -steep * (x - top).square().sum(-1))
    found = maximize_rows(
        function, draws(4, 2, seed=8), scale=ones(2), max_rounds=100, tolerance=steep * 1e-6
    )
    assert torch.allclose(found.x, top.expand(4, 2), atol=2e-3)


@pytest.mark.parametrize("bad", [torch.nan, -torch.inf])
def test_a_place_without_a_value_is_not_entered(bad):
    def function(at):
        value, gradient = differentiated(lambda x: -(x - 0.8).square().sum(-1))(at)
        return torch.where(at[:, 0] > 0.5, bad, value), gradient

    found = maximize_rows(function, 0.4 * draws(6, 2, seed=9), scale=ones(2))
    assert torch.isfinite(found.value).all()
    assert (found.x[:, 0] <= 0.5).all()


def stretched(k, seed):
    """A quadratic whose curvatures are 1 to 1e4, its top inside the box."""
    Q = torch.linalg.qr(torch.randn(k, k, generator=torch.Generator().manual_seed(seed)).double())[0]
    A = Q @ torch.diag(torch.logspace(0, 4, k, dtype=torch.float64)) @ Q.mT
    top = 0.4 + 0.2 * draws(k, seed=seed + 1)
    return (lambda x: -0.5 * ((x - top) @ A * (x - top)).sum(-1)), top


def test_after_sifting_a_quadratic_takes_one_step():
    k, asked = 8, []
    function, top = stretched(k, seed=3)

    def watched(x):
        asked.append(len(x))
        return differentiated(function)(x)

    found = maximize_rows(watched, 0.4 + 0.2 * draws(6, k, seed=4), scale=ones(k), sift=(3, 2))
    assert asked == [6, 6, 6, 2 * k, 2]
    assert found.rounds == len(asked)
    assert torch.allclose(found.x, top.expand(2, k), atol=1e-5)


@pytest.mark.parametrize("rounds", [1, 3, 4, 5, 6])
def test_measuring_the_curvature_counts_as_a_round(rounds):
    asked = []

    def watched(x):
        asked.append(len(x))
        return differentiated(hills)(x)

    found = maximize_rows(watched, draws(6, 3, seed=0), scale=ones(3), sift=(4, 3), max_rounds=rounds)
    assert found.rounds == len(asked) <= rounds
    assert (9 in asked) == (rounds == 6)


def test_no_curvature_is_measured_where_all_have_arrived():
    asked = []

    def watched(x):
        asked.append(len(x))
        return differentiated(lambda x: -x.sum(-1))(x)

    maximize_rows(watched, torch.zeros(4, 3, dtype=torch.float64), scale=ones(3), sift=(1, 2))
    assert asked == [4]


def test_where_curvature_points_the_wrong_way_the_climb_still_goes_up():
    function = differentiated(lambda x: torch.cos(6.0 * x).sum(-1))  # tops at 0 and pi / 3, out of the box
    x = torch.tensor([[0.45, 0.6]], dtype=torch.float64)  # close to the bottom of the valley
    found = maximize_rows(function, x, scale=ones(2), sift=(1, 1), max_rounds=60)
    assert torch.allclose(found.x, torch.tensor([[0.0, 1.0]], dtype=torch.float64), atol=1e-5)


def test_coordinates_that_are_held_or_at_the_edge_stay_after_sifting():
    quadratic_in_three, _ = stretched(3, seed=5)
    far = torch.tensor([0.0, 3.0, 0.0], dtype=torch.float64)
    function = differentiated(lambda x: quadratic_in_three(x - far))  # its top is beyond x1 = 1
    x = 0.4 + 0.2 * draws(2, 3, seed=6)
    x[:, 1] = 1.0
    found = maximize_rows(function, x, scale=ones(3), sift=(1, 2), held=[2], max_rounds=100, tolerance=1e-7)
    assert torch.equal(found.x[:, 2], x[:, 2])
    for row, at in zip(found.x, x, strict=True):
        inner = minimize(
            lambda v, at=at: -function(torch.tensor([[v[0], v[1], at[2]]], dtype=torch.float64))[0].item(),
            at[:2].numpy(),
            bounds=[(0, 1)] * 2,
        )
        assert row[:2].numpy() == pytest.approx(inner.x, abs=1e-3)


def test_a_gradient_that_is_not_a_number_near_a_row_does_no_harm():
    def function(x):
        value, slope = differentiated(hills)(x)
        beside = ((x > 0.3) & (x < 0.3 + 2e-4)).any(-1)
        return value, slope.masked_fill(beside.unsqueeze(-1), torch.nan)

    x = torch.full((3, 2), 0.3, dtype=torch.float64)
    found = maximize_rows(function, x, scale=ones(2), sift=(1, 3))
    assert bool(found.value.isfinite().all())
    assert bool((found.value >= differentiated(hills)(x)[0]).all())
