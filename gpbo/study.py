"""The study: people ask it for a config, evaluate it, and tell it what they saw.

A `Study` holds no results. It reads the store, decides by pure functions (scheduler, suggester) and writes
one trial back, so that any number of processes can share one store and a study that was killed goes on
with the decisions it would have made.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from gpbo.amendment import amended, retracted
from gpbo.checks import as_whole, device_name, finite, whole
from gpbo.definition import check_same, define
from gpbo.errors import (
    ConfigError,
    NoResultError,
    ResultError,
    SettingError,
    SpaceError,
    StoreError,
    TrialStateError,
    UnknownTrialError,
    did_you_mean,
)
from gpbo.markup import paragraph, table
from gpbo.outcomes import OutcomeConstraint, parse_outcome_constraints
from gpbo.results import not_finite, to_outcomes, to_values
from gpbo.schedulers.base import Minimised, RunToEnd, Scheduler, closing
from gpbo.schedulers.rungs import is_reported, report_budget
from gpbo.space import Config, SearchSpace, is_nothing
from gpbo.standing import comparable, pareto_front, why_none_is_best
from gpbo.stores.base import Store
from gpbo.stores.open import open_store
from gpbo.trial import Observation, Resume, Start, State, Trial

if TYPE_CHECKING:
    import pandas as pd

    from gpbo.analysis.importance import Importance
    from gpbo.checkpoint import Checkpoints
    from gpbo.data import Datasets
    from gpbo.diagnostics import Diagnosis
    from gpbo.suggesters.base import Suggester

Direction = Literal["minimize", "maximize"]
_DIRECTIONS = ("minimize", "maximize")
_SAME = 1e-9  # unit cube: points nearer than this are one
_Chosen = tuple[Config, dict[str, Any]]  # a config and how it was chosen

logger = logging.getLogger(__name__)


class Study:
    """A search for the best config of a space.

    Args:
        space: What may be tuned.
        suggester: How the next config is chosen; by default by Gaussian processes: for one objective
            `GPSuggester`, for several or under outcome constraints `MultiObjectiveSuggester`, with budgets
            `MultiFidelitySuggester`.
        scheduler: How much of a trial is run before it is judged; by default all of it.
        store: Where trials are kept: None for this process's memory, the path of an SQLite file, a database
            URL, or a `Store`.
        direction: "minimize" or "maximize", or a sequence of these, one for each objective.
        outcome_constraints: Bounds on what else is measured of a trial, such as ``"latency <= 10"``: a name
            for `tell`, "<=" or ">=", and a number. A trial that breaks one is infeasible and never the best.
            Bounds on the config itself are constraints of the space.
        seed: Addresses all randomness; a stored study keeps the seed it was made with.
        name: Tells studies in one store apart.
        device: Where tensors are computed: "auto" (CUDA where there is one), "cpu", "cuda:1", ...

    Raises:
        SettingError: if an argument breaks its rule.
        StoreError: if the store cannot be opened.
        StudyMismatchError: if the store holds a study of this name with another space, direction or
            outcome constraints.
    """

    def __init__(
        self,
        space: SearchSpace | Mapping[str, Any],
        *,
        suggester: Suggester | None = None,
        scheduler: Scheduler | None = None,
        store: Store | str | Path | None = None,
        direction: Direction | Sequence[Direction] = "minimize",
        outcome_constraints: str | Sequence[str] = (),
        seed: int = 0,
        name: str = "default",
        device: str = "auto",
    ) -> None:
        self.space: SearchSpace = space if isinstance(space, SearchSpace) else SearchSpace(space)
        self.directions: tuple[Direction, ...] = _directions(direction)
        self.outcome_constraints: tuple[OutcomeConstraint, ...] = parse_outcome_constraints(
            outcome_constraints
        )
        seed = whole("seed", seed)
        if not isinstance(name, str) or not name:
            raise SettingError(f"`name` must be a non-empty string, got {name!r}.")
        self.name: str = name
        self.device: str = device_name(device)
        for role, given, method, like in (
            ("suggester", suggester, "suggest", "GPSuggester()"),
            ("scheduler", scheduler, "judge", "ASHA()"),
        ):
            if given is not None and (isinstance(given, type) or not hasattr(given, method)):
                raise SettingError(f"`{role}` must be an object such as {like}, got {given!r}.")
        self._suggester: Suggester | None = suggester
        self._scheduler: Scheduler = scheduler or RunToEnd()
        if self._scheduler.rungs and len(self.directions) > 1:
            raise SettingError(
                f"`scheduler` compares trials by one objective, got {len(self.directions)} directions; "
                "give one direction, or leave the scheduler out."
            )
        if self._scheduler.rungs and self.outcome_constraints:
            raise SettingError(
                "`scheduler` compares trials by their values alone; leave it or `outcome_constraints` out."
            )
        self._maximize: list[bool] = [direction == "maximize" for direction in self.directions]
        self._minimised: Minimised = Minimised(self._maximize)
        self._datasets: Datasets | None = None  # made when first needed: it loads torch
        self._store: Store = open_store(store, name)
        self._stops: int = 0  # how often `stop` was called; a loop ends when one is added
        try:
            self.seed: int = self._remember(seed)
        except BaseException:
            if self._store is not store:
                self._store.close()
            raise

    @classmethod
    def load(
        cls,
        store: Store | str | Path,
        name: str = "default",
        *,
        suggester: Suggester | None = None,
        scheduler: Scheduler | None = None,
        device: str = "auto",
    ) -> Study:
        """The study that a store already holds, with its space, directions, outcome constraints and seed.

        Raises:
            StoreError: if the store cannot be opened or holds no study of this name.
            SpaceError: if its constraints are functions, which only code can give.
            SettingError: if an argument breaks its rule.
        """
        opened = open_store(store, name, create=False)
        try:
            plain = opened.meta.get("study")
            if plain is None:
                raise StoreError(f"the store holds no study {name!r}; make one with Study(space, store=...).")
            return cls(
                SearchSpace.from_dict(plain["space"]),
                suggester=suggester,
                scheduler=scheduler,
                store=opened,
                direction=plain["directions"],
                outcome_constraints=plain.get("outcome_constraints", ()),
                seed=plain["seed"],
                name=name,
                device=device,
            )
        except BaseException:
            if opened is not store:
                opened.close()
            raise

    def __repr__(self) -> str:
        counts = {state: sum(t.state is state for t in self.trials) for state in State}
        seen = ", ".join(f"{n} {state}" for state, n in counts.items() if n) or "no trials"
        return f"Study({self.name!r}, {len(self.space.parameters)} parameters, {seen})"

    def _repr_html_(self) -> str:
        columns = ["number", "state", *(f"value_{k}" for k in range(len(self.directions)))]
        if len(self.directions) == 1:
            columns[2] = "value"
        has_budgets = any(trial.budget is not None for trial in self.trials)
        columns += [*(["budget"] if has_budgets else []), *self.space.parameters, "error"]
        rows = []
        for trial in self.trials:
            last = trial.observations[-1] if trial.observations else None
            row = [trial.number, str(trial.state), *(last.values if last else [None] * len(self.directions))]
            row += [last.budget if last else trial.budget] if has_budgets else []
            row += [trial.config.get(name, "") for name in self.space.parameters]
            rows.append([*row, trial.error.splitlines()[-1] if trial.error else ""])
        return paragraph(f"{self!r}, {self._standing()}") + table(columns, rows)

    def _standing(self) -> str:
        """How far the study has come, in words."""
        if len(self.directions) > 1:
            return f"{len(self.pareto_front)} on the Pareto front"
        try:
            return f"best value {self.best.value:.6g} of trial {self.best.number}"
        except NoResultError:
            return "no best trial yet"

    @overload
    def ask(self, *, fixed: Mapping[str, Any] | None = None) -> Trial | None: ...

    @overload
    def ask(self, n: int, *, fixed: Mapping[str, Any] | None = None) -> list[Trial]: ...

    def ask(
        self, n: int | None = None, *, fixed: Mapping[str, Any] | None = None
    ) -> Trial | list[Trial] | None:
        """The next trial to evaluate, or None when there is nothing (more) to run; with `n`, a list.

        None, or a shorter list, means that the scheduler waits for other trials or is done, or that a finite
        space has no config left that was not asked for.

        Args:
            n: How many trials to ask for at once; a suggester chooses them to go together.
            fixed: Values that some parameters must have in new configs; the suggester chooses the others,
                and learns from all trials. Queued configs wait, and trials that a scheduler resumes come
                as they are. Where all are fixed there is one config; `enqueue` it to have it tried again.

        Raises:
            SettingError: if `n` is not a whole number >= 1, or is more than 1 where `fixed` leaves nothing
                to choose.
            ConfigError: if `fixed` names an unknown parameter, a value outside its domain, one that would
                be inactive, or values that break a constraint.
            SpaceError: if the constraints leave so little that no config was found.
        """
        held = {} if fixed is None else self.space.fix(fixed)
        if n is None:
            return self._ask(owner=None, fixed=held)
        n = whole("n", n, low=1)
        if n > 1 and held and self.space.only(held) is not None:
            raise SettingError(
                f"`fixed` leaves nothing to choose, so there is one config, and {n} were asked for; "
                "`enqueue` it as often as it is to be tried again."
            )
        asked: list[Trial] = []
        with self._store.asking():
            while len(asked) < n:
                trials = self._store.trials()
                if self._scheduler.rungs or (not held and self._queued(trials)):
                    one = self._ask(owner=None, fixed=held)
                    more = [] if one is None else [one]
                else:
                    more = self._add(trials, self._suggest(trials, n - len(asked), held), Start(), None)
                asked += more
                if not more:
                    break
        if held and len(asked) < n and not self._scheduler.rungs:
            logger.warning(
                "study %r: %d of %d asked for; with %r fixed no config is left that was not asked for.",
                self.name,
                len(asked),
                n,
                held,
            )
        return asked

    def tell(
        self,
        trial: Trial | int,
        value: Any,
        *,
        outcomes: Mapping[str, Any] | None = None,
        budget: float | None = None,
        seconds: float | None = None,
    ) -> Trial:
        """Record what was observed of a running trial; the trial with the state that follows.

        A value or an outcome that is not finite makes the trial a failed one. With a scheduler that has
        rungs, a second report at the same budget changes nothing.

        Args:
            trial: The trial, or its number.
            value: A number, or a sequence with one number for each objective.
            outcomes: A number for each name in the study's outcome constraints.
            budget: The resource spent so far; by default what the trial was given.
            seconds: How long it took.

        Raises:
            UnknownTrialError: if there is no such trial.
            TrialStateError: if the trial is not running, for instance because it was told before.
            SettingError: if `budget` or `seconds` is not a finite number >= 0.
            ResultError: if `value` is not a number for each objective, `outcomes` not one for each name, or
                `budget` is not one at which the scheduler expects a report; the trial stays as it is.
        """
        return self._tell(trial, value, outcomes=outcomes, budget=budget, seconds=seconds)

    def _tell(
        self,
        trial: Trial | int,
        value: Any,
        *,
        outcomes: Mapping[str, Any] | None,
        budget: float | None,
        seconds: float | None,
        noted: Callable[[Trial], Trial] = lambda trial: trial,
    ) -> Trial:
        """As `tell`; `noted` writes on the trial, in the same step, what the loop wants to be remembered."""
        values, measured = self._read(value, outcomes)
        if budget is not None:
            budget = finite("budget", budget, low=0)
        if seconds is not None:
            seconds = finite("seconds", seconds, low=0)
        bad = not_finite(values, measured)
        rungs = self._scheduler.rungs
        if budget is None and isinstance(trial, Trial):
            budget = trial.budget  # what it was given when asked for: it may have been promoted since

        def told(now: Trial) -> Trial:
            now = noted(_running(now, "told"))
            if bad:
                at = now.budget if budget is None else budget
                return _failed(now, f"the objective's {bad}{f' at budget {at}' if rungs else ''}")
            spent = report_budget(now, budget, rungs) if rungs else budget
            seen = Observation(values, now.budget if spent is None else spent, seconds, measured)
            new = replace(now, observations=(*now.observations, seen))
            return _in_state(new, self._judge(new))

        return self._change(trial, told, unless=lambda now: bool(rungs) and is_reported(now, budget, rungs))

    def amend(
        self,
        trial: Trial | int,
        value: Any,
        *,
        outcomes: Mapping[str, Any] | None = None,
        budget: float | None = None,
    ) -> Trial:
        """Correct what was observed of a trial that is not running; the trial as it is then.

        What was decided by the old value stays decided: the state of the trial, and what became of others.
        Whatever is decided from now on goes by the new value. What was there before is kept in
        ``trial.info["amended"]``.

        A failed trial that has no observation at this budget gets one, and the state that `tell` would have
        given it. A value or an outcome that is not finite takes the observation back, with those at larger
        budgets, and makes the trial a failed one.

        Args:
            trial: The trial, or its number.
            value: A number, or a sequence with one number for each objective.
            outcomes: A number for each name in the study's outcome constraints.
            budget: That of the observation to be corrected; by default the last one's, and of a failed trial
                the one it did not reach.

        Raises:
            UnknownTrialError: if there is no such trial.
            TrialStateError: if the trial is running.
            SettingError: if `budget` is not a finite number >= 0, or is given where the study has no budgets.
            ResultError: if `value` is not a number for each objective, `outcomes` not one for each name, or
                the trial has no observation at `budget`; the trial stays as it is.
        """
        values, measured = self._read(value, outcomes)
        if budget is not None:
            budget = finite("budget", budget, low=0)
        bad = not_finite(values, measured)

        def corrected(now: Trial) -> Trial:
            has_budgets = self._scheduler.rungs or any(seen.budget is not None for seen in now.observations)
            if budget is not None and not has_budgets:
                raise SettingError(f"`budget` must be left out where a study has no budgets, got {budget}.")
            if bad:
                return retracted(now, budget=budget, error=f"the amended {bad}")
            rungs = self._scheduler.rungs
            return amended(now, values, measured, budget=budget, rungs=rungs, judge=self._judge)

        return self._change(trial, corrected)

    def fail(self, trial: Trial | int, error: BaseException | str) -> Trial:
        """Record that a trial has come to nothing, and why; one that is paused is given up by it.

        A trial as it was while it ran stands for that run: once the run was told, its failure is too late.

        Raises:
            SettingError: if `error` is neither an exception nor a text that says something.
            UnknownTrialError: if there is no such trial.
            TrialStateError: if the trial is neither running nor paused.
        """
        is_run = isinstance(trial, Trial) and trial.state is State.RUNNING
        return self._fail(trial, error, may_be_paused=not is_run)

    def _fail(self, trial: Trial | int, error: BaseException | str, *, may_be_paused: bool = False) -> Trial:
        """As `fail`, of a run: one that is lost must not give up what another has paused."""
        if isinstance(error, BaseException):
            error = "".join(traceback.format_exception(error)).strip()
        if not isinstance(error, str) or not error.strip():
            raise SettingError(f"`error` must be an exception or a text that says why, got {error!r}.")

        def failed(now: Trial) -> Trial:
            is_given_up = may_be_paused and now.state is State.PAUSED
            return _failed(now if is_given_up else _running(now, "failed"), error)

        return self._change(trial, failed)

    def add(
        self,
        config: Mapping[str, Any],
        value: Any,
        *,
        outcomes: Mapping[str, Any] | None = None,
        budget: float | None = None,
        seconds: float | None = None,
    ) -> Trial:
        """Record a result from elsewhere, as a trial of its own.

        Raises:
            ConfigError: if the config does not fit the space.
            SettingError: if `budget` or `seconds` is not a finite number >= 0.
            ResultError: if `value` is not a number for each objective, or `outcomes` not one for each name.
        """
        result = self._result(config, value, outcomes, budget=budget, seconds=seconds)
        return self._take([result])[0]

    def add_many(
        self,
        configs: Iterable[Mapping[str, Any]] | pd.DataFrame,
        values: Iterable[Any],
        *,
        outcomes: Iterable[Mapping[str, Any]] | pd.DataFrame | None = None,
        budgets: Iterable[float | None] | None = None,
    ) -> list[Trial]:
        """Record many results from elsewhere at once: all of them or, on an error, none.

        Args:
            configs: The config of each; of a data frame each row is one.
            values: The value of each, as for `add`; of a data frame each row is one.
            outcomes: The outcomes of each, also as a data frame.
            budgets: The resource behind each; None or nan where there is none.

        Raises:
            ConfigError: if a config does not fit the space; it says which.
            SettingError: if one of these is neither a list nor a data frame, there are not as many of one as
                of the other, or a budget is not a finite number >= 0.
            ResultError: if a value is not a number for each objective, or outcomes are not one for each name.
        """
        configs = _rows("configs", configs)
        n = len(configs)
        columns = [
            _rows("values", values),
            *(
                [None] * n if one is None else _rows(name, one)
                for name, one in (("outcomes", outcomes), ("budgets", budgets))
            ),
        ]
        for name, column in zip(("values", "outcomes", "budgets"), columns, strict=True):
            if len(column) != n:
                raise SettingError(
                    f"`{name}` must have one entry for each of {n} configs, got {len(column)}."
                )
        results = []
        for k, (config, value, measured, budget) in enumerate(zip(configs, *columns, strict=True)):
            budget = None if is_nothing(budget) else budget
            try:
                results.append(self._result(config, value, measured, budget=budget, seconds=None))
            except (ConfigError, SettingError, ResultError) as error:
                raise type(error)(f"result {k}: {error}") from None
        return self._take(results)

    def enqueue(self, config: Mapping[str, Any]) -> None:
        """Have this config asked for before any other; queued configs come in the order of queueing.

        Raises:
            ConfigError: if the config does not fit the space.
        """
        valid = self.space.validate(config)
        with self._store.asking():
            self._store.meta["queue"] = [*self._store.meta.get("queue", []), valid]

    @property
    def trials(self) -> list[Trial]:
        """All trials so far, by number."""
        return list(self._store.trials())

    @property
    def outcome_names(self) -> list[str]:
        """What the outcome constraints speak of, each name once."""
        return list(dict.fromkeys(constraint.name for constraint in self.outcome_constraints))

    @property
    def best(self) -> Trial:
        """The complete trial with the best value; the earliest of several. Only for one objective.

        With budgets, only trials observed at the largest budget seen are compared; under outcome constraints
        only feasible ones, by what was measured.

        Raises:
            NoResultError: if no trial is complete yet, or none is feasible.
            SettingError: if the study has several objectives.
        """
        if len(self.directions) > 1:
            raise SettingError("`best` needs one objective; this study has several, use `pareto_front`.")
        trials = self._store.trials()
        complete = comparable(trials, self.outcome_constraints)
        if not complete:
            raise NoResultError(why_none_is_best(self.name, trials, self.outcome_constraints))
        return min(complete, key=lambda t: t.observations[-1].losses(self._maximize))

    @property
    def pareto_front(self) -> list[Trial]:
        """The complete trials, feasible ones alone, that no other beats; by number.

        One trial beats another when it is better in one objective and worse in none, so trials with equal
        values are all in. With budgets, only trials observed at the largest budget seen are compared.
        """
        return pareto_front(comparable(self._store.trials(), self.outcome_constraints), self._maximize)

    def diagnose(self) -> Diagnosis:
        """How well results at low budgets foretell those at the full one, and what to change; print it.

        It says for each rung whether the order of trials is kept at the next, how often good trials are
        stopped, and with which values of a parameter trials start slowly.
        """
        from gpbo.diagnostics import diagnose

        return diagnose(self.trials, self.space, self._scheduler, self._maximize, seed=self.seed)

    def importance(self, objective: int | None = None, *, budget: float | None = None) -> Importance:
        """Which share of the value's variance over the search space is due to each parameter; print it.

        For each parameter Sobol's first-order share, what it explains alone, and its total share, with all
        that it explains together with others; each with a 90 % interval, over functions and hyper-parameters
        that the trials allow. The config varies as random search draws it: on a log scale where it has one,
        a conditional parameter where it exists. Failed trials, which have no value, are left out. Where an
        optimizer has crowded its trials near the best, less is known of the rest than the intervals say.

        Args:
            objective: Which objective, from 0; by default each.
            budget: Whose values count; by default those at the full budget.

        Raises:
            NoResultError: if fewer than five trials have a value there, or all have the same.
            SettingError: if there is no such objective or budget.
        """
        from gpbo.analysis.importance import importance

        return importance(self, objective, budget=budget)

    def to_dataframe(self) -> pd.DataFrame:
        """One row a trial: its number, state, value(s), budget, times, ``config.*`` columns and error.

        Under outcome constraints also ``outcome.*`` columns, and whether it is ``feasible``.

        Raises:
            MissingExtraError: if pandas is not installed.
        """
        from gpbo.analysis.frame import to_frame

        return to_frame(self)

    def optimize(
        self,
        objective: Callable[..., Any],
        n_trials: int | None = None,
        *,
        workers: int = 1,
        timeout: float | None = None,
        callbacks: Sequence[Callable[[Study, Trial], object]] = (),
        target: float | None = None,
        patience: int | None = None,
        trial_timeout: float | None = None,
        gpus_per_trial: int = 1,
        checkpoints: Checkpoints | str | Path | None = None,
        progress: bool = True,
    ) -> Study:
        """Evaluate `objective` on one config after another until a stop rule holds; this study.

        A trial whose objective raises, returns no finite number, dies or takes too long is recorded as
        failed, and the study goes on. When a stop rule comes true, what runs is finished first. After
        Ctrl-C, or a crash, the same call goes on where it stopped.

        With a scheduler that has budgets the objective takes a `Job`: it trains up to ``job.budget`` and
        reports on its way, and what it saved when it was paused is there when it is resumed. The decisions
        are those of `ask` and `tell`. It may also be a function of a config and a budget, which is called
        anew for every budget its trial reaches.

        Args:
            objective: Takes a config and returns a number, or a sequence of them for several objectives;
                under outcome constraints a pair of that and a dictionary of the outcomes. With budgets it
                takes a `Job`, or a config and a budget.
            n_trials: Stop when the study holds so many trials of its own, earlier ones included; with
                budgets, when none of them is to go on either. Of a bracket that is not full then, or for
                which a finite space has no more configs, the best go on as if the missing ones had failed.
            workers: How many processes evaluate; 1 without `trial_timeout` evaluates in this process.
            timeout: Start nothing more after so many seconds.
            callbacks: Each called as ``callback(study, trial)`` after every finished trial.
            target: Stop when a value as good as this was observed.
            patience: Stop when so many finished trials in a row have not improved the best value.
            trial_timeout: Stop and fail a trial after so many seconds.
            gpus_per_trial: How many of the machine's GPUs each worker is given, where there are any.
            checkpoints: Where trials with budgets keep what they need to go on, or the whole `Checkpoints`
                settings; by default beside the study's file, or in a temporary directory where it has none.
            progress: Whether to show a bar in a terminal or in Jupyter; it is never shown in a log.

        Raises:
            SettingError: if an argument breaks its rule, or no stop rule is given for an endless space.
            SignatureError: if the objective or a callback cannot be called with what it is given; there is no
                trial then.
            ObjectiveError: if the objective cannot be sent to worker processes, or not loaded there.
            StoreError: if the store cannot be written; it names the values that were not stored.
        """
        from gpbo.run import run

        run(
            self,
            objective,
            n_trials=n_trials,
            workers=workers,
            timeout=timeout,
            callbacks=callbacks,
            target=target,
            patience=patience,
            trial_timeout=trial_timeout,
            gpus_per_trial=gpus_per_trial,
            checkpoints=checkpoints,
            progress=progress,
        )
        return self

    def stop(self) -> None:
        """Have every `optimize` of this object that runs now start nothing more; for callbacks."""
        self._stops += 1

    def close(self) -> None:
        """Let go of the store's files and connections; neither the study nor the store is used afterwards."""
        self._store.close()

    def _ask(
        self, owner: str | None, n_trials: int | None = None, fixed: Config | None = None
    ) -> Trial | None:
        """The next trial for `owner`; a new config only while the study holds fewer than `n_trials`."""
        with self._store.asking():
            trials = self._store.trials()
            wish = self._scheduler.next(self._minimised(trials))
            if isinstance(wish, Start):
                if n_trials is None or not len(trials) >= n_trials <= sum(t.is_own for t in trials):
                    queued = [] if fixed else self._queued(trials)
                    added = self._add(trials, queued or self._suggest(trials, 1, fixed or {}), wish, owner)
                    if added or fixed:
                        return added[0] if added else None
                wish = closing(self._scheduler, self._minimised(trials))
            if not isinstance(wish, Resume):
                return None
            old = trials[wish.number]
            new = replace(old, state=State.RUNNING, budget=wish.budget, owner=owner)
            return _lent(new) if self._store.swap(old, new) else None

    def _add(
        self, trials: Sequence[Trial], chosen: Sequence[_Chosen], wish: Start, owner: str | None
    ) -> list[Trial]:
        added = [
            Trial(
                number=number,
                config=config,
                budget=wish.budget,
                bracket=wish.bracket,
                info=info,
                owner=owner,
                started=time.time(),
            )
            for number, (config, info) in enumerate(chosen, start=len(trials))
        ]
        self._store.add(added)
        return [_lent(trial) for trial in added]

    def _queued(self, trials: Sequence[Trial]) -> list[_Chosen]:
        """The config whose turn it is in the queue, if there is one."""
        queue = self._store.meta.get("queue", [])
        used = sum(t.info.get("source") == "queue" for t in trials) if queue else 0
        return [(dict(config), {"source": "queue"}) for config in queue[used : used + 1]]

    def _suggest(self, trials: Sequence[Trial], n: int, fixed: Config) -> list[_Chosen]:
        from gpbo.data import Datasets
        from gpbo.suggesters.default import default_suggester

        if self._suggester is None:
            self._suggester = default_suggester(
                objectives=len(self.directions),
                is_constrained=bool(self.outcome_constraints),
                has_budgets=bool(self._scheduler.rungs),
            )
        if self._datasets is None:
            self._datasets = Datasets(
                self.space, self._maximize, self.outcome_constraints, device=self.device
            )
        data = self._datasets(trials, number=len(trials))
        cube = self.space.part(fixed) if fixed else self.space.cube
        try:
            suggestion = self._suggester.suggest(data, cube, n, self.seed)
        except SpaceError as error:
            held = f"with {fixed!r} fixed, " if fixed else ""
            raise SpaceError(
                f"{held}the constraints {', '.join(self.space.constraint_names)}: {error}"
            ) from None
        X, info = suggestion.X, dict(suggestion.info)
        if not fixed:
            return [(config, dict(info)) for config in self.space.decode(X)]
        if ((cube.snap(X) - X).abs() > _SAME).any():
            raise SettingError(f"{self._suggester!r} cannot be asked with `fixed`: it ignores `cube.snap`.")
        # What was fixed is kept to the last digit.
        return [(config | fixed, info | {"fixed": dict(fixed)}) for config in self.space.decode(X)]

    def _change(
        self,
        trial: Trial | int,
        change: Callable[[Trial], Trial],
        *,
        unless: Callable[[Trial], bool] = lambda _: False,
    ) -> Trial:
        number = trial.number if isinstance(trial, Trial) else trial
        if as_whole(number) is None:
            raise SettingError(f"`trial` must be a trial or its number, got {trial!r}.")
        while True:
            trials = self._store.trials()
            if not 0 <= number < len(trials):
                raise UnknownTrialError(
                    f"study {self.name!r} has no trial {number}; it has {len(trials)} trials, from 0 on."
                )
            old = trials[int(number)]
            if isinstance(trial, Trial) and _disagree(trial.config, old.config):
                raise UnknownTrialError(
                    f"trial {number} of study {self.name!r} has the config {dict(old.config)!r}, but the one "
                    f"given has {dict(trial.config)!r}: it belongs to another study."
                )
            if unless(old):
                return old
            new = change(old)
            if self._store.swap(old, new):
                return new

    def _result(
        self,
        config: Mapping[str, Any],
        value: Any,
        outcomes: Mapping[str, Any] | None,
        *,
        budget: float | None,
        seconds: float | None,
    ) -> Trial:
        """A result from elsewhere as a trial that has no number yet."""
        valid = self.space.validate(config)
        values, measured = self._read(value, outcomes)
        if budget is not None:
            budget = finite("budget", budget, low=0)
            rungs = self._scheduler.rungs
            if rungs and budget > rungs[-1]:
                raise SettingError(f"`budget` must be at most the full budget, {rungs[-1]}, got {budget}.")
        if seconds is not None:
            seconds = finite("seconds", seconds, low=0)
        added = {"source": "added"}
        trial = Trial(number=0, config=valid, budget=budget, info=added, started=time.time())
        if bad := not_finite(values, measured):
            return _failed(trial, f"the added {bad}")
        seen = Observation(values, budget, seconds, measured)
        return _in_state(replace(trial, budget=None, observations=(seen,)), State.COMPLETE)

    def _take(self, results: Sequence[Trial]) -> list[Trial]:
        """The results, numbered on from the last trial and stored."""
        with self._store.asking():
            first = len(self._store.trials())
            trials = [replace(result, number=first + k) for k, result in enumerate(results)]
            self._store.add(trials)
        return trials

    def _judge(self, trial: Trial) -> State:
        """What the scheduler says of a trial with a new observation."""
        trials = list(self._store.trials())
        trials[trial.number] = trial
        return self._scheduler.judge(self._minimised(trials), trial.number)

    def _read(self, value: Any, outcomes: Any) -> tuple[tuple[float, ...], dict[str, float]]:
        """What was told, as numbers."""
        return to_values(value, len(self.directions)), to_outcomes(outcomes, self.outcome_names)

    def _remember(self, seed: int) -> int:
        """Write down what this study is, or check it against what is written; the seed to use."""
        plain = define(self.space, self.directions, self.outcome_constraints, seed)
        with self._store.asking():
            stored = self._store.meta.get("study")
            if stored is None:
                self._store.meta["study"] = plain
                return seed
        check_same(self.name, stored, plain)
        if stored["seed"] != seed:
            logger.info("study %r keeps its stored seed %s, not %s.", self.name, stored["seed"], seed)
        return int(stored["seed"])


def _rows(name: str, given: Any) -> list[Any]:
    """The entries of a list, or the rows of a data frame: as dictionaries, or lists of values."""
    if hasattr(given, "to_dict") and hasattr(given, "columns"):
        return list(given.to_numpy().tolist() if name == "values" else given.to_dict("records"))
    if isinstance(given, Mapping | str) or not isinstance(given, Iterable):
        raise SettingError(f"`{name}` must be a list or a data frame with one entry each, got {given!r}.")
    return list(given)


def _running(trial: Trial, what: str) -> Trial:
    """The trial, if it is running."""
    if trial.state is not State.RUNNING:
        result = f"value {trial.value}" if trial.values else f"error {trial.error!r}"
        raise TrialStateError(
            f"only a running trial can be {what}, but trial {trial.number} is {trial.state} with {result}; "
            "it stays as it is."
        )
    return trial


def _lent(trial: Trial) -> Trial:
    """The trial with a config of the caller's own, to pop from as they like."""
    return replace(trial, config=dict(trial.config))


def _failed(trial: Trial, error: str) -> Trial:
    return replace(_in_state(trial, State.FAILED), error=error)


def _in_state(trial: Trial, state: State) -> Trial:
    finished = time.time() if state.is_final else None
    owner = trial.owner if state is State.RUNNING else None
    return replace(trial, state=state, finished=finished, owner=owner)


def _directions(direction: Any) -> tuple[Direction, ...]:
    listed = tuple(direction) if isinstance(direction, list | tuple) else (direction,)
    for one in listed:
        if one not in _DIRECTIONS:
            hint = did_you_mean(str(one), _DIRECTIONS)
            raise SettingError(f"`direction` must be 'minimize' or 'maximize', got {one!r}.{hint}")
    if not listed:
        raise SettingError("`direction` must name at least one objective's direction, got none.")
    return listed


def _disagree(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    """Whether two configs give one parameter different values; either may have lost some."""
    return any(name in two and two[name] != value for name, value in one.items())
