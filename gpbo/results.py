"""What people tell of a trial, as numbers: values, one for each objective, and outcomes by name."""

from __future__ import annotations

import math
import numbers
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from gpbo.errors import ResultError, did_you_mean


def to_values(value: Any, m: int) -> tuple[float, ...]:
    """The values of `m` objectives.

    Raises:
        ResultError: if `value` is not a number, or of several objectives not a number for each.
    """
    if m == 1 and not isinstance(value, list | tuple) and getattr(value, "ndim", 0) == 0:
        return (_number(value, "value"),)
    plain = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(plain, list | tuple) or len(plain) != m:
        what = "a number" if m == 1 else f"a sequence of {m} numbers, one for each objective"
        raise ResultError(f"`value` must be {what}, got {reprlib.repr(value)}.")
    return tuple(_number(v, "value") for v in plain)


def to_outcomes(outcomes: Any, names: Sequence[str]) -> dict[str, float]:
    """The outcomes of these names, and no others.

    Raises:
        ResultError: if one is missing, unknown or no number.
    """
    given = {} if outcomes is None else outcomes
    if not isinstance(given, Mapping):
        raise ResultError(f"`outcomes` must map names to numbers, got {reprlib.repr(outcomes)}.")
    for name in given:
        if name not in names:
            known = f"there is {', '.join(map(repr, names))}" if names else "the study has none"
            hint = did_you_mean(str(name), names)
            raise ResultError(f"`outcomes` names {name!r}, which no outcome constraint does; {known}.{hint}")
    missing = [name for name in names if name not in given]
    if missing:
        raise ResultError(
            f"`outcomes` must have a number for {' and '.join(map(repr, missing))}, of which the study's "
            f"outcome constraints speak; got {reprlib.repr(outcomes)}."
        )
    return {name: _number(given[name], f"outcomes[{name!r}]") for name in names}


def not_finite(values: Sequence[float], outcomes: Mapping[str, float]) -> str | None:
    """What is wrong with the first number that is not finite, if one is."""
    named = [("value", value) for value in values]
    named += [(f"outcome {name!r}", outcome) for name, outcome in outcomes.items()]
    return next((f"{what} was {number}" for what, number in named if not math.isfinite(number)), None)


def _number(value: Any, name: str) -> float:
    if hasattr(value, "item"):  # a numpy or torch scalar
        try:
            value = value.item()
        except (ValueError, RuntimeError, TypeError):
            raise ResultError(
                f"`{name}` must be a number for each objective, got {reprlib.repr(value)}."
            ) from None
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        kind = type(value).__name__
        raise ResultError(f"`{name}` must be a number, got {reprlib.repr(value)} of type {kind}.")
    try:
        return float(value)
    except OverflowError:  # of a whole number with hundreds of digits
        return math.inf
