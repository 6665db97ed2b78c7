import math

import gpytorch
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from gpbo.kernels import NUS, matern, matern_and_slope, squared_distances

SMOOTHNESS = pytest.mark.parametrize("nu", NUS)


def points(n, d, seed, dtype=torch.float64):
    return torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def test_a_worked_example():
    # r = 1: e^-1, (1 + sqrt 3) e^-sqrt 3 and (1 + sqrt 5 + 5/3) e^-sqrt 5 (Rasmussen and Williams 2006, 4.17)
    r2 = torch.ones(1, dtype=torch.float64)
    assert matern(r2, 0.5).item() == pytest.approx(0.36787944117144233, rel=1e-14)
    assert matern(r2, 1.5).item() == pytest.approx(0.48335772, rel=1e-7)
    assert matern(r2, 2.5).item() == pytest.approx(0.52399411, rel=1e-7)


@SMOOTHNESS
@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float64, 1e-12, 1e-13), (torch.float32, 2e-5, 2e-6)]
)
def test_the_kernel_equals_gpytorch(device, nu, dtype, rtol, atol):
    A, B = points(40, 7, 0, dtype).to(device), points(25, 7, 1, dtype).to(device)
    lengthscale = torch.linspace(0.2, 3.0, 7, dtype=dtype, device=device)
    oracle = gpytorch.kernels.MaternKernel(nu=nu, ard_num_dims=7).to(A)
    oracle.lengthscale = lengthscale
    with torch.no_grad():
        expected = oracle(A, B).to_dense()
    r2 = squared_distances(A / lengthscale, B / lengthscale)
    assert torch.allclose(matern(r2, nu), expected, rtol=rtol, atol=atol)
    assert matern(r2, nu).dtype == dtype


@SMOOTHNESS
@given(
    x=st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    log_l=st.lists(st.floats(-1, 1), min_size=3, max_size=3),
)
def test_the_slope_equals_finite_differences_in_the_log_lengthscales(nu, x, log_l):
    x = torch.tensor(x, dtype=torch.float64)
    log_l = torch.tensor(log_l, dtype=torch.float64)

    def distances(log_l):
        return (x * torch.exp(-log_l)).square()

    def kernel(log_l):
        return matern(distances(log_l).sum(), nu)

    D, h = distances(log_l), 1e-5
    r2 = D.sum()
    assume(r2.item() > 1e-3)
    step = h * torch.eye(3, dtype=torch.float64)
    first = torch.stack([(kernel(log_l + e) - kernel(log_l - e)) / (2 * h) for e in step])
    assert torch.allclose(matern_and_slope(r2, nu)[1] * D, first, rtol=1e-6, atol=1e-9)


@SMOOTHNESS
@given(r2=st.floats(0, 1e6))
def test_the_value_is_the_same_with_and_without_the_slope(nu, r2):
    r2 = torch.tensor([r2], dtype=torch.float64)
    k, G = matern_and_slope(r2, nu)
    assert torch.allclose(k, matern(r2, nu), rtol=1e-14)
    assert 0.0 <= k.item() <= 1.0
    assert G.item() >= 0.0


@SMOOTHNESS
def test_a_large_matrix_is_worked_on_in_blocks_with_the_same_numbers(nu):
    r2 = points(400, 300, 0).mT  # not contiguous, and not a whole number of blocks
    several = [(matern(r2, nu),), matern_and_slope(r2, nu)]
    for rows in (slice(0, 1), slice(137, 160), slice(299, 300)):
        few = [(matern(r2[rows], nu),), matern_and_slope(r2[rows], nu)]
        for whole, part in zip(several, few, strict=True):
            assert all(torch.equal(a[rows], b) for a, b in zip(whole, part, strict=True))


@SMOOTHNESS
def test_the_arguments_are_not_written_into(nu):
    r2 = points(5, 5, 0)
    before = r2.clone()
    matern(r2, nu), matern_and_slope(r2, nu)
    assert torch.equal(r2, before)


@SMOOTHNESS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_distance_zero_the_kernel_is_one_and_its_derivatives_are_finite(device, nu, dtype):
    r2 = torch.zeros(2, 2, dtype=dtype, device=device)
    k, G = matern_and_slope(r2, nu)
    at_zero = {0.5: 0.0, 1.5: 3.0, 2.5: 5.0 / 3.0}[nu]
    assert torch.equal(matern(r2, nu), torch.ones_like(r2))
    assert torch.equal(k, torch.ones_like(r2))
    assert torch.allclose(G, torch.full_like(r2, at_zero))


@SMOOTHNESS
@pytest.mark.parametrize("r2", [1e-300, 1e-200, 1e-30, 1e-8])
def test_the_slope_times_the_distance_tends_to_zero_with_it(nu, r2):
    r2 = torch.tensor(r2, dtype=torch.float64)
    _, G = matern_and_slope(r2, nu)
    bound = 10.0 * math.sqrt(r2.item())
    assert 0.0 <= (G * r2).item() <= bound


@given(st.integers(0, 1000), st.integers(1, 6))
def test_squared_distances_are_those_of_the_definition(seed, d):
    A, B = points(9, d, seed), points(4, d, seed + 1)
    expected = (A.unsqueeze(1) - B.unsqueeze(0)).square().sum(-1)
    found = squared_distances(A, B)
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-14)
    assert (squared_distances(A, A) >= 0).all()


def test_squared_distances_of_batches():
    A, B = points(6, 4, 0).reshape(2, 3, 4), points(10, 4, 1).reshape(2, 5, 4)
    found = squared_distances(A, B)
    assert found.shape == (2, 3, 5)
    for i in range(2):
        assert torch.allclose(found[i], squared_distances(A[i], B[i]))
