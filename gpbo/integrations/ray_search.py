"""gpbo as a searcher of Ray Tune.

A Ray trial is tied to a trial of the study: its id is written there under ``info["run"]``, with a name for
the experiment. After a crash Ray knows its trials as of its last checkpoint, which is seconds older than the
study's store. A trial that Ray has forgotten is then suggested again.
"""

from __future__ import annotations

import logging
import math
import uuid
from collections import deque
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gpbo.checks import device_name, whole
from gpbo.errors import ConfigError, MissingExtraError, ResultError, SettingError, did_you_mean
from gpbo.integrations.ray_space import flat, nested, space_from_ray, tuned_space
from gpbo.schedulers.base import Scheduler, closing
from gpbo.space import Config, SearchSpace
from gpbo.stores.base import Store
from gpbo.stores.memory import MemoryStore
from gpbo.stores.place import shown
from gpbo.study import Direction, Study
from gpbo.trial import Decision, Done, Resume, Start, State, Trial, Wait

try:
    from ray import cloudpickle
    from ray.tune.result import AUTO_RESULT_KEYS, DEBUG_METRICS, DEFAULT_METRIC, DONE, TIME_TOTAL_S
    from ray.tune.search import Searcher
except ImportError as error:
    raise MissingExtraError(f"Ray Tune is not installed ({error}); pip install 'gpbo[ray]'.") from None

if TYPE_CHECKING:
    from gpbo.suggesters.base import Suggester

Mode = Literal["min", "max"]

_DIRECTIONS: dict[str, Direction] = {"min": "minimize", "max": "maximize"}
_ERROR = "its Ray trial ended with an error; Ray keeps that in the trial's folder."
_SAVED = ("_experiment", "_space", "_metric", "_mode", "_memory", "_known", "_last")

logger = logging.getLogger(__name__)


class GPBOSearch(Searcher):
    """Suggests configs by a study of gpbo's.

    In a ConcurrencyLimiter, or under ``TuneConfig(max_concurrent_trials=...)``, it keeps to that number by
    itself: trials that are paused do not count, and `batch` changes nothing.

    Args:
        space: What may be tuned, as a `SearchSpace` or a dictionary of Ray's domains; by default the Tuner's
            `param_space`. A name such as ``opt/lr`` stands for ``config["opt"]["lr"]``.
        metric: The name of the result to be optimized, or a list of them; by default that of the TuneConfig.
        mode: "min" or "max", or one for each metric; by default that of the TuneConfig.
        points_to_evaluate: Configs to try first.
        time_attr: The name of the result that says how far a trial got, for Ray's own schedulers that stop
            trials early: their values are then compared only with those of trials that got as far.
        suggester: As of a `Study`.
        store: Where trials are kept: the path of an SQLite file or a database URL, which lose nothing when
            the program is killed; by default memory, of which Ray saves what there is every few seconds.
        name: Tells studies in one store apart. A study that is there already goes on.
        seed: Addresses all randomness.
        device: Where tensors are computed.

    Raises:
        SettingError: if an argument breaks its rule.
        SpaceError: if `space` cannot be searched.
    """

    def __init__(
        self,
        space: SearchSpace | Mapping[str, Any] | None = None,
        *,
        metric: str | list[str] | None = None,
        mode: Mode | list[Mode] | None = None,
        points_to_evaluate: Sequence[Mapping[str, Any]] = (),
        time_attr: str | None = None,
        suggester: Suggester | None = None,
        store: str | Path | None = None,
        name: str = "default",
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        _check_objectives(metric, mode)
        super().__init__()
        self._metric: Any = metric
        self._mode: Any = mode
        if store is not None and not isinstance(store, str | Path):
            raise SettingError(
                f"`store` must be a path or a database URL, which Ray can save, got {store!r}."
            )
        if not isinstance(points_to_evaluate or [], list | tuple):
            raise SettingError(f"`points_to_evaluate` must be a list of configs, got {points_to_evaluate!r}.")
        self._space = space if space is None or isinstance(space, SearchSpace) else space_from_ray(space)
        self._points = list(points_to_evaluate or ())
        self._time_attr = time_attr
        self._suggester = suggester
        # a program that restores the experiment may stand in another directory
        self._store = store if store is None or "://" in str(store) else Path(store).absolute()
        self._name = name
        self._seed = whole("seed", seed)
        self._device = device_name(device)
        self._max_concurrent = 0
        self._scheduler: Scheduler | None = None
        self._study: Study | None = None
        self._experiment = f"ray/{uuid.uuid4().hex}"
        self._memory: tuple[dict[str, Any], list[Trial]] = {}, []  # what a study in memory begins with
        self._known: set[str] = set()  # the Ray trials of this experiment
        self._numbers: dict[str, int] = {}  # of the trials, by the ids of the Ray trials they are tied to
        self._lost: deque[int] = deque()  # trials whose Ray trials are gone
        self._last: dict[str, dict[str, Any]] = {}  # results of trials that are under way

    def __repr__(self) -> str:
        n = 0 if self._space is None else len(self._space.parameters)  # unlike the study it is at hand
        known = f"{n or 'no'} parameter{'s' * (n != 1)} yet"
        given = [f"metric={self._metric!r}", f"mode={self._mode!r}"]
        given += [f"store={shown(self._store)!r}"] if self._store is not None else []
        return f"GPBOSearch({', '.join(given)}, {self._study or known})"

    @property
    def study(self) -> Study:
        """The study behind it, with all trials.

        Raises:
            SettingError: if the space, the metric or the mode is not known yet.
            StudyMismatchError: if the store holds another study of this name.
            ConfigError: if a point to evaluate does not fit the space.
        """
        if self._study is None:
            study = self._opened(self._store or _in_memory(*self._memory))
            self._take_up(study)
            self._study = study
        return self._study

    @property
    def max_concurrent(self) -> int:
        """How many trials may run at once; 0 for any number."""
        return self._max_concurrent

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """True: it limits itself, and does not count paused trials as Ray's limiter would."""
        self._max_concurrent = max_concurrent
        return True

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Takes over what the TuneConfig and `param_space` say; False if two spaces were given."""
        self._metric, self._mode = metric or self._metric, mode or self._mode
        _check_objectives(self._metric, self._mode)
        if self._space is not None:
            return False
        self._space = tuned_space(config)
        return True

    def suggest(self, trial_id: str) -> Any:
        """A config; None if there is nothing to start now, and FINISHED if there never will be."""
        study = self.study
        if not self._has_room():
            return None
        with study._store.asking():
            trials = study._store.trials()
            if self._lost:
                return self._suggested(trials[self._lost.popleft()], trial_id)
            wish = self._wish(trials)
            if isinstance(wish, Wait | Done):
                return None if isinstance(wish, Wait) else self.FINISHED
            if isinstance(wish, Resume) and self._is_tied(trials[wish.number]):
                return None  # it waits in Ray and is resumed there
            trial = study._ask(self._experiment)
            if trial is not None:
                return self._suggested(trial, trial_id)
            # a resume fails where another process has just changed the trial: Ray asks again
            return self.FINISHED if isinstance(wish, Start) else None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keeps the result in case the trial ends without another, as it does if Ray stops it in a pause."""
        if self._scheduler is None and trial_id in self._numbers:
            self._last[trial_id] = result

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tells the study, unless it knows already.

        Raises:
            ResultError: if the result has no metric, or one that is no number.
        """
        last = self._last.pop(trial_id, None)
        trial, result = self.find(trial_id) if error else self.find_again(trial_id), result or last
        if trial is None or trial.state.is_final:
            return
        if trial.state is State.PAUSED:
            del self._numbers[trial_id]  # whoever resumes it begins with another Ray trial
        elif error:
            self.study.fail(trial, _ERROR)
        elif not result:
            self.study.fail(trial, "its Ray trial ended without a result.")
        else:
            budget = None if self._time_attr is None else entry(result, self._time_attr)
            self.study.tell(trial, self.value_in(result), budget=budget, seconds=result.get(TIME_TOTAL_S))

    def add_evaluated_point(
        self,
        parameters: dict[str, Any],
        value: float,
        error: bool = False,
        pruned: bool = False,
        intermediate_values: list[float] | None = None,
    ) -> None:
        """Adds a result from elsewhere, at the full budget; one that was pruned has none and is left out.

        Raises:
            ConfigError: if the config does not fit the space; what is not in the space is ignored.
        """
        if pruned:
            logger.info("%r was pruned, so it is not added.", parameters)
            return
        rungs = self.study._scheduler.rungs
        nothing = [math.nan] * len(self.study.directions)
        self.study.add(
            self._config(parameters), nothing if error else value, budget=rungs[-1] if rungs else None
        )

    def save(self, checkpoint_path: str) -> None:
        """Writes down which Ray trials there are and, where the store is memory, all trials."""
        state = self.__getstate__()
        Path(checkpoint_path).write_bytes(cloudpickle.dumps({name: state[name] for name in _SAVED}))

    def restore(self, checkpoint_path: str) -> None:
        """Goes on from what was saved, with the store, suggester, seed and limit of this object."""
        self.__dict__.update(cloudpickle.loads(Path(checkpoint_path).read_bytes()))
        self._study, self._scheduler, self._numbers, self._lost = None, None, {}, deque()

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_study": None, "_scheduler": None, "_numbers": {}, "_lost": deque()}
        if self._study is not None and self._store is None:
            state["_memory"] = dict(self._study._store.meta), self._study.trials
        return state

    def schedule(self, scheduler: Scheduler) -> None:
        """Has this scheduler decide from now on, also about what was asked for before it was known."""
        if scheduler is self._scheduler:
            return
        store = self.study._store
        self._scheduler = scheduler
        self._study = self._opened(store)
        for trial in self._study.trials:
            if trial.owner == self._experiment and trial.budget is None:
                wish = self._wish(store.trials()[: trial.number])
                if isinstance(wish, Start):
                    self._swap(trial, replace(trial, budget=wish.budget, bracket=wish.bracket))
            elif not trial.is_own and trial.observations and trial.observations[0].budget is None:
                full = replace(trial.observations[0], budget=scheduler.rungs[-1])
                self._swap(trial, replace(trial, observations=(full,)))

    def find(self, trial_id: str) -> Trial | None:
        """The trial that a Ray trial is tied to."""
        trials, number = self.study.trials, self._numbers.get(trial_id)
        return None if number is None else trials[number]

    def find_again(self, trial_id: str) -> Trial | None:
        """The same of a Ray trial that says something: it runs, whatever error it had before."""
        trial = self.find(trial_id)
        if trial is not None and trial.state is State.FAILED and trial.error == _ERROR:
            again = replace(trial, state=State.RUNNING, error=None, finished=None, owner=self._experiment)
            self._swap(trial, again)
            return again
        return trial

    def resume(self, waiting: Container[str | None], *, closing: bool) -> str | None:
        """The Ray trial that is to go on, now that the study lets its trial go on, or None.

        Args:
            waiting: The Ray trials that are paused.
            closing: Whether nothing new will be started: brackets that are not full then count as full.
        """
        if not self._has_room():
            return None
        with self.study._store.asking():
            trials = self.study._store.trials()
            wish = self._wish(trials, is_closing=closing)
            if not isinstance(wish, Resume):
                return None
            old = trials[wish.number]
            if not self._is_tied(old) or _ray_id(old) not in waiting:
                return None
            new = replace(old, state=State.RUNNING, budget=wish.budget, owner=self._experiment)
            return _ray_id(old) if self._swap(old, new) else None

    def value_in(self, result: Mapping[str, Any]) -> list[Any]:
        """What the study is told.

        Raises:
            ResultError: if a metric is not there.
        """
        return [entry(result, metric) for metric in _listed(self._metric)]

    def _opened(self, store: Store | str | Path) -> Study:
        if self._space is None:
            raise SettingError(
                "GPBOSearch has no search space; give it one, or give the Tuner a `param_space`."
            )
        if not self._mode:
            raise SettingError(
                "GPBOSearch has no `metric` and `mode`; give it both (those of a TuneConfig reach it only if "
                "the Tuner has a `param_space`)."
            )
        self._metric = self._metric or DEFAULT_METRIC
        return Study(
            self._space,
            suggester=self._suggester,
            scheduler=self._scheduler,
            store=store,
            direction=[_DIRECTIONS[mode] for mode in _listed(self._mode)],
            name=self._name,
            seed=self._seed,
            device=self._device,
        )

    def _take_up(self, study: Study) -> None:
        """Queue the points to evaluate, once, and find this experiment's trials."""
        points = [study.space.validate(self._config(point)) for point in self._points]
        with study._store.asking():
            experiments = study._store.meta.get("ray", [])
            if self._experiment not in experiments:
                for point in points:
                    study.enqueue(point)
                study._store.meta["ray"] = [*experiments, self._experiment]
        for trial in study.trials:
            # the owner alone says it of one that was asked for when the program was killed
            if self._experiment in (trial.info.get("run", {}).get("experiment"), trial.owner):
                if _ray_id(trial) in self._known:
                    self._numbers[_ray_id(trial)] = trial.number
                else:
                    self._lost.append(trial.number)

    def _config(self, point: Mapping[str, Any]) -> Config:
        """The part of a nested config that is in the space."""
        if not isinstance(point, Mapping):
            raise ConfigError(f"a config must be a dictionary, got {point!r}.")
        space = self._space or self.study.space
        return {name: value for name, value in flat(point).items() if name in space.parameters}

    def _wish(self, trials: Sequence[Trial], *, is_closing: bool = False) -> Decision:
        """What the scheduler would have done now."""
        trials = self.study._minimised(trials)
        return closing(self.study._scheduler, trials) if is_closing else self.study._scheduler.next(trials)

    def _has_room(self) -> bool:
        if not self._max_concurrent:
            return True
        trials = self.study.trials
        running = sum(trials[number].state is State.RUNNING for number in self._numbers.values())
        return running < self._max_concurrent

    def _is_tied(self, trial: Trial) -> bool:
        return self._numbers.get(_ray_id(trial)) == trial.number

    def _suggested(self, trial: Trial, trial_id: str) -> Config:
        """The config of a trial, which is now tied to this Ray trial."""
        tie = {"run": {"experiment": self._experiment, "ray": trial_id}}
        self._swap(trial, replace(trial, info={**trial.info, **tie}))
        self._known.add(trial_id)
        self._numbers[trial_id] = trial.number
        return nested(trial.config)

    def _swap(self, old: Trial, new: Trial) -> bool:
        return self.study._store.swap(old, new)


def entry(result: Mapping[str, Any], name: str) -> Any:
    """What a trial reported under a name.

    Raises:
        ResultError: if it reported nothing there.
    """
    if name not in result:
        own = [key for key in result if key not in {*AUTO_RESULT_KEYS, *DEBUG_METRICS, DONE}]
        raise ResultError(f"a trial must report {name!r}, but it reported {own}.{did_you_mean(name, own)}")
    return result[name]


def _check_objectives(metric: Any, mode: Any) -> None:
    metrics, modes = _listed(metric), _listed(mode)
    if not all(isinstance(one, str | None) for one in metrics):
        raise SettingError(f"`metric` must be a name or a list of names, got {metric!r}.")
    if not all(one in (None, *_DIRECTIONS) for one in modes):
        raise SettingError(f"`mode` must be 'min' or 'max', or a list of these, got {mode!r}.")
    if metric and mode and (len(metrics) != len(modes) or isinstance(metric, str) != isinstance(mode, str)):
        raise SettingError(f"`mode` must have one entry for each metric, got {mode!r} for {metric!r}.")


def _listed(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [given]


def _ray_id(trial: Trial) -> str:
    """The Ray trial that it is tied to; empty for none."""
    return str(trial.info.get("run", {}).get("ray", ""))


def _in_memory(meta: Mapping[str, Any], trials: Sequence[Trial]) -> MemoryStore:
    store = MemoryStore()
    store.meta.update(meta)
    store.add(trials)
    return store
