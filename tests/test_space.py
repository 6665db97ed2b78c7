import json
import pickle

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpbo.errors import ConfigError, SpaceError
from gpbo.parameters import same
from gpbo.space import Categorical, Float, Int, SearchSpace

GENEROUS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def conditions(draw, parents):
    """A `when` over up to two of the parameters before, each with one or several of its values."""
    usable = [name for name, p in parents.items() if 0 < p.n_levels <= 200]
    chosen = draw(st.lists(st.sampled_from(usable), max_size=2, unique=True)) if usable else []
    when = {}
    for name in chosen:
        n = parents[name].n_levels
        levels = draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=3, unique=True))
        values = parents[name].from_unit([(k + 0.5) / n for k in levels])
        when[name] = values if len(values) > 1 or draw(st.booleans()) else values[0]
    return when or None


@st.composite
def parameters(draw, when):
    kind = draw(st.sampled_from(["float", "log", "step", "int", "int log", "int step", "choice", "constant"]))
    low = draw(st.integers(-50, 50))
    positive = draw(st.integers(1, 1000))
    n = draw(st.integers(1, 12))
    match kind:
        case "float":
            return Float(low / 8, low / 8 + draw(st.sampled_from([1e-6, 0.3, 7, 1e5])), when=when)
        case "log":
            return Float(
                positive * 1e-5, positive * draw(st.sampled_from([1e-4, 1.0, 1e9])), log=True, when=when
            )
        case "step":
            return Float(low / 8, (low + n) / 8, step=0.125, when=when)
        case "int":
            return Int(low, low + draw(st.sampled_from([1, 5, 10**6])), when=when)
        case "int log":
            return Int(positive, positive + draw(st.sampled_from([1, 20, 10**9])), log=True, when=when)
        case "int step":
            return Int(low, low + 3 * n, step=3, when=when)
        case "choice":
            choices = ["a", "b", True, False, None, 0, 1.5, *range(10, 10 + n)]
            picked = draw(st.lists(st.sampled_from(choices), min_size=2, unique_by=repr))
            return Categorical(picked, ordered=draw(st.booleans()), when=when)
    return Categorical([draw(st.sampled_from(["c", 3, False]))], when=when)


@st.composite
def spaces(draw, constrained=False):
    """Whole random spaces: every kind of parameter, nested conditions, a constraint."""
    made = {}
    for i in range(draw(st.integers(1, 7))):
        made[f"p{i}"] = draw(parameters(draw(conditions(made))))
    order = draw(st.permutations(list(made)))  # parents may stand after their children
    constraints = []
    if constrained:
        constraints = [lambda config: sum(map(len, map(repr, config.values()))) % 3 > 0]
    return SearchSpace({name: made[name] for name in order}, constraints=constraints)


def points(space, seed, n=12):
    U = torch.rand(n, len(space.columns), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    if len(space.columns):
        U[0], U[1] = 0.0, 1.0
    return U


@GENEROUS
@given(spaces(), st.integers(0, 99))
def test_configs_survive_the_way_there_and_back(space, seed):
    configs = space.decode(points(space, seed))
    X = space.encode(configs)
    assert space.decode(X) == configs
    assert [[type(v) for v in c.values()] for c in space.decode(X)] == [
        [type(v) for v in c.values()] for c in configs
    ]
    assert torch.equal(space.encode(space.decode(X)), X)
    assert [space.validate(config) for config in configs] == configs


@GENEROUS
@given(spaces(), st.integers(0, 99))
def test_snap_moves_to_what_decode_means(space, seed):
    U = points(space, seed)
    before = U.clone()
    X = space.cube.snap(U)
    assert torch.equal(U, before)
    assert torch.equal(space.cube.snap(X), X)
    assert space.decode(X) == space.decode(U)
    assert (space.encode(space.decode(U)) - X).abs().le(1e-9).all()


@GENEROUS
@given(spaces(), st.integers(0, 99))
def test_active_columns_are_the_active_parameters(space, seed):
    U = points(space, seed)
    active = space.cube.active(space.cube.snap(U))
    for row, config in zip(active.tolist(), space.decode(U), strict=True):
        assert [name in config for name in space.columns] == row
        assert [space.is_active(name, config) for name in space.columns] == row
    assert torch.equal(space.cube.active(U), active)


@GENEROUS
@given(spaces(constrained=True), st.integers(0, 99))
def test_neighbours_differ_in_one_parameter_and_its_dependants(space, seed):
    x = space.cube.snap(points(space, seed))[2]
    [here] = space.decode(x[None])
    X = space.cube.neighbours(x)
    assert torch.equal(space.cube.snap(X), X)
    for there in space.decode(X):
        assert space.satisfies(there)
        differ = {n for n in {**here, **there} if repr(here.get(n, "absent")) != repr(there.get(n, "absent"))}
        moved = [n for n in differ if not differ & _ancestors(space, n)]
        assert len(moved) == 1
    assert len(torch.unique(X, dim=0)) == len(X) if len(X) else True


def _ancestors(space, name):
    parents = set(space.parameters[name].when or {})
    return parents.union(*(_ancestors(space, parent) for parent in parents))


@GENEROUS
@given(spaces())
def test_spaces_survive_json_and_yaml(space):
    plain = space.to_dict()
    assert SearchSpace.from_dict(json.loads(json.dumps(plain))) == space
    assert SearchSpace.from_dict(yaml.safe_load(yaml.safe_dump(plain, sort_keys=False))) == space
    assert pickle.loads(pickle.dumps(space)) == space


@GENEROUS
@given(spaces(), st.integers(0, 99))
def test_a_config_with_one_parameter_more_or_less_is_refused(space, seed):
    config = space.decode(points(space, seed))[2]
    for name in space.parameters:
        if name in config:
            with pytest.raises(ConfigError, match=f"`{name}` is missing|must be absent"):
                space.validate({k: v for k, v in config.items() if k != name})
        else:
            with pytest.raises(ConfigError, match=f"`{name}` must be absent unless"):
                space.validate({**config, name: 1})


NETWORK = SearchSpace(
    lr=Float(1e-5, 1e-1, log=True),
    opt=Categorical(["sgd", "adam"]),
    momentum=Float(0, 0.99, when={"opt": "sgd"}),
    nesterov=Categorical([True, False], when={"opt": "sgd"}),
    warm=Int(1, 5, when={"opt": "sgd", "nesterov": True}),
    seed=7,
)


def test_a_worked_example():
    config = {"lr": 1e-3, "opt": "sgd", "momentum": 0.495, "nesterov": False, "seed": 7}
    assert NETWORK.columns == ["lr", "opt", "momentum", "nesterov", "warm"]
    assert NETWORK.encode([config]).tolist() == [[0.5, 0.25, 0.5, 0.75, 0.5]]
    assert NETWORK.decode([[0.5, 0.25, 0.5, 0.75, 0.9]]) == [config]
    assert NETWORK.decode([[0.5, 0.75, 0.5, 0.75, 0.9]]) == [{"lr": 1e-3, "opt": "adam", "seed": 7}]


def test_validate_gives_plain_values_in_the_order_of_the_space():
    config = {"seed": np.int64(7), "opt": np.str_("adam"), "lr": torch.tensor(0.01, dtype=torch.float64)}
    valid = NETWORK.validate(config)
    assert list(valid.items()) == [("lr", 0.01), ("opt", "adam"), ("seed", 7)]
    assert [type(value) for value in valid.values()] == [float, str, int]
    assert json.loads(json.dumps(valid)) == valid


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"opt": "adam", "seed": 7}, r"`lr` is missing from the config"),
        ({"lr": 0.01, "opt": "adam", "seed": 7, "lrr": 1}, r"`lrr` is not a parameter.* Did you mean 'lr'\?"),
        ({"lr": 0.01, "opt": "adam", "seed": 8}, r"`seed` must be one of \[7\], got 8"),
        ({"lr": 1, "opt": "adam", "seed": 7}, r"`lr` must be in \[1e-05, 0.1\], got 1.0"),
        (
            {"lr": 0.01, "opt": "adam", "momentum": 0.5, "seed": 7},
            r"`momentum` must be absent unless opt is 'sgd', got 0.5",
        ),
        (
            {"lr": 0.01, "opt": "sgd", "momentum": 0.5, "nesterov": False, "warm": 3, "seed": 7},
            r"`warm` must be absent unless opt is 'sgd' and nesterov is True, got 3",
        ),
        ({"lr": 0.01, 5: 1}, r"`5` is not a parameter"),
        ([0.01, "adam"], r"a config must be a dictionary, got \[0.01, 'adam'\]"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        NETWORK.validate(config)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SearchSpace(), r"needs at least one parameter"),
        (lambda: SearchSpace({}), r"needs at least one parameter"),
        (lambda: SearchSpace(5), r"`parameters` must map names to parameters, got 5"),
        (lambda: SearchSpace({"": 1}), r"name must be a non-empty string, got ''"),
        (lambda: SearchSpace({3: 1}), r"name must be a non-empty string, got 3"),
        (lambda: SearchSpace(x=[1, 2]), r"`x` must be a Float, an Int, a Categorical or a constant"),
        (lambda: SearchSpace(x=Int(0, 1), y=Int(0, 1, when={"z": 1})), r"`y`: `when` names 'z'"),
        (lambda: SearchSpace(opt=Int(0, 1), y=Int(0, 1, when={"opd": 1})), r"Did you mean 'opt'\?"),
        (
            lambda: SearchSpace(
                x=Int(0, 1, when={"z": 1}), y=Int(0, 1, when={"x": 1}), z=Int(0, 1, when={"y": 1})
            ),
            r"must not form a cycle, got x -> z -> y -> x",
        ),
        (lambda: SearchSpace(x=Int(0, 1, when={"x": 1})), r"must not form a cycle, got x -> x"),
        (lambda: SearchSpace(x=Float(0, 1), y=Int(0, 1, when={"x": 0.5})), r"but 'x' is continuous"),
        (
            lambda: SearchSpace(x=Int(0, 10**6), y=Int(0, 1, when={"x": 5})),
            r"at most 10000 separate values, but 'x' has 1000001",
        ),
        (
            lambda: SearchSpace(x=Int(0, 1), y=Int(0, 1, when={"x": 2})),
            r"'x' a value it cannot take: must be",
        ),
        (lambda: SearchSpace(x=Int(0, 1), constraints=["x <"]), r"is not an expression"),
        (lambda: SearchSpace(x=Int(0, 1), constraints=[3]), r"must be a function or an expression, got 3"),
        (lambda: SearchSpace(x=Int(0, 1), constraints=3), r"`constraints` must be a list .* got 3"),
        (lambda: SearchSpace(x=Int(0, 1), constraints=None), r"`constraints` must be a list .* got None"),
        (lambda: SearchSpace.from_dict({"params": {}}), r"expected a dictionary with the key 'parameters'"),
        (lambda: SearchSpace.from_dict([]), r"expected a dictionary"),
        (
            lambda: SearchSpace.from_dict({"parameters": {"x": 1}, "constraints": [{"callable": "f"}]}),
            r"the constraint \{'callable': 'f'\} is a function and must be given in code",
        ),
        (lambda: NETWORK.decode(torch.zeros(3, 4)), r"`X` must have shape \(n, 5\), got \(3, 4\)"),
        (lambda: NETWORK.decode(torch.zeros(5)), r"`X` must have shape \(n, 5\), got \(5,\)"),
    ],
)
def test_a_space_that_cannot_be_is_refused(make, message):
    with pytest.raises(SpaceError, match=message):
        make()


def test_spaces_differ_in_order_kind_and_constraints():
    space = SearchSpace(x=Categorical([True, False]), y=Int(0, 1))
    assert space == SearchSpace({"x": Categorical([True, False]), "y": Int(0, 1)})
    assert hash(space) == hash(SearchSpace({"x": Categorical([True, False]), "y": Int(0, 1)}))
    assert space != SearchSpace(y=Int(0, 1), x=Categorical([True, False]))
    assert space != SearchSpace(x=Categorical([1, 0]), y=Int(0, 1))
    assert space != SearchSpace(x=Categorical([True, False]), y=Int(0, 1), constraints=["y > 0"])
    assert space != "space"


@pytest.mark.parametrize("choices", [[True, 1], [1, True], [0, True, 1.0, False]], ids=str)
@pytest.mark.parametrize("when", [True, 1])
def test_a_when_tells_true_from_one(choices, when):
    space = SearchSpace(x=Categorical(choices), y=Int(0, 4, when={"x": when}))
    for x in choices:
        config = {"x": x, "y": 3} if same(x, when) else {"x": x}
        assert space.is_active("y", {"x": x}) is ("y" in config)
        X = space.encode([config])
        assert space.cube.active(X).tolist() == [[True, "y" in config]]
        assert space.decode(X) == [config]
        assert same(space.decode(X)[0]["x"], x)


def test_the_repr_names_parameters_and_constraints():
    text = repr(SearchSpace(x=Int(0, 1), constraints="x > 0"))
    assert text.startswith("SearchSpace(\n    x=Int(")
    assert "constraints=['x > 0']" in text


def test_constraints_are_checked_and_written_down():
    def even(config):
        return config["x"] % 2 == 0

    space = SearchSpace(x=Int(0, 9), y=Int(0, 9), constraints=["x + y < 9", even])
    assert space.validate({"x": 4, "y": 4}) == {"x": 4, "y": 4}
    with pytest.raises(ConfigError, match=r"the constraint 'x \+ y < 9' does not hold for"):
        space.validate({"x": 8, "y": 4})
    with pytest.raises(ConfigError, match=r"the constraint .*even does not hold for"):
        space.validate({"x": 3, "y": 4})
    first, second = space.to_dict()["constraints"]
    assert first == "x + y < 9"
    assert second["callable"].endswith("even")


def test_one_constraint_needs_no_list():
    assert SearchSpace(x=Int(0, 9), constraints="x > 3") == SearchSpace(x=Int(0, 9), constraints=["x > 3"])
    plain = {"parameters": {"x": {"type": "int", "low": 0, "high": 9}}, "constraints": "x > 3"}
    assert SearchSpace.from_dict(plain) == SearchSpace(x=Int(0, 9), constraints=["x > 3"])


def test_conditions_reach_through_constants():
    space = SearchSpace(
        a=Categorical(["on", "off"]),
        b=Categorical(["fixed"], when={"a": "on"}),
        c=Float(0, 1, when={"b": "fixed"}),
    )
    assert space.decode([[0.25, 0.5], [0.75, 0.5]]) == [{"a": "on", "b": "fixed", "c": 0.5}, {"a": "off"}]
    assert space.cube.active(torch.tensor([[0.25, 0.5], [0.75, 0.5]])).tolist() == [
        [True, True],
        [True, False],
    ]


def test_a_space_of_constants_has_one_config():
    space = SearchSpace(a=1, b=Categorical(["x"]))
    assert space.columns == []
    assert space.encode([{"a": 1, "b": "x"}]).shape == (1, 0)
    assert space.decode(torch.empty(2, 0)) == [{"a": 1, "b": "x"}] * 2
    assert space.cube.size == 1
    assert space.cube.enumerate().shape == (1, 0)


def test_large_spaces_work():
    space = SearchSpace(
        {f"x{i}": Float(0, 1) for i in range(500)} | {"c": Categorical([f"c{k}" for k in range(200)])}
    )
    X = space.cube.sobol(4, seed=0)
    assert X.shape == (4, 501)
    assert torch.equal(space.encode(space.decode(X))[:, -1], X[:, -1])
    assert len(space.cube.neighbours(X[0])) == 199


NESTED = SearchSpace(
    g=Int(0, 2),
    p=Int(0, 9, when={"g": [1, 2]}),
    x=Float(0, 1, when={"p": [2, 3]}),
    k=Categorical(["only"], when={"p": [3, 4]}),
    a=5,
)


def test_what_is_fixed_brings_its_parents_where_they_follow():
    space = SearchSpace(
        opt=Categorical(["sgd", "adam"]),
        nesterov=Categorical([True, False], when={"opt": "sgd"}),
        warm=Int(1, 5, when={"nesterov": True}),
    )
    assert space.fix({"warm": 3.0}) == {"opt": "sgd", "nesterov": True, "warm": 3}
    assert space.fix({"opt": "adam"}) == {"opt": "adam"}
    assert space.fix({}) == {}
    assert NESTED.fix({"x": 0.5, "a": 5}) == {"x": 0.5, "a": 5}


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ({"y": 1}, r"`y` is not a parameter of this space, got 1"),
        ({"g": 3}, r"`g` must be in \[0, 2\], got 3"),
        ({"x": "a"}, r"`x` must be a finite number, got 'a'"),
        ({"a": 6}, r"`a` must be one of \[5\], got 6"),
        ({"p": 1, "x": 0.5}, r"`x` exists only where p is in \[2, 3\], but p is to be 1"),
        ({"g": 0, "x": 0.5}, r"`p` exists only where g is in \[1, 2\], but g is to be 0"),
        ([("g", 1)], r"values to fix must be a dictionary, got \[\('g', 1\)\]"),
    ],
)
def test_what_cannot_be_fixed(fixed, message):
    with pytest.raises(ConfigError, match=message):
        NESTED.fix(fixed)


@pytest.mark.parametrize(
    ("fixed", "g", "p"),
    [
        ({"g": 1}, {1}, set(range(10))),
        ({"x": 0.25}, {1, 2}, {2, 3}),
        ({"k": "only"}, {1, 2}, {3, 4}),
        ({"x": 0.25, "k": "only"}, {1, 2}, {3}),
        ({"p": 3, "a": 5}, {1, 2}, {3}),
    ],
)
def test_a_part_holds_all_configs_with_these_values_and_no_others(fixed, g, p):
    part = NESTED.part(NESTED.fix(fixed))
    X = part.draw(400, torch.Generator().manual_seed(0))
    assert torch.equal(part.snap(X), X)
    configs = NESTED.decode(X)
    for config in configs:
        assert NESTED.validate(config) == config
        assert fixed.items() <= config.items()
    assert {config["g"] for config in configs} == g
    assert {config["p"] for config in configs} == p
