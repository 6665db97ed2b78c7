import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpbo.checks import as_finite, as_whole, finite, whole
from gpbo.errors import SettingError


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_a_whole_number_becomes_an_int(value):
    assert type(as_whole(value)) is int
    assert as_whole(value) == whole("n", value) == 3


@pytest.mark.parametrize("value", [3.0, True, np.bool_(True), "3", None, math.nan, Fraction(3)])
def test_what_is_no_whole_number(value):
    assert as_whole(value) is None
    with pytest.raises(SettingError, match=r"`n` must be a whole number, got"):
        whole("n", value)


def test_a_whole_number_may_have_a_least_value():
    assert whole("n", 10**400, low=1) == 10**400
    with pytest.raises(SettingError, match=r"`n` must be a whole number >= 1, got 0\."):
        whole("n", 0, low=1)


@pytest.mark.parametrize("value", [3, 3.0, np.float32(3), np.int8(3), Fraction(3)])
def test_a_finite_number_becomes_a_float(value):
    assert type(as_finite(value)) is float
    assert as_finite(value) == finite("x", value) == 3.0


@pytest.mark.parametrize("value", [math.nan, -math.inf, 10**400, Fraction(10**400), True, "3", None, 1j])
def test_what_is_no_finite_number(value):
    assert as_finite(value) is None
    with pytest.raises(SettingError, match=r"`x` must be a finite number, got"):
        finite("x", value)


@pytest.mark.parametrize(
    ("bounds", "good", "bad", "message"),
    [
        ({"low": 0}, 0, -1e-9, r"`x` must be a finite number >= 0, got -1e-09\."),
        ({"above": 0}, 1e-9, 0, r"`x` must be a finite number > 0, got 0\."),
        ({"low": 0, "high": 1}, 1, 1.5, r"`x` must be a finite number >= 0 and <= 1, got 1\.5\."),
        ({"above": 0, "below": 1}, 0.5, 1, r"`x` must be a finite number > 0 and < 1, got 1\."),
        ({"above": 0, "unit": "seconds"}, 1, "1h", r"`x` must be a finite number of seconds > 0, got '1h'\."),
    ],
)
def test_bounds(bounds, good, bad, message):
    assert finite("x", good, **bounds) == good
    with pytest.raises(SettingError, match=message):
        finite("x", bad, **bounds)


@given(st.integers() | st.floats() | st.fractions() | st.booleans() | st.text() | st.none())
def test_every_value_has_an_answer(value):
    real, n = as_finite(value), as_whole(value)
    assert real is None or math.isfinite(real)
    assert n is None or n == value
