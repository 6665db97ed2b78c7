"""Outcome constraints: bounds on what is measured of a trial beside its value.

A constraint on configs (constraints.py) is known before a trial runs and met by every config that is asked
for; whether an outcome keeps its bound is known only afterwards, and has to be learnt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gpbo.checks import as_finite
from gpbo.errors import SettingError

_FORM = re.compile(r"\s*(?P<name>[^<>=\s][^<>=]*?)\s*(?P<sign><=|>=)\s*(?P<bound>\S+)\s*")


@dataclass(frozen=True, slots=True)
class OutcomeConstraint:
    """A bound on one outcome; ``str`` writes it as `parse_outcome_constraints` reads it.

    Attributes:
        name: The outcome's.
        sign: Whether the bound is the largest or the smallest value allowed.
        bound: In the outcome's own units.
    """

    name: str
    sign: Literal["<=", ">="]
    bound: float

    def __str__(self) -> str:
        return f"{self.name} {self.sign} {repr(self.bound).removesuffix('.0')}"

    def slack(self, outcomes: Mapping[str, float]) -> float:
        """How far the outcome is on the right side of the bound; the constraint is met where this is >= 0."""
        gap = self.bound - outcomes[self.name]
        return gap if self.sign == "<=" else -gap


def are_met(constraints: Sequence[OutcomeConstraint], outcomes: Mapping[str, float]) -> bool:
    """Whether a trial with these outcomes is feasible."""
    return all(constraint.slack(outcomes) >= 0.0 for constraint in constraints)


def parse_outcome_constraints(given: Any) -> tuple[OutcomeConstraint, ...]:
    """The constraints in one text such as ``"latency <= 10"``, or in a sequence of them.

    Raises:
        SettingError: if one has another form, or stands there twice.
    """
    if not isinstance(given, str | list | tuple):
        raise SettingError(f"`outcome_constraints` must be texts like 'latency <= 10', got {given!r}.")
    listed = [_parsed(text) for text in ([given] if isinstance(given, str) else given)]
    for constraint in listed:
        if sum((c.name, c.sign) == (constraint.name, constraint.sign) for c in listed) > 1:
            raise SettingError(
                f"`outcome_constraints` has two bounds `{constraint.name} {constraint.sign}`; keep one."
            )
    return tuple(listed)


def _parsed(text: Any) -> OutcomeConstraint:
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    bound = _number(found["bound"]) if found else None
    if found is None or bound is None:
        raise SettingError(
            "`outcome_constraints` must read like 'latency <= 10' or 'accuracy >= 0.9', "
            f"with a finite number after the sign; got {text!r}."
        )
    return OutcomeConstraint(found["name"], "<=" if found["sign"] == "<=" else ">=", bound)


def _number(text: str) -> float | None:
    try:
        return as_finite(float(text))
    except ValueError:
        return None
