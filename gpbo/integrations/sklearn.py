"""gpbo in scikit-learn: a search estimator like `RandomizedSearchCV`, whose candidates are proposed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import sklearn
from sklearn.base import is_classifier
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils import check_random_state
from sklearn.utils.validation import _num_samples

from gpbo.checks import whole
from gpbo.errors import MissingExtraError, SettingError, did_you_mean
from gpbo.integrations.hosts import check_tested, release
from gpbo.integrations.sklearn_space import space_from_sklearn, to_parameter
from gpbo.parameters import Categorical
from gpbo.space import SearchSpace
from gpbo.study import Study
from gpbo.trial import State, Trial

if TYPE_CHECKING:
    from gpbo.schedulers.base import Scheduler
    from gpbo.suggesters.base import Suggester

__all__ = ["GPBOSearchCV", "space_from_sklearn"]

if release(sklearn.__version__) < (1, 9):  # before, a search was not told how its samples are split
    raise MissingExtraError(
        f"GPBOSearchCV needs scikit-learn 1.9, this is {sklearn.__version__}; "
        "pip install 'scikit-learn>=1.9'."
    )
check_tested("scikit-learn", sklearn.__version__, "1.9", "1.9")

_ALL_FAILED = "All the "  # how scikit-learn's message begins when no fit of a batch has succeeded
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

    def fit(self, X: Any, y: Any = None, **params: Any) -> GPBOSearchCV:
        """The search itself, fitted.

        Args:
            X: The samples.
            y: Their targets, if there are any.
            **params: What the estimator's `fit`, the splitter (``groups``) and the scorers are given.

        Raises:
            SettingError: if an argument of the search breaks its rule.
            SpaceError: if `param_distributions` holds what cannot be searched.
            ValueError: if the fits of all candidates fail.
        """
        self._ledger = _Ledger()
        try:
            super().fit(X, y, **params)
            if self._ledger.unscored:  # the last candidates of all have failed
                self.cv_results_ = self._format_results(*self._ledger.rows)
        finally:
            del self._ledger
        results: dict[str, Any] = self.cv_results_
        for name in [name for name in results if name.startswith(("mean_test_", "mean_train_"))]:
            if not np.isfinite(results[name]).all():
                warnings.warn(f"some of `{name}` are not finite: {results[name]}", stacklevel=2)
        return self

    def _run_search(self, evaluate_candidates: Callable[..., Mapping[str, Any]]) -> None:
        """Asks for candidates and tells of them, until there are `n_iter` and none is to go on."""
        n_iter = whole("n_iter", self.n_iter, low=1)
        size = math.ceil(joblib.effective_n_jobs(self.n_jobs) / self.n_splits_)
        size = size if self.batch_size is None else whole("batch_size", self.batch_size, low=1)
        seed = int(check_random_state(self.random_state).randint(2**31))
        space, objects = _searched(self.param_distributions)
        metrics = self._metrics()
        study = Study(
            space,
            suggester=self.suggester,
            scheduler=self.scheduler,
            direction=["maximize"] * len(metrics),
            seed=seed,
        )
        rungs = self._rungs(space)
        folds = _Folds(
            self._checked_cv_orig,
            seed,
            stratified=is_classifier(self.estimator),
            largest=rungs[-1] if rungs and self.resource == "n_samples" else None,
        )
        running: list[Trial] = []
        while True:
            if rungs:
                asked = (study._ask(owner=None, n_trials=n_iter) for _ in range(size - len(running)))
                running += [trial for trial in asked if trial is not None]
            elif len(study.trials) < n_iter:
                running = study.ask(min(size, n_iter - len(study.trials)))
            if not running:
                break
            due = {trial.number: _next_budget(trial, rungs) for trial in running}
            going_on = []
            for budget in sorted(set(due.values()), key=lambda b: b or 0.0):
                batch = [trial for trial in running if due[trial.number] == budget]
                candidates = [
                    {name: objects[name][v] if name in objects else v for name, v in trial.config.items()}
                    for trial in batch
                ]
                scores = self._evaluated(evaluate_candidates, candidates, batch, budget, folds, metrics)
                told = [study.tell(t, score, budget=budget) for t, score in zip(batch, scores, strict=True)]
                going_on += [trial for trial in told if trial.state is State.RUNNING]
            running = going_on
        if not self._ledger.rows:
            raise ValueError(self._ledger.unscored[-1].error)

    def _evaluated(
        self,
        evaluate_candidates: Callable[..., Mapping[str, Any]],
        candidates: list[dict[str, Any]],
        trials: list[Trial],
        budget: float | None,
        folds: _Folds,
        metrics: list[str],
    ) -> list[list[float]]:
        """Each candidate's mean score by each metric."""
        more: dict[str, list[Any]] = {}
        if budget is not None:
            amount = int(budget) if float(budget).is_integer() else budget
            more = {"n_resources": [amount] * len(trials), "trial": [trial.number for trial in trials]}
            if self.resource == "n_samples":
                folds = folds.of(amount)
            else:
                candidates = [{**candidate, self.resource: amount} for candidate in candidates]
        first = len(self._ledger.rows[0]) if self._ledger.rows else 0
        try:
            results = evaluate_candidates(candidates, folds, more_results=more)
        except ValueError as error:
            if not str(error).lstrip().startswith(_ALL_FAILED):
                raise
            warnings.warn(str(error), FitFailedWarning, stacklevel=2)
            for k, candidate in enumerate(candidates):
                at = {name: values[k] for name, values in more.items()}
                self._ledger.unscored.append(_Unscored(candidate, str(error), at))
            return [[float(self.error_score)] * len(metrics) for _ in candidates]
        columns = [results[self._column(metric, results)] for metric in metrics]
        return [[float(column[first + k]) for column in columns] for k in range(len(candidates))]

    def _format_results(
        self, candidate_params: list[Any], n_splits: int, out: list[Any], more_results: Any = None
    ) -> dict[str, Any]:
        """The results, with the candidates that scikit-learn left out because all fits of a batch failed."""
        for one in self._ledger.unscored:
            candidate_params.append(one.params)
            out.extend([_failed_fit(out[0], one.error, self.error_score)] * n_splits)
            for name, value in one.more.items():
                more_results[name].append(value)
        self._ledger.unscored.clear()
        self._ledger.rows = candidate_params, n_splits, out, more_results
        with warnings.catch_warnings():  # `fit` says it once, at the end
            warnings.filterwarnings("ignore", "One or more of the .* scores are non-finite")
            return dict(super()._format_results(candidate_params, n_splits, out, more_results))

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
        if self.resource in space.parameters:
            raise SettingError(f"`resource` must not be searched as well, got {self.resource!r}.")
        if self.resource != "n_samples" and self.resource not in self.estimator.get_params():
            hint = did_you_mean(str(self.resource), self.estimator.get_params())
            raise SettingError(
                "`resource` must be 'n_samples' or a parameter of the estimator, "
                f"got {self.resource!r}.{hint}"
            )
        return getattr(self.scheduler, "stops", self.scheduler.rungs)


@dataclass(frozen=True, slots=True)
class _Unscored:
    """A candidate all of whose fits failed, and what stands in its row besides."""

    params: dict[str, Any]
    error: str
    more: dict[str, Any]


@dataclass(slots=True)
class _Ledger:
    """What one call of `fit` knows of its candidates.

    Attributes:
        rows: What the results are made of, as scikit-learn hands it over; empty before there are any.
        unscored: Candidates that have no row yet.
    """

    rows: tuple[Any, ...] = ()
    unscored: list[_Unscored] = field(default_factory=list)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Ledger, ()  # scikit-learn sends the search to its workers with every fit


@dataclass(frozen=True)
class _Folds:
    """The folds of one search: the same for all candidates, and of an amount of samples the same part.

    Attributes:
        cv: The splitter, which may give other folds each time.
        seed: Addresses which samples are in a part; a larger part has those of a smaller one.
        stratified: Whether parts keep the shares of the classes.
        largest: The largest amount there will be, so that one beyond the samples is refused before any fit.
        amount: How many of the samples the training sets are a part of; None for all.
        known: The splitter's folds, once they are known.
    """

    cv: Any
    seed: int
    stratified: bool
    largest: float | None = None
    amount: float | None = None
    known: list[tuple[Any, Any]] = field(default_factory=list)

    def of(self, amount: float) -> _Folds:
        """The same folds, with as many samples to learn from as an amount of all has."""
        return replace(self, amount=amount)

    def split(self, X: Any, y: Any = None, **options: Any) -> Iterator[tuple[Any, Any]]:
        """Indices to learn from and to test on, fold by fold."""
        n = _num_samples(X)
        if self.largest is not None and self.largest > n:
            raise SettingError(
                f"the scheduler's budgets must be at most the {n} samples, got {self.largest}."
            )
        if not self.known:
            folds = self.cv.split(X, y, **options)
            self.known.extend((np.asarray(train), np.asarray(test)) for train, test in folds)
        for train, test in self.known:
            yield (train if self.amount in (None, n) else self._part(train, y, self.amount / n)), test

    def _part(self, train: Any, y: Any, share: float) -> Any:
        order = np.random.RandomState(self.seed).permutation(len(train))
        if self.stratified and np.ndim(y) == 1:
            classes = np.asarray(y)[train][order]
            place = np.empty(len(train))  # of each sample within its class, from 0 to 1
            for one in np.unique(classes):
                its = np.flatnonzero(classes == one)
                place[its] = (np.arange(len(its)) + 0.5) / len(its)
            order = order[place.argsort(kind="stable")]
        return np.sort(train[order[: max(1, int(share * len(train)))]])


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
