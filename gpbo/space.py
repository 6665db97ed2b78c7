"""The search space: people's dictionaries on one side, points of the unit cube on the other.

Names, units, log scales, choices and conditions exist only here. Every parameter that can vary is one
column of the cube. Discrete parameters are encoded at the middle of their cell, ``(k + 1/2) / n_levels``,
so that a uniform draw in the cube is uniform over the levels; log-scaled integers have cells that are
uniform in the logarithm. Continuous values are decoded to as many decimals as survive the way there and
back, so ``decode(encode([config])) == [config]`` for every config that gpbo proposes.
"""

from __future__ import annotations

import ast
import itertools
import json
import math
import numbers
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gpbo.errors import ConfigError, SpaceError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

    from gpbo.cube import Cube

Config = dict[str, Any]
Constraint = Callable[[Mapping[str, Any]], object] | str

_EPS = 2.0**-52
_MAX_INT = 2**53  # beyond it float64 no longer tells neighbours apart
_MAX_LOG_INT = 10**12  # beyond it exp(log(k)) no longer rounds back to k


@dataclass(frozen=True, slots=True)
class Float:
    """A real number in ``[low, high]``.

    Args:
        low: The smallest value; above 0 with `log`.
        high: The largest value.
        log: Whether equal ratios, rather than equal differences, are equally likely.
        step: The distance between allowed values, which must divide ``high - low``; not with `log`.
        when: The condition under which it exists: parent names to a value or a list of values.

    Raises:
        SpaceError: if the bounds, the step or the condition break these rules.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    when: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        low, high = _real("low", self.low), _real("high", self.high)
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        _check_bounds(low, high, self.log, self.step)
        if not math.isfinite(high - low):
            raise SpaceError(f"`high - low` must be finite, got low={low}, high={high}.")
        if self.step is not None:
            step = _real("step", self.step)
            if step <= 0:
                raise SpaceError(f"`step` must be positive, got {step}.")
            object.__setattr__(self, "step", step)
            n = (Decimal(str(high)) - Decimal(str(low))) / Decimal(str(step))
            if n != n.to_integral_value():
                nearest = float(Decimal(str(low)) + n.to_integral_value() * Decimal(str(step)))
                raise SpaceError(
                    f"`step` must divide high - low, got low={low}, high={high}, step={step}; "
                    f"with this step `high` could be {nearest}."
                )
        object.__setattr__(self, "when", _freeze_when(self.when))

    @property
    def n_levels(self) -> int:
        """How many values there are; 0 for a continuum."""
        if self.step is None:
            return 0
        return 1 + round((self.high - self.low) / self.step)

    def normalise(self, value: Any) -> float:
        """`value` as a float of this parameter, or a ConfigError that states the rule it breaks."""
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise ConfigError(f"must be a finite number, got {value!r}")
        value = float(value)
        if not self.low <= value <= self.high:
            raise ConfigError(f"must be in [{self.low}, {self.high}], got {value!r}")
        if self.step is not None:
            level = self._level(round((value - self.low) / self.step))
            if abs(value - level) > 1e-9 * self.step:
                raise ConfigError(f"must be {self.low} plus a multiple of {self.step}, got {value!r}")
            return level
        return value

    def to_unit(self, values: Sequence[Any]) -> list[float]:
        """The column in [0, 1] for normalised values."""
        low, high = self.low, self.high
        if self.step is not None:
            n = self.n_levels
            return [(round((v - low) / self.step) + 0.5) / n for v in values]
        if self.log:
            span = math.log(high / low)
            return [min(max(math.log(v / low) / span, 0.0), 1.0) for v in values]
        return [(v - low) / (high - low) for v in values]

    def from_unit(self, column: Iterable[float]) -> list[float]:
        """The values for a column in [0, 1]."""
        low, high = self.low, self.high
        if self.step is not None:
            n = self.n_levels
            return [self._level(_cell(u, n)) for u in column]
        if self.log:
            span = math.log(high / low)
            digits = _safe_digits(4 * _EPS * max(1.0, span)) - 1
            raw = (low * math.exp(u * span) for u in column)
            return [min(max(float(f"{v:.{digits}e}"), low), high) for v in raw]
        scale = max(abs(low), abs(high))
        digits = _safe_digits(8 * _EPS * scale) - 1
        coarse = high - low < 1e-6 * scale  # rounding would leave too few values to choose from
        raw = (low + u * (high - low) for u in column)
        return [min(max(v if coarse else round(v, digits), low), high) for v in raw]

    def _level(self, k: int) -> float:
        return float(Decimal(str(self.low)) + k * Decimal(str(self.step)))


@dataclass(frozen=True, slots=True)
class Int:
    """A whole number in ``[low, high]``, both included.

    Args:
        low: The smallest value; at least 1 with `log`.
        high: The largest value.
        log: Whether equal ratios are equally likely.
        step: The distance between allowed values, which must divide ``high - low``; 1 with `log`.
        when: The condition under which it exists: parent names to a value or a list of values.

    Raises:
        SpaceError: if the bounds, the step or the condition break these rules.
    """

    low: int
    high: int
    log: bool = False
    step: int = 1
    when: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("low", "high", "step"):
            value = getattr(self, name)
            if isinstance(value, bool) or not _is_integral(value):
                raise SpaceError(f"`{name}` must be a whole number, got {value!r}.")
            object.__setattr__(self, name, int(value))
        _check_bounds(self.low, self.high, self.log, None if self.step == 1 else self.step)
        if self.step < 1:
            raise SpaceError(f"`step` must be >= 1, got {self.step}.")
        if (self.high - self.low) % self.step:
            nearest = self.high - (self.high - self.low) % self.step
            raise SpaceError(
                f"`step` must divide high - low, got low={self.low}, high={self.high}, step={self.step}; "
                f"with this step `high` could be {nearest}."
            )
        limit = _MAX_LOG_INT if self.log else _MAX_INT
        if max(abs(self.low), abs(self.high)) > limit:
            raise SpaceError(f"bounds must be within ±{limit}, got low={self.low}, high={self.high}.")
        object.__setattr__(self, "when", _freeze_when(self.when))

    @property
    def n_levels(self) -> int:
        """How many values there are."""
        return 1 + (self.high - self.low) // self.step

    def normalise(self, value: Any) -> int:
        """`value` as an int of this parameter, or a ConfigError that states the rule it breaks."""
        if isinstance(value, bool) or not _is_integral(value):
            raise ConfigError(f"must be a whole number, got {value!r}")
        value = int(value)
        if not self.low <= value <= self.high:
            raise ConfigError(f"must be in [{self.low}, {self.high}], got {value}")
        if (value - self.low) % self.step:
            raise ConfigError(f"must be {self.low} plus a multiple of {self.step}, got {value}")
        return value

    def to_unit(self, values: Sequence[Any]) -> list[float]:
        """The column in [0, 1] for normalised values."""
        if self.log:
            low, span = self._log_edges()
            return [(math.log(v) - low) / span for v in values]
        n = self.n_levels
        return [((v - self.low) // self.step + 0.5) / n for v in values]

    def from_unit(self, column: Iterable[float]) -> list[int]:
        """The values for a column in [0, 1]."""
        if self.log:
            low, span = self._log_edges()
            return [min(max(round(math.exp(low + u * span)), self.low), self.high) for u in column]
        n = self.n_levels
        return [self.low + self.step * _cell(u, n) for u in column]

    def _log_edges(self) -> tuple[float, float]:
        low = math.log(self.low - 0.5)
        return low, math.log(self.high + 0.5) - low


@dataclass(frozen=True, slots=True)
class Categorical:
    """One of a few choices.

    Args:
        choices: Strings, numbers, booleans or None, each once; a single one makes a constant.
        ordered: Whether neighbours in the list are more alike than others.
        when: The condition under which it exists: parent names to a value or a list of values.

    Raises:
        SpaceError: if a choice is of another kind or stands there twice.
    """

    choices: tuple[Any, ...]
    ordered: bool = False
    when: Mapping[str, Any] | None = None

    def __init__(
        self, choices: Iterable[Any], *, ordered: bool = False, when: Mapping[str, Any] | None = None
    ) -> None:
        if isinstance(choices, str | bytes) or not isinstance(choices, Iterable):
            raise SpaceError(f"`choices` must be a list, got {choices!r}.")
        choices = tuple(_plain(choice) for choice in choices)
        if not choices:
            raise SpaceError("`choices` must have at least one entry, got none.")
        for choice in choices:
            finite = not isinstance(choice, float) or math.isfinite(choice)
            if not (choice is None or isinstance(choice, str | int | float | bool)) or not finite:
                raise SpaceError(
                    f"a choice must be a string, a finite number, a boolean or None, got {choice!r}; "
                    "use a name and look the object up in the objective."
                )
        for one, two in itertools.combinations(choices, 2):
            if _same(one, two):
                raise SpaceError(f"`choices` must differ from each other, got {two!r} twice.")
        object.__setattr__(self, "choices", choices)
        object.__setattr__(self, "ordered", bool(ordered))
        object.__setattr__(self, "when", _freeze_when(when))

    @property
    def n_levels(self) -> int:
        """How many choices there are."""
        return len(self.choices)

    def normalise(self, value: Any) -> Any:
        """The choice equal to `value`, or a ConfigError that lists the choices."""
        index = self._find(_plain(value))
        if index is None:
            hint = did_you_mean(value, map(str, self.choices)) if isinstance(value, str) else ""
            raise ConfigError(
                f"must be one of {list(self.choices)!r}, got {value!r}.{hint}".removesuffix(".")
            )
        return self.choices[index]

    def to_unit(self, values: Sequence[Any]) -> list[float]:
        """The column in [0, 1] for normalised values."""
        n = self.n_levels
        return [((self._find(v) or 0) + 0.5) / n for v in values]

    def from_unit(self, column: Iterable[float]) -> list[Any]:
        """The values for a column in [0, 1]."""
        n = self.n_levels
        return [self.choices[_cell(u, n)] for u in column]

    def _find(self, value: Any) -> int | None:
        return next((i for i, choice in enumerate(self.choices) if _same(choice, value)), None)


Parameter = Float | Int | Categorical


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
        given = {**(parameters or {}), **named}
        if not given:
            raise SpaceError("a search space needs at least one parameter, got none.")
        for name in given:
            if not isinstance(name, str) or not name:
                raise SpaceError(f"a parameter's name must be a non-empty string, got {name!r}.")
        self.parameters: dict[str, Parameter] = {n: _parameter(n, p) for n, p in given.items()}
        self._order = _activity_order(self.parameters)
        _check_parents(self.parameters)
        if isinstance(constraints, str) or callable(constraints):
            constraints = [constraints]
        self.constraints: tuple[Constraint, ...] = tuple(constraints)
        self._rules = [_Rule(c, self.parameters) for c in self.constraints]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, SearchSpace)
            and list(self.parameters.items()) == list(other.parameters.items())
            and self.constraints == other.constraints
        )

    def __hash__(self) -> int:
        return hash(tuple(self.parameters))

    def __repr__(self) -> str:
        lines = [f"    {name}={parameter!r}," for name, parameter in self.parameters.items()]
        if self.constraints:
            lines.append(f"    constraints=[{', '.join(rule.name for rule in self._rules)}],")
        return "\n".join(["SearchSpace(", *lines, ")"])

    @property
    def columns(self) -> list[str]:
        """The names of the parameters that vary, in the order of the cube's columns."""
        return [name for name, p in self.parameters.items() if p.n_levels != 1]

    def is_active(self, name: str, config: Mapping[str, Any]) -> bool:
        """Whether `name` exists in `config`, given its parents there."""
        when = self.parameters[name].when or {}
        return all(
            parent in config and any(_same(config[parent], value) for value in values)
            for parent, values in when.items()
        )

    def validate(self, config: Mapping[str, Any]) -> Config:
        """The config with plain Python values, in the space's order.

        Raises:
            ConfigError: if a parameter is unknown, missing, inactive or outside its domain, or a
                constraint does not hold; the message names the parameter, the rule and the value.
        """
        if not isinstance(config, Mapping):
            raise ConfigError(f"a config must be a dictionary, got {config!r}.")
        for name in config:
            if name not in self.parameters:
                hint = did_you_mean(str(name), self.parameters)
                raise ConfigError(f"`{name}` is not a parameter of this space, got {config[name]!r}.{hint}")
        valid: Config = {}
        for name in self._order:
            parameter = self.parameters[name]
            if not self.is_active(name, valid):
                if name in config:
                    raise ConfigError(
                        f"`{name}` must be absent unless {_describe_when(parameter.when)}, "
                        f"got {config[name]!r}."
                    )
                continue
            if name not in config:
                raise ConfigError(f"`{name}` is missing from the config {dict(config)!r}.")
            try:
                valid[name] = parameter.normalise(config[name])
            except ConfigError as error:
                raise ConfigError(f"`{name}` {error}.") from None
        valid = {name: valid[name] for name in self.parameters if name in valid}
        for rule in self._rules:
            if not rule.holds(valid):
                raise ConfigError(f"the constraint {rule.name} does not hold for {valid!r}.")
        return valid

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
        by_name = {
            name: self.parameters[name].from_unit([row[j] for row in rows])
            for j, name in enumerate(self.columns)
        }
        configs: list[Config] = []
        for i in range(len(rows)):
            config: Config = {}
            for name in self._order:
                if self.is_active(name, config):
                    values = by_name.get(name)
                    config[name] = values[i] if values is not None else self._constant(name)
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
                low, span = p._log_edges()
                log_edges[j] = torch.tensor([low, low + span], dtype=torch.float64)
        conditions = []
        for name in self._order:
            if name not in columns:
                continue
            for parent, values in self._column_conditions(name):
                domain = self.parameters[parent]
                allowed = torch.zeros(domain.n_levels, dtype=torch.bool)
                for value in values:
                    allowed[_level_of(domain, value)] = True
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
        plain: dict[str, Any] = {"parameters": {n: _to_dict(p) for n, p in self.parameters.items()}}
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
        constraints = list(plain.get("constraints", ()))
        for constraint in constraints:
            if not isinstance(constraint, str):
                raise SpaceError(f"the constraint {constraint!r} is a function and must be given in code.")
        parameters = {name: parameter_from_dict(name, p) for name, p in plain["parameters"].items()}
        return cls(parameters, constraints=constraints)

    def _constant(self, name: str) -> Any:
        parameter = self.parameters[name]
        return parameter.choices[0] if isinstance(parameter, Categorical) else parameter.low

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


def parameter_from_dict(name: str, plain: Any) -> Parameter:
    """The parameter that a dictionary with a ``type`` describes; a plain value is a constant.

    Raises:
        SpaceError: if the type or a key is unknown, or a value breaks the parameter's rules.
    """
    if not isinstance(plain, Mapping):
        return _parameter(name, plain)
    kinds = {"float": Float, "int": Int, "categorical": Categorical}
    options = dict(plain)
    kind = options.pop("type", None)
    if kind not in kinds:
        hint = did_you_mean(str(kind), kinds)
        raise SpaceError(f"`{name}`: type must be one of {list(kinds)}, got {kind!r}.{hint}")
    known = kinds[kind].__dataclass_fields__
    for option in options:
        if option not in known:
            hint = did_you_mean(str(option), known)
            raise SpaceError(f"`{name}`: {option!r} is not an option of type {kind!r}.{hint}")
    try:
        return kinds[kind](**options)
    except TypeError:
        missing = [k for k in ("low", "high", "choices") if k in known and k not in options]
        raise SpaceError(f"`{name}`: type {kind!r} also needs {missing}, got {options!r}.") from None
    except SpaceError as error:
        raise SpaceError(f"`{name}`: {error}") from None


class _Rule:
    """One constraint, compiled when it is an expression."""

    _OPERATORS: dict[type, Callable[..., Any]] = {
        ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
        ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
        ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_,
        ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
        ast.Eq: operator.eq, ast.NotEq: operator.ne,
        ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
    }  # fmt: skip

    def __init__(self, constraint: Constraint, parameters: Mapping[str, Parameter]) -> None:
        self._tree: ast.expr | None = None
        if isinstance(constraint, str):
            self.name = repr(constraint)
            self._tree, self._names = self._parse(constraint, parameters)
        elif callable(constraint):
            self.name = getattr(constraint, "__qualname__", repr(constraint))
            self._call = constraint
        else:
            raise SpaceError(f"a constraint must be a function or an expression, got {constraint!r}.")

    def holds(self, config: Mapping[str, Any]) -> bool:
        try:
            if self._tree is None:
                return bool(self._call(config))
            if not self._names <= config.keys():
                return True
            return bool(self._value(self._tree, config))
        except Exception as error:
            raise SpaceError(
                f"the constraint {self.name} raised {type(error).__name__}: {error} on {dict(config)!r}; "
                "inactive parameters are absent, so use config.get(name) for them."
            ) from error

    def _parse(self, text: str, parameters: Mapping[str, Parameter]) -> tuple[ast.expr, set[str]]:
        try:
            tree = ast.parse(text, mode="eval").body
        except SyntaxError as error:
            raise SpaceError(f"the constraint {text!r} is not an expression: {error.msg}.") from None
        names: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                if node.id not in parameters:
                    hint = did_you_mean(node.id, parameters)
                    raise SpaceError(f"the constraint {text!r} names {node.id!r}, not a parameter.{hint}")
                names.add(node.id)
            allowed = (
                ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Constant, ast.Name, ast.List, ast.Tuple,
                ast.expr_context, ast.And, ast.Or, *self._OPERATORS,
            )  # fmt: skip
            if not isinstance(node, allowed):
                what = type(node).__name__
                raise SpaceError(f"the constraint {text!r} may hold arithmetic and comparisons, not {what}.")
        return tree, names

    def _value(self, node: ast.expr, config: Mapping[str, Any]) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return config[name]
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                return [self._value(element, config) for element in elements]
            case ast.UnaryOp(op=op, operand=operand):
                return self._OPERATORS[type(op)](self._value(operand, config))
            case ast.BinOp(left=left, op=op, right=right):
                return self._OPERATORS[type(op)](self._value(left, config), self._value(right, config))
            case ast.BoolOp(op=ast.And(), values=values):
                return all(self._value(value, config) for value in values)
            case ast.BoolOp(op=ast.Or(), values=values):
                return any(self._value(value, config) for value in values)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                terms = [self._value(term, config) for term in (left, *comparators)]
                return all(
                    self._OPERATORS[type(op)](a, b) for op, a, b in zip(ops, terms, terms[1:], strict=False)
                )
        raise AssertionError(ast.dump(node))  # _parse lets nothing else through


def _parameter(name: str, given: Any) -> Parameter:
    if isinstance(given, Float | Int | Categorical):
        return given
    try:
        return Categorical([given])
    except SpaceError:
        raise SpaceError(
            f"`{name}` must be a Float, an Int, a Categorical or a constant, got {given!r}."
        ) from None


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
            if domain.n_levels == 0:
                raise SpaceError(
                    f"`{name}`: `when` needs a parent with separate values, but {parent!r} is continuous."
                )
            for value in values:
                try:
                    domain.normalise(value)
                except ConfigError as error:
                    raise SpaceError(
                        f"`{name}`: `when` gives {parent!r} a value it cannot take: {error}."
                    ) from None


def _check_bounds(low: float, high: float, log: bool, step: float | None) -> None:
    if not isinstance(log, bool):
        raise SpaceError(f"`log` must be True or False, got {log!r}.")
    if low >= high:
        raise SpaceError(f"`low` must be below `high`, got low={low}, high={high}.")
    if log and low <= 0:
        raise SpaceError(f"`low` must be above 0 with log=True, got {low}.")
    if log and step is not None:
        raise SpaceError(f"`step` cannot be combined with log=True, got {step}.")


def _real(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise SpaceError(f"`{name}` must be a finite number, got {value!r}.")
    return float(value)


def _is_integral(value: Any) -> bool:
    if isinstance(value, numbers.Integral):
        return True
    return isinstance(value, numbers.Real) and math.isfinite(value) and float(value).is_integer()


def _freeze_when(when: Any) -> Mapping[str, tuple[Any, ...]] | None:
    if when is None:
        return None
    if not isinstance(when, Mapping) or not when:
        raise SpaceError(f"`when` must map parents to the values that switch it on, got {when!r}.")
    frozen = {}
    for parent, values in when.items():
        listed = tuple(values) if isinstance(values, list | tuple | set | frozenset) else (values,)
        if not listed:
            raise SpaceError(f"`when` must name at least one value of {parent!r}, got none.")
        frozen[parent] = tuple(_plain(v) for v in listed)
    return frozen


def _describe_when(when: Mapping[str, tuple[Any, ...]] | None) -> str:
    parts = (f"{p} is {v[0]!r}" if len(v) == 1 else f"{p} is in {list(v)!r}" for p, v in (when or {}).items())
    return " and ".join(parts)


def _plain(value: Any) -> Any:
    """A numpy or torch scalar as the Python value it holds."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return value


def _same(one: Any, two: Any) -> bool:
    """Equality that tells True from 1."""
    return isinstance(one, bool) == isinstance(two, bool) and bool(one == two)


def _cell(u: float, n: int) -> int:
    return min(max(int(u * n), 0), n - 1)


def _level_of(domain: Parameter, value: Any) -> int:
    value = domain.normalise(value)
    if isinstance(domain, Categorical):
        return domain._find(value) or 0
    return round((value - domain.low) / (domain.step or 1))


def _safe_digits(error: float) -> int:
    return math.floor(-math.log10(error))


def _to_dict(parameter: Parameter) -> dict[str, Any]:
    plain: dict[str, Any] = {"type": type(parameter).__name__.lower()}
    for name, field in parameter.__dataclass_fields__.items():
        value = getattr(parameter, name)
        if value != field.default:
            plain[name] = value
    return dict(json.loads(json.dumps(plain)))  # tuples become lists
