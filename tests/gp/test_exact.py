"""The posterior in one buffer against gpytorch's, and against the process that keeps inv(L)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gpbo
from gpbo.cube import Cube
from gpbo.errors import NumericsError, SettingError
from gpbo.gp import Hypers, exact_posterior, make_gp


def data(n, d, seed=0, device="cpu"):
    draws = torch.Generator().manual_seed(seed)
    X = torch.rand(n, d, generator=draws, dtype=torch.float64)
    y = torch.sin(5.0 * X).sum(-1) + 0.1 * torch.randn(n, generator=draws, dtype=torch.float64)
    lengthscale = 0.3 + torch.rand(d, generator=draws, dtype=torch.float64)
    noise_var, outputscale = torch.tensor([0.02, 1.7], dtype=torch.float64)
    hypers = Hypers(lengthscale.to(device), noise_var.to(device), outputscale.to(device))
    return Cube.continuous(d), X.to(device), y.to(device), hypers


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 5), st.sampled_from([0.5, 1.5, 2.5]), st.integers(1, 70))
def test_mean_and_variance_are_those_of_the_process(n, d, nu, size):
    cube, X, y, hypers = data(n, d, seed=n)
    points = torch.cat([cube.sobol(5, 1), X[:1]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpbo.numerics._BLOCK_ON_CPU", size)
        mean, var = exact_posterior(cube, X, y, hypers, nu=nu).marginal(points)
    expected_mean, expected_var = make_gp(cube, X, y, hypers, nu=nu).marginal(points)
    assert torch.allclose(mean, expected_mean, rtol=1e-9, atol=1e-9)
    assert torch.allclose(var, expected_var, rtol=1e-8, atol=0.0)


def test_posterior_and_likelihood_equal_gpytorch(device):
    gpytorch = pytest.importorskip("gpytorch")
    cube, X, y, hypers = data(700, 4, device=device)  # two blocks and a part
    kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.MaternKernel(nu=2.5, ard_num_dims=4)).to(X)
    kernel.base_kernel.lengthscale, kernel.outputscale = hypers.lengthscale, hypers.outputscale
    points = cube.sobol(9, 1).to(device)
    with torch.no_grad():
        K = kernel(torch.cat([X, points])).to_dense() + 1.0  # the constant mean's variance
    C, k = K[:700, :700] + hypers.noise_var * torch.eye(700).to(X), K[:700, 700:]
    prior = torch.distributions.MultivariateNormal(torch.zeros_like(y), C)

    posterior = exact_posterior(cube, X, y, hypers)
    mean, var = posterior.marginal(points)
    assert torch.allclose(mean, k.mT @ torch.linalg.solve(C, y), rtol=1e-8, atol=1e-8)
    explained = (k * torch.linalg.solve(C, k)).sum(0)
    assert torch.allclose(var, hypers.outputscale + 1.0 - explained, rtol=1e-7)
    assert posterior.log_likelihood.item() == pytest.approx(prior.log_prob(y).item(), rel=1e-10)


def test_categories_and_conditions_are_embedded_as_in_the_process():
    space = gpbo.SearchSpace(
        kind=gpbo.Categorical(["p", "q", "r"]),
        x=gpbo.Float(0.0, 1.0),
        rate=gpbo.Float(0.0, 1.0, when={"kind": "q"}),
    )
    cube = space.cube
    X = cube.snap(cube.sobol(40, 0))
    y = torch.sin(4.0 * X).sum(-1)
    _, _, _, hypers = data(1, cube.d)
    points = cube.snap(cube.sobol(6, 2))
    found = exact_posterior(cube, X, y, hypers).marginal(points)
    for value, expected in zip(found, make_gp(cube, X, y, hypers).marginal(points), strict=True):
        assert torch.allclose(value, expected, rtol=1e-9, atol=1e-9)


def test_what_is_not_positive_definite_is_refused_without_jitter():
    cube, X, y, hypers = data(6, 2)
    negative = Hypers(hypers.lengthscale, -10.0 * hypers.outputscale, hypers.outputscale)
    with pytest.raises(NumericsError, match="6 x 6 covariance is not positive definite"):
        exact_posterior(cube, X, y, negative)


def test_shapes_and_smoothness_are_checked():
    cube, X, y, hypers = data(6, 2)
    with pytest.raises(SettingError, match="`nu` must be one of"):
        exact_posterior(cube, X, y, hypers, nu=2.0)
    with pytest.raises(SettingError, match="`X` must have shape"):
        exact_posterior(cube, X, y[:5], hypers)
