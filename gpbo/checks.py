"""Whether a value is a whole or a finite number, or names a device: what most settings are asked.

A boolean is no number here, whatever Python thinks, and neither is a string that looks like one.
"""

from __future__ import annotations

import math
import numbers
import operator
from typing import Any

from gpbo.errors import SettingError


def as_whole(value: Any) -> int | None:
    """`value` as an int, or None when it is no whole number; 3.0 is none."""
    return int(value) if isinstance(value, numbers.Integral) and not isinstance(value, bool) else None


def as_finite(value: Any) -> float | None:
    """`value` as a float, or None when it is no number, or one that no finite float can hold."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        real = float(value)
    except OverflowError:  # of a whole number with hundreds of digits
        return None
    return real if math.isfinite(real) else None


def whole(name: str, value: Any, *, low: int | None = None) -> int:
    """`value` as an int.

    Raises:
        SettingError: if it is no whole number, or is below `low`.
    """
    n = as_whole(value)
    if n is None or (low is not None and n < low):
        rule = "" if low is None else f" >= {low}"
        raise SettingError(f"`{name}` must be a whole number{rule}, got {value!r}.")
    return n


def finite(
    name: str,
    value: Any,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
    unit: str | None = None,
) -> float:
    """`value` as a float.

    Args:
        name: The setting's, for the message.
        value: What was given.
        low: The least it may be.
        above: What it must be above.
        high: The most it may be.
        below: What it must be below.
        unit: What it counts, for the message.

    Raises:
        SettingError: if it is no finite number, or out of bounds.
    """
    real = as_finite(value)
    given = (
        (low, operator.ge, ">="),
        (above, operator.gt, ">"),
        (high, operator.le, "<="),
        (below, operator.lt, "<"),
    )
    bounds = [(bound, holds, sign) for bound, holds, sign in given if bound is not None]
    if real is None or not all(holds(real, bound) for bound, holds, _ in bounds):
        what = f"a finite number of {unit}" if unit else "a finite number"
        rule = " and ".join(f"{sign} {bound}" for bound, _, sign in bounds)
        raise SettingError(f"`{name}` must be {what}{' ' if rule else ''}{rule}, got {value!r}.")
    return real


def device_name(device: Any) -> str:
    """The name of a device to compute on, "auto" included; no GPU is touched for that.

    Raises:
        SettingError: if it is no name, or this machine has no such device.
    """
    if not isinstance(device, str):
        raise SettingError(f"`device` must be the name of a device, such as 'cuda:0', got {device!r}.")
    if device in ("auto", "cpu"):
        return device
    import torch

    n = torch.cuda.device_count()
    there = ["cpu", *(["cuda"] if n else []), *(f"cuda:{k}" for k in range(n))]
    if device not in there:
        listed = ", ".join(map(repr, there))
        raise SettingError(
            f"`device` must name a device of this machine, 'auto' or one of {listed}, got {device!r}."
        )
    return device
