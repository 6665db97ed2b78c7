"""gpbo in scikit-learn: a search estimator like `RandomizedSearchCV`, whose candidates are proposed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import sklearn
from sklearn.base import is_classifier
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils import check_random_state
from sklearn.utils.validation import _num_samples

from gpbo.checks import as_finite, whole
from gpbo.errors import MissingExtraError, SettingError, did_you_mean
from gpbo.integrations.fingerprint import fingerprint, without_address
from gpbo.integrations.hosts import check_tested, release
from gpbo.integrations.sklearn_space import space_from_sklearn, to_parameter
from gpbo.parameters import Categorical
from gpbo.space import SearchSpace
from gpbo.stores.memory import MemoryStore
from gpbo.study import Study
from gpbo.trial import State, Trial

if TYPE_CHECKING:
    from gpbo.schedulers.base import Scheduler
    from gpbo.suggesters.base import Suggester

__all__ = ["GPBOSearchCV", "space_from_sklearn"]

check_tested("scikit-learn", sklearn.__version__, "1.9", "1.9")

_ALL_FAILED = "All the "  # how scikit-learn's message begins when no fit of a batch has succeeded
_ROUND = "sklearn_round"  # where a store has the candidates of the round at work, and their budgets
_PLAIN = (str, bool, int, float, type(None), np.generic)


class GPBOSearchCV(BaseSearchCV):  # type: ignore[misc]  # scikit-learn has no types
    """A search over parameters of an estimator, by cross-validation; a `RandomizedSearchCV` that learns.

    All candidates are evaluated on the same folds. Of several metrics the one that `refit` names is to be
    maximised; where it names none, all of them are, as objectives. A candidate whose score is not finite is a
    failed trial, which the search keeps away from.

    With a scheduler candidates begin on a part of the resource, and the good ones are fitted again on more of
    it. `cv_results_` then has a row for each fit, with its ``n_resources`` and the number of its ``trial``,
    and the best candidate is the best among those with the most. Where `n_iter` leaves a bracket short, it
    goes on as if the rest of it had failed.

    With a `store` every candidate is kept as soon as it is evaluated. A search that was killed goes on from
    there when the same one is fitted again: on the same samples and folds, with the same estimator, choices,
    scoring and scheduler, or it is refused before it has a trial, as it is while another process fits it. Its
    results are, row by row, those it would have had. One that was complete fits one candidate again, and
    takes the others from the store.

    Args:
        estimator: What is tuned.
        param_distributions: A dictionary from names (``C``, ``clf__C``) to lists of choices, which may be any
            objects, to frozen distributions of scipy.stats (uniform, loguniform, randint) or to parameters of
            gpbo's; or a `gpbo.SearchSpace`.
        n_iter: How many candidates there are; fewer where a finite space has no more.
        scoring: As for `RandomizedSearchCV`, with the next ones.
        n_jobs: How many fits run at once.
        refit: The same.
        cv: The same.
        verbose: The same.
        pre_dispatch: The same.
        batch_size: How many candidates are asked for together; by default as many as give each of the
            `n_jobs` a fold. The results depend on it.
        random_state: Addresses the search's randomness.
        error_score: The same.
        return_train_score: The same.
        suggester: How candidates are chosen; by default by Gaussian processes.
        scheduler: For instance ``gpbo.ASHA(100, 900)``; its budgets are amounts of the resource.
        resource: "n_samples", or the name of a number among the estimator's parameters.
        store: Where candidates are kept: the path of an SQLite file or a database URL; by default memory.
        study_name: Tells searches in one store apart.

    Attributes:
        study_: The study of all candidates, a copy in memory: importance, plots, `diagnose`, a data frame.
    """

    def __init__(
        self,
        estimator: Any,
        param_distributions: Any,
        *,
        n_iter: int = 50,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: Any = True,
        cv: Any = None,
        verbose: int = 0,
        pre_dispatch: Any = "2*n_jobs",
        batch_size: int | None = None,
        random_state: Any = None,
        error_score: Any = np.nan,
        return_train_score: bool = False,
        suggester: Suggester | None = None,
        scheduler: Scheduler | None = None,
        resource: str = "n_samples",
        store: str | Path | None = None,
        study_name: str = "default",
    ) -> None:
        super().__init__(
            estimator,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.param_distributions = param_distributions
        self.n_iter = n_iter
        self.batch_size = batch_size
        self.random_state = random_state
        self.suggester = suggester
        self.scheduler = scheduler
        self.resource = resource
        self.store = store
        self.study_name = study_name

    def fit(self, X: Any, y: Any = None, **params: Any) -> GPBOSearchCV:
        """The search itself, fitted.

        Args:
            X: The samples.
            y: Their targets, if there are any.
            **params: What the estimator's `fit`, the splitter (``groups``) and the scorers are given.

        Raises:
            SettingError: if an argument of the search breaks its rule.
            SpaceError: if `param_distributions` holds what cannot be searched.
            StoreError: if the store cannot be opened or written, or another process fits this search.
            StudyMismatchError: if the store holds a search of this name over another space.
            MissingExtraError: if scikit-learn is older than 1.9.
            ValueError: if the fits of all candidates fail.
        """
        if release(sklearn.__version__) < (1, 9):  # before, a search was not told how its samples are split
            raise MissingExtraError(
                f"GPBOSearchCV needs scikit-learn 1.9, this is {sklearn.__version__}; "
                "pip install 'scikit-learn>=1.9'."
            )
        self.__dict__.pop("study_", None)  # scikit-learn sends the search to its workers with every fit
        self._ledger = _Ledger() if self.store is None else _Ledger(samples=joblib.hash((X, y, params)))
        try:
            super().fit(X, y, **params)
            if self._ledger.unscored:  # the last candidates of all have failed
                self.cv_results_ = self._format_results(*self._ledger.rows)
            self.study_ = self._ledger.study
        finally:
            del self._ledger
        results: dict[str, Any] = self.cv_results_
        for name in [name for name in results if name.startswith(("mean_test_", "mean_train_"))]:
            if not np.isfinite(results[name]).all():
                warnings.warn(f"some of `{name}` are not finite: {results[name]}", stacklevel=2)
        return self

    def _check_input_parameters(self, X: Any, y: Any, split_params: Mapping[str, Any]) -> None:
        """scikit-learn's hook before the search: what the folds are made of."""
        self._ledger.given = X, y, split_params

    def _run_search(self, evaluate_candidates: Callable[..., Mapping[str, Any]]) -> None:
        """Asks for candidates and tells of them, until there are `n_iter` and none is to go on."""
        n_iter = whole("n_iter", self.n_iter, low=1)
        size = math.ceil(joblib.effective_n_jobs(self.n_jobs) / self.n_splits_)
        size = size if self.batch_size is None else whole("batch_size", self.batch_size, low=1)
        seed = int(check_random_state(self.random_state).randint(2**31))
        space, objects = _searched(self.param_distributions)
        known = self.estimator.get_params()
        for name in space.parameters:
            if name.partition("__")[0] not in known:  # what it is nested in may be searched as well
                hint = did_you_mean(name, known)
                raise SettingError(f"the estimator has no parameter {name!r} to be searched.{hint}")
        metrics = self._metrics()
        rungs = self._rungs(space)
        study = self._study(space, seed, len(metrics), self.store)
        try:
            with study._store.alone():
                self._search(study, rungs, n_iter, size, objects, metrics, evaluate_candidates)
                self._ledger.study = self._study(space, seed, len(metrics), _copied(study))
        finally:
            study.close()
        if not self._ledger.rows:
            raise ValueError(self._ledger.unscored[-1].error)

    def _study(self, space: SearchSpace, seed: int, n_metrics: int, store: Any) -> Study:
        return Study(
            space,
            suggester=self.suggester,
            scheduler=self.scheduler,
            store=store,
            direction=["maximize"] * n_metrics,
            seed=seed,
            name=self.study_name,
        )

    def _search(
        self,
        study: Study,
        rungs: tuple[float, ...],
        n_iter: int,
        size: int,
        objects: Mapping[str, list[Any]],
        metrics: list[str],
        evaluate_candidates: Callable[..., Mapping[str, Any]],
    ) -> None:
        over_samples = bool(rungs) and self.resource == "n_samples"
        folds = _Folds(
            self._checked_cv_orig,
            study.seed,
            stratified=is_classifier(self.estimator),
            amounts=rungs if over_samples else (),
        )
        X, y, options = self._ledger.given
        list(folds.split(X, y, **options))  # what is to be refused is so before a trial is in the store
        self._check_same(
            study,
            {
                "estimator": fingerprint(self.estimator),
                "choices": fingerprint(objects),
                "scoring": fingerprint(self.scoring),
                "refit": [*metrics, self.refit if isinstance(self.refit, str) else ""],
                "error_score": repr(self.error_score),
                "return_train_score": bool(self.return_train_score),
                "scheduler": without_address(self.scheduler),
                "resource": self.resource,
                "samples": self._ledger.samples,
                "folds": joblib.hash(folds.known),
            },
        )

        def evaluated(trials: list[Trial], budget: float | None) -> list[tuple[list[float], Any]]:
            candidates = [_params(trial, objects) for trial in trials]
            return self._evaluated(evaluate_candidates, candidates, trials, budget, folds, metrics)

        for trial in study.trials:
            for budget, fits, place in trial.info.get("fits", ()):
                self._recall(trial, _params(trial, objects), budget, fits, place)
        due: dict[int, float | None] = dict(study._store.meta.get(_ROUND, ()))  # of one that was killed
        for trial in study.trials:
            if trial.state is State.RUNNING:
                due.setdefault(trial.number, _next_budget(trial, rungs))
        while True:
            if not any(_is_told(study.trials[number], budget) for number, budget in due.items()):
                self._fill(study, due, rungs, n_iter, size)
            if not due:
                break
            numbers = sorted(due, key=lambda number: due[number] or 0.0)
            for budget in dict.fromkeys(due[number] for number in numbers):
                batch = [study.trials[number] for number in numbers if due[number] == budget]
                batch = [one for one in batch if one.state is State.RUNNING and not _is_told(one, budget)]
                found = evaluated(batch, budget) if batch else []
                places = range(self._ledger.next - len(batch), self._ledger.next)
                for trial, (scores, fits), place in zip(batch, found, places, strict=True):
                    _tell(study, trial, scores, budget, fits, place)
            ended = study.trials
            going_on = [ended[number] for number in numbers if ended[number].state is State.RUNNING]
            due = {trial.number: _next_budget(trial, rungs) for trial in going_on}
            study._store.meta[_ROUND] = list(due.items())
        if self._ledger.recalled and not self._ledger.rows:  # all is known; scikit-learn wants a fit
            good = [k for k, one in enumerate(self._ledger.recalled) if not all(map(_has_failed, one.fits))]
            chosen = self._ledger.recalled.pop(good[-1])  # there is one: a batch without any has no fits
            self._ledger.next = chosen.place
            evaluated([chosen.trial], chosen.budget)

    def _fill(
        self, study: Study, due: dict[int, float | None], rungs: tuple[float, ...], n_iter: int, size: int
    ) -> None:
        """Ask for what a round lacks of `size` candidates; `due` says which are in it, up to which budget.

        The store keeps the round, so that after a kill it is brought to its end before there is a next one.
        """
        if rungs:
            while len(due) < size and (trial := study._ask(owner=None, n_trials=n_iter)):
                due[trial.number] = _next_budget(trial, rungs)
                study._store.meta[_ROUND] = list(due.items())
        elif not due and len(study.trials) < n_iter:
            due.update(dict.fromkeys(one.number for one in study.ask(min(size, n_iter - len(study.trials)))))
            study._store.meta[_ROUND] = list(due.items())

    def _evaluated(
        self,
        evaluate_candidates: Callable[..., Mapping[str, Any]],
        candidates: list[dict[str, Any]],
        trials: list[Trial],
        budget: float | None,
        folds: _Folds,
        metrics: list[str],
    ) -> list[tuple[list[float], Any]]:
        """Each candidate's mean score by each metric, and what is to be kept of its fits."""
        more = [self._more(trial, budget) for trial in trials]
        if budget is not None and self.resource == "n_samples":
            folds = folds.of(budget)
        elif budget is not None:
            candidates = [{**candidate, self.resource: _amount(budget)} for candidate in candidates]
        first = len(self._ledger.rows[0]) if self._ledger.rows else len(self._ledger.recalled)
        try:
            results = evaluate_candidates(
                candidates, folds, more_results={name: [one[name] for one in more] for name in more[0]}
            )
        except ValueError as error:
            if not str(error).lstrip().startswith(_ALL_FAILED):
                raise
            warnings.warn(str(error), FitFailedWarning, stacklevel=2)
            for candidate, at in zip(candidates, more, strict=True):
                self._ledger.unscored.append(_Unscored(candidate, str(error), at, self._ledger.next))
                self._ledger.next += 1
            return [([float(self.error_score)] * len(metrics), str(error)) for _ in candidates]
        columns = [results[self._column(metric, results)] for metric in metrics]
        _, n_splits, out, _ = self._ledger.rows
        found = []
        for k in range(len(candidates)):
            row = (first + k) * n_splits
            fits = [_plain(fit) for fit in out[row : row + n_splits]]
            scores = [float(column[k - len(candidates)]) for column in columns]  # the latest come last
            found.append((scores, fits))
        return found

    def _recall(
        self, trial: Trial, candidate: dict[str, Any], budget: float | None, fits: Any, place: int
    ) -> None:
        """Take up what was kept of a candidate's fits, or the error where all of its batch failed."""
        self._ledger.next = max(self._ledger.next, place + 1)
        more = self._more(trial, budget)
        if more and self.resource != "n_samples":
            candidate = {**candidate, self.resource: more["n_resources"]}
        if isinstance(fits, str):
            self._ledger.unscored.append(_Unscored(candidate, fits, more, place))
        else:
            self._ledger.recalled.append(_Recalled(trial, budget, candidate, fits, more, place))

    def _more(self, trial: Trial, budget: float | None) -> dict[str, Any]:
        """What stands in a candidate's row besides."""
        return {} if budget is None else {"n_resources": _amount(budget), "trial": trial.number}

    def _check_same(self, study: Study, now: dict[str, Any]) -> None:
        """Refuse to mix a search with another that was kept under the same name."""
        if self.store is None:
            return
        meta = study._store.meta
        if "sklearn" not in meta and any(trial.is_own for trial in study.trials):
            raise SettingError(
                f"the study {self.study_name!r} in the store has trials that no GPBOSearchCV has asked for, "
                "whose values may mean something else; give this search another `study_name`."
            )
        kept = meta.setdefault("sklearn", now)
        for what, one in now.items():
            if kept.get(what) != one:
                hint = " or, for the same folds, a `cv` with a random_state" if what == "folds" else ""
                raise SettingError(
                    f"the search {self.study_name!r} in the store was begun with other {what}; give this one "
                    f"another `study_name`{hint}."
                )

    def _format_results(
        self, candidate_params: list[Any], n_splits: int, out: list[Any], more_results: Any = None
    ) -> dict[str, Any]:
        """The results in the order of the evaluations, with the candidates scikit-learn does not know of.

        Those from the store are put first in its lists, and last those of batches without any fit.
        """
        ledger = self._ledger
        fitted = range(ledger.next, ledger.next + len(candidate_params) - len(ledger.places))
        ledger.next = fitted.stop
        ledger.places = [
            *(one.place for one in ledger.recalled),
            *ledger.places,
            *fitted,
            *(one.place for one in ledger.unscored),
        ]
        candidate_params[:0] = [one.params for one in self._ledger.recalled]
        out[:0] = [fit for one in self._ledger.recalled for fit in one.fits]
        for name in more_results:
            more_results[name][:0] = [one.more[name] for one in self._ledger.recalled]
        self._ledger.recalled.clear()
        for one in self._ledger.unscored:
            candidate_params.append(one.params)
            out.extend([_failed_fit(out[0], one.error, self.error_score)] * n_splits)
            for name, value in one.more.items():
                more_results[name].append(value)
        self._ledger.unscored.clear()
        self._ledger.rows = candidate_params, n_splits, out, more_results
        order = sorted(range(len(candidate_params)), key=ledger.places.__getitem__)
        ordered = (
            [candidate_params[k] for k in order],
            n_splits,
            [fit for k in order for fit in out[k * n_splits : (k + 1) * n_splits]],
            {name: [values[k] for k in order] for name, values in more_results.items()},
        )
        with warnings.catch_warnings():  # `fit` says it once, at the end
            warnings.filterwarnings("ignore", "One or more of the .* scores are non-finite")
            return dict(super()._format_results(*ordered))

    def _select_best_index(self, refit: Any, refit_metric: str, results: Mapping[str, Any]) -> Any:
        """The best row; with a scheduler, of those with the most of the resource."""
        if callable(refit) or "n_resources" not in results:
            return super()._select_best_index(refit, refit_metric, results)
        finite = np.isfinite(results[f"mean_test_{refit_metric}"])
        amounts = np.where(finite | ~finite.any(), results["n_resources"], -math.inf)
        rows = np.flatnonzero(amounts == amounts.max())
        return rows[results[f"rank_test_{refit_metric}"][rows].argmin()]

    def _metrics(self) -> list[str]:
        """The names of what is to be maximised."""
        if self.scoring is None or isinstance(self.scoring, str) or callable(self.scoring):
            return ["score"]
        return [self.refit] if isinstance(self.refit, str) else list(self.scoring)

    def _column(self, metric: str, results: Mapping[str, Any]) -> str:
        column = f"mean_test_{metric}"
        if column in results:
            return column
        column = f"mean_test_{self.refit}"  # of a function that scores by several metrics
        if column not in results:
            raise SettingError(
                "`refit` must name the metric to be maximised where `scoring` is a function that returns "
                f"several, got {self.refit!r}."
            )
        return column

    def _rungs(self, space: SearchSpace) -> tuple[float, ...]:
        """Where trials without a bracket are compared."""
        if self.scheduler is None:
            if self.resource != "n_samples":
                raise SettingError(
                    f"`resource` {self.resource!r} needs a `scheduler`, such as gpbo.ASHA(1, 27)."
                )
            return ()
        if isinstance(self.scheduler, type) or not hasattr(self.scheduler, "rungs"):
            raise SettingError(
                f"`scheduler` must be an object such as gpbo.ASHA(100, 900), got {self.scheduler!r}."
            )
        if self.resource in space.parameters:
            raise SettingError(f"`resource` must not be searched as well, got {self.resource!r}.")
        known = self.estimator.get_params()
        if self.resource != "n_samples" and self.resource not in known:
            hint = did_you_mean(str(self.resource), known)
            raise SettingError(
                "`resource` must be 'n_samples' or a parameter of the estimator, "
                f"got {self.resource!r}.{hint}"
            )
        amount = known.get(self.resource)
        if amount is not None and as_finite(amount) is None:
            raise SettingError(
                f"`resource` must be 'n_samples' or a number among the estimator's parameters, got "
                f"{self.resource!r}, which is {amount!r}."
            )
        return getattr(self.scheduler, "stops", self.scheduler.rungs)


@dataclass(frozen=True, slots=True)
class _Unscored:
    """A candidate all of whose fits failed, what stands in its row besides, and which evaluation it was."""

    params: dict[str, Any]
    error: str
    more: dict[str, Any]
    place: int


@dataclass(frozen=True, slots=True)
class _Recalled:
    """A candidate of the store, with its fits in the form that scikit-learn has them in."""

    trial: Trial
    budget: float | None
    params: dict[str, Any]
    fits: list[dict[str, Any]]
    more: dict[str, Any]
    place: int


@dataclass(slots=True)
class _Ledger:
    """What one call of `fit` knows of its candidates.

    Attributes:
        rows: What the results are made of, as scikit-learn hands it over; empty before there are any.
        unscored: Candidates that have no row yet.
        recalled: Candidates of the store that have none yet.
        places: Of each row, which evaluation it was.
        next: Which evaluation the next one is.
        samples: Tells the samples from others.
        given: The samples, their targets and what else the splitter is given.
        study: The study at the end, in memory.
    """

    rows: tuple[Any, ...] = ()
    unscored: list[_Unscored] = field(default_factory=list)
    recalled: list[_Recalled] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    next: int = 0
    samples: str = ""
    given: tuple[Any, ...] = ()
    study: Study | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Ledger, ()  # scikit-learn sends the search to its workers with every fit


@dataclass(frozen=True)
class _Folds:
    """The folds of one search: the same for all candidates, and of an amount of samples the same part.

    Attributes:
        cv: The splitter, which may give other folds each time.
        seed: Addresses which samples are in a part; a larger part has those of a smaller one.
        stratified: Whether parts keep the shares of the classes.
        amounts: All that there will be, so that one beyond the samples, or too small to have every class, is
            refused before any fit.
        amount: How many of the samples the training sets are a part of; None for all.
        known: The splitter's folds, once they are known.
    """

    cv: Any
    seed: int
    stratified: bool
    amounts: Sequence[float] = ()
    amount: float | None = None
    known: list[tuple[Any, Any]] = field(default_factory=list)

    def of(self, amount: float) -> _Folds:
        """The same folds, with as many samples to learn from as an amount of all has."""
        return replace(self, amount=amount)

    def split(self, X: Any, y: Any = None, **options: Any) -> Iterator[tuple[Any, Any]]:
        """Indices to learn from and to test on, fold by fold."""
        n = _num_samples(X)
        if not self.known:
            folds = self.cv.split(X, y, **options)
            self.known.extend((np.asarray(train), np.asarray(test)) for train, test in folds)
            self._check_amounts(y, n)
        for train, test in self.known:
            yield (train if self.amount in (None, n) else self._part(train, y, n)), test

    def _check_amounts(self, y: Any, n: int) -> None:
        if not self.amounts:
            return
        if max(self.amounts) > n:
            raise SettingError(
                f"the scheduler's budgets must be at most the {n} samples, got {max(self.amounts)}."
            )
        least = min(self.amounts)
        for train, _ in self.known if self.stratified and np.ndim(y) == 1 else ():
            classes = len(np.unique(np.asarray(y)[train]))
            size = int(least * len(train) / n)
            if size < classes:
                enough = math.ceil(classes * n / len(train))
                raise SettingError(
                    f"the scheduler's budgets must leave a sample for each of the {classes} classes, but of "
                    f"{least} samples {size} are to learn from; begin with at least {enough}."
                )

    def _part(self, train: Any, y: Any, n: int) -> Any:
        order = np.random.RandomState(self.seed).permutation(len(train))
        if self.stratified and np.ndim(y) == 1:
            classes = np.asarray(y)[train][order]
            place = np.empty(len(train))  # of each sample within its class, from 0 to 1
            for one in np.unique(classes):
                its = np.flatnonzero(classes == one)
                place[its] = (np.arange(len(its)) + 0.5) / len(its)
            order = order[place.argsort(kind="stable")]
        return np.sort(train[order[: max(1, int((self.amount or n) * len(train) / n))]])


def _searched(given: Any) -> tuple[SearchSpace, dict[str, list[Any]]]:
    """The space, and the choices of those parameters that stand in it by their indices."""
    if isinstance(given, SearchSpace) or not isinstance(given, Mapping):
        return space_from_sklearn(given), {}
    objects = {
        name: list(choices)
        for name, choices in given.items()
        if isinstance(choices, list | tuple | np.ndarray) and not all(map(_is_plain, choices))
    }
    parameters = {
        name: Categorical(range(len(objects[name]))) if name in objects else to_parameter(name, one)
        for name, one in given.items()
    }
    return SearchSpace(parameters), objects


def _params(trial: Trial, objects: Mapping[str, list[Any]]) -> dict[str, Any]:
    """What the estimator is to be given."""
    return {name: objects[name][v] if name in objects else v for name, v in trial.config.items()}


def _amount(budget: float) -> float:
    return int(budget) if float(budget).is_integer() else budget


def _tell(
    study: Study, trial: Trial, scores: list[float], budget: float | None, fits: Any, place: int
) -> None:
    """Tell a trial's scores, and write on it what is kept of its fits and which evaluation they were."""

    def noted(now: Trial) -> Trial:
        return replace(now, info={**now.info, "fits": [*now.info.get("fits", ()), [budget, fits, place]]})

    study._tell(trial, scores, outcomes=None, budget=budget, seconds=None, noted=noted)


def _plain(fit: Mapping[str, Any]) -> dict[str, Any]:
    """What scikit-learn says of one fit, as values that JSON has."""
    return {
        name: _plain(value) if isinstance(value, dict) else getattr(value, "item", lambda v=value: v)()
        for name, value in fit.items()
    }


def _copied(study: Study) -> MemoryStore:
    store = MemoryStore()
    store.meta.update(study._store.meta)
    store.add(study.trials)
    return store


def _is_told(trial: Trial, budget: float | None) -> bool:
    """Whether its fits with this budget are known."""
    return any(at == budget for at, _, _ in trial.info.get("fits", ()))


def _has_failed(fit: Mapping[str, Any]) -> bool:
    return fit["fit_error"] is not None


def _is_plain(choice: Any) -> bool:
    """Whether a space can hold the choice itself."""
    if isinstance(choice, float | np.floating):
        return math.isfinite(choice)
    return isinstance(choice, _PLAIN)


def _next_budget(trial: Trial, rungs: tuple[float, ...]) -> float | None:
    """Where the trial is compared next, of what it was given."""
    spent = trial.observations[-1].budget if trial.observations else None
    if trial.bracket is not None:
        return trial.budget
    return next((rung for rung in rungs if rung > (spent or 0.0)), None)


def _failed_fit(like: Mapping[str, Any], error: str, score: Any) -> dict[str, Any]:
    """A fold's row, like another, of a fit that failed."""
    scores = {
        name: dict.fromkeys(like[name], score) if isinstance(like[name], dict) else score
        for name in ("test_scores", "train_scores")
        if name in like
    }
    return {**like, **scores, "fit_time": math.nan, "score_time": math.nan, "fit_error": error}
