import math

import gpytorch
import pytest
import torch
from botorch.acquisition.logei import qLogExpectedImprovement
from botorch.acquisition.monte_carlo import qUpperConfidenceBound
from botorch.models import SingleTaskGP
from botorch.sampling.normal import IIDNormalSampler
from hypothesis import given, settings
from hypothesis import strategies as st

from gpbo.acquisition import base_samples, ei, log_ei, q_log_ei, q_ucb
from gpbo.cube import Cube
from gpbo.errors import SettingError
from gpbo.gp import Hypers, make_gp
from gpbo.gp.hypers import MEAN_VAR

D, Q, BEST = 3, 3, 0.6


def draws(*shape, seed):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def process(device="cpu"):
    X = draws(20, D, seed=0).to(device)
    y = torch.sin(5 * X).sum(-1)
    plain = {"lengthscale": [0.4, 0.6, 0.8], "noise_var": 1e-3, "outputscale": 1.5}
    hypers = Hypers.from_dict(plain, torch.device(device))
    return make_gp(Cube.continuous(D), X, (y - y.mean()) / y.std(), hypers), X


@pytest.fixture
def gp(device):
    return process(device)[0]


def botorch_model(gp, X):
    matern = gpytorch.kernels.MaternKernel(nu=2.5, ard_num_dims=D)
    covariance = gpytorch.kernels.ScaleKernel(matern)
    constant = gpytorch.kernels.ConstantKernel()
    model = SingleTaskGP(
        X, gp.y.unsqueeze(-1), covar_module=covariance + constant, outcome_transform=None
    ).to(X)
    constant.constant = torch.tensor(MEAN_VAR, dtype=torch.float64)
    matern.lengthscale = gp.hypers.lengthscale
    covariance.outputscale = gp.hypers.outputscale
    model.likelihood.noise = gp.hypers.noise_var
    model.mean_module.constant.data.fill_(0.0)
    return model.eval()


def samples(n=256, q=Q, device="cpu"):
    return base_samples(q, n, 0, torch.device(device))


def botorch_sampler(xi):
    sampler = IIDNormalSampler(sample_shape=torch.Size([len(xi)]))
    sampler.base_samples = xi.unsqueeze(1)
    return sampler


@pytest.mark.parametrize("kind", ["log_ei", "log_ei, hopeless", "ucb"])
def test_values_and_gradients_equal_botorch_with_the_same_base_samples(device, kind):
    gp, X = process(device)
    model, xi = botorch_model(gp, X), samples(device=device)
    if kind == "ucb":
        xi = xi - xi.mean(0)  # BoTorch measures deviations from the samples' mean, not the posterior's
        ours = q_ucb(gp, 2.0, xi)
        theirs = qUpperConfidenceBound(model, beta=2.0, sampler=botorch_sampler(xi))
    else:
        best_f = 5.0 if "hopeless" in kind else BEST
        ours = q_log_ei(gp, best_f, xi)
        theirs = qLogExpectedImprovement(
            model,
            best_f=gp.y.new_tensor(best_f),  # a plain number would be rounded to single precision
            sampler=botorch_sampler(xi),
            fat=False,
            tau_relu=1e-6,
            tau_max=1e-2,
        )
    T = draws(8, Q, D, seed=1).to(device)
    one, other = T.clone().requires_grad_(True), T.clone().requires_grad_(True)
    value, expected = ours(one), theirs(other)
    # Ours adds 1e-8 of the outputscale to the q x q covariance, which the softened plus multiplies.
    assert torch.allclose(value, expected, rtol=1e-5, atol=1e-5)
    gradients = torch.autograd.grad(value.sum(), one)[0], torch.autograd.grad(expected.sum(), other)[0]
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-3)


def test_one_point_at_a_time_approaches_the_analytic_value(gp):
    T = draws(10, 1, D, seed=2).to(gp.y)
    xi = samples(4096, q=1, device=gp.y.device)
    exact = log_ei(gp, BEST)(T)
    likely = exact > math.log(1e-3)
    assert likely.any()
    assert torch.allclose(q_log_ei(gp, BEST, xi)(T)[likely], exact[likely], atol=0.05)
    mean, var = gp.marginal(T.squeeze(1))
    # E |xi| = sqrt(2 / pi), hence sqrt(beta pi / 2) in qUCB
    assert torch.allclose(q_ucb(gp, 4.0, xi)(T), mean + 2.0 * var.sqrt(), atol=1e-3)


def test_a_batch_is_worth_more_than_its_best_point_and_less_than_the_sum(gp):
    T = draws(10, Q, D, seed=3).to(gp.y)
    together = q_log_ei(gp, BEST, samples(4096, device=gp.y.device))(T).exp()
    alone = ei(gp, BEST)(T.reshape(-1, 1, D)).reshape(10, Q)
    slack = 1.05
    assert (together * slack >= alone.amax(-1)).all()
    assert (together <= alone.sum(-1) * slack).all()


def test_a_point_twice_is_worth_as_much_as_once(gp):
    x = draws(5, 1, D, seed=4).to(gp.y)
    twice = q_log_ei(gp, BEST, samples(2048, q=2, device=gp.y.device))(x.expand(5, 2, D))
    once = q_log_ei(gp, BEST, samples(2048, q=1, device=gp.y.device))(x)
    assert torch.allclose(twice.exp(), once.exp(), rtol=0.02, atol=1e-4)


@settings(max_examples=20)
@given(st.permutations(range(Q)), st.integers(0, 100))
def test_the_order_of_the_points_does_not_matter_but_for_the_samples(order, seed):
    gp, _ = process()
    T = draws(4, Q, D, seed=seed)
    xi = samples(4096)
    for acquisition in (q_log_ei(gp, BEST, xi), q_ucb(gp, 2.0, xi)):
        one, other = acquisition(T), acquisition(T[:, list(order)])
        likely = one > -5.0
        assert torch.allclose(one[likely], other[likely], atol=0.1)


def test_rows_laid_out_flat_have_the_same_values_and_right_gradients(gp):
    acquisition = q_log_ei(gp, BEST, samples(128, device=gp.y.device))
    T = draws(4, Q, D, seed=5).to(gp.y)
    flat = T.flatten(1)
    value, gradient = acquisition.value_and_gradient(flat)
    assert torch.allclose(value, acquisition(T), rtol=1e-12)
    assert not value.requires_grad
    for j in range(Q * D):
        e = torch.zeros(Q * D).to(gp.y)
        e[j] = 1e-6
        slope = acquisition((flat + e).reshape(T.shape)) - acquisition((flat - e).reshape(T.shape))
        assert torch.allclose(gradient[:, j], slope / 2e-6, rtol=1e-3, atol=1e-4)


def test_hopeless_and_coinciding_batches_have_finite_values_and_gradients():
    gp, X = process()
    T = torch.stack([X[:Q], X[:1].expand(Q, D), draws(Q, D, seed=6)])
    for best_f in (0.0, 50.0, 1e4):
        value, gradient = q_log_ei(gp, best_f, samples()).value_and_gradient(T.flatten(1))
        assert torch.isfinite(value).all()
        assert torch.isfinite(gradient).all()


def test_base_samples_are_standard_normal_and_addressed_by_the_seed(device):
    xi = base_samples(4, 1024, 7, torch.device(device))
    assert xi.shape == (1024, 4)
    assert xi.device.type == device
    assert torch.isfinite(xi).all()
    assert torch.allclose(xi.mean(0).cpu(), torch.zeros(4, dtype=torch.float64), atol=0.01)
    assert torch.allclose(xi.mT.cov().cpu(), torch.eye(4, dtype=torch.float64), atol=0.05)
    assert torch.equal(xi, base_samples(4, 1024, 7, torch.device(device)))
    assert not torch.equal(xi, base_samples(4, 1024, 8, torch.device(device)))


def test_a_negative_beta_is_refused(gp):
    with pytest.raises(SettingError, match="`beta` must be >= 0, got -1"):
        q_ucb(gp, -1.0, samples(8))
