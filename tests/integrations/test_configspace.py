"""Spaces of ConfigSpace: the same configs are allowed here and there."""

import ConfigSpace as cs  # noqa: N813
import pytest
import torch

from gpbo.errors import SpaceError
from gpbo.integrations.configspace import space_from_configspace
from gpbo.space import Categorical, Float, Int, SearchSpace


def space_of(**parameters):
    return cs.ConfigurationSpace(space=parameters, seed=0)


def large():
    space = cs.ConfigurationSpace(seed=0)
    lr = cs.Float("lr", (1e-5, 1e-1), log=True)
    opt = cs.Categorical("opt", ["sgd", "adam", "lbfgs"])
    momentum = cs.Float("momentum", (0, 0.99))
    nesterov = cs.Categorical("nesterov", [True, False])
    layers = cs.Integer("layers", (1, 6))
    width = cs.Integer("width", (8, 512), log=True)
    second = cs.Integer("second", (8, 512), log=True)
    size = cs.OrdinalHyperparameter("size", ["s", "m", "l", "xl"])
    extra = cs.Float("extra", (-1.0, 1.0))
    space.add(lr, opt, momentum, nesterov, layers, width, second, size, extra, cs.Constant("seed", 7))
    space.add(
        cs.EqualsCondition(momentum, opt, "sgd"),
        cs.AndConjunction(
            cs.EqualsCondition(nesterov, opt, "sgd"), cs.InCondition(nesterov, layers, [2, 3, 5])
        ),
        cs.GreaterThanCondition(second, layers, 1),
        cs.OrConjunction(cs.LessThanCondition(extra, size, "m"), cs.EqualsCondition(extra, size, "xl")),
    )
    space.add(
        cs.ForbiddenAndConjunction(
            cs.ForbiddenEqualsClause(opt, "lbfgs"), cs.ForbiddenInClause(size, ["l", "xl"])
        ),
        cs.ForbiddenGreaterThanClause(lr, 0.05),
        cs.ForbiddenLessThanRelation(width, second),
        cs.ForbiddenAndConjunction(
            cs.ForbiddenEqualsClause(layers, 2),
            cs.ForbiddenOrConjunction(
                cs.ForbiddenLessThanEqualsClause(momentum, 0.25),
                cs.ForbiddenGreaterThanEqualsClause(size, "l"),
            ),
        ),
    )
    return space


def is_legal(space, config):
    # Not by the arrays that its sampler looks at: there ConfigSpace 1.2.2 takes <= for >=.
    try:
        cs.Configuration(space, values=config).check_valid_configuration()
    except cs.exceptions.ForbiddenValueError:
        return False
    return True


def test_every_config_of_one_is_a_config_of_the_other():
    theirs = large()
    ours = space_from_configspace(theirs)
    without_rules = SearchSpace(ours.parameters)
    sampled = [dict(config) for config in theirs.sample_configuration(300)]
    for config in sampled:
        assert without_rules.validate(config) == config
    drawn = without_rules.decode(without_rules.cube.draw(600, torch.Generator().manual_seed(0)))
    for config in sampled + drawn:
        assert ours.satisfies(config) is is_legal(theirs, config), config
    assert 0 < sum(map(ours.satisfies, drawn)) < 600
    for config in ours.decode(ours.cube.draw(100, torch.Generator().manual_seed(1))):
        assert is_legal(theirs, config)


def test_what_parameters_become():
    space = space_from_configspace(
        space_of(
            x=(0.0, 1.0), n=(1, 9), c=["a", "b"], k=cs.Integer("k", (1, 64), log=True), one="only",
            o=cs.OrdinalHyperparameter("o", [1, 2, 4]),
        )
    )  # fmt: skip
    assert space.parameters == {
        "x": Float(0, 1),
        "n": Int(1, 9),
        "c": Categorical(["a", "b"]),
        "k": Int(1, 64, log=True),
        "one": Categorical(["only"]),
        "o": Categorical([1, 2, 4], ordered=True),
    }
    assert SearchSpace.from_configspace(space_of(x=(0.0, 1.0))) == SearchSpace(x=Float(0, 1))


def test_a_space_that_was_converted_can_be_stored():
    space = space_from_configspace(large())
    assert SearchSpace.from_dict(space.to_dict()) == space


def joined_by_or():
    space = space_of(a=["x", "y"], b=["x", "y"], c=(0.0, 1.0))
    one, two = (cs.EqualsCondition(space["c"], space[name], "x") for name in "ab")
    space.add(cs.OrConjunction(one, two))
    return space


def continuous_parent():
    space = space_of(a=(0.0, 1.0), c=(0.0, 1.0))
    space.add(cs.GreaterThanCondition(space["c"], space["a"], 0.5))
    return space


def unspeakable_name():
    space = space_of(**{"opt:lr": (0.0, 1.0)})
    space.add(cs.ForbiddenGreaterThanClause(space["opt:lr"], 0.5))
    return space


def ordinal_relation():
    space = cs.ConfigurationSpace()
    space.add(cs.OrdinalHyperparameter("a", ["s", "m"]), cs.OrdinalHyperparameter("b", ["s", "m"]))
    space.add(cs.ForbiddenLessThanRelation(space["a"], space["b"]))
    return space


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (joined_by_or, "`c`: a condition may not join several parents by 'or'"),
        (continuous_parent, "`c`: a condition needs a parent with at most 10000 separate values"),
        (unspeakable_name, "an expression cannot name 'opt:lr'"),
        (ordinal_relation, "constraints cannot express"),
    ],
)
def test_what_cannot_be_expressed(make, message):
    with pytest.raises(SpaceError, match=message):
        space_from_configspace(make())


@pytest.mark.parametrize(
    "parameter",
    [
        cs.Float("x", (0, 1), distribution=cs.Normal(0.5, 0.1)),
        cs.Integer("x", (0, 9), distribution=cs.Beta(2, 3)),
        cs.Categorical("x", ["a", "b"], weights=[1, 3]),
    ],
)
def test_priors_are_named(parameter):
    with pytest.raises(SpaceError, match="`x`: gpbo's parameters have uniform priors alone"):
        space_from_configspace(space_of(x=parameter))


def test_no_space_at_all():
    with pytest.raises(SpaceError, match=r"expected a ConfigSpace.ConfigurationSpace, got \{\}"):
        space_from_configspace({})
