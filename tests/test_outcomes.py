import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpbo.errors import SettingError
from gpbo.outcomes import OutcomeConstraint, are_met, parse_outcome_constraints

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def test_a_bound_from_above_and_one_from_below():
    latency, accuracy = parse_outcome_constraints(["latency <= 10", " val/acc @1 >=9e-1 "])
    assert latency == OutcomeConstraint("latency", "<=", 10.0)
    assert accuracy == OutcomeConstraint("val/acc @1", ">=", 0.9)
    assert (str(latency), str(accuracy)) == ("latency <= 10", "val/acc @1 >= 0.9")
    assert latency.slack({"latency": 8.0}) == 2.0
    assert accuracy.slack({"val/acc @1": 0.4}) == pytest.approx(-0.5)


def test_one_text_is_one_constraint_and_none_are_none():
    assert parse_outcome_constraints("a <= 1") == parse_outcome_constraints(("a <= 1",))
    assert parse_outcome_constraints([]) == ()
    assert are_met((), {})


def test_what_is_on_the_bound_is_feasible():
    both = parse_outcome_constraints(["t >= 18", "t <= 24"])
    assert [t for t in (17.999, 18.0, 20.0, 24.0, 24.001) if are_met(both, {"t": t})] == [18.0, 20.0, 24.0]


@given(bound=FINITE, sign=st.sampled_from(["<=", ">="]), seen=FINITE)
def test_a_constraint_reads_as_it_is_written_and_means_what_it_says(bound, sign, seen):
    constraint = OutcomeConstraint("a b", sign, bound)
    assert parse_outcome_constraints(str(constraint)) == (constraint,)
    assert are_met([constraint], {"a b": seen}) == (seen <= bound if sign == "<=" else seen >= bound)


@pytest.mark.parametrize(
    "text",
    ["latency < 10", "latency", "<= 10", "latency <= ten", "a <= inf", "a <= nan", "a <= 1 <= 2", 3, ""],
)
def test_other_forms_are_refused(text):
    with pytest.raises(SettingError, match=r"must read like 'latency <= 10' .*; got "):
        parse_outcome_constraints([text])


@pytest.mark.parametrize("given", [3, None, {"latency": 10}, lambda c: True])
def test_what_holds_no_texts_is_refused(given):
    with pytest.raises(SettingError, match=r"`outcome_constraints` must be texts like 'latency <= 10', got"):
        parse_outcome_constraints(given)


def test_two_bounds_of_a_kind_are_refused():
    with pytest.raises(SettingError, match="has two bounds `a <=`; keep one"):
        parse_outcome_constraints(["a <= 1", "a >= 0", "a <= 2"])
    assert math.isclose(parse_outcome_constraints(["a <= 1", "b <= 1"])[1].bound, 1.0)
