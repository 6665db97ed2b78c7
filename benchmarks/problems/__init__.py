"""Every problem there is, and the choice among them."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks.problems import mixed, synthetic, trainings, yahpo
from benchmarks.problems.base import Fidelity, Problem, Split
from gpbo.errors import SettingError, did_you_mean

__all__ = ["Fidelity", "Problem", "Split", "all_problems", "choose"]


def all_problems(data: Path | None = None) -> list[Problem]:
    """All problems; those made of YAHPO surrogates only where their folder is given."""
    surrogates = yahpo.problems(data) if data else []
    return [*synthetic.problems(), *mixed.problems(), *surrogates, *trainings.problems()]


def choose(problems: Sequence[Problem], patterns: Sequence[str], split: Split | None = None) -> list[Problem]:
    """The problems of the split whose name matches a pattern such as ``"synthetic/*"``, in their own order.

    Raises:
        SettingError: if a pattern matches no problem, in whichever split.
    """
    names = [problem.name for problem in problems]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            groups = sorted({problem.group for problem in problems})
            hint = did_you_mean(pattern, names)
            raise SettingError(f"`--problems` {pattern!r} matches none of the groups {groups}.{hint}")
    return [
        problem
        for problem in problems
        if any(fnmatchcase(problem.name, pattern) for pattern in patterns) and split in (None, problem.split)
    ]
