"""Audits: a few trials that would be stopped are sent on, to learn whether stopping them is right.

Trials that were sent on for their values are the best at their rung, and among the best alone even a rung
that tells well seems to tell little. Whether a trial is audited is drawn from its number, never from its
value, so that what audited trials do at the next rung stands for all those that were stopped.
"""

from __future__ import annotations

from gpbo.seeding import derive

_ALL = 2**63


def audit_chance(share: float, reduction_factor: float) -> float:
    """How likely a trial must be drawn for `share` of those sent on to be ones that would be stopped."""
    return share / ((1 - share) * (reduction_factor - 1))


def is_audited(number: int, rung: int, chance: float) -> bool:
    """Whether a trial is sent on from a rung whatever its value; the same answer at any time."""
    return derive(0, "audit", number, rung) < chance * _ALL
