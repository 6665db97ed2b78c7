import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import LogNormal

from gpbo.gp import Hypers
from gpbo.gp.hypers import NOISE_FLOOR, from_theta, prior

CPU = torch.device("cpu")
POSITIVE = st.floats(1e-300, 1e300)


@pytest.mark.parametrize("d", [1, 2, 20, 500])
def test_the_priors_are_the_published_ones(d):
    # lengthscale LogNormal(sqrt 2 + log(d) / 2, sqrt 3), noise LogNormal(-4, 1), outputscale
    # LogNormal(0, 1/2); each enters as N(m - s^2, s) on the logarithm, the mode of the density of the value.
    named = [LogNormal(math.sqrt(2) + 0.5 * math.log(d), math.sqrt(3.0))] * d
    named += [LogNormal(-4.0, 1.0), LogNormal(0.0, 0.5)]
    centre, spread = prior(d, CPU)
    assert torch.allclose(centre.exp(), torch.stack([p.mode for p in named]).double(), rtol=1e-6)
    assert torch.allclose(spread, torch.tensor([p.scale for p in named]).double(), rtol=1e-6)


@given(st.floats(-5, 5), st.floats(-5, 5))
def test_a_log_normal_of_the_value_and_the_shifted_normal_of_its_logarithm_differ_by_a_constant(a, b):
    centre, spread = prior(1, CPU)
    at = torch.tensor([a, b], dtype=torch.float64)
    named = LogNormal(torch.tensor(math.sqrt(2.0)).double(), math.sqrt(3.0)).log_prob(at.exp())
    used = -0.5 * ((at - centre[0]) / spread[0]).square()
    assert (named[1] - named[0]).item() == pytest.approx((used[1] - used[0]).item(), rel=1e-6, abs=1e-6)


def test_theta_and_back(device):
    theta = torch.tensor([0.1, -2.0, -9.0, 0.3], dtype=torch.float64, device=device)
    hypers = from_theta(theta)
    assert hypers.lengthscale.tolist() == pytest.approx([math.exp(0.1), math.exp(-2.0)])
    assert hypers.noise_var.item() == pytest.approx(math.exp(-9.0) + NOISE_FLOOR)
    assert hypers.outputscale.item() == pytest.approx(math.exp(0.3))
    assert torch.allclose(hypers.theta, theta, rtol=1e-10)


def test_noise_at_its_floor_still_has_a_finite_theta():
    hypers = from_theta(torch.tensor([0.0, -math.inf, 0.0], dtype=torch.float64))
    assert hypers.noise_var.item() == NOISE_FLOOR
    assert torch.isfinite(hypers.theta).all()


@given(st.lists(POSITIVE, max_size=4), POSITIVE, POSITIVE)
def test_json_gives_back_the_same_bits(lengthscale, noise_var, outputscale):
    plain = {"lengthscale": lengthscale, "noise_var": noise_var, "outputscale": outputscale}
    hypers = Hypers.from_dict(json.loads(json.dumps(plain)), CPU)
    assert json.loads(json.dumps(hypers.to_dict())) == plain
    again = Hypers.from_dict(json.loads(json.dumps(hypers.to_dict())), CPU)
    for name in plain:
        assert torch.equal(getattr(again, name), getattr(hypers, name))
        assert getattr(again, name).dtype == torch.float64


def test_halfway_to_the_prior_is_the_mean_of_the_logarithms_and_leaves_the_rest():
    lengthscale = torch.tensor([0.03, 0.7, 40.0], dtype=torch.float64)
    hypers = Hypers(lengthscale, torch.tensor(1e-3), torch.tensor(2.0))
    mode = LogNormal(math.sqrt(2) + 0.5 * math.log(3), math.sqrt(3.0)).mode.double()
    halfway = hypers.halfway_to_prior()
    assert torch.allclose(halfway.lengthscale.log(), 0.5 * (lengthscale.log() + mode.log()), rtol=1e-6)
    assert (halfway.noise_var, halfway.outputscale) == (hypers.noise_var, hypers.outputscale)
