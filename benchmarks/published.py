"""A table of compared runs as a file that is small enough to be kept: one line of JSON for each problem.

The first line names the peers, what the runs have in common and what was left out. Regret has six decimals,
as fine as it is compared; times have four digits.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.compare import Table
from gpbo.errors import SettingError


def write(path: Path, table: Table) -> None:
    """Write the table, in place of what the file holds."""
    lines: list[dict[str, Any]] = [
        {"peers": list(table.peers), "about": dict(table.about), "left_out": list(table.left_out)}
    ]
    for problem, regret in table.regret.items():
        times = {name: getattr(table, name)[problem] for name in ("ask", "spent", "cpu")}
        short = {
            name: [[float(f"{t:.4g}") for t in row] for row in seconds] for name, seconds in times.items()
        }
        lines.append({"problem": problem, "regret": regret.round(6).tolist(), **short})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))


def is_table(path: Path) -> bool:
    """Whether the file holds a table, and not runs."""
    if not path.is_file():
        return False
    with path.open() as file:
        return file.readline().startswith('{"peers":')


def read(path: Path) -> Table:
    """The table in a file.

    Raises:
        SettingError: if there is none.
    """
    if not is_table(path):
        raise SettingError(
            f"{path} does not hold a table; `python -m benchmarks.report --publish` writes one."
        )
    first, *rest = map(json.loads, path.read_text().splitlines())
    columns = [
        {line["problem"]: np.array(line[name]) for line in rest} for name in ("regret", "ask", "spent", "cpu")
    ]
    return Table(tuple(first["peers"]), *columns, left_out=first["left_out"], about=first["about"])
