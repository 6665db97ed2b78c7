import pickle

import pytest

from gpbo.constraints import Rule
from gpbo.errors import SpaceError

NAMES = ["width", "n_heads", "opt", "dropout"]
CONFIG = {"width": 32, "n_heads": 4, "opt": "adam", "dropout": 0.0}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("n_heads * 8 <= width", True),
        ("n_heads * 8 < width", False),
        ("width % n_heads == 0", True),
        ("width // 5 == 6", True),
        ("width / n_heads > 7.9", True),
        ("n_heads ** 2 >= 17", False),
        ("-n_heads < +width", True),
        ("n_heads - 1 + 1 != 4", False),
        ("16 <= width <= 64", True),
        ("16 <= width <= 24", False),
        ("opt == 'adam'", True),
        ("opt in ['sgd', 'adam']", True),
        ("opt not in ('sgd', 'adam')", False),
        ("not opt == 'sgd'", True),
        ("opt == 'sgd' or width == 32", True),
        ("opt == 'sgd' and width == 32", False),
        ("dropout", False),
        ("True", True),
    ],
)
def test_expressions_mean_what_they_mean_in_python(text, holds):
    assert Rule(text, NAMES).holds(CONFIG) is holds


def test_an_expression_holds_where_a_name_is_inactive():
    assert Rule("width < 0", NAMES).holds({"n_heads": 1})


def test_a_function_is_given_the_config():
    rule = Rule(lambda c: c["n_heads"] * 8 <= c["width"], NAMES)
    assert rule.holds(CONFIG) is True
    assert rule.holds({**CONFIG, "n_heads": 5}) is False


def test_and_and_or_stop_early():
    assert not Rule("dropout > 0 and width / dropout > 1", NAMES).holds(CONFIG)
    assert Rule("dropout == 0 or width / dropout > 1", NAMES).holds(CONFIG)


def test_an_expression_travels_between_processes():
    assert pickle.loads(pickle.dumps(Rule("width == 32", NAMES))).holds(CONFIG)


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        ("width <", r"the constraint 'width <' is not an expression"),
        ("widht < 3", r"names 'widht', not a parameter. Did you mean 'width'\?"),
        ("abs(width) < 3", r"may hold arithmetic and comparisons, not Call|names 'abs', not a parameter"),
        ("opt.upper == 'A'", r"may hold arithmetic and comparisons, not Attribute"),
        ("[x for x in [1]]", r"may hold arithmetic and comparisons, not ListComp|names 'x'"),
        ("width | 3", r"may hold arithmetic and comparisons, not BitOr"),
        ("9**9**9**9 > width", r"holds a power of more than 4096 bits; make it smaller"),
        ("width ** 9**9 > 1", r"holds a power of more than 4096 bits"),
        ("n_heads > 0 and 2 ** (2.0 ** 2000) > 1", r"holds a power of more than 4096 bits"),
        (5, r"a constraint must be a function or an expression, got 5"),
    ],
)
def test_what_is_no_constraint_is_refused(constraint, message):
    with pytest.raises(SpaceError, match=message):
        Rule(constraint, NAMES)


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        ("width / dropout < 3", r"'width / dropout < 3' raised ZeroDivisionError: .* on \{'width': 32"),
        ("opt < 3", r"raised TypeError"),
        (lambda c: c["momentum"] < 3, r"<lambda> raised KeyError: 'momentum' on .* use config.get\(name\)"),
    ],
)
def test_a_constraint_that_raises_says_on_which_config(constraint, message):
    with pytest.raises(SpaceError, match=message):
        Rule(constraint, NAMES).holds(CONFIG)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("9 ** 9 ** width > 1", "a power has more than 4096 bits"),
        ("width ** width ** width ** width > 1", "a power has more than 4096 bits"),
        ("opt * 10 ** 12 == opt", "only numbers can be multiplied"),
        ("[1] * 10 ** 12 == [1]", "only numbers can be multiplied"),
        ("'%999999999999d' % width == opt", "only numbers can be multiplied"),
    ],
)
def test_no_config_makes_an_expression_endless(text, message):
    with pytest.raises(SpaceError, match=message):
        Rule(text, NAMES).holds(CONFIG)


def test_powers_within_the_limit_are_worked_out():
    assert Rule("2 ** 2000 > width ** 100 and 2 ** -3 == 0.125 and 1 / 0 ** 0 == 1", NAMES).holds(CONFIG)
