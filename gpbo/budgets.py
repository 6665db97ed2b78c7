"""What the loop does for a study whose scheduler has budgets: it answers jobs and looks after checkpoints.

A job's reports are told to the study as `Study.tell` would be; the answer is whether the trial still runs. On
the trial, under ``info["run"]``, is written what only the loop knows: how much budget was spent, what the
last checkpoint's budget is, how often a worker was lost, and why the trial was begun anew if it was.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpbo.checkpoint import Checkpoints, Shelf, delete
from gpbo.errors import GpboError, ResultError, SettingError, StoreError, TrialStateError
from gpbo.executors.base import Outcome
from gpbo.executors.interrupts import Interrupts
from gpbo.job import Report, Restart
from gpbo.standing import comparable
from gpbo.trial import State, Trial

if TYPE_CHECKING:
    from gpbo.study import Study

_MAX_LOSSES = 3  # a trial that so many workers died of is what kills them
_IDENTITY = "checkpoints"  # where the store keeps what tells this study's checkpoints from all others'

_temporary: weakref.WeakKeyDictionary[Study, Path] = weakref.WeakKeyDictionary()

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Budgets:
    """One loop's dealings with its jobs.

    Attributes:
        study: Whose trials are run.
        shelf: Where their checkpoints are.
        owner: The loop's name on its trials.
        interrupts: Hold a signal off while something is written.
        unstored: What could not be written; the loop ends with it.
    """

    study: Study
    shelf: Shelf
    owner: str
    interrupts: Interrupts
    unstored: StoreError | None = None
    _ended: set[int] = field(default_factory=set)  # by a report, while the objective still ran

    def given(self, trial: Trial) -> Mapping[str, Any]:
        """What the run of a trial is sent."""
        scheduler = self.study._scheduler
        stops = getattr(scheduler, "stops", scheduler.rungs)
        return {
            "trial": trial,
            "rungs": scheduler.rungs,
            "stops": stops if trial.bracket is None else (),  # of a bracket: compared where its budgets end
            "folder": self.shelf.folder(trial),
        }

    def hear(self, number: int, message: Report | Restart) -> bool | GpboError:
        """Whether trial `number` goes on after what its job said; or the error that its `report` raises."""
        with self.interrupts.deferred():
            try:
                if isinstance(message, Restart):
                    logger.warning("trial %d begins anew: %s", number, message.reason)
                    trial = self._write(
                        number, partial(_noted, facts={"restarted": message.reason, "checkpoint": None})
                    )
                else:
                    trial = self._told(number, message)
            except StoreError as error:
                self.unstored = StoreError(f"{message} of trial {number} could not be stored: {error}")
                self._ended.add(number)
                return False
            except GpboError as error:
                return error
            if trial.state is not State.RUNNING:
                self._ended.add(number)
            return trial.state is State.RUNNING

    def record(self, outcome: Outcome) -> Trial | None:
        """The trial with what came of a run, or None if somebody else had ended it.

        Raises:
            StoreError: if that cannot be stored.
        """
        number = outcome.number
        if number in self._ended:
            self._ended.discard(number)
            if outcome.error is not None:
                logger.info("trial %d was over when its objective ended with: %s", number, outcome.error)
            return self.study.trials[number]
        try:
            if outcome.lost:
                return self._lose(outcome)
            if outcome.error is not None:
                return self.study._fail(number, outcome.error)
            try:
                return self._told(number, outcome.value)
            except ResultError as error:
                return self.study._fail(number, str(error))
        except TrialStateError as error:
            logger.warning("study %r: a result came too late: %s", self.study.name, error)
            return None

    def tidy(self, running: Collection[int]) -> None:
        """Nothing; deletes the checkpoints that are not needed, and none of the trials that run here."""
        if not self.shelf.path.is_dir():
            return
        study = self.study
        with study._store.asking():  # nobody resumes a trial meanwhile
            ranked = sorted(
                comparable(study.trials, study.outcome_constraints),
                key=lambda t: t.observations[-1].losses(study._maximize),
            )
            pinned = {trial.number for trial in ranked[: self.shelf.settings.keep_best]}
            aside = self.shelf.set_aside(study.trials, {*pinned, *running}, study._maximize[0])
        delete(aside)

    def _told(self, number: int, report: Report) -> Trial:
        """The trial after a report; one that an earlier, lost run has made changes no observation.

        Raises:
            TrialStateError: if the trial is not this loop's any more.
            ResultError: if it breaks a rule.
        """
        trial = self.study.trials[number]
        if trial.state is not State.RUNNING or trial.owner != self.owner:
            raise TrialStateError(
                f"trial {number} is {trial.state} and not run by this loop any more; its report of "
                f"{report.value} at budget {report.budget} changes nothing."
            )
        saved = {"checkpoint": report.budget} if report.has_checkpoint else {}
        noted = partial(_noted, spent=report.trained, facts=saved)
        last = trial.observations[-1].budget if trial.observations else None
        if last is not None and report.budget <= last:
            return self._write(number, noted)
        return self.study._tell(
            number, report.value, outcomes=None, budget=report.budget, seconds=report.seconds, noted=noted
        )

    def _lose(self, outcome: Outcome) -> Trial:
        """The trial paused where it was last saved, to be resumed; failed if that has happened too often."""
        number, error = outcome.number, outcome.error or ""
        losses = self.study.trials[number].info.get("run", {}).get("lost", 0) + 1
        if losses >= _MAX_LOSSES:
            return self.study._fail(number, f"{error}\nThis trial has lost {losses} workers.")
        logger.warning("trial %d is resumed later: %s", number, error)
        return self._write(
            number, lambda now: replace(_noted(now, facts={"lost": losses}), state=State.PAUSED, owner=None)
        )

    def _write(self, number: int, change: Callable[[Trial], Trial]) -> Trial:
        while True:
            now = self.study.trials[number]
            if now.state is not State.RUNNING:
                raise TrialStateError(f"trial {number} is {now.state}; it stays as it is.")
            new = change(now)
            if self.study._store.swap(now, new):
                return new


def open_shelf(study: Study, given: Any) -> Shelf:
    """Where the study's checkpoints are, by what `Study.optimize` was given.

    Raises:
        SettingError: if that names no place.
    """
    settings = given if isinstance(given, Checkpoints) else Checkpoints(_directory(study, given))
    with study._store.asking():
        identity = study._store.meta.get(_IDENTITY)
        if identity is None:
            identity = study._store.meta[_IDENTITY] = uuid.uuid4().hex
    return Shelf(Path(settings.directory).resolve() / identity, identity, settings)


def _directory(study: Study, given: Any) -> str | Path:
    if given is not None:
        if not isinstance(given, str | Path):
            raise SettingError(f"`checkpoints` must be a directory or Checkpoints(...), got {given!r}.")
        return given
    file = getattr(study._store, "path", None)
    if file is not None:
        return Path(f"{file}.checkpoints")
    if study not in _temporary:
        made = _temporary[study] = Path(tempfile.mkdtemp(prefix="gpbo-"))
        weakref.finalize(study, _remove, made, os.getpid())
    return _temporary[study]


def _remove(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # rather than a fork of the process that made it
        shutil.rmtree(folder, ignore_errors=True)


def _noted(trial: Trial, *, spent: float = 0.0, facts: Mapping[str, Any]) -> Trial:
    """The trial with facts of its runs written on it; one that is None is taken away."""
    run = {**trial.info.get("run", {}), **facts}
    run["spent"] = run.get("spent", 0.0) + spent
    run = {name: value for name, value in run.items() if value is not None}
    return replace(trial, info={**trial.info, "run": run})
