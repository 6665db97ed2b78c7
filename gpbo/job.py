"""The job: what an objective is given when a scheduler decides how far each trial runs.

An objective with budgets takes a `Job`, or has the plain form ``f(config, budget) -> value``. It runs in this
process or in a worker; what it reports goes to the loop, which tells the study and sends back whether to go
on. The report at the end of what a trial was given is kept until the objective has returned, so that nobody
resumes a trial whose objective still runs.
"""

from __future__ import annotations

import inspect
import math
import numbers
import reprlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from gpbo.checkpoint import Folder
from gpbo.checks import finite
from gpbo.errors import (
    CheckpointError,
    GpboError,
    ObjectiveError,
    ResultError,
    SignatureError,
    TrialStateError,
)
from gpbo.schedulers.rungs import report_budget
from gpbo.trial import Observation, Trial

_STATE = "state.pt"

Send = Callable[["Report | Restart"], Any]


@dataclass(frozen=True, slots=True)
class Report:
    """What an objective measured on its way.

    Attributes:
        value: The number.
        budget: How much of the budget was spent by then.
        seconds: How long it took since the report before, or since the run began.
        trained: How much of the budget this run has spent since then.
        has_checkpoint: Whether a checkpoint was committed with it.
    """

    value: Any
    budget: float
    seconds: float
    trained: float
    has_checkpoint: bool = False

    def __str__(self) -> str:
        return f"the value {self.value!r} at budget {self.budget}"


@dataclass(frozen=True, slots=True)
class Restart:
    """That a trial begins anew, because its checkpoint cannot be gone on from."""

    reason: str

    def __str__(self) -> str:
        return "a new beginning"


@final
class Job:
    """One trial's run, as its objective sees it.

    Attributes:
        number: The trial's number.
        config: The parameters by name; a copy of the objective's own.
        budget: How far to train in all; what was trained before the job was paused counts.
    """

    def __init__(self, trial: Trial, rungs: Sequence[float], folder: Folder, send: Send) -> None:
        self.number: int = trial.number
        self.config: dict[str, Any] = dict(trial.config)
        self.budget: float = rungs[-1] if trial.budget is None else trial.budget
        self._trial = trial
        self._rungs = tuple(rungs)
        self._folder = folder
        self._send = send
        self._told = trial.observations[-1].budget or 0.0 if trial.observations else 0.0
        self._last: float | None = None  # the budget of this run's last report
        self._from = 0.0  # the budget from which this run has trained since its last report
        self._since = time.monotonic()
        self._checkpoint: tuple[Path, float] | None = None
        self._goes_on = True
        self._final: Report | None = None

    def __getitem__(self, name: str) -> Any:
        """Nothing: a job is not a config.

        Raises:
            ObjectiveError: always, with what to write.
        """
        raise ObjectiveError(
            f"with a scheduler, an objective is given a job: write job.config[{name!r}], or take "
            "`config, budget`."
        )

    @property
    def checkpoint_dir(self) -> Path:
        """A directory for the files of the next checkpoint, which the next `report` commits.

        It is empty after every commit; earlier files are in `last_checkpoint`.
        """
        return self._folder.writing()

    @property
    def last_checkpoint(self) -> Path | None:
        """The directory with the files of the last checkpoint, to be read only; None for a fresh start."""
        if self._checkpoint is None:
            return None
        path, budget = self._checkpoint
        if self._last is None:
            self._from = budget
        return path

    def save(self, state: Any) -> None:
        """Have the next `report` commit this state, by ``torch.save``.

        Raises:
            CheckpointError: if it is made of anything but tensors, numbers, texts, and lists and dictionaries
                of them; write other things to files in `checkpoint_dir`.
        """
        import torch

        path = self.checkpoint_dir / _STATE
        torch.save(state, path)
        try:
            torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:
            path.unlink()
            raise CheckpointError(
                "`state` must be made of tensors, numbers, texts, and lists and dictionaries of them, as a "
                f"`state_dict` is; write other things to files in `checkpoint_dir`. {error}"
            ) from None

    def load(self, device: str = "cpu") -> Any:
        """The state of the last checkpoint, its tensors on `device`; None for a fresh start.

        Raises:
            CheckpointError: if that checkpoint was not made by `save`.
        """
        folder = self.last_checkpoint
        if folder is None:
            return None
        import torch

        path = folder / _STATE
        if not path.is_file():
            raise CheckpointError(
                f"`load` reads what `save` wrote, but the checkpoint {folder} is of other files."
            )
        return torch.load(path, map_location=device, weights_only=True)

    def report(self, value: Any, budget: float) -> bool:
        """Tell the study a value; whether to train on.

        What was saved since the last report is committed with it first. After False nothing more is to be
        done: the objective cleans up and returns, whatever it returns.

        Args:
            value: What was measured.
            budget: How much of the budget was spent by then, earlier runs of the trial included.

        Raises:
            ResultError: if `value` is not a number, or `budget` beyond what the job was given, not above
                that of the report before, or past a rung at which nothing was reported.
            SettingError: if `budget` is not a finite number.
            TrialStateError: if an earlier report returned False, or the trial was ended by somebody else.
        """
        number = _number(value)
        if not self._goes_on:
            raise TrialStateError(
                f"trial {self.number} was told to stop when it reported at {self._last}, and reports again "
                f"at {budget}; return as soon as `report` returns False."
            )
        spent = self._checked(budget)
        saved, now = self._commit(spent, number), time.monotonic()
        report = Report(number, spent, now - self._since, max(0.0, spent - self._from), saved)
        self._since, self._last, self._from = now, spent, spent
        if spent >= self.budget:
            self._final, self._goes_on = report, False
        else:
            self._goes_on = self._ask(report)
        return self._goes_on

    def _checked(self, budget: float) -> float:
        """The budget of a new report, exact at the rungs."""
        given = finite("budget", budget)
        if self._last is not None and given <= self._last:
            raise ResultError(
                f"`budget` must rise from report to report, got {budget} after {self._last} for trial "
                f"{self.number}."
            )
        known = max(self._told, self._last or 0.0)
        if 0 < given <= known:  # trained again, because the run that reported it was lost
            return given
        seen = (Observation((0.0,), known),) if known else ()
        return report_budget(replace(self._trial, observations=seen), given, self._rungs)

    def _commit(self, budget: float, value: float) -> bool:
        return math.isfinite(value) and self._folder.commit(budget, value)

    def _ask(self, message: Report | Restart) -> bool:
        answer = self._send(message)
        if isinstance(answer, GpboError):
            raise answer
        return bool(answer)

    def _prepare(self) -> None:
        """Find the checkpoint to go on from, and tell the report that it belongs to if nobody has."""
        self._folder.clear()
        wanted = self._trial.info.get("run", {}).get("checkpoint")
        try:
            found = self._folder.latest()
            if found is None and wanted is not None:
                raise CheckpointError(f"there is no checkpoint {self._folder.path}, made at budget {wanted}.")
            if found is not None:
                self._check(found[1].budget, found[1].value, wanted)
        except CheckpointError as error:
            self._ask(Restart(str(error)))
            return
        if found is None:
            return
        path, manifest = found
        self._checkpoint = path, manifest.budget
        if manifest.budget > self._told:  # the process died before it could tell
            report = Report(manifest.value, manifest.budget, 0.0, manifest.budget - self._told, True)
            if manifest.budget >= self.budget:
                self._final, self._goes_on = report, False
            else:
                self._goes_on = self._ask(report)
                self._told = manifest.budget

    def _check(self, budget: float, value: float, wanted: float | None) -> None:
        """Whether a checkpoint fits what is known of the trial."""
        where = f"the checkpoint {self._folder.path}"
        if budget > self.budget:
            raise CheckpointError(f"{where} is of budget {budget}, but the trial was given {self.budget}.")
        if wanted is not None and budget < wanted:
            raise CheckpointError(f"{where} is of budget {budget}; the last one was made at {wanted}.")
        for seen in self._trial.observations:
            if seen.budget == budget and seen.value != value:
                raise CheckpointError(
                    f"{where} is another's: its value at budget {budget} was {value}, "
                    f"the trial's {seen.value}."
                )

    def _finish(self, returned: Any) -> Report | None:
        """The report to be told now that the objective has returned; None if it was told to stop before."""
        if self._goes_on:
            if returned is None:
                last = "no report" if self._last is None else f"its report at {self._last}"
                raise ObjectiveError(
                    f"the objective must report at budget {self.budget}, or return the value; "
                    f"it returned None after {last}."
                )
            self.report(returned, self.budget)
        elif self._final is not None:  # what was saved after the report belongs to it as well
            saved = self._commit(self._final.budget, self._final.value) or self._final.has_checkpoint
            return replace(self._final, has_checkpoint=saved)
        return self._final


@dataclass(frozen=True, slots=True)
class Run:
    """An objective with budgets, as executors run it."""

    objective: Callable[..., Any]

    def __call__(self, given: Mapping[str, Any], send: Send) -> Report | None:
        """The report to be told at the end, or None if a report before ended the run."""
        job = Job(given["trial"], given["rungs"], given["folder"], send)
        job._prepare()
        returned = None
        if job._goes_on:
            # a study file's is found by its name, and a command takes the budget as a word
            find = getattr(self.objective, "with_budgets", None)
            objective = self.objective if find is None else find()
            if is_plain(objective):
                _run_plainly(objective, job, given["stops"])
            else:
                returned = objective(job)
        return job._finish(returned)


def is_plain(objective: Callable[..., Any]) -> bool:
    """Whether an objective has the form ``f(config, budget)`` rather than ``f(job)``.

    It has if it must be given two arguments, or its second one is called ``budget``.
    """
    try:
        parameters = list(inspect.signature(objective).parameters.values())
    except (TypeError, ValueError):  # of some functions written in C
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) > 1 and (
        positional[1].name == "budget" or positional[1].default is inspect.Parameter.empty
    )


def check_signature(objective: Callable[..., Any], *, has_budgets: bool) -> None:
    """Refuse an objective that cannot be called, whatever its arguments are named.

    One that does not tell its signature goes through, and so does a study file's, which is looked at where
    it is found.

    Raises:
        SignatureError: if it takes other arguments than a study gives, with budgets or without.
    """
    if hasattr(objective, "with_budgets"):
        return
    signature = unfit_signature(objective, 1 + (has_budgets and is_plain(objective)))
    if signature is not None:
        form = "f(job) or f(config, budget)" if has_budgets else "f(config)"
        hint = ""
        if not has_budgets and {"job", "budget"} & signature.parameters.keys():
            hint = " Jobs and budgets come with a scheduler: Study(space, scheduler=ASHA(1, 27))."
        raise SignatureError(f"`objective` must be {form}, got {name_of(objective)}{signature}.{hint}")


def unfit_signature(function: Callable[..., Any], n: int) -> inspect.Signature | None:
    """What a function takes, if it cannot be called with `n` arguments by their place; else None."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of some functions written in C
        return None
    try:
        signature.bind(*range(n))
    except TypeError:
        return signature
    return None


def name_of(function: Callable[..., Any]) -> str:
    """What a message calls a function."""
    return str(getattr(function, "__name__", type(function).__name__))


def _run_plainly(objective: Callable[..., Any], job: Job, stops: Sequence[float]) -> None:
    """Call a function of config and budget once for each stop on the way, from scratch."""
    ahead = [stop for stop in stops if job._told < stop < job.budget]
    for budget in [*ahead, job.budget]:
        job._from = 0.0
        if not job.report(objective(dict(job.config), budget), budget):
            return


def _number(value: Any) -> float:
    plain = value
    if hasattr(value, "item"):  # a numpy or torch scalar
        with suppress(ValueError, RuntimeError, TypeError):
            plain = value.item()
    if isinstance(plain, bool) or not isinstance(plain, numbers.Real):
        kind = type(value).__name__
        raise ResultError(f"`value` must be a number, got {reprlib.repr(value)} of type {kind}.")
    return float(plain)
