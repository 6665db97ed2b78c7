import math
from itertools import pairwise

import pytest
import torch

import gpbo
from gpbo.analysis.importance import importance, sobol_indices
from gpbo.cube import Cube
from gpbo.errors import NoResultError, SettingError

PI4, PI8 = math.pi**4, math.pi**8


def ishigami(X):
    """With a = 7 and b = 0.1 (Ishigami and Homma 1990)."""
    x = (2.0 * X - 1.0) * math.pi
    return x[:, 0].sin() + 7.0 * x[:, 1].sin().square() + 0.1 * x[:, 2].pow(4) * x[:, 0].sin()


def ishigami_indices():
    V1, V2 = 0.5 * (1.0 + 0.1 * PI4 / 5.0) ** 2, 49.0 / 8.0
    V13 = 0.01 * PI8 * (1.0 / 18.0 - 1.0 / 50.0)
    V = V1 + V2 + V13
    return [V1 / V, V2 / V, 0.0], [(V1 + V13) / V, V2 / V, V13 / V]


def g_function(X, a):
    """Of Sobol', Saltelli and Sobol' 1995."""
    return ((4.0 * X - 2.0).abs() + a).div(1.0 + a).prod(-1)


def g_indices(a):
    part = 1.0 / (3.0 * (1.0 + a).square())
    V = (1.0 + part).prod() - 1.0
    return (part / V).tolist(), (part * (1.0 + part).prod() / (1.0 + part) / V).tolist()


def indices(function, cube, n=2048):
    first, total = sobol_indices(lambda X: function(X).unsqueeze(0), cube, 0, n=n)
    return first[:, 0].tolist(), total[:, 0].tolist()


def test_indices_of_the_ishigami_function():
    first, total = indices(ishigami, Cube.continuous(3))
    assert first == pytest.approx(ishigami_indices()[0], abs=0.02)
    assert total == pytest.approx(ishigami_indices()[1], abs=0.02)


def test_indices_of_the_g_function():
    a = torch.tensor([0.0, 1.0, 4.5, 9.0, 99.0])
    first, total = indices(lambda X: g_function(X, a), Cube.continuous(5))
    assert first == pytest.approx(g_indices(a)[0], abs=0.02)
    assert total == pytest.approx(g_indices(a)[1], abs=0.02)


def test_of_an_additive_function_first_order_and_total_agree():
    weights = torch.tensor([4.0, 2.0, 1.0, 0.0])
    first, total = indices(lambda X: X @ weights.double(), Cube.continuous(4))
    shares = (weights.square() / 21.0).tolist()
    assert first == pytest.approx(shares, abs=0.01)
    assert total == pytest.approx(shares, abs=0.01)


def test_a_constant_function_has_no_shares():
    assert indices(lambda X: torch.ones(len(X)).double(), Cube.continuous(2)) == ([0.0, 0.0], [0.0, 0.0])


def test_a_conditional_parameter_counts_where_it_exists():
    """f = kind + b * x if kind is b: kind is 0 or 1 evenly, x uniform, and there in half of all configs."""
    space = gpbo.SearchSpace(kind=gpbo.Categorical(["a", "b"]), x=gpbo.Float(0, 1, when={"kind": "b"}))

    def f(X):
        return torch.tensor([3.0 * c["x"] if "x" in c else 0.0 for c in space.decode(X)]).double()

    V = 0.5 * (3.0**2 / 3.0) - 0.75**2
    of_kind, of_x = 1.5**2 / 4.0, 0.5 * 3.0**2 / 12.0  # Var E[f | kind] and E Var(f | kind)
    first_x = 1.5**2 / 12.0  # E[f | x] = 3 x / 2
    first, total = indices(f, space.cube)
    assert first == pytest.approx([of_kind / V, first_x / V], abs=0.02)
    assert total == pytest.approx([1.0 - first_x / V, of_x / V], abs=0.02)


def test_levels_count_as_random_search_draws_them():
    """An integer on a log scale: 1 is drawn more often than 2, and 2 more often than 3."""
    space = gpbo.SearchSpace(n=gpbo.Int(1, 3, log=True), c=gpbo.Categorical(["a", "b", "c"]))
    edges = [math.log(k - 0.5) for k in (1, 2, 3, 4)]
    p = [(b - a) / (edges[3] - edges[0]) for a, b in pairwise(edges)]
    mean = sum(w * n for w, n in zip(p, (1, 2, 3), strict=True))
    of_n = sum(w * (n - mean) ** 2 for w, n in zip(p, (1, 2, 3), strict=True))
    of_c = 2.0 / 9.0  # of being "b"

    def f(X):
        return torch.tensor([c["n"] + (c["c"] == "b") for c in space.decode(X)]).double()

    first, total = indices(f, space.cube)
    shares = [of_n / (of_n + of_c), of_c / (of_n + of_c)]
    assert first == pytest.approx(shares, abs=0.02)
    assert total == pytest.approx(shares, abs=0.02)


def test_under_a_constraint_the_definitions_hold():
    """Uniform on the triangle y <= x, f = x + y: E[f | x] = 3 x / 2, E[f | y] = (1 + y) / 2 + y."""
    space = gpbo.SearchSpace(x=gpbo.Float(0, 1), y=gpbo.Float(0, 1), constraints=["y <= x"])
    var, cov = 1.0 / 18.0, 1.0 / 36.0  # of x and of y; of both
    V = 2.0 * var + 2.0 * cov
    first, total = indices(lambda X: X.sum(-1), space.cube)
    assert first == pytest.approx([1.5**2 * var / V] * 2, abs=0.03)
    assert total == pytest.approx([(V - 1.5**2 * var) / V] * 2, abs=0.03)


def test_a_constraint_that_leaves_next_to_nothing():
    space = gpbo.SearchSpace(x=gpbo.Float(0, 1), y=gpbo.Float(0, 1), constraints=["x <= 0.001"])
    with pytest.raises(NoResultError, match=r"only \d+ of 4096 random configs meet the constraints"):
        indices(lambda X: X.sum(-1), space.cube, n=256)


def known(f, space, n, **options):
    study = gpbo.Study(space, **options)
    for config in study.space.decode(study.space.cube.sobol(n, 1) if n else []):
        study.add(config, f(config))
    return study


def additive(config):
    return 4.0 * config["a"] + 2.0 * config["b"] + 1.0 * config["c"]


CUBE = {name: gpbo.Float(0, 1) for name in "abc"}


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_study_knows_an_additive_function(direction):
    found = known(additive, CUBE, 20, direction=direction).importance()
    assert [effect.parameter for effect in found.effects] == ["a", "b", "c"]
    for name, share in zip("abc", (16 / 21, 4 / 21, 1 / 21), strict=True):
        effect = found.of(name)
        assert effect.total.value == pytest.approx(share, abs=0.03)
        assert effect.first.value == pytest.approx(share, abs=0.03)
        assert 0.0 <= effect.total.low <= effect.total.value <= effect.total.high <= 1.0
        assert effect.total.high - effect.total.low < 0.1


def test_shares_are_of_the_value_not_of_what_the_suggester_would_model():
    """f = exp(5 u): its logarithm, which a warp comes close to, is additive; f is a product."""

    def f(config):
        return math.exp(3.0 * config["a"]) * math.exp(1.5 * config["b"])

    def moments(k):
        mean = (math.exp(k) - 1.0) / k
        return mean, (math.exp(2 * k) - 1.0) / (2 * k) / mean**2 - 1.0

    (_, A), (_, B) = moments(3.0), moments(1.5)
    V = (1.0 + A) * (1.0 + B) - 1.0
    found = known(f, {"a": gpbo.Float(0, 1), "b": gpbo.Float(0, 1)}, 50).importance()
    assert found.of("a").total.value == pytest.approx(A * (1.0 + B) / V, abs=0.03)
    assert found.of("b").total.value == pytest.approx(B * (1.0 + A) / V, abs=0.03)
    assert found.of("b").first.value == pytest.approx(B / V, abs=0.03)
    of_logarithms = 1.5**2 / (3.0**2 + 1.5**2)
    assert abs(found.of("b").total.value - of_logarithms) > 0.1


def test_five_trials_say_little_and_always_the_same():
    study = known(additive, CUBE, 5)
    found = study.importance()
    assert found.of("b").total.high - found.of("b").total.low > 0.1
    assert study.importance() == found


def test_failed_trials_are_left_out_and_counted():
    study = known(additive, CUBE, 20)
    study.add({"a": 0.99, "b": 0.01, "c": 0.99}, math.nan)
    found = study.importance()
    assert (found.n, found.n_failed) == (20, 1)
    assert found.of("a").total.value == pytest.approx(16 / 21, abs=0.03)
    assert "from 20 trials; 1 failed, and have none." in str(found)


def test_several_objectives_each_have_their_own():
    study = gpbo.Study(CUBE, direction=["minimize", "maximize"], outcome_constraints="load <= 0.5")
    for config in study.space.decode(study.space.cube.sobol(20, 1)):
        study.add(config, [additive(config), config["c"]], outcomes={"load": config["a"]})
    found = study.importance()
    assert found.of("a", 0).total.value > 0.7
    assert found.of("c", 1).total.value > 0.95
    assert found.of("a", 1).total.value < 0.05
    assert list(found.to_dict()) == ["value_0", "value_1"]
    assert found.n == 20  # infeasible trials have values
    assert "value_1:" in str(found)
    with pytest.raises(SettingError, match=r"`objective` must be one of \[0, 1\], got None"):
        found.of("a")


def test_with_budgets_it_is_the_full_one_that_counts():
    study = gpbo.Study({"a": gpbo.Float(0, 1), "b": gpbo.Float(0, 1)})
    for config in study.space.decode(study.space.cube.sobol(20, 1)):
        study.add(config, config["a"], budget=1)
        study.add(config, config["b"], budget=9)
    full, cheap = study.importance(), study.importance(budget=1)
    assert full.of("b").total.value > 0.95
    assert cheap.of("a").total.value > 0.95
    assert (full.budget, cheap.budget) == (9.0, 1.0)
    assert "value at budget 9 over" in str(full)
    with pytest.raises(SettingError, match=r"`budget` must be one that values were observed at, 1, 9; got 3"):
        study.importance(budget=3)


def test_too_few_at_the_full_budget_says_where_there_are_more():
    study = gpbo.Study({"a": gpbo.Float(0, 1)}, scheduler=gpbo.ASHA(1, 9))
    for k in range(6):
        study.add({"a": k / 6}, k / 6, budget=1)
    with pytest.raises(
        NoResultError, match=r"needs 5 trials with a value at budget 9; .* has 0. There are .* 1,"
    ):
        study.importance()
    assert study.importance(budget=1).n == 6


@pytest.mark.parametrize("n", [0, 1, 4])
def test_too_few_trials(n):
    with pytest.raises(NoResultError, match=rf"this needs 5 trials with a value; study 'default' has {n}"):
        known(additive, CUBE, n).importance()


def test_values_that_are_all_the_same():
    with pytest.raises(NoResultError, match="all 8 values of study 'default' are 2; a model needs another"):
        known(lambda _: 2.0, CUBE, 8).importance()


def test_a_space_of_constants():
    study = gpbo.Study({"a": 1})
    study.add({"a": 1}, 1.0)
    with pytest.raises(NoResultError, match="every parameter of study 'default' is a constant"):
        study.importance()


def test_as_text_dictionary_and_page():
    space = {"<a>": gpbo.Float(0, 1), "b": gpbo.Float(0, 1)}
    found = known(lambda c: c["<a>"], space, 12).importance()
    plain = found.to_dict()["value"]["<a>"]["total"]
    assert plain == {"value": plain["value"], "low": plain["low"], "high": plain["high"]}
    lines = str(found).splitlines()
    assert lines[1].split() == ["parameter", "alone", "in", "total"]
    assert lines[2].startswith(f"<a>        {found.of('<a>').first}")
    page = found._repr_html_()
    assert "&lt;a&gt;" in page
    assert "<a>" not in page
    with pytest.raises(SettingError, match=r"`parameter` must be one of \['<a>', 'b'\], got 'c'"):
        found.of("c")
    with pytest.raises(
        SettingError, match=r"`objective` must be 0, because the study has one objective, got 1"
    ):
        importance(known(lambda c: c["b"], space, 5), 1)
