"""The kinds of parameters, and the map of each between its values and [0, 1].

Discrete values are encoded at the middle of their cell, ``(k + 1/2) / n_levels``, so that a uniform draw in
[0, 1] is uniform over the levels; log-scaled integers have cells that are uniform in the logarithm.
Continuous values are decoded to as many decimals as survive the way there and back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

from gpbo.checks import as_finite, as_whole
from gpbo.errors import ConfigError, SpaceError, did_you_mean

_EPS = 2.0**-52
_TINY = 2.0**-1074  # the smallest positive float64
_NARROW = 1e-4  # of its magnitude: a narrower range is neither rounded nor bent by `log`
_MAX_RATIO = 1e300  # beyond it high / low is no float64
_MAX_LEVELS = 2**48  # beyond it (k + 1/2) / n_levels no longer gives k back
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
        if self.log and high / low > _MAX_RATIO:
            raise SpaceError(
                f"`high / low` must be at most {_MAX_RATIO} with log=True, got low={low}, high={high}."
            )
        if self.step is not None:
            object.__setattr__(self, "step", _checked_step(low, high, self.step))
        object.__setattr__(self, "when", _freeze_when(self.when))

    @property
    def n_levels(self) -> int:
        """How many values there are; 0 for a continuum."""
        if self.step is None:
            return 0
        return 1 + round((self.high - self.low) / self.step)

    def normalise(self, value: Any) -> float:
        """`value` as a float of this parameter, or a ConfigError that states the rule it breaks."""
        real = _finite(value)
        if real is None:
            raise ConfigError(f"must be a finite number, got {value!r}")
        if not self.low <= real <= self.high:
            raise ConfigError(f"must be in [{self.low}, {self.high}], got {real!r}")
        if self.step is None:
            return real
        level = self._level(round((real - self.low) / self.step))
        if abs(real - level) > 1e-9 * self.step + 4 * _EPS * abs(real):
            raise ConfigError(f"must be {self.low} plus a multiple of {self.step}, got {real!r}")
        return level

    def to_unit(self, values: Sequence[Any]) -> list[float]:
        """The column in [0, 1] for normalised values."""
        low, high = self.low, self.high
        if self.step is not None:
            n = self.n_levels
            return [(round((v - low) / self.step) + 0.5) / n for v in values]
        if self.log and not self._narrow:
            span = math.log(high / low)
            return [math.log(v / low) / span for v in values]
        return [(v - low) / (high - low) for v in values]

    def from_unit(self, column: Iterable[float]) -> list[float]:
        """The values for a column in [0, 1]."""
        if self.step is not None:
            n = self.n_levels
            return [self._level(_cell(u, n)) for u in column]
        # The ends are exact, whatever rounding does beside them.
        return [self.low if u <= 0 else self.high if u >= 1 else self._between(u) for u in column]

    def _between(self, u: float) -> float:
        low, high = self.low, self.high
        if self._narrow:
            value = low + u * (high - low)
        elif self.log:
            span = math.log(high / low)
            digits = _safe_digits(4 * _EPS * max(1.0, span))
            value = float(f"{low * math.exp(u * span):.{digits}e}")
        else:
            digits = _safe_digits(8 * _EPS * max(abs(low), abs(high)))
            value = round(low + u * (high - low), digits) + 0.0  # + 0.0 makes -0.0 a 0.0
        value = min(max(value, low), high)
        [back] = self.to_unit([value])  # one too near an end to be told from it is that end
        return low if back <= 0 else high if back >= 1 else value

    @property
    def _narrow(self) -> bool:
        return self.high - self.low < _NARROW * max(abs(self.low), abs(self.high))

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
            whole = _whole(value)
            if whole is None:
                raise SpaceError(f"`{name}` must be a whole number, got {value!r}.")
            object.__setattr__(self, name, whole)
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
        _check_n_levels(self.n_levels)
        object.__setattr__(self, "when", _freeze_when(self.when))

    @property
    def n_levels(self) -> int:
        """How many values there are."""
        return 1 + (self.high - self.low) // self.step

    def normalise(self, value: Any) -> int:
        """`value` as an int of this parameter, or a ConfigError that states the rule it breaks."""
        whole = _whole(value)
        if whole is None:
            raise ConfigError(f"must be a whole number, got {value!r}")
        if not self.low <= whole <= self.high:
            raise ConfigError(f"must be in [{self.low}, {self.high}], got {whole}")
        if (whole - self.low) % self.step:
            raise ConfigError(f"must be {self.low} plus a multiple of {self.step}, got {whole}")
        return whole

    def to_unit(self, values: Sequence[Any]) -> list[float]:
        """The column in [0, 1] for normalised values."""
        if self.log:
            low, high = self.log_edges()
            return [(math.log(v) - low) / (high - low) for v in values]
        n = self.n_levels
        return [((v - self.low) // self.step + 0.5) / n for v in values]

    def from_unit(self, column: Iterable[float]) -> list[int]:
        """The values for a column in [0, 1]."""
        if self.log:
            low, high = self.log_edges()
            raw = (round(math.exp(low + u * (high - low))) for u in column)
            return [min(max(value, self.low), self.high) for value in raw]
        n = self.n_levels
        return [self.low + self.step * _cell(u, n) for u in column]

    def log_edges(self) -> tuple[float, float]:
        """The natural logarithms of the outer edges of the first and the last cell."""
        return math.log(self.low - 0.5), math.log(self.high + 0.5)


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
        if isinstance(choices, str | bytes | set | frozenset) or not isinstance(choices, Iterable):
            raise SpaceError(f"`choices` must be a list, got {choices!r}.")
        choices = tuple(_plain(choice) for choice in choices)
        if not choices:
            raise SpaceError("`choices` must have at least one entry, got none.")
        for choice in choices:
            if not _is_choice(choice):
                raise SpaceError(
                    f"a choice must be a string, a finite number, a boolean or None, got {choice!r}; "
                    "use a name and look the object up in the objective."
                )
        seen = set()
        for choice in choices:
            if _key(choice) in seen:
                raise SpaceError(f"`choices` must differ from each other, got {choice!r} twice.")
            seen.add(_key(choice))
        if not isinstance(ordered, bool):
            raise SpaceError(f"`ordered` must be True or False, got {ordered!r}.")
        object.__setattr__(self, "choices", choices)
        object.__setattr__(self, "ordered", ordered)
        object.__setattr__(self, "when", _freeze_when(when))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Categorical) and repr(self) == repr(other)  # True is not 1 here

    def __hash__(self) -> int:
        return hash(self.choices)

    @property
    def n_levels(self) -> int:
        """How many choices there are."""
        return len(self.choices)

    def normalise(self, value: Any) -> Any:
        """The choice equal to `value`, or a ConfigError that lists the choices."""
        index = self._find(_plain(value))
        if index is None:
            hint = ""
            if isinstance(value, str):
                texts = [choice for choice in self.choices if isinstance(choice, str)]
                hint = did_you_mean(value, texts)
                if any(value == str(choice) for choice in self.choices):
                    hint = f"{value} without quotes is a choice, the text {value!r} is not"
            nearest = f" ({hint.strip()})" if hint else ""  # the caller ends the sentence
            raise ConfigError(f"must be one of {list(self.choices)!r}, got {value!r}{nearest}")
        return self.choices[index]

    def to_unit(self, values: Sequence[Any]) -> list[float]:
        """The column in [0, 1] for normalised values."""
        column = {_key(choice): (i + 0.5) / self.n_levels for i, choice in enumerate(self.choices)}
        return [column[_key(v)] for v in values]

    def from_unit(self, column: Iterable[float]) -> list[Any]:
        """The values for a column in [0, 1]."""
        n = self.n_levels
        return [self.choices[_cell(u, n)] for u in column]

    def _find(self, value: Any) -> int | None:
        if not _is_choice(value):
            return None
        return next((i for i, choice in enumerate(self.choices) if same(choice, value)), None)


Parameter = Float | Int | Categorical

_KINDS: dict[str, type[Parameter]] = {"float": Float, "int": Int, "categorical": Categorical}


def parameter_from_dict(name: str, plain: Any) -> Parameter:
    """The parameter that a dictionary with a ``type`` describes; a plain value is a constant.

    Raises:
        SpaceError: if the type or a key is unknown, or a value breaks the parameter's rules.
    """
    if not isinstance(plain, Mapping):
        return as_parameter(name, plain)
    options = dict(plain)
    kind = options.pop("type", None)
    if not isinstance(kind, str) or kind not in _KINDS:
        hint = did_you_mean(str(kind), _KINDS)
        raise SpaceError(f"`{name}`: type must be one of {list(_KINDS)}, got {kind!r}.{hint}")
    known = [field.name for field in fields(_KINDS[kind])]
    for option in options:
        if option not in known:
            hint = did_you_mean(str(option), known)
            raise SpaceError(f"`{name}`: {option!r} is not an option of type {kind!r}.{hint}")
    try:
        return _KINDS[kind](**options)
    except TypeError:
        missing = [k for k in ("low", "high", "choices") if k in known and k not in options]
        raise SpaceError(f"`{name}`: type {kind!r} also needs {missing}, got {options!r}.") from None
    except SpaceError as error:
        raise SpaceError(f"`{name}`: {error}") from None


def as_parameter(name: str, given: Any) -> Parameter:
    """The parameter itself, or the constant that a plain value stands for.

    Raises:
        SpaceError: if it is neither.
    """
    if isinstance(given, Float | Int | Categorical):
        return given
    try:
        return Categorical([given])
    except SpaceError:
        raise SpaceError(
            f"`{name}` must be a Float, an Int, a Categorical or a constant, got {given!r}."
        ) from None


def parameter_to_dict(parameter: Parameter) -> dict[str, Any]:
    """The parameter as plain values without its defaults; `parameter_from_dict` reads it back."""
    plain: dict[str, Any] = {"type": type(parameter).__name__.lower()}
    for field in fields(parameter):
        value = getattr(parameter, field.name)
        if value != field.default:
            plain[field.name] = value
    return dict(json.loads(json.dumps(plain)))  # tuples become lists


def level_of(domain: Parameter, value: Any) -> int:
    """The level that `value` is, of a parameter that has levels."""
    value = domain.normalise(value)
    if isinstance(domain, Categorical):
        return next(i for i, choice in enumerate(domain.choices) if same(choice, value))
    return round((value - domain.low) / (domain.step or 1))


def describe_when(when: Mapping[str, tuple[Any, ...]] | None) -> str:
    """A condition in words."""
    parts = (f"{p} is {v[0]!r}" if len(v) == 1 else f"{p} is in {list(v)!r}" for p, v in (when or {}).items())
    return " and ".join(parts)


def same(one: Any, two: Any) -> bool:
    """Equality that tells True from 1."""
    return _key(one) == _key(two)


def _check_bounds(low: float, high: float, log: bool, step: float | None) -> None:
    if not isinstance(log, bool):
        raise SpaceError(f"`log` must be True or False, got {log!r}.")
    if low >= high:
        raise SpaceError(f"`low` must be below `high`, got low={low}, high={high}.")
    if log and low <= 0:
        raise SpaceError(f"`low` must be above 0 with log=True, got {low}.")
    if log and step is not None:
        raise SpaceError(f"`step` cannot be combined with log=True, got {step}.")


def _check_n_levels(n: float) -> None:
    if n > _MAX_LEVELS:
        raise SpaceError(
            f"a parameter may have at most 2**48 separate values, got {n:.4g}; a larger `step` makes fewer."
        )


def _checked_step(low: float, high: float, given: Any) -> float:
    step = _real("step", given)
    if step <= 0:
        raise SpaceError(f"`step` must be positive, got {step}.")
    if step < 8 * _EPS * max(abs(low), abs(high)):
        raise SpaceError(
            f"`step` must be large enough to tell neighbours apart, got low={low}, high={high}, step={step}."
        )
    n = (Decimal(str(high)) - Decimal(str(low))) / Decimal(str(step))
    _check_n_levels(float(n))
    if n != n.to_integral_value():
        nearest = float(Decimal(str(low)) + n.to_integral_value() * Decimal(str(step)))
        raise SpaceError(
            f"`step` must divide high - low, got low={low}, high={high}, step={step}; "
            f"with this step `high` could be {nearest}."
        )
    return step


def _real(name: str, value: Any) -> float:
    real = _finite(value)
    if real is None:
        raise SpaceError(f"`{name}` must be a finite number, got {value!r}.")
    return real


def _finite(value: Any) -> float | None:
    """`value` as a float, or None when it is not a finite number."""
    return as_finite(_plain(value))


def _whole(value: Any) -> int | None:
    """`value` as an int, or None when it is not a whole number."""
    whole, real = as_whole(_plain(value)), _finite(value)
    return int(real) if whole is None and real is not None and real.is_integer() else whole


def _is_choice(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int)


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


def _plain(value: Any) -> Any:
    """A numpy or torch scalar as the Python value it holds."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return value


def _key(value: Any) -> tuple[bool, Any]:
    """What tells choices apart: 1 and 1.0 are the same, True and 1 are not."""
    return isinstance(value, bool), value


def _cell(u: float, n: int) -> int:
    return min(max(int(u * n), 0), n - 1)


def _safe_digits(error: float) -> int:
    """Digits to round to such that ten times `error`, or more, is lost with the rest."""
    return math.floor(-math.log10(max(error, _TINY))) - 1
