import math

import gpytorch
import mpmath
import pytest
import torch
from botorch.acquisition.analytic import (
    ExpectedImprovement,
    LogExpectedImprovement,
    LogProbabilityOfImprovement,
    UpperConfidenceBound,
)
from botorch.models import SingleTaskGP
from hypothesis import given
from hypothesis import strategies as st

from gpbo.acquisition import ei, log_ei, log_pi, ucb
from gpbo.cube import Cube
from gpbo.errors import SettingError
from gpbo.gp import Hypers, make_gp
from gpbo.gp.hypers import MEAN_VAR

D = 4


def draws(*shape, seed):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def gp(device):
    X = draws(25, D, seed=0).to(device)
    y = torch.sin(5 * X).sum(-1)
    plain = {"lengthscale": [0.4, 0.6, 0.8, 1.0], "noise_var": 1e-3, "outputscale": 1.5}
    hypers = Hypers.from_dict(plain, torch.device(device))
    return make_gp(Cube.continuous(D), X, (y - y.mean()) / y.std(), hypers)


@pytest.fixture
def model(gp):
    """BoTorch's model of the same posterior."""
    matern = gpytorch.kernels.MaternKernel(nu=2.5, ard_num_dims=D)
    X = (gp.Z + gp.centre) * gp.hypers.lengthscale
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


def exactly(best_f):
    """A plain number would be rounded to single precision by BoTorch."""
    return torch.tensor(best_f, dtype=torch.float64)


PAIRS = {
    "log_ei": (lambda gp: log_ei(gp, 0.7), lambda m: LogExpectedImprovement(m, exactly(0.7))),
    "log_ei, hopeless": (lambda gp: log_ei(gp, 40.0), lambda m: LogExpectedImprovement(m, exactly(40.0))),
    "ei": (lambda gp: ei(gp, 0.7), lambda m: ExpectedImprovement(m, exactly(0.7))),
    "log_pi": (lambda gp: log_pi(gp, 0.7), lambda m: LogProbabilityOfImprovement(m, exactly(0.7))),
    "log_pi, hopeless": (
        lambda gp: log_pi(gp, 15.0),
        lambda m: LogProbabilityOfImprovement(m, exactly(15.0)),
    ),
    "ucb": (lambda gp: ucb(gp, 2.0), lambda m: UpperConfidenceBound(m, beta=exactly(2.0))),
}
EVERY_PAIR = pytest.mark.parametrize("name", PAIRS)


@pytest.mark.filterwarnings("ignore:ExpectedImprovement has known numerical issues")  # BoTorch's own
@EVERY_PAIR
def test_values_and_gradients_equal_botorch(gp, model, name):
    ours, theirs = PAIRS[name][0](gp), PAIRS[name][1](model).to(gp.y)
    X = draws(30, D, seed=1).to(gp.y)
    value, gradient = ours.value_and_gradient(X)
    at = X.clone().unsqueeze(1).requires_grad_(True)
    expected = theirs(at)
    (by_autograd,) = torch.autograd.grad(expected.sum(), at)
    assert torch.allclose(value, expected, rtol=1e-7, atol=1e-9)
    assert torch.allclose(gradient, by_autograd.squeeze(1), rtol=1e-6, atol=1e-7)


@EVERY_PAIR
def test_every_way_to_call_gives_the_same(gp, name):
    acquisition = PAIRS[name][0](gp)
    X = draws(6, 1, D, seed=2).to(gp.y)
    value, gradient = acquisition.value_and_gradient(X.squeeze(1))
    at = X.clone().requires_grad_(True)
    called = acquisition(at)
    (by_autograd,) = torch.autograd.grad(called.sum(), at)
    assert torch.allclose(called, value, rtol=1e-12)
    assert torch.allclose(by_autograd.squeeze(1), gradient, rtol=1e-12)
    assert torch.allclose(acquisition.values(X.squeeze(1)), value, rtol=1e-9)
    assert acquisition(X.reshape(2, 3, 1, D)).shape == (2, 3)


@EVERY_PAIR
def test_gradients_equal_finite_differences(gp, name):
    acquisition = PAIRS[name][0](gp)
    X = draws(5, D, seed=3).to(gp.y)
    gradient = acquisition.value_and_gradient(X)[1]
    for j in range(D):
        e = torch.zeros(D).to(gp.y)
        e[j] = 1e-6
        slope = (acquisition.values(X + e) - acquisition.values(X - e)) / 2e-6
        assert torch.allclose(gradient[:, j], slope, rtol=1e-4, atol=1e-5)


@given(best_f=st.floats(-1e4, 1e4), seed=st.integers(0, 50))
def test_log_ei_and_its_gradient_are_finite_however_hopeless(best_f, seed):
    X = draws(12, D, seed=seed)
    plain = {"lengthscale": [0.5] * D, "noise_var": 1e-4, "outputscale": 1.0}
    gp = make_gp(Cube.continuous(D), X, draws(12, seed=seed + 1), Hypers.from_dict(plain, X.device))
    at = torch.cat([draws(5, D, seed=seed + 2), X[:3]])  # some at the data, where the variance is least
    for acquisition in (log_ei(gp, best_f), log_pi(gp, best_f)):
        value, gradient = acquisition.value_and_gradient(at)
        assert torch.isfinite(value).all()
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(("mean", "sigma", "best_f"), [(0.0, 1.0, 0.0), (1.0, 0.3, 2.5), (-2.0, 5.0, 1.0)])
def test_the_rules_equal_the_textbook_in_many_digits(gp, mean, sigma, best_f):
    m, s = (gp.y.new_tensor([v]) for v in (mean, sigma))
    with mpmath.workdps(40):
        z = (mpmath.mpf(mean) - best_f) / mpmath.mpf(sigma)
        improvement = sigma * (mpmath.npdf(z) + z * mpmath.ncdf(z))
        expected = {
            log_ei: float(mpmath.log(improvement)),
            ei: float(improvement),
            log_pi: float(mpmath.log(mpmath.ncdf(z))),
        }
    for make, value in expected.items():
        assert make(gp, best_f).rule(m, s)[0].item() == pytest.approx(value, rel=1e-12)
    assert ucb(gp, 4.0).rule(m, s)[0].item() == pytest.approx(mean + 2.0 * sigma)


def test_expected_improvement_of_a_coin_flip(gp):
    # mean = best_f, sigma = 1: EI = phi(0) = 0.39894, PI = 1/2
    one = torch.ones(1).to(gp.y)
    assert ei(gp, 1.0).rule(one, one)[0].item() == pytest.approx(1 / math.sqrt(2 * math.pi))
    assert log_pi(gp, 1.0).rule(one, one)[0].item() == pytest.approx(math.log(0.5))


def test_more_than_one_point_a_candidate_is_refused(gp):
    with pytest.raises(SettingError, match=r"`X` must have shape \(..., 1, 4\), got \(3, 2, 4\)"):
        log_ei(gp, 0.0)(torch.zeros(3, 2, D).to(gp.y))
    with pytest.raises(SettingError, match=r"`X` must have shape \(..., 1, 4\), got \(4,\)"):
        log_ei(gp, 0.0)(torch.zeros(D).to(gp.y))


@pytest.mark.parametrize("beta", [-1.0, -1e-9])
def test_a_negative_beta_is_refused(gp, beta):
    with pytest.raises(SettingError, match="`beta` must be >= 0, got -"):
        ucb(gp, beta)
