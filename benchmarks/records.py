"""One run is one line of JSON: what was run, what it found, how long it took, and with which versions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from gpbo.errors import SettingError

Record = dict[str, Any]
Key = tuple[str, str, int, int, str, str]
_KEY = ("problem", "peer", "seed", "evaluations", "initial", "device")
_PACKAGES = (
    "gpbo", "torch", "botorch", "gpytorch", "ax-platform", "optuna", "smac", "hpbandster", "dehb",
    "ConfigSpace", "numpy", "scipy", "scikit-learn", "onnxruntime",
)  # fmt: skip


def key_of(record: Mapping[str, Any]) -> Key:
    """What makes a run the same run when a file is continued."""
    problem, peer, seed, evaluations, initial, device = (record[name] for name in _KEY)
    return (problem, peer, seed, evaluations, initial, device)


def read(paths: Iterable[Path]) -> list[Record]:
    """The runs in some files; a last line that was cut off is left out.

    Raises:
        SettingError: if a file does not exist or another line is not a run.
    """
    records = []
    for path in paths:
        if not path.is_file():
            raise SettingError(f"there is no file of runs at {path}.")
        lines = path.read_text().split("\n")
        for i, line in enumerate(lines):
            if not line:
                continue
            try:
                record = json.loads(line)
                key_of(record)
            except (ValueError, KeyError, TypeError):
                if i == len(lines) - 1:  # killed while it was being written
                    continue
                raise SettingError(f"line {i + 1} of {path} is not a run: {line[:80]!r}.") from None
            records.append(record)
    return records


def append(path: Path, record: Record) -> None:
    """Write one line; a last line that was cut off is removed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(record) + "\n").encode()
    with path.open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(line)


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """The versions of everything that could matter and is installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
