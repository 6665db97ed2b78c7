"""Every problem there is, and the choice among them."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks.problems import mixed, synthetic, trainings, yahpo
from benchmarks.problems.base import Fidelity, Problem, Split
from gpbo.errors import SettingError, did_you_mean

__all__ = ["PANEL", "Fidelity", "Problem", "Split", "all_problems", "choose", "panel"]

PANEL = {"synthetic": 6, "mixed": 4, "lcbench": 3, "rbv2_rpart": 2, "training": 1}  # how many of each group


def all_problems(data: Path | None = None) -> list[Problem]:
    """All problems; those made of YAHPO surrogates only where their folder is given."""
    surrogates = yahpo.problems(data) if data else []
    return [*synthetic.problems(), *mixed.problems(), *surrogates, *trainings.problems()]


def panel(problems: Sequence[Problem]) -> list[Problem]:
    """A few test problems of each group, where all are too many: the middle of each of k equal parts."""
    found = []
    for group, k in PANEL.items():
        test = [problem for problem in problems if problem.group == group and problem.split == "test"]
        if test:
            found += [test[(2 * i + 1) * len(test) // (2 * k)] for i in range(k)]
    return found


def choose(problems: Sequence[Problem], patterns: Sequence[str], split: Split | None = None) -> list[Problem]:
    """The problems of the split that match a pattern such as ``"synthetic/*"``, in their own order.

    The pattern ``"panel"`` stands for the problems of the `panel`.

    Raises:
        SettingError: if a pattern matches no problem, in whichever split.
    """
    names = [problem.name for problem in problems]
    chosen: set[str] = set()
    for pattern in patterns:
        matching = (
            [problem.name for problem in panel(problems)]
            if pattern == "panel"
            else [name for name in names if fnmatchcase(name, pattern)]
        )
        if not matching:
            groups = sorted({problem.group for problem in problems})
            hint = did_you_mean(pattern, names)
            raise SettingError(f"`--problems` {pattern!r} matches none of the groups {groups}.{hint}")
        chosen |= set(matching)
    return [problem for problem in problems if problem.name in chosen and split in (None, problem.split)]
