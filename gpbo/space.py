"""The search space: people's dictionaries on one side, points of the unit cube on the other.

Names, units, log scales, choices and conditions exist only here and in `parameters`. Every parameter that
can vary is one column of the cube, and ``decode(encode([config])) == [config]`` for every config that gpbo
proposes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gpbo.constraints import Constraint, Rule
from gpbo.errors import ConfigError, SpaceError, did_you_mean
from gpbo.markup import table
from gpbo.parameters import (
    Categorical,
    Float,
    Int,
    Parameter,
    as_parameter,
    describe_when,
    level_of,
    parameter_from_dict,
    parameter_to_dict,
    same,
)

if TYPE_CHECKING:
    from torch import Tensor

    from gpbo.cube import Cube

__all__ = ["Categorical", "Config", "Float", "Int", "Parameter", "SearchSpace", "parameter_from_dict"]

Config = dict[str, Any]

_MAX_PARENT_LEVELS = 10_000  # a condition is a table over its parent's levels


class SearchSpace:
    """Named parameters, the conditions between them, and constraints on whole configs.

    Args:
        parameters: A mapping of names to parameters, for names that are not Python identifiers.
        constraints: Each a function of a config that is true where it is allowed, or an expression over
            parameter names such as ``"n_heads * 8 <= width"``, which holds where a name is inactive.
        **named: Parameters by name. A plain value is a constant.

    Raises:
        SpaceError: if there is no parameter, a `when` names an unknown parent or a value it cannot take,
            conditions form a cycle, or a constraint is not of either form.
    """

    def __init__(
        self,
        parameters: Mapping[str, Any] | None = None,
        /,
        *,
        constraints: Sequence[Constraint] = (),
        **named: Any,
    ) -> None:
        if parameters is not None and not isinstance(parameters, Mapping):
            raise SpaceError(f"`parameters` must map names to parameters, got {parameters!r}.")
        given = {**(parameters or {}), **named}
        if not given:
            raise SpaceError("a search space needs at least one parameter, got none.")
        for name in given:
            if not isinstance(name, str) or not name:
                raise SpaceError(f"a parameter's name must be a non-empty string, got {name!r}.")
        self.parameters: dict[str, Parameter] = {n: as_parameter(n, p) for n, p in given.items()}
        self._order = _activity_order(self.parameters)
        _check_parents(self.parameters)
        if isinstance(constraints, str) or callable(constraints):
            constraints = [constraints]
        if not isinstance(constraints, Iterable):
            raise SpaceError(
                f"`constraints` must be a list of functions and expressions, got {constraints!r}."
            )
        self.constraints: tuple[Constraint, ...] = tuple(constraints)
        self._rules = [Rule(c, self.parameters) for c in self.constraints]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, SearchSpace)
            and repr(self.parameters) == repr(other.parameters)  # tells True from 1
            and self.constraints == other.constraints
        )

    def __hash__(self) -> int:
        return hash(tuple(self.parameters))

    def __repr__(self) -> str:
        lines = [f"    {name}={parameter!r}," for name, parameter in self.parameters.items()]
        if self.constraints:
            lines.append(f"    constraints=[{', '.join(rule.name for rule in self._rules)}],")
        return "\n".join(["SearchSpace(", *lines, ")"])

    def _repr_html_(self) -> str:
        rows = [
            (name, *_described(parameter), describe_when(parameter.when))
            for name, parameter in self.parameters.items()
        ]
        rules = "; ".join(rule.name for rule in self._rules)
        return table(
            ["parameter", "kind", "values", "when"], rows, caption=f"constraints: {rules}" if rules else ""
        )

    @property
    def columns(self) -> list[str]:
        """The names of the parameters that vary, in the order of the cube's columns."""
        return [name for name, p in self.parameters.items() if p.n_levels != 1]

    def is_active(self, name: str, config: Mapping[str, Any]) -> bool:
        """Whether `name` exists in `config`, given its parents there."""
        when = self.parameters[name].when or {}
        return all(
            parent in config and any(same(config[parent], value) for value in values)
            for parent, values in when.items()
        )

    def validate(self, config: Mapping[str, Any]) -> Config:
        """The config with plain Python values, in the space's order.

        What tables have for what is not there (None, nan, NA, NaT) is left out where a parameter is inactive.

        Raises:
            ConfigError: if a parameter is unknown, missing, inactive or outside its domain, or a
                constraint does not hold; the message names the parameter, the rule and the value.
        """
        if not isinstance(config, Mapping):
            raise ConfigError(f"a config must be a dictionary, got {config!r}.")
        for name in config:
            self._check_known(name, config[name])
        valid: Config = {}
        for name in self._order:
            parameter = self.parameters[name]
            if not self.is_active(name, valid):
                if name in config and not is_nothing(config[name]):
                    raise ConfigError(
                        f"`{name}` must be absent unless {describe_when(parameter.when)}, "
                        f"got {config[name]!r}."
                    )
                continue
            if name not in config:
                raise ConfigError(f"`{name}` is missing from the config {dict(config)!r}.")
            valid[name] = self._normalised(name, config[name])
        valid = {name: valid[name] for name in self.parameters if name in valid}
        for rule in self._rules:
            if not rule.holds(valid):
                raise ConfigError(f"the constraint {rule.name} does not hold for {valid!r}.")
        return valid

    def fix(self, values: Mapping[str, Any]) -> Config:
        """Some parameters' values, with those of their parents that follow from them.

        Raises:
            ConfigError: if a parameter is unknown, its value is outside its domain, it would be inactive, or
                the values break a constraint, whatever the others are.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"values to fix must be a dictionary, got {values!r}.")
        fixed: Config = {}
        for name, value in values.items():
            fixed[name] = self._normalised(name, value)
        active = set(fixed)
        for name in reversed(self._order):  # children first
            when = (self.parameters[name].when or {}) if name in active else {}
            for parent, allowed in when.items():
                active.add(parent)
                if parent not in fixed and len(allowed) == 1:
                    fixed[parent] = self._normalised(parent, allowed[0])
                elif parent in fixed and not any(same(fixed[parent], value) for value in allowed):
                    raise ConfigError(
                        f"`{name}` exists only where {describe_when(when)}, "
                        f"but {parent} is to be {fixed[parent]!r}."
                    )
        only = self.only(fixed)
        for rule in self._rules:
            if rule.is_broken_by(fixed) or (only is not None and not rule.holds(only)):
                raise ConfigError(f"the constraint {rule.name} does not hold for {fixed!r}, which are fixed.")
        return {name: fixed[name] for name in self.parameters if name in fixed}

    def only(self, fixed: Mapping[str, Any]) -> Config | None:
        """The config that these values are, with the constants; None where they leave something to choose."""
        config: Config = {}
        for name in self._order:
            if self.is_active(name, config):
                parameter = self.parameters[name]
                if name not in fixed and parameter.n_levels != 1:
                    return None
                config[name] = fixed[name] if name in fixed else parameter.from_unit([0.5])[0]
        return {name: config[name] for name in self.parameters if name in config}

    @property
    def constraint_names(self) -> list[str]:
        """The constraints as people wrote them, functions by their names."""
        return [rule.name for rule in self._rules]

    def satisfies(self, config: Mapping[str, Any]) -> bool:
        """Whether every constraint holds for a valid config."""
        return all(rule.holds(config) for rule in self._rules)

    def encode(self, configs: Sequence[Mapping[str, Any]]) -> Tensor:  # (n, d)
        """Points of the unit cube for valid configs, float64; inactive columns stand at 0.5."""
        import torch

        X = torch.full((len(configs), len(self.columns)), 0.5, dtype=torch.float64)
        for j, name in enumerate(self.columns):
            rows = [i for i, config in enumerate(configs) if name in config]
            column = self.parameters[name].to_unit([configs[i][name] for i in rows])
            if len(rows) == len(configs):
                X[:, j] = torch.tensor(column, dtype=X.dtype)
            elif rows:
                X[rows, j] = torch.tensor(column, dtype=X.dtype)
        return X

    def decode(self, X: Any) -> list[Config]:  # (n, d)
        """Configs for points of the unit cube; inactive parameters are absent.

        Raises:
            SpaceError: if `X` does not have one column for each parameter that varies.
        """
        rows = X.tolist() if hasattr(X, "tolist") else [list(row) for row in X]
        d = len(self.columns)
        if any(not isinstance(row, list) or len(row) != d for row in rows):
            raise SpaceError(f"`X` must have shape (n, {d}), got {tuple(getattr(X, 'shape', ()))}.")
        columns = {name: [row[j] for row in rows] for j, name in enumerate(self.columns)}
        constant = [0.5] * len(rows)
        by_name = {n: p.from_unit(columns.get(n, constant)) for n, p in self.parameters.items()}
        configs: list[Config] = []
        for i in range(len(rows)):
            config: Config = {}
            for name in self._order:
                if self.is_active(name, config):
                    config[name] = by_name[name][i]
            configs.append({name: config[name] for name in self.parameters if name in config})
        return configs

    @cached_property
    def cube(self) -> Cube:
        """The space as the core sees it."""
        import torch

        from gpbo.cube import Condition, Cube

        columns = self.columns
        parameters = [self.parameters[name] for name in columns]
        log_edges = torch.full((len(columns), 2), math.nan, dtype=torch.float64)
        for j, p in enumerate(parameters):
            if isinstance(p, Int) and p.log:
                log_edges[j] = torch.tensor(p.log_edges(), dtype=torch.float64)
        conditions = []
        for name in self._order:
            if name not in columns:
                continue
            for parent, values in self._column_conditions(name):
                domain = self.parameters[parent]
                allowed = torch.zeros(domain.n_levels, dtype=torch.bool)
                for value in values:
                    allowed[level_of(domain, value)] = True
                conditions.append(Condition(columns.index(name), columns.index(parent), allowed))
        return Cube(
            n_levels=torch.tensor([p.n_levels for p in parameters], dtype=torch.long),
            is_categorical=torch.tensor(
                [isinstance(p, Categorical) and not p.ordered for p in parameters], dtype=torch.bool
            ),
            log_edges=log_edges,
            conditions=tuple(conditions),
            constraint=self._feasible if self._rules else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """The space as plain values, for JSON and YAML; `from_dict` reads it back.

        A constraint that is a function is written as ``{"callable": its name}``.
        """
        plain: dict[str, Any] = {"parameters": {n: parameter_to_dict(p) for n, p in self.parameters.items()}}
        if self.constraints:
            plain["constraints"] = [
                c if isinstance(c, str) else {"callable": rule.name}
                for c, rule in zip(self.constraints, self._rules, strict=True)
            ]
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> SearchSpace:
        """The space that `to_dict` wrote.

        Raises:
            SpaceError: if the dictionary is not of that form, or it names a function as a constraint.
        """
        if not isinstance(plain, Mapping) or not isinstance(plain.get("parameters"), Mapping):
            raise SpaceError(f"expected a dictionary with the key 'parameters', got {plain!r}.")
        constraints = plain.get("constraints") or []
        for constraint in [constraints] if isinstance(constraints, str) else constraints:
            if not isinstance(constraint, str):
                raise SpaceError(f"the constraint {constraint!r} is a function and must be given in code.")
        parameters = {name: parameter_from_dict(name, p) for name, p in plain["parameters"].items()}
        return cls(parameters, constraints=constraints)

    @classmethod
    def from_ray(cls, param_space: Mapping[str, Any]) -> SearchSpace:
        """The space of Ray Tune's domains; see `gpbo.integrations.ray_space`."""
        from gpbo.integrations.ray_space import space_from_ray

        return space_from_ray(param_space)

    @classmethod
    def from_optuna(cls, distributions: Mapping[str, Any]) -> SearchSpace:
        """The space of Optuna's distributions; see `gpbo.integrations.optuna_space`."""
        from gpbo.integrations.optuna_space import space_from_optuna

        return space_from_optuna(distributions)

    @classmethod
    def from_sklearn(cls, param_distributions: Mapping[str, Any]) -> SearchSpace:
        """The space of scikit-learn's lists and distributions; see `gpbo.integrations.sklearn_space`."""
        from gpbo.integrations.sklearn_space import space_from_sklearn

        return space_from_sklearn(param_distributions)

    @classmethod
    def from_configspace(cls, space: Any) -> SearchSpace:
        """The space of a ConfigurationSpace; see `gpbo.integrations.configspace`."""
        from gpbo.integrations.configspace import space_from_configspace

        return space_from_configspace(space)

    def part(self, fixed: Mapping[str, Any]) -> Cube:
        """The part of the cube where parameters have the values that `fix` returned.

        Its points have all columns, so that what was observed elsewhere still tells something about it.
        """
        import torch

        at = torch.full((len(self.columns),), math.nan, dtype=torch.float64)
        for name, value in fixed.items():
            if name in self.columns:
                [at[self.columns.index(name)]] = self.parameters[name].to_unit([value])

        def allowed(X: Tensor) -> Tensor:  # (n, d) -> (n,)
            configs = self.decode(X)
            found = [fixed.keys() <= config.keys() and self.satisfies(config) for config in configs]
            return torch.tensor(found, dtype=torch.bool, device=X.device)

        parents = {parent for name in fixed for parent in self.parameters[name].when or {}}
        return replace(
            self.cube, fixed=at, constraint=self.cube.constraint if parents <= fixed.keys() else allowed
        )

    def _normalised(self, name: str, value: Any) -> Any:
        self._check_known(name, value)
        try:
            return self.parameters[name].normalise(value)
        except ConfigError as error:
            raise ConfigError(f"`{name}` {error}.") from None

    def _check_known(self, name: str, value: Any) -> None:
        if name not in self.parameters:
            hint = did_you_mean(str(name), self.parameters)
            raise ConfigError(f"`{name}` is not a parameter of this space, got {value!r}.{hint}")

    def _column_conditions(self, name: str) -> list[tuple[str, tuple[Any, ...]]]:
        """The conditions on parents that vary; through constants, those of the constants' own parents."""
        found = []
        for parent, values in (self.parameters[name].when or {}).items():
            if self.parameters[parent].n_levels == 1:
                found += self._column_conditions(parent)
            else:
                found.append((parent, values))
        return found

    def _feasible(self, X: Tensor) -> Tensor:  # (n, d) -> (n,)
        import torch

        allowed = [self.satisfies(config) for config in self.decode(X)]
        return torch.tensor(allowed, dtype=torch.bool, device=X.device)


def is_nothing(value: Any) -> bool:
    """Whether it is None, nan, or what pandas has for them: NaT differs from itself, NA says neither."""
    try:
        return value is None or bool(value != value)
    except (TypeError, ValueError, RuntimeError) as error:  # the last two: a vector, which is something
        return isinstance(error, TypeError)


def _described(parameter: Parameter) -> tuple[str, str]:
    """A parameter's kind and its values, in words."""
    if isinstance(parameter, Categorical):
        kind = "constant" if parameter.n_levels == 1 else "ordered choice" if parameter.ordered else "choice"
        return kind, ", ".join(map(repr, parameter.choices))
    words = f"{parameter.low:g} to {parameter.high:g}"
    words += " on a log scale" if parameter.log else ""
    step = parameter.step if isinstance(parameter, Float) or parameter.step != 1 else None
    return type(parameter).__name__.lower(), words + (f" in steps of {step:g}" if step is not None else "")


def _activity_order(parameters: Mapping[str, Parameter]) -> list[str]:
    """Names such that parents come first.

    Raises:
        SpaceError: if a parent is unknown or the conditions form a cycle.
    """
    order: list[str] = []
    state: dict[str, str] = {}

    def visit(name: str, path: list[str]) -> None:
        if state.get(name) == "done":
            return
        if state.get(name) == "open":
            cycle = " -> ".join([*path[path.index(name) :], name])
            raise SpaceError(f"conditions must not form a cycle, got {cycle}.")
        state[name] = "open"
        for parent in parameters[name].when or {}:
            if parent not in parameters:
                hint = did_you_mean(str(parent), parameters)
                raise SpaceError(f"`{name}`: `when` names {parent!r}, which is not a parameter.{hint}")
            visit(parent, [*path, name])
        state[name] = "done"
        order.append(name)

    for name in parameters:
        visit(name, [])
    return order


def _check_parents(parameters: Mapping[str, Parameter]) -> None:
    for name, parameter in parameters.items():
        for parent, values in (parameter.when or {}).items():
            domain = parameters[parent]
            if not 0 < domain.n_levels <= _MAX_PARENT_LEVELS:
                how_many = f"has {domain.n_levels}" if domain.n_levels else "is continuous"
                raise SpaceError(
                    f"`{name}`: `when` needs a parent with at most {_MAX_PARENT_LEVELS} separate values, "
                    f"but {parent!r} {how_many}."
                )
            for value in values:
                try:
                    domain.normalise(value)
                except ConfigError as error:
                    raise SpaceError(
                        f"`{name}`: `when` gives {parent!r} a value it cannot take: {error}."
                    ) from None
