import runpy
import sys
from pathlib import Path

import pytest

tune = pytest.importorskip("ray.tune", reason="needs gpbo[ray]")


from gpbo import Categorical, Float, Int, SearchSpace
from gpbo.errors import MissingExtraError, SpaceError
from gpbo.integrations import ray_space
from gpbo.integrations.ray_space import flat, nested, tuned_space
from gpbo.integrations.ray_tune import space_from_ray

DOMAINS = {
    "uniform": (tune.uniform(-1, 2.5), Float(-1, 2.5)),
    "loguniform": (tune.loguniform(1e-5, 0.1), Float(1e-5, 0.1, log=True)),
    "quniform": (tune.quniform(0.3, 0.9, 0.1), Float(0.3, 0.9, step=0.1)),
    "rounded": (tune.quniform(0.1 * 3, 0.9, 0.1), Float(0.3, 0.9, step=0.1)),
    "randint": (tune.randint(2, 9), Int(2, 8)),
    "one": (tune.randint(2, 3), Categorical([2])),
    "lograndint": (tune.lograndint(1, 100), Int(1, 99, log=True)),
    "qrandint": (tune.qrandint(3, 17, 4), Int(4, 16, step=4)),
    "by one": (tune.qrandint(3, 17, 1), Int(3, 16)),
    "qlograndint": (tune.qlograndint(3, 17, 1), Int(3, 16, log=True)),
    "choice": (tune.choice(["a", 1, None, True]), Categorical(["a", 1, None, True])),
}


@pytest.mark.parametrize("kind", DOMAINS)
def test_every_domain_becomes_its_parameter(kind):
    domain, parameter = DOMAINS[kind]
    assert space_from_ray({"x": domain}) == tuned_space({"x": domain}) == SearchSpace(x=parameter)


@pytest.mark.parametrize("kind", DOMAINS)
def test_what_ray_draws_is_in_the_space(kind):
    domain, parameter = DOMAINS[kind]
    drawn = [domain.sample(random_state=i) for i in range(200)]
    normal = [parameter.normalise(value) for value in drawn]
    assert normal == pytest.approx(drawn) if kind != "choice" else normal == drawn
    if parameter.n_levels:
        assert len(set(map(repr, drawn))) <= parameter.n_levels
    if 0 < parameter.n_levels < 20 and kind != "rounded":  # where an older Ray misses an end
        assert len(set(map(repr, normal))) == parameter.n_levels


NESTED = {
    "epochs": 10,
    "opt": {"lr": tune.loguniform(1e-5, 0.1), "name": "sgd", "hidden": [4, 5]},
    "layers": [tune.randint(1, 5), {"width": tune.randint(8, 65), "act": "relu"}],
}


def test_nested_spaces_have_flat_names_and_come_back():
    space = space_from_ray(NESTED)
    assert list(space.parameters) == [
        *("epochs", "opt/lr", "opt/name", "opt/hidden/0", "opt/hidden/1"),
        *("layers/0", "layers/1/width", "layers/1/act"),
    ]
    config = space.decode([[0.5] * len(space.columns)])[0]
    back = nested(config)
    assert back["epochs"] == 10
    assert back["opt"]["hidden"] == [4, 5]
    assert back["layers"] == [config["layers/0"], {"width": config["layers/1/width"], "act": "relu"}]
    assert flat(back) == config
    assert flat({"opt/lr": 1, "opt": {"name": 2}}) == {"opt/lr": 1, "opt/name": 2}


def test_lists_are_in_the_order_of_their_numbers():
    assert nested({"l/1": "b", "l/0": "a"}) == {"l": ["a", "b"]}
    config = {f"l/{i}/x": i for i in reversed(range(12))}
    assert nested(config) == {"l": [{"x": i} for i in range(12)]}
    assert nested({"l/10": 0, "l/9": 1}) == {"l": {"10": 0, "9": 1}}


def test_what_follows_an_absent_element_keeps_its_place():
    space = SearchSpace(
        {"deep": Categorical([True, False]), "l/0": Float(0, 1, when={"deep": True}), "l/1": 7}
    )
    for deep, config in [
        (True, {"deep": True, "l": [0.5, 7]}),
        (False, {"deep": False, "l": {"1": 7}}),
    ]:
        flat_one = {"deep": deep, **({"l/0": 0.5} if deep else {}), "l/1": 7}
        assert nested(space.validate(flat_one)) == config
        assert flat(config) == flat_one
    assert nested({"l/²": 1, "l/00": 2}) == {"l": {"²": 1, "00": 2}}


def test_a_tuner_adds_its_constants_itself_but_a_list_is_whole():
    tuned = {"any": object(), **NESTED}
    assert list(tuned_space(tuned).parameters) == ["opt/lr", "layers/0", "layers/1/width", "layers/1/act"]


def test_search_space_from_ray():
    assert SearchSpace.from_ray({"x": tune.uniform(0, 1), "n": 3}) == SearchSpace(x=Float(0, 1), n=3)
    assert SearchSpace.from_ray({"opt": {"x": Float(0, 1)}}) == SearchSpace({"opt/x": Float(0, 1)})


@pytest.mark.parametrize(
    ("domain", "rule"),
    [
        (
            tune.sample_from(lambda config: 1),
            r"`opt/x`: tune.sample_from\(...\) draws what gpbo cannot choose",
        ),
        ({"eval": "1 + 1"}, "`opt/x`: tune.sample_from"),
        (tune.grid_search([1, 2]), r"`opt/x`: tune.grid_search\(\[...\]\) is run in full by Ray alone"),
        (tune.randn(0, 1), "`opt/x`: gpbo searches ranges with bounds, not Float values drawn by Normal"),
        (tune.qrandn(0, 1, 0.5), "`opt/x`: gpbo searches ranges with bounds"),
        (tune.qloguniform(0.01, 1, 0.01), "`opt/x`: a range cannot have both a logarithmic scale and a step"),
        (tune.qloguniform(1, 100, 1), "`opt/x`: a range cannot have both"),
        (tune.uniform(1, 0), "`opt/x`: `low` must be below `high`, got low=1.0, high=0.0"),
        (tune.choice([[1], [2]]), r"`opt/x`: a choice must be a string, .* got \[1\]"),
        (tune.choice([1, 1]), "`opt/x`: `choices` must differ from each other, got 1 twice"),
    ],
)
def test_a_domain_without_a_parameter_is_refused_by_name_and_rule(domain, rule):
    for convert in (space_from_ray, tuned_space):
        with pytest.raises(SpaceError, match=rule):
            convert({"opt": {"x": domain}})


def test_what_is_no_space_is_refused():
    for convert in (space_from_ray, tuned_space):
        with pytest.raises(SpaceError, match="`param_space` must be a dictionary, got 5"):
            convert(5)
        for key in ("a/b", "0", 0, ("a",)):
            with pytest.raises(SpaceError, match="a key must be a string without '/' that is no number"):
                convert({key: tune.uniform(0, 1)})
    with pytest.raises(SpaceError, match=r"`param_space` has nothing to tune, got \{'n': 3\}"):
        tuned_space({"n": 3})
    with pytest.raises(SpaceError, match="`opt/x`: Ray hands gpbo's parameters to the trainable as they are"):
        tuned_space({"opt": {"x": Float(0, 1)}, "y": tune.uniform(0, 1)})
    with pytest.raises(SpaceError, match="`f` must be a Float, an Int, a Categorical or a constant"):
        space_from_ray({"f": len, "x": tune.uniform(0, 1)})


def test_ray_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.tune.search", None)
    for name in ("ray_space", "ray_search", "ray_tune"):
        monkeypatch.delitem(sys.modules, f"gpbo.integrations.{name}", raising=False)
        with pytest.raises(MissingExtraError, match=r"pip install 'gpbo\[ray\]'"):
            runpy.run_path(str(Path(ray_space.__file__).with_name(f"{name}.py")))
