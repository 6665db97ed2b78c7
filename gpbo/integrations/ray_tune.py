"""gpbo in Ray Tune: a searcher, a scheduler that pauses and resumes trials, and Ray's BOHB by these.

One study stands behind searcher and scheduler, so what is known and what was decided are in its store. After
a crash a trial goes on from where Ray has it, which is behind the store: the reports that it repeats change
nothing, and once it has caught up it does what was decided.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gpbo.checks import finite
from gpbo.errors import MissingExtraError, SettingError
from gpbo.integrations.hosts import check_tested
from gpbo.integrations.ray_search import GPBOSearch, entry
from gpbo.integrations.ray_space import space_from_ray
from gpbo.results import to_values
from gpbo.schedulers.base import Scheduler
from gpbo.schedulers.hyperband import Hyperband
from gpbo.space import SearchSpace
from gpbo.trial import Observation, State, Trial

try:
    import ray
    from ray.tune.experiment import Trial as RayTrial
    from ray.tune.result import DEFAULT_METRIC
    from ray.tune.schedulers import TrialScheduler
    from ray.tune.search import ConcurrencyLimiter
    from ray.tune.search.search_generator import SearchGenerator
except ImportError as error:
    raise MissingExtraError(f"Ray Tune is not installed ({error}); pip install 'gpbo[ray]'.") from None

if TYPE_CHECKING:
    from pathlib import Path

    from ray.tune.execution.tune_controller import TuneController

__all__ = ["GPBOScheduler", "GPBOSearch", "HyperBandForBOHB", "TuneBOHB", "space_from_ray"]

_NEAR = 1e-9  # relative: a report so near to a rung has reached it
_BOHB_SETTINGS = {  # hpbandster's names and ours
    "min_points_in_model": "min_points",
    "top_n_percent": "top_fraction",
    "num_samples": "n_candidates",
    "random_fraction": "random_fraction",
    "bandwidth_factor": "bandwidth_factor",
    "min_bandwidth": "min_bandwidth",
}

logger = logging.getLogger(__name__)

check_tested("Ray", ray.__version__, "2.50", "2.60")


class GPBOScheduler(TrialScheduler):
    """Runs the trials of a `GPBOSearch` up to where a scheduler of gpbo's compares them.

    Trials are paused and resumed, so a trainable should save checkpoints; one that does not begins anew, and
    what it reports again changes nothing. A report at or past a rung counts at that rung. A trial that ends
    by itself keeps its last value at all rungs it has not reached. When nothing new is started any more,
    brackets that are not full go on as if the rest had failed, and what then stays paused is ended.

    Args:
        scheduler: One with budgets, such as `ASHA` or `Hyperband`.
        time_attr: The name of the result that says how much of the budget is spent.
        metric: The search's metric, if given here too.
        mode: The search's mode, if given here too.
        stop_last_trials: Whether trials end at the full budget, rather than by themselves.

    Raises:
        SettingError: if `scheduler` is not one with budgets.
    """

    _supports_buffered_results = False

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        time_attr: str = "training_iteration",
        metric: str | None = None,
        mode: str | None = None,
        stop_last_trials: bool = True,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if isinstance(scheduler, type) or not getattr(scheduler, "rungs", ()):
            raise SettingError(f"`scheduler` must have budgets, such as ASHA(1, 81), got {scheduler!r}.")
        self._scheduler = scheduler
        self._time_attr = time_attr
        self._metric = metric
        self._mode = mode
        self._stop_last_trials = stop_last_trials
        self._added: set[str] = set()

    def __repr__(self) -> str:
        return f"GPBOScheduler({self._scheduler!r}, time_attr={self._time_attr!r})"

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Takes over what the TuneConfig says; False if that was said before."""
        if self._mode and mode:
            return False
        self._mode = mode or self._mode
        return bool(super().set_search_properties(metric, mode, **spec))

    def on_trial_add(self, tune_controller: TuneController, trial: RayTrial) -> None:
        """Keeps a trial paused that is so in the study, though Ray would start it after a crash."""
        search = self._search(tune_controller)
        is_again = trial.trial_id in self._added  # Ray lets it recover from an error
        self._added.add(trial.trial_id)
        known = search.find(trial.trial_id)
        if is_again or known is None:
            return
        if trial.is_finished():
            search.on_trial_complete(trial.trial_id, error=trial.status == RayTrial.ERROR)
        elif known.state is State.PAUSED and self._time_attr in trial.last_result:  # else it catches up
            trial.set_status(RayTrial.PAUSED)

    def on_trial_result(
        self, tune_controller: TuneController, trial: RayTrial, result: dict[str, Any]
    ) -> str:
        """What the study decides."""
        search = self._search(tune_controller)
        known, spent = search.find_again(trial.trial_id), self._spent(result)
        if known is None:  # one that Ray has begun anew under another id
            return self.CONTINUE if spent < self._scheduler.rungs[-1] else self.STOP
        if known.state is State.RUNNING:
            known = self._tell(search, known, spent, result)
        if known.state is State.RUNNING or spent < _last_budget(known) * (1 - _NEAR):
            return self.CONTINUE
        if known.state is State.PAUSED:
            return self.PAUSE
        goes_on = known.state is State.COMPLETE and not self._stop_last_trials
        return self.CONTINUE if goes_on else self.STOP

    def on_trial_complete(
        self, tune_controller: TuneController, trial: RayTrial, result: dict[str, Any]
    ) -> None:
        """Tells the study what the trial has ended with."""
        search = self._search(tune_controller)
        known = search.find_again(trial.trial_id)
        if known is None or not result:  # the search says that it has failed
            return
        if known.state is State.RUNNING:
            known = self._tell(search, known, self._spent(result), result)
        if not known.state.is_final:
            self._finish(search, known, result)

    def on_trial_error(self, tune_controller: TuneController, trial: RayTrial) -> None:
        """Nothing: the search hears of it too, and only if the trial is not to recover."""

    def on_trial_remove(self, tune_controller: TuneController, trial: RayTrial) -> None:
        """Nothing: the search hears of it too."""

    def choose_trial_to_run(self, tune_controller: TuneController) -> RayTrial | None:
        """The trial that the study resumes, else the one that has waited longest."""
        search = self._search(tune_controller)
        trials: dict[str, list[RayTrial]] = {}
        for trial in tune_controller.get_trials():
            trials.setdefault(trial.status, []).append(trial)
        pending = trials.get(RayTrial.PENDING, [])
        paused = {trial.trial_id: trial for trial in trials.get(RayTrial.PAUSED, [])}
        closing = tune_controller.search_alg.is_finished()
        # as many decisions ahead of free resources as Ray itself makes
        if paused and len(pending) < (search.max_concurrent or 1):
            trial_id = search.resume(paused, closing=closing)
            if trial_id is not None:
                return paused[trial_id]
        if paused and closing and not pending and RayTrial.RUNNING not in trials:
            if not any(trial.state is State.COMPLETE for trial in search.study.trials):
                logger.warning(
                    "no trial has reached the full budget, %s; with more trials some get there.",
                    self._scheduler.rungs[-1],
                )
            for trial in paused.values():
                tune_controller.stop_trial(trial)
        return pending[0] if pending else None

    def debug_string(self) -> str:
        """One line for the progress report."""
        return f"Using gpbo with {self._scheduler!r}."

    def _search(self, tune_controller: TuneController) -> GPBOSearch:
        """The experiment's search, with this scheduler's decisions.

        Raises:
            SettingError: if it is not gpbo's, or is for another metric or mode.
        """
        search: Any = tune_controller.search_alg
        while isinstance(search, SearchGenerator | ConcurrencyLimiter):
            search = search.searcher
        if not isinstance(search, GPBOSearch):
            raise SettingError(
                f"GPBOScheduler keeps its rungs in the study of a GPBOSearch, got {type(search).__name__}; "
                "give search_alg=GPBOSearch()."
            )
        search.schedule(self._scheduler)
        for name, mine, its in (("metric", self._metric, search.metric), ("mode", self._mode, search.mode)):
            if mine not in (None, DEFAULT_METRIC, its):
                raise SettingError(f"`{name}` must be that of the search, {its!r}, got {mine!r}.")
        return search

    def _spent(self, result: Mapping[str, Any]) -> float:
        return finite(self._time_attr, entry(result, self._time_attr), low=0)

    def _tell(self, search: GPBOSearch, known: Trial, spent: float, result: Mapping[str, Any]) -> Trial:
        """The trial after all that a report says about it."""
        study, value = search.study, search.value_in(result)
        seconds = result.get("time_this_iter_s")
        if not all(map(math.isfinite, to_values(value, 1))):
            return study.tell(known, value, seconds=seconds)
        for budget in self._due(known, spent):
            known = study.tell(known, value, budget=budget, seconds=seconds)
            if known.state is not State.RUNNING:
                break
        return known

    def _due(self, known: Trial, spent: float) -> list[float]:
        """The budgets at which a report is told."""
        rungs, last = self._scheduler.rungs, _last_budget(known)
        given = known.budget or rungs[-1]
        due = [rung for rung in rungs if last < rung <= min(spent * (1 + _NEAR), given)]
        if len(rungs) == 1 and last < spent < given and not due:
            return [spent]  # the median rule compares everywhere
        return due

    def _finish(self, search: GPBOSearch, known: Trial, result: Mapping[str, Any]) -> None:
        """The trial is complete, with its last value at what is left of its rungs."""
        values = to_values(search.value_in(result), 1)
        rest = [rung for rung in self._scheduler.rungs if rung > _last_budget(known)]
        search.study._store.swap(
            known,
            replace(
                known,
                state=State.COMPLETE,
                budget=self._scheduler.rungs[-1],
                observations=(*known.observations, *(Observation(values, rung) for rung in rest)),
                finished=time.time(),
            ),
        )


def TuneBOHB(
    space: Any = None,
    bohb_config: Mapping[str, Any] | None = None,
    metric: str | None = None,
    mode: Any = None,
    points_to_evaluate: list[dict[str, Any]] | None = None,
    seed: int | None = None,
    max_concurrent: int = 0,
    *,
    store: str | Path | None = None,
) -> GPBOSearch:
    """Ray's searcher of this name by gpbo: BOHB's density model, repaired. See `BOHBSuggester`.

    Args:
        space: As of a `GPBOSearch`, or a ConfigSpace.
        bohb_config: hpbandster's settings.
        metric: As of a `GPBOSearch`.
        mode: As of a `GPBOSearch`.
        points_to_evaluate: As of a `GPBOSearch`.
        seed: As of a `GPBOSearch`; None is 0.
        max_concurrent: How many trials run at once; 0 for any number.
        store: As of a `GPBOSearch`.

    Raises:
        SettingError: if an argument breaks its rule.
    """
    from gpbo.suggesters.density import BOHBSuggester  # loads torch

    settings = dict(bohb_config or {})
    for name in settings:
        if name not in _BOHB_SETTINGS:
            raise SettingError(f"`bohb_config` must have none but {list(_BOHB_SETTINGS)}, got {name!r}.")
    if "top_n_percent" in settings:
        settings["top_n_percent"] = (
            finite("top_n_percent", settings["top_n_percent"], above=0, below=100) / 100
        )
    if type(space).__name__ == "ConfigurationSpace":
        space = SearchSpace.from_configspace(space)
    search = GPBOSearch(
        space,
        metric=metric,
        mode=mode,
        points_to_evaluate=points_to_evaluate or (),
        suggester=BOHBSuggester(**{_BOHB_SETTINGS[name]: value for name, value in settings.items()}),
        store=store,
        seed=seed or 0,
    )
    search.set_max_concurrency(max(max_concurrent, 0))
    return search


def HyperBandForBOHB(
    time_attr: str = "training_iteration",
    metric: str | None = None,
    mode: str | None = None,
    max_t: int = 81,
    reduction_factor: float = 3,
    stop_last_trials: bool = True,
) -> GPBOScheduler:
    """Ray's scheduler of this name by gpbo: `Hyperband` from 1 to `max_t`. See `GPBOScheduler`."""
    return GPBOScheduler(
        Hyperband(1, max_t, reduction_factor),
        time_attr=time_attr,
        metric=metric,
        mode=mode,
        stop_last_trials=stop_last_trials,
    )


def _last_budget(trial: Trial) -> float:
    """Where it was observed last; 0 if nowhere."""
    return (trial.observations[-1].budget or 0.0) if trial.observations else 0.0
