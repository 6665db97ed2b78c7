import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from gpbo.gp import STRENGTHS, unwarp_values, warp_values

EVERY_STRENGTH = pytest.mark.parametrize("strength", STRENGTHS)
VALUES = st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=30)
ORDINARY = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


@EVERY_STRENGTH
@given(VALUES)
def test_the_warp_is_monotone_and_keeps_ties(strength, values):
    y = tensor(values)
    z = warp_values(y, strength).z
    order = y.argsort()
    assert (z[order].diff() >= 0).all()
    for i in range(len(y)):
        assert (z[y == y[i]] == z[i]).all()


@EVERY_STRENGTH
@given(VALUES, st.integers(0, 5))
def test_the_result_is_finite_with_mean_zero_and_standard_deviation_one(strength, values, n_failed):
    z = warp_values(tensor(values + [math.nan] * n_failed), strength).z
    assert z.shape == (len(values) + n_failed,)
    assert torch.isfinite(z).all()
    if z.std(correction=0) > 0:
        assert z.mean().item() == pytest.approx(0.0, abs=1e-9)
        assert z.std(correction=0).item() == pytest.approx(1.0, rel=1e-9)
    else:
        assert (z == 0).all()


AWKWARD = {
    "huge": [1e300, -1e300, 3e299, 0.0],
    "tiny": [1e-300, 2e-300, 5e-300, 0.0],
    "huge and tiny": [1e300, 1e-300, 2e-300, 1.0],
    "one": [7.0],
    "two": [1.0, 2.0],
    "two equal": [3.0, 3.0],
    "constant": [0.1] * 20,
    "constant zero": [0.0] * 20,
    "one failed": [7.0, math.nan],
    "denormal": [5e-324, 1e-323, 0.0],
    "last digit": [1.0, 1.0 + 2**-52, 1.0 - 2**-53],
}


@EVERY_STRENGTH
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_values_stay_finite(strength, name):
    warped = warp_values(tensor(AWKWARD[name]), strength)
    assert torch.isfinite(warped.z).all()
    assert math.isfinite(warped.log_jacobian)


@EVERY_STRENGTH
@pytest.mark.parametrize("values", [[1.0], [0.1] * 20, [0.0] * 3])
def test_equal_values_become_zero(strength, values):
    assert warp_values(tensor(values), strength).z.tolist() == [0.0] * len(values)


@EVERY_STRENGTH
@given(VALUES, st.integers(1, 4), st.randoms(use_true_random=False))
def test_failed_trials_stand_below_the_worst_value(strength, values, n_failed, random):
    values = [*values, *[math.nan] * n_failed]
    random.shuffle(values)
    y = tensor(values)
    z = warp_values(y, strength).z
    worst = z[y.isfinite()].min()
    failed = z[y.isnan()]
    assert (failed == failed[0]).all()
    if z[y.isfinite()].max() > worst:
        assert (failed < worst).all()
    else:
        assert (failed <= worst).all()


@EVERY_STRENGTH
@given(ORDINARY, st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_units_do_not_matter(strength, values, scale, shift):
    y = tensor(values)
    assume((y.unique().diff() > 1e-2).all())  # below, adding the shift rounds differences away
    one, other = warp_values(y, strength), warp_values(scale * y + shift, strength)
    assert torch.allclose(one.z, other.z, atol=1e-5)
    assert one.log_jacobian == pytest.approx(other.log_jacobian, rel=1e-4, abs=1e-3)


def test_without_compression_the_warp_is_the_standard_score():
    y = torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(warp_values(y, 0.0).z, (y - y.mean()) / y.std(correction=0), rtol=1e-10)


def test_an_outlier_does_not_set_the_scale():
    y = torch.cat([torch.linspace(0, 1, 20, dtype=torch.float64), tensor([-1e9])])
    assert warp_values(y, 0.0).z[:20].std() < 1e-6
    assert warp_values(y, STRENGTHS[-1]).z[:20].std() > 0.2


@EVERY_STRENGTH
def test_the_jacobian_is_that_of_the_warp(strength):
    # dz/dg by finite differences in one value, with the median gap (the unit) and the final mean and
    # standard deviation held fixed: the definition in the docstring.
    y = tensor([3.0, 2.5, 2.0, 1.0, 0.2, -4.0])
    gap = 3.0 - y
    gap = gap / gap[gap > 0].median()
    t = -torch.log1p(strength * gap) if strength else -gap
    scale = t.std(correction=0)
    h = 1e-6
    up = -torch.log1p(strength * (gap + h)) if strength else -(gap + h)
    slope = (t - up) / (h * scale)
    assert warp_values(y, strength).log_jacobian == pytest.approx(slope.log().sum().item(), abs=1e-3)


def test_values_on_every_device(device):
    y = torch.randn(12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y[3] = math.nan
    found = warp_values(y.to(device), STRENGTHS[1])
    assert found.z.device.type == device
    assert torch.allclose(found.z.cpu(), warp_values(y, STRENGTHS[1]).z)


@EVERY_STRENGTH
@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_unwarping_gives_the_values_back(strength, scale):
    y = torch.tensor([-3.0, math.nan, 0.5, 1.0, -200.0, 0.99], dtype=torch.float64) * scale
    z = warp_values(y, strength).z
    known = y.isfinite()
    torch.testing.assert_close(
        unwarp_values(z[known], y, strength) / scale, y[known] / scale, rtol=1e-9, atol=1e-9
    )


@EVERY_STRENGTH
def test_unwarping_rises_beyond_what_was_observed(strength):
    y = torch.tensor([-3.0, 0.5, 1.0, -20.0], dtype=torch.float64)
    values = unwarp_values(torch.linspace(-3.0, 3.0, 50, dtype=torch.float64), y, strength)
    assert bool((values.diff() > 0.0).all())
