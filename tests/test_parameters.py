import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from gpbo.errors import ConfigError, SpaceError
from gpbo.parameters import Categorical, Float, Int, as_parameter, parameter_from_dict, parameter_to_dict

UNIT = st.floats(0, 1)


@st.composite
def bounds(draw, smallest):
    low, high = sorted([draw(st.floats(smallest, 1e300)), draw(st.floats(smallest, 1e300))])
    return (low, high) if low < high else (low, math.nextafter(low, math.inf))


def there_and_back(parameter, values):
    return parameter.from_unit(parameter.to_unit(values))


# The examples are the corners: subnormal, huge, narrow, one ulp wide, astride zero.
@given(bounds(-1e300), UNIT)
@example((0.0, 5e-324), 0.5)
@example((0.0, 1e-310), 0.3)
@example((-8e307, 8e307), 0.7)
@example((1.0, math.nextafter(1.0, 2.0)), 0.4)
@example((1e6 - 1, 1e6), 1 / 3)
@example((-1.0, 1e-9), 0.9999999999)
@example((-1e-204, 1e119), 1e-38)
@example((-1.0, 1e-17), 1 - 2**-53)
def test_floats_survive_the_way_there_and_back(low_high, u):
    parameter = Float(*low_high)
    [value] = parameter.from_unit([u])
    assert parameter.low <= value <= parameter.high
    assert there_and_back(parameter, [value]) == [value]
    assert parameter.normalise(value) == value


# Points are told apart by 1e-9, so rounding to short decimals must move them less.
@given(st.floats(-1e6, 1e6), st.floats(-6, 9), UNIT)
@example(1e6 - 1, 0.0, 1 / 3)
@example(1e4 - 1, 0.0, 1 / 3)
def test_rounding_moves_a_point_by_less_than_points_differ(low, magnitude, u):
    high = low + max(10.0**magnitude, 1e-6 * abs(low))
    for parameter in [Float(low, high), Float(1.0, 1.0 + 10.0**magnitude, log=True)]:
        assert abs(parameter.to_unit(parameter.from_unit([u]))[0] - u) < 1e-9


@given(bounds(5e-324), UNIT)
@example((5e-324, 1e-30), 0.1)
@example((1.0, 1e300), 1 - 2**-53)
@example((1.0, 1 + 1e-12), 0.3)
@example((1e-5, 1e-1), 0.5)
def test_log_floats_survive_the_way_there_and_back(low_high, u):
    low, high = low_high
    if high / low > 1e300:
        with pytest.raises(SpaceError, match=r"`high / low` must be at most 1e\+300"):
            Float(low, high, log=True)
        return
    parameter = Float(low, high, log=True)
    [value] = parameter.from_unit([u])
    assert low <= value <= high
    assert there_and_back(parameter, [value]) == [value]


@given(st.sampled_from([Float(0.1, 0.7), Float(1e-5, 0.3, log=True), Float(-3, 1e7), Float(1, 1.00001)]))
def test_the_ends_are_exact(parameter):
    assert parameter.from_unit([0.0, 1.0]) == [parameter.low, parameter.high]
    assert parameter.to_unit([parameter.low, parameter.high]) == [0.0, 1.0]


def test_log_floats_are_uniform_in_the_logarithm():
    assert Float(1e-4, 1.0, log=True).from_unit([0.25, 0.5, 0.75]) == [1e-3, 1e-2, 1e-1]


def test_floats_are_short_where_they_can_be():
    assert Float(0, 1).from_unit([0.1, 0.30000000000000004]) == [0.1, 0.3]
    assert str(Float(-1, 1).from_unit([0.5])[0]) == "0.0"
    assert str(Float(-1, 1).from_unit([0.5 - 1e-17])[0]) == "0.0"


@given(st.integers(-(2**40), 2**40), st.integers(1, 10**4), st.integers(1, 10**6), UNIT)
def test_ints_survive_the_way_there_and_back(low, step, n, u):
    parameter = Int(low, low + step * n, step=step)
    [value] = parameter.from_unit([u])
    assert type(value) is int
    assert parameter.normalise(value) == value
    assert there_and_back(parameter, [value]) == [value]


@given(st.integers(1, 10**12 - 1), st.data())
@example(10**12 - 1, None)
def test_log_ints_survive_the_way_there_and_back(low, data):
    high = data.draw(st.integers(low + 1, 10**12)) if data else low + 1
    parameter = Int(low, high, log=True)
    values = sorted({low, high, (low + high) // 2, *parameter.from_unit([0.0, 0.3, 0.9, 1.0])})
    assert there_and_back(parameter, values) == values


@given(st.integers(-(10**6), 10**6), st.integers(1, 500), st.sampled_from([0.1, 0.25, 1e-5, 3.0]), UNIT)
def test_stepped_floats_survive_the_way_there_and_back(k, n, step, u):
    low, high = (float(f"{i * step:.12g}") for i in (k, k + n))
    parameter = Float(low, high, step=step)
    assert parameter.n_levels == n + 1
    [value] = parameter.from_unit([u])
    assert parameter.normalise(value) == value
    assert there_and_back(parameter, [value]) == [value]


def test_stepped_floats_are_the_decimals_people_mean():
    assert Float(0, 1, step=0.1).from_unit([0.31]) == [0.3]
    assert Float(0, 1, step=0.1).normalise(0.1 + 0.2) == 0.3


@pytest.mark.parametrize(
    "parameter",
    [
        Int(0, 6),
        Int(0, 12, step=3),
        Float(0, 1, step=0.125),
        Categorical(["a", "b", "c"]),
        Categorical(list(range(200))),
    ],
)
def test_levels_are_uniform(parameter):
    n = parameter.n_levels
    u = [(i + 0.5) / (n * 10) for i in range(n * 10)]
    values = parameter.from_unit(u)
    assert {values.count(value) for value in values} == {10}
    assert len(set(values)) == n


def test_log_ints_are_uniform_in_the_logarithm_of_their_cells():
    # Cells end at the halves, so from 1 to 3 they end at 0.5, 1.5, 2.5 and 3.5; 1 has log 3 / log 7 of it.
    parameter = Int(1, 3, log=True)
    edge = math.log(3) / math.log(7)
    assert parameter.from_unit([0.0, edge - 1e-9, edge + 1e-9, 1.0]) == [1, 1, 2, 3]


@pytest.mark.parametrize(
    "value",
    [2, 2.0, np.int64(2), np.float32(2), np.array(2), torch.tensor(2), torch.tensor(2.0), Fraction(2)],
)
def test_scalars_of_other_libraries_become_plain(value):
    for parameter, kind in [(Int(1, 3), int), (Float(1, 3), float), (Float(1, 3, step=0.5), float)]:
        normal = parameter.normalise(value)
        assert normal == 2
        assert type(normal) is kind


@pytest.mark.parametrize("value", [np.str_("a"), "a"])
def test_strings_of_other_libraries_become_plain(value):
    assert type(Categorical(["a", "b"]).normalise(value)) is str


def test_booleans_are_not_numbers():
    assert Categorical([True, False]) != Categorical([1, 0])
    assert Categorical([True, 1]).n_levels == 2
    with pytest.raises(ConfigError, match=r"must be one of \[True, False\], got 1"):
        Categorical([True, False]).normalise(1)
    assert Categorical([True, False]).normalise(np.bool_(True)) is True
    assert Categorical([1, True]).to_unit([True, 1]) == [0.75, 0.25]


def test_one_and_one_point_zero_are_one_choice():
    with pytest.raises(SpaceError, match=r"`choices` must differ from each other, got 1.0 twice"):
        Categorical([1, 1.0])
    assert type(Categorical([1, 2]).normalise(1.0)) is int


def test_equal_categoricals_have_equal_hashes():
    assert hash(Categorical(["a"])) == hash(Categorical(["a"]))
    assert Categorical(["a"]) == Categorical(["a"])
    assert Categorical(["a"]) != "a"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Float(1, 1), r"`low` must be below `high`, got low=1.0, high=1.0"),
        (lambda: Float(2, 1), r"`low` must be below `high`"),
        (lambda: Float("0", 1), r"`low` must be a finite number, got '0'"),
        (lambda: Float(0, math.inf), r"`high` must be a finite number, got inf"),
        (lambda: Float(0, 10**400), r"`high` must be a finite number"),
        (lambda: Float(True, 2), r"`low` must be a finite number, got True"),
        (lambda: Float(-1.7e308, 1.7e308), r"`high - low` must be finite"),
        (lambda: Float(0, 1, log=True), r"`low` must be above 0 with log=True, got 0"),
        (lambda: Float(0, 1, log=1), r"`log` must be True or False, got 1"),
        (lambda: Float(1e-9, 1e300, log=True), r"`high / low` must be at most 1e\+300"),
        (lambda: Float(1, 2, log=True, step=0.1), r"`step` cannot be combined with log=True"),
        (lambda: Float(0, 1, step=0.3), r"`step` must divide high - low.* could be 0.9"),
        (lambda: Float(0, 1, step=0), r"`step` must be positive, got 0.0"),
        (lambda: Float(0, 1, step="a"), r"`step` must be a finite number, got 'a'"),
        (lambda: Float(1e16, 1e16 + 10, step=1), r"`step` must be large enough to tell neighbours apart"),
        (lambda: Float(0, 1, step=2.0**-49), r"at most 2\*\*48 separate values"),
        (lambda: Int(3, 3), r"`low` must be below `high`, got low=3, high=3"),
        (lambda: Int(0.5, 3), r"`low` must be a whole number, got 0.5"),
        (lambda: Int(0, True), r"`high` must be a whole number, got True"),
        (lambda: Int(0, 10, step=3), r"`step` must divide high - low.* could be 9"),
        (lambda: Int(0, 10, step=0), r"`step` must be >= 1, got 0"),
        (lambda: Int(0, 10, log=True), r"`low` must be above 0 with log=True, got 0"),
        (lambda: Int(1, 9, log=True, step=2), r"`step` cannot be combined with log=True, got 2"),
        (lambda: Int(1, 10**13, log=True), r"bounds must be within ±1000000000000"),
        (lambda: Int(0, 10**17), r"bounds must be within"),
        (lambda: Int(0, 2**50), r"at most 2\*\*48 separate values"),
        (lambda: Categorical([]), r"`choices` must have at least one entry"),
        (lambda: Categorical("abc"), r"`choices` must be a list, got 'abc'"),
        (lambda: Categorical(5), r"`choices` must be a list, got 5"),
        (
            lambda: Categorical({"a"}),
            r"`choices` must be a list, got {'a'}",
        ),
        (lambda: Categorical(["a", "a"]), r"`choices` must differ from each other, got 'a' twice"),
        (lambda: Categorical([math.nan]), r"a choice must be .* got nan"),
        (lambda: Categorical([[1], [2]]), r"a choice must be .* got \[1\]; use a name"),
        (lambda: Categorical(["a"], ordered=1), r"`ordered` must be True or False, got 1"),
        (lambda: Float(0, 1, when={}), r"`when` must map parents to the values that switch it on"),
        (lambda: Float(0, 1, when="opt"), r"`when` must map parents"),
        (lambda: Float(0, 1, when={"opt": []}), r"`when` must name at least one value of 'opt'"),
        (lambda: as_parameter("x", [1, 2]), r"`x` must be a Float, an Int, a Categorical or a constant"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused(make, message):
    with pytest.raises(SpaceError, match=message):
        make()


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        (Float(0, 1), 1.5, r"must be in \[0.0, 1.0\], got 1.5"),
        (Float(0, 1), math.nan, r"must be a finite number, got nan"),
        (Float(0, 1), 10**400, r"must be a finite number"),
        (Float(0, 1), "0.5", r"must be a finite number, got '0.5'"),
        (Float(0, 1), True, r"must be a finite number, got True"),
        (Float(0, 1), np.array([0.1, 0.2]), r"must be a finite number"),
        (Float(0, 1, step=0.25), 0.3, r"must be 0.0 plus a multiple of 0.25, got 0.3"),
        (Int(0, 4, step=2), 3, r"must be 0 plus a multiple of 2, got 3"),
        (Int(0, 4), 2.5, r"must be a whole number, got 2.5"),
        (Int(0, 4), False, r"must be a whole number, got False"),
        (Int(0, 4), 5, r"must be in \[0, 4\], got 5"),
        (Categorical([32, 64]), "32", r"got '32' \(32 without quotes is a choice, the text '32' is not\)"),
        (Categorical([True, None]), "None", r"got 'None' \(None without quotes is a choice"),
        (Categorical([32, 64]), "33", r"must be one of \[32, 64\], got '33'$"),
        (Categorical(["adam", "sgd"]), "adan", r"got 'adan' \(Did you mean 'adam'\?\)"),
        (Categorical([1, 2]), [1], r"must be one of \[1, 2\], got \[1\]"),
        (Categorical([1, 2]), np.array([1, 2]), r"must be one of \[1, 2\]"),
        (Categorical([1.5, 2]), math.nan, r"must be one of \[1.5, 2\], got nan"),
    ],
)
def test_a_value_outside_its_domain_is_refused(parameter, value, message):
    with pytest.raises(ConfigError, match=message):
        parameter.normalise(value)


@pytest.mark.parametrize(
    "parameter",
    [
        Float(1e-5, 0.1, log=True, when={"a": [True, 2, "x", None]}),
        Float(0, 1, step=0.1),
        Int(1, 9, log=True),
        Int(0, 8, step=2, when={"a": 1, "b": ["x", "y"]}),
        Categorical([True, 1.5, "x", None], ordered=True),
    ],
)
def test_parameters_survive_json(parameter):
    plain = json.loads(json.dumps(parameter_to_dict(parameter)))
    assert parameter_from_dict("p", plain) == parameter


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"type": "flaot", "low": 0, "high": 1}, r"`p`: type must be one of .* Did you mean 'float'\?"),
        ({"low": 0, "high": 1}, r"`p`: type must be one of .* got None"),
        ({"type": ["float"]}, r"`p`: type must be one of"),
        ({"type": "int", "low": 0, "hihg": 1}, r"'hihg' is not an option of type 'int'. Did you mean 'high'"),
        ({"type": "int", "low": 0}, r"`p`: type 'int' also needs \['high'\]"),
        ({"type": "categorical"}, r"`p`: type 'categorical' also needs \['choices'\]"),
        ({"type": "int", "low": 1, "high": 0}, r"`p`: `low` must be below `high`"),
    ],
)
def test_a_dictionary_that_is_no_parameter_is_refused(plain, message):
    with pytest.raises(SpaceError, match=message):
        parameter_from_dict("p", plain)


def test_a_plain_value_is_a_constant():
    assert parameter_from_dict("p", 3) == Categorical([3])
    assert as_parameter("p", Int(0, 1)) == Int(0, 1)
