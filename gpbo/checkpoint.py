"""Checkpoints: what a paused trial needs to go on from where it stopped, one directory a trial.

A trial's files are written beside its last checkpoint, in ``next``. A commit writes their sizes and checksums
and the report they belong to into a manifest, brings all of it to the disk, and renames ``next`` to the next
number; only then is the report told. A process that dies at any moment thus leaves a whole checkpoint, the
last or the one before, and a report that it did not live to tell is found in the manifest.

    <directory>/<study>/<trial>/next/files/...   being written
    <directory>/<study>/<trial>/3/files/...      committed, described by 3/checkpoint.json
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
import uuid
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpbo.checks import whole
from gpbo.errors import CheckpointError, SettingError
from gpbo.trial import State, Trial

_FILES, _MANIFEST, _NEXT, _REMOVED = "files", "checkpoint.json", "next", "removed"
_CHUNK = 2**20  # bytes read at once

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoints:
    """Where checkpoints are kept, and how many.

    The checkpoint of a running or a paused trial is kept, that of a failed, stopped or complete one deleted.

    Args:
        directory: Below it every study has a directory of its own.
        max_bytes: When checkpoints take more, those of the paused trials that are the least likely to go on
            are deleted; such a trial begins anew if it does go on. Never one that is in use.
        keep_best: How many of the best complete trials keep theirs.

    Raises:
        SettingError: if an argument breaks its rule.
    """

    directory: str | Path
    max_bytes: int | None = None
    keep_best: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.directory, str | Path) or not str(self.directory):
            raise SettingError(f"`directory` must be a path, got {self.directory!r}.")
        if self.max_bytes is not None:
            whole("max_bytes", self.max_bytes, low=1)
        whole("keep_best", self.keep_best, low=0)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a checkpoint says of itself.

    Attributes:
        study: The identity of its study.
        trial: The trial's number.
        config: The trial's config, as JSON.
        budget: The budget of the report it belongs to.
        value: The value of that report.
        files: Each file's path, size in bytes and CRC-32.
    """

    study: str
    trial: int
    config: str
    budget: float
    value: float
    files: list[tuple[str, int, int]]


@dataclass(frozen=True, slots=True)
class Folder:
    """One trial's checkpoints; for the process that runs the trial.

    Attributes:
        path: The trial's directory; made when first needed.
        study: The identity of its study.
        trial: The trial's number.
        config: The trial's config.
    """

    path: Path
    study: str
    trial: int
    config: Mapping[str, Any]

    def writing(self) -> Path:
        """The directory whose files become the next checkpoint."""
        files = self.path / _NEXT / _FILES
        files.mkdir(parents=True, exist_ok=True)
        return files

    def clear(self) -> None:
        """Remove what a process wrote that died before it committed."""
        shutil.rmtree(self.path / _NEXT, ignore_errors=True)

    def commit(self, budget: float, value: float) -> bool:
        """Make the files written so far the checkpoint of a report; whether there were any.

        Raises:
            CheckpointError: if something else than files and directories was written.
        """
        following = self.path / _NEXT
        files = list(_files(following / _FILES)) if following.exists() else []
        if not files:
            return False
        seen = []
        for path in files:
            _sync(path)
            seen.append((path.relative_to(following / _FILES).as_posix(), *_measured(path)))
        manifest = Manifest(*self._owner(), budget, value, seen)
        with (following / _MANIFEST).open("w") as file:
            json.dump(asdict(manifest), file)
        _sync(following / _MANIFEST)
        for written, _, _ in os.walk(following, topdown=False):
            _sync(Path(written))
        before = self._numbers()
        following.rename(self.path / str(max(before, default=0) + 1))
        _sync(self.path)
        if not before:  # the directories above may be new as well
            _sync(self.path.parent)
            _sync(self.path.parent.parent)
        for number in before:
            shutil.rmtree(self.path / str(number), ignore_errors=True)
        return True

    def latest(self) -> tuple[Path, Manifest] | None:
        """The files of the newest checkpoint and what it says, or None where there is none.

        Raises:
            CheckpointError: if it is damaged, or another trial's.
        """
        number = max(self._numbers(), default=None)
        if number is None:
            return None
        folder = self.path / str(number)
        manifest = _read(folder)
        self._check_owner(folder, manifest)
        for name, size, checksum in manifest.files:
            path = folder / _FILES / name
            if not path.is_file():
                raise CheckpointError(f"the checkpoint {folder} is damaged: {name} is missing.")
            found = path.stat().st_size
            if found != size:
                raise CheckpointError(
                    f"the checkpoint {folder} is damaged: {name} has {found} of its {size} bytes."
                )
            if _measured(path)[1] != checksum:
                raise CheckpointError(f"the checkpoint {folder} is damaged: {name} has other contents.")
        return folder / _FILES, manifest

    def _owner(self) -> tuple[str, int, str]:
        return self.study, self.trial, json.dumps(dict(self.config), sort_keys=True, default=repr)

    def _check_owner(self, folder: Path, manifest: Manifest) -> None:
        theirs = (manifest.study, manifest.trial, manifest.config)
        for what, one, other in zip(("study", "trial", "config"), theirs, self._owner(), strict=True):
            if one != other:
                raise CheckpointError(
                    f"the checkpoint {folder} is another's: it was made for {what} {one!r}, not {other!r}."
                )

    def _numbers(self) -> list[int]:
        inside = self.path.iterdir() if self.path.is_dir() else ()
        return sorted(int(one.name) for one in inside if one.name.isdecimal())


@dataclass(frozen=True, slots=True)
class Shelf:
    """One study's checkpoints; for the loop, which deletes what is not needed any more.

    Attributes:
        path: The study's directory below that of the settings.
        study: The study's identity.
        settings: What to keep.
    """

    path: Path
    study: str
    settings: Checkpoints

    def folder(self, trial: Trial) -> Folder:
        """The trial's directory."""
        return Folder(self.path / str(trial.number), self.study, trial.number, trial.config)

    def set_aside(self, trials: Sequence[Trial], pinned: Collection[int], maximize: bool) -> list[Path]:
        """What is to be deleted, taken out of the trials' way; to be called where nobody asks for trials.

        Args:
            trials: As they are now.
            pinned: The numbers of final trials that keep theirs.
            maximize: Whether larger values are better.
        """
        if not self.path.is_dir():
            return []
        names = [one.name for one in self.path.iterdir()]
        kept = [int(name) for name in names if name.isdecimal() and int(name) < len(trials)]
        doomed = [n for n in kept if trials[n].state.is_final and n not in pinned]
        if self.settings.max_bytes is not None:
            sizes = {n: _size(self.path / str(n)) for n in kept if n not in doomed}
            doomed += _excess(trials, sizes, self.settings.max_bytes, maximize)
        aside = [self.path / name for name in names if name.startswith(_REMOVED)]
        for n in doomed:
            aside.append(self.path / f"{_REMOVED}-{n}-{uuid.uuid4().hex}")
            (self.path / str(n)).rename(aside[-1])  # at once, so that no half of it is ever resumed from
        return aside


def delete(folders: Sequence[Path]) -> None:
    """Delete what was set aside; what another process deletes at the same time is no error."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _excess(trials: Sequence[Trial], sizes: Mapping[int, int], max_bytes: int, maximize: bool) -> list[int]:
    """The paused trials to give up so that the rest fits, those that rank the lowest at their rung first."""
    over = sum(sizes.values()) - max_bytes
    found = []
    for n in _least_promising(trials, maximize) if over > 0 else []:
        if over > 0 and sizes.get(n):
            over -= sizes[n]
            found.append(n)
    if over > 0:
        logger.warning("checkpoints of trials in use take %d bytes more than `max_bytes`.", over)
    return found


def _least_promising(trials: Sequence[Trial], maximize: bool) -> list[int]:
    """The paused trials by their rank among those at the same budget, the worst first, the cheaper of two."""
    rungs: dict[float, list[tuple[float, int]]] = {}
    for trial in trials:
        if trial.state is State.PAUSED and trial.observations:
            last = trial.observations[-1]
            rungs.setdefault(last.budget or 0.0, []).append((last.losses([maximize])[0], trial.number))
    ranked = [
        (-(k + 1) / len(entries), budget, number)
        for budget, entries in rungs.items()
        for k, (_, number) in enumerate(sorted(entries))
    ]
    return [number for _, _, number in sorted(ranked)]


def _read(folder: Path) -> Manifest:
    try:
        plain = json.loads((folder / _MANIFEST).read_text())
        manifest = Manifest(**plain)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"the checkpoint {folder} is damaged: no manifest can be read: {error}"
        ) from None
    return manifest


def _files(folder: Path) -> Iterator[Path]:
    """Every file below a directory."""
    for parent, folders, names in os.walk(folder):
        for name in sorted([*names, *folders]):
            path = Path(parent, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                yield path
            elif not stat.S_ISDIR(mode):
                raise CheckpointError(
                    f"a checkpoint must be made of files and directories, but {path} is neither; copy what "
                    "it stands for."
                )


def _measured(path: Path) -> tuple[int, int]:
    """A file's size in bytes and CRC-32."""
    size = checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size, checksum = size + len(chunk), zlib.crc32(chunk, checksum)
    return size, checksum


def _size(folder: Path) -> int:
    """The bytes of all files below a directory, as far as they are still there."""
    return sum(
        os.lstat(Path(parent, name)).st_size
        for parent, _, names in os.walk(folder)
        for name in names
        if os.path.lexists(Path(parent, name))
    )


def _sync(path: Path) -> None:
    """Bring a file, or the names in a directory, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
