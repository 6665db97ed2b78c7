"""The loop: it carries trials from the study to the executor and results back, until a stop rule holds.

It keeps nothing that matters. What is running is written in the store with its owner, so that a loop that
starts after a crash, or after Ctrl-C, first runs what the earlier one had begun and then goes on with the
decisions that one would have made.
"""

from __future__ import annotations

import logging
import math
import reprlib
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gpbo.budgets import Budgets, open_shelf
from gpbo.checks import finite, whole
from gpbo.errors import (
    NoResultError,
    ResultError,
    SettingError,
    SignatureError,
    StoreError,
    TrialStateError,
)
from gpbo.executors.base import Executor, Outcome
from gpbo.executors.interrupts import Interrupts
from gpbo.executors.local import InlineExecutor, ProcessExecutor
from gpbo.executors.owner import RELEASED, is_gone, ownership
from gpbo.job import Run, check_signature, name_of, unfit_signature
from gpbo.progress import Progress
from gpbo.standing import comparable
from gpbo.trial import Observation, State, Trial

if TYPE_CHECKING:
    from gpbo.study import Study

_TICK = 0.2  # seconds between looks at Ctrl-C and the clock while workers are busy
_MAX_ATTEMPTS = 10  # a trial whose driver died so often may be what kills it

logger = logging.getLogger(__name__)


def run(
    study: Study,
    objective: Callable[..., Any],
    *,
    n_trials: int | None,
    workers: int,
    timeout: float | None,
    callbacks: Sequence[Callable[[Study, Trial], object]],
    target: float | None,
    patience: int | None,
    trial_timeout: float | None,
    gpus_per_trial: int,
    checkpoints: Any,
    progress: bool,
) -> None:
    """Nothing; evaluates trials as `Study.optimize` says."""
    if not callable(objective):
        raise SettingError(f"`objective` must be a function of a config, got {objective!r}.")
    has_budgets = bool(study._scheduler.rungs)
    check_signature(objective, has_budgets=has_budgets)
    if checkpoints is not None and not has_budgets:
        raise SettingError("`checkpoints` needs a scheduler with budgets, which pauses and resumes trials.")
    callbacks = _checked_callbacks(callbacks)
    workers = whole("workers", workers, low=1)
    gpus_per_trial = whole("gpus_per_trial", gpus_per_trial, low=0)
    trial_timeout = (
        None if trial_timeout is None else finite("trial_timeout", trial_timeout, above=0, unit="seconds")
    )
    rules = _stop_rules(study, n_trials, timeout, target, patience)
    inline = workers == 1 and trial_timeout is None
    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        interrupts.check()  # it may have come before, within an outer context
        owner = stack.enter_context(ownership())
        stack.callback(_release, study, owner)
        budgets, hear, run_one = None, None, objective
        if has_budgets:
            budgets = Budgets(study, open_shelf(study, checkpoints), owner, interrupts)
            hear, run_one = budgets.hear, Run(objective)
        executor: Executor = (
            InlineExecutor(run_one, hear=hear)
            if inline
            else ProcessExecutor(
                run_one, workers, timeout=trial_timeout, gpus_per_trial=gpus_per_trial, hear=hear
            )
        )
        stack.callback(executor.close)
        # how many trials will finish is not known where some stay paused
        bar = Progress(study, None if has_budgets else rules.n_trials, shown=progress)
        stack.callback(bar.close)
        stack.callback(interrupts.hold)
        _Loop(study, executor, rules, owner, callbacks, bar, interrupts, inline, budgets).run()


@dataclass(frozen=True, slots=True)
class _StopRules:
    """When nothing more is started; what runs then is finished and told."""

    n_trials: int | None
    stops: int  # how often `Study.stop` had been called before
    deadline: float | None  # of time.monotonic()
    target: float | None
    patience: int | None

    def reached(self, study: Study) -> str | None:
        """Why nothing more is to be started, or None; `n_trials` is the study's to count, at every ask."""
        if study._stops != self.stops:
            return "`stop` was called"
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return "the time is over"
        if self.target is not None and _reaches(study, self.target):
            return f"the target {self.target:g} was reached"
        if self.patience is not None and _stale(study) >= self.patience:
            return f"{self.patience} trials in a row have not improved the best value"
        return None


@dataclass(slots=True, eq=False)
class _Loop:
    study: Study
    executor: Executor
    rules: _StopRules
    owner: str
    callbacks: Sequence[Callable[[Study, Trial], object]]
    bar: Progress
    interrupts: Interrupts
    inline: bool
    budgets: Budgets | None

    def run(self) -> None:
        """Start and collect trials until nothing runs and nothing may be started."""
        begun, lost = _take_over(self.study, self.owner)
        running: set[int] = set()
        self._tidy(running)
        self._announce(lost)
        started: set[int] = set()
        may_ask = True  # after an ask in vain, only a result can change the answer
        while True:
            has_room = len(running) < self.executor.capacity
            trial = self._next(begun) if may_ask and has_room else None
            if trial is not None:
                given = trial.config if self.budgets is None else self.budgets.given(trial)
                self.executor.submit(trial.number, given)
                running.add(trial.number)
                started.add(trial.number)
                self.bar.show(len(running))
            elif has_room:
                may_ask = False
            if not running:
                break
            outcomes = self._poll(0.0 if may_ask and len(running) < self.executor.capacity else _TICK)
            may_ask = may_ask or bool(outcomes)
            running -= {outcome.number for outcome in outcomes}
            recorded = _record_all(self._record, outcomes)
            if self.budgets is not None and self.budgets.unstored is not None:
                raise self.budgets.unstored
            if outcomes:
                self._tidy(running)
            self._announce(recorded, len(running))
            self.interrupts.check()
        why = self._why() if started else "nothing is left to do"
        trials = "1 trial was" if len(started) == 1 else f"{len(started)} trials were"
        logger.info("study %r: %s; %s run.", self.study.name, why, trials)
        self._warn(started)

    def _warn(self, started: Collection[int]) -> None:
        """Warn where there is nothing to show for the trials of this run, or of the study if none ran."""
        rungs, ended = self.study._scheduler.rungs, [t for t in self.study.trials if t.state.is_final]
        ran = [trial for trial in ended if trial.number in started] or ended
        if ran and all(trial.state is State.FAILED for trial in ran):
            error = (ran[-1].error or "").splitlines()
            which = "ended" if ran == ended else "ended in this run"
            logger.warning(
                "study %r: %s failed; the last: %s",
                self.study.name,
                f"all {len(ran)} trials that {which} have"
                if len(ran) > 1
                else f"the only trial that {which} has",
                error[-1] if error else "no reason is known",
            )
        elif rungs and not any(trial.state is State.COMPLETE for trial in ended):
            logger.warning(
                "study %r: no trial has reached the full budget, %s; with more trials some get there.",
                self.study.name,
                rungs[-1],
            )

    def _why(self) -> str:
        """What ended a loop that has run trials."""
        limit = self.rules.n_trials
        if limit is not None and sum(trial.is_own for trial in self.study.trials) >= limit:
            return f"n_trials={limit} reached"
        return self.rules.reached(self.study) or "there is nothing more to try"

    def _next(self, begun: deque[Trial]) -> Trial | None:
        """The next trial to run: first those that an earlier loop had begun."""
        if self.rules.reached(self.study) is not None:
            return None
        while begun:
            again = _count(self.study, begun.popleft())
            if again is not None:
                return again
        return self.study._ask(self.owner, self.rules.n_trials)

    def _poll(self, timeout: float) -> Sequence[Outcome]:
        # An objective in this process is interrupted within; workers do not notice, and none of
        # their results is lost on the way.
        with self.interrupts.at_once() if self.inline else nullcontext():
            return self.executor.poll(timeout)

    def _record(self, outcome: Outcome) -> Trial | None:
        return _record(self.study, outcome) if self.budgets is None else self.budgets.record(outcome)

    def _tidy(self, running: Collection[int]) -> None:
        if self.budgets is not None:
            self.budgets.tidy(running)

    def _announce(self, trials: Sequence[Trial], n_running: int = 0) -> None:
        self.bar.show(n_running)
        for trial in trials:
            if trial.state.is_final:
                for callback in self.callbacks:
                    callback(self.study, trial)


def _take_over(study: Study, owner: str) -> tuple[deque[Trial], list[Trial]]:
    """The running trials of loops that are gone, now this one's; and those that were lost too often."""
    taken: deque[Trial] = deque()
    failed = []
    with study._store.asking():
        for trial in study.trials:
            if trial.state is not State.RUNNING or trial.owner is None or not is_gone(trial.owner):
                continue
            if trial.info.get("attempts", 1) >= _MAX_ATTEMPTS:
                with suppress(TrialStateError):
                    failed.append(
                        study.fail(trial, f"lost {_MAX_ATTEMPTS} times: the driver died while it ran.")
                    )
                continue
            ours = replace(trial, owner=owner)
            if study._store.swap(trial, ours):
                taken.append(ours)
    if taken:
        logger.info("study %r: trials %s run again.", study.name, [trial.number for trial in taken])
    return taken, failed


def _record_all(record: Callable[[Outcome], Trial | None], outcomes: Sequence[Outcome]) -> list[Trial]:
    """The trials with what came of them.

    Raises:
        StoreError: with every value that could not be stored.
    """
    recorded = []
    for k, outcome in enumerate(outcomes):
        try:
            recorded.append(record(outcome))
        except StoreError as error:
            lost = ", ".join(_described(one) for one in outcomes[k:])
            raise StoreError(f"{lost} could not be stored: {error}") from error
    return [trial for trial in recorded if trial is not None]


def _record(study: Study, outcome: Outcome) -> Trial | None:
    number = outcome.number
    try:
        if outcome.error is not None:
            return study._fail(number, outcome.error)
        value, outcomes = outcome.value, None
        if study.outcome_constraints and isinstance(value, list | tuple) and len(value) == 2:
            value, outcomes = value
        try:
            return study.tell(number, value, outcomes=outcomes, seconds=outcome.seconds)
        except ResultError:
            return study._fail(number, _refused(outcome.value, study))
    except TrialStateError as error:
        logger.warning("study %r: a result came too late: %s", study.name, error)
        return None


def _count(study: Study, trial: Trial) -> Trial | None:
    """The trial with one more attempt written on it, or None if it was told meanwhile.

    Only now, when it is about to run: a driver that dies while it starts says nothing about the trial.
    """
    again = replace(trial, info={**trial.info, "attempts": trial.info.get("attempts", 1) + 1})
    return again if study._store.swap(trial, again) else None


def _release(study: Study, owner: str) -> None:
    """Give back what was not finished, so that the next loop runs it, on whichever machine that is."""
    try:
        for trial in study.trials:
            if trial.state is State.RUNNING and trial.owner == owner:
                info = {**trial.info, "attempts": 0}  # it was not this trial that ended the loop
                study._store.swap(trial, replace(trial, owner=RELEASED, info=info))
    except StoreError as error:  # another exception may be on its way; is_gone() says the same later
        logger.warning("study %r: unfinished trials could not be released: %s", study.name, error)


def _reaches(study: Study, target: float) -> bool:
    try:
        best = study.best.observations[-1]
    except NoResultError:
        return False
    return best.losses(study._maximize) <= Observation((target,)).losses(study._maximize)


def _stale(study: Study) -> int:
    """How many of the study's own trials have finished since the best value was last improved."""
    judged = {trial.number for trial in comparable(study.trials, study.outcome_constraints)}
    finished = [trial for trial in study.trials if trial.state.is_final]
    best, stale = math.inf, 0
    for trial in sorted(finished, key=lambda t: (t.finished or 0.0, t.number)):
        is_judged = trial.number in judged
        loss = trial.observations[-1].losses(study._maximize)[0] if is_judged else math.inf
        if loss < best:
            best, stale = loss, 0
        elif trial.is_own:
            stale += 1
    return stale


def _stop_rules(study: Study, n_trials: Any, timeout: Any, target: Any, patience: Any) -> _StopRules:
    n_trials = None if n_trials is None else whole("n_trials", n_trials, low=1)
    timeout = None if timeout is None else finite("timeout", timeout, above=0, unit="seconds")
    patience = None if patience is None else whole("patience", patience, low=1)
    target = None if target is None else finite("target", target)
    for name, given in {"target": target, "patience": patience}.items():
        if given is not None and len(study.directions) > 1:
            raise SettingError(f"`{name}` needs one objective; this study has {len(study.directions)}.")
    is_finite = all(parameter.n_levels for parameter in study.space.parameters.values())
    if n_trials is timeout is target is patience is None and not is_finite:
        raise SettingError(
            "`optimize` needs a stop rule, because this space never runs out of configs: give `n_trials`, "
            "`timeout`, `target` or `patience`."
        )
    deadline = None if timeout is None else time.monotonic() + timeout
    return _StopRules(n_trials, study._stops, deadline, target, patience)


def _checked_callbacks(given: Any) -> list[Callable[..., object]]:
    if not isinstance(given, list | tuple) or not all(callable(one) for one in given):
        raise SettingError(f"`callbacks` must be a list of functions of a study and a trial, got {given!r}.")
    for callback in given:
        signature = unfit_signature(callback, 2)
        if signature is not None:
            raise SignatureError(
                f"`callbacks` must be functions f(study, trial), got {name_of(callback)}{signature}."
            )
    return list(given)


def _refused(value: Any, study: Study) -> str:
    m = len(study.directions)
    expected = "a number" if m == 1 else f"a sequence of {m} numbers, one for each objective"
    if study.outcome_constraints:
        names = ", ".join(map(repr, study.outcome_names))
        expected = f"a pair of {expected}, and a dictionary with a number for {names}"
    kind = type(value).__name__
    return f"the objective must return {expected}; it returned {reprlib.repr(value)} of type {kind}."


def _described(outcome: Outcome) -> str:
    if outcome.error is None:
        return f"the value {outcome.value!r} of trial {outcome.number}"
    return f"the failure of trial {outcome.number} ({outcome.error.splitlines()[-1]})"
