"""What a stored study is: written down when it is made, and compared when it is opened again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gpbo.errors import StudyMismatchError
from gpbo.outcomes import OutcomeConstraint
from gpbo.space import SearchSpace


def define(
    space: SearchSpace, directions: Sequence[str], constraints: Sequence[OutcomeConstraint], seed: int
) -> dict[str, Any]:
    """A study's definition as plain values, which JSON can hold."""
    plain = {"space": space.to_dict(), "directions": list(directions), "seed": seed}
    return plain | ({"outcome_constraints": [str(c) for c in constraints]} if constraints else {})


def check_same(name: str, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse to open a stored study as another one; seeds may differ.

    Raises:
        StudyMismatchError: with the differences, line by line.
    """
    if difference := _difference(stored, given):
        raise StudyMismatchError(
            f"study {name!r} was stored with another definition; open it with the stored one, "
            f"or give the new one another name (- stored, + given here):\n{difference}"
        )


def _difference(stored: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    lines = []
    if stored["directions"] != given["directions"]:
        lines += [f"- direction: {stored['directions']}", f"+ direction: {given['directions']}"]
    before, now = (one.get("outcome_constraints", []) for one in (stored, given))
    if before != now:
        lines += [f"- outcome constraints: {before}", f"+ outcome constraints: {now}"]
    old, new = stored["space"], given["space"]
    for name in {**old["parameters"], **new["parameters"]}:
        one, two = old["parameters"].get(name), new["parameters"].get(name)
        if json.dumps(one) != json.dumps(two):  # tells True from 1
            lines += [f"- {name}: {one}"] if one is not None else []
            lines += [f"+ {name}: {two}"] if two is not None else []
    if not lines and list(old["parameters"]) != list(new["parameters"]):
        lines += [f"- order: {list(old['parameters'])}", f"+ order: {list(new['parameters'])}"]
    if old.get("constraints", []) != new.get("constraints", []):
        lines += [
            f"- constraints: {old.get('constraints', [])}",
            f"+ constraints: {new.get('constraints', [])}",
        ]
    return "\n".join(lines)
