"""ConfigSpace's search spaces as gpbo's: conditions become `when`, forbidden clauses constraints."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from gpbo.errors import MissingExtraError, SpaceError
from gpbo.integrations.hosts import check_tested
from gpbo.parameters import Categorical, Float, Int, Parameter
from gpbo.space import SearchSpace

try:
    import ConfigSpace as cs  # noqa: N813
except ModuleNotFoundError as error:
    raise MissingExtraError(f"{error.name} is not installed; pip install 'gpbo[configspace]'.") from None

from ConfigSpace import conditions, forbidden
from ConfigSpace import hyperparameters as hp

__all__ = ["space_from_configspace"]

check_tested("ConfigSpace", cs.__version__, "1.2", "1.2")

_MAX_PARENT_LEVELS = 10_000  # a condition is a table over its parent's values
_SIGNS = {
    forbidden.ForbiddenGreaterThanClause: ">",
    forbidden.ForbiddenGreaterThanEqualsClause: ">=",
    forbidden.ForbiddenLessThanClause: "<",
    forbidden.ForbiddenLessThanEqualsClause: "<=",
    forbidden.ForbiddenEqualsRelation: "==",
    forbidden.ForbiddenGreaterThanRelation: ">",
    forbidden.ForbiddenGreaterThanEqualsRelation: ">=",
    forbidden.ForbiddenLessThanRelation: "<",
    forbidden.ForbiddenLessThanEqualsRelation: "<=",
}


def space_from_configspace(space: cs.ConfigurationSpace) -> SearchSpace:
    """The space of a ConfigurationSpace, with its conditions and forbidden clauses; defaults are left behind.

    Raises:
        SpaceError: if a parameter has a prior other than uniform, a condition joins several parents by "or"
            or has a continuous one, or a forbidden clause names a parameter that no expression can; it names
            what cannot be expressed.
    """
    if not isinstance(space, cs.ConfigurationSpace):
        raise SpaceError(f"expected a ConfigSpace.ConfigurationSpace, got {space!r}.")
    when = _conditions(space)
    parameters = {name: _to_parameter(one, when.get(name)) for name, one in space.items()}
    return SearchSpace(parameters, constraints=[_rule(c) for f in space.forbidden_clauses for c in _cases(f)])


def _to_parameter(given: hp.Hyperparameter[Any, Any], when: Mapping[str, list[Any]] | None) -> Parameter:
    try:
        match given:
            case hp.UniformFloatHyperparameter():
                return Float(given.lower, given.upper, log=given.log, when=when)
            case hp.UniformIntegerHyperparameter():
                return Int(given.lower, given.upper, log=given.log, when=when)
            case hp.OrdinalHyperparameter():
                return Categorical(given.sequence, ordered=True, when=when)
            case hp.Constant():
                return Categorical([given.value], when=when)
            case hp.CategoricalHyperparameter() if len(set(given.probabilities)) == 1:
                return Categorical(given.choices, when=when)
    except SpaceError as error:
        raise SpaceError(f"`{given.name}`: {error}") from None
    raise SpaceError(f"`{given.name}`: gpbo's parameters have uniform priors alone, got {given!r}.")


def _conditions(space: cs.ConfigurationSpace) -> dict[str, dict[str, list[Any]]]:
    """For each conditional parameter its parents, and the values of theirs with which it exists."""
    found: dict[str, dict[str, list[Any]]] = {}
    for condition in space.conditions:
        for part in _parts(condition):
            atoms = part.dlcs if isinstance(part, conditions.Conjunction) else [part]
            child, parents = atoms[0].child.name, {atom.parent.name: atom.parent for atom in atoms}
            if len(parents) > 1:
                raise SpaceError(f"`{child}`: a condition may not join several parents by 'or', got {part}.")
            [(parent, domain)] = parents.items()
            values = [v for v in _values(child, domain) if part.satisfied_by_value({parent: v})]
            if not values:
                raise SpaceError(f"`{child}`: no value of {parent!r} meets its condition {part}.")
            when = found.setdefault(child, {})
            when[parent] = [v for v in values if v in when.get(parent, values)]
    return found


def _parts(condition: Any) -> Iterator[Any]:
    """The conditions that must all be met."""
    if isinstance(condition, conditions.AndConjunction):
        for component in condition.components:
            yield from _parts(component)
    else:
        yield condition


def _values(child: str, parent: hp.Hyperparameter[Any, Any]) -> list[Any]:
    match parent:
        case hp.OrdinalHyperparameter():
            return list(parent.sequence)
        case hp.CategoricalHyperparameter():
            return list(parent.choices)
        case hp.Constant():
            return [parent.value]
        case hp.IntegerHyperparameter() if parent.upper - parent.lower < _MAX_PARENT_LEVELS:
            return list(range(int(parent.lower), int(parent.upper) + 1))
    raise SpaceError(
        f"`{child}`: a condition needs a parent with at most {_MAX_PARENT_LEVELS} separate values, "
        f"got {parent!r}."
    )


def _cases(clause: Any) -> list[list[Any]]:
    """What is forbidden: any of the cases, each of which is all of its clauses.

    An expression holds as soon as one of its names is inactive, so each case becomes a rule of its own.
    """
    match clause:
        case forbidden.ForbiddenOrConjunction():
            return [case for component in clause.components for case in _cases(component)]
        case forbidden.ForbiddenAndConjunction():
            choices = itertools.product(*map(_cases, clause.components))
            return [[atom for case in chosen for atom in case] for chosen in choices]
    return [[clause]]


def _rule(case: list[Any]) -> str:
    """The constraint that forbids a case."""
    return f"not ({' and '.join(map(_expression, case))})"


def _expression(clause: Any) -> str:
    """What a clause forbids, over parameter names."""
    is_relation = isinstance(clause, forbidden.ForbiddenRelation)
    domains = [clause.left, clause.right] if is_relation else [clause.hyperparameter]
    for one in domains:
        if not one.name.isidentifier():
            raise SpaceError(f"an expression cannot name {one.name!r}, as {clause} does; rename it.")
    names = [one.name for one in domains]
    if is_relation:
        ordered = any(isinstance(one, hp.OrdinalHyperparameter) for one in domains)
        if type(clause) not in _SIGNS or ordered:
            raise SpaceError(f"gpbo's constraints cannot express {clause}.")
        return f"{names[0]} {_SIGNS[type(clause)]} {names[1]}"
    if not isinstance(domains[0], hp.NumericalHyperparameter):
        values = [v for v in _values(names[0], domains[0]) if clause.is_forbidden_value({names[0]: v})]
        return f"{names[0]} in {[_plain(value) for value in values]!r}"
    if isinstance(clause, forbidden.ForbiddenInClause):
        return f"{names[0]} in {[_plain(value) for value in clause.values]!r}"
    return f"{names[0]} {_SIGNS.get(type(clause), '==')} {_plain(clause.value)!r}"


def _plain(value: Any) -> Any:
    """A numpy scalar as the Python value it holds."""
    return value.item() if hasattr(value, "item") else value
